"""Rounding of what layers of a diffusion network read, on grids of the time step that it is at.

What flows through a noise predictor is small at one end of sampling and large at the other. So
every layer has a table of scales, a row for each time step of the sampler, or for neighbouring ones
together, and no arithmetic beyond a look-up. The step reaches all layers of a call by one
:class:`Clock`, which reads it where the network is called; rows of a batch may be at several.
"""

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vq.activations.rounding import SHARES, Rounding, on_scale
from vq.activations.tokens import check_rounding
from vq.calibration.batches import as_it_was, call_model
from vq.errors import ConfigError, UnsupportedLayerError, bulleted
from vq.formats.remaining import Remaining, remaining
from vq.layers import op_of

__all__ = ["Clock", "TimedLayer", "TimedRounding", "clock_of", "round_in_time_", "time_of"]

#: Operations whose inputs have a table.
_OPS = ("linear", "linear_t", "conv1d", "conv2d")
#: Values of a layer's inputs, in one call of the network, that scales are judged on.
_VALUES = 4096


class Clock(Remaining):
    """``forward`` of a network that is called with (inputs, time steps, ...): tells the step.

    Parameters
    ----------
    times : [N] integers
        The steps that tables have rows for, in the order of sampling.
    """

    kind: ClassVar[str] = "clock"

    def __init__(self, times: Tensor) -> None:
        self.times = times.detach().to("cpu", torch.int32)
        self.module: nn.Module | None = None
        #: What the present call is at, by rows of its batch: places in ``times``, and classes.
        self.places: Tensor | None = None
        self.classes: Tensor | None = None

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What a file stores."""
        return {"times": self.times}

    def __repr__(self) -> str:
        return f"Clock({self.times.tolist()})"

    def enter(self, module: nn.Module) -> None:
        """Watch over a network, from now on."""
        self.module = module
        vars(module)["forward"] = self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        assert self.module is not None
        forward = type(self.module).forward
        self.places = self.places_of(time_of(self.module, args, kwargs))
        self.classes = argument_of(self.module, 2, args, kwargs)
        try:
            return forward(self.module, *args, **kwargs)
        finally:
            self.places = self.classes = None

    def places_of(self, step: Any) -> Tensor:
        """Where time steps [B] stand among those that are known, [B].

        Raises
        ------
        ConfigError
            If one does not; with the list of those that do.
        """
        asked = torch.as_tensor(step).detach().reshape(-1)
        same = asked[:, None] == self.times.to(asked.device)
        if not bool(same.any(1).all()):
            other = asked[~same.any(1)][0].item()
            raise ConfigError(
                f"time step must be one that was calibrated, not {other:g}; they are "
                f"{', '.join(map(str, self.times.tolist()))}"
            )
        return same.int().argmax(1)

    def rows(self, count: int, size: int) -> Tensor:
        """Rows of a table, of ``count`` in all, for inputs whose first dimension is ``size``.

        [1] where all are alike. Where a layer reads several rows for each of the batch, they stand
        together.

        Raises
        ------
        ConfigError
            Outside of a call of the network, or if the rows are not those of its batch.
        """
        if self.places is None:
            raise ConfigError(
                "layers with a table of time steps must run where their network is called, not "
                "alone: only that knows the step"
            )
        rows = self.places * count // len(self.times)
        if bool((rows == rows[0]).all()):
            return rows[:1]
        if size % len(rows):
            raise ConfigError(
                f"layers must read as many rows as the network, {len(rows)}, or a multiple where "
                f"a batch is at several time steps, not {size}"
            )
        return rows.repeat_interleave(size // len(rows))


def argument_of(
    module: nn.Module, place: int, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Any:
    """Argument of a network's call by its place; None if there is none."""
    if place < len(args):
        return args[place]
    names = [*inspect.signature(type(module).forward).parameters][1:]
    return kwargs.get(names[place]) if place < len(names) else None


def time_of(module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """The time step, which is the second argument of a network's call.

    Raises
    ------
    ConfigError
        If there is none.
    """
    found = argument_of(module, 1, args, kwargs)
    if found is None:
        raise ConfigError(
            f"network must be called with (inputs, time steps, ...), and {type(module).__name__} "
            f"is called with {len(args) + len(kwargs)} arguments"
        )
    return found


def clock_of(model: nn.Module) -> Clock | None:
    """The clock of a model, if it has one."""
    held = (vars(module).get("forward") for module in model.modules())
    return next((one for one in held if isinstance(one, Clock)), None)


class TimedRounding(Rounding):
    """Rounds the inputs of one layer on the grid of the present time step.

    Gradients are those of LSQ, also of the scales once they are free.

    Parameters
    ----------
    bits : int
        2 to 8.
    clock : Clock
    scale : [rows] float32
        At most as many as the clock has steps, which share them out evenly, neighbours together.
    zero : [rows] uint8, optional
        Level that is 0; without, levels lie about 0, one more below than above.
    """

    kind: ClassVar[str] = "timed_rounding"
    scale: Tensor

    def __init__(self, bits: int, clock: Clock, scale: Tensor, zero: Tensor | None = None) -> None:
        super().__init__(bits, symmetric=zero is None, scale=scale)
        self.clock, self.zero = clock, zero
        self.gain: nn.Parameter | None = None

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What a file stores."""
        found = {"scale": self.table().detach()}
        return found if self.zero is None else found | {"zero": self.zero}

    def __repr__(self) -> str:
        rows = ", ".join(f"{x:.6g}" for x in self.table().tolist())
        return f"TimedRounding(bits={self.bits}, symmetric={self.symmetric}, scale=[{rows}])"

    def table(self) -> Tensor:
        """Scales as they are computed with, [rows]."""
        return self.scale if self.gain is None else self.scale * self.gain

    def apply(self, x: Tensor) -> Tensor:
        """Round inputs, of which the first dimension is that of the batch."""
        rows = self.clock.rows(len(self.scale), len(x)).to(self.scale.device)

        def of_rows(table: Tensor) -> Tensor:
            return table[rows].to(x.device).reshape(-1, *[1] * (x.ndim - 1))

        zero = None if self.zero is None else of_rows(self.zero)
        return on_scale(x, of_rows(self.table()), self.bits, zero)

    def free_steps(self) -> Tensor | None:
        """Make the scales trainable."""
        self.gain = nn.Parameter(torch.ones_like(self.scale))
        return self.gain

    def fix_steps(self) -> None:
        """Keep the scales as they have become."""
        if self.gain is not None:
            self.scale, self.gain = self.table().detach(), None


@dataclass(frozen=True)
class TimedLayer:
    """How the inputs of a layer are rounded.

    Attributes
    ----------
    name : str
    bits : int
    scale : tuple of float
        By rows of the table.
    error, shared_error : float
        Mean squared error on the calibration: with this table, and with one row found likewise for
        all steps. The first is never greater where scales are searched for.
    """

    name: str
    bits: int
    scale: tuple[float, ...]
    error: float
    shared_error: float


@torch.inference_mode(mode=False)
@torch.no_grad()
def round_in_time_(
    model: nn.Module,
    visits: Iterable[tuple[Tensor, ...]],
    bits: Mapping[str, int],
    times: Sequence[int],
    *,
    rows: int | None = None,
    symmetric: bool = True,
    percentile: float | None = None,
) -> list[TimedLayer]:
    """Round what layers read on scales of the time step, from now on.

    Parameters
    ----------
    model : nn.Module
        Called with (inputs, time steps [B], ...).
    visits : iterable of tuples of tensors
        Arguments of its calls, each at one time step; all steps must occur.
    bits : mapping of layer name to int
        2 to 8, of linears and convolutions.
    times : sequence of int
        Steps of the sampler, in its order. A call at any other is refused from then on.
    rows : int, optional
        Of every table: 1 is static rounding. By default, as many as there are steps.
    symmetric : bool
        Levels about 0, as integer graphs have them; otherwise from the least value to the greatest,
        0 among them.
    percentile : float, optional
        Of magnitudes, or from both ends, that still fits; 100 spans the range. By default scales
        are those of least squared error among shares of the range.

    Returns
    -------
    list of TimedLayer

    Raises
    ------
    ConfigError
        If a setting is impossible, the model has no such layer or has a clock of other steps, a
        layer is rounded already or never runs, or steps are missing in the calibration or mixed.
    UnsupportedLayerError
        If a layer is neither linear nor a convolution.
    """
    count = len(times) if rows is None else rows
    _check(model, bits, count, times, percentile)
    clock = clock_of(model) or Clock(torch.tensor(times))
    if clock.times.tolist() != list(times):
        raise ConfigError(
            f"time steps must be those that the model has tables for already, "
            f"{clock.times.tolist()}, not {list(times)}"
        )
    samples = _samples(model, visits, list(bits), clock, count)
    found, hooks = [], []
    for name, by_row in samples.items():
        shared, _ = _fitted(torch.cat(by_row), bits[name], symmetric, percentile, None)
        fits = [_fitted(x, bits[name], symmetric, percentile, shared) for x in by_row]
        values = sum(x.numel() for x in by_row)
        apart = sum(_error(x, shared, bits[name]) for x in by_row)
        scale = torch.stack([grid.scale for grid, _ in fits])
        zeros = [grid.zero for grid, _ in fits if grid.zero is not None]
        zero = torch.stack(zeros).to(torch.uint8) if zeros else None
        hooks.append((name, TimedRounding(bits[name], clock, scale, zero)))
        error = sum(error for _, error in fits) / values
        found.append(TimedLayer(name, bits[name], tuple(scale.tolist()), error, apart / values))
    if clock.module is None:
        clock.enter(model)
    for name, hook in hooks:
        module = model.get_submodule(name)
        module.register_forward_pre_hook(hook, prepend=True, with_kwargs=True)
    return found


def _check(
    model: nn.Module,
    bits: Mapping[str, int],
    rows: int,
    times: Sequence[int],
    percentile: float | None,
) -> None:
    for own in set(bits.values()):
        check_rounding(own, 1.0)
    if not bits or not times:
        raise ConfigError("activations to round must have at least one layer and time step")
    if len(set(times)) != len(times):
        raise ConfigError(f"time steps must differ, not be {list(times)}")
    if not 1 <= rows <= len(times):
        raise ConfigError(f"rows must be 1 to {len(times)}, the time steps, not {rows}")
    if percentile is not None and not 50 < percentile <= 100:
        raise ConfigError(f"percentile must be above 50 and at most 100, not {percentile!r}")
    known = dict(model.named_modules())
    if missing := [name for name in bits if name not in known]:
        raise ConfigError(f"model must hold the layers {', '.join(missing)}, not lack them")
    if done := [n for n in bits if any(isinstance(one, Rounding) for one in remaining(known[n]))]:
        raise ConfigError(
            f"activations to round must not be rounded already, as those of {', '.join(done)} are "
            "by what remains in the model"
        )
    problems = [
        f"layer {name!r}: must be linear or a convolution, not {type(known[name]).__name__}"
        for name in bits
        if op_of(known[name]) not in _OPS
    ]
    if problems:
        raise UnsupportedLayerError(bulleted("activations to round", problems))


def _samples(
    model: nn.Module,
    visits: Iterable[tuple[Tensor, ...]],
    names: Sequence[str],
    clock: Clock,
    rows: int,
) -> dict[str, list[Tensor]]:
    """Some values that each layer reads, both extremes among them, by rows of the table."""
    found: dict[str, list[list[Tensor]]] = {name: [[] for _ in range(rows)] for name in names}
    seen: set[int] = set()
    row = 0

    def keep(name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        x, *_ = (*args, *kwargs.values())
        values = x.detach().float().flatten()
        stride = max(1, values.numel() // _VALUES)
        found[name][row].append(
            torch.cat([values[::stride], *map(torch.atleast_1d, values.aminmax())])
        )

    handles = [
        model.get_submodule(name).register_forward_pre_hook(partial(keep, name), with_kwargs=True)
        for name in names
    ]
    try:
        with as_it_was(model):
            model.eval()
            for inputs in visits:
                places = sorted(set(clock.places_of(time_of(model, inputs, {})).tolist()))
                if len(places) != 1:
                    raise ConfigError(
                        "calibration must be of one time step in every call, not of "
                        f"{[clock.times[place].item() for place in places]}"
                    )
                seen.add(places[0])
                row = places[0] * rows // len(clock.times)
                call_model(model, tuple(inputs))
    finally:
        for handle in handles:
            handle.remove()
    if lacking := [str(t) for i, t in enumerate(clock.times.tolist()) if i not in seen]:
        raise ConfigError(f"calibration must reach all time steps, and lacks {', '.join(lacking)}")
    if silent := [name for name, parts in found.items() if not all(parts)]:
        raise ConfigError(
            f"layers must run at every time step to be rounded, and {', '.join(silent)} do not"
        )
    return {name: [torch.cat(parts) for parts in by_row] for name, by_row in found.items()}


@dataclass(frozen=True, eq=False)
class _Grid:
    """Scale and zero, [] each."""

    scale: Tensor
    zero: Tensor | None


def _fitted(
    values: Tensor, bits: int, symmetric: bool, percentile: float | None, other: _Grid | None
) -> tuple[_Grid, float]:
    """Grid of values [n], and its squared error; ``other`` is one more to choose from."""
    if percentile is not None:
        grid = _spanning(*_ends(values, symmetric, percentile), bits, symmetric)
        return grid, _error(values, grid, bits)
    low, high = _ends(values, symmetric, 100)
    tried = [_spanning(low * share, high * share, bits, symmetric) for share in SHARES]
    if other is not None:
        tried.append(other)
    errors = [_error(values, grid, bits) for grid in tried]
    best = min(range(len(tried)), key=errors.__getitem__)
    return tried[best], errors[best]


def _ends(values: Tensor, symmetric: bool, percentile: float) -> tuple[Tensor, Tensor]:
    """Least and greatest value that a grid is to hold, 0 between them."""
    share = percentile / 100
    if symmetric:
        high = values.abs().quantile(share)
        return -high, high
    return values.quantile(1 - share).clamp(max=0), values.quantile(share).clamp(min=0)


def _spanning(low: Tensor, high: Tensor, bits: int, symmetric: bool) -> _Grid:
    top = (1 << (bits - 1)) - 1
    scale = high / top if symmetric else (high - low) / (2 * top + 1)
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))  # of what is always 0
    return _Grid(scale, None if symmetric else (-low / scale).round().clamp(0, 2 * top + 1))


def _error(values: Tensor, grid: _Grid, bits: int) -> float:
    """Sum of squared errors on a grid."""
    return float((on_scale(values, grid.scale, bits, grid.zero) - values).double().square().sum())
