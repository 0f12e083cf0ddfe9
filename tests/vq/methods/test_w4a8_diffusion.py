"""W4A8 diffusion: what parts are worth, what can be left out, files, and going on after a stop."""

import copy

import pytest
import torch

import vq
from tests.vq.diffusion import STEPS, Short, met, start, tiny
from vq.calibration.pools import Forward, Pools
from vq.calibration.sampling import Noise
from vq.container import open_container
from vq.errors import ConfigError, ResumeError
from vq.formats.model import compressed_layers
from vq.formats.remaining import all_remaining
from vq.formats.scalar import PER_OUTPUT
from vq.learning.rules.codes import CodeFreezing
from vq.learning.rules.quality import sqnr_db
from vq.methods.w4a8_diffusion import Learning, Scheme, w4a8_diffusion_

INT4 = vq.Int4()
RECIPE = vq.Recipe({"*": vq.Int3(group=PER_OUTPUT)})
STRESS = Scheme(bits=4, ends=4, images=4)
SHORT = Learning(rounds=3, seeds=16, batch=8, weights=1e-3, steps=3e-3)


def drawn(model, count=8, seed=7):
    """Images from noise that nothing was calibrated on."""
    path = Short().visits(model, *start(model, count, seed))
    while True:
        try:
            next(path)
        except StopIteration as end:
            return end.value


def quantised(*, classes=None, scheme=STRESS, learning=SHORT, recipe=None, **settings):
    model = tiny(classes)
    draw = Noise(model.shape, classes)
    chosen = recipe or vq.Recipe(
        {"*": vq.Int3(group=PER_OUTPUT), **({} if classes is None else {"label": None})}
    )
    settings = {"seed": 0, "progress": False, **settings}
    return model, w4a8_diffusion_(
        model, Short(), draw, chosen, scheme=scheme, learning=learning, **settings
    )


def fidelity(model, classes=None):
    with torch.no_grad():
        return sqnr_db(drawn(model), drawn(tiny(classes)))


def test_what_has_learnt_draws_more_of_what_the_original_draws():
    longer = Learning(rounds=8, seeds=16, batch=8, distil=0, freeze=0, weights=1e-3, steps=3e-3)
    started, trained = (
        fidelity(quantised(learning=learning)[0]) for learning in (Learning(rounds=0), longer)
    )
    assert trained > started + 2


@pytest.mark.parametrize("classes", [None, 3])
def test_the_file_is_the_model(classes, tmp_path):
    path = tmp_path / "a.vq.safetensors"
    scheme = Scheme(images=4, classes=classes, symmetric=classes is None, rows=2)
    model, result = quantised(classes=classes, scheme=scheme, recipe=None if classes else RECIPE)
    vq.save(model, path)
    loaded = vq.load(path, into=tiny(classes, seed=3))
    for inputs in met(tiny(classes), seed=5):
        assert torch.equal(loaded(*inputs), model(*inputs))
    assert {layer.geometry.name: layer.geometry.method for layer in result.layers} == {
        "stem": "int8", "blocks.0.conv": "int3", "blocks.1.conv": "int3", "out": "int8",
    }  # fmt: skip
    assert all(layer.activation_bits == 8 and layer.rows == 2 for layer in result.layers)
    assert result.tables.modules == ["blocks.0.project", "blocks.1.project"]
    assert 0 < len(result.training.rules["quality"]) == SHORT.rounds
    with open_container(path) as file:
        assert {part.kind for part in file.runtime} == {"clock", "timed_rounding", "time_table"}
    assert not any(name.startswith("time") for name in loaded.state_dict())


ARMS = {
    "a": (Scheme(rows=1, search=False, tables=False, images=4), Learning(rounds=0)),
    "b": (Scheme(rows=1, tables=False, images=4), Learning(rounds=0)),
    "c": (Scheme(rows=1, images=4), Learning(rounds=0)),
    "d": (Scheme(images=4), Learning(rounds=0)),
    "e1": (Scheme(images=4), {"policy": "original", "shuffled": False, "distil": 0, "freeze": 0}),
    "e2": (Scheme(images=4), {"policy": "noised", "distil": 0, "freeze": 0}),
    "e3": (Scheme(images=4), {"distil": 0, "freeze": 0}),
    "f": (Scheme(images=4), {"freeze": 0}),
    "g": (Scheme(images=4), {}),
    "oscillation": (Scheme(images=4), {"oscillation": CodeFreezing(warmup=0, interval_steps=2)}),
    "sensitive": (Scheme(images=4, sensitive=1), {"freeze": 0}),
}


@pytest.mark.parametrize("arm", ARMS)
def test_every_part_can_be_left_out(arm):
    scheme, how = ARMS[arm]
    given = {"rounds": 2, "seeds": 8, "batch": 8}
    learning = how if isinstance(how, Learning) else Learning(**given | how)
    images = torch.rand(6, 1, 6, 6) - 0.5
    forward = Forward(
        images, (), lambda x, step, noise: x + noise * (step / 1000)[:, None, None, None]
    )
    model, result = quantised(
        scheme=scheme, learning=learning,
        forward=forward if learning.policy == "noised" else None,
    )  # fmt: skip
    assert (result.training is None) == (learning.rounds == 0)
    assert (result.tables is None) == (not scheme.tables)
    assert all(layer.rows == (scheme.rows or len(STEPS)) for layer in result.layers)
    told = {} if result.training is None else result.training.rules
    assert ("quality" in told) == bool(learning.rounds and learning.freeze)
    assert ("codes" in told) == (arm == "oscillation")
    wide = [layer.geometry.name for layer in result.layers if layer.geometry.method == "int8"]
    assert len(wide) == 2 + scheme.sensitive and {"stem", "out"} <= set(wide)
    if learning.rounds:
        assert result.training.steps == learning.rounds * len(STEPS)
        frozen = told["quality"][-1]["frozen_layers"] if learning.freeze else 0
        assert frozen == (1 if learning.freeze else 0)
    assert torch.isfinite(drawn(model)).all()


def test_codewords_learn_under_the_same_activations():
    recipe = vq.Recipe({"*": vq.SSVQ(d=4, k=8, scale="output")})
    model, result = quantised(recipe=recipe, scheme=Scheme(images=4))
    assert {layer.geometry.method for layer in result.layers} == {"ssvq", "int8"}
    assert result.training.signs and fidelity(model) > 0


@pytest.mark.parametrize("freeze", [0.5])
def test_a_run_that_was_stopped_goes_on_bit_for_bit(freeze, tmp_path, monkeypatch):
    learning = Learning(
        rounds=3, seeds=8, batch=4, freeze=freeze, weights=1e-3,
        oscillation=CodeFreezing(warmup=0, interval_steps=2),
    )  # fmt: skip
    whole, _ = quantised(learning=learning)
    folder = {"checkpoint_dir": tmp_path / "run", "checkpoint_steps": 3}
    some = Pools.some

    def stop(self, count):
        if self.drawn()["round"] == 2:
            raise KeyboardInterrupt
        return some(self, count)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Pools, "some", stop)
        quantised(learning=learning, **folder)
    again, _ = quantised(learning=learning, **folder, resume=True)
    state = again.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in whole.state_dict().items())
    assert torch.equal(drawn(again), drawn(whole))
    with pytest.raises(ResumeError, match="but its settings differ"):
        quantised(learning=learning, scheme=Scheme(bits=6), **folder, resume=True)
    with pytest.raises(ConfigError, match="checkpoint_dir must be free of checkpoints"):
        quantised(learning=learning, **folder)


def test_in_the_middle_of_a_round_its_own_pool_goes_on(tmp_path, monkeypatch):
    """The model has learnt since the pool was drawn: it could not be drawn again."""
    learning = Learning(rounds=2, seeds=16, batch=4, freeze=0, weights=3e-3)
    whole, _ = quantised(learning=learning)
    save = vq.learning.checkpoint.Checkpoints.save

    def stop(self, step, state):
        save(self, step, state)
        if step == 21:
            raise KeyboardInterrupt

    folder = {"checkpoint_dir": tmp_path / "run", "checkpoint_steps": 7}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(vq.learning.checkpoint.Checkpoints, "save", stop)
        quantised(learning=learning, **folder)
    again, _ = quantised(learning=learning, **folder, resume=True)
    assert torch.equal(drawn(again), drawn(whole))


def test_whatever_fails_the_model_is_as_before(monkeypatch):
    model = tiny()
    before = copy.deepcopy(model.state_dict())
    kinds = [type(module) for module in model.modules()]

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("vq.learning.loop.Training._run_epoch", stop)
    with pytest.raises(KeyboardInterrupt):
        w4a8_diffusion_(model, Short(), Noise(model.shape), RECIPE, learning=SHORT, scheme=STRESS)
    assert [type(module) for module in model.modules()] == kinds and not all_remaining(model)
    assert not list(compressed_layers(model))
    state = model.state_dict()
    assert state.keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in state.items())
    assert all(parameter.requires_grad for parameter in model.parameters())


def nan(count, generator):
    return (torch.full((count, 1, 6, 6), torch.nan),)


def too_few(count, generator):
    return torch.zeros(count, 1, 6, 6), torch.zeros(2)


class NotSo(Short):
    def visits(self, model, noise, *condition):
        return Short((1, 2)).visits(model, noise, *condition)


@pytest.mark.parametrize(
    ("match", "settings"),
    [
        ("sampler must ask for the steps that it names", {"sampler": NotSo()}),
        (r"latents must be finite, .*time step 900", {"draw": nan}),
        ("must have a row for each of the 4 images", {"draw": too_few}),
        ("select a layer that no time table stands for", {"recipe": vq.Recipe({"time.0": INT4})}),
        ("recipe must select at least one layer, not none", {"recipe": vq.Recipe({"*": None})}),
        ("images must be at least 1, not 0", {"scheme": Scheme(images=0)}),
        ("activation bits must be 2 to 8, not 16", {"scheme": Scheme(bits=16, images=4)}),
        ("rounds must be at least 0, not -1", {"learning": Learning(rounds=-1)}),
        ("distil must be at least 0, not nan", {"learning": Learning(distil=float("nan"))}),
        (r"share of layers to freeze must be in \[0, 1\)", {"learning": Learning(freeze=1)}),
        ("seeds must be a positive multiple of the batch", {"learning": Learning(seeds=5)}),
        ("images to noise must be given", {"learning": Learning(policy="noised")}),
    ],
)  # fmt: skip
def test_bad_input_is_refused_and_changes_nothing(match, settings):
    model = tiny()
    before = copy.deepcopy(model.state_dict())
    given = {
        "sampler": Short(), "draw": Noise(model.shape), "recipe": RECIPE,
        "scheme": Scheme(images=4), "learning": SHORT, **settings,
    }  # fmt: skip
    places = [given.pop(name) for name in ("sampler", "draw", "recipe")]
    with pytest.raises(ConfigError, match=match):
        w4a8_diffusion_(model, *places, **given)
    state = model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in before.items())
    assert not all_remaining(model)


def test_only_the_calibrated_steps_are_served():
    model, _ = quantised(learning=Learning(rounds=0))
    with pytest.raises(ConfigError, match=r"calibrated, not 500; they are 900, 600, 300, 50$"):
        list(Short((900, 500)).visits(model, *start(model)))
    with pytest.raises(
        ConfigError, match=r"w4a8-diffusion must be given a model whose weights are"
    ):
        w4a8_diffusion_(model, Short(), Noise(model.shape), RECIPE)
