"""What a format need not say, because the base of all formats does."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from vq.container import Geometry
from vq.formats.format import Format


@dataclass(frozen=True)
class Bare(Format):
    name: ClassVar[str] = "bare"
    tile_outputs: int = 4


def test_a_format_of_a_name_and_a_setting():
    bare, g = Bare(), Geometry("a", "linear", (2, 8), "int8")
    assert bare.to_json() == {"method": "bare", "tile_outputs": 4}
    assert Bare.read({"tile_outputs": 8}, Path()) == {"tile_outputs": 8}
    assert bare.problems() == bare.misfit("linear", (2, 8)) == bare.misfit_together([g]) == []
    assert bare.shared is None and not bare.leaves_scale and not bare.takes_codes
    assert bare.agrees_with(Bare()) and not bare.agrees_with(Bare(8))
    assert bare.seconds([g], None) > 0 and bare.memory_bytes([g]) > bare.held_bytes([g]) > 0


def test_what_it_must_say():
    with pytest.raises(NotImplementedError):
        Bare().geometry("a", "linear", (2, 8))
    with pytest.raises(NotImplementedError):
        Bare().compress([], None)
