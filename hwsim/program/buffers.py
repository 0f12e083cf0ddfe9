"""Buffers: which words of them a strip uses, and what has to be loaded into these."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hwsim.program.memory import Region, Space
from hwsim.program.step import Tensor
from hwsim.program.strips import Strip
from rtl import AcceleratorConfig
from rtl.transfer.load import SLOTS
from vq.container import GRANULE_BYTES

__all__ = ["Buffered", "Buffers"]


@dataclass(frozen=True)
class Buffered:
    """Rows of a tensor in a buffer.

    Attributes
    ----------
    word : int
        Of the first row.
    slot : int
        First word of the half in which they lie.
    region : Region or None
        What is loaded there; None if nothing has to be.
    """

    word: int
    slot: int
    region: Region | None

    @property
    def fields(self) -> dict[str, Any]:
        """One transfer of :data:`rtl.transfer.load.LOAD_LAYER`."""
        if self.region is None:
            return {}
        return {"region": self.region.fields, "word": self.slot, "enable": 1}

    @property
    def loaded_bytes(self) -> int:
        """Read for it, in whole granules."""
        return self.region.nbytes if self.region else 0


class Buffers:
    """The two activation buffers, whose halves are used in turn, strip after strip."""

    def __init__(self, space: Space, config: AcceleratorConfig) -> None:
        self._space, self._config = space, config
        self._inputs = _halves(config.array.input_words)
        self._outputs = _halves(config.array.output_words)
        self._held: tuple[Tensor, int, int] | None = None
        self._slot = 0

    def source(self, strip: Strip) -> Buffered:
        """Rows that the strip needs; what the strip before has loaded is not loaded again."""
        place = self._space.place(strip.step.source, self._config)
        region = place.region(strip.first_input_row, strip.input_rows)
        wanted = (strip.step.source, strip.first_input_row, strip.input_rows)
        load = wanted != self._held
        if load:
            self._held, self._slot = wanted, next(self._inputs)
        # A row may begin inside a granule.
        word = (
            self._slot
            + place.address_of(strip.first_input_row) % GRANULE_BYTES // self._config.columns
        )
        return Buffered(word, self._slot, region if load else None)

    def target(self, strip: Strip) -> Buffered:
        """Outputs of the strip; what is added to them is loaded there before."""
        slot, addition = next(self._outputs), strip.step.addition
        if addition is None:
            return Buffered(slot, slot, None)
        place = self._space.place(addition.tensor, self._config)
        return Buffered(slot, slot, place.region(strip.first_row, strip.rows))


def _halves(words: int) -> Iterator[int]:
    """First words of the parts of a buffer, again and again."""
    return itertools.cycle([slot * words // SLOTS for slot in range(SLOTS)])
