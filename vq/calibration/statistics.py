"""What calibration tells the solver about a layer's inputs: plain sums over tokens."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vq.errors import ConfigError

__all__ = ["Statistics", "is_finite"]


@dataclass(eq=False)
class Statistics:
    """Second moments of a layer's inputs.

    ``x`` [I] is an input in the model as quantised so far, ``y`` the input of the same token in
    the unquantised model. Nothing is divided by the count, so that sums of parts are the sum of
    the whole, in any order and over any number of processes.

    Attributes
    ----------
    hessian : [I, I] float32 or float64
        Sum of ``x x'``.
    cross : [I, I] of the same type, or None
        Sum of ``(y - x) x'``: how the unquantised inputs differ. Without it, only methods that
        ignore the difference can run.
    tokens : int
    """

    hessian: Tensor
    cross: Tensor | None = None
    tokens: int = 0

    @classmethod
    def empty(
        cls,
        inputs: int,
        *,
        cross: bool = False,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
    ) -> "Statistics":
        """Sums over no token yet, for a layer of ``inputs`` inputs."""
        if inputs < 1:
            raise ConfigError(f"statistics inputs must be positive, not {inputs!r}")
        if dtype not in (torch.float32, torch.float64):
            raise ConfigError(f"statistics dtype must be float32 or float64, not {dtype}")
        zero = torch.zeros(inputs, inputs, dtype=dtype, device=device)
        return cls(zero, zero.clone() if cross else None)

    @torch.no_grad()
    def add(self, inputs: Tensor, reference: Tensor | None = None) -> None:
        """Count a batch of tokens.

        Parameters
        ----------
        inputs : [..., I]
            What the layer sees.
        reference : same shape, optional
            What it sees in the unquantised model; required if ``cross`` is gathered.

        Raises
        ------
        ConfigError
            If a shape does not fit, a value is not finite, or ``reference`` is missing or in vain.
        """
        width = len(self.hessian)
        if inputs.ndim < 1 or inputs.shape[-1] != width:
            raise ConfigError(f"inputs must be [..., {width}], not {list(inputs.shape)}")
        if (reference is None) != (self.cross is None):
            raise ConfigError(
                "reference must be given where cross is gathered, not None"
                if reference is None
                else "reference must be absent where cross is not gathered; pass cross=True"
            )
        if reference is not None and reference.shape != inputs.shape:
            raise ConfigError(
                f"reference must have the inputs' shape {list(inputs.shape)}, "
                f"not {list(reference.shape)}"
            )
        x = self._rows(inputs, "inputs")
        if reference is not None and self.cross is not None:
            self.cross.addmm_((self._rows(reference, "reference") - x).T, x)
        self.hessian.addmm_(x.T, x)
        self.tokens += len(x)

    def merge(self, other: "Statistics") -> None:
        """Count the tokens of ``other`` too.

        Raises
        ------
        ConfigError
            If it belongs to another layer, or only one of both gathers ``cross``.
        """
        if other.hessian.shape != self.hessian.shape:
            raise ConfigError(
                f"statistics must be of {len(self.hessian)} inputs, not {len(other.hessian)}"
            )
        if (other.cross is None) != (self.cross is None):
            raise ConfigError("statistics must both hold cross or neither, not one of them")
        self.hessian += other.hessian.to(self.hessian)
        if self.cross is not None and other.cross is not None:
            self.cross += other.cross.to(self.cross)
        self.tokens += other.tokens

    def error(self, weight: Tensor, quantized: Tensor) -> float:
        """Squared error of the outputs, summed over outputs, per token: ``|(W - Q) x|**2``."""
        gap = weight.to(self.hessian) - quantized.to(self.hessian)
        return self._per_token(gap, gap @ self.hessian)

    def asymmetric_error(self, weight: Tensor, quantized: Tensor) -> float:
        """``|W y - Q x|**2 - |W y - W x|**2`` per token; negative where ``Q`` is nearer than ``W``.

        The second term is what all choices of ``Q`` share. Without ``cross``, that is
        :meth:`error`.
        """
        found = self.error(weight, quantized)
        if self.cross is None:
            return found
        original = weight.to(self.hessian)
        gap = original - quantized.to(self.hessian)
        return found + 2 * self._per_token(gap, original @ self.cross)

    def _per_token(self, a: Tensor, b: Tensor) -> float:
        return float((a * b).sum(dtype=torch.float64)) / max(self.tokens, 1)

    def _rows(self, batch: Tensor, what: str) -> Tensor:
        rows = batch.detach().reshape(-1, len(self.hessian)).to(self.hessian)
        if not is_finite(rows):
            raise ConfigError(f"{what} must be finite, not NaN or infinite")
        return rows


def is_finite(values: Tensor) -> bool:
    """Whether no value is NaN or infinite, in one pass and without a mask."""
    return values.numel() == 0 or all(math.isfinite(float(end)) for end in values.aminmax())
