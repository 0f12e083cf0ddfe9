"""What a method leaves in a model beside its weights: how any room sees that something is there.

What it can be, and how it is stored, is the matter of :mod:`vq.activations.runtime`.
"""

from typing import ClassVar

from torch import Tensor, nn

from vq.errors import ConfigError

__all__ = ["Remaining", "all_remaining", "remaining", "require_plain"]


class Remaining:
    """A hook before a module, or what stands in place of its ``forward``."""

    kind: ClassVar[str]

    def free_steps(self) -> Tensor | None:
        """Make the steps that it rounds to trainable: factors that start at 1, shaped like them.

        None where it has none, or they follow from what is rounded.
        """
        return None

    def fix_steps(self) -> None:
        """Undo :meth:`free_steps`; what it computes stays as it is, bit for bit."""
        return


def remaining(module: nn.Module) -> list[Remaining]:
    """What remains at a module itself."""
    held = [*module._forward_pre_hooks.values(), vars(module).get("forward")]
    return [one for one in held if isinstance(one, Remaining)]


def all_remaining(model: nn.Module) -> list[Remaining]:
    """What remains anywhere in a model; at several modules, several times."""
    return [one for module in model.modules() for one in remaining(module)]


def require_plain(model: nn.Module, what: str) -> None:
    """Refuse a model in which anything remains.

    Parameters
    ----------
    what : str
        What has no place for it, as the error says it.

    Raises
    ------
    ConfigError
    """
    if kinds := dict.fromkeys(one.kind for one in all_remaining(model)):
        raise ConfigError(
            f"{what} must be given a model whose weights are all there is, but parts remain in it "
            f"at run time ({', '.join(kinds)}); do it before them, or to a fresh model"
        )
