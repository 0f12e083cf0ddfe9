"""Assembler: steps to descriptors, parameters and places in memory."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwsim.program.fields import tile_fields, walk_fields
from hwsim.program.limits import step_problems
from hwsim.program.memory import Place, Space
from hwsim.program.numbers import parameter_slots
from hwsim.program.step import Step, Tensor
from hwsim.program.strips import Strip, strips_of
from hwsim.program.weights import ImageLayer, WeightFile, layers_of
from rtl import AcceleratorConfig
from rtl.program import PROGRAM_BYTES, PROGRAM_LAYER, PROGRAM_VERSION
from rtl.transfer.load import SLOTS
from vq.container import GRANULE_BYTES, ConfigError, bulleted

__all__ = ["Program", "ProgramLayer", "assemble"]


@dataclass(frozen=True, eq=False)
class ProgramLayer:
    """One descriptor: its step, and what the accelerator reads and writes for it.

    ``weights`` is None for a step without weights. Bytes include padding to granules.
    """

    step: Step
    rows: int
    weights: ImageLayer | None
    parameter_bytes: int
    activation_bytes: int
    written_bytes: int

    @property
    def macs(self) -> int:
        """Products of real weights with activations."""
        return self.step.macs * self.rows // max(1, self.step.target.height)

    @property
    def read_bytes(self) -> int:
        """All that is read, the descriptor included."""
        weights = self.weights.read_bytes if self.weights else 0
        return PROGRAM_BYTES + weights + self.parameter_bytes + self.activation_bytes


@dataclass(frozen=True, eq=False)
class Program:
    """All that the accelerator needs beside the file.

    Attributes
    ----------
    layers : list of ProgramLayer
        One per descriptor.
    address : int
        Of the first descriptor.
    records : int
        Address of the first record; one granule for each descriptor.
    places : dict of Tensor to Place
    """

    layers: list[ProgramLayer]
    address: int
    records: int
    places: dict[Tensor, Place]
    _file: NDArray[np.uint8] | None
    _tail: bytes
    _nbytes: int

    @property
    def descriptors(self) -> bytes:
        """Packed descriptors of all layers, 256 bytes each, as they lie at ``address``."""
        return self._tail[-PROGRAM_BYTES * len(self.layers) :]

    def image(self) -> bytearray:
        """Memory from address 0: the file, the program, and room for tensors and records.

        Raises
        ------
        ConfigError
            If the file is only planned.
        """
        if self._file is None:
            raise ConfigError("program: file must exist for its image, not be planned only")
        image = bytearray(self._nbytes)
        image[: len(self._file)] = self._file.data
        start = self._nbytes - len(self._tail)
        image[start:] = self._tail
        return image


def assemble(steps: Sequence[Step], container: WeightFile, config: AcceleratorConfig) -> Program:
    """Lay out a program behind a container's file, or behind one that is only planned.

    A step whose positions or activations exceed the buffers becomes several descriptors of some
    rows each, which read its weights again.

    Raises
    ------
    ConfigError
        If the instance cannot run a step. All such steps are named, each with the limit.
    """
    problems = [
        f"layer {step.name!r}: {problem}"
        for step in steps
        for problem in step_problems(step, config)
    ]
    if problems:
        raise ConfigError(bulleted("accelerator", list(dict.fromkeys(problems))))
    file = container.image()
    if file is not None and len(file) != container.file_bytes:
        raise ConfigError("container must be open to be assembled, but it was closed")
    space = Space.behind(container.file_bytes)
    for tensor in _tensors(steps):
        space.place(tensor, config)
    strips = [strip for step in steps for strip in strips_of(step, space, config)]
    weights = iter(
        layers_of(
            container,
            config.streamer,
            [strip.step.entry for strip in strips if strip.step.entry is not None],
        )
    )
    parameters = {step: parameter_slots(step, config) for step in steps}
    records = space.take(GRANULE_BYTES * len(strips))
    tail_address = space.end
    parameter_address = {step: space.take(len(raw)) for step, raw in parameters.items()}
    address = space.take(PROGRAM_BYTES * len(strips))
    tail = b"".join(raw + bytes(-len(raw) % GRANULE_BYTES) for raw in parameters.values())

    layers, rows = [], []
    plan = _Slots(space, config)
    produced: set[Tensor] = set()
    for number, strip in enumerate(strips):
        step = strip.step
        image = next(weights) if step.entry is not None else None
        inputs, load = plan.input(strip)
        word, residual = plan.output(strip)
        place = space.place(step.target, config)
        row_granules = -(-strip.rows * place.row_bytes // GRANULE_BYTES)
        first = place.address + strip.first_row * place.row_bytes
        needs = {step.source, *([step.addition.tensor] if step.addition else [])}
        granules = len(parameters[step]) // GRANULE_BYTES
        blocks = -(-step.target.channels // config.rows)
        last_rows = step.target.channels - (blocks - 1) * config.rows
        groups = step.numbers.group_scale.shape[1] if step.numbers.group_scale.size else 0
        addition = step.addition
        fields: dict[str, Any] = {
            "version": PROGRAM_VERSION,
            "weighted": int(image is not None),
            "frees_input": 1,
            "relu": int(step.relu),
            "groups": groups,
            "group_shift": step.numbers.group_shift,
            "parameters": parameter_address[step] // GRANULE_BYTES,
            "parameter_granules": granules,
            "tile": tile_fields(step, config),
            "walk": walk_fields(
                step,
                config,
                out_rows=strip.rows,
                in_rows=strip.input_rows,
                first_y=strip.first_row * step.stride[0] - step.before[0] - strip.first_input_row,
                first_word=inputs,
                source=space.place(step.source, config),
            ),
            "load": {
                "input": load,
                "residual": residual,
                "after_writes": int(bool(needs & produced)),
            },
            "output": {
                "blocks": blocks,
                "positions": strip.positions,
                "pixel_words": place.pixel_bytes // config.rows,
                "last_rows": last_rows,
                "first_word": word,
                "addition": {
                    "own": addition.own,
                    "other": addition.other,
                    "shift": addition.shift,
                    "relu": int(addition.relu),
                    "enable": 1,
                }
                if addition
                else {},
            },
            "store": {
                "region": {"granules": row_granules, "address": first // GRANULE_BYTES},
                "record": records // GRANULE_BYTES + number,
                "word": word,
                "early": int(strip.positions == 1),
            },
        }
        produced.add(step.target)
        rows.append((fields, image))
        layers.append(
            ProgramLayer(
                step,
                strip.rows,
                image,
                granules * GRANULE_BYTES,
                GRANULE_BYTES
                * sum(p["region"]["granules"] for p in (load, residual) if p.get("enable")),
                GRANULE_BYTES * (row_granules + 1),
            )
        )
    # Activations that the next layer uses as well are loaded once.
    for (fields, _), (following, _) in itertools.pairwise(rows):
        fields["frees_input"] = following["load"]["input"].get("enable", 0)
    tail += b"".join(pack(fields, image) for fields, image in rows)
    assert tail_address + len(tail) == space.end
    return Program(layers, address, records, space.places, file, tail, space.end)


def pack(fields: dict[str, Any], image: ImageLayer | None) -> bytes:
    """The bytes of one descriptor."""
    value = int(PROGRAM_LAYER.const(fields).as_value().value)
    if image is not None:
        value |= image.descriptor << PROGRAM_LAYER["weights"].offset
    return value.to_bytes(PROGRAM_BYTES, "little")


def _tensors(steps: Sequence[Step]) -> Iterator[Tensor]:
    for step in steps:
        yield step.source
        yield step.target
        if step.addition is not None:
            yield step.addition.tensor


class _Slots:
    """Which words of the buffers a descriptor uses: halves, in turn."""

    def __init__(self, space: Space, config: AcceleratorConfig) -> None:
        self._space, self._config = space, config
        self._inputs = itertools.cycle(range(SLOTS))
        self._outputs = itertools.cycle(range(SLOTS))
        self._loaded: tuple[Tensor, int, int, int] | None = None

    def input(self, strip: Strip) -> tuple[int, dict[str, Any]]:
        """First word of the strip's first row, and how it comes there."""
        config = self._config
        place = self._space.place(strip.step.source, config)
        key = (strip.step.source, strip.first_input_row, strip.input_rows)
        start = place.address + strip.first_input_row * place.row_bytes
        skipped = start % GRANULE_BYTES
        if self._loaded is not None and self._loaded[:3] == key:
            return self._loaded[3] + skipped // config.columns, {}
        word = next(self._inputs) * config.array.input_words // SLOTS
        self._loaded = (*key, word)
        end = start + strip.input_rows * place.row_bytes
        return word + skipped // config.columns, {
            "region": {
                "granules": -(-(end - start + skipped) // GRANULE_BYTES),
                "address": start // GRANULE_BYTES,
            },
            "word": word,
            "enable": 1,
        }

    def output(self, strip: Strip) -> tuple[int, dict[str, Any]]:
        """First word of the strip's outputs, and how a residual comes there."""
        config = self._config
        word = next(self._outputs) * config.array.output_words // SLOTS
        addition = strip.step.addition
        if addition is None:
            return word, {}
        place = self._space.place(addition.tensor, config)
        start = place.address + strip.first_row * place.row_bytes
        granules = -(-strip.rows * place.row_bytes // GRANULE_BYTES)
        return word, {
            "region": {"granules": granules, "address": start // GRANULE_BYTES},
            "word": word,
            "enable": 1,
        }
