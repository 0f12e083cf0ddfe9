"""A process's part of batches that all have, so that their step together is one of all rows."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from vq.calibration.batches import Batch, over_tensors, shapes_of, tensors_of
from vq.distributed import gather, rank, ranks
from vq.errors import ConfigError

__all__ = ["Around", "Share"]

_END = object()


class Around:
    """A loader around another, whose attributes it has: training looks for samplers at its own."""

    def __init__(self, batches: Any) -> None:
        self.batches = batches

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "batches":  # not there yet while this is being copied
            raise AttributeError(name)
        return getattr(self.batches, name)

    def __len__(self) -> int:
        return len(self.batches)


class Share(Around):
    """This process's rows of every batch; with one process, the batches as they are.

    All processes iterate over the same batches in the same order, and row ``i`` belongs to process
    ``i mod ranks``. Rows that cannot be shared out alike, fewer than there are processes, are left
    out, with a warning.

    What a loader draws from torch's global state comes from ``generator``, alike on all processes,
    while dropout goes on drawing from each one's own.

    Parameters
    ----------
    batches : sized iterable of batches
        The first dimension of every tensor counts rows.
    what : str
        What the data are for, as errors say it.
    seed : int
        Of ``generator``.
    """

    def __init__(self, batches: Any, what: str = "training", *, seed: int = 0) -> None:
        super().__init__(batches)
        self.generator = torch.Generator().manual_seed(seed)
        self._what = what
        self._warned = False

    def __iter__(self) -> Iterator[Batch]:
        """Yield this process's part of each batch.

        Raises
        ------
        ConfigError
            If the first batch differs between processes, or a batch cannot be shared out.
        """
        if ranks() == 1:
            yield from self.batches
            return
        with self._drawing():
            iterator = iter(self.batches)
        number = 0
        while True:
            with self._drawing():
                batch = next(iterator, _END)
            if batch is _END:
                return
            number += 1
            if number == 1:
                self._require_same(batch)
            yield self._mine(number, batch)

    @contextmanager
    def _drawing(self) -> Iterator[None]:
        """Let torch's global state be that of the generator."""
        own = torch.get_rng_state()
        torch.set_rng_state(self.generator.get_state())
        try:
            yield
        finally:
            self.generator.set_state(torch.get_rng_state())
            torch.set_rng_state(own)

    def _require_same(self, batch: Any) -> None:
        sums = [float(tensor.double().sum()) for tensor in tensors_of(batch)]
        if len(set(gather(repr((shapes_of(batch), sums))))) > 1:
            raise ConfigError(
                f"{self._what} batch 1 must be the same on all {ranks()} processes, which share "
                "out its rows, but differs; draw randomness from torch or a generator alone, or "
                "say shared=True in the task of data that are shared out already"
            )

    def _mine(self, number: int, batch: Any) -> Any:
        counts = {tensor.shape[0] if tensor.ndim else 0 for tensor in tensors_of(batch)}
        rows = min(counts, default=0)
        if len(counts) != 1 or rows < ranks():
            raise ConfigError(
                f"{self._what} batch {number} must have as many rows in every tensor, and one at "
                f"least for each of the {ranks()} processes that share them out, not be "
                f"{shapes_of(batch)}"
            )
        left = rows % ranks()
        if left and not self._warned:
            self._warned = True
            warnings.warn(
                f"{self._what} batch {number} has {rows} rows: {left} of them left out, as "
                f"{ranks()} processes cannot share them out alike",
                stacklevel=2,
            )
        mine = slice(rank(), rows - left, ranks())

        def cut(tensor: Tensor) -> Tensor:
            return tensor[mine]

        return over_tensors(batch, cut)
