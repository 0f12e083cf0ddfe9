"""Candidates compete during training, and what they leave is a hard model."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import vq
from tests.vq.models import batches, unchanged
from vq.container import open_container
from vq.errors import ConfigError, ResumeError
from vq.formats.model import compressed_layers
from vq.inference.decode import decode_weight
from vq.learning.checkpoint import Checkpoints
from vq.learning.rates import Rates, parameter_groups
from vq.learning.rules.candidates import Candidates
from vq.learning.rules.clamping import Clamping
from vq.learning.rules.driver import Rules
from vq.learning.rules.rule import Rule, Run

RATES = Rates(signs=3e-2, codebooks=1e-2)


class Several(nn.Module):
    """A linear, a convolution, a depthwise one and a head, all with codebooks."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(16, 32)
        self.conv = nn.Conv1d(4, 16, 3, padding=1)
        self.depthwise = nn.Conv1d(16, 16, 3, padding=1, groups=16)
        self.head = nn.Linear(128, 5)

    def forward(self, x):
        x = torch.relu(self.first(x)).reshape(-1, 4, 8)
        return self.head(torch.relu(self.depthwise(self.conv(x))).flatten(1))


def several(kind):
    torch.manual_seed(0)
    original = Several()
    model = copy.deepcopy(original)
    vq.compress_(model, vq.Recipe({"*": kind}))
    return model, original


def trained(kind=None, *, epochs=8, rules=None, model=None, **settings):
    kind = kind or vq.VQ(d=4, k=8)
    fresh, original = several(kind)
    model = fresh if model is None else model
    rules = [Candidates(3, original, **settings.pop("of", {}))] if rules is None else rules
    result = vq.finetune_(
        model, batches(), epochs=epochs, rates=RATES, rules=rules, freezing=None, **settings
    )
    return model, original, result


def indices(model):
    return torch.cat([layer.weight.indices for layer in compressed_layers(model)])


def fixed_book(tmp_path, low):
    book = np.random.default_rng(0).integers(low, 100, (12, 4)).astype(np.int8)
    np.save(tmp_path / "book.npy", book)
    return str(tmp_path / "book.npy")


@pytest.mark.parametrize("of", [{}, {"replace_steps": 4}, {"threshold": 1.0, "forced": None}])
@pytest.mark.parametrize("kind", ["vq", "ssvq", "parity", "shared", "fixed", "fixed ssvq"])
def test_what_is_left_is_what_the_file_decodes_to(tmp_path, kind, of):
    kinds = {
        "vq": lambda: vq.VQ(d=4, k=8, scale="output"),
        "ssvq": lambda: vq.SSVQ(d=5, k=8, tile_outputs=20),
        "parity": lambda: vq.SSVQ(d=4, k=8, parity=True, scale="output"),
        "shared": lambda: vq.VQ(d=2, k=8, shared="all"),
        "fixed": lambda: vq.VQ(codebook=fixed_book(tmp_path, -100), scale="output"),
        "fixed ssvq": lambda: vq.SSVQ(codebook=fixed_book(tmp_path, 0)),
    }
    chosen = kinds[kind]()
    before = indices(several(chosen)[0])
    model, original, result = trained(chosen, of=of)
    told = result.rules["candidates"]
    moved = (indices(model) != before).float().mean().item()
    assert len(told) == 8 and 0 < moved < 1
    assert result.losses[-1] < result.losses[0]
    if "forced" not in of:
        assert told[-1]["decided"] == 1 and told[-1]["moved"] == pytest.approx(moved)
        assert (told[-1]["replaced"] > 0) == ("replace_steps" in of)
    else:
        assert told[-1]["decided"] == 0
    file = tmp_path / "model.vq.safetensors"
    vq.save(model, file)
    loaded = vq.load(file, into=copy.deepcopy(original))
    with open_container(file) as container:
        for layer in compressed_layers(model):
            assert layer.weight.mixture is None
            weight = layer.module.weight.detach()
            assert torch.equal(loaded.get_submodule(layer.name).weight, weight)
            np.testing.assert_array_equal(container.weight(layer.name), weight.numpy())
            assert torch.equal(decode_weight(container, layer.name), weight)
    assert trained(chosen, of=of)[2] == result


def test_one_candidate_is_training_without_any():
    plain, _, without = trained(rules=[])
    model, _, result = trained(of={})
    other, _, one = trained(rules=[Candidates(1, several(vq.VQ(d=4, k=8))[1])])
    assert one.losses == without.losses and result.losses != without.losses
    assert torch.equal(indices(other), indices(plain))
    assert not torch.equal(indices(model), indices(plain))
    for mine, wanted in zip(other.parameters(), plain.parameters(), strict=True):
        assert torch.equal(mine, wanted)


def test_learnt_assignments_fit_better_than_the_codebook_alone():
    torch.manual_seed(0)
    original = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 5))
    optimizer = torch.optim.Adam(original.parameters(), 1e-2)
    for x, y in 20 * batches():
        optimizer.zero_grad()
        nn.functional.cross_entropy(original(x), y).backward()
        optimizer.step()

    def last(seed, *rules):
        model = copy.deepcopy(original)
        vq.compress_(model, vq.Recipe({"0": vq.VQ(d=4, k=6), "2": None}), seed=seed)
        x = [x for x, _ in batches()]
        settings = {"teacher": original, "distillation": vq.Distillation(weight=1), "rates": RATES}
        return vq.finetune_(model, x, epochs=20, rules=rules, **settings).losses[-1]

    control, learnt = (
        sum(last(seed, *rules) for seed in range(3)) for rules in ([], [Candidates(3, original)])
    )
    assert learnt < 0.7 * control


@pytest.mark.parametrize("step", [3, 33, 47, 64])
def test_a_run_that_was_stopped_ends_the_same_to_the_bit(tmp_path, monkeypatch, step):
    of = {"replace_steps": 3, "towards": "descent", "penalty": 0.1, "ratchet": True}
    settings = {"of": of, "seed": 1}
    whole, _, result = trained(vq.SSVQ(d=4, k=8), **settings)
    settings |= {"checkpoint_dir": tmp_path, "checkpoint_steps": 1}

    class Stop(Exception):
        pass

    save = Checkpoints.save

    def dying(self, at, state):
        save(self, at, state)
        if at == step:
            raise Stop

    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(Checkpoints, "save", dying)
        trained(vq.SSVQ(d=4, k=8), **settings)
    model, original, resumed = trained(vq.SSVQ(d=4, k=8), resume=True, **settings)
    assert (resumed.losses, resumed.rules) == (result.losses, result.rules)
    for name, value in model.state_dict().items():
        assert torch.equal(value, whole.state_dict()[name]), name
    del settings["of"]
    if step == 64:
        for other in (Candidates(2, original), Candidates(3, original, begin="uniform")):
            with pytest.raises(ResumeError, match="settings"):
                trained(vq.SSVQ(d=4, k=8), rules=[other], resume=True, **settings)


def test_whatever_fails_leaves_the_model_as_it_was(tmp_path):
    model, original = several(vq.VQ(d=4, k=8))
    before = copy.deepcopy(model.state_dict())

    def broken(outputs, targets):
        nonlocal calls
        calls += 1
        if calls == 50:
            raise RuntimeError("broken")
        return nn.functional.cross_entropy(outputs, targets)

    calls = 0
    with pytest.raises(ConfigError, match="broken"):
        trained(model=model, rules=[Candidates(3, original)], loss=broken)
    unchanged(model, before)
    assert all(layer.weight.mixture is None for layer in compressed_layers(model))
    vq.save(model, tmp_path / "m.vq.safetensors")


def test_in_a_loop_of_ones_own_closing_hardens(tmp_path):
    model, original = several(vq.SSVQ(d=4, k=8))
    rules = Rules(model, [Clamping(), Candidates(3, original)], 100)
    optimizer = torch.optim.AdamW(parameter_groups(model, RATES))
    for x, y in batches():  # far from the 100 steps that were announced
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        rules.before_step()
        optimizer.step()
        rules.after_step()
    assert "decided" in rules.note() and rules.telemetry()["candidates"]["decided"] < 1
    with pytest.raises(ConfigError, match="must have chosen a codeword"):
        vq.save(model, tmp_path / "m.vq.safetensors")
    rules.close()
    vq.save(model, tmp_path / "m.vq.safetensors")
    loaded = vq.load(tmp_path / "m.vq.safetensors", into=original)
    for layer in compressed_layers(model):
        assert torch.equal(loaded.get_submodule(layer.name).weight, layer.module.weight)


def test_codebooks_that_wait_rest_until_their_layers_have_decided():
    books = []

    class Look:
        def start(self, run):
            return Looker(run.layers)

    class Looker(Rule):
        name = "look"

        def __init__(self, layers):
            self.layers = [x for x in layers if x.codebook is not None]

        def after_step(self, step):
            done = [x.weight.mixture is None for x in self.layers]
            books.append((all(done), self.layers[0].codebook.detach().clone()))

    _, original = several(vq.VQ(d=4, k=8, shared="all"))
    rules = [Candidates(3, original, codebook_waits=True), Look()]
    trained(vq.VQ(d=4, k=8, shared="all"), rules=rules)
    waited = [book for done, book in books if not done]
    assert len(waited) > 20 and all(torch.equal(book, waited[0]) for book in waited)
    assert not torch.equal(books[-1][1], waited[0])


@pytest.mark.parametrize("term", ["absolute", "variance"])
def test_the_ratio_term_decides_earlier(term):
    shares = {
        penalty: trained(
            epochs=4, of={"forced": None, "threshold": 0.9, "penalty": penalty, "term": term}
        )[2]
        for penalty in (0.0, 1.0)
    }
    early, late = (shares[p].rules["candidates"][-1]["decided"] for p in (1.0, 0.0))
    assert early > late


def test_the_ratchet_fights_nothing_but_back_sliding():
    model, original = several(vq.VQ(d=4, k=8))
    layers = list(compressed_layers(model))
    run = Run(model, layers, 100, RATES)

    def pulls(rule, margin):
        """Whether the term enters with ratios that are so far from even."""
        for layer in layers:
            logits = layer.weight.mixture.logits
            logits.grad = None
            with torch.no_grad():
                logits.copy_(torch.tensor([margin, 0.0]).expand_as(logits))
        rule.before_step(0)
        return layers[0].weight.mixture.logits.grad is not None

    at_work = Candidates(2, original, penalty=1.0, ratchet=True).start(run)
    assert [pulls(at_work, margin) for margin in (0.5, 1.0, 2.0)] == [False] * 3
    assert pulls(at_work, 1.0) and not pulls(at_work, 3.0) and pulls(at_work, 2.0)
    at_work.start_epoch()
    assert not pulls(at_work, 1.0)
    at_work.close()
    always = Candidates(2, original, penalty=1.0).start(run)
    assert pulls(always, 1.0) and pulls(always, 2.0)
    always.close()


def test_slopes_are_there_for_the_first_step_already():
    told = [
        trained(epochs=1, of={"replace_steps": 1, "towards": towards})[2].rules["candidates"]
        for towards in ("descent", "point")
    ]
    model, original = several(vq.VQ(d=4, k=8))
    rule = Candidates(3, original, replace_steps=1, towards="descent")
    at_work = rule.start(Run(model, list(compressed_layers(model)), 100, RATES))
    model(batches()[0][0]).sum().backward()
    race = at_work._races[0]
    assert len(race.gradients()) == 2 and race.gradients()[1].abs().sum() > 0
    at_work.close()
    assert told[0] != told[1]


def test_a_schedule_is_a_ramp():
    ramp = Candidates(forced=(0.2, 0.6)).share_forced
    assert [ramp(x) for x in (0, 0.2, 0.4, 0.6, 1)] == pytest.approx([0, 0, 0.5, 1, 1])
    assert Candidates(forced=None).share_forced(1.0) == 0


def test_bad_settings_are_named_together():
    with pytest.raises(ConfigError) as caught:
        Candidates(
            n=0, begin="x", rate=0, threshold=0, finish=2, forced=(0.9, 0.1), interval_steps=0,
            replace_steps=0, towards="x", penalty=-1, term="x",
        )  # fmt: skip
    for name in (
        "n", "begin", "rate", "threshold", "finish", "forced", "interval_steps", "replace_steps",
        "towards", "penalty", "term",
    ):  # fmt: skip
        assert f"{name} must be" in str(caught.value)


def test_what_cannot_compete_is_refused():
    model, original = several(vq.VQ(d=4, k=8))
    before = copy.deepcopy(model.state_dict())
    for match, rule in {
        r"layer 'conv': n must be at most its k = 8, not 9": Candidates(9, original),
        r"layer 'first': original must be the model before .* not left out": Candidates(3),
        r"layer 'first': original must be .* not another": Candidates(3, nn.Linear(2, 2)),
        r"layer 'first': original must have its weight of \[32, 16\], not \[4, 16\]": Candidates(
            3, nn.ModuleDict({"first": nn.Linear(16, 4)})
        ),
    }.items():
        with pytest.raises(ConfigError, match=match):
            trained(model=model, rules=[rule])
    unchanged(model, before)
    trained(vq.SSVQ(d=4, k=8), rules=[Candidates(3)], epochs=1)
