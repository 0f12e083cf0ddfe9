"""Latents that a diffusion model meets, pooled over seeds and time steps, as batches to learn from.

A pass over :class:`Pools` is a round of two phases. *Serial*: a model samples from pure noise, step
by step, and what it is given is kept; no images are needed. *Parallel*: what was kept is handed out
in an order that is shuffled over seeds and steps. Where the model that samples is the one that
learns, it meets what it will meet in use; where the order is shuffled, no step is forgotten for the
next one.
"""

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from vq import distributed
from vq.calibration.batches import as_it_was, device_of, to_device
from vq.calibration.sampling import Draw, Sampler, course
from vq.errors import ConfigError

__all__ = ["POLICIES", "Forward", "Pool", "Pools", "serial"]

#: Who samples: the model that learns, or the one that it learns from; or nobody, see `Forward`.
POLICIES = ("own", "original", "noised")

#: Arguments of calls of a model, a tuple of tensors each.
Pool = list[tuple[Tensor, ...]]


@dataclass(frozen=True)
class Forward:
    """Images that are noised to a time step, instead of a sampler's course.

    Attributes
    ----------
    images : [N, ...] tensor
    conditions : tuple of [N, ...] tensors
    noised : callable
        ``noised(images, steps, noise)`` gives what the images are at steps [B].
    """

    images: Tensor = field(repr=False)
    conditions: tuple[Tensor, ...] = field(repr=False)
    noised: Callable[[Tensor, Tensor, Tensor], Tensor] = field(repr=False)

    def at(self, step: int, count: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Arguments for so many rows at a time step."""
        chosen = torch.randint(len(self.images), (count,), generator=generator)
        clean, steps = self.images[chosen], torch.full((count,), step)
        noise = torch.randn(clean.shape, generator=generator)
        return self.noised(clean, steps, noise), steps, *(c[chosen] for c in self.conditions)


@torch.no_grad()
def serial(sampler: Sampler, model: nn.Module, start: tuple[Tensor, ...]) -> Pool:
    """What a model meets while it draws, a tuple for each step (:func:`course`)."""
    with as_it_was(model):
        model.eval()
        placed = to_device(start, device_of(model))
        return [tuple(t.cpu() for t in inputs) for inputs in course(sampler, model, *placed)]


class Pools:
    """Batches of ((noisy [B, ...], steps [B], conditions [B, ...]),), drawn anew in every pass.

    Parameters
    ----------
    sampler : Sampler
    model : nn.Module
        That learns.
    original : nn.Module
        That it learns from.
    draw : Draw
    seeds : int
        Images of a round.
    batch : int
        Rows of a batch, which divides the seeds.
    policy : str
        One of :data:`POLICIES`.
    shuffled : bool
        If not, one batch of seeds goes through all steps before the next one does.
    forward : Forward, optional
        For "noised".
    seed : int
        Of all that is drawn.

    Raises
    ------
    ConfigError
    """

    def __init__(
        self,
        sampler: Sampler,
        model: nn.Module,
        original: nn.Module,
        draw: Draw,
        *,
        seeds: int,
        batch: int,
        policy: str = "own",
        shuffled: bool = True,
        forward: Forward | None = None,
        seed: int = 0,
    ) -> None:
        if policy not in POLICIES:
            raise ConfigError(f"policy must be one of {', '.join(POLICIES)}, not {policy!r}")
        if batch < 1 or seeds < 1 or seeds % batch:
            raise ConfigError(
                f"seeds must be a positive multiple of the batch, not {seeds} for {batch}"
            )
        if (policy == "noised") != (forward is not None):
            raise ConfigError(
                "images to noise must be given with policy 'noised', and without it not"
            )
        self._sampler, self._draw, self._forward = sampler, draw, forward
        self._student, self._teacher = model, original
        self._seeds, self._batch, self._seed = seeds, batch, seed
        self._policy, self._shuffled = policy, shuffled
        self._round = 0
        self._pool: Pool = []
        self._taken = False

    def __len__(self) -> int:
        return self._seeds // self._batch * len(self._sampler.steps)

    def __iter__(self) -> Iterator[tuple[tuple[Tensor, ...]]]:
        if not self._taken:
            self._round += 1
            self._pool = self._serial()
        self._taken = False
        pool = self._pool
        if not self._shuffled:
            yield from ((inputs,) for inputs in pool)
            return
        columns = [torch.cat(parts) for parts in zip(*pool, strict=True)]
        order = torch.randperm(len(columns[0]), generator=self._generator("order"))
        for rows in order.tensor_split(len(self)):
            yield (tuple(column[rows] for column in columns),)

    def some(self, count: int) -> Pool:
        """Arguments of calls from the present pool, spread over it; nothing before the first."""
        return self._pool[:: max(1, len(self._pool) // count)][:count]

    def drawn(self) -> dict[str, Any]:
        """What a pass that goes on later cannot draw again: the model has changed since."""
        return {"round": self._round, "pool": list(self._pool)}

    def take(self, drawn: dict[str, Any]) -> None:
        """Let the next pass be the one of which :meth:`drawn` tells."""
        self._round, self._pool, self._taken = drawn["round"], drawn["pool"], True

    def _serial(self) -> Pool:
        """Sample, batch by batch, and keep what is met."""
        generator = self._generator("noise")
        pool: Pool = []
        for _ in range(self._seeds // self._batch):
            if self._forward is not None:
                steps = self._sampler.steps
                pool += [self._forward.at(step, self._batch, generator) for step in steps]
                continue
            model = self._student if self._policy == "own" else self._teacher
            pool += serial(self._sampler, model, self._draw(self._batch, generator))
        return pool

    def _generator(self, what: str) -> torch.Generator:
        """Of its own for every round and process, so that a resumed run needs no state of it."""
        text = f"{self._seed} {what} {self._round} {distributed.rank()}"
        return torch.Generator().manual_seed(zlib.crc32(text.encode()))
