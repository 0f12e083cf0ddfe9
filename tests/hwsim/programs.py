"""Programs for a small accelerator, run and compared with numpy."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import vq
from hwsim.program import Program, assemble, steps_of_graph, work_of_layers
from hwsim.simulator.accelerator import Outcome, Surroundings, run_program
from rtl import AcceleratorConfig
from rtl.program import PROGRAM_BYTES, PROGRAM_LAYER, RunStatus
from tests.hwsim.containers import Maker, write
from vq.container import Layer, open_container
from vq.integer import add_integer, read_integer

#: The instance that most tests share, because each one costs a Verilator build.
SMALL = AcceleratorConfig(
    bus_bits=64,
    rows=8,
    columns=8,
    d_max=8,
    scale_lanes=4,
    input_bytes=1 << 13,
    output_bytes=1 << 13,
    accumulators=64,
)
#: The same with a vector unit.
VECTOR = replace(SMALL, vector_unit=1, row_max=64)


class Layers:
    """Layers of a file, each on its own, with rows of random activations."""

    def __init__(
        self,
        folder: Path,
        layers: Sequence[Layer],
        rows: int,
        config: AcceleratorConfig = SMALL,
    ) -> None:
        self.config = config
        path = write(folder / "layers.vq.safetensors", layers)
        with open_container(path, rom=config.streamer.roms) as container:
            self.work = work_of_layers(container, rows)
            self.program: Program = assemble([w.step for w in self.work], container, config)

    def image(self) -> bytearray:
        image = self.program.image()
        for work in self.work:
            self.program.places[work.step.source].write(image, work.inputs)
        return image

    def corrupted(self, number: int, **fields: int) -> bytearray:
        """The memory with fields of one descriptor changed; ``a__b`` is b of a."""
        image = self.image()
        at = self.program.address + number * PROGRAM_BYTES
        value = int.from_bytes(image[at : at + PROGRAM_BYTES], "little")
        for path, new in fields.items():
            layout, offset = PROGRAM_LAYER, 0
            for name in path.split("__"):
                field = layout[name]
                offset, layout = offset + field.offset, field.shape
            mask = (1 << field.width) - 1
            value = value & ~(mask << offset) | (new & mask) << offset
        image[at : at + PROGRAM_BYTES] = value.to_bytes(PROGRAM_BYTES, "little")
        return image

    def run(
        self, surroundings: Surroundings | None = None, waves: Path | None = None
    ) -> list[Outcome]:
        return run_program(self.config, self.program, self.image(), surroundings, waves=waves)

    def require_exact(self, outcome: Outcome) -> None:
        assert outcome.status == RunStatus.OK
        for work in self.work:
            found = self.program.places[work.step.target].read(outcome.image)
            assert np.array_equal(found, work.outputs), work.step.name


def every_format(seed: int = 0, tile_outputs: int = SMALL.rows) -> list[Layer]:
    """All weight formats back to back, shapes ragged and whole."""
    make, tile = Maker(seed), {"tile_outputs": tile_outputs}

    def int8(name: str, shape: tuple[int, int]) -> Layer:
        integers = make.rng.integers(-128, 128, shape).astype(np.int8)
        return Layer.int8(name, integers=integers, scale=make.scale(shape[0]), **tile)

    return [
        int8("int8", (16, 32)),
        make.ssvq("ssvq", (48, 40), 8, 16, **tile),
        make.vq("vq", (36, 36), 4, 64, **tile),
        make.ssvq("ssvq ragged", (19, 33), 4, 16, **tile),
        make.codes("int4", (24, 64), 4, 16, zeros=False, **tile),
        make.codes("int3 zeros", (24, 64), 3, 32, zeros=True, **tile),
        make.codes("int2 one group", (20, 50), 2, 64, zeros=False, **tile),
        make.ssvq("parity", (24, 64), 8, 16, parity=True, **tile),
        make.vq("vq wide", (8, 24), 8, 256, **tile),
        int8("int8 ragged", (13, 29)),
    ]


def odd_rows(seed: int = 0) -> list[Layer]:
    """Rows of weights that are no whole number of beats, by a factor of two, four and eight."""
    make, tile = Maker(seed), {"tile_outputs": SMALL.rows}

    def int8(name: str, shape: tuple[int, int]) -> Layer:
        integers = make.rng.integers(-128, 128, shape).astype(np.int8)
        return Layer.int8(name, integers=integers, scale=make.scale(shape[0]), **tile)

    return [
        int8("int8 of 172", (20, 172)),
        make.codes("int4 of 172", (20, 172), 4, 32, zeros=False, **tile),
        make.ssvq("ssvq of 172", (20, 172), 4, 16, **tile),
        make.vq("vq of 172", (22, 172), 4, 64, **tile),
        int8("int8 of 27", (17, 27)),
        make.codes("int3 of 50", (30, 50), 3, 64, zeros=False, **tile),
    ]


class Net(nn.Module):
    """Every operation that the accelerator runs: strides, groups, both shortcuts, pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(16)
        self.depth = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.group = nn.Conv2d(16, 16, 1, groups=4)
        self.wide = nn.Conv2d(16, 16, 3, padding=2, dilation=2, groups=2)
        self.down = nn.Conv2d(16, 24, (3, 2), stride=2, padding=(1, 0), bias=False)
        self.bn_down = nn.BatchNorm2d(24)
        self.fc1 = nn.Linear(24, 24)
        self.fc2 = nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn(self.stem(x)))
        y = torch.relu(self.depth(x))
        x = torch.relu(x + self.group(y))
        x = x + self.wide(x)
        y = self.bn_down(self.down(x))
        x = torch.relu(y + nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 3, 5)))
        x = torch.relu(self.fc1(x.mean((2, 3))))
        return self.fc2(x)


class Tokens(nn.Module):
    """Linears on rows, as in a transformer's MLP, with a residual and one input read twice."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(32, 64)
        self.gate = nn.Linear(32, 64)
        self.down = nn.Linear(64, 32)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(torch.relu(self.up(x)) + self.gate(x))


def network(
    folder: Path,
    model: nn.Module,
    shape: tuple[int, ...],
    recipe: vq.Recipe,
    rom: dict[str, np.ndarray] | None = None,
) -> Path:
    """Compress a model and give its file an integer graph."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.copy_(torch.randn(module.num_features, generator=generator) / 4)
            module.running_var.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
    model.eval()
    path = folder / "network.vq.safetensors"
    compressed = vq.compress_(model, recipe, seed=0, progress=False)
    assert compressed.bits_per_weight > 0
    vq.save(model, path)
    data = [torch.randn(8, *shape, generator=generator) for _ in range(2)]
    add_integer(path, type(model)(), data, rom=rom)
    return path


def run_network(
    path: Path,
    config: AcceleratorConfig = SMALL,
    surroundings: Surroundings | None = None,
) -> tuple[Program, Outcome]:
    """Run a file's graph on a random input and require every value that is in memory."""
    with open_container(path, rom=config.streamer.roms) as container:
        model = read_integer(container)
        steps = steps_of_graph(model, container)
        program = assemble(steps, container, config)
    rng = np.random.default_rng(5)
    x = rng.integers(-128, 128, (1, *model.graph.input.shape)).astype(np.int8)
    image = program.image()
    program.places[steps[0].source].write(image, x[0])
    (outcome,) = run_program(config, program, image, surroundings)
    assert outcome.status == RunStatus.OK
    values = model.trace(x)
    for step in steps:
        want = values[step.name][0]
        found = program.places[step.target].read(outcome.image).reshape(want.shape)
        assert np.array_equal(found, want), step.name
    return program, outcome
