"""Compressed weights as parametrisations of the user's own modules.

``torch.nn.utils.parametrize`` replaces ``module.weight`` by a function of trainable tensors. The
module keeps its class, its name and its forward, so any model and any training loop work. What
that function returns is bit for bit what the container's readers return: training sees the
integers that are stored, and nothing is lost at export.

A cast of the module (``.half()``, ``.to(dtype)``) is one of the weight that it sees. The tensors
behind it keep their dtypes, and so the file its bits.
"""

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, Self

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from vq.container import Geometry, Layer
from vq.errors import ConfigError
from vq.formats.decoded import decoded, refusal

__all__ = ["FROZEN", "Compressed", "attach", "attach_all"]

#: A latent sign of this magnitude is frozen: no optimiser step is large enough to move it.
FROZEN = 2.0**100


class Compressed(nn.Module):
    """Base of all formats' weights: a weight that is a function of trainable tensors.

    Attributes
    ----------
    roles : tuple of str
        What each trainable tensor is, in their order. "codebook" [k, d]: codewords, in units.
        "signs" [N, d]: latents whose signs are the weights', which freeze. "weight": the weight
        itself, in its own size. Training rules go by these, and leave others to the rest.
    geometry : Geometry
        The layer as the container will describe it.
    dtype : torch.dtype
        Of the weight that the module sees.
    """

    roles: tuple[str, ...] = ()

    def __init__(self, geometry: Geometry, dtype: torch.dtype) -> None:
        super().__init__()
        self.geometry = geometry
        self.dtype = dtype
        self._taken = False

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        dtype = fn(torch.empty(0, dtype=self.dtype)).dtype
        if dtype == torch.float16 != self.dtype and self.norm_scale() is not None:
            warnings.warn(
                f"layer {self.geometry.name!r}: its scale is left to a norm, so that its outputs "
                "can leave the range of float16; cast to bfloat16 instead",
                stacklevel=2,
            )
        self.dtype = dtype
        return super()._apply(_uncast(fn), recurse)  # type: ignore[no-untyped-call, no-any-return]

    def right_inverse(self, weight: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Hand torch the tensors to train; called once, when the weight is replaced.

        Raises
        ------
        ConfigError
            If somebody assigns to the compressed weight later.
        """
        if self._taken:
            raise ConfigError(refusal(self.geometry.name))
        self._taken = True
        originals = self.originals(weight)
        # torch wants a single tensor to have the weight's dtype, but allows any in a tuple.
        alike = len(originals) == 1 and originals[0].dtype == weight.dtype
        return originals[0] if alike else originals

    def share(self) -> None:
        """Allow one more module to take this weight: one whose own weight was tied to it."""
        self._taken = False

    def originals(self, weight: Tensor) -> tuple[Tensor, ...]:
        """Tensors to train, as they start for an original ``weight``."""
        raise NotImplementedError

    def tensor(self, role: str, originals: Sequence[Tensor]) -> Tensor | None:
        """The one of ``originals``, which torch trains, that has a role; None if there is none."""
        return originals[self.roles.index(role)] if role in self.roles else None

    def free_scales(self) -> None:
        """Make the scales trainable, where the layer stores some that training can move."""
        return

    def fix_scales(self) -> None:
        """Undo :meth:`free_scales`; the weight stays what it is, bit for bit."""
        return

    def freed_scales(self) -> Tensor | None:
        """What trains the scales meanwhile: factors that start at 1, [1] or [O] float32."""
        return None

    def codes(self, *originals: Tensor) -> Tensor | None:
        """Whole numbers of a scalar grid that weights are now, shaped like ``originals[0]``.

        None where the layer stores no such numbers.
        """
        return None

    def at_codes(self, codes: Tensor, *originals: Tensor) -> Tensor:
        """What ``originals[0]`` is in the middle of such :meth:`codes`."""
        raise NotImplementedError

    def free_steps(self) -> nn.Parameter | None:
        """Make the steps of a scalar grid trainable: factors that start at 1, shaped like them.

        None where the layer stores no such steps.
        """
        return None

    def fix_steps(self) -> None:
        """Undo :meth:`free_steps`; the weight stays what it is, bit for bit."""
        return

    @torch.no_grad()
    def clamp_(self, *originals: Tensor) -> None:
        """Put ``originals`` back, after a step, where they mean what they should."""
        return

    def norm_scale(self, *originals: Tensor) -> Tensor | None:
        """What 1 of the weight is worth in the original one, where a norm took its scale over.

        [1] or [O] float32; as at the start if no ``originals`` are given. None for a weight that
        has its own size.
        """
        return None

    def approximation(self, weight: Tensor) -> Tensor:
        """What an original ``weight`` is replaced by, in its own size wherever the scale goes."""
        decoded: Tensor = self(*self.originals(weight))
        return decoded

    def to_layer(self, name: str, *originals: Tensor) -> Layer:
        """Encode for the container as layer ``name``; ``originals`` are what torch trains."""
        raise NotImplementedError


def attach(module: nn.Module, compressed: Compressed) -> nn.Module:
    """Replace ``module.weight`` by a compressed one; return what holds its trained tensors."""
    weight = module.weight
    assert isinstance(weight, nn.Parameter)
    # torch makes a single trained tensor of the parameter itself, which others may be tied to.
    module.weight = nn.Parameter(weight.detach(), weight.requires_grad)
    parametrize.register_parametrization(module, "weight", compressed)
    chain = module.get_submodule("parametrizations.weight")
    chain.__class__ = _Originals
    chain.layer = compressed.geometry.name  # type: ignore[assignment]
    own = type(module)  # torch has made it for this module
    setattr(own, "__getstate__", _refuse_pickle)  # noqa: B010 - mypy knows no such attribute
    if "__deepcopy__" in vars(own):  # torch's, not the user's
        setattr(own, "__deepcopy__", _copied)  # noqa: B010
    return chain


def attach_all(
    modules: Sequence[nn.Module],
    compressed: Compressed,
    trained: Mapping[str, Tensor],
    codebooks: dict[str, nn.Parameter] | None = None,
) -> None:
    """Replace the weight that modules share by a compressed one whose tensors are known already.

    Parameters
    ----------
    modules : sequence of nn.Module
    compressed : Compressed
    trained : mapping of role to Tensor
        In fp32 also where the modules are not, so that every code stands for itself.
    codebooks : dict of name to Parameter, optional
        Of the layers before; layers that share one train the same.
    """
    books = {} if codebooks is None else codebooks
    originals: dict[str, nn.Parameter] = {}
    for module in modules:
        if originals:
            compressed.share()
        chain = attach(module, compressed)
        for place, (name, own) in enumerate(list(chain.named_parameters(recurse=False))):
            if name not in originals:
                own.data = trained[compressed.roles[place]]
                if compressed.roles[place] == "codebook":
                    own = books.setdefault(str(compressed.geometry.codebook), own)
                originals[name] = own
            setattr(chain, name, originals[name])


def _refuse_pickle(module: nn.Module) -> NoReturn:
    layer = module.get_submodule("parametrizations.weight").layer
    raise ConfigError(
        f"layer {layer!r}: a compressed layer must not be pickled, nor a model that holds one; "
        "write it by vq.save, or its state_dict"
    )


def _copied(module: nn.Module, memo: dict[int, Any]) -> nn.Module:
    """Copy a module, with a class of its own: torch takes the weight's property off the class."""
    own: Any = type(module)
    copied: nn.Module = own.__new__(type(own.__name__, own.__bases__, dict(vars(own))))
    memo[id(module)] = copied
    copied.__dict__.update(copy.deepcopy(module.__dict__, memo))
    return copied


class _Originals(parametrize.ParametrizationList):
    """Where torch keeps the trained tensors: moved with their module, but never cast."""

    layer: str

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        if recurse:
            for child in self.children():
                child._apply(fn)  # type: ignore[no-untyped-call]
        return super()._apply(_uncast(fn), recurse=False)  # type: ignore[no-untyped-call, no-any-return]

    def forward(self) -> Tensor:
        return decoded(super().forward(), self.layer)


def _uncast(fn: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """What ``fn`` does to a module's tensors, but for the dtype."""

    def moved(tensor: Tensor) -> Tensor:
        out = fn(tensor)
        return out if out.dtype == tensor.dtype else tensor.to(out.device)

    return moved
