"""Scales of activations: one real number per tensor, from what flows on calibration data."""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from vq.calibration.batches import BatchError, on_batch
from vq.errors import ConfigError
from vq.integer.graph import CHOICES
from vq.progress import track

__all__ = ["BINS", "activation_scales", "choose_peak"]

#: Bins of the histograms of magnitudes.
BINS = 4096
_CODE_MAX = 127
_PERCENTILE = 0.9999
_CANDIDATES = np.linspace(0.2, 1.0, 81)


class _Observer(fx.Interpreter):
    """Runs the model and shows the value of every watched node."""

    def __init__(
        self, module: fx.GraphModule, watched: set[fx.Node], see: Callable[[fx.Node, Tensor], None]
    ) -> None:
        super().__init__(module)
        self._watched, self._see = watched, see

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n in self._watched:
            self._see(n, value)
        return value


@torch.no_grad()
def activation_scales(
    module: fx.GraphModule,
    values: Mapping[str, fx.Node],
    batches: Collection[Tensor],
    choice: str,
    *,
    progress: bool = True,
) -> tuple[dict[str, float], dict[str, tuple[int, ...]]]:
    """Measure the scale and the shape of every value; the data are read twice.

    Parameters
    ----------
    module : GraphModule
        In evaluation mode.
    values : mapping of name to fx.Node
    batches : collection of inputs [B, ...], the same at every iteration
    choice : str
        How the peak, which becomes 127 steps, is chosen (:func:`choose_peak`).
    progress : bool
        Show a progress bar when standard error is a terminal.

    Returns
    -------
    scales : dict of name to float
    shapes : dict of name to tuple, without the batch

    Raises
    ------
    ConfigError
        If there is no batch, the model does not accept one, or a value is not finite.
    """
    if choice not in CHOICES:
        raise ConfigError(f"choice must be one of {', '.join(CHOICES)}, not {choice!r}")
    nodes = set(values.values())
    peaks: dict[fx.Node, float] = dict.fromkeys(nodes, 0.0)
    shapes: dict[fx.Node, tuple[int, ...]] = {}

    def measure(node: fx.Node, value: Tensor) -> None:
        peaks[node] = max(peaks[node], float(value.abs().max()))
        shapes[node] = tuple(value.shape[1:])
        if not np.isfinite(peaks[node]) or bool(value.isnan().any()):
            raise BatchError(f"such that all values are finite, and those at {node.name!r} are not")

    _observe(module, nodes, track(batches, "measuring activations", enabled=progress), measure)
    if not shapes:
        raise ConfigError("calibration data must hold at least one batch, not none")
    if choice != "max":
        counts = {node: torch.zeros(BINS) for node in nodes}

        def count(node: fx.Node, value: Tensor) -> None:
            magnitudes = value.detach().abs().float().flatten().cpu()
            counts[node] += torch.histc(magnitudes, BINS, 0.0, peaks[node] or 1.0)

        _observe(module, nodes, track(batches, "counting activations", enabled=progress), count)
        for node in nodes:
            peaks[node] = choose_peak(counts[node].numpy(), peaks[node], choice)
    found = {name: (peaks[node] or 1.0) / _CODE_MAX for name, node in values.items()}
    return found, {name: shapes[node] for name, node in values.items()}


def _observe(
    module: fx.GraphModule,
    nodes: set[fx.Node],
    batches: Iterable[Tensor],
    see: Callable[[fx.Node, Tensor], None],
) -> None:
    observer = _Observer(module, nodes, see)
    observer.extra_traceback = False  # nothing of torch.fx behind our own errors
    for number, inputs in enumerate(batches, 1):
        with on_batch(number, inputs):
            observer.run(inputs)


def choose_peak(counts: NDArray[np.floating], peak: float, choice: str) -> float:
    """Magnitude that becomes 127 steps; what is greater saturates.

    Parameters
    ----------
    counts : [BINS]
        Histogram of magnitudes from 0 to ``peak``.
    peak : float
        Greatest magnitude.
    choice : str
        "max": the greatest magnitude. "percentile": that which 99.99 % of the values do not
        exceed. "mse": that with the least squared error of rounding and saturation, of 81
        candidates from 0.2 to 1.0 times the greatest.
    """
    if choice == "max" or peak == 0:
        return peak
    centres = (np.arange(len(counts)) + 0.5) * (peak / len(counts))
    counts = counts.astype(np.float64)
    if choice == "percentile":
        reached = np.cumsum(counts) / max(counts.sum(), 1)
        return float(peak * (np.searchsorted(reached, _PERCENTILE) + 1) / len(counts))
    errors = []
    for candidate in _CANDIDATES * peak:
        step = candidate / _CODE_MAX
        coded = np.minimum(np.rint(centres / step), _CODE_MAX) * step
        # Inside a bin the values spread evenly; the first bin is mostly exact zeros.
        errors.append(float((counts[1:] * (centres[1:] - coded[1:]) ** 2).sum()))
    return float(peak * _CANDIDATES[int(np.argmin(errors))])
