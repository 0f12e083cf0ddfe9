"""Scales that cost nothing, because the norm behind a layer takes them over.

A batch norm undoes whatever factor each of its features has; a layer, group or RMS norm undoes
one factor of all of them. A layer whose outputs go into such a norm and nowhere else needs no
scale: its weight ``W`` becomes ``W / s``, which are the stored integers, and its bias ``b / s``.

* A batch norm's statistics become ``mean / s`` and ``var / s²``, and its weight gains the factor
  ``sqrt((var + s² eps) / (var + eps))``, since ``eps`` does not scale. In evaluation the outputs
  are what they were, to rounding; in training too, as far as a batch's variance is the running one
  or well above ``eps``. A batch norm without a weight takes ``eps`` into its variance instead, and
  one without statistics needs no change.
* Other norms have nothing to change. Their outputs are what they were where the variance (for
  RMSNorm the mean square) of the layer's outputs is well above ``eps``.
"""

from collections.abc import Collection, Iterator, Mapping

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from vq.formats.kept import tied_tensors
from vq.layers import op_of, shape_of

__all__ = ["find_norms", "fold_", "is_per_output"]

_NORMS = (_BatchNorm, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
#: Outputs that are smaller than this times an integer drown in any eps; it keeps all else finite.
_SMALLEST = 1e-15
_OPS = ("linear", "linear_t", "conv1d", "conv2d")


def is_per_output(norm: nn.Module) -> bool:
    """Whether a norm takes over a scale for each output, and not one for all."""
    return isinstance(norm, _BatchNorm)


def find_norms(model: nn.Module, layers: Collection[str]) -> tuple[dict[str, nn.Module], list[str]]:
    """Find the norm that can take over each layer's scale.

    Traces the model in its present mode; the model may be on the meta device. A batch norm behind
    a linear is taken to normalise the outputs (``[batch, outputs]``), which its features confirm
    unless another axis has as many.

    Returns
    -------
    dict of layer name to norm
        Only of layers that have one.
    list of str
        Why each of the others has none.
    """
    if not layers:
        return {}, []
    try:
        graph = _Tracer().trace(model)
    except Exception as error:  # tracing runs the user's code on stand-ins
        reason = str(error).strip().partition("\n")[0]
        return {}, [_refusal("scale", f"torch.fx cannot trace {type(model).__name__}: {reason}")]
    ties = {
        name: next(other for other in names if other != name)
        for names, _ in tied_tensors(model.state_dict(keep_vars=True))
        for name in names
        if len(names) > 1
    }
    norms, refusals = {}, []
    for name in layers:
        norm = _norm_behind(graph, name, model)
        reasons = list(_obstacles(graph, model, name, norm, ties))
        refusals += [_refusal(f"layer {name!r}: scale", reason) for reason in reasons]
        if norm is not None and not reasons:
            norms[name] = model.get_submodule(norm)
    return norms, refusals


@torch.no_grad()
def fold_(layer: nn.Module, norm: nn.Module, scale: Tensor) -> None:
    """Make a layer's bias and its norm fit a weight that is divided by ``scale``, in place.

    Parameters
    ----------
    layer, norm : nn.Module
        As :func:`find_norms` pairs them. The layer's weight is left to the caller.
    scale : [1] or, for a batch norm, [O] float
        What 1 of the new weight is worth in the old one.
    """
    s = scale.double().clamp_min(_SMALLEST)
    if isinstance(layer.bias, Tensor):
        layer.bias.copy_(layer.bias / s)
    if not isinstance(norm, _BatchNorm) or norm.running_mean is None or norm.running_var is None:
        return
    var, eps = norm.running_var.to(torch.float64, copy=True), norm.eps
    norm.running_mean.copy_(norm.running_mean / s)
    if norm.affine:
        norm.running_var.copy_(var / s**2)
        norm.weight.copy_(norm.weight * ((var + s**2 * eps) / (var + eps)).sqrt())
    else:
        norm.running_var.copy_(((var + eps) / s**2 - eps).clamp_min(0))


class _Tracer(fx.Tracer):
    """Steps into everything but norms, and layers that are linear in their weight."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if op_of(m) is not None:
            # A subclass may do more to its weight than multiply by it, such as standardise it.
            return type(m).forward.__module__.startswith(("torch.nn.", "transformers."))
        return isinstance(m, _NORMS) or super().is_leaf_module(m, module_qualified_name)


def _calls(graph: fx.Graph, name: str) -> list[fx.Node]:
    return [node for node in graph.nodes if node.op == "call_module" and node.target == name]


def _norm_behind(graph: fx.Graph, name: str, model: nn.Module) -> str | None:
    """Name of the norm that all outputs of a layer go into, if there is one."""
    users = [user for call in _calls(graph, name) for user in call.users]
    targets = {str(user.target) if user.op == "call_module" else "" for user in users}
    found = targets.pop() if len(targets) == 1 else ""
    return found if found and isinstance(model.get_submodule(found), _NORMS) else None


def _obstacles(
    graph: fx.Graph, model: nn.Module, name: str, norm: str | None, ties: Mapping[str, str]
) -> Iterator[str]:
    """Everything that keeps a layer's scale from its norm."""
    layer = model.get_submodule(name)
    op, weight = op_of(layer), layer.weight
    assert isinstance(weight, Tensor)
    if op not in _OPS:
        yield "it is neither a linear nor a convolution"
        return
    if weight.dtype == torch.float16:
        yield "its outputs could leave the range of float16"
    for part in (name,) if norm is None else (name, norm):
        it, inside = "it" if part == name else f"its norm {part!r}", f"{part}."
        if (runs := len(_calls(graph, part))) != 1:
            yield f"{it} runs {runs} times"
        if any(n.op == "get_attr" and str(n.target).startswith(inside) for n in graph.nodes):
            yield f"the model uses tensors of {it} directly"
        module = model.get_submodule(part)
        for key in ("weight", "bias"):
            tensor = getattr(module, key, None)
            if isinstance(tensor, Tensor) and tensor is not module._parameters.get(key):
                yield f"tensor '{inside}{key}' is computed"
        for own, other in ties.items():
            if own.startswith(inside):
                yield f"tensor {own!r} is tied to {other!r}"
    if norm is not None:
        features = getattr(model.get_submodule(norm), "num_features", None)
        outputs = shape_of(weight, op)[0]
        if features not in (None, outputs):
            yield f"its norm {norm!r} has {features} features, not its {outputs} outputs"
    elif calls := _calls(graph, name):
        users = " and ".join(_label(user) for call in calls for user in call.users)
        yield f"its output goes into {users or 'nothing'}, not into one norm alone"


def _label(node: fx.Node) -> str:
    if node.op == "output":
        return "the model's output"
    return repr(str(node.target) if node.op == "call_module" else node.name)


def _refusal(subject: str, reason: str) -> str:
    return f"{subject} must be 'layer' or 'output', not 'norm', because {reason}"
