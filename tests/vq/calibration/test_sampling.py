"""The course of a sampler is checked before a model is asked."""

import pytest
import torch

from tests.vq.diffusion import STEPS, Short, start, tiny
from vq.calibration.sampling import Noise, course
from vq.errors import ConfigError


def test_noise_and_classes_are_drawn_from_the_generator():
    draw = Noise((1, 2, 2), 3)
    noise, classes = draw(8, torch.Generator().manual_seed(0))
    again, _ = draw(8, torch.Generator().manual_seed(0))
    assert noise.shape == (8, 1, 2, 2) and torch.equal(noise, again)
    assert classes.shape == (8,) and set(classes.tolist()) <= {0, 1, 2}
    assert len(Noise((4,))(2, torch.Generator())) == 1


def test_a_course_is_what_the_model_meets():
    model = tiny()
    met = list(course(Short(), model, *start(model, 2)))
    assert [int(inputs[1][0]) for inputs in met] == list(STEPS)


class Wrong(Short):
    def __init__(self, asked):
        super().__init__()
        self._asked = asked

    def visits(self, model, noise, *condition):
        return Short(self._asked).visits(model, noise, *condition)


@pytest.mark.parametrize(
    ("match", "asked"),
    [
        (r"names, \[900, 600, 300, 50\], in their order, not for \[77\] where \[600\]", (900, 77)),
        (r"leaves out \[300, 50\]", STEPS[:2]),
        (r"not for \[10\] where \[\] is due", (*STEPS, 10)),
    ],
)
def test_a_sampler_that_asks_for_other_steps_is_refused(match, asked):
    model = tiny()
    with pytest.raises(ConfigError, match=match):
        list(course(Wrong(asked), model, *start(model)))


def test_latents_that_are_not_numbers_are_refused():
    model = tiny()
    noise = start(model)[0]
    noise[1, 0, 2, 3] = torch.nan
    with pytest.raises(
        ConfigError, match=r"latents must be finite, .* at time step 900 they are not"
    ):
        list(course(Short(), model, noise))
    model.out.bias.data.fill_(torch.inf)
    with pytest.raises(
        ConfigError, match=r"latents must be finite, .* at time step 600 they are not"
    ):
        list(course(Short(), model, *start(model)))


@pytest.mark.parametrize("condition", [torch.zeros(3).long(), torch.tensor(1)])
def test_conditions_of_another_shape_are_refused(condition):
    model = tiny(3)
    with pytest.raises(
        ConfigError, match=r"must have a row for each of the 4 images, not be .int64"
    ):
        list(course(Short(), model, start(model)[0], condition))
