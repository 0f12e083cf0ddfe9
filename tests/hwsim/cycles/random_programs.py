"""Random programs: every format, linears of any number of rows, convolutions, copies, residuals."""

import dataclasses
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hwsim.program import Numbers, Program, Step, Tensor, assemble
from hwsim.program.step import Addition
from rtl import AcceleratorConfig
from vq.container import ConfigError, Geometry, Layer, open_container, write_container

_TRIES = 200


def random_program(folder: Path, seed: int, config: AcceleratorConfig) -> Program:
    """A program that the instance takes: drawn again until it does, the same for a seed.

    Contents are random too, but what is counted does not depend on them.
    """
    for attempt in range(_TRIES):
        draw = _Draw(random.Random(f"{seed}.{attempt}"), config)
        draw.steps()
        path = folder / f"{seed}.vq.safetensors"
        if not draw.layers:
            continue
        write_container(path, draw.layers)
        try:
            with open_container(path, rom=config.streamer.roms) as container:
                entries = {entry.geometry.name: entry for entry in container.layers}
                steps = [
                    dataclasses.replace(step, entry=entries.get(step.name)) for step in draw.planned
                ]
                return assemble(steps, container, config)
        except ConfigError:
            continue
    raise AssertionError(f"seed {seed}: no program in {_TRIES} attempts")


def random_memory(seed: int) -> str:
    """Fast and slow, near and far, whole and broken bytes per cycle."""
    rng = random.Random(seed)
    bandwidth = rng.choice(["1.5", "3", "7.3", "8", "12.8", "16", "64"])
    return f"ideal:bytes_per_cycle={bandwidth},latency={rng.choice([3, 4, 11, 20, 45, 130])}"


@dataclass
class _Draw:
    """Steps and layers of one attempt."""

    rng: random.Random
    config: AcceleratorConfig
    layers: list[Layer] = field(default_factory=list)
    planned: list[Step] = field(default_factory=list)

    def steps(self) -> None:
        """Some steps that follow each other, from inputs or earlier targets."""
        rng = self.rng
        picture = rng.random() < 0.5
        rows = rng.choice([1, 1, 2, 5, 9, 33, 64, 80])
        side = rng.choice([1, 3, 6, 9])
        values: list[Tensor] = []
        for number in range(rng.randint(1, 6)):
            if values and rng.random() < 0.7:
                source = rng.choice(values[-3:])
            elif picture:
                source = Tensor(f"in{number}", self._channels(), side, rng.choice([1, side]))
            else:
                source = Tensor(f"in{number}", self._channels(), rows, channels_first=False)
            step = self._step(f"step{number}", source)
            step = self._add(step, [*values, source])
            self.planned.append(step)
            values += [v for v in (source, step.target) if v not in values]

    def _channels(self, often: int | None = None) -> int:
        if often and self.rng.random() < 0.4:
            return often
        return self.rng.choice([1, 3, 8, 16, 19, 24, 32, 40, 64, 100])

    def _step(self, name: str, source: Tensor) -> Step:
        rng = self.rng
        kind = rng.random()
        picture = source.channels_first
        if picture and kind < 0.1:
            target = Tensor(name, source.channels)
            return Step(name, source, target, Numbers.same(source.channels), pool=True)
        if kind < 0.2:
            channels = source.channels + rng.choice([0, 0, 5])
            target = dataclasses.replace(source, name=name, channels=channels)
            first = -rng.choice([0, 2]) if channels > source.channels else 0
            return Step(name, source, target, Numbers.same(channels), first_channel=first)
        if not picture:
            outputs = self._channels(source.channels)
            target = dataclasses.replace(source, name=name, channels=outputs)
            numbers = self._layer(name, (outputs, source.channels))
            return Step(name, source, target, numbers)
        return self._conv(name, source)

    def _conv(self, name: str, source: Tensor) -> Step:
        rng = self.rng
        kernel = rng.choice([(1, 1), (3, 3), (3, 2), (2, 1)])
        stride, dilation = rng.choice([(1, 1), (1, 1), (2, 2), (2, 1)]), rng.choice([1, 1, 2])
        before = tuple(rng.choice([0, k // 2]) for k in kernel)
        groups = rng.choice([g for g in (1, 1, 2, 4, source.channels) if source.channels % g == 0])
        outputs = (
            groups * rng.choice([1, 2, 8, 16]) if groups > 1 else self._channels(source.channels)
        )
        sizes = [
            (size + 2 * pad - dilation * (k - 1) - 1) // step + 1
            for size, pad, k, step in zip(
                (source.height, source.width), before, kernel, stride, strict=True
            )
        ]
        height, width = (max(1, size) for size in sizes)
        numbers = self._layer(name, (outputs, source.channels // groups, *kernel))
        return Step(
            name,
            source,
            Tensor(name, outputs, height, width),
            numbers,
            kernel=kernel,
            stride=stride,
            before=(before[0], before[1]),
            dilation=(dilation, dilation),
            groups=groups,
        )

    def _add(self, step: Step, values: Sequence[Tensor]) -> Step:
        """Add an earlier value, if one has the same shape; not always."""
        target = step.target
        shape = (target.channels, target.height, target.width)
        fitting = [v for v in values if (v.channels, v.height, v.width) == shape]
        if not fitting or self.rng.random() < 0.4:
            return step
        addition = Addition(self.rng.choice(fitting), 1, 1, 1, relu=False)
        return dataclasses.replace(step, addition=addition)

    def _layer(self, name: str, shape: tuple[int, ...]) -> Numbers:
        """A layer of any format with random contents; its numbers."""
        rng = self.rng
        op = "conv2d" if len(shape) == 4 else "linear"
        numbers = Numbers.same(shape[0])
        method = rng.choice(["ssvq", "ssvq", "parity", "vq", "int8", "int4", "int3", "int2"])
        if self.config.int8_only:
            method = "int8"
        inputs = int(np.prod(shape[1:]))
        values = np.random.default_rng(rng.randrange(1 << 30))
        common = {"tile_outputs": self.config.rows, "op": op, "shape": shape}
        one = np.ones(1, np.float32)
        if method == "int8":
            weights = values.integers(-128, 128, (shape[0], inputs)).astype(np.int8)
            self.layers.append(Layer.int8(name, integers=weights, scale=one, **common))
        elif method.startswith("int"):
            columns = self.config.columns
            group = min(rng.choice([columns, 2 * columns, 4 * columns, 1000]), 1000)
            count = -(-inputs // group)
            bits = int(method[3:])
            zeros = rng.random() < 0.4
            self.layers.append(
                Layer.grouped(
                    name,
                    method=method,
                    group=group,
                    codes=values.integers(0, 1 << bits, (shape[0], inputs)).astype(np.uint8),
                    group_scales=np.ones((shape[0], count), np.float16),
                    group_zeros=np.ones((shape[0], count), np.uint8) if zeros else None,
                    **common,
                )
            )
            scales = np.ones((shape[0], count), np.int16)
            numbers = dataclasses.replace(numbers, group_scale=scales, group_shift=1)
        else:
            self.layers.append(self._coded(name, method, values, common))
        return numbers

    def _coded(self, name: str, method: str, values: np.random.Generator, common: dict) -> Layer:
        rng, config = self.rng, self.config
        d = rng.choice([d for d in (2, 4, 8, 16) if config.d_min <= d <= config.d_max])
        k = rng.choice([2, 7, 16, 64, 1 << config.index_bits_max])
        book = np.zeros((k, d), np.int8)
        book_name = rng.choice([f"{name}.codebook", f"shared.{k}.{d}"])
        if config.codebook_rom:
            book = config.streamer.codebook
            k, d = book.shape
            (book_name,) = config.streamer.roms
        axis = rng.choice(["in", "in", "in", "in" if config.rows % d else "out"])
        signs = {"vq": 0, "ssvq": d, "parity": d - 1}[method]
        geometry = Geometry(
            name, common["op"], common["shape"], "vq" if method == "vq" else "ssvq", axis,
            config.rows, d, k, signs, 1, book_name,
        )  # fmt: skip
        given = {
            "indices": values.integers(0, k, geometry.N),
            "codebook": book,
            "codebook_name": book_name,
            "scale": np.ones(1, np.float32),
            "axis": axis,
            **common,
        }
        if method == "vq":
            return Layer.vq(name, **given)
        even = np.zeros((geometry.N, d), bool)
        return Layer.ssvq(name, signs=even, parity=method == "parity", **given)
