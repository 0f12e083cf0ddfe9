"""Models without values, for whoever fills them from a file: no memory is taken, no time lost."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

__all__ = ["without_values"]


@contextmanager
def without_values() -> Iterator[None]:
    """Leave parameters that modules get meanwhile on the meta device; buffers have their values.

    It acts on all threads.
    """
    register = nn.Module.register_parameter

    def registered(self: nn.Module, name: str, param: nn.Parameter | None) -> None:
        if type(param) is nn.Parameter and not param.is_meta:
            param = nn.Parameter(param.detach().to("meta"), param.requires_grad)
        register(self, name, param)

    nn.Module.register_parameter = registered  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]
