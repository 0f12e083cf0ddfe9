"""Meter of what draws images."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from signbook.diffusion.fidelity import Drift, Fidelity, feature_distance
from signbook.diffusion.likeness import frechet_distance, judged
from signbook.meters.meter import Meter, require
from signbook.tasks import Generation
from vq.errors import ConfigError

__all__ = ["Samples"]

#: Images that are kept to be shown.
_SHOWN = 16


class Samples(Meter):
    """How like real images those of a model are, and how like those of its reference.

    What the judge says of every image is kept, and the first images themselves.
    """

    def __init__(self, task: Generation) -> None:
        super().__init__()
        self._task = task
        self._real, _ = task.judge(task.real)
        self._labels: list[Tensor] = []
        self._seen: tuple[list[tuple[Tensor, Tensor]], ...] = ([], [])
        self._shown: list[list[Tensor]] = [[], []]
        self._fidelity, self._drift = Fidelity(), Drift()

    def add(self, batch: Any, models: Sequence[nn.Module]) -> None:
        """Let the models draw from (noise [B, C, H, W],) or (noise, labels [B])."""
        if not isinstance(batch, tuple | list) or len(batch) not in (1, 2):
            raise ConfigError("a batch must be noise alone, in a tuple, or noise and labels")
        noise, *labels = batch
        shape = [len(noise), *self._task.real.shape[1:]]
        self._labels += [require(given, "labels", shape[:1], "integer").cpu() for given in labels]
        drawn = [
            require(images, "samples", shape, "finite").float().clamp(0, 1).cpu()
            for images in self._draw(batch, models)
        ]
        for place, images in enumerate(drawn):
            self._seen[place].append(self._task.judge(images))
            self._shown[place] += images[: max(0, _SHOWN - self.count)]
        if len(drawn) == 2:
            self._fidelity.add(*drawn)
        self.count += len(noise)

    def _draw(self, batch: Any, models: Sequence[nn.Module]) -> Iterator[Tensor]:
        """What each model makes of a batch; two go step by step together, where they can."""
        if self._task.visits is None or len(models) < 2:
            for model in models:
                yield self._task.sample(model, *batch)
            return
        ways = [self._task.visits(model, *batch) for model in models]
        ends: list[Tensor] = []
        while len(ends) < len(ways):
            met = []
            for way in ways:
                try:
                    met.append(next(way))
                except StopIteration as end:
                    ends.append(end.value)
            if met:
                (found, step, *_), (original, *_) = met
                images = len(batch[0])
                self._drift.add(int(step[0]), found[:images], original[:images])
        yield from ends

    def metrics(self, place: int) -> dict[str, float]:
        """``frechet``, ``precision``, ``recall``, and with labels ``agreement``."""
        labels = torch.cat(self._labels) if self._labels else None
        return judged(*self._of(place), self._real, labels)

    def comparison(self) -> dict[str, float]:
        """``frechet_to_reference`` and ``same_class``, and how much each image is the same."""
        (features, logits), (others, theirs) = self._of(0), self._of(1)
        return {
            "frechet_to_reference": frechet_distance(features, others),
            "same_class": float((logits.argmax(1) == theirs.argmax(1)).double().mean()),
            **self._fidelity.metrics(),
            "feature_distance": feature_distance(features, others),
        }

    def drift(self) -> dict[str, list[float]] | None:
        """``steps`` and ``relative_error``, by :class:`signbook.diffusion.fidelity.Drift`."""
        curve = self._drift.curve()
        return curve if curve["steps"] else None

    def samples(self, place: int) -> list[Any]:
        """The first images, [H][W] of brightness from 0 to 255."""
        return [(image.mean(0) * 255).round().int().tolist() for image in self._shown[place]]

    def _of(self, place: int) -> tuple[Tensor, Tensor]:
        """Features and logits of all images of a model."""
        features, logits = zip(*self._seen[place], strict=True)
        return torch.cat(features), torch.cat(logits)
