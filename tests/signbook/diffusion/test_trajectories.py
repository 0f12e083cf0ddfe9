"""Trajectories as training data: drawn anew, repeatable, resumable."""

import copy
from itertools import islice

import pytest
import torch
from torch.nn.functional import mse_loss

import vq
from signbook.diffusion import Trajectories, visits
from signbook.zoo.ddpm import ddpm
from signbook.zoo.dit import DiT
from tests.signbook.diffusion.models import Knows, Says, image
from vq.calibration.batches import split
from vq.errors import ConfigError


def teacher() -> DiT:
    model = DiT(4, patch=2, width=8, depth=1, heads=2).eval()
    torch.nn.init.normal_(model.out.weight)
    return model


def passed(data: Trajectories) -> list[tuple[torch.Tensor, ...]]:
    return [split(batch)[0] for batch in data]


def same(a: list[tuple[torch.Tensor, ...]], b: list[tuple[torch.Tensor, ...]]) -> bool:
    return all(
        x.equal(y) for one, two in zip(a, b, strict=True) for x, y in zip(one, two, strict=True)
    )


@pytest.mark.parametrize("guidance", [None, 3.0])
def test_they_are_what_sampling_visits(guidance):
    model, images = teacher(), 4 if guidance is None else 2
    state = torch.get_rng_state()
    data = Trajectories(model, batch=4, steps=3, guidance=guidance)
    assert torch.get_rng_state().equal(state), "only a pass draws"
    met = passed(data)
    torch.set_rng_state(state)
    noise, labels = torch.randn(images, 1, 4, 4), torch.randint(10, (images,))
    assert same(met, list(visits(model, noise, labels, steps=3, guidance=guidance)))
    assert len(data) == len(met) == 3
    if guidance is not None:
        noisy, _, label = met[1]
        assert noisy[:2].equal(noisy[2:]) and label[2:].tolist() == [10, 10]


def test_other_samplers_lead_through_other_images():
    pytest.importorskip("diffusers")
    model = teacher()
    ours, theirs = (Trajectories(model, batch=2, steps=3, sampler=s) for s in (None, "dpm++"))
    torch.manual_seed(5)
    met = passed(ours)
    torch.manual_seed(5)
    other = passed(theirs)
    assert len(theirs) == 3 and other[0][0].equal(met[0][0]) and other[1][1].equal(met[1][1])
    assert not other[2][0].equal(met[2][0])


def test_passes_differ_and_repeat_by_seed():
    data = Trajectories(teacher(), batch=4, steps=2)
    torch.manual_seed(5)
    first, other = passed(data), passed(data)
    torch.manual_seed(5)
    assert same(first, passed(data)) and not first[0][0].equal(other[0][0])
    assert not first[0][2].equal(other[0][2])


def test_classes_are_all_drawn_and_none_beyond():
    data = Trajectories(Says(torch.zeros_like), batch=64, steps=1)
    ((_, _, labels),) = passed(data)
    assert sorted(set(labels.tolist())) == [0, 1, 2]


def test_there_are_no_targets_and_without_classes_no_labels():
    (batch,) = Trajectories(ddpm().eval(), batch=1, steps=1)
    (noisy, step), targets = split(batch)
    assert noisy.shape == (1, 1, 28, 28) and step.tolist() == [1000] and targets is None


def test_models_learn_from_them_and_continue_where_they_stopped(tmp_path):
    """Stopped in the middle of a trajectory, the rest of it is as it would have been."""
    original = teacher()

    def run(stop: int | None, **settings):
        student = copy.deepcopy(original)
        vq.compress_(student, vq.Recipe({"blocks.*": vq.SSVQ(d=4, k=4)}))
        seen = 0

        def loss(found, wanted):
            nonlocal seen
            seen += 1
            if seen == stop:
                raise KeyboardInterrupt
            return mse_loss(found, wanted)

        only = vq.Distillation(weight=1, loss=loss)
        data = Trajectories(original, batch=2, steps=4)
        result = vq.finetune_(
            student, data, epochs=2, teacher=original, distillation=only, seed=3, **settings
        )
        return student.state_dict(), result.losses

    whole, losses = run(None)
    kept = {"checkpoint_dir": tmp_path, "checkpoint_steps": 2}
    with pytest.raises(KeyboardInterrupt):
        run(8, **kept)
    resumed, again = run(None, **kept, resume=True)
    assert again == losses
    assert all(whole[name].equal(resumed[name]) for name in whole)


def test_a_trajectory_that_is_left_is_forgotten():
    data = Trajectories(teacher(), batch=2, steps=3)
    torch.manual_seed(1)
    list(islice(iter(data), 1))
    after = torch.get_rng_state()
    torch.manual_seed(1)
    passed(data)
    assert torch.get_rng_state().equal(after), "all that a pass draws, it draws at its start"


@pytest.mark.parametrize(
    ("model", "settings", "message"),
    [
        (teacher(), {"batch": 0}, "^batch must be positive, not 0$"),
        (
            teacher(),
            {"batch": 3, "guidance": 2.0},
            "^batch must be positive and even, for guidance, not 3$",
        ),
        (teacher(), {"steps": 0}, "^steps must be 1 to 1000"),
        (Knows(image()), {"guidance": 2.0}, "^guidance must .* a model without classes$"),
        (torch.nn.Linear(2, 2), {}, "^model must predict noise and say the shape"),
    ],
)
def test_what_cannot_be_sampled_is_refused_at_once(model, settings, message):
    with pytest.raises(ConfigError, match=message):
        Trajectories(model, **settings)
