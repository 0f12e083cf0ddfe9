"""Which modules have a weight that can be compressed, and how that weight is a matrix."""

from collections.abc import Iterator, Mapping

from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from vq.errors import UnsupportedLayerError, bulleted

__all__ = [
    "along_outputs",
    "candidates",
    "check_supported",
    "join_grid",
    "matrix_of",
    "op_of",
    "plain_weight",
    "shape_of",
    "weight_id",
    "weight_of",
]

_OPS: dict[type[nn.Module], str] = {
    nn.Linear: "linear",
    nn.Conv1d: "conv1d",
    nn.Conv2d: "conv2d",
    nn.Embedding: "embedding",
}


def candidates(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield every (name, module) that has a weight of two or more dimensions, in model order.

    A module that only passes on the weight of a module inside it, as adapters do, is none. No
    parametrisation is run: spectral norm changes its model whenever it is.
    """
    for name, module in model.named_modules():
        if parametrize.is_parametrized(module, "weight"):
            chain = module.get_submodule("parametrizations.weight")
            originals = [*chain.parameters(recurse=False), *chain.buffers(recurse=False)]
            found = max((tensor.ndim for tensor in originals), default=2) >= 2
        else:
            found = _has_matrix(module)
        if found:
            yield name, module


def _has_matrix(module: nn.Module) -> bool:
    try:
        weight = getattr(module, "weight", None)
    except Exception:  # a property is the user's code
        return False
    if not isinstance(weight, Tensor) or is_lazy(weight) or weight.ndim < 2:
        return False
    inner = (weight is p for child in module.children() for p in child.parameters())
    return not any(inner)


def plain_weight(module: nn.Module) -> nn.Parameter | None:
    """The parameter that a module's weight is, or None if it is computed whenever it is asked."""
    return module._parameters.get("weight")


def weight_id(module: nn.Module) -> int:
    """Equal for modules that share one weight."""
    if parametrize.is_parametrized(module, "weight"):
        return id(module.get_submodule("parametrizations.weight.0"))
    weight = plain_weight(module)
    return id(module if weight is None else weight)


def op_of(module: nn.Module) -> str | None:
    """Name of the operation in the container, or None if no format can store its weight."""
    if _is_transposed(module):
        return "linear_t"
    return next((op for kind, op in _OPS.items() if isinstance(module, kind)), None)


def _is_transposed(module: nn.Module) -> bool:
    """Whether it is the Conv1D of transformers: a linear whose weight is [inputs, outputs]."""
    kinds = type(module).__mro__
    return any(k.__name__ == "Conv1D" and k.__module__.startswith("transformers") for k in kinds)


def check_supported(selected: Mapping[str, nn.Module]) -> None:
    """Refuse layers that no format can store, all of them in one error.

    Raises
    ------
    UnsupportedLayerError
    """
    known = ", ".join(kind.__name__ for kind in _OPS)
    problems = [
        f"layer {name!r} must be one of {known}, not {type(module).__name__}; "
        f"keep it by the rule {name!r}: None"
        for name, module in selected.items()
        if op_of(module) is None
    ]
    if problems:
        raise UnsupportedLayerError(bulleted("model", problems))


def shape_of(weight: Tensor, op: str) -> tuple[int, ...]:
    """Shape of a weight with the outputs first, as the container describes it."""
    return tuple(weight.T.shape if op == "linear_t" else weight.shape)


def along_outputs(values: Tensor, op: str, ndim: int) -> Tensor:
    """Shape values [1] or [O] so that they multiply a module's weight of ``ndim`` dimensions."""
    return values.reshape(-1) if op == "linear_t" else values.reshape(-1, *[1] * (ndim - 1))


def matrix_of(weight: Tensor, op: str, axis: str) -> Tensor:
    """Lay out a module's weight as a matrix [O, I].

    Channels are innermost in ``I``, or taps if ``axis`` is "kernel".
    """
    if op == "linear_t":
        return weight.T
    if axis != "kernel":
        weight = weight.movedim(1, -1)
    return weight.reshape(len(weight), -1)


def weight_of(matrix: Tensor, shape: tuple[int, ...], op: str, axis: str) -> Tensor:
    """Undo :func:`matrix_of` for a weight of ``shape``, ``[O, C, *taps]`` (outputs first)."""
    if op == "linear_t":
        return matrix.T
    outputs, channels, *taps = shape
    if axis == "kernel" or channels == 1:  # the same values, and strides that are nobody else's
        return matrix.reshape(shape)
    return matrix.reshape(outputs, *taps, channels).movedim(-1, 1)


def join_grid(grid: Tensor, shape: tuple[int, int], axis: str) -> Tensor:
    """Assemble a matrix [O, I] from its grid of sub-vectors [Go, Gi, d]; drop ragged filling."""
    outputs, inputs = shape
    if axis == "out":
        return grid.swapaxes(1, 2).reshape(-1, inputs)[:outputs]
    return grid.reshape(outputs, -1)[:, :inputs]
