"""Documents are read whole, or one error names the file and the field."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from hwsim.measure.document import Measurement, Rest
from hwsim.sweep.document import Sweep
from signbook.reporting.documents import read_document
from signbook.reporting.evaluated import Evaluated
from tests.signbook.documents import TOPOLOGY, measured, swept
from vq.errors import ConfigError


@pytest.fixture(scope="module")
def measurement(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("shapes") / "net.csv"
    path.write_text(TOPOLOGY.format(m=4))
    document = measured(str(path), memory="ddr4-2400:clock_mhz=500")
    read = Measurement.model_validate(document)
    norm = {"name": "norm", "op": "norm", "macs": 0, "elements": 64, "cycles": 4}
    rest = {"layers": [norm], "macs": 0, "elements": 64, "cycles": 4, "assumed": "nothing"}
    return Measurement.of(
        read.engine,
        document["accelerator"],
        document["memory"],
        read.runs,
        workload=read.workload,
        rest=Rest.model_validate(rest),
    ).to_json()


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("shapes") / "net.csv"
    path.write_text(TOPOLOGY.format(m=1))
    return swept({1: str(path)}, arrays=(16,), bandwidths=(1, 4))


def refused(tmp_path: Path, text: str) -> str:
    """The error of a document, without the name of its file, which it must begin with."""
    path = tmp_path / "document.json"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_document(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    return message.removeprefix(f"{path}: ")


def changed(document: dict[str, Any], place: tuple[Any, ...], value: Any) -> str:
    document = copy.deepcopy(document)
    at: Any = document
    for key in place[:-1]:
        at = at[key]
    if value is ...:
        del at[place[-1]]
    else:
        at[place[-1]] = value
    return json.dumps(document)


def test_real_documents_are_read(measurement, sweep, tmp_path):
    kinds = ((measurement, Measurement), (sweep, Sweep), (EVALUATED, Evaluated))
    for document, kind in kinds:
        path = tmp_path / "document.json"
        path.write_text(json.dumps(document | {"field of a later version": [1]}))
        assert isinstance(read_document(path), kind)


EVALUATED: dict[str, Any] = {
    "schema": "signbook.eval/1",
    "metrics": {"frechet": 2.0},
    "reference": {"frechet": 1.0},
    "protocol": {"tokenizer": "own", "stride_tokens": None},
    "samples": {"model": [[[0, 255]], [[3, 4]]], "reference": [[[0, 25]], [[3, 4]]]},
}


def test_what_follows_from_a_measurement(measurement):
    read = Measurement.model_validate_json(json.dumps(measurement))
    assert (read.multipliers, read.m, read.methods) == (256, 4, ["ssvq"])
    assert read.memory.bytes_per_cycle == pytest.approx(38.4, rel=1e-3)
    energy = read.runs["int8"].energy_by
    assert energy is not None and energy.read > 0


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("schema",), "signbook.simulate/9",
         "schema must be one of signbook.simulate/1, signbook.simulate/2, signbook.sweep/1, "
         "signbook.eval/1, not 'sig"),
        (("schema",), ..., "schema must be there"),
        (("engine",), "fpga", "engine must be 'rtl' or 'model', not 'fpga'"),
        (("accelerator", "rows"), 0, "accelerator.rows must be above 0, not 0"),
        (("memory", "name"), ..., "memory.name must be there"),
        (("memory", "clock_mhz"), float("nan"), "memory.clock_mhz"),
        (("runs",), {}, "runs"),
        (("runs", "int8"), 3, "runs.int8 must be"),
        (("runs", "int8", "cycles"), "12", "runs.int8.cycles must be a whole number, not '12'"),
        (("runs", "int8", "cycles"), float("nan"), "runs.int8.cycles must be"),
        (("runs", "int8", "bursts"), -1,
         "runs.int8.bursts must be at least 0, not -1"),
        (("runs", "int8", "bursts"), 1 << 61, "runs.int8.bursts must be at most"),
        (("runs", "int8", "layers", 1, "stall_cycles", "memory"), ...,
         "runs.int8.layers[1].stall_cycles.memory must be there"),
        (("runs", "int8", "layers", 1, "cycles"), 7,
         "runs.int8.layers[1]: cycles must be the sum of busy_cycles and stall_cycles, "),
        (("runs", "int8", "layers"), [], "runs.int8.layers"),
        (("runs", "int8", "layers", 0, "name"), "other",
         "runs.int8.layers must be those of runs.compressed, in order"),
        (("runs", "int8", "bytes_by", "padding"), 1 << 40,
         "runs.int8: bytes_read must be the sum of bytes_by, "),
        (("runs", "int8", "energy_by", "read"), 0.0,
         "runs.int8: energy_pj must be the sum of energy_by, "),
        (("speedup",), 100.0, "speedup must be "),
        (("speedup",), None, "speedup must be "),
        (("traffic_ratio",), float("inf"), "traffic_ratio must be a finite number, not inf"),
        (("rest", "cycles"), 10**9, "rest: cycles must be the sum of cycles of all layers, "),
    ],
)  # fmt: skip
def test_damaged_measurements(measurement, tmp_path, place, value, message):
    assert refused(tmp_path, changed(measurement, place, value)).startswith(message)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("rows", 0, "status"), "lost", "rows[0].status must be 'done', 'refused' or 'failed'"),
        (("rows", 0, "cycles"), None, "rows[0]: cycles must be there, because status is 'done'"),
        (("rows", 0, "speedup"), float("nan"), "rows[0].speedup must be a finite number, not nan"),
        (("rows", 0, "point", "target"), 4, "rows[0].point.target must be a text, not 4"),
        (("pareto",), [99], "pareto[0] must be the index of a done row, not 99"),
        (("pareto",), [0, 2], "pareto[1] must be the index of a done row, not 2"),
        (("objectives",), ["beauty"], "objectives[0] must be one of cycles, "),
    ],
)
def test_damaged_sweeps(sweep, tmp_path, place, value, message):
    assert refused(tmp_path, changed(sweep, place, value)).startswith(message)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("metrics",), ..., "metrics must be there"),
        (("metrics", "frechet"), "2", "metrics.frechet must be a number, not '2'"),
        (("metrics", "frechet"), float("nan"), "metrics.frechet must be a finite number, not nan"),
        (("reference",), [1], "reference must be an object, not [1]"),
        (("protocol", "tokenizer"), [1], "protocol.tokenizer"),
        (("samples", "model"), ..., "samples.model must be there"),
        (("samples", "model"), [], "samples.model must hold at least 1, not 0"),
        (("samples", "model", 1), [[]], "samples.model[1][0] must hold at least 1, not 0"),
        (("samples", "model", 0, 0, 1), -1, "samples.model[0][0][1] must be at least 0, not -1"),
        (("samples", "model", 0, 0, 1), 0.5, "samples.model[0][0][1] must be a whole number, not"),
        (
            ("samples", "model", 1),
            [[3]],
            "samples: images must be of one size, as many of both models",
        ),
        (
            ("samples", "reference"),
            [[[0, 1]]],
            "samples: images must be of one size, as many of both models",
        ),
    ],
)
def test_damaged_evaluations(tmp_path, place, value, message):
    assert refused(tmp_path, changed(EVALUATED, place, value)).startswith(message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must be JSON, but it is none from here on (line 1 column 0)"),
        (
            '{"schema": "signbook.simulate/1"',
            "must be JSON, but it is none from here on (line 1 column 32)",
        ),
        ("[]", "it must be an object, not []"),
        ("[" * 100_000, "must be JSON, but it is none from here on (line 1 column 2"),
        ('{"schema": 1}', "schema must be a text, not 1"),
        ('{"schema": "signbook.sweep/1"}', "objectives must be there; rows must be there; pareto"),
    ],
)
def test_what_is_no_document(tmp_path, text, message):
    assert refused(tmp_path, text).startswith(message)


def test_many_problems_are_cut(measurement, tmp_path):
    layers = [{} for _ in range(50)]
    message = refused(tmp_path, changed(measurement, ("runs", "int8", "layers"), layers))
    assert message.count(";") == 5 and message.endswith(" more")


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match=r"absent\.json: must be a readable file, but No such"):
        read_document(tmp_path / "absent.json")
    (tmp_path / "bytes.json").write_bytes(b'{"schema": "\xff\xfe"}')
    with pytest.raises(ConfigError, match=r"bytes\.json: must be JSON"):
        read_document(tmp_path / "bytes.json")
