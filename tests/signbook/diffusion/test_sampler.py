"""DDIM: what it finds, where it passes, and what it refuses."""

import math

import pytest
import torch

from signbook.diffusion import sample, visits
from signbook.zoo.ddpm import signal_share
from tests.signbook.diffusion.models import Knows, Says, image
from vq.errors import ConfigError


@pytest.mark.parametrize("steps", [1, 3, 50])
def test_exact_noise_leads_to_the_image(steps):
    found = sample(Knows(image()), torch.randn(2, 1, 4, 4), steps=steps)
    torch.testing.assert_close(found, image().expand(2, -1, -1, -1), atol=1e-4, rtol=0)


def test_visits_start_at_the_noise_and_lie_on_the_way_to_the_image():
    """Exact noise does not change on the way: every visit is a mixture of it and the image."""
    noise = torch.randn(2, 1, 4, 4)
    left = signal_share()[1000]
    begin = left.sqrt() * image() + (1 - left).sqrt() * noise
    met = list(visits(Knows(image()), begin, steps=3))
    assert [step.tolist() for _, step in met] == [[1000] * 2, [667] * 2, [334] * 2]
    assert met[0][0] is begin
    for noisy, step in met:
        left = signal_share()[step[0]]
        wanted = left.sqrt() * image() + (1 - left).sqrt() * noise
        torch.testing.assert_close(noisy, wanted, atol=1e-4, rtol=0)


def test_all_steps_can_be_visited_and_none_twice():
    found = [
        int(step[0]) for _, step in visits(Knows(image()), torch.randn(1, 1, 4, 4), steps=1000)
    ]
    assert found == list(range(1000, 0, -1))


def test_guidance_goes_beyond_the_class_and_asks_for_every_image_twice():
    model, labels = Says(lambda label: 0.1 * label), torch.tensor([0, 2])
    left = float(signal_share()[1000])
    # No class is label 3: from 0.3 towards 0.1 times the label, and twice as far.
    noise = (0.3 + 2 * (0.1 * labels - 0.3))[:, None, None, None]
    begin = math.sqrt(left) * image() + math.sqrt(1 - left) * noise
    path = visits(model, begin, labels, steps=1, guidance=2)
    noisy, step, label = next(path)
    assert noisy.equal(torch.cat([begin, begin])) and label.tolist() == [0, 2, 3, 3]
    assert step.tolist() == [1000] * 4
    found = sample(model, begin, labels, steps=1, guidance=2)
    torch.testing.assert_close(found, image().expand(2, -1, -1, -1), atol=1e-4, rtol=0)
    assert not sample(model, begin, labels, steps=1, guidance=1).allclose(found, atol=1e-2)


def test_without_guidance_only_the_class_is_asked():
    (inputs,) = visits(
        Says(torch.zeros_like), torch.randn(2, 1, 4, 4), torch.tensor([1, 2]), steps=1
    )
    assert len(inputs[0]) == 2 and inputs[2].tolist() == [1, 2]


def test_images_keep_to_what_pixels_are_and_take_no_gradients():
    weight = torch.ones((), requires_grad=True)
    noise, labels = torch.randn(9, 1, 4, 4), torch.arange(9) % 3
    found = sample(Says(lambda label: -9 * weight + label), noise, labels, steps=2)
    assert found.amax() == 0.5 and not found.requires_grad and torch.is_grad_enabled()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "^steps must be 1 to 1000, as many as the schedule has, not 0$"),
        ({"steps": 1001}, "^steps must be 1 to 1000, .*, not 1001$"),
        (
            {"noise": torch.randn(2, 4, 4)},
            r"^noise must be \[images, 1, 4, 4\] .*, not \[2, 4, 4\]$",
        ),
        ({"labels": None}, "^labels must .*; this one knows 3 classes, and has no labels$"),
        ({"model": Knows(image())}, "^labels must .*; this one knows no classes, and has labels$"),
        ({"labels": torch.zeros(3)}, r"^labels must be \[2\], one an image, not \[3\]$"),
        ({"labels": torch.tensor([3, 4])}, "^labels must be 0 to 3, the last for no class, not 4$"),
        ({"guidance": math.nan}, "^guidance must be a finite number, and have classes, not nan$"),
        (
            {"model": Knows(image()), "labels": None, "guidance": 2.0},
            "^guidance must .*, not given to a model without classes$",
        ),
        (
            {"model": torch.nn.Linear(2, 2)},
            "^model must predict noise and say the shape of its images, .* 'shape', not None$",
        ),
    ],
)
def test_what_cannot_be_sampled_is_refused_at_once(change, message):
    model = Says(torch.zeros_like)
    given = {"model": model, "noise": torch.randn(2, 1, 4, 4), "labels": torch.tensor([0, 1])}
    with pytest.raises(ConfigError, match=message):
        visits(**given | change)
