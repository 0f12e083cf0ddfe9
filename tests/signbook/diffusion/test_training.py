"""Training of denoisers and classifiers on what can be learned in a moment."""

import pytest
import torch
from torch import nn

from signbook.data import Images
from signbook.diffusion.training import train_classifier_, train_denoiser_
from signbook.zoo.ddpm import noised, signal_share
from signbook.zoo.dit import DiT
from signbook.zoo.judge import Judge

#: Black and white ones.
IMAGES = Images(
    torch.tensor([0, 255], dtype=torch.uint8)[:, None, None, None].expand(2, 1, 4, 4),
    torch.tensor([0, 1]),
)


class Listens(nn.Module):
    """Remembers what it was given, and learns nothing of use."""

    shape = (1, 4, 4)

    def __init__(self, classes: int | None) -> None:
        super().__init__()
        self.classes = classes
        self.zero = nn.Parameter(torch.zeros(()))
        self.given: list[tuple[torch.Tensor, ...]] = []

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        self.given.append(inputs)
        return self.zero * inputs[0]


def test_denoisers_are_given_noisy_images_and_nine_classes_in_ten():
    model = Listens(2)
    train_denoiser_(model, IMAGES, steps=8, batch=500)
    noisy, step, label = (torch.cat(parts) for parts in zip(*model.given, strict=True))
    assert (step.amin(), step.amax()) == (1, 1000) and step.float().mean() == pytest.approx(
        500, rel=0.05
    )
    assert float((label == 2).float().mean()) == pytest.approx(0.1, abs=0.02)
    known = label < 2
    signal = signal_share()[step].sqrt() * (label - 0.5)  # of pixels at -0.5 and 0.5
    noise = (noisy.mean((1, 2, 3)) - signal)[known]  # of 16 pixels, at most 1/4
    assert abs(float(noise.mean())) < 0.02 and float(noise.std()) < 0.26
    assert not model.training


def test_denoisers_without_classes_get_none():
    model = Listens(None)
    train_denoiser_(model, IMAGES, steps=1, batch=2)
    assert len(model.given[0]) == 2


def test_denoisers_learn():
    model = DiT(4, patch=2, width=16, depth=1)
    train_denoiser_(model, IMAGES, steps=60, batch=32, rate=1e-2)
    noise, step = torch.randn(200, 1, 4, 4), torch.randint(1, 1001, (200,))
    label = torch.arange(200) % 2
    noisy = noised(IMAGES.x[label].float() / 255 - 0.5, step, noise)
    with torch.no_grad():
        error = float((model(noisy, step, label) - noise).square().mean())
    assert error < 0.5, "who predicts nothing is wrong by 1"


def test_classifiers_learn():
    model = Judge(4, classes=2)
    train_classifier_(model, IMAGES, steps=20, batch=16)
    assert model(IMAGES.x.float() / 255).argmax(1).tolist() == [0, 1] and not model.training


def test_errors_count_as_those_of_the_velocity():
    """One factor for all steps: where almost nothing is left of the image, it must be right."""

    class Scaled(nn.Module):
        shape, classes = (1, 4, 4), None

        def __init__(self) -> None:
            super().__init__()
            self.factor = nn.Parameter(torch.ones(()))

        def forward(self, noisy, step):
            return self.factor * noisy

    torch.manual_seed(0)
    model = Scaled()
    grey = Images(torch.full((8, 1, 4, 4), 128, dtype=torch.uint8), torch.zeros(8).long())
    train_denoiser_(model, grey, steps=150, rate=2e-2)
    spread = (1 - signal_share()[1:]).sqrt()  # of the noise in grey images
    of_noise = spread.mean() / spread.square().mean()
    assert of_noise > 1.05 and abs(float(model.factor.detach()) - 1) < 0.02
