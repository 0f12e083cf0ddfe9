"""Models that are changed wholly or not at all."""

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from vq.errors import OutputError
from vq.formats.remaining import all_remaining

__all__ = ["Before", "restored", "whole"]


@contextmanager
def whole(
    model: nn.Module, *, trained: bool = False, but: tuple[type[Exception], ...] = ()
) -> Iterator["Before"]:
    """Put a model back as it was if the block fails, whatever the reason, Ctrl-C among them.

    Weights that the block replaces are not copied, but stay in memory until it ends, unless they
    are put away.

    Parameters
    ----------
    model : nn.Module
    trained : bool
        The block changes all tensors in place, so that all are copied; else only biases, the
        tensors of norms and buffers are.
    but : tuple of exceptions
        After these, the model stays as the block has left it.
    """
    with tempfile.SpooledTemporaryFile(max_size=1) as file:  # on the disk once something is in it
        before = Before(model, file, trained=trained)
        try:
            yield before
        except but:
            raise
        except BaseException:
            before.restore()
            raise


@contextmanager
def restored(modules: Iterable[nn.Module]) -> Iterator[None]:
    """In the end, give modules back the tensors and the parts that they had, and their classes."""
    before = [_Module(module) for module in dict.fromkeys(modules)]
    try:
        yield
    finally:
        for module in before:
            module.restore()


class Before:
    """What a model was.

    Parameters
    ----------
    model : nn.Module
    file : binary file
        For what is put away.
    trained : bool
        As in :func:`whole`.
    """

    def __init__(self, model: nn.Module, file: IO[bytes], *, trained: bool) -> None:
        self._model, self._file = model, file
        self._modules = [_Module(module) for module in model.modules()]
        self._parts = [(part, dict(vars(part))) for part in all_remaining(model)]
        self._tensors = {
            id(t): _Content(t, copied=trained or t.ndim <= 1 or not isinstance(t, nn.Parameter))
            for t in (*model.parameters(), *model.buffers())
        }

    def put_away(self, parameter: nn.Parameter) -> None:
        """Move what a parameter was into a temporary file: its layer is done.

        Raises
        ------
        OutputError
            If there is no room for it.
        """
        self._tensors[id(parameter)].put_away(self._file)

    def drop(self, parameter: nn.Parameter) -> None:
        """Free a parameter that was put away and that the model holds no more."""
        if all(parameter is not other for other in self._model.parameters()):
            parameter.data = parameter.new_empty(0)

    def restore(self) -> None:
        """Make the model what it was."""
        for module in self._modules:
            module.restore()
        for part, state in self._parts:
            vars(part).clear()
            vars(part).update(state)
        with torch.no_grad():
            for content in self._tensors.values():
                content.restore(self._file)


class _Module:
    """What a module is and holds, less the contents of its tensors."""

    def __init__(self, module: nn.Module) -> None:
        self._module, self._kind = module, type(module)
        self._state = dict(vars(module))
        tables = ("_parameters", "_buffers", "_modules")
        self._tables = {name: dict(self._state[name]) for name in tables}
        # torch gives a module a class of its own with its first parametrisation, and changes that.
        own = parametrize.is_parametrized(module)
        self._names = set(vars(self._kind)) if own else None

    def restore(self) -> None:
        self._module.__class__ = self._kind
        if self._names is not None:
            for name in set(vars(self._kind)) - self._names:
                delattr(self._kind, name)
        vars(self._module).clear()
        vars(self._module).update(self._state)
        for name, items in self._tables.items():
            table = self._state[name]
            table.clear()
            table.update(items)


class _Content:
    """What a tensor held: where that lies, and a copy if it is changed there."""

    def __init__(self, tensor: Tensor, *, copied: bool) -> None:
        self._tensor, self._learns = tensor, tensor.requires_grad
        self._data: Tensor | None = tensor.data
        self._copy = tensor.detach().clone() if copied else None
        self._like = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
        self._shape, self._place = tensor.shape, 0

    def put_away(self, file: IO[bytes]) -> None:
        if self._data is None:
            return
        data = self._data.cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        try:
            self._place = file.seek(0, 2)
            file.write(data.data)
        except OSError as error:
            raise OutputError(
                f"{tempfile.tempdir or 'TMPDIR'}: must have room for the unquantised weights, but "
                f"{error.strerror or error}; set TMPDIR to another folder"
            ) from error
        self._data = None

    def restore(self, file: IO[bytes]) -> None:
        if self._data is None:
            raw = torch.empty(self._shape.numel() * self._like.element_size(), dtype=torch.uint8)
            file.seek(self._place)
            file.readinto(raw.numpy().data)  # type: ignore[attr-defined]
            self._data = raw.view(self._like.dtype).reshape(self._shape).to(self._like.device)
        self._tensor.data = self._data
        if self._copy is not None:
            self._data.copy_(self._copy)
        if self._tensor.is_leaf:
            self._tensor.requires_grad_(self._learns)
