"""Energy of logic: counted by hand for one layer, and as the source has it."""

import pytest

from hwsim.measure.document import Logic, Run
from hwsim.measure.logic import ENERGIES, logic_of, sram_pj
from rtl import AcceleratorConfig
from tests.hwsim.containers import Maker
from tests.hwsim.programs import SMALL, Layers


def test_sizes_of_the_source_are_met() -> None:
    """ISSCC 2014 has 10, 20 and 100 pJ for 64 bits of 8 KiB, 32 KiB and 1 MiB."""
    for kib, pj in ((8, 10), (32, 20), (1024, 100)):
        assert 8 * sram_pj(kib << 10) == pytest.approx(pj, rel=0.14)
    assert all(figure.source for figure in ENERGIES.values())


@pytest.mark.parametrize("method", ["ssvq", "vq", "int4"])
def test_one_layer_counted_by_hand(tmp_path, method: str) -> None:
    make, tile = Maker(0), {"tile_outputs": SMALL.rows}
    layer = {
        "ssvq": lambda: make.ssvq("ssvq", (16, 32), 4, 16, **tile),
        "vq": lambda: make.vq("vq", (16, 32), 4, 64, **tile),
        "int4": lambda: make.codes("int4", (16, 32), 4, 16, zeros=False, **tile),
    }[method]()
    program = Layers(tmp_path, [layer], rows=3).program
    (described,) = program.layers
    found = logic_of(program, SMALL, busy_cycles=24, bytes_read=1000, bytes_written=64)
    weights, macs, sums = 16 * 32, 3 * 16 * 32, 8 * 4
    pj = {name: figure.pj for name, figure in ENERGIES.items()}
    register = pj["register, 8 bits"]
    assert found.array == pytest.approx(
        macs * (pj["multiply, 8 bits"] + pj["add, 32 bits"])
        + 24 * (8 + sums) * register
        + weights * 2 * register
    )
    bank = sram_pj(4 * 256)
    each = {"int4": pj["add, 8 bits"]}.get(method, bank + pj["add, 8 bits"])
    assert found.decoder == pytest.approx(weights * each)
    assert found.buffers == pytest.approx(
        2000 * sram_pj(SMALL.fifo_bytes)
        + (described.activation_bytes + 24 * 8) * sram_pj(SMALL.input_bytes)
        + 48 * sums * sram_pj(64 * sums)
        + 128 * sram_pj(SMALL.output_bytes)
    )
    assert found.total_pj == found.array + found.decoder + found.buffers


def test_larger_arrays_and_buffers_take_more(tmp_path) -> None:
    program = Layers(tmp_path, [Maker(0).ssvq("ssvq", (16, 32), 4, 16, tile_outputs=8)], 1).program
    counts = {"busy_cycles": 8, "bytes_read": 512, "bytes_written": 64}
    small = logic_of(program, SMALL, **counts)
    large = logic_of(program, AcceleratorConfig(), **counts)
    assert large.buffers > small.buffers and large.array > small.array
    assert large.decoder == small.decoder


def test_runs_add_up_and_refuse_other_sums() -> None:
    layer = {"name": "a", "method": "vq", "weights": 1, "macs": 1, "m": 1, "cycles": 1,
             "bytes_read": 0, "busy_cycles": 1,
             "stall_cycles": dict.fromkeys(("memory", "codebook", "decoder", "compute",
                                            "writeback"), 0)}  # fmt: skip
    kinds = ("weights", "codebooks", "scales", "activations", "descriptors", "padding")
    facts = {name: layer[name] for name in ("cycles", "bytes_read", "busy_cycles", "stall_cycles")}
    facts |= {"bytes_written": 0, "bursts": 0, "bit_exact": None, "wall_seconds": 0.0,
              "bytes_by": dict.fromkeys(kinds, 0), "layers": [layer]}  # fmt: skip
    logic = Logic(buffers=1.0, decoder=2.0, array=3.0)
    run = Run(**facts, logic_pj=6.0, logic_by=logic)
    both = Run.total([(2, run), (3, run)])
    assert both.logic_by == Logic(buffers=5.0, decoder=10.0, array=15.0) and both.logic_pj == 30.0
    assert Run.total([(2, Run(**facts))]).logic_pj is None
    with pytest.raises(ValueError, match="logic_pj must be the sum of logic_by, 6"):
        Run(**facts, logic_pj=7.0, logic_by=logic)
