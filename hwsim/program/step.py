"""Steps: what the accelerator does one after another, before it is known where anything lies."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vq.container import LayerEntry

__all__ = ["Addition", "Numbers", "Step", "Tensor"]


@dataclass(frozen=True, eq=False)
class Tensor:
    """An int8 tensor in memory, ``[height][width][channels]``; rows of a linear are its height.

    ``channels_first`` says how the integer graph has it: ``[C, H, W]``, or ``[..., C]``.
    """

    name: str
    channels: int
    height: int = 1
    width: int = 1
    channels_first: bool = True

    @property
    def positions(self) -> int:
        """Pixels, or rows of a linear."""
        return self.height * self.width

    def to_memory(self, value: NDArray[np.int8]) -> NDArray[np.int8]:
        """[height, width, channels] of a value in the graph's shape."""
        if self.channels_first:
            value = value.reshape(self.channels, self.height, self.width)
            return np.ascontiguousarray(value.transpose(1, 2, 0))
        return value.reshape(self.height, self.width, self.channels)

    def from_memory(self, value: NDArray[np.int8]) -> NDArray[np.int8]:
        """Inverse of :meth:`to_memory`, as ``[C, H, W]`` or ``[positions, C]``."""
        if self.channels_first:
            return np.ascontiguousarray(value.transpose(2, 0, 1))
        return value.reshape(self.positions, self.channels)


@dataclass(frozen=True, eq=False)
class Numbers:
    """What turns sums into int8, for every output: see ``docs/spec-integer-graph.md``."""

    bias: NDArray[np.int32]
    multiplier: NDArray[np.int16]
    shift: NDArray[np.uint8]
    group_scale: NDArray[np.int16] = field(default_factory=lambda: np.empty((0, 0), np.int16))
    group_shift: int = 0

    @property
    def groups(self) -> int:
        """Groups of inputs with scales of their own, 0 if there are none."""
        return self.group_scale.shape[1] if self.group_scale.size else 0

    @classmethod
    def same(cls, outputs: int, multiplier: int = 2, shift: int = 1) -> "Numbers":
        """One multiplier and shift for all outputs, no bias; with 2 and 1 nothing changes."""
        return cls(
            np.zeros(outputs, np.int32),
            np.full(outputs, multiplier, np.int16),
            np.full(outputs, shift, np.uint8),
        )


@dataclass(frozen=True)
class Addition:
    """``clamp((x · own + y · other + 2^(shift-1)) >> shift)``: x of the step, y of ``tensor``."""

    tensor: Tensor
    own: int
    other: int
    shift: int
    relu: bool


Pair = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Step:
    """A window over a tensor times weights, requantised; perhaps added to another tensor.

    Attributes
    ----------
    name : str
        Of the node whose value it gives.
    source, target : Tensor
    entry : LayerEntry or None
        The layer that holds the weights. Without, a step moves channels (``first_channel``,
        stride) or adds up all positions (``pool``).
    kernel, stride, before, dilation : (vertical, horizontal)
    first_channel : int
        Channel of the source that is channel 0 of the target; may be negative.
    """

    name: str
    source: Tensor
    target: Tensor
    numbers: Numbers
    entry: LayerEntry | None = None
    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    before: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    first_channel: int = 0
    pool: bool = False
    relu: bool = False
    addition: Addition | None = None

    @property
    def reads(self) -> set[Tensor]:
        """Tensors that must be there before it."""
        return {self.source, *([self.addition.tensor] if self.addition else [])}

    @property
    def macs(self) -> int:
        """Products of real weights with activations."""
        if self.entry is None:
            return 0
        g = self.entry.geometry
        return g.O * g.I * self.target.positions

    @property
    def group_inputs(self) -> int:
        """Channels that an output sees."""
        return self.source.channels // self.groups
