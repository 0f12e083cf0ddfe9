"""What the trained networks cost on the accelerator: formats of their benches, counted alike."""

import json

import pytest

from bench import real_accelerator as bench
from hwsim import estimate_workload
from hwsim.workloads import Workload, WorkloadLayer, plan_workload, workload
from vq import VQ, Int2, Int8, Recipe

NAMES = [f"model.layers.0.self_attn.{x}_proj" for x in "qkv"]


def tiny():
    """Three projections of one block, and a tied head."""
    layers = [
        WorkloadLayer("model.embed_tokens", "embedding", 40, 48),
        *(WorkloadLayer(name, "linear", 48, 64) for name in NAMES),
        WorkloadLayer("lm_head", "linear", 48, 40, shares="model.embed_tokens"),
    ]
    return Workload("tiny", tuple(layers))


@pytest.mark.parametrize("work", bench.LANGUAGE)
def test_smollm2_is_stored_as_its_bench_does(work):
    arms = bench.recipes_of(work)
    runs = {"smollm2@3.1": (4, 256, False), "smollm2@4.1": (2, 64, False)}.get(work)
    beside = [f"ssvq d={runs[0]}"] if runs else []
    assert list(arms) == ["int8", "ssvq", "vq", *beside, "scalar g192z", "scalar g144"]
    for arm in beside:
        books = [rule for rule in arms[arm].rules.values() if rule != Int8()]
        assert {(book.d, book.k, book.parity) for book in books} == {runs}
    layers = [
        layer.name
        for layer in workload(bench.shapes_of(work)).expanded().layers
        if layer.weight_shape and not layer.shares
    ]
    for recipe in arms.values():
        chosen = recipe.resolve(layers)
        assert chosen[bench.EMBEDDING] == Int8() and None not in chosen.values()
    assert chosen[NAMES[0]].to_json() == {
        "method": f"int{work[-3]}", "group": 144, "zeros": False, "tile_outputs": 16,
    }  # fmt: skip
    books, block = arms["ssvq"].resolve(layers), "model.layers.3"
    attention = [books[f"{block}.self_attn.{x}_proj"].shared for x in "qkvo"]
    ffn = [books[f"{block}.mlp.{x}_proj"].shared for x in ("gate", "up", "down")]
    assert attention + ffn == ["3.qkv"] * 3 + ["3.o", "3.gate-up", "3.gate-up", "3.down"]


def test_lite0_has_one_codebook_and_int8_where_it_must():
    for work in bench.VISION:
        asked = ("stem", "blocks.3.depthwise", "blocks.3.expand", "fc")
        names = ["stem", "blocks.3.expand", "blocks.3.depthwise", "blocks.3.project", "head", "fc"]
        for arm, recipe in bench.recipes_of(work).items():
            chosen = recipe.resolve(names)
            stem, depthwise, expand, fc = (chosen[name] for name in asked)
            assert stem == depthwise == Int8() and expand == fc and None not in chosen.values()
            assert expand.name == arm and (arm == "int8" or expand.shared)


def test_whole_networks_fit_the_instance():
    """Lite0's widest row of a depthwise layer needs these buffers, SmolLM2's head half of them."""
    lite0 = workload("efficientnet-lite0")
    recipe = bench.recipes_of("lite0@2.3")["ssvq"]
    assert not plan_workload(lite0, recipe, bench.CONFIG).left_out
    smaller = bench.AcceleratorConfig(input_bytes=1 << 17, output_bytes=1 << 17)
    with pytest.raises(bench.ConfigError, match=r"layer 'blocks\.11\.depthwise': one row of 7 "):
        estimate_workload(lite0, recipe, config=smaller, methods=())


def test_counted_bytes_are_those_of_a_run(monkeypatch):
    """For a d that the hardware has, both ways agree; for another, there are bytes alone."""
    monkeypatch.setattr(bench, "workload", lambda text: tiny())
    bench._baseline.cache_clear()
    recipe = Recipe({"*": VQ(d=4, k=16, shared="qkv"), "model.embed_tokens": Int8()})
    run = bench.measured("smollm2@2.1", recipe)
    int8 = bench.measured("smollm2@2.1", bench.INT8)
    swapped = bench.streamed_bytes(tiny(), recipe) - bench.streamed_bytes(tiny(), bench.INT8)
    assert run["bytes_read"] == int8["bytes_read"] + swapped < int8["bytes_read"]
    assert int8["speedup"] == int8["energy_ratio"] == 1
    assert run["speedup"] > 1 and run["blocks_speedup"] > run["speedup"] > run["with_rest"]
    odd = Recipe({"*": VQ(d=3, k=16, shared="qkv"), "model.embed_tokens": Int8()})
    assert set(bench.measured("smollm2@3.1", odd)) == {
        "bits_per_weight", "bytes_read", "traffic_ratio",
    }  # fmt: skip
    bench._baseline.cache_clear()


def test_bits_are_those_of_the_blocks(monkeypatch):
    monkeypatch.setattr(bench, "workload", lambda text: tiny())
    bench._baseline.cache_clear()
    recipe = Recipe({"*": Int2(group=48), "model.embed_tokens": Int8()})
    assert bench.measured("smollm2@2.1", recipe)["bits_per_weight"] == pytest.approx(2 + 16 / 48)
    bench._baseline.cache_clear()


def test_it_draws_with_documents_of_others(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bench, "measured", lambda *_: {"bits_per_weight": 2.0, "bytes_read": 5.0})
    other = {"work": "smollm2@2.1", "metric": "perplexity", "stderr": 0.0, "bits_per_weight": 2.0}
    rows = [other | {"arm": "fp32", "mean": 27.0}, other | {"arm": "qep-ssvq", "mean": 54.0}]
    (tmp_path / "language.json").write_text(json.dumps({"rows": rows}))
    argv = ["x", "--quick", "--plot", "figure.svg", "--beside", "language.json"]
    monkeypatch.setattr("sys.argv", argv)
    bench.main()
    figure = (tmp_path / "figure.svg").read_text()
    assert "SmolLM2-135M" in figure and "SSVQ, QEP" in figure
