"""What the batch norms of a model should expect."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.modules.batchnorm import _BatchNorm

from vq.calibration.batches import Batch, BatchError, as_it_was, call_model, feed, split
from vq.distributed import is_main, ranks, together
from vq.errors import ConfigError

__all__ = ["Norms", "reestimate_norms_", "run_on", "warn_of_norms"]


class Norms:
    """The batch norms of a model, with their statistics as they were given and as measured again.

    Those that keep no statistics, or whose momentum is 0, are none of them.

    Parameters
    ----------
    model : nn.Module
    """

    def __init__(self, model: nn.Module) -> None:
        self._norms = {name: m for name, m in model.named_modules() if _is_tracked(m)}
        self._given = self._statistics()

    def __len__(self) -> int:
        return len(self._norms)

    def within(self, module: nn.Module) -> bool:
        """Whether a module holds any of them."""
        held = {id(m) for m in module.modules()}
        return any(id(norm) in held for norm in self._norms.values())

    @contextmanager
    def as_given(self) -> Iterator[None]:
        """Use the statistics that the model had at first."""
        present = self._statistics()
        self._set(self._given)
        try:
            yield
        finally:
            self._set(present)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Whatever is measured inside ends with it."""
        present = self._statistics()
        try:
            yield
        finally:
            self._set(present)

    def measure_(self, run: Callable[[], object], *, shared: bool = False) -> None:
        """Replace the statistics of all norms that a run reaches by the plain means over its calls.

        Meanwhile they normalise by the batch, so that each one sees what those before it will give
        once they are measured. If anything fails, all are as they were.

        Parameters
        ----------
        run : callable
            Runs the model on data, without gradients.
        shared : bool
            Every process does so on data of its own, and all end with the means over all calls.

        Raises
        ------
        ConfigError
            If a call has but one value for a feature, or a statistic is not finite.
        """
        before = self._statistics()
        try:
            with self._measuring():
                if shared:
                    with together():
                        run()
                    self._average_over_processes()
                else:
                    run()
            reached = {name for name, norm in self._norms.items() if norm.num_batches_tracked}
            for name in reached:
                for kind, values in self._norms[name].named_buffers():
                    if not torch.isfinite(values).all():
                        raise ConfigError(f"calibration data must give finite {kind}, not NaN")
            self._set({name: kept for name, kept in before.items() if name not in reached})
        except BaseException:
            self._set(before)
            raise

    @contextmanager
    def _measuring(self) -> Iterator[None]:
        with ExitStack() as stack:
            for name, norm in self._norms.items():
                stack.callback(norm.train, norm.training)
                stack.callback(setattr, norm, "momentum", norm.momentum)
                hook = norm.register_forward_pre_hook(partial(_require_values, name))
                stack.callback(hook.remove)
                norm.reset_running_stats()
                norm.momentum = None  # the plain average
                norm.train()
            yield

    def _average_over_processes(self) -> None:
        if ranks() == 1 or not self._norms:
            return
        means = [
            statistic
            for norm in self._norms.values()
            for statistic in (norm.running_mean, norm.running_var)
        ]
        counts = [norm.num_batches_tracked for norm in self._norms.values()]
        weights = torch.stack(counts).double().repeat_interleave(2)
        sums = torch.cat([weights, *(w * m.double() for w, m in zip(weights, means, strict=True))])
        dist.all_reduce(sums)
        weights, *parts = torch.split(sums, [len(means), *map(len, means)])
        for count, total in zip(counts, weights[::2], strict=True):
            count.copy_(total)
        for weight, mean, total in zip(weights, means, parts, strict=True):
            mean.copy_(total / weight.clamp_min(1))

    def _statistics(self) -> dict[str, dict[str, Tensor]]:
        return {
            name: {kind: values.clone() for kind, values in norm.named_buffers()}
            for name, norm in self._norms.items()
        }

    @torch.no_grad()
    def _set(self, statistics: Mapping[str, Mapping[str, Tensor]]) -> None:
        for name, kept in statistics.items():
            for kind, values in kept.items():
                self._norms[name].get_buffer(kind).copy_(values)


@torch.no_grad()
def reestimate_norms_(model: nn.Module, batches: Iterable[Batch]) -> int:
    """Measure the running statistics of all batch norms again; return how many there are.

    Compression changes the distribution that a norm sees; without this, a compressed network of
    batch norms can lose most of its accuracy before any training.
    """
    norms = Norms(model)
    if len(norms):
        with as_it_was(model):
            model.eval()
            norms.measure_(partial(run_on, model, batches))
    return len(norms)


def run_on(model: nn.Module, batches: Iterable[Batch]) -> None:
    """Call a model with the inputs of all batches."""
    feed(batches, lambda batch: call_model(model, split(batch)[0]))


def warn_of_norms(model: nn.Module, stacklevel: int = 2) -> None:
    """Say that batch norms expect what the model gave before, and what to do about it."""
    if (count := len(Norms(model))) and is_main():
        warnings.warn(
            f"batch norms must be measured again once weights change, but no data were given: the "
            f"{count} of this model still expect what the original weights gave, which can cost "
            "most of its accuracy; give inputs of all classes (calibration=, --data), or say that "
            "norms are to stay (norms=False, --no-norms)",
            stacklevel=stacklevel + 1,
        )


def _is_tracked(module: nn.Module) -> bool:
    return (
        isinstance(module, _BatchNorm)
        and module.track_running_stats
        and module.running_mean is not None
        and module.momentum != 0
    )


def _require_values(name: str, norm: nn.Module, args: tuple[Any, ...]) -> None:
    """Refuse to measure the variance of one value."""
    x = args[0]
    if x.numel() == x.shape[1]:
        raise BatchError(
            f"larger: batch norm {name!r} is measured again, and gets one value of every feature; "
            "or leave norms as they are (norms=False, --no-norms)"
        )
