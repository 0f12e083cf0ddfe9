"""Diffusion networks, step by step: every turn in RTL as numpy has it, and as the model counts."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hwsim import estimate, simulate
from hwsim.measure.file import opened
from hwsim.measure.sampling import Call, rest_of_host, sampling_of
from hwsim.simulator.accelerator import Surroundings
from tests.hwsim.measure.runs import require_run
from tests.hwsim.programs import SMALL
from tests.vq.integer.steps.networks import stored
from vq import SSVQ, Int8, Recipe
from vq.container import open_container
from vq.integer.graph import Node
from vq.integer.steps import read_steps

MEMORY = "ideal:bytes_per_cycle=8,latency=20"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Convolutions, linears and residuals, with a host between them."""
    return stored("unet", tmp_path_factory.mktemp("unet"))[0]


@pytest.mark.rtl
def test_a_step_is_bit_exact_and_counts_as_the_model_does(path: Path) -> None:
    settings = {"config": SMALL, "memory": MEMORY}
    told: list[tuple[str, int, int]] = []
    document = simulate(path, **settings, check=True, progress=lambda *facts: told.append(facts))
    whole = estimate(path, **settings)
    for name, run in document["runs"].items():
        require_run(run)
        for count in ("cycles", "bytes_read", "bytes_written", "bursts", "busy_cycles"):
            assert whole["runs"][name][count] == 4 * run[count], (name, count)
        assert whole["runs"][name]["bytes_by"]["weights"] == 4 * run["bytes_by"]["weights"]
    assert {name for name, *_ in told} == {"compressed", "int8"}
    assert (document["sampling"]["calls"], whole["sampling"]["calls"]) == (1, 4)
    assert whole["speedup"] == document["speedup"]
    ours, int8 = (document["runs"][name]["bytes_by"]["weights"] for name in ("compressed", "int8"))
    assert ours < int8
    assert "runtime" not in document


@pytest.mark.rtl
def test_the_last_step_of_a_transformer_is_bit_exact(tmp_path: Path) -> None:
    """Linears on rows, with other numbers than at the first step."""
    path, _ = stored("dit", tmp_path)
    with opened(path, SMALL) as (container, _):
        call = Call.of(container, container, SMALL, place=3)
        around = Surroundings(memory=MEMORY)
        run = call.simulated(SMALL, around, check=True)
        assert run.bit_exact
        assert run.cycles == call.predicted(SMALL, MEMORY).cycles
        wrong = replace(call, time=900)  # what the host puts there is of another step
        assert wrong.simulated(SMALL, around).bit_exact is False


@pytest.mark.rtl
def test_codewords_are_loaded_once_in_a_call(tmp_path: Path) -> None:
    """Weights of another kind under the same activations."""
    shared = SSVQ(d=8, k=16, shared="convolutions", tile_outputs=SMALL.rows)
    recipe = Recipe({"*conv*": shared, "*": Int8(tile_outputs=SMALL.rows)})
    path, _ = stored("tiny", tmp_path, recipe=recipe)
    document = simulate(path, config=SMALL, memory=MEMORY, check=True)
    require_run(document["runs"]["compressed"])
    assert document["runs"]["compressed"]["bytes_by"]["codebooks"] == 16 * 8
    whole = estimate(path, config=SMALL, memory=MEMORY)
    assert whole["runs"]["compressed"]["cycles"] == 4 * document["runs"]["compressed"]["cycles"]


def test_each_turn_is_a_program_in_one_memory(path: Path) -> None:
    with opened(path, SMALL) as (container, _):
        call = Call.of(container, container, SMALL)
        last = Call.of(container, container, SMALL, place=3)
    turns = call.model.graph.turns()[1::2]
    assert len(call.programs) == len(turns)
    ends = [program.end for program in call.programs]
    assert ends == sorted(set(ends))
    places = call.programs[-1].places
    assert len({tensor.name for tensor in places}) == len(places)
    assert (call.time, last.time) == (900, 50)
    numbers = [one.programs[0].layers[0].step.numbers for one in (call, last)]
    assert not np.array_equal(numbers[0].multiplier, numbers[1].multiplier)


def test_what_the_host_does_is_named_and_counted(path: Path) -> None:
    with open_container(path) as container:
        model = read_steps(container)
    nodes = {node.name: node for node in model.graph.nodes}
    rest = rest_of_host(model, SMALL, calls=4)
    found = {layer.name: layer for layer in rest.layers}
    assert {layer.op for layer in rest.layers} == {
        "quantize", "sum", "difference", "product", "silu", "group_norm", "attention", "concat",
        "permute", "upsample",
    }  # fmt: skip
    assert not any(isinstance(nodes[name], Node) for name in found)
    norm = found["down_0_norm1"]
    assert (norm.elements, norm.macs, norm.cycles) == (4 * 8 * 8 * 8, 0, 4 * 8 * 8)
    attention = found["scaled_dot_product_attention"]
    assert attention.macs == 4 * 2 * 2 * 16 * 16 * 8  # q k^T and shares v, of two heads
    assert rest.macs == attention.macs
    sampling = sampling_of(model, 4)
    assert sampling.turns == len(model.graph.turns()) // 2
    rounded = [node for node in nodes.values() if node.op == "quantize"]
    assert sampling.bytes_to_device == 4 * sum(int(np.prod(node.shape)) for node in rounded)
    assert 0 < sampling.bytes_from_device < sampling.bytes_to_device
