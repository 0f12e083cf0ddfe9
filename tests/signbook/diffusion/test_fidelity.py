"""Images of two models from equal noise: by hand, and what cannot be compared."""

import math
import sys

import pytest
import torch
from torch.nn.functional import pad

from signbook.diffusion.fidelity import Drift, Fidelity, feature_distance, fidelity, ssim
from vq.errors import ConfigError


def grey(value: float, side: int = 8) -> torch.Tensor:
    return torch.full((3, 1, side, side), value)


def test_decibels_by_hand():
    found = fidelity(grey(0.5), grey(0.4))
    assert found["sqnr_db"] == pytest.approx(20 * math.log10(4), abs=1e-4)
    assert found["psnr_db"] == pytest.approx(20, abs=1e-4)
    assert fidelity(grey(0.1), grey(0.0))["sqnr_db"] == -200, "there is no signal"


@pytest.mark.parametrize("side", [6, 8, 28])
def test_structural_similarity_of_flat_images(side):
    """Of Wang et al.'s two factors, the second is 1; c1 is 0.01²."""
    pytest.importorskip("torchmetrics")
    wanted = (2 * 0.5 * 0.4 + 1e-4) / (0.5**2 + 0.4**2 + 1e-4)
    assert ssim(grey(0.5, side), grey(0.4, side)) == pytest.approx(wanted, abs=1e-4)
    noise = torch.rand(3, 1, side, side)
    assert ssim(noise, noise) == pytest.approx(1, abs=1e-6)
    assert ssim(1 - noise, noise) < 0.5


def test_structural_similarity_has_the_usual_window():
    """A Gaussian of 1.5, cut to 11, around every pixel of images that are mirrored."""
    pytest.importorskip("torchmetrics")
    images = torch.rand(2, 1, 6, 7, dtype=torch.float64)
    line = torch.exp(-(torch.arange(-5, 6).double() ** 2) / (2 * 1.5**2))
    weight = torch.outer(line, line) / line.sum() ** 2
    windows = pad(images, (5, 5, 5, 5), mode="reflect")[:, 0].unfold(1, 11, 1).unfold(2, 11, 1)
    a, b = windows
    ma, mb, aa, bb, ab = ((weight * v).sum((-1, -2)) for v in (a, b, a * a, b * b, a * b))
    mean = (2 * ma * mb + 1e-4) / (ma**2 + mb**2 + 1e-4)
    shape = (2 * (ab - ma * mb) + 9e-4) / (aa - ma**2 + bb - mb**2 + 9e-4)
    assert ssim(images[:1], images[1:]) == pytest.approx(float((mean * shape).mean()), abs=1e-4)


def test_equal_images_have_the_most_decibels():
    image = torch.rand(2, 1, 6, 6)
    found = fidelity(image, image.clone())
    assert found["sqnr_db"] == found["psnr_db"] == 200
    assert fidelity(grey(0), grey(0))["sqnr_db"] == 200


def test_batches_count_by_their_images():
    found, original = torch.rand(2, 7, 1, 6, 6)
    sums = Fidelity()
    for part in (slice(0, 5), slice(5, 7)):
        sums.add(found[part], original[part])
    assert sums.metrics() == pytest.approx(fidelity(found, original))


def test_without_torchmetrics_there_is_no_ssim(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert set(fidelity(grey(0.5), grey(0.4))) == {"sqnr_db", "psnr_db"}
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    with pytest.raises(ConfigError, match=r"^SSIM: package 'torchmetrics' must be i.*diffusion"):
        ssim(grey(0.5), grey(0.4))


def test_features_count_by_their_directions():
    rows = torch.tensor([[2.0, 0], [0, 1], [3, 0]])
    others = torch.tensor([[5.0, 0], [4, 0], [-1, 0]])
    assert feature_distance(rows, others) == pytest.approx((0 + 2 + 4) / 3)


def test_drift_by_hand():
    drift = Drift()
    for part in (torch.tensor([3.0]), torch.tensor([4.0])):
        drift.add(90, part, part)
        drift.add(10, part + 1, part)
    assert drift.curve() == {
        "steps": [90, 10], "relative_error": [0, pytest.approx(math.sqrt(2) / 5)]
    }  # fmt: skip


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fidelity(grey(0, 8), grey(0, 9)), r"^what is compared must be of one shape, not"),
        (lambda: fidelity(grey(math.nan), grey(0)), "^what the model draws must be finite"),
        (lambda: fidelity(grey(0), grey(math.inf)), "^what the original draws must be finite"),
        (lambda: Fidelity().metrics(), "^fidelity must be of at least one pair of images, not"),
        (lambda: ssim(grey(0, 4), grey(0, 4)), r"^images must be .* of 6 pixels a side at least, "
         r".*not \[3, 1, 4, 4\]$"),
        (lambda: feature_distance(*torch.ones(2, 3)), r"^features must be \[images, dim.*, not"),
        (lambda: feature_distance(*torch.ones(2, 0, 3)), r"^features must .*, not \[0, 3\]$"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared(call, message):
    with pytest.raises(ConfigError, match=message):
        call()
