"""Which weights of a model matter, by gradients or by the inputs that meet them."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vq.calibration.batches import Batch, as_it_was, call_model, device_of, feed, split, to_device
from vq.errors import ConfigError
from vq.layers import candidates, op_of, plain_weight

__all__ = ["Loss", "input_second_moments", "output_gradients", "squared_gradients"]

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
    found = {name: plain_weight(module) for name, module in candidates(model)}
    weights = {
        name: weight
        for name, weight in found.items()
        if weight is not None and weight.is_floating_point()
    }
    sums = {name: torch.zeros_like(w, dtype=torch.float32) for name, w in weights.items()}

    def add(batch: Batch) -> None:
        value = _loss_of(model, batch, loss)
        grads = torch.autograd.grad(value, list(weights.values()), allow_unused=True)
        for name, grad in zip(sums, grads, strict=True):
            if grad is not None:
                sums[name] += grad.float().square()

    with as_it_was(model):
        model.eval()
        for weight in weights.values():
            weight.requires_grad_(True)
        feed(batches, add)
    return _finite(sums, "gradient")


@torch.inference_mode(mode=False)
def output_gradients(
    model: nn.Module, batches: Iterable[Batch], *, loss: Loss = nn.functional.cross_entropy
) -> dict[str, Tensor]:
    """Squared gradient of the loss at every output of a layer, summed over all that it gave.

    What an error of an output costs, where those of other outputs and of other tokens are
    independent of it (Fisher). Layers that did not run, or that the loss does not depend on, are
    left out, and so are embeddings.

    Returns
    -------
    dict of layer name to float32 tensor [O]

    Raises
    ------
    ConfigError
        If there is no batch, or a gradient is not finite.
    """
    sums: dict[str, Tensor] = {}

    def observe(name: str, place: int, module: nn.Module, _: Any, output: Tensor) -> Tensor:
        def add(grad: Tensor) -> None:
            squares = grad.float().movedim(place, -1).reshape(-1, grad.shape[place]).square()
            sums[name] = sums.get(name, 0) + squares.sum(dim=0)

        if not output.requires_grad:  # the first layer: what is behind it is what has gradients
            output = output.detach().requires_grad_().clone()
        output.register_hook(add)  # type: ignore[no-untyped-call]
        return output

    handles = []
    try:
        with as_it_was(model), torch.enable_grad():
            model.eval().requires_grad_(False)
            for name, module in candidates(model):
                op = op_of(module)
                if op is None or op == "embedding":
                    continue
                place = {"conv1d": -2, "conv2d": -3}.get(op, -1)
                handles.append(module.register_forward_hook(partial(observe, name, place)))
            feed(batches, lambda batch: torch.autograd.backward(_loss_of(model, batch, loss)))
    finally:
        for handle in handles:
            handle.remove()
    return _finite(sums, "gradient")


def _loss_of(model: nn.Module, batch: Batch, loss: Loss) -> Tensor:
    inputs, targets = split(batch)
    if targets is None:
        raise ConfigError("calibration batches must be (inputs, targets) to compute a loss")
    return loss(call_model(model, inputs), to_device(targets, device_of(model)))


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
        op, weight = op_of(module), plain_weight(module)
        if op is None or weight is None:
            continue
        shapes[name] = (op, weight.shape)
        handles.append(module.register_forward_pre_hook(_observer(name, op, module, sums)))
    try:
        with as_it_was(model):
            model.eval()
            feed(batches, lambda batch: call_model(model, split(batch)[0]))
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


def _finite(found: dict[str, Tensor], what: str) -> dict[str, Tensor]:
    bad = [name for name, values in found.items() if not torch.isfinite(values).all()]
    if bad:
        raise ConfigError(
            f"calibration data must give finite {what}s, but layers {', '.join(map(repr, bad))} "
            "saw NaN or infinity"
        )
    return found
