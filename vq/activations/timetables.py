"""The time path of a diffusion network, computed once for the steps of its sampler.

A noise predictor embeds the time step in a network of its own and projects that for every block.
All of it depends on the step alone, and a sampler asks for a few steps only. So each module that
depends on nothing else gives way to a table with a row for every step: no multiplications are left
of the path, no weights, and no error of a rounding, as the rows are those of the full-precision
model. Modules that also depend on a class may go the same way, with a row for every step and class.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vq.activations.timesteps import Clock, clock_of
from vq.calibration.batches import as_it_was
from vq.calibration.dependence import Dependence, dependence
from vq.errors import ConfigError
from vq.formats.remaining import Remaining

__all__ = ["Tabled", "TimeTable", "TimeTables", "put_table", "tabulate_"]

#: What the arguments of a network are called here, the others being conditions.
_INPUT, _STEP, _CLASS = "its input", "the time step", "the class"
#: Modules that an error names.
_FEW = 8


class TimeTable(Remaining):
    """``forward`` of what stands for a module: the row of the present time step, and class.

    Parameters
    ----------
    clock : Clock
    table : [rows, ...] or [rows, classes, ...]
        A row for each step of the clock; or one, for what nobody uses any more.
    classes : int
        0 if it depends on none.
    """

    kind: ClassVar[str] = "time_table"

    def __init__(self, clock: Clock, table: Tensor, classes: int) -> None:
        self.clock, self.table, self.classes = clock, table, classes

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What a file stores."""
        return {"table": self.table}

    @property
    def settings(self) -> dict[str, int]:
        """What a file says beside its tensors."""
        return {"classes": self.classes}

    def __repr__(self) -> str:
        return f"TimeTable({list(self.table.shape)}, classes={self.classes})"

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        places = self.clock.places
        if places is None:
            raise ConfigError(
                "a time table must be asked where its network is called, not alone: only that "
                "knows the step"
            )
        rows = places if len(self.table) > 1 else torch.zeros_like(places)
        rows = rows.to(self.table.device)
        if not self.classes:
            return self.table[rows].to(places.device)
        classes = self.clock.classes
        if not isinstance(classes, Tensor) or classes.shape != places.shape:
            given = list(classes.shape) if isinstance(classes, Tensor) else None
            raise ConfigError(f"classes must be [{len(places)}], one a row, not {given}")
        if bool(((classes < 0) | (classes >= self.classes)).any()):
            raise ConfigError(
                f"classes must be 0 to {self.classes - 1}, as a time table has them, not "
                f"{classes.tolist()}"
            )
        return self.table[rows, classes.to(rows.device)].to(places.device)


class Tabled(nn.Module):
    """What stands where a module was that a :class:`TimeTable` replaces; it holds nothing."""

    def __init__(self, part: TimeTable) -> None:
        super().__init__()
        vars(self)["forward"] = part


@dataclass(frozen=True)
class TimeTables:
    """What has become of a time path.

    Attributes
    ----------
    modules : list of str
        Whose rows the network reads.
    unread : list of str
        That were read by these alone, and have nothing left.
    values : int
        Numbers in tables.
    parameters : int
        That have left the model.
    spread : float
        What rows of one batch at one step differ by in the original, at most.
    """

    modules: list[str]
    unread: list[str]
    values: int
    parameters: int
    spread: float


@torch.inference_mode(mode=False)
@torch.no_grad()
def tabulate_(
    model: nn.Module,
    times: Sequence[int],
    inputs: Sequence[Tensor],
    *,
    classes: int | None = None,
) -> TimeTables:
    """Replace all that depends on the time step alone by tables, in place.

    A row is what the first row of a batch as wide as ``inputs`` gives. With one row, what the
    network gives at these steps stays as it is, bit for bit; of wider batches, a processor may add
    up each row in another order, and the original's own rows differ by that much (``spread``).

    Parameters
    ----------
    model : nn.Module
        Called with (input, time steps [B], ...).
    times : sequence of int
        Steps of the sampler, in its order. A call at any other is refused from then on.
    inputs : sequence of tensors
        Arguments of a call. No values of the first one, nor of conditions, enter the tables.
    classes : int, optional
        The third argument [B] is a class below this number, and what depends on step and class
        alone is to be replaced, too.

    Raises
    ------
    ConfigError
        If no module depends on the time step alone, with those that were looked at; if the model
        has a clock of other steps, or tables already; if it is called with less than that.
    """
    clock = clock_of(model) or Clock(torch.tensor(list(times)))
    if clock.times.tolist() != list(times):
        raise ConfigError(
            f"time steps must be those that the model has tables for already, "
            f"{clock.times.tolist()}, not {list(times)}"
        )
    wanted = 2 if classes is None else 3
    if len(inputs) < wanted:
        raise ConfigError(
            f"inputs must be at least {wanted}, an input, time steps{' and classes' * (wanted - 2)}"
            f", not {len(inputs)}"
        )
    called = [_INPUT, _STEP, *(f"condition {i + 1}" for i in range(len(inputs) - 2))]
    if classes is not None:
        called[2] = _CLASS
    seen = dependence(model, inputs, called)
    own = {_STEP} if classes is None else {_STEP, _CLASS}
    found = _outermost(model, seen, own)
    read = dependence(model, inputs, called, list(found)).output & found.keys()
    # What depends on the class alone has its table already, if anything reads it.
    chosen = {name: on for name, on in found.items() if _STEP in on or name not in read}
    read &= chosen.keys()
    if not read:
        raise ConfigError(_not_found(model, seen, own))
    of_class = {name for name, on in chosen.items() if _CLASS in on}
    tables, spread = _recorded(model, clock, inputs, list(chosen), of_class, classes or 0)
    before = sum(p.numel() for p in model.parameters())
    if clock.module is None:
        clock.enter(model)
    for name in chosen:
        table, own_classes = tables[name], (classes or 0) if name in of_class else 0
        if name not in read:  # of any values: only its shape is looked at
            table = torch.zeros_like(table[:1, 0] if own_classes else table[:1])
            own_classes = 0
        put_table(model, name, TimeTable(clock, table, own_classes))
    return TimeTables(
        [name for name in chosen if name in read],
        [name for name in chosen if name not in read],
        sum(tables[name].numel() for name in read),
        before - sum(p.numel() for p in model.parameters()),
        spread,
    )


def put_table(model: nn.Module, name: str, part: TimeTable) -> None:
    """Let a table stand for a module."""
    parent, _, key = name.rpartition(".")
    model.get_submodule(parent)._modules[key] = Tabled(part)


def _outermost(model: nn.Module, seen: Dependence, own: set[str]) -> dict[str, frozenset[str]]:
    """Modules that run once and depend on nothing but ``own``, with what each depends on."""
    found: dict[str, frozenset[str]] = {}
    for name, module in model.named_modules():
        given = [] if isinstance(module, Tabled) else seen.gives.get(name, [])
        if not name or len(given) != 1 or not given[0] or not given[0] <= own:
            continue
        if not any(name.startswith(f"{outer}.") for outer in found):
            found[name] = given[0]
    return found


def _not_found(model: nn.Module, seen: Dependence, own: set[str]) -> str:
    known = dict(model.named_modules())
    looked = {
        name: given[0]
        for name, given in seen.gives.items()
        if name and any(True for _ in known[name].parameters(recurse=False))
    }
    rows = [
        f"{name!r} depends on {' and '.join(sorted(on)) or 'nothing'}"
        for name, on in looked.items()
    ]
    more = f" and {len(rows) - _FEW} more" if len(rows) > _FEW else ""
    return (
        f"model must have modules whose output depends on {' and '.join(sorted(own))} alone, and "
        f"which it reads, to have time tables; looked at: {'; '.join(rows[:_FEW])}{more}"
    )


def _recorded(
    model: nn.Module,
    clock: Clock,
    inputs: Sequence[Tensor],
    names: Sequence[str],
    of_class: Collection[str],
    classes: int,
) -> tuple[dict[str, Tensor], float]:
    """What modules give at every step, [steps, ...] or [steps, classes, ...], and the spread."""
    rows: dict[str, list[Tensor]] = {name: [] for name in names}
    count, spread = len(inputs[0]), [0.0]

    def note(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if not isinstance(output, Tensor) or len(output) != count:
                shape = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
                raise ConfigError(
                    f"module {name!r} must give a tensor with a row for each of the batch's "
                    f"{count} to have a time table, not {shape}"
                )
            rows[name].append(output[0].clone())
            spread.append(float((output - output[:1]).abs().max()))

        return hook

    handles = [model.get_submodule(n).register_forward_hook(note(n)) for n in names]
    try:
        with as_it_was(model):
            model.eval()
            for step in clock.times.tolist():
                for own in range(max(1, classes)):
                    args = [torch.zeros_like(inputs[0]), torch.full_like(inputs[1], step)]
                    args += list(inputs[2:])
                    if classes:
                        args[2] = torch.full_like(inputs[2], own)
                    model(*args)
    finally:
        for handle in handles:
            handle.remove()
    steps = len(clock.times)
    found = {}
    for name in names:
        table = torch.stack(rows[name]).reshape(steps, max(1, classes), *rows[name][0].shape)
        found[name] = table if name in of_class else table[:, 0]
    return found, max(spread)
