"""The comparison with SCALE-Sim: closed forms of both sides against what they describe."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.scale_sim import folds
from hwsim.cycles import predict
from hwsim.memory import IdealMemory
from hwsim.program import assemble
from hwsim.program.records import LayerRecord
from hwsim.workloads import Workload, WorkloadLayer, plan_workload, read_topology, write_topology
from rtl import RUN_CAUSES, AcceleratorConfig
from vq import Int8, Recipe

ROOT = Path(__file__).parents[2]

NEEDS_SCALE_SIM = pytest.mark.skipif(
    importlib.util.find_spec("scalesim") is None, reason="the extra `peers` is not installed"
)
LINEARS = (
    WorkloadLayer("whole", "linear", 16, 8, rows=8),
    WorkloadLayer("ragged", "linear", 33, 13, rows=5),
    WorkloadLayer("one row", "linear", 20, 30),
)
CONVOLUTIONS = (
    WorkloadLayer("strided", "conv2d", 3, 10, height=9, width=7, kernel=(3, 3), stride=(2, 2)),
    WorkloadLayer("depthwise", "conv2d", 5, 5, height=6, width=6, kernel=(3, 3), groups=5),
)


def run(*command, cwd=None):
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *map(str, command)], cwd=cwd, env=env, capture_output=True, text=True
    )


def counted(layers, config):
    """The record of each layer in the cycle model, and the positions of its descriptors."""
    planned = plan_workload(Workload("w", tuple(layers)), Recipe({"*": Int8()}), config)
    program = assemble(planned.steps, planned.file, config)
    memory = IdealMemory(bytes_per_cycle=config.bus_bytes, latency_cycles=20)
    records = predict(config, program, memory).records
    found = {}
    for layer, record in zip(program.layers, records, strict=True):
        of_layer, strips = found.setdefault(layer.step.name, ([], []))
        of_layer.append(record)
        strips.append(layer.rows * layer.step.target.width)
    return [
        (
            LayerRecord(
                sum(r.cycles for r in of_layer),
                sum(r.busy_cycles for r in of_layer),
                {cause: sum(r.stall_cycles[cause] for r in of_layer) for cause in RUN_CAUSES},
            ),
            strips,
        )
        for of_layer, strips in found.values()
    ]


@NEEDS_SCALE_SIM
@pytest.mark.parametrize("dataflow", folds.DATAFLOWS)
@pytest.mark.parametrize("bandwidth", [None, 4])
def test_scale_sim_reports_what_its_closed_form_says(tmp_path, dataflow, bandwidth):
    for number, layers in enumerate((LINEARS, CONVOLUTIONS)):
        path = tmp_path / f"{number}.csv"
        write_topology(Workload("w", layers), path)
        job = {
            "topology": str(path),
            "gemm": layers is LINEARS,
            "rows": 8,
            "columns": 8,
            "dataflow": dataflow,
            "bandwidth": bandwidth,
        }
        (tmp_path / "job.json").write_text(json.dumps(job))
        done = run(ROOT / "bench" / "scale_sim" / "tools.py", "scale-sim", tmp_path / "job.json")
        assert done.returncode == 0, done.stderr
        rows = [row["cycles"] - row["stall_cycles"] for row in json.loads(done.stdout)["layers"]]
        # A depthwise convolution is a row for each channel there.
        counts = [layer.groups for layer in read_topology(path).layers]
        got = [sum(rows[sum(counts[:i]) :][:n]) for i, n in enumerate(counts)]
        assert got == [folds.folds(layer, 8, 8, dataflow).cycles for layer in layers]


def layers_of_topologies():
    size = st.integers(1, 12)
    linear = st.builds(
        lambda inputs, outputs, rows: WorkloadLayer("l", "linear", inputs, outputs, rows=rows),
        st.integers(1, 90),
        st.integers(1, 70),
        st.integers(1, 450),
    )

    def convolution(inputs, outputs, height, width, kernel, stride, depthwise):
        return WorkloadLayer(
            "c",
            "conv2d",
            inputs,
            inputs if depthwise else outputs,
            height=height + 2,
            width=width + 2,
            kernel=(kernel, kernel),
            stride=(stride, stride),
            groups=inputs if depthwise else 1,
        )

    conv = st.builds(
        convolution,
        st.integers(1, 40),
        st.integers(1, 40),
        size,
        size,
        st.integers(1, 3),
        st.integers(1, 2),
        st.booleans(),
    )
    return linear | conv


@settings(deadline=None, max_examples=60)
@given(
    layer=layers_of_topologies(),
    edge=st.sampled_from([8, 16]),
    scale_lanes=st.sampled_from([1, 2, 8]),
)
def test_parts_of_our_cycles_are_exact_and_sum_up(layer, edge, scale_lanes):
    config = AcceleratorConfig(
        bus_bits=64, rows=edge, columns=edge, d_max=8, scale_lanes=scale_lanes, accumulators=200
    )
    ((record, strips),) = counted([layer], config)
    parts = folds.our_parts(layer, strips, config, record)
    assert sum(parts.values()) == record.cycles
    assert parts["vectors"] == record.busy_cycles
    # Of a depthwise layer's last block, channels that are not there are walked over all the same.
    channels = -(-layer.groups // edge) * edge if layer.groups > 1 else 1
    theirs = folds.folds(layer, edge, edge).vectors
    assert parts["vectors"] * layer.groups == theirs * channels
    # Without tiles that come in parts of beats, only the two ends of a layer are left.
    whole = layer.outputs % edge == 0 and (layer.weights // layer.outputs) % (64 // edge) == 0
    if whole:
        assert parts["ragged tiles"] == 0
        assert abs(parts["rest"]) <= len(strips) * (5 * edge // scale_lanes + edge)


def test_our_closed_forms_by_hand():
    config = AcceleratorConfig(scale_lanes=8)  # 16x16, 128 bits
    linear = WorkloadLayer("a", "linear", 64, 32, rows=100)
    (_, (record, strips)) = counted([linear, linear_named("b", linear)], config)
    parts = folds.our_parts(linear, strips, config, record)
    # 2 blocks of 4 tiles; the last position of each block's requantising is hidden.
    assert parts["vectors"] == 2 * 4 * 100
    assert parts["requantiser"] == 2 * 99
    assert (parts["pieces"], parts["ragged tiles"]) == (0, 0)

    image = WorkloadLayer("c", "conv2d", 3, 16, height=10, width=10, kernel=(3, 3))
    ((record, strips),) = counted([image], config)
    # 27 weights are 16, of 5 taps and a third, and 11, of the rest of that and 3 more.
    assert folds.our_parts(image, strips, config, record)["pieces"] == 64 * (6 - 1 + 4 - 1)

    patches = WorkloadLayer("p", "conv2d", 3, 16, height=8, width=8, kernel=(4, 4), stride=(4, 4))
    ((record, strips),) = counted([patches], config)
    assert folds.our_parts(patches, strips, config, record)["pieces"] == 0

    classifier = WorkloadLayer("d", "linear", 64, 24)
    ((record, strips),) = counted([classifier], config)
    # The last 8 outputs come input by input, 16 for each of 4 tiles, beside one vector.
    assert folds.our_parts(classifier, strips, config, record)["ragged tiles"] == 4 * (16 - 1)

    odd = WorkloadLayer("e", "linear", 27, 14, rows=2)
    ((record, strips),) = counted([odd], config)
    # 2 of 14 outputs at once; 16 inputs before the first vector, 11 beside two of them.
    assert folds.our_parts(odd, strips, config, record)["ragged tiles"] == 7 * 11 - 2


def linear_named(name, layer):
    return WorkloadLayer(name, "linear", layer.inputs, layer.outputs, rows=layer.rows)


def test_wrong_number_of_vectors_is_said():
    record = LayerRecord(9, 9, dict.fromkeys(RUN_CAUSES, 0))
    with pytest.raises(SystemExit, match=r"^whole: must be 8 vectors, not 9$"):
        folds.our_parts(LINEARS[0], [8], AcceleratorConfig(), record)


@pytest.mark.slow
@NEEDS_SCALE_SIM
def test_quick_bench_explains_every_cycle(tmp_path):
    done = run(
        ROOT / "bench" / "peers.py", "--quick", "--seeds", 1, "--json", "q.json", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "q.json").read_text())["rows"]
    why = {}
    for row in rows:
        if row["work"].endswith(", why"):
            why.setdefault(row["arm"], {})[row["metric"]] = row["mean"]
    assert why
    for parts in why.values():
        theirs = sum(value for name, value in parts.items() if name.startswith("their "))
        ours = sum(value for name, value in parts.items() if name.startswith("our "))
        assert parts["vectors"] + theirs == parts["scale-sim"]
        assert parts["vectors"] + ours == parts["signbook"]
