"""What flows in a transformer on calibration data: peaks by place on the tape."""

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vq.calibration.batches import BatchError, on_batch
from vq.errors import ConfigError
from vq.integer.calibrate import BINS, choose_peak
from vq.integer.tokens.tape import Tape, module_names, tensors_in
from vq.integer.tokens.trace import ATTENTION, Call
from vq.progress import track

__all__ = ["INPUT", "Peaks", "observed"]

#: Place of what a model is given.
INPUT = -1


class Peaks:
    """Magnitudes of values by their places.

    Attributes
    ----------
    greatest : dict of int to float
    typical : dict of int to float
        The root mean square of the usual row.
    chosen : dict of int to float
        By the way that scales of int8 are chosen; not more.
    scores : dict of int to float
        The greatest score of attentions.
    """

    def __init__(self, places: Collection[int]) -> None:
        self.greatest = dict.fromkeys(places, 0.0)
        self.typical = dict.fromkeys(places, 0.0)
        self.chosen: dict[int, float] = {}
        self.scores: dict[int, float] = {}
        self._counts = {place: torch.zeros(BINS) for place in places}

    def measure(self, place: int, values: Tensor) -> None:
        sizes = values.float().flatten(0, -2).square().mean(-1).sqrt()
        self.typical[place] = max(self.typical[place], float(sizes.median()))
        self.greatest[place] = max(self.greatest[place], float(values.abs().max()))
        if not bool(values.isfinite().all()):
            raise BatchError("such that all values of the model are finite")

    def count(self, place: int, values: Tensor) -> None:
        sizes = values.detach().abs().float().flatten()
        self._counts[place] += torch.histc(sizes, BINS, 0.0, self.greatest[place] or 1.0)

    def choose(self, choice: str) -> None:
        for place, peak in self.greatest.items():
            counts = self._counts[place].numpy()
            self.chosen[place] = peak if choice == "max" else choose_peak(counts, peak, choice)


def observed(
    model: nn.Module, calls: Sequence[Call], places: Collection[int], choice: str, progress: bool
) -> Peaks:
    """Run the model on all calls, twice unless the greatest magnitudes are all that is asked.

    Raises
    ------
    ConfigError
        If there is no call, the model does not accept one, computes something else for it than
        for others, or a value is not finite.
    """
    if not calls:
        raise ConfigError("calibration data must hold at least one batch, not none")
    peaks = Peaks(places)
    works = [("measuring activations", peaks.measure)]
    if choice != "max":
        works.append(("counting activations", peaks.count))
    with module_names(model) as names:
        for number, (what, work) in enumerate(works):
            first = not number
            for at, call in enumerate(track(calls, what, enabled=progress), 1):
                seen = set[int]()
                if INPUT in places:
                    seen.add(INPUT)
                    work(INPUT, call.main)

                def see(
                    place: int, module: str, func: Any, args: Sequence[Any], kwargs: Any,
                    found: Any, call: Call = call, seen: set[int] = seen, first: bool = first,
                    work: Any = work,
                ) -> None:  # fmt: skip
                    if place not in peaks.greatest:
                        return
                    seen.add(place)
                    work(place, _unpadded(next(tensors_in([found])), call))
                    if first and getattr(func, "__name__", "") == ATTENTION:
                        scores = _greatest_score(args, kwargs)
                        peaks.scores[place] = max(peaks.scores.get(place, 0.0), scores)

                tape = Tape(see, names)
                tape.follow(call.main)
                with on_batch(at, call.main), tape:
                    model(*call.args, **call.kwargs)
                if seen != set(peaks.greatest):
                    raise ConfigError(
                        f"calibration batch {at}: model must compute the same for all inputs"
                    )
    peaks.choose(choice)
    return peaks


def _unpadded(values: Tensor, call: Call) -> Tensor:
    """Without rows of padding, where these are rows."""
    mask = call.mask
    if mask is None or values.ndim != 3 or values.shape[:2] != mask.shape:
        return values
    return values[mask.bool()]


def _greatest_score(args: Sequence[Any], kwargs: Any) -> float:
    q, k = args[0].float(), args[1].float()
    k = k.repeat_interleave(q.shape[1] // k.shape[1], 1)
    scale = kwargs.get("scale") or q.shape[-1] ** -0.5
    texts = zip(q, k.transpose(-1, -2), strict=True)
    return float(scale * max(float((one @ other).abs().max()) for one, other in texts))
