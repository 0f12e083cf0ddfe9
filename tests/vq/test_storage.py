"""Save and load: the trained weights, the decoded file and the loaded model are the same bits."""

import copy
import functools
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import vq
from tests.processes import Group
from tests.vq.models import Net, batches
from tests.vq.test_compress import METHODS
from vq import SSVQ, VQ, Int8, Recipe
from vq.container import Layer, open_container, write_container
from vq.errors import ConfigError, ContainerError, OutputError
from vq.formats.model import compressed_layers


def compressed(recipe, *, epochs=2):
    model = Net()
    model.register_buffer("counter", torch.tensor(3))
    model.half_buffer = nn.Parameter(torch.randn(3).bfloat16(), requires_grad=False)
    vq.compress_(model, recipe, seed=5)
    vq.finetune_(model, batches(), epochs=epochs)
    return model


def fresh():
    model = Net()
    model.register_buffer("counter", torch.tensor(0))
    model.half_buffer = nn.Parameter(torch.zeros(3).bfloat16(), requires_grad=False)
    return model


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_trained_stored_and_loaded_weights_are_the_same_bits(tmp_path, method):
    path = tmp_path / "model.vq.safetensors"
    model = compressed(Recipe({"fc1": method, "fc2": method, "head": Int8()}))
    plan = vq.save(model, path)
    assert plan.file_bytes == path.stat().st_size
    loaded = vq.load(path, into=fresh())
    with open_container(path) as container:
        assert container.provenance.seed == 5
        for layer in compressed_layers(model):
            trained = layer.module.weight.detach()
            assert torch.equal(torch.from_numpy(container.weight(layer.name)), trained)
            assert torch.equal(loaded.get_submodule(layer.name).weight, trained)
    for name, tensor in loaded.state_dict().items():
        own = model.state_dict().get(name)
        assert own is None or (own.dtype == tensor.dtype and torch.equal(own, tensor)), name
    x = torch.randn(7, 16)
    assert torch.equal(model(x), loaded.eval()(x))


def test_loading_into_a_model_that_does_not_fit_changes_nothing(tmp_path):
    path = tmp_path / "model.vq.safetensors"
    vq.save(compressed(Recipe({"fc1": SSVQ()})), path)
    other = Net()
    other.fc2 = nn.Linear(48, 31)
    other.head = nn.Linear(31, 5, bias=False)
    other.extra = nn.Linear(2, 2)
    before = copy.deepcopy(other.state_dict())
    with pytest.raises(ContainerError) as error:
        vq.load(path, into=other)
    assert str(error.value).splitlines() == [
        f"{path}: fit to the model has 7 problems:",
        "- tensor 'counter' must be in the model",
        "- tensor 'extra.bias' must be in the file",
        "- tensor 'extra.weight' must be in the file",
        "- tensor 'fc2.bias' must have shape (31,), not (32,)",
        "- tensor 'fc2.weight' must have shape (31, 48), not (32, 48)",
        "- tensor 'half_buffer' must be in the model",
        "- tensor 'head.weight' must have shape (5, 31), not (5, 32)",
    ]
    assert all(torch.equal(before[name], t) for name, t in other.state_dict().items())


def test_damaged_file_changes_nothing(tmp_path):
    path = tmp_path / "model.vq.safetensors"
    vq.save(compressed(Recipe({"fc1": SSVQ()})), path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    model = fresh()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ContainerError, match="must match its sha256; the file is damaged"):
        vq.load(path, into=model)
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())


def test_plain_model_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"^model must hold a compressed layer, not none"):
        vq.save(Net(), tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_unwritable_place_is_one_clear_error(tmp_path):
    model = compressed(Recipe({"fc1": SSVQ()}), epochs=1)
    with pytest.raises(OutputError, match=r"missing/x: must be writable, not refused \(No such"):
        vq.save(model, tmp_path / "missing" / "x")


def test_part_of_a_model_is_saved_under_its_own_names(tmp_path):
    whole = nn.ModuleDict({"inner": Net(), "other": nn.Linear(2, 2)})
    vq.compress_(whole, Recipe({"inner.fc1": SSVQ(), "inner.fc2": Int8()}))
    vq.save(whole["inner"], tmp_path / "x")
    loaded = vq.load(tmp_path / "x", into=Net())
    assert torch.equal(loaded.fc1.weight, whole["inner"].fc1.weight)
    assert torch.equal(loaded.fc2.weight, whole["inner"].fc2.weight)


@pytest.mark.parametrize("method", METHODS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_cast_leaves_the_file_as_it_was(tmp_path, method, dtype):
    before, after = tmp_path / "before", tmp_path / "after"
    model = compressed(Recipe({"fc1": method, "head": Int8()}), epochs=1)
    vq.save(model, before)
    model.to(dtype).eval()
    vq.save(model, after)
    assert before.read_bytes() == after.read_bytes()
    x = torch.randn(7, 16, dtype=dtype)
    assert torch.equal(vq.load(after, into=fresh().to(dtype)).eval()(x), model(x))
    vq.save(copy.deepcopy(model).float(), after)  # and back
    assert before.read_bytes() == after.read_bytes()


def test_what_is_trained_after_a_cast_is_stored(tmp_path):
    model = compressed(Recipe({"fc1": Int8()})).half()
    with torch.no_grad():
        model.fc2.bias += 1
    vq.save(model, tmp_path / "x")
    with open_container(tmp_path / "x") as container:
        assert container.kept("fc2.bias").dtype == "F16"
        assert container.kept("fc2.weight").dtype == "F32"
    assert torch.equal(vq.load(tmp_path / "x", into=fresh()).fc2.bias.half(), model.fc2.bias)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, MemoryError])
@pytest.mark.parametrize("where", ["hook", "move"])
def test_a_load_that_fails_is_undone(tmp_path, where, error, monkeypatch):
    path = tmp_path / "model.vq.safetensors"
    vq.save(compressed(Recipe({"fc1": SSVQ()}), epochs=1), path)
    model = fresh()
    before, held = copy.deepcopy(model.state_dict()), dict(model.named_parameters())

    def stop(*arguments):
        raise error

    with monkeypatch.context() as patch:
        if where == "hook":
            model.head.register_load_state_dict_post_hook(stop)
        else:
            patch.setattr(nn.Module, "to", stop)
        with pytest.raises(error):
            vq.load(path, into=model, device="cpu")
    assert all(held[name] is parameter for name, parameter in model.named_parameters())
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    model.head._load_state_dict_post_hooks.clear()
    assert not torch.equal(vq.load(path, into=model).fc1.weight, before["fc1.weight"])


def test_a_file_that_is_damaged_at_its_end_changes_nothing(tmp_path):
    path = tmp_path / "model.vq.safetensors"
    vq.save(compressed(Recipe({"fc1": SSVQ(), "fc2": SSVQ()}), epochs=1), path)
    data = bytearray(path.read_bytes())
    with open_container(path) as container:
        data[next(e for e in container.layers if e.geometry.name == "fc2").stream.offset + 3] ^= 8
    path.write_bytes(data)
    model = fresh()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ContainerError, match="fc2"):
        vq.load(path, into=model)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize("name", ["nonsense", "cuda:77", "meta"])
def test_a_device_that_is_not_there_is_refused_before_work(tmp_path, name):
    model = Net()
    with pytest.raises(
        ConfigError, match=rf"^device must be one that this machine has, not '{name}"
    ):
        vq.load(tmp_path / "none", into=model, device=name)


def test_a_compressed_model_is_nothing_to_load_into(tmp_path):
    model = fresh()
    vq.compress_(model, Recipe({"*": vq.Int8()}), progress=False)
    vq.save(model, tmp_path / "x")
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(
        ConfigError, match=r"^model to load into must be as before its compression, b"
    ):
        vq.load(tmp_path / "x", into=model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def meta_net():
    with torch.device("meta"):
        return fresh()


@pytest.mark.parametrize("make", [fresh, meta_net])
def test_packed_models_are_loaded_without_dense_weights(tmp_path, make):
    path = tmp_path / "model.vq.safetensors"
    model = compressed(Recipe({"fc1": SSVQ(d=4, k=16), "fc2": VQ(d=4), "head": Int8()}))
    vq.save(model, path)
    loaded = vq.load(path, into=make(), packed=True, activations="exact").eval()
    x = torch.randn(7, 16)
    with torch.no_grad():
        assert torch.allclose(loaded(x), vq.load(path, into=fresh()).eval()(x), atol=1e-5)
    vq.save(loaded, tmp_path / "again")
    assert path.read_bytes() == (tmp_path / "again").read_bytes()
    with pytest.raises(ConfigError, match=r"'fc1', 'fc2', 'head' are compressed; give a fresh one"):
        vq.load(path, into=loaded)


def test_packed_loading_that_fails_changes_nothing(tmp_path):
    path = tmp_path / "model.vq.safetensors"
    vq.save(compressed(Recipe({"fc1": SSVQ()})), path)
    with pytest.raises(ContainerError, match="tensor 'counter' must be in the model"):
        vq.load(path, into=Net(), packed=True)
    with pytest.raises(
        ConfigError, match=r"^activations must be one of int8, int16, exact, not 'no'"
    ):
        vq.load(path, into=fresh(), packed=True, activations="no")
    model = meta_net()
    model.register_buffer("other", torch.empty(3, device="meta"), persistent=False)
    with pytest.raises(
        ConfigError, match=r"^model must have values for 'other', which are in no file"
    ):
        vq.load(path, into=model, packed=True)
    assert type(model.fc1) is nn.Linear and model.fc1.weight.is_meta
    data = bytearray(path.read_bytes())
    with open_container(path) as container:
        data[container.layers[0].stream.offset] ^= 1
    path.write_bytes(data)
    model = fresh()
    with pytest.raises(ContainerError, match="must match its sha256; the file is damaged"):
        vq.load(path, into=model, packed=True)
    assert type(model.fc1) is nn.Linear


def growth(small, large):
    """Load a file in a process of its own and print how far its memory grew meanwhile."""

    def memory(what):
        lines = Path("/proc/self/status").read_text().splitlines()
        (line,) = (line for line in lines if line.startswith(what))
        return 1024 * int(line.split()[1])

    def make(width):
        with torch.device("meta"):
            return nn.Sequential(*(nn.Linear(width, width, bias=False) for _ in range(6)))

    vq.load(small, into=make(64), packed=True, progress=False)
    Path("/proc/self/clear_refs").write_text("5")
    before = memory("VmRSS")
    vq.load(large, into=make(2048), packed=True, progress=False)
    print(memory("VmHWM") - before)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's peak memory")
def test_packed_loading_takes_the_memory_of_the_file(tmp_path):
    rng = np.random.default_rng(0)
    for width in (64, 2048):
        layers = [
            Layer.ssvq(
                str(i),
                codebook=rng.integers(0, 128, (16, 8)).astype(np.int8),
                indices=rng.integers(0, 16, width * width // 8),
                signs=rng.random((width * width // 8, 8)) < 0.5,
                scale=np.ones(1, np.float32),
                shape=(width, width),
            )
            for i in range(6)
        ]
        write_container(tmp_path / str(width), layers)
    call = functools.partial(growth, tmp_path / "64", tmp_path / "2048")
    with Group([call], tmp_path) as group:
        assert group.wait() == [0], group.errors()
    size = os.path.getsize(tmp_path / "2048")
    grown = int(group.output())
    assert size < grown < 2 * size + 4 * 2048 * 2048  # the file mapped, and packed
