"""Assembler: steps to descriptors, parameters and places in memory."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwsim.program.buffers import Buffers
from hwsim.program.fields import output_fields, tile_fields, walk_fields
from hwsim.program.limits import require_runnable
from hwsim.program.memory import Place, Space
from hwsim.program.numbers import parameter_slots
from hwsim.program.step import Step, Tensor
from hwsim.program.strips import Strip, strips_of
from hwsim.program.weights import ImageLayer, WeightFile, layers_of
from rtl import AcceleratorConfig
from rtl.program import PROGRAM_BYTES, PROGRAM_LAYER, PROGRAM_VERSION
from vq.container import GRANULE_BYTES, ConfigError, Span

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
    _base: int
    _tail: bytes
    _end: int

    @property
    def descriptors(self) -> bytes:
        """Packed descriptors of all layers, 256 bytes each, as they lie at ``address``."""
        return self._tail[-PROGRAM_BYTES * len(self.layers) :]

    @property
    def end(self) -> int:
        """Address behind all of it."""
        return self._end

    def image(self) -> bytearray:
        """Memory from address 0: the file, the program, and room for tensors and records.

        Raises
        ------
        ConfigError
            If the file is only planned.
        """
        image = bytearray(self._end)
        self.write(image)
        return image

    def write(self, image: bytearray) -> None:
        """Put the file and the program where they belong; see :meth:`image` for the error."""
        if self._file is None:
            raise ConfigError("program: file must exist for its image, not be planned only")
        image[self._base : self._base + len(self._file)] = self._file.data
        image[self._end - len(self._tail) : self._end] = self._tail


def assemble(
    steps: Sequence[Step],
    container: WeightFile,
    config: AcceleratorConfig,
    *,
    space: Space | None = None,
    base: int = 0,
    held: Span | None = None,
) -> Program:
    """Lay out a program behind a container's file, or behind one that is only planned.

    A step whose positions or activations exceed the buffers becomes several descriptors of some
    rows each, which read its weights again. Behind the file lie tensors, records, parameters and
    descriptors.

    Parameters
    ----------
    steps : sequence of Step
    container : WeightFile
    config : AcceleratorConfig
    space : Space, optional
        Memory of several programs. It has handed out the file's place, and hands out all others.
    base : int
        Where the file begins.
    held : Span, optional
        Codebook of the file that the instance has loaded before, and still holds.

    Raises
    ------
    ConfigError
        If the instance cannot run a step (all such steps are named, each with the limit), or
        memory ends before the program.
    """
    require_runnable(steps, config)
    file = container.image()
    if file is not None and len(file) != container.file_bytes:
        raise ConfigError("container must be open to be assembled, but it was closed")
    if space is None:
        space = Space()
        base = space.take_pages(container.file_bytes)
    space.take_pages(0)  # cycles depend on places in a page, and so not on what lies before
    for tensor in _tensors(steps):
        space.place(tensor, config)
    strips = [strip for step in steps for strip in strips_of(step, config)]
    images = _images(strips, container, config, base, held)
    slots = {step: parameter_slots(step, config) for step in steps}
    records = space.take(GRANULE_BYTES * len(strips))
    tail_address = space.end
    parameters = {step: space.take(len(raw)) for step, raw in slots.items()}
    address = space.take(PROGRAM_BYTES * len(strips))
    if space.end > 1 << config.address_bits:
        raise ConfigError(
            f"accelerator: files and programs must end by {1 << config.address_bits:#x} "
            f"(address_bits = {config.address_bits}), not at {space.end:#x}"
        )

    buffers = Buffers(space, config)
    written: set[Tensor] = set()
    layers: list[ProgramLayer] = []
    descriptors: list[dict[str, Any]] = []
    for strip, image in zip(strips, images, strict=True):
        step = strip.step
        source, target = buffers.source(strip), buffers.target(strip)
        stored = space.place(step.target, config).region(strip.first_row, strip.rows)
        granules = len(slots[step]) // GRANULE_BYTES
        descriptors.append(
            {
                "version": PROGRAM_VERSION,
                "weighted": int(image is not None),
                "relu": int(step.relu),
                "groups": step.numbers.groups,
                "group_shift": step.numbers.group_shift,
                "parameters": parameters[step] // GRANULE_BYTES,
                "parameter_granules": granules,
                "tile": tile_fields(step, config),
                "walk": walk_fields(
                    strip, config, source=space.place(step.source, config), first_word=source.word
                ),
                "load": {
                    "input": source.fields,
                    "residual": target.fields,
                    "after_writes": int(not written.isdisjoint(step.reads)),
                },
                "output": output_fields(strip, config, first_word=target.word),
                "store": {
                    "region": stored.fields,
                    "record": records // GRANULE_BYTES + len(layers),
                    "word": target.word,
                    "early": int(strip.positions == 1),
                },
            }
        )
        layers.append(
            ProgramLayer(
                step,
                strip.rows,
                image,
                parameter_bytes=GRANULE_BYTES * granules,
                activation_bytes=source.loaded_bytes + target.loaded_bytes,
                written_bytes=stored.nbytes + GRANULE_BYTES,
            )
        )
        written.add(step.target)
    # Activations that the next layer uses as well are loaded once.
    for fields, following in itertools.pairwise(descriptors):
        fields["frees_input"] = following["load"]["input"].get("enable", 0)
    descriptors[-1]["frees_input"] = 1
    tail = b"".join(raw + bytes(-len(raw) % GRANULE_BYTES) for raw in slots.values())
    tail += b"".join(map(_packed, descriptors, images))
    assert tail_address + len(tail) == space.end
    return Program(layers, address, records, space.places, file, base, tail, space.end)


def _tensors(steps: Sequence[Step]) -> Iterator[Tensor]:
    for step in steps:
        yield step.source
        yield step.target
        if step.addition is not None:
            yield step.addition.tensor


def _images(
    strips: Sequence[Strip],
    container: WeightFile,
    config: AcceleratorConfig,
    base: int,
    held: Span | None,
) -> list[ImageLayer | None]:
    """The weights of each strip; None where its step has none."""
    entries = [strip.step.entry for strip in strips if strip.step.entry is not None]
    found = iter(layers_of(container, config.streamer, entries, base=base, held=held))
    return [None if strip.step.entry is None else next(found) for strip in strips]


def _packed(fields: dict[str, Any], image: ImageLayer | None) -> bytes:
    """The bytes of one descriptor."""
    value = int(PROGRAM_LAYER.const(fields).as_value().value)
    if image is not None:
        value |= image.descriptor << PROGRAM_LAYER["weights"].offset
    return value.to_bytes(PROGRAM_BYTES, "little")
