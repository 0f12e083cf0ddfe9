"""What calibration data tell about a model: which weights matter, and what norms should expect.

Batches are tensors of inputs, or tuples whose first item is the inputs and whose second, where a
loss is computed, the targets.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from vq.errors import ConfigError
from vq.layers import candidates, op_of

__all__ = [
    "Batch",
    "as_it_was",
    "call_model",
    "device_of",
    "fingerprint",
    "input_second_moments",
    "reestimate_norms_",
    "squared_gradients",
    "to_device",
]

Batch = Tensor | tuple[Any, ...] | list[Any] | Mapping[str, Any]
Loss = Callable[[Any, Any], Tensor]


def squared_gradients(
    model: nn.Module, batches: Iterable[Batch], *, loss: Loss = nn.functional.cross_entropy
) -> dict[str, Tensor]:
    """Mean squared gradient of every weight: how much the loss curves along it (Fisher).

    Returns
    -------
    dict of layer name to float32 tensor, shaped like the layer's weight

    Raises
    ------
    ConfigError
        If there is no batch, or a gradient is not finite.
    """
    weights = {n: m.weight for n, m in candidates(model) if isinstance(m.weight, nn.Parameter)}
    sums = {name: torch.zeros_like(w, dtype=torch.float32) for name, w in weights.items()}
    with as_it_was(model):
        model.eval()
        for weight in weights.values():
            weight.requires_grad_(True)
        for inputs, targets in _pairs(batches):
            value = loss(call_model(model, inputs), to_device(targets, device_of(model)))
            grads = torch.autograd.grad(value, list(weights.values()), allow_unused=True)
            for name, grad in zip(sums, grads, strict=True):
                if grad is not None:
                    sums[name] += grad.float().square()
    return _finite(sums, "gradient")


@torch.no_grad()
def input_second_moments(model: nn.Module, batches: Iterable[Batch]) -> dict[str, Tensor]:
    """Mean squared input that meets every weight: how far an error of it moves the output.

    For an embedding, how often a row is looked up. A convolution's taps all meet their channel's
    mean. Layers that did not run are left out.

    Returns
    -------
    dict of layer name to float32 tensor, shaped like the layer's weight

    Raises
    ------
    ConfigError
        If there is no batch, or an input is not finite.
    """
    sums: dict[str, Tensor] = {}
    shapes: dict[str, tuple[str, torch.Size]] = {}
    handles = []
    for name, module in candidates(model):
        op = op_of(module)
        if op is None:
            continue
        assert isinstance(module.weight, Tensor)
        shapes[name] = (op, module.weight.shape)
        handles.append(module.register_forward_pre_hook(_observer(name, op, module, sums)))
    try:
        with as_it_was(model):
            model.eval()
            for inputs in _inputs(batches):
                call_model(model, inputs)
    finally:
        for handle in handles:
            handle.remove()
    found = {name: _spread(total, *shapes[name]) for name, total in sums.items()}
    return _finite(found, "input")


def _observer(
    name: str, op: str, module: nn.Module, sums: dict[str, Tensor]
) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    weight = module.weight
    assert isinstance(weight, Tensor)
    groups = getattr(module, "groups", 1)

    def observe(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        x = inputs[0]
        if op == "embedding":
            seen = torch.bincount(x.reshape(-1), minlength=len(weight)).float()
        elif op.startswith("conv"):
            batched = x.float().reshape(-1, *x.shape[-(weight.ndim - 1) :])
            moments = batched.square().flatten(2).mean(dim=(0, 2))
            # [groups, C]: outputs of a group meet its channels only.
            seen = moments.reshape(groups, -1)
        else:
            seen = x.float().reshape(-1, x.shape[-1]).square().mean(dim=0)
        sums[name] = sums[name] + seen if name in sums else seen

    return observe


def _spread(moments: Tensor, op: str, shape: torch.Size) -> Tensor:
    """Give every weight the moment of the input it meets."""
    if op == "embedding":
        return moments[:, None].expand(shape)
    if op == "linear_t":
        return moments[:, None].expand(shape)
    if not op.startswith("conv"):
        return moments[None, :].expand(shape)
    groups = len(moments)
    rows = moments.repeat_interleave(shape[0] // groups, dim=0)
    return rows.reshape(*rows.shape, *[1] * (len(shape) - 2)).expand(shape)


@torch.no_grad()
def reestimate_norms_(model: nn.Module, batches: Iterable[Batch]) -> int:
    """Measure the running statistics of all batch norms again; return how many there are.

    Compression changes the distribution that a norm sees; without this, a compressed network of
    batch norms can lose most of its accuracy before any training.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    norms = [m for m in norms if m.track_running_stats and m.running_mean is not None]
    if not norms:
        return 0
    before = [{name: t.clone() for name, t in norm.named_buffers()} for norm in norms]
    momenta = [norm.momentum for norm in norms]
    try:
        with as_it_was(model):
            model.eval()
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None  # the plain average of all batches
                norm.train()
            for inputs in _inputs(batches):
                call_model(model, inputs)
            for norm in norms:
                for name, statistic in norm.named_buffers():
                    if not torch.isfinite(statistic).all():
                        raise ConfigError(f"calibration data must give finite {name}, not NaN")
    except BaseException:
        for norm, buffers in zip(norms, before, strict=True):
            for name, value in buffers.items():
                norm.get_buffer(name).copy_(value)
        raise
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
    return len(norms)


def fingerprint(batches: Iterable[Batch]) -> str:
    """sha256 of all tensors of the calibration data, as 64 hexadecimal digits.

    Raises
    ------
    ConfigError
        If there is no batch, or a value is not finite.
    """
    digest = hashlib.sha256()

    def add(item: Any) -> None:
        if isinstance(item, Tensor):
            data = item.detach().cpu().contiguous()
            if data.is_floating_point() and not torch.isfinite(data).all():
                raise ConfigError("calibration data must be finite, not NaN or infinity")
            digest.update(f"{data.dtype}{tuple(data.shape)}".encode())
            digest.update(data.reshape(-1).view(torch.uint8).numpy().tobytes())
        elif isinstance(item, Mapping):
            for key in sorted(item):
                digest.update(str(key).encode())
                add(item[key])
        elif isinstance(item, tuple | list):
            for part in item:
                add(part)

    empty = True
    for batch in batches:
        empty = False
        add(batch)
    _require_some(empty)
    return digest.hexdigest()


def _pairs(batches: Iterable[Batch]) -> Iterator[tuple[Any, Any]]:
    empty = True
    for batch in batches:
        if not isinstance(batch, tuple | list) or len(batch) < 2:
            raise ConfigError("calibration batches must be (inputs, targets) to compute a loss")
        empty = False
        yield batch[0], batch[1]
    _require_some(empty)


def _inputs(batches: Iterable[Batch]) -> Iterator[Any]:
    empty = True
    for batch in batches:
        empty = False
        yield batch[0] if isinstance(batch, tuple | list) else batch
    _require_some(empty)


def _require_some(empty: bool) -> None:
    if empty:
        raise ConfigError("calibration data must hold at least one batch, not none")


def _finite(found: dict[str, Tensor], what: str) -> dict[str, Tensor]:
    bad = [name for name, values in found.items() if not torch.isfinite(values).all()]
    if bad:
        raise ConfigError(
            f"calibration data must give finite {what}s, but layers {', '.join(map(repr, bad))} "
            "saw NaN or infinity"
        )
    return found


def call_model(model: nn.Module, inputs: Any) -> Any:
    """Run a model on a tensor, a tuple of arguments, or a dictionary of keyword arguments."""
    inputs = to_device(inputs, device_of(model))
    if isinstance(inputs, Mapping):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple) else model(inputs)


def to_device(item: Any, device: torch.device) -> Any:
    """Move the tensors of a batch, in tuples and dictionaries too."""
    if isinstance(item, Tensor):
        return item.to(device)
    if isinstance(item, Mapping):
        return {key: to_device(value, device) for key, value in item.items()}
    if isinstance(item, tuple):
        return type(item)(to_device(value, device) for value in item)
    return item


def device_of(model: nn.Module) -> torch.device:
    """Device of the first parameter."""
    first = next(model.parameters(), None)
    return torch.device("cpu") if first is None else first.device


@contextmanager
def as_it_was(model: nn.Module) -> Iterator[None]:
    """Restore the training modes and gradient flags that a measurement changes."""
    modes = [(module, module.training) for module in model.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
