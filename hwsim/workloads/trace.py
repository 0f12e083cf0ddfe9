"""Layers of a torch model: it runs once on a sample, and every operation is watched.

Operations are seen where torch dispatches them, so functional calls, control flow and modules that
run twice are all there; a model on the meta device runs without weights.
"""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from hwsim.workloads.network import Workload
from hwsim.workloads.recorder import Recorder
from vq.container import ConfigError

if TYPE_CHECKING:
    from torch import nn

__all__ = ["workload_of_model"]


def workload_of_model(
    model: "nn.Module", sample: Any, *, name: str = "", trained: bool = False
) -> Workload:
    """Run a model on a sample and list what it does, in order.

    Weights are named by the module that holds them. A layer that runs again is listed again and
    shares its weights. Batch norms and ReLUs behind a layer fold into it; products of two
    activations, as in attention, are matmuls. Parameters that are no matrices are counted where
    they are used.

    Parameters
    ----------
    model : nn.Module
        Not changed. It runs in evaluation mode, on the device where it is.
    sample : tensor, tuple or dict
        Inputs: one, all by position, or by name. Images one at a time; rows of a linear are M.
    name : str, optional
        Of the workload; without it, the model's class.
    trained : bool
        Whether the model's weights are trained ones.

    Raises
    ------
    ConfigError
        If the model does not run on the sample, has no layers with weights, or holds operations
        that no workload has; all of them are named.
    """
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    by_name = sample if isinstance(sample, dict) else {}
    by_place = () if by_name else sample if isinstance(sample, tuple | list) else (sample,)
    recorder = Recorder(model, [*by_place, *by_name.values()])

    class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            out = func(*args, **(kwargs or {}))
            recorder.call(func.overloadpacket.__name__, args, kwargs or {}, out)
            return out

    called = type(model).__name__
    with _evaluation(model), _hooks(model, recorder), torch.no_grad(), _no_fast_path():
        try:
            with Watch():  # type: ignore[no-untyped-call]
                model(*by_place, **by_name)
        except ConfigError:
            raise
        except Exception as error:  # the model is the user's code
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise ConfigError(f"{called}: must run on the sample, but {reason}") from error
    return Workload(
        name or called, recorder.layers(called), trained, f"{called}, traced with a sample"
    )


@contextlib.contextmanager
def _evaluation(model: "nn.Module") -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextlib.contextmanager
def _hooks(model: "nn.Module", recorder: Recorder) -> Iterator[None]:
    handles = []
    try:
        for path, module in model.named_modules():
            handles.append(
                module.register_forward_pre_hook(
                    lambda m, args, kwargs, path=path: recorder.enter(path, m, args, kwargs),
                    with_kwargs=True,
                )
            )
            handles.append(
                module.register_forward_hook(
                    lambda m, args, out: recorder.leave(out), always_call=True
                )
            )
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def _no_fast_path() -> Iterator[None]:
    """Attention of torch.nn has one operation for a whole block, in which nothing can be seen."""
    import torch

    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)
