"""Dense exports: other programs' readers get the weights that the container decodes to."""

import tracemalloc

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import vq
from tests.vq.container.samples import KEPT, coded, int8
from tests.vq.models import Net
from vq import SSVQ, VQ, Int8, Recipe
from vq.container import ContainerError, Layer, open_container, write_container
from vq.errors import ConfigError, OutputError
from vq.export import export_dense, export_dram


def test_dense_is_what_the_container_decodes_to(every, tmp_path):
    path, samples = every
    out = tmp_path / "dense.safetensors"
    names = export_dense(path, out)
    found = load_file(out)
    assert set(names) == set(found) == {f"{s.name}.weight" for s in samples} | set(KEPT)
    for sample in samples:
        weight = found[f"{sample.name}.weight"].numpy()
        assert weight.dtype == np.float32
        assert np.array_equal(weight, sample.weight), sample.name
    assert found["t.weight"].shape == (10, 6)
    for name, kept in KEPT.items():
        raw = found[name].reshape(-1).view(torch.uint8).numpy().tobytes()
        assert (raw, tuple(found[name].shape)) == (kept.data, kept.shape)
    with safe_open(out, "pt") as file:
        assert file.metadata() == {"format": "pt"}


@pytest.mark.parametrize(("dtype", "kind"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_dense_in_half_precision_rounds_like_torch(tmp_path, dtype, kind):
    samples = [coded("a", shape=(9, 11), seed=5), int8("b", per_output=True)]
    path, out = tmp_path / "x.vq.safetensors", tmp_path / "dense.safetensors"
    write_container(path, [s.layer for s in samples], KEPT)
    export_dense(path, out, dtype=dtype)
    found = load_file(out)
    for sample in samples:
        want = torch.from_numpy(np.ascontiguousarray(sample.weight)).to(kind)
        assert torch.equal(found[f"{sample.name}.weight"], want)
    assert found["norm"].dtype == torch.float32


def test_weights_too_large_for_fp16_are_refused(tmp_path):
    layer = Layer.int8("big", integers=np.full((2, 3), 127, np.int8), scale=np.float32([1e4]))
    path, out = tmp_path / "x.vq.safetensors", tmp_path / "dense.safetensors"
    write_container(path, [layer])
    with pytest.raises(ContainerError, match=r"layer 'big': weight must fit fp16, not 1270000"):
        export_dense(path, out, dtype="fp16")
    assert not out.exists()
    with pytest.raises(ConfigError, match="dtype must be one of fp32, bf16, fp16, not 'int8'"):
        export_dense(path, out, dtype="int8")


def test_dense_loads_into_the_model(tmp_path):
    model = Net()
    vq.compress_(model, Recipe({"fc1": SSVQ(d=4, k=8), "fc2": VQ(d=4, k=8), "head": Int8()}))
    vq.save(model, tmp_path / "x.vq.safetensors")
    export_dense(tmp_path / "x.vq.safetensors", tmp_path / "dense.safetensors")
    fresh = Net()
    fresh.load_state_dict(load_file(tmp_path / "dense.safetensors"))
    x = torch.randn(5, 16)
    assert torch.equal(fresh.eval()(x), model.eval()(x))


def test_dense_needs_memory_for_about_one_layer(tmp_path):
    rng = np.random.default_rng(0)
    layers = [
        Layer.int8(
            f"fc{i}",
            integers=rng.integers(-128, 128, (512, 512)).astype(np.int8),
            scale=np.ones(1, np.float32),
        )
        for i in range(12)
    ]
    path = tmp_path / "x.vq.safetensors"
    write_container(path, layers)
    one_bytes = 4 * 512 * 512
    tracemalloc.start()
    try:
        export_dense(path, tmp_path / "dense.safetensors")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 5 * one_bytes


@pytest.mark.parametrize("tensor", ["a.stream", "a.codebook", "f.group_zeros", "norm"])
def test_damage_leaves_no_file(every, tmp_path, tensor):
    path, _ = every
    data = bytearray(path.read_bytes())
    with open_container(path) as file:
        data[file.tensor_spans()[tensor].offset] ^= 1
    path.write_bytes(data)
    for export in (export_dense, export_dram):
        with pytest.raises(ContainerError, match="the file is damaged"):
            export(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_unwritable_place_is_one_clear_error(every, tmp_path):
    with pytest.raises(OutputError, match="must be writable"):
        export_dense(every[0], tmp_path / "missing" / "x")


def test_exports_leave_the_integer_graph_out(tmp_path):
    """Its tensors are no part of the model."""
    from tests.vq.integer.test_store import small

    path, _, _ = small(tmp_path)
    export_dense(path, tmp_path / "dense.safetensors")
    with open_container(path) as file:
        assert any(name.startswith("_integer.") for name in file.kept_names)
    assert not any(
        name.startswith("_integer.") for name in load_file(tmp_path / "dense.safetensors")
    )
