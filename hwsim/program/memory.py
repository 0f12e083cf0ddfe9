"""Where everything lies behind the file: tensors, parameters, descriptors, records."""

from dataclasses import asdict, dataclass, field

import numpy as np
from numpy.typing import NDArray

from hwsim.program.step import Tensor
from rtl import AcceleratorConfig
from vq.container import GRANULE_BYTES, PAGE_BYTES

__all__ = ["Place", "Region", "Space", "pixel_bytes"]


def pixel_bytes(channels: int, config: AcceleratorConfig) -> int:
    """Bytes of a position: whole words of both buffers."""
    word = max(config.rows, config.columns)
    return -(-channels // word) * word


@dataclass(frozen=True)
class Region:
    """Whole granules of memory.

    Attributes
    ----------
    granules : int
    address : int
        Of the first one, in granules.
    """

    granules: int
    address: int

    @property
    def nbytes(self) -> int:
        """All of it."""
        return self.granules * GRANULE_BYTES

    @property
    def fields(self) -> dict[str, int]:
        """As descriptors have it."""
        return asdict(self)


@dataclass(frozen=True)
class Place:
    """A tensor in memory.

    Attributes
    ----------
    address : int
        Byte address, a multiple of 64.
    pixel_bytes : int
        From a position to the next one.
    """

    tensor: Tensor
    address: int
    pixel_bytes: int

    @property
    def row_bytes(self) -> int:
        """From a row of positions to the next one."""
        return self.tensor.width * self.pixel_bytes

    @property
    def nbytes(self) -> int:
        """All of it, in whole granules."""
        return -(-self.tensor.height * self.row_bytes // GRANULE_BYTES) * GRANULE_BYTES

    def address_of(self, row: int) -> int:
        """Byte address of a row of positions."""
        return self.address + row * self.row_bytes

    def region(self, first: int, rows: int) -> Region:
        """Granules in which so many rows lie."""
        start, end = self.address_of(first), self.address_of(first + rows)
        address = start // GRANULE_BYTES
        return Region(-(-end // GRANULE_BYTES) - address, address)

    def write(self, image: bytearray, value: NDArray[np.int8]) -> None:
        """Put a value, in the graph's shape, where it belongs."""
        t = self.tensor
        padded = np.zeros((t.height, t.width, self.pixel_bytes), np.int8)
        padded[:, :, : t.channels] = t.to_memory(value)
        image[self.address : self.address + padded.nbytes] = padded.tobytes()

    def read(self, image: bytearray) -> NDArray[np.int8]:
        """The value that is there: [C, H, W], or [positions, C]."""
        t = self.tensor
        nbytes = t.height * self.row_bytes
        raw = np.frombuffer(bytes(image[self.address : self.address + nbytes]), np.int8)
        return t.from_memory(raw.reshape(t.height, t.width, self.pixel_bytes)[:, :, : t.channels])


@dataclass
class Space:
    """Hands out memory, one region after another."""

    end: int = 0
    places: dict[Tensor, Place] = field(default_factory=dict)

    def take_pages(self, nbytes: int) -> int:
        """Address of a region of whole pages, for a file."""
        address = -(-self.end // PAGE_BYTES) * PAGE_BYTES
        self.end = address + -(-nbytes // PAGE_BYTES) * PAGE_BYTES
        return address

    def take(self, nbytes: int) -> int:
        """Address of a region of whole granules."""
        address = self.end
        self.end += -(-nbytes // GRANULE_BYTES) * GRANULE_BYTES
        return address

    def place(self, tensor: Tensor, config: AcceleratorConfig) -> Place:
        """Where a tensor lies; the first question decides."""
        if tensor not in self.places:
            place = Place(tensor, 0, pixel_bytes(tensor.channels, config))
            self.places[tensor] = Place(tensor, self.take(place.nbytes), place.pixel_bytes)
        return self.places[tensor]
