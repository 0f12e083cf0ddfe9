"""How much the images of two models that start from equal noise are the same.

Not how good they are: that is :mod:`signbook.diffusion.likeness`. Brightness is 0 to 1.
"""

import importlib.util
import math

import torch
from torch import Tensor
from torch.nn.functional import normalize

from signbook.extras import require
from vq.errors import ConfigError

__all__ = ["EQUAL_DB", "Drift", "Fidelity", "feature_distance", "fidelity", "ssim"]

#: Decibels of images that are equal, and the most there are of others.
EQUAL_DB = 200.0
#: Pixels of a side that SSIM's window takes, mirrored at the edges.
_LEAST = 6


class Fidelity:
    """Sums over pairs of images, batch by batch."""

    def __init__(self) -> None:
        self._images = self._values = 0
        self._signal = self._error = self._alike = 0.0
        self._has_ssim = True

    def add(self, found: Tensor, original: Tensor) -> None:
        """Compare images [B, C, H, W] with those that a model's original made of the same noise.

        Raises
        ------
        ConfigError
            If they are not of one shape, or not finite.
        """
        found, original = _pair(found, original)
        self._images += len(found)
        self._values += found.numel()
        self._signal += float(original.square().sum())
        self._error += float((found - original).square().sum())
        self._has_ssim = self._has_ssim and min(found.shape[-2:]) >= _LEAST and _is_there()
        if self._has_ssim:
            self._alike += len(found) * ssim(found, original)

    def metrics(self) -> dict[str, float]:
        """``sqnr_db``, ``psnr_db`` and, where :func:`ssim` can be had, ``ssim``.

        Raises
        ------
        ConfigError
            If there are no images.
        """
        if not self._images:
            raise ConfigError("fidelity must be of at least one pair of images, not of none")
        found = {
            "sqnr_db": _decibels(self._signal, self._error),
            "psnr_db": _decibels(self._values, self._error),
        }
        return found | ({"ssim": self._alike / self._images} if self._has_ssim else {})


class Drift:
    """How far two models' ways from noise have parted, step by step."""

    def __init__(self) -> None:
        self._sums: dict[int, list[float]] = {}

    def add(self, step: int, found: Tensor, original: Tensor) -> None:
        """Compare what two models are given [B, ...] at a step.

        Raises
        ------
        ConfigError
            If they are not of one shape, or not finite.
        """
        found, original = _pair(found, original)
        sums = self._sums.setdefault(step, [0.0, 0.0])
        sums[0] += float((found - original).square().sum())
        sums[1] += float(original.square().sum())

    def curve(self) -> dict[str, list[float]]:
        """``steps`` in their order, and ``relative_error`` at each.

        That is the root of the squared differences over that of the original's squares: 0.1 are
        20 dB.
        """
        return {
            "steps": list(self._sums),
            "relative_error": [
                math.sqrt(error / signal) if signal else 0.0
                for error, signal in self._sums.values()
            ],
        }


def fidelity(found: Tensor, original: Tensor) -> dict[str, float]:
    """Compare images [N, C, H, W] with those of the original from equal noise.

    Returns
    -------
    dict of str to float
        ``sqnr_db``: ``10 log10(sum original² / sum (original - found)²)``, of all pixels of all
        images together; ``psnr_db``, the same with 1 in the place of the original; and
        :func:`ssim`. Decibels end at 200, which means that the images are equal. ``ssim`` is left
        out where torchmetrics is not installed, or images have less than 6 pixels a side.

    Raises
    ------
    ConfigError
        If there are no images, they are not of one shape or not finite.
    """
    sums = Fidelity()
    sums.add(found, original)
    return sums.metrics()


def ssim(found: Tensor, original: Tensor) -> float:
    """Structural similarity (Wang et al. 2004), mean over images, of torchmetrics.

    The window is the usual Gaussian of 1.5 pixels, cut to 11, around every pixel; images are
    mirrored at their edges.

    Raises
    ------
    ConfigError
        If torchmetrics is not installed, images have less than 6 pixels a side, are not of one
        shape or not finite.
    """
    found, original = _pair(found, original)
    if found.ndim != 4 or min(found.shape[-2:]) < _LEAST:
        raise ConfigError(
            f"images must be [images, channels, height, width] of {_LEAST} pixels a side "
            f"at least, for their structural similarity, not {list(found.shape)}"
        )
    library = require("torchmetrics", extra="diffusion", purpose="SSIM")
    measure = library.functional.image.structural_similarity_index_measure
    return float(measure(found.float(), original.float(), data_range=1.0))


def feature_distance(found: Tensor, original: Tensor) -> float:
    """Mean squared distance of features [N, D] at unit length: 0 if equal, 2 at right angles.

    As LPIPS (Zhang et al., arXiv 1801.03924) compares features of unit length, but those of a
    judge's last hidden layer alone, without learnt weights.

    Raises
    ------
    ConfigError
        If they are not of one shape, not finite or none.
    """
    found, original = _pair(found, original)
    if found.ndim != 2 or not len(found):
        raise ConfigError(f"features must be [images, dimensions], not {list(found.shape)}")
    return float((normalize(found) - normalize(original)).square().sum(1).mean())


def _pair(found: Tensor, original: Tensor) -> tuple[Tensor, Tensor]:
    """Both in float64 on the CPU."""
    if found.shape != original.shape:
        raise ConfigError(
            "what is compared must be of one shape, not "
            f"{list(found.shape)} and {list(original.shape)}"
        )
    pair = found.detach().cpu().double(), original.detach().cpu().double()
    for what, values in zip(("model", "original"), pair, strict=True):
        if not torch.isfinite(values).all():
            raise ConfigError(f"what the {what} draws must be finite, not NaN or infinite")
    return pair


def _decibels(signal: float, error: float) -> float:
    """How much the signal's energy is above the error's, at most 200."""
    if error <= signal * 10 ** (-EQUAL_DB / 10):
        return EQUAL_DB
    return 10 * math.log10(signal / error) if signal else -EQUAL_DB


def _is_there() -> bool:
    return importlib.util.find_spec("torchmetrics") is not None
