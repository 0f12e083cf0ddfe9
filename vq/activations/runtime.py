"""What a method leaves in a model beside its weights: put there, found again, stored and read.

Transforms and roundings are hooks before layers; prefixes, clocks and time tables stand in place of
the ``forward`` of modules that attend, of networks, and of modules that are no more. A model is
asked for them by looking at its modules, so that copies, renamed modules and parts of it have what
they should.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from vq.activations.prefix import Prefix, prefix_of
from vq.activations.rounding import Rounding
from vq.activations.timesteps import Clock, TimedRounding
from vq.activations.timetables import TimeTable, put_table
from vq.activations.tokens import ActivationQuantizer, off
from vq.activations.transform import Transform, transforms_first
from vq.container import Container, ContainerError, Kept
from vq.container.runtime import PARTS, RuntimePart, describe, tensor_name
from vq.errors import ConfigError
from vq.formats.kept import kept_of, tensor_of
from vq.formats.remaining import Remaining, all_remaining, remaining

__all__ = [
    "Hook",
    "attach",
    "attach_prefixes",
    "attach_stored",
    "attached",
    "detach",
    "replaced",
    "rounds",
    "runtime_tensors",
    "unrounded",
]

Hook = Transform | Rounding


def attach(model: nn.Module, part: Hook, layers: Sequence[str]) -> None:
    """Put a transform or a rounding before linears; of both, the transform is the first."""
    for name in layers:
        module = model.get_submodule(name)
        module.register_forward_pre_hook(part, prepend=True, with_kwargs=True)
        transforms_first(module)
    _watch_saving(model)


def attach_prefixes(model: nn.Module, prefixes: Mapping[str, Prefix]) -> None:
    """Put prefixes before what modules attend to, by the modules' names."""
    for name, prefix in prefixes.items():
        prefix.enter(model.get_submodule(name))
    _watch_saving(model)


class _Saving:
    """``save_pretrained`` of transformers, which knows of no parts and says nothing of them."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if kinds := dict.fromkeys(one.kind for one in all_remaining(self.model)):
            warnings.warn(
                "save_pretrained of transformers leaves out what remains in the model at run time "
                f"({', '.join(kinds)}), without which its weights are another model; write the "
                "compressed model by vq.hf.save_pretrained",
                stacklevel=2,
            )
        return type(self.model).save_pretrained(self.model, *args, **kwargs)


def _watch_saving(model: nn.Module) -> None:
    if hasattr(type(model), "save_pretrained"):
        vars(model)["save_pretrained"] = _Saving(model)


def detach(model: nn.Module, *, but: Sequence[Remaining] = ()) -> None:
    """Take all parts out of a model, but those that may stay.

    Modules that time tables stand for do not come back.
    """
    stays = {id(part) for part in but}

    def goes(part: object) -> bool:
        return isinstance(part, Remaining) and id(part) not in stays

    for module in model.modules():
        hooks = module._forward_pre_hooks
        for key in [key for key, hook in hooks.items() if goes(hook)]:
            del hooks[key]
            module._forward_pre_hooks_with_kwargs.pop(key, None)
        if goes(vars(module).get("forward")):
            del vars(module)["forward"]


@contextmanager
def attached(model: nn.Module) -> Iterator[None]:
    """Take out again what the block has put into a model, if it fails, whatever the reason."""
    before = all_remaining(model)
    try:
        yield
    except BaseException:
        detach(model, but=before)
        raise


def _hooks(model: nn.Module) -> Iterator[tuple[Hook, list[str]]]:
    """Transforms and roundings, each with the names of its layers, in the order of the model."""
    found: dict[int, tuple[Hook, list[str]]] = {}
    for name, module in model.named_modules():
        for hook in remaining(module):
            if isinstance(hook, Transform | Rounding):
                found.setdefault(id(hook), (hook, []))[1].append(name)
    yield from found.values()


def _prefixes(model: nn.Module) -> Iterator[dict[str, Prefix]]:
    """Modules with prefixes that are stored together."""
    found: dict[tuple[Any, ...], dict[str, Prefix]] = {}
    for name, module in model.named_modules():
        if (own := prefix_of(module)) is not None:
            key = (tuple(own.tokens.tolist()), own.keys.shape, own.keys.dtype, own.heads)
            found.setdefault(key, {})[name] = own
    yield from found.values()


@contextmanager
def unrounded(model: nn.Module, activations: ActivationQuantizer | None = None) -> Iterator[None]:
    """Context in which nothing is rounded by what remains in a model, nor by ``activations``."""
    on = [hook for hook, _ in _hooks(model) if isinstance(hook, Rounding) and hook.is_on]
    for hook in on:
        hook.is_on = False
    try:
        with off(activations):
            yield
    finally:
        for hook in on:
            hook.is_on = True


def rounds(model: nn.Module) -> bool:
    """Whether what remains in a model rounds anything."""
    return any(isinstance(one, Rounding) for one in all_remaining(model))


def runtime_tensors(model: nn.Module) -> dict[str, Kept]:
    """What a file stores of a model's parts, by name; nothing if there are none."""
    rows: list[tuple[str, Sequence[str], dict[str, int], dict[str, Tensor]]] = [
        (hook.kind, names, hook.settings, hook.tensors) for hook, names in _hooks(model)
    ]
    for name, module in model.named_modules():
        own = vars(module).get("forward")
        if isinstance(own, Clock):
            rows.insert(0, (own.kind, [name], {}, own.tensors))
        elif isinstance(own, TimeTable):
            rows.append((own.kind, [name], own.settings, own.tensors))
    for group in _prefixes(model):
        first, *_ = group.values()
        tensors = {
            "tokens": first.tokens,
            "keys": torch.stack([one.keys for one in group.values()]),
            "values": torch.stack([one.values for one in group.values()]),
        }
        rows.append((first.kind, list(group), {"heads": first.heads}, tensors))
    if not rows:
        return {}
    found: dict[str, Kept] = {}
    parts = []
    for number, (kind, names, settings, tensors) in enumerate(rows):
        kept = {field: kept_of(tensor) for field, tensor in tensors.items()}
        found |= {tensor_name(number, field): one for field, one in kept.items()}
        shapes = {field: (one.dtype, one.shape) for field, one in kept.items()}
        parts.append(RuntimePart(kind, tuple(names), settings, shapes))
    text = describe(parts)
    return {PARTS: Kept("U8", (len(text),), text), **found}


def attach_stored(model: nn.Module, container: Container) -> None:
    """Put the parts of a file into a model that has its weights.

    Raises
    ------
    ContainerError
        If the model has not the layers, or values are damaged; it is then without any part.
    """
    names = {name for name, _ in model.named_modules()}
    clock = _clock(container)
    missing = [name for part in container.runtime for name in part.layers if name not in names]
    if missing:
        raise ContainerError(
            f"{container.path}: what remains at run time belongs to {', '.join(missing)}, which "
            "the model must hold"
        )
    try:
        for number, part in enumerate(container.runtime):
            stored = {f: tensor_of(container.kept(tensor_name(number, f))) for f in part.tensors}
            _attach_one(model, container, number, part, stored, clock)
    except BaseException:
        detach(model)
        raise


def _attach_one(
    model: nn.Module,
    container: Container,
    number: int,
    part: RuntimePart,
    stored: dict[str, Tensor],
    clock: Clock | None,
) -> None:
    for field, tensor in stored.items():
        if not bool(torch.isfinite(tensor.float()).all()):
            raise ContainerError(
                f"{container.path}: tensor {tensor_name(number, field)!r} must be finite"
            )
    if part.kind == "transform":
        order = stored.get("order")
        places = None if order is None else order.sort().values
        if places is not None and not torch.equal(places, torch.arange(len(places)).int()):
            raise ContainerError(
                f"{container.path}: tensor {tensor_name(number, 'order')!r} must be a permutation"
            )
        attach(model, Transform(**stored), part.layers)
    elif part.kind == "rounding":
        attach(model, _rounding(container, number, part, stored), part.layers)
    elif part.kind == "clock":
        assert clock is not None
        clock.enter(model.get_submodule(part.layers[0]))
    elif part.kind == "timed_rounding":
        assert clock is not None
        if not bool((stored["scale"] > 0).all()):
            where = f"{container.path}: tensor {tensor_name(number, 'scale')!r}"
            raise ContainerError(f"{where} must be positive")
        attach(model, TimedRounding(part.settings["bits"], clock, **stored), part.layers)
    elif part.kind == "time_table":
        assert clock is not None
        table = TimeTable(clock, stored["table"], part.settings["classes"])
        put_table(model, part.layers[0], table)
    else:
        each = zip(part.layers, stored["keys"], stored["values"], strict=True)
        own = {
            name: Prefix(stored["tokens"], k.clone(), v.clone(), part.settings["heads"])
            for name, k, v in each
        }
        attach_prefixes(model, own)


def _clock(container: Container) -> Clock | None:
    """The clock that a file describes, if it does."""
    for number, part in enumerate(container.runtime):
        if part.kind == "clock":
            times = tensor_of(container.kept(tensor_name(number, "times")))
            if len(set(times.tolist())) < len(times):
                raise ContainerError(
                    f"{container.path}: tensor {tensor_name(number, 'times')!r} must name every "
                    "step once"
                )
            return Clock(times)
    return None


def replaced(container: Container) -> tuple[str, ...]:
    """Prefixes of the names of what a model holds, and its file does not: tables stand for it."""
    tables = (part for part in container.runtime if part.kind == "time_table")
    return tuple(f"{name}." for part in tables for name in part.layers)


def _rounding(
    container: Container, number: int, part: RuntimePart, stored: dict[str, Tensor]
) -> Rounding:
    bits, symmetric = part.settings["bits"], bool(part.settings["symmetric"])
    try:
        if "clip" in stored:
            return Rounding(bits, symmetric=symmetric, clip=float(stored["clip"]))
        if not float(stored["scale"]) > 0:
            raise ConfigError(f"scale must be positive, not {float(stored['scale'])}")
        return Rounding(bits, symmetric=symmetric, scale=stored["scale"])
    except ConfigError as error:
        raise ContainerError(f"{container.path}: part {number} at run time: {error}") from None
