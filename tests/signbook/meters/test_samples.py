"""Samples, judged by two pixels: features and logits are the image itself."""

import dataclasses
import math

import pytest
import torch
from torch import Tensor, nn

from signbook.evaluation import evaluate
from signbook.tasks import Generation
from vq.errors import ConfigError

NOISE = torch.rand(20, 1, 1, 2) / 2
BRIGHTER = NOISE.flatten(1).argmax(1)


class Adds(nn.Module):
    """Adds something to the first pixel."""

    def __init__(self, amount: float) -> None:
        super().__init__()
        self.amount = amount

    def forward(self, noise: Tensor) -> Tensor:
        return noise + torch.tensor([self.amount, 0])


def task(*parts: Tensor, real: Tensor = NOISE) -> Generation:
    batches = list(zip(*(part.split(8) for part in parts), strict=True))
    return Generation(
        batches,
        lambda model, noise, *labels: model(noise),
        lambda images: (images.flatten(1), images.flatten(1)),
        real,
    )


def test_what_is_moved_is_as_far_from_its_reference():
    told = BRIGHTER.clone()
    told[:5] = 1 - told[:5]
    found = evaluate(Adds(0.25), task(NOISE, told), reference=Adds(0))
    moved = (NOISE + torch.tensor([0.25, 0])).flatten(1).argmax(1)
    assert found.reference == {
        "frechet": pytest.approx(0, abs=1e-6), "precision": 1, "recall": 1, "agreement": 0.75
    }  # fmt: skip
    assert found.metrics["frechet"] == pytest.approx(0.25**2, rel=1e-4)
    assert found.metrics["agreement"] == pytest.approx(float((moved == told).float().mean()))
    assert found.metrics["frechet_to_reference"] == pytest.approx(0.25**2, rel=1e-4)
    assert found.metrics["same_class"] == pytest.approx(float((moved == BRIGHTER).float().mean()))
    assert 0 < found.metrics["same_class"] < 1


def test_every_image_is_compared_with_its_own():
    """A pixel in two of each image is brighter by 1/4."""
    found = evaluate(Adds(0.25), task(NOISE), reference=Adds(0)).metrics
    signal = float(NOISE.double().square().sum())
    assert found["sqnr_db"] == pytest.approx(10 * math.log10(signal / (20 / 16)), abs=1e-4)
    assert found["psnr_db"] == pytest.approx(10 * math.log10(40 / (20 / 16)), abs=1e-4)
    rows = [r / r.norm(dim=1, keepdim=True) for r in
            (NOISE.flatten(1), NOISE.flatten(1) + torch.tensor([0.25, 0]))]  # fmt: skip
    distance = (rows[0] - rows[1]).square().sum(1).mean()
    assert found["feature_distance"] == pytest.approx(float(distance), rel=1e-4)
    assert "ssim" not in found, "no window fits into two pixels"
    same = evaluate(Adds(0), task(NOISE), reference=Adds(0)).metrics
    assert (same["sqnr_db"], same["psnr_db"], same["feature_distance"]) == (200, 200, 0)


def test_two_models_go_step_by_step():
    """Each adds once more to the first pixel; what follows the images is not looked at."""

    def visits(model, noise):
        x = noise
        for step in (9, 4):
            yield torch.cat([x, x + 7]), torch.full((2 * len(x),), step)
            x = model(x)
        return x

    stepwise = dataclasses.replace(task(NOISE), visits=visits)
    found = evaluate(Adds(0.25), stepwise, reference=Adds(0))
    root = math.sqrt(20 / 16 / float(NOISE.double().square().sum()))
    assert found.drift == {"steps": [9, 4], "relative_error": [0, pytest.approx(root, rel=1e-4)]}
    assert found.metrics["frechet_to_reference"] == pytest.approx(0.5**2, rel=1e-4)
    assert "drift" not in found.document() and "drift" in found.document(with_reference=True)
    assert evaluate(Adds(0.25), stepwise).drift is None


def test_the_first_images_are_shown():
    found = evaluate(Adds(0.75), task(NOISE), reference=Adds(0))
    assert "agreement" not in found.metrics
    assert found.samples is not None
    shown = torch.tensor([found.samples["model"], found.samples["reference"]])
    pixels = (NOISE[:16, 0] * 255).round()
    assert shown.dtype == torch.int64 and torch.equal(shown[1].float(), pixels)
    assert torch.equal(shown[0, :, 0, 1], shown[1, :, 0, 1])
    assert shown[0, :, 0, 0].max() == 255  # what is whiter than white
    assert set(evaluate(Adds(0), task(NOISE)).samples or {}) == {"model"}


@pytest.mark.parametrize(
    ("model", "given", "message"),
    [
        (Adds(torch.nan), task(NOISE), "samples must be finite, not NaN or infinite$"),
        (nn.Flatten(), task(NOISE), r"samples must be \[8, 1, 1, 2\], not \[8, 2\]$"),
        (Adds(0), task(NOISE, NOISE), r"labels must be \[8\], not \[8, 1, 1, 2\]$"),
        (Adds(0), task(NOISE, NOISE.flatten(1)[:, 0]), "labels must be integer, not float32$"),
        (Adds(0), task(NOISE, BRIGHTER, BRIGHTER), "a batch must be noise alone, in a tuple, or"),
    ],
)
def test_what_cannot_be_judged(model, given, message):
    with pytest.raises(ConfigError, match=rf"^evaluation batch 1, .*: {message}"):
        evaluate(model, given)


def test_too_few_images_have_no_covariance():
    with pytest.raises(ConfigError, match=r"^neighbours must be 1 to 1, one less than there are"):
        evaluate(Adds(0), task(NOISE[:2]))
