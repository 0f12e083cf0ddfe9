"""Tensors that are stored as they are: norms, biases, and every layer that a recipe keeps."""

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor

from vq.container import Kept
from vq.container.constants import INTEGER_PREFIX, RUNTIME_PREFIX, TOKENIZER
from vq.errors import ConfigError, bulleted
from vq.formats.wrappers import listed

__all__ = ["dtype_tag", "kept_of", "tensor_of", "tied_tensors"]

_DTYPES = {
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "I16": torch.int16,
    "I32": torch.int32, "I64": torch.int64, "F16": torch.float16, "BF16": torch.bfloat16,
    "F32": torch.float32, "F64": torch.float64,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip
_TAKEN = {INTEGER_PREFIX: "integer graphs", RUNTIME_PREFIX: "what remains at run time"}
_TAGS = {dtype: tag for tag, dtype in _DTYPES.items()}


def dtype_tag(tensor: Tensor) -> str:
    """Name of a tensor's dtype in the container.

    Raises
    ------
    ConfigError
        If it has none, such as a complex dtype.
    """
    if tensor.dtype not in _TAGS:
        raise ConfigError(
            f"tensors to keep must have one of the dtypes {', '.join(_TAGS.values())}, "
            f"not {tensor.dtype}"
        )
    return _TAGS[tensor.dtype]


def kept_problem(name: str, tensor: object) -> str | None:
    """What keeps a member of a state dictionary from being stored as it is, if anything does."""
    if not isinstance(tensor, Tensor):  # what a module adds by get_extra_state
        return f"{name!r} must be a tensor, not {type(tensor).__name__}"
    if tensor.is_nested:
        return f"tensor {name!r} must be dense, not nested"
    if tensor.layout != torch.strided:
        return f"tensor {name!r} must be dense, not {tensor.layout}"
    try:
        dtype_tag(tensor)
    except ConfigError as error:
        return f"tensor {name!r}: {error}"
    return None


def require_names(names: Iterable[str]) -> None:
    """Refuse names of tensors that mean something else in a file.

    Raises
    ------
    ConfigError
    """
    given = list(names)
    for prefix, whose in _TAKEN.items():
        if taken := [name for name in given if name.startswith(prefix)]:
            raise ConfigError(
                f"model must not hold {listed(taken)}: names that begin with {prefix} are "
                f"those of {whose}; rename the module"
            )
    if TOKENIZER in given:
        raise ConfigError(
            f"model must not hold {TOKENIZER!r}, which is a file's tokenizer; rename the tensor"
        )


def require_kept(tensors: Mapping[str, object]) -> None:
    """Refuse members of a state dictionary that no file could hold.

    Raises
    ------
    ConfigError
        With all of them.
    """
    if problems := [p for name, tensor in tensors.items() if (p := kept_problem(name, tensor))]:
        raise ConfigError(
            bulleted("model to store", problems)
            + "\nleave them out of the state_dict (register_buffer(..., persistent=False))"
        )


def tied_tensors(state: Mapping[str, Tensor]) -> list[tuple[list[str], Tensor]]:
    """Group names by the tensor they stand for, in the order of the first names."""
    groups: dict[int, tuple[list[str], Tensor]] = {}
    for name, tensor in state.items():
        groups.setdefault(id(tensor), ([], tensor))[0].append(name)
    return list(groups.values())


def kept_of(tensor: Tensor) -> Kept:
    """Make a tensor one that the container keeps: its own dtype, shape and bytes."""
    data = tensor.detach().cpu().contiguous()
    raw = data.reshape(-1).view(torch.uint8).numpy().tobytes()
    return Kept(dtype_tag(data), tuple(data.shape), raw)


def tensor_of(kept: Kept) -> Tensor:
    """Undo :func:`kept_of`; the tensor has memory of its own."""
    raw = torch.empty(len(kept.data), dtype=torch.uint8)  # of numpy's, empty ones have no stride
    raw.numpy()[:] = np.frombuffer(kept.data, np.uint8)
    return raw.view(_DTYPES[kept.dtype]).reshape(kept.shape)
