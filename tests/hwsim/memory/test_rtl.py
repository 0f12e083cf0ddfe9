"""The RTL on a DRAM: the same results, in more cycles, with books that still balance."""

from pathlib import Path

import pytest

from hwsim import simulate
from tests.hwsim.containers import write
from tests.hwsim.measure.runs import require_run
from tests.hwsim.memory.configs import DDR4_3200, ini
from tests.hwsim.programs import SMALL, every_format

pytestmark = pytest.mark.rtl


@pytest.fixture(scope="module")
def container(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Layers of every format."""
    path = tmp_path_factory.mktemp("dram") / "mixed.vq.safetensors"
    return write(path, every_format(1))


def test_bit_exact_on_dram(container: Path) -> None:
    documents = {
        memory: simulate(container, config=SMALL, memory=memory, methods=())
        for memory in (
            "ideal:bytes_per_cycle=64,latency=3",
            "ddr4-2400:clock_mhz=200",
            "lpddr4-3200:clock_mhz=2000,controller_latency_ns=100",
        )
    }
    runs = [document["runs"]["compressed"] for document in documents.values()]
    for run in runs:
        require_run(run)
        assert run["bytes_read"] == runs[0]["bytes_read"]
        assert run["bytes_written"] == runs[0]["bytes_written"]
        assert run["bursts"] == runs[0]["bursts"]
    assert runs[0]["cycles"] < runs[1]["cycles"] < runs[2]["cycles"]
    assert runs[1]["stall_cycles"]["memory"] < runs[2]["stall_cycles"]["memory"]
    assert documents["ddr4-2400:clock_mhz=200"]["memory"]["name"] == "ddr4-2400"
    # The same again, to the cycle.
    again = simulate(container, config=SMALL, memory="ddr4-2400:clock_mhz=200", methods=())
    assert again["runs"]["compressed"]["layers"] == runs[1]["layers"]


def test_a_file_by_a_relative_path(
    container: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The simulator runs in another folder."""
    monkeypatch.chdir(tmp_path)
    Path("own.ini").write_text(ini(DDR4_3200))
    document = simulate(container, config=SMALL, memory="own.ini:clock_mhz=800", methods=())
    require_run(document["runs"]["compressed"])
    assert document["memory"]["name"] == "own"
