"""Samplers of diffusers' schedulers: against our own DDIM, by themselves, and what they refuse."""

import sys
from collections.abc import Iterator
from functools import partial

import pytest
import torch
from torch import nn

from signbook.diffusion import DDIM
from signbook.diffusion.sampler import end_of
from signbook.diffusion.schedulers import Scheduled, sampler_for, zoo_sampler
from signbook.zoo.ddpm import ddpm, signal_share
from signbook.zoo.dit import DiT
from tests.signbook.diffusion.models import Knows, Says, image
from vq.errors import ConfigError

diffusers = pytest.importorskip("diffusers")
NAMES = ["ddim", "dpm++", "euler"]


def transformer() -> DiT:
    """A diffusion transformer with random weights: fresh ones predict nothing of their own."""
    model = DiT(4, patch=2, width=16, depth=1, heads=2).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model


def walked(sampler, model, *start) -> tuple[list[tuple[torch.Tensor, ...]], torch.Tensor]:
    met = []

    def path() -> Iterator[tuple[torch.Tensor, ...]]:
        images = yield from sampler.visits(model, *start)
        met.append(images)

    inputs = list(path())
    return inputs, met[0]


@pytest.mark.parametrize("steps", [1, 8, 50])
@pytest.mark.parametrize("guidance", [None, 2.5])
def test_ddim_of_diffusers_is_our_own(steps, guidance):
    model, noise, labels = transformer(), torch.randn(3, 1, 4, 4), torch.tensor([0, 9, 10])
    ours = walked(DDIM(steps, guidance=guidance), model, noise, labels)
    theirs = walked(zoo_sampler("ddim", steps, guidance=guidance), model, noise, labels)
    torch.testing.assert_close(theirs[1], ours[1], atol=1e-4, rtol=0)
    for found, wanted in zip(theirs[0], ours[0], strict=True):
        assert found[1].equal(wanted[1]) and found[2].equal(wanted[2])
        assert found[1].dtype == torch.int64
        torch.testing.assert_close(found[0], wanted[0], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_the_schedule_is_that_of_the_zoo(name):
    sampler = zoo_sampler(name, 20)
    share = sampler._scheduler.alphas_cumprod
    torch.testing.assert_close(share[1:], signal_share()[1:], rtol=1e-4, atol=0)
    assert share[0] == 1 and sampler.steps == DDIM(20).steps and sampler.reach == 0.5


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("steps", [1, 4, 20])
def test_exact_noise_leads_to_the_image(name, steps):
    state = torch.get_rng_state()
    found = end_of(zoo_sampler(name, steps).visits(Knows(image()), torch.randn(2, 1, 4, 4)))
    torch.testing.assert_close(found, image().expand(2, -1, -1, -1), atol=2e-3, rtol=0)
    torch.set_rng_state(state)
    torch.randn(2, 1, 4, 4)
    after = torch.get_rng_state()
    torch.set_rng_state(state)
    end_of(zoo_sampler(name, steps).visits(Knows(image()), torch.randn(2, 1, 4, 4)))
    assert torch.get_rng_state().equal(after), "nothing random is drawn"


@pytest.mark.parametrize("name", ["dpm++", "euler"])
def test_all_lead_to_the_same_image_in_many_steps(name):
    """They solve one equation, whose solution is smooth where nothing is clipped."""
    model, noise = Says(lambda label: label / 4), torch.randn(3, 1, 4, 4) / 50
    labels = torch.arange(3)
    ends = [end_of(zoo_sampler(n, s).visits(model, noise, labels)) for n, s in
            ((name, 40), (name, 500))]  # fmt: skip
    assert (ends[0] - ends[1]).abs().max() < 0.15 * ends[1].abs().max()
    again = zoo_sampler(name, 40)
    for _ in range(2):  # a sampler remembers nothing
        assert end_of(again.visits(model, noise, labels)).equal(ends[0])


def test_paths_of_one_sampler_may_be_walked_together():
    sampler, model, labels = zoo_sampler("dpm++", 4), transformer(), torch.tensor([1, 2])
    noise = torch.randn(2, 1, 4, 4)
    alone = walked(sampler, model, noise, labels)[0]
    pairs = zip(*(sampler.visits(model, noise, labels) for _ in range(2)), strict=True)
    for (one, other), wanted in zip(pairs, alone, strict=True):
        assert one[0].equal(other[0]) and one[0].equal(wanted[0])


def test_euler_scales_what_the_model_is_given():
    noise = torch.randn(50, 1, 4, 4)
    for noisy, step in zoo_sampler("euler", 5).visits(Knows(image()), noise):
        left = signal_share()[step[0]]
        wanted = left.sqrt() * image() + (1 - left).sqrt() * noise
        torch.testing.assert_close(noisy, wanted, atol=0.02, rtol=0)


def test_guidance_of_other_conditions():
    """Three numbers an image; those of none are given."""

    class Means(nn.Module):
        def forward(self, x, step, text):
            return text.mean(1)[:, None, None, None].expand(x.shape)

    noise, text = torch.randn(2, 1, 4, 4), torch.rand(2, 3)
    none = torch.zeros(3)
    met = walked(zoo_sampler("ddim", 2, guidance=3.0, untold=none), Means(), noise, text)
    assert met[0][0][2].tolist() == [*text.tolist(), [0.0] * 3, [0.0] * 3]
    plain = end_of(zoo_sampler("ddim", 2).visits(Means(), noise, 3 * text))
    torch.testing.assert_close(met[1], plain)
    with pytest.raises(ConfigError, match=r"^guidance must have what stands for no condition"):
        zoo_sampler("ddim", 2, guidance=3.0).visits(Means(), noise, text)
    with pytest.raises(ConfigError, match=r"^untold must be \[3\], a condition of one .* \[2\]$"):
        zoo_sampler("ddim", 2, guidance=3.0, untold=none[:2]).visits(Means(), noise, text)
    with pytest.raises(ConfigError, match=r"^guidance must have one condition, not 0$"):
        zoo_sampler("ddim", 2, guidance=3.0).visits(Means(), noise)


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        (lambda: diffusers.DDPMScheduler(), "^scheduler must be one of DDIMScheduler, .*, which "
         "add no noise on the way, not DDPMScheduler; the names ddim"),
        (lambda: diffusers.EulerAncestralDiscreteScheduler(), "not EulerAncestralDiscreteSchedul"),
        (lambda: diffusers.DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++"),
         "^algorithm_type of DPMSolverMultistepScheduler must .* not 'sde-dpmsolver..'$"),
        (lambda: diffusers.DDIMScheduler(rescale_betas_zero_snr=True),
         "^DDIMScheduler must leave something of the image at its last step"),
        (lambda: diffusers.EulerDiscreteScheduler(),
         r"^steps of EulerDiscreteScheduler must be whole, not such as 9\d\d\.\d+; set timestep"),
        (lambda: diffusers.DPMSolverMultistepScheduler(use_karras_sigmas=True),
         r"^steps of DPMSolverMultistepScheduler must go down from at most 999, each asked for on"),
        (lambda: diffusers.DDIMScheduler(num_train_timesteps=20),
         "^steps must be 1 to 20, as many as DDIMScheduler has, not 100$"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:__array__")  # numpy about diffusers
def test_schedulers_that_are_refused(scheduler, message):
    with pytest.raises(ConfigError, match=message):
        Scheduled(scheduler(), 100)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: zoo_sampler("ddm"), r"^sampler must be one of ddim, dpm\+\+, euler, not 'ddm'"),
        (lambda: zoo_sampler("ddim", 3), "^steps must divide 1000 for diffusers' DDIM, .*, not 3;"),
        (lambda: zoo_sampler("euler", 0), "^steps must be 1 to 1000, .*, not 0$"),
        (lambda: zoo_sampler("euler", guidance=float("nan")), "^guidance must be a finite number"),
        (lambda: Scheduled(diffusers.DDIMScheduler(), [3, 2]), "^steps of diffusers' DDIM must be"),
        (lambda: Scheduled(diffusers.EulerDiscreteScheduler(), [2, 3]), "each asked .* be 2, 3;"),
        (lambda: DDIM(0), "^steps must be 1 to 1000, .*, not 0$"),
        (lambda: DDIM(2).visits(ddpm(), *torch.zeros(3, 1)), "^condition must be labels alone"),
    ],
)  # fmt: skip
def test_settings_that_cannot_work(call, message):
    with pytest.raises(ConfigError, match=message):
        call()


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ([torch.zeros(2, 1, 4, 5)], r"^noise must be \[images, 1, 4, 4\] for this model, not \[2,"),
        ([torch.zeros(2, 4)], r"^noise must be \[images, 1, 4, 4\] for this model, not \[2, 4\]$"),
        (
            [torch.zeros(2, 1, 4, 4), torch.zeros(3)],
            r"^condition must have a row for each of 2 images, not be \[3\]$",
        ),
    ],
)
def test_inputs_that_do_not_fit(start, message):
    with pytest.raises(ConfigError, match=message):
        zoo_sampler("euler", 2).visits(transformer(), *start)


@pytest.mark.parametrize("make", [DDIM, *(partial(zoo_sampler, name) for name in NAMES)])
def test_noise_that_is_no_number_is_found_at_their_step(make):
    class Breaks(Knows):
        def forward(self, noisy, step):
            return super().forward(noisy, step) + (torch.nan if step[0] <= 500 else 0)

    path = make(4).visits(Breaks(image()), torch.randn(2, 1, 4, 4))
    with pytest.raises(
        ConfigError,
        match=r"^noise that a model predicts must be finite, .* at step 3 of 4 \(t = 500\); look",
    ):
        end_of(path)


def test_models_get_the_sampler_that_is_theirs():
    model = transformer()
    assert isinstance(sampler_for(model, steps=7), DDIM) and sampler_for(model).steps[0] == 1000
    assert isinstance(sampler_for(model, "ddim", 7), DDIM)
    assert type(sampler_for(model, "dpm++")._scheduler).__name__.startswith("DPMSolver")
    model.scheduler = diffusers.DDPMScheduler(beta_end=0.01, prediction_type="v_prediction")
    with pytest.raises(ConfigError, match=r"^scheduler must be one of .* not DDPMScheduler; the"):
        sampler_for(model)
    for name in NAMES[:2]:
        found = sampler_for(model, name, 20)._scheduler
        assert found.alphas_cumprod.equal(model.scheduler.alphas_cumprod)
        assert found.config.prediction_type == "epsilon", "the network has made noise of it"
    model.scheduler = None
    with pytest.raises(ConfigError, match=r"^network must come with its schedule, not alone"):
        sampler_for(model)


def test_without_the_extra_our_own_is_left(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    assert isinstance(sampler_for(transformer()), DDIM)
    with pytest.raises(ConfigError, match=r"pip install 'signbook\[diffusion\]'"):
        sampler_for(transformer(), "euler")
