"""The tables of a document."""

from pathlib import Path

import pytest

from hwsim import estimate, estimate_workload
from hwsim.workloads import workload
from rtl import RUN_CAUSES
from signbook.commands.tables import layer_rows, rest_rows, run_rows, summary_rows
from tests.hwsim.containers import Maker, write
from tests.hwsim.programs import SMALL


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    make = Maker(0)
    layers = [make.ssvq(name, (24, 64), 8, 16, tile_outputs=SMALL.rows) for name in "ab"]
    return write(tmp_path_factory.mktemp("file") / "two.vq.safetensors", layers)


def test_tables(file: Path) -> None:
    document = estimate(file, config=SMALL, memory="ddr4-2400", methods=("int8", "int4"))
    rows = {row[""]: row for row in run_rows(document)}
    run = document["runs"]["int4"]
    assert rows["cycles"]["int4"] == f"{run['cycles']:,}"
    shares = [
        float(row["int4"].rstrip("%"))
        for name, row in rows.items()
        if name == "busy" or name.startswith("waits for")
    ]
    assert len(shares) == 1 + len(RUN_CAUSES) and sum(shares) == pytest.approx(100, abs=0.4)
    assert rows["  read"]["int4"] == f"{run['energy_by']['read'] / 1e6:,.3f}"
    assert rows["  array"]["int4"] == f"{run['logic_by']['array'] / 1e6:,.3f}"
    assert "bit-exact" not in rows  # no data are moved
    title, layers = layer_rows(document)
    assert title == "layers" and [row["name"] for row in layers] == ["a", "b"]
    assert layers[1]["int8 cycles"] == document["runs"]["int8"]["layers"][1]["cycles"]
    assert rest_rows(document) == []
    assert summary_rows(document)[0] == ("speed-up over int8", f"{document['speedup']:.3f}x")
    alone = estimate(file, config=SMALL, methods=())
    assert "memory energy, µJ" not in {row[""] for row in run_rows(alone)}
    assert summary_rows(alone)[0] == ("speed-up over int8", "no int8 run")


def test_tables_of_a_large_workload() -> None:
    """Not every one of a hundred layers; what is not run, by operation."""
    document = estimate_workload(
        workload("llama-2-7b"), "int8", memory="ideal", methods=(), once=True
    )
    run = document["runs"]["compressed"]
    run["layers"] = [
        dict(row, name=f"{row['name']} {n}") for n in range(9) for row in run["layers"]
    ]
    title, layers = layer_rows(document)
    assert title == "the 24 longest of 72 layers (--json FILE has all)" and len(layers) == 24
    assert layers[0]["cycles"] == max(row["cycles"] for row in run["layers"])
    rest = rest_rows(document)
    assert sum(row["cycles"] for row in rest) == document["rest"]["cycles"]
    assert {row["op"] for row in rest} >= {"matmul", "norm", "softmax", "embedding"}
    assert ("weights", "shapes alone, not trained") in summary_rows(document)
