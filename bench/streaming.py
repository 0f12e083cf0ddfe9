"""Bus utilisation and speed-up over int8 of weight streaming, measured in RTL with ideal memory.

The simulation is deterministic, so there is one seed and no spread. The demo model's figure is
part of ``signbook demo``; here are a layer of a million weights and a chain of 24 small ones, then
every sub-vector length d and index width b whose weights the decoder does not give faster than one
bus width of them per cycle: there the bus is the limit, and should be busy all the time.
"""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from harness import Bench
from layers import codebook_layer, codes_layer, int8_layer

from hwsim.program.weights import layers_of
from hwsim.simulator.streamer import Job, Result
from hwsim.simulator.verilator import run
from rtl import StreamerConfig
from vq.container import Layer, account, open_container, write_container

LARGE, SMALL = [(1024, 1024)], [(256, 256)]
CHAIN = [(64, 64), (192, 64), (256, 64)] * 8


def stream(layers: list[Layer], bus_bits: int) -> tuple[Result, float]:
    """Run layers back to back; return the result and the bits per weight of the file."""
    # As many beats at any width: they arrive while the first codebook is written, a word per cycle.
    config = StreamerConfig(bus_bits=bus_bits, fifo_bytes=max(4096, 256 * bus_bits // 8))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.vq.safetensors"
        write_container(path, layers)
        with open_container(path) as container:
            job = Job(
                path,
                [layer.descriptor for layer in layers_of(container, config)],
                f"ideal:bytes_per_cycle={bus_bits // 8},latency=20",
            )
            geometries = [entry.geometry for entry in container.layers]
        result = run(config, job)
    counted = account(geometries)
    weights = sum(g.weights for g in geometries)
    return result, 8 * sum(a.total_bytes for a in counted) / weights


def measure_work(bench: Bench, work: str, shapes: list[tuple[int, int]], bus_bits: int) -> None:
    """Measure int8 and every compressed format on one list of layers and one bus."""
    int8, int8_bpw = stream([int8_layer(f"l{i}", s) for i, s in enumerate(shapes)], bus_bits)

    def baseline() -> dict[str, float]:
        return {
            "bus_utilisation": int8.bus.utilisation,
            "cycles": int8.cycles,
            "bits_per_weight": int8_bpw,
        }

    def compressed(layer: Callable[[str, tuple[int, int]], Layer]) -> dict[str, float]:
        layers = [layer(f"l{i}", s) for i, s in enumerate(shapes)]
        ours, bpw = stream(layers, bus_bits)
        traffic_ratio = int8.bus.read_bytes / ours.bus.read_bytes
        speedup = int8.cycles / ours.cycles
        return {
            "bus_utilisation": ours.bus.utilisation,
            "cycles": ours.cycles,
            "speedup": speedup,
            "traffic_ratio": traffic_ratio,
            "speedup_over_traffic_ratio": speedup / traffic_ratio,
            "bits_per_weight": bpw,
        }

    bench.measure(work, "int8", 0, baseline)
    formats = {
        "ssvq d=8 k=16": partial(codebook_layer, d=8, k=16),
        "ssvq d=8 k=256": partial(codebook_layer, d=8, k=256),
        "ssvq d=8 k=16 parity": partial(codebook_layer, d=8, k=16, method="parity"),
        "int4": partial(codes_layer, bits=4, group=64),
        "int4 zeros": partial(codes_layer, bits=4, group=64, zeros=True),
        "int2": partial(codes_layer, bits=2, group=64),
    }
    for name, layer in formats.items():
        bench.measure(work, name, 0, partial(compressed, layer))


def measure_every(bench: Bench, bus_bits: int) -> None:
    """Measure how busy the bus is for every (d, b) that gives at most W weights per cycle."""
    sign_bits = {"ssvq": lambda d: d, "parity": lambda d: d - 1, "vq": lambda d: 0}
    for method, signs in sign_bits.items():
        for d in (4, 8, 16):
            for b in range(1, 9):
                if d > b + signs(d):
                    continue

                def measured(method: str = method, d: int = d, k: int = 1 << b) -> dict[str, float]:
                    layer = codebook_layer("l", LARGE[0], d, k, method=method)
                    result, bpw = stream([layer], bus_bits)
                    return {"bus_utilisation": result.bus.utilisation, "bits_per_weight": bpw}

                bench.measure(f"every d, b@{bus_bits}bit", f"{method} d={d} b={b}", 0, measured)


def main() -> None:
    """Measure every row and print the table."""
    bench = Bench("streaming", __doc__, seeds=1)
    one = ("layer-64k", SMALL) if bench.quick else ("layer-1M", LARGE)
    for name, shapes in (one, ("chain", CHAIN)):
        for bus_bits in (64, 128):
            measure_work(bench, f"{name}@{bus_bits}bit", shapes, bus_bits)
    for bus_bits in () if bench.quick else (64, 128, 256):
        measure_every(bench, bus_bits)
    bench.finish()


if __name__ == "__main__":
    main()
