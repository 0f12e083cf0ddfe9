"""The accelerator in RTL, 16x16 at 128 bits with ideal memory: speed-up, utilisation, networks.

The simulation is deterministic, so there is one seed and no spread; only the simulator's own speed
varies. ``minilm m=1`` holds layers of MiniLM's shapes with random contents, on which cycles
do not depend; ``resnet20`` is the trained network with its integer graph, one image.
"""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from harness import Bench
from layers import codebook_layer, codes_layer

import vq
from hwsim import simulate
from rtl import AcceleratorConfig
from vq.container import Layer, write_container

CONFIG = AcceleratorConfig()
#: Room for the activations and sums of 256 rows.
ROWS = AcceleratorConfig(input_bytes=1 << 20, output_bytes=1 << 20)
BLOCK = {
    "query": (384, 384),
    "key": (384, 384),
    "value": (384, 384),
    "out": (384, 384),
    "up": (1536, 384),
    "down": (384, 1536),
}
FORMATS: dict[str, Callable[[str, tuple[int, int]], Layer]] = {
    "ssvq d=8 k=16": partial(codebook_layer, d=8, k=16),
    "ssvq d=8 k=256": partial(codebook_layer, d=8, k=256),
    "ssvq d=8 k=16 parity": partial(codebook_layer, d=8, k=16, method="parity"),
    "vq d=4 k=256": partial(codebook_layer, d=4, k=256, method="vq"),
    "int4": partial(codes_layer, bits=4, group=128),
    "int2": partial(codes_layer, bits=2, group=128),
}


def measured(
    path: Path, config: AcceleratorConfig, rows: int | None, *, int8: bool
) -> dict[str, dict[str, float]]:
    """Simulate a file; metrics of the compressed run, and of the int8 run if wanted."""
    document = simulate(path, config=config, rows=rows, methods=("int8",) if int8 else ())
    found = {}
    for name, run in document["runs"].items():
        if not run["bit_exact"]:
            raise SystemExit(f"{name} run of {path.name} must be bit-exact")
        macs = sum(layer["macs"] for layer in run["layers"])
        found[name] = {
            "cycles": run["cycles"],
            "bytes_read": run["bytes_read"],
            "multiplier_utilisation": macs / (config.rows * config.columns * run["cycles"]),
            "wall_seconds": run["wall_seconds"],
            "cycles_per_second": run["cycles"] / run["wall_seconds"],
        }
    if int8:
        found["compressed"] |= {
            "speedup": document["speedup"],
            "traffic_ratio": document["traffic_ratio"],
            "speedup_over_traffic_ratio": document["speedup"] / document["traffic_ratio"],
        }
    return found


def layers_of(
    form: Callable[[str, tuple[int, int]], Layer],
    shapes: dict[str, tuple[int, int]],
    config: AcceleratorConfig,
    rows: int,
    *,
    int8: bool,
) -> dict[str, float]:
    """Layers of one format, each times some rows."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "layers.vq.safetensors"
        write_container(path, [form(name, shape) for name, shape in shapes.items()])
        return measured(path, config, rows, int8=int8)["compressed"]


def resnet20() -> dict[str, dict[str, float]]:
    """The pretrained network at 1.64 bits per weight, first convolution and classifier int8."""
    from signbook.data.files import data_file
    from signbook.data.images import ImageBatches, Images, load_cifar10_exact
    from signbook.zoo.resnet import load_resnet20
    from vq.integer import add_integer

    images = load_cifar10_exact("train")
    calibration = list(ImageBatches(Images(images.x[:256], images.y[:256]), batch=64))
    checkpoint = data_file("resnet_cifar10/resnet20-*.th")
    recipe = vq.Recipe(
        {"layer*.conv?": vq.SSVQ(d=8, k=16), "conv1": vq.Int8(), "linear": vq.Int8()}
    )
    model = load_resnet20(checkpoint).eval()
    vq.compress_(model, recipe, calibration=calibration, seed=0, progress=False)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "resnet20.vq.safetensors"
        vq.save(model, path)
        add_integer(path, load_resnet20(checkpoint), calibration)
        return measured(path, CONFIG, None, int8=True)


def main() -> None:
    """Measure every row and print the table."""
    bench = Bench("accelerator", __doc__, seeds=1)
    shapes = {"query": (384, 384)} if bench.quick else BLOCK
    blocks = {
        f"{i}.{name}": shape
        for i in range(1 if bench.quick else 6)
        for name, shape in shapes.items()
    }
    for name, form in FORMATS.items():
        run = partial(layers_of, form, shapes, CONFIG, 1, int8=True)
        bench.measure("block m=1", name, 0, run)
    ssvq = FORMATS["ssvq d=8 k=256"]
    bench.measure(
        "minilm m=1", "ssvq d=8 k=256", 0, partial(layers_of, ssvq, blocks, CONFIG, 1, int8=True)
    )
    for name in ("ssvq d=8 k=256", "vq d=4 k=256", "int4"):
        run = partial(layers_of, FORMATS[name], shapes, ROWS, 256, int8=False)
        bench.measure("block m=256", name, 0, run)
    if not bench.quick:
        found: dict[str, dict[str, float]] = {}

        def network(arm: str) -> dict[str, float]:
            if not found:
                found.update(resnet20())
            return found[arm]

        for arm, run_name in (("ssvq", "compressed"), ("int8", "int8")):
            bench.measure("resnet20", arm, 0, partial(network, run_name))
    bench.finish()


if __name__ == "__main__":
    main()
