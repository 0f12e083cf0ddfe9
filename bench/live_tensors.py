"""How many bytes of tensors are alive, as PyTorch's operators make them and Python lets them go."""

import weakref
from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["LiveTensors"]


class LiveTensors(TorchDispatchMode):
    """Inside ``with``, count the storages that operators return, until nothing refers to them.

    What an operator takes and gives back within itself is not seen.

    Parameters
    ----------
    replaced : iterable of Tensor
        Alive already: they count for nothing now, and below it once they are gone.
    ignored : iterable of Tensor
        Alive already, and never counted.

    Attributes
    ----------
    now, peak : int
        Bytes above those at the start.
    """

    def __init__(self, replaced: Iterable[Tensor], ignored: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen: set[int] = set()
        for tensor in replaced:
            self._watch(tensor)
        self.now = 0
        self._kept = list(ignored)
        self._seen |= {tensor.untyped_storage()._cdata for tensor in self._kept}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run an operator and count what it returns."""
        found = func(*args, **(kwargs or {}))
        for one in tree_leaves(found):
            if isinstance(one, Tensor):
                self._watch(one)
        self.peak = max(self.peak, self.now)
        return found

    def _watch(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        address, size = storage._cdata, storage.nbytes()
        if address in self._seen:
            return

        def gone() -> None:
            self._seen.discard(address)
            self.now -= size

        self._seen.add(address)
        self.now += size
        weakref.finalize(storage, gone)
