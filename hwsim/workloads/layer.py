"""One layer of a workload: its operation and its shapes, and what follows from them."""

import math
from dataclasses import dataclass, replace
from functools import cached_property

from vq.container import ConfigError, bulleted

__all__ = ["INPUT", "LAYER_OPS", "WEIGHTED_OPS", "WorkloadLayer"]

#: What a layer has as its source where it reads the network's input.
INPUT = "<input>"

#: Operations whose weights an accelerator streams, called as a container calls them.
WEIGHTED_OPS = ("linear", "conv1d", "conv2d")
_CONVOLUTIONS = ("conv1d", "conv2d")
#: All operations. ``matmul`` multiplies two activations; what follows it has no products.
LAYER_OPS = (
    *WEIGHTED_OPS, "embedding", "matmul", "add", "mul", "activation", "norm", "softmax", "maxpool",
    "avgpool", "shortcut",
)  # fmt: skip
_WINDOWED = (*_CONVOLUTIONS, "maxpool", "avgpool", "shortcut")
_ROWS_ONLY = ("linear", "embedding", "matmul")
_KEEPS_CHANNELS = ("add", "mul", "activation", "norm", "softmax", "maxpool", "avgpool")
_LARGEST = 2**40
_COUNT_MAX = 2**16

Pair = tuple[int, int]


@dataclass(frozen=True)
class WorkloadLayer:
    """Shapes of one operation, for one item (image, sequence) or a stated number of rows.

    Attributes
    ----------
    name : str
        Unique in its workload. It holds ``{}`` if and only if ``count`` is above 1, for the number
        of the repetition, 0 first.
    op : str
        One of ``LAYER_OPS``.
    inputs, outputs : int
        Channels of a position: features of a linear, channels of an image, words and length of an
        embedding. For a matmul of [M, K] and [K, N]: K and N.
    rows : int
        Rows M of activations, for all that has no image.
    height, width : int
        Of the input, for what has one; a signal of one axis has its length as the height.
    kernel, stride, dilation : (vertical, horizontal)
    padding : ((top, bottom), (left, right))
    groups : int
        Channel groups of a convolution; products that a matmul does (batch times heads).
    count : int
        Repetitions, each with weights of its own. Layers that follow each other, with one count
        and one text before ``{}``, repeat as one block.
    kept : int
        Parameters that are no weights of a matrix: biases, norms, embeddings of positions.
    shares : str
        Earlier layer whose weights it uses again; empty if they are its own.
    sources : tuple of str
        Layers whose outputs are its inputs, or ``INPUT``, as far as they are known.
    note : str
        What a reader of numbers should know about it.

    Raises
    ------
    ConfigError
        If the fields contradict each other: all problems in one message.
    """

    name: str
    op: str
    inputs: int
    outputs: int
    rows: int = 1
    height: int = 1
    width: int = 1
    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    padding: tuple[Pair, Pair] = ((0, 0), (0, 0))
    dilation: Pair = (1, 1)
    groups: int = 1
    count: int = 1
    kept: int = 0
    shares: str = ""
    sources: tuple[str, ...] = ()
    note: str = ""

    def __post_init__(self) -> None:
        problems = self._type_problems() or self._problems()
        if problems:
            raise ConfigError(bulleted(f"workload layer {self.name!r}", problems))

    def _type_problems(self) -> list[str]:
        problems = []
        if not isinstance(self.name, str) or not self.name:
            problems.append(f"name must be non-empty text, not {self.name!r}")
        if self.op not in LAYER_OPS:
            problems.append(f"op must be one of {', '.join(LAYER_OPS)}, not {self.op!r}")
        for field, least in (
            ("inputs", 1), ("outputs", 1), ("rows", 1), ("height", 1), ("width", 1), ("groups", 1),
            ("count", 1), ("kept", 0),
        ):  # fmt: skip
            if not _whole(getattr(self, field), least):
                problems.append(
                    f"{field} must be a whole number from {least}, not {getattr(self, field)!r}"
                )
        if _whole(self.count, _COUNT_MAX + 1):
            problems.append(f"count must be at most {_COUNT_MAX}, not {self.count}")
        for field in ("kernel", "stride", "dilation"):
            if not _pair(getattr(self, field), 1):
                problems.append(
                    f"{field} must be two whole numbers from 1, not {getattr(self, field)!r}"
                )
        pads = self.padding
        if not (isinstance(pads, tuple) and len(pads) == 2 and all(_pair(p, 0) for p in pads)):
            problems.append(f"padding must be ((top, bottom), (left, right)), not {pads!r}")
        return problems

    def _problems(self) -> list[str]:
        problems = []
        if ("{}" in self.name) != (self.count > 1):
            problems.append(
                f"name must hold {{}} exactly if count is above 1, not {self.name!r} with count "
                f"{self.count}"
            )
        plain = ((1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1))
        window = (self.kernel, self.stride, self.padding, self.dilation)
        if self.op not in _WINDOWED and window != plain:
            problems.append(f"kernel, stride, padding and dilation must be left out of {self.op}")
        if self.op in _ROWS_ONLY and (self.height, self.width) != (1, 1):
            problems.append(f"height and width must be left out of {self.op}; it has rows")
        if self.op == "conv1d" and (self.width, self.kernel[1], self.padding[1]) != (1, 1, (0, 0)):
            problems.append("width and horizontal kernel must be 1 for conv1d, without padding")
        if self.op in _WINDOWED and self.rows != 1:
            problems.append(f"rows must be 1 for {self.op}, not {self.rows}")
        if self.op in _CONVOLUTIONS and (self.inputs % self.groups or self.outputs % self.groups):
            problems.append(
                f"groups must divide inputs = {self.inputs} and outputs = {self.outputs}, "
                f"not {self.groups}"
            )
        if self.op not in (*_CONVOLUTIONS, "matmul") and self.groups != 1:
            problems.append(f"groups must be 1 for {self.op}, not {self.groups}")
        if self.op in _KEEPS_CHANNELS and self.inputs != self.outputs:
            problems.append(
                f"outputs must be inputs = {self.inputs} for {self.op}, not {self.outputs}"
            )
        if self.op in _WINDOWED:
            reach = [(k - 1) * d + 1 for k, d in zip(self.kernel, self.dilation, strict=True)]
            if any(n < r for n, r in zip(self._padded, reach, strict=True)):
                problems.append(
                    f"kernel must fit the padded input {self._padded}, not reach {tuple(reach)}"
                )
        if self.shares and self.op not in (*WEIGHTED_OPS, "embedding"):
            problems.append(f"shares must be empty for {self.op}, which has no weights")
        return problems

    @property
    def _padded(self) -> Pair:
        top, left = self.padding
        return self.height + sum(top), self.width + sum(left)

    @cached_property
    def out_height(self) -> int:
        """Rows of positions of the output."""
        return self._out(0)

    @cached_property
    def out_width(self) -> int:
        """Positions in a row of the output."""
        return self._out(1)

    def _out(self, axis: int) -> int:
        reach = (self.kernel[axis] - 1) * self.dilation[axis] + 1
        return (self._padded[axis] - reach) // self.stride[axis] + 1

    @property
    def positions(self) -> int:
        """Rows M, or positions of the output: products of each weight."""
        return self.rows * self.out_height * self.out_width

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Shape of the weights, outputs first, as a container has it; empty if there are none."""
        if self.op in _CONVOLUTIONS:
            taps = self.kernel[: 1 if self.op == "conv1d" else 2]
            return (self.outputs, self.inputs // self.groups, *taps)
        if self.op == "linear":
            return (self.outputs, self.inputs)
        return (self.inputs, self.outputs) if self.op == "embedding" else ()

    @property
    def weights(self) -> int:
        """Weights of one repetition, shared ones included."""
        return math.prod(self.weight_shape) if self.weight_shape else 0

    @property
    def parameters(self) -> int:
        """Parameters of its own, of one repetition: weights that it does not share, and kept."""
        return self.kept + (0 if self.shares else self.weights)

    @property
    def macs(self) -> int:
        """Products of one repetition; padding counts as data."""
        if self.op in WEIGHTED_OPS:
            return self.weights * self.positions
        return self.groups * self.rows * self.inputs * self.outputs if self.op == "matmul" else 0

    @property
    def input_bytes(self) -> int:
        """Activations that one repetition reads, int8: both operands of what has two.

        An embedding reads none: the one row that each word picks counts as its output.
        """
        if self.op == "matmul":
            return self.groups * (self.rows + self.outputs) * self.inputs
        if self.op == "embedding":
            return 0
        operands = 2 if self.op in ("add", "mul") else 1
        return operands * self.rows * self.height * self.width * self.inputs

    @property
    def output_bytes(self) -> int:
        """Activations that one repetition gives, int8."""
        groups = self.groups if self.op == "matmul" else 1
        return groups * self.positions * self.outputs

    @property
    def activation_bytes(self) -> int:
        """Activations that one repetition reads and gives, int8."""
        return self.input_bytes + self.output_bytes

    def repetition(self, number: int) -> "WorkloadLayer":
        """The layer as it is the ``number``-th time, with ``count`` 1."""
        if self.count == 1:
            return self
        return replace(
            self,
            name=self.name.replace("{}", str(number)),
            count=1,
            shares=self.shares.replace("{}", str(number)),
            sources=tuple(source.replace("{}", str(number)) for source in self.sources),
        )


def _whole(value: object, least: int) -> bool:
    return type(value) is int and least <= value < _LARGEST


def _pair(value: object, least: int) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(_whole(v, least) for v in value)
