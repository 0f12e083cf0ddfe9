"""Fine-tuning: it learns, it keeps what must stay, it repeats, and others can do it by hand."""

import copy
import json
import runpy
from collections import UserDict
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import vq
from tests.vq.models import Net, batches
from vq import SSVQ, VQ, Int8, Recipe
from vq.errors import ConfigError, TrainingError
from vq.formats.model import compressed_layers
from vq.formats.weights import FROZEN
from vq.learning.finetune import Rates
from vq.learning.objective import Distillation, soft_cross_entropy
from vq.learning.rates import scale_latents_
from vq.learning.rules.refinement import Refinement, Refiner
from vq.learning.rules.signs import Freezing, SignFreezer

EXAMPLES = Path(__file__).parents[2] / "examples"

RECIPE = Recipe({"fc1": SSVQ(d=8, k=16), "fc2": SSVQ(d=4, k=8, scale="output")})


def trained(**settings):
    torch.manual_seed(0)
    model = Net()
    vq.compress_(model, RECIPE)
    start = copy.deepcopy(model)
    result = vq.finetune_(model, batches(), epochs=8, **settings)
    return start, model, result


def test_loss_falls_and_every_kind_of_tensor_moves():
    start, model, result = trained()
    assert result.losses[-1] < 0.9 * result.losses[0]
    before = dict(start.named_parameters())
    for name, tensor in model.named_parameters():
        assert not torch.equal(tensor, before[name]), name
    for a, b in zip(compressed_layers(start), compressed_layers(model), strict=True):
        assert torch.equal(a.weight.indices, b.weight.indices)
        assert b.codebook.min() >= 0
    assert result.signs[-1].changed > 0.005


def test_fixed_signs_stay_while_the_rest_learns():
    start, model, result = trained(fixed_signs=True)
    assert result.losses[-1] < result.losses[0]
    assert result.signs[-1].changed == 0
    for a, b in zip(compressed_layers(start), compressed_layers(model), strict=True):
        assert torch.equal(a.latent, b.latent)
        assert not torch.equal(a.codebook, b.codebook)


def test_codewords_that_would_turn_negative_stop_at_zero():
    _, model, _ = trained(rates=Rates(codebooks=0.3))
    codebooks = [layer.codebook for layer in compressed_layers(model)]
    assert all(codebook.min() >= 0 for codebook in codebooks)
    assert any((codebook == 0).any() for codebook in codebooks)


def test_learned_signs_fit_better_than_fixed_ones():
    assert trained()[2].losses[-1] < trained(fixed_signs=True)[2].losses[-1]


def test_equal_runs_are_equal_to_the_bit():
    a, b = trained()[1].state_dict(), trained()[1].state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_freezing_shows_in_the_record():
    schedule = Freezing(interval_steps=2, momentum=0.3, threshold_start=0.02, threshold_end=0.001)
    _, _, result = trained(freezing=schedule, rates=Rates(signs=0.3))
    assert 0 < result.signs[-1].frozen < 1
    assert result.to_json()["signs"][-1]["frozen"] == result.signs[-1].frozen


@pytest.mark.parametrize("method", [VQ(d=4, k=32), Int8()])
def test_other_methods_train_too(method):
    model = Net()
    vq.compress_(model, Recipe({"fc*": method}))
    result = vq.finetune_(model, batches(), epochs=6)
    assert result.losses[-1] < result.losses[0]
    assert result.signs == []


def test_any_training_loop_works():
    model = Net()
    vq.compress_(model, RECIPE)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    freezer = SignFreezer(list(compressed_layers(model)), 40, Freezing())
    losses = []
    for _ in range(5):
        for x, y in batches():
            loss = nn.functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            freezer.step()
            losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_own_loss_is_used():
    model = nn.Sequential(nn.Linear(16, 8))
    vq.compress_(model, Recipe({"0": SSVQ(d=8, k=4)}))
    data = [(torch.randn(64, 16), torch.zeros(64, 8))]
    result = vq.finetune_(model, data, epochs=60, loss=nn.functional.mse_loss)
    assert result.losses[-1] < 0.5 * result.losses[0]


def test_model_without_compressed_layers_is_refused():
    with pytest.raises(ConfigError, match=r"^model must hold a compressed layer, not none"):
        vq.finetune_(Net(), batches())


@pytest.mark.parametrize(("loader", "epochs"), [([], 3), (batches(1), 0)])
def test_training_without_a_step_is_refused(loader, epochs):
    model = Net()
    vq.compress_(model, RECIPE)
    with pytest.raises(ConfigError, match=r"^training must have at least one step"):
        vq.finetune_(model, loader, epochs=epochs)


def plain(*, method=None, dropout=0.0):
    """A compressed network without batch norms, and the original."""
    torch.manual_seed(0)
    teacher = nn.Sequential(
        nn.Linear(16, 64), nn.LayerNorm(64), nn.ReLU(), nn.Dropout(dropout), nn.Linear(64, 5)
    )
    model = copy.deepcopy(teacher)
    vq.compress_(model, Recipe({"0": method or SSVQ(d=8, k=8)}))
    return model, teacher


def assert_close(a, b, **tolerance):
    for name, value in a.state_dict().items():
        torch.testing.assert_close(value, b.state_dict()[name], **tolerance)


def kl(student, teacher, t):
    """T**2 KL, written out."""
    p, q = (teacher / t).softmax(-1), (student / t).softmax(-1)
    return t * t * (p * (p.log() - q.log())).sum(-1).mean()


def test_distillation_is_the_textbook_divergence():
    student, teacher = torch.randn(2, 6, 3, 5)
    for t in (1.0, 4.0):
        torch.testing.assert_close(soft_cross_entropy(student, teacher, t), kl(student, teacher, t))
    assert soft_cross_entropy(teacher, teacher, 2.0).abs() < 1e-6


def test_loss_mixes_task_and_teacher():
    # Rates of zero: what is recorded is the loss of the clustered model.
    still = Rates(0, 0, 0)
    model, teacher = plain()
    x, y = batches(1)[0]
    student, wanted = model(x).detach(), teacher(x).detach()
    task, soft = nn.functional.cross_entropy(student, y), kl(student, wanted, 3.0)

    def loss(batch, **settings):
        settings = {"teacher": teacher, "epochs": 1, "rates": still, **settings}
        return vq.finetune_(model, [batch], **settings).losses[0]

    mixed = Distillation(weight=0.25, temperature=3.0)
    assert loss((x, y), distillation=mixed) == pytest.approx(float(0.75 * task + 0.25 * soft))
    # Without targets there is no task.
    assert loss(x, distillation=mixed) == pytest.approx(float(soft), rel=1e-4)
    assert loss((x,), distillation=mixed) == pytest.approx(float(soft), rel=1e-4)
    only = Distillation(weight=1, loss=nn.functional.mse_loss)
    expected = nn.functional.mse_loss(student, wanted)
    assert loss((x, y), distillation=only, loss=None) == pytest.approx(float(expected))


def test_teacher_alone_brings_the_student_closer_and_stays_as_it_was():
    model, teacher = plain(dropout=0.1)
    before = copy.deepcopy(teacher.state_dict())
    inputs = [x for x, _ in batches()]
    result = vq.finetune_(model, inputs, epochs=8, teacher=teacher)
    assert result.losses[-1] < 0.8 * result.losses[0]
    assert teacher.training  # as it was, though it ran in evaluation mode
    for name, value in teacher.state_dict().items():
        assert torch.equal(value, before[name])
    assert all(p.grad is None for p in teacher.parameters())


class Named(nn.Module):
    """Keyword arguments in, an object with logits (and perhaps a loss) out, like transformers."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(16, 5)

    def forward(self, values, scale=None, labels=None):
        logits = self.fc(values * (1 if scale is None else scale))
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return SimpleNamespace(logits=logits, loss=loss)


@pytest.mark.parametrize(
    "form",
    [
        lambda x, y: (x, y),
        lambda x, y: (UserDict(values=x), y),  # as tokenizers give
        lambda x, y: ((x, torch.ones(())), y),
        lambda x, y: {"values": x, "labels": y},
    ],
    ids=["pair", "keywords", "arguments", "own loss"],
)
@pytest.mark.parametrize("distil", [False, True])
def test_batches_of_all_forms_mean_the_same(form, distil):
    def run(form):
        torch.manual_seed(0)
        model = Named()
        teacher = copy.deepcopy(model) if distil else None
        vq.compress_(model, Recipe({"fc": SSVQ(d=4, k=8)}))
        data = [form(x, y) for x, y in batches(4)]
        return vq.finetune_(model, data, epochs=2, teacher=teacher).losses

    assert run(form) == run(lambda x, y: (x, y))


def test_batches_without_targets_need_a_teacher():
    model, _ = plain()
    with pytest.raises(ConfigError, match=r"^training batches must be \(inputs, targets\), not"):
        vq.finetune_(model, [torch.randn(4, 16)], epochs=1)


def test_accumulated_batches_equal_one_large_batch():
    model, teacher = plain()
    other, _ = plain()
    small = batches(8, batch=16)
    large = [
        tuple(torch.cat(parts) for parts in zip(*small[i : i + 4], strict=True)) for i in (0, 4)
    ]
    settings = {"epochs": 5, "teacher": teacher, "clip_norm": 0.5, "freezing": None}
    a = vq.finetune_(model, small, accumulate=4, **settings)
    b = vq.finetune_(other, large, **settings)
    assert a.steps == b.steps == 10
    assert a.losses == pytest.approx(b.losses, rel=1e-5)
    assert_close(model, other, rtol=1e-4, atol=1e-5)


def test_the_last_step_of_an_epoch_may_hold_fewer_batches():
    model, _ = plain()
    other, _ = plain()
    data = batches(5)
    assert vq.finetune_(model, data, epochs=2, accumulate=3).steps == 4
    merged = [
        tuple(torch.cat(p) for p in zip(*data[i:j], strict=True)) for i, j in ((0, 3), (3, 5))
    ]
    vq.finetune_(other, merged, epochs=2)
    assert_close(model, other, rtol=1e-4, atol=1e-5)


def test_clipping_bounds_the_gradient(monkeypatch):
    norms = []
    step = torch.optim.AdamW.step

    def spy(self, *args):
        grads = [p.grad for g in self.param_groups for p in g["params"] if p.grad is not None]
        norms.append(float(torch.stack([g.norm() for g in grads]).norm()))
        return step(self, *args)

    monkeypatch.setattr(torch.optim.AdamW, "step", spy)
    vq.finetune_(plain()[0], batches(), epochs=1, clip_norm=0.1)
    assert max(norms) == pytest.approx(0.1, rel=1e-3)


def test_bf16_computes_coarsely_and_keeps_fine_state():
    seen = []
    model, teacher = plain()
    model[4].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    result = vq.finetune_(model, batches(), epochs=6, amp="bf16", teacher=teacher)
    assert set(seen) == {torch.bfloat16}
    assert {t.dtype for t in model.parameters()} == {torch.float32}
    reference, _ = plain()
    exact = vq.finetune_(reference, batches(), epochs=6, teacher=teacher)
    assert result.losses[-1] == pytest.approx(exact.losses[-1], rel=0.1)
    assert result.losses != exact.losses
    assert model[0].weight.dtype == torch.float32


def test_alpha_only_divides_the_rate_of_the_signs():
    # Powers of two, so that rounding is the same, too.
    a, _ = plain()
    b, _ = plain()
    vq.finetune_(a, batches(), epochs=4, rates=Rates(signs=1 / 32))
    vq.finetune_(b, batches(), epochs=4, rates=Rates(signs=1 / 8, alpha=4))
    assert torch.equal(a[0].weight, b[0].weight)
    latents = [next(compressed_layers(m)).latent.detach() for m in (a, b)]
    free = latents[0].abs() < FROZEN
    assert torch.equal(4 * latents[0][free], latents[1][free])


def test_frozen_latents_stay_frozen_in_a_second_run():
    model, _ = plain()
    layers = list(compressed_layers(model))
    with torch.no_grad():
        layers[0].latent[:4] = -FROZEN
    scale_latents_(layers, alpha=0.5)
    assert (layers[0].latent[:4] == -FROZEN).all()
    assert (layers[0].latent[4:].abs() < 10).all()


def test_decay_shrinks_kept_weights_only():
    model, _ = plain()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    # Adam does not move where there is no gradient; decay does.
    nothing = [(torch.zeros(8, 16), torch.zeros(8, 5))]
    rates = Rates(rest=0.1, decay=0.5)
    vq.finetune_(model, nothing, epochs=5, rates=rates, loss=lambda out, target: 0 * out.sum())
    changed = {n for n, value in model.state_dict().items() if not torch.equal(value, before[n])}
    assert changed == {"4.weight"}
    assert model[4].weight.norm() < before["4.weight"].norm()


def test_a_seed_decides_everything_and_leaves_the_global_state():
    def run(seed, disturb):
        model, _ = plain(dropout=0.5)
        torch.rand(disturb)
        before = torch.get_rng_state()
        vq.finetune_(model, batches(), epochs=1, seed=seed)
        assert torch.equal(torch.get_rng_state(), before) == (seed is not None)
        return model[0].weight

    assert torch.equal(run(3, disturb=1), run(3, disturb=2))
    assert not torch.equal(run(3, disturb=1), run(4, disturb=1))
    assert not torch.equal(run(None, disturb=1), run(None, disturb=2))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_divergence_restores_the_last_good_state(value, tmp_path):
    calls = []

    def loss(outputs, targets):
        calls.append(nn.functional.cross_entropy(outputs, targets))
        return calls[-1] * (value if len(calls) == 14 else 1)

    torch.manual_seed(0)
    model = Net()
    vq.compress_(model, RECIPE)
    good = copy.deepcopy(model)
    settings = {"epochs": 2, "checkpoint_steps": 4, "checkpoint_dir": tmp_path}
    with pytest.raises(TrainingError) as caught:
        vq.finetune_(model, batches(), loss=loss, **settings)
    assert str(caught.value) == (
        f"training must keep its loss finite, not {value}, after 13 steps; the model is back at "
        "step 12: lower the rates, or set clip_norm"
    )
    assert not model.training and all(p.grad is None for p in model.parameters())
    newest = torch.load(max(tmp_path.glob("step-*")), weights_only=True)
    assert newest["step"] == 12
    for name, tensor in model.named_parameters():
        assert torch.equal(tensor, newest["model"][name]), name
        assert not torch.equal(tensor, good.get_parameter(name))


def test_weights_that_stop_being_finite_are_never_kept(tmp_path):
    model, _ = plain()
    start = copy.deepcopy(model.state_dict())

    def loss(outputs, targets):
        # The value is finite, but its gradient is not.
        return nn.functional.cross_entropy(outputs, targets) + (0 * outputs).sqrt().sum()

    settings = {"epochs": 1, "loss": loss, "checkpoint_steps": 1, "checkpoint_dir": tmp_path}
    with pytest.raises(TrainingError, match="training must keep its weights finite, not NaN"):
        vq.finetune_(model, batches(1), **settings)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, start[name])
    assert not list(tmp_path.glob("step-*"))


def refined(model, **settings):
    settings = {"epochs": 8, "rates": Rates(signs=0.1, codebooks=0.03), **settings}
    before = next(compressed_layers(model)).weight.indices.clone()
    result = vq.finetune_(model, batches(), **settings)
    layer = next(compressed_layers(model))
    return result, (layer.weight.indices != before).sum()


@pytest.mark.parametrize("method", [SSVQ(d=8, k=8), SSVQ(d=5, k=8, scale="output"), VQ(d=4, k=32)])
def test_refinement_reassigns_and_what_it_makes_can_be_stored(method, tmp_path):
    schedule = Refinement(interval_steps=4)
    result, changed = refined(plain(method=method)[0], refinement=schedule)
    assert 0 < changed <= result.reassigned
    assert refined(plain(method=method)[0])[1] == 0
    model, _ = plain(method=method)
    assert refined(model, refinement=schedule)[0] == result
    vq.save(model, tmp_path / "m.vq.safetensors")
    loaded = vq.load(tmp_path / "m.vq.safetensors", into=plain()[1])
    assert torch.equal(loaded[0].weight, model[0].weight)


@pytest.mark.parametrize("method", [SSVQ(d=8, k=8), SSVQ(d=5, k=8, scale="output"), VQ(d=4, k=32)])
def test_refinement_moves_nothing_before_training(method):
    model, _ = plain(method=method)
    refiner = Refiner(list(compressed_layers(model)), 100, Refinement(interval_steps=1, margin=0))
    assert refiner.step(1) == 0


def test_refinement_takes_the_codeword_that_the_latents_moved_to():
    model, _ = plain()
    layer = next(compressed_layers(model))
    codebook = layer.codebook.detach()
    refiner = Refiner([layer], 100, Refinement(interval_steps=10, candidates=7), alpha=2.0)
    target = int((layer.weight.indices[3] + 3) % 8)
    frozen = int((layer.weight.indices[4] + 5) % 8)
    with torch.no_grad():
        layer.latent[3] = 2 * codebook[target] * torch.tensor([1, -1]).repeat(4)
        layer.latent[0:3] = 2 * codebook[layer.weight.indices[0:3].long()]
        layer.latent[4:] = 2 * codebook[layer.weight.indices[4:].long()]
        layer.latent[4] = -2 * codebook[frozen]
        layer.latent[4, 0] = FROZEN  # tells nothing about a magnitude
        large = int(codebook.norm(dim=1).argmax())
        layer.weight.indices[5] = large
        layer.latent[5] = FROZEN  # nothing speaks for another codeword
    assert refiner.step(9) == 0  # not due
    assert refiner.step(80) == 0  # too late
    assert refiner.step(10) == 2
    assert layer.weight.indices[3] == target
    assert layer.weight.indices[4] == frozen
    assert layer.weight.indices[5] == large


def test_refinement_fits_better_on_average():
    def last(seed, refinement):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 5))
        vq.compress_(model, Recipe({"0": VQ(d=4, k=8), "2": None}), seed=seed)
        return vq.finetune_(model, batches(), epochs=15, refinement=refinement).losses[-1]

    gains = [last(s, None) - last(s, Refinement(interval_steps=10)) for s in range(5)]
    assert sum(gains) > 0


def test_the_record_is_plain_data_and_tells_the_settings(tmp_path):
    model, teacher = plain()
    result = vq.finetune_(
        model, batches(), epochs=2, teacher=teacher, distillation=Distillation(weight=0.5),
        checkpoint_dir=tmp_path / "run", checkpoint_steps=6, seed=1,
    )  # fmt: skip
    record = json.loads(json.dumps(result.to_json()))
    assert record["steps"] == 16
    assert record["settings"]["rates"]["signs"] == Rates().signs
    assert record["settings"]["freezing"]["vote"] == "majority"
    assert record["settings"]["loss"] == "torch.nn.functional.cross_entropy"
    lines = [json.loads(x) for x in (tmp_path / "run" / "run.jsonl").read_text().splitlines()]
    assert [(x["event"], x["step"]) for x in lines] == [
        ("checkpoint", 6), ("epoch", 8), ("checkpoint", 12), ("checkpoint", 16), ("epoch", 16),
    ]  # fmt: skip
    assert lines[-1]["signs"] == record["signs"][-1]
    assert lines[-1]["loss"] == record["losses"][-1]
    assert set(lines[0]["signs"]) >= {"flip_rate", "oscillating", "frozen", "changed"}


class Once:
    """A loader that is empty after its first epoch."""

    def __init__(self):
        self.batches = iter(batches(2))

    def __len__(self):
        return 2

    def __iter__(self):
        return self.batches


def test_a_loader_that_runs_dry_is_named():
    with pytest.raises(ConfigError, match="loader must hold batches in every epoch, not none in"):
        vq.finetune_(plain()[0], Once(), epochs=2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"amp": "fp8"}, r"training has 1 problem:\n- amp must be None or 'bf16', not 'fp8'"),
        (
            {"accumulate": 0, "clip_norm": -1.0},
            "training has 2 problems:\n- accumulate must be pos",
        ),
        ({"checkpoint_steps": 0}, r"training has 1 problem:\n- checkpoint_steps must be positive"),
        ({"seed": -1}, r"training has 1 problem:\n- seed must not be negative, not -1"),
        ({"distillation": Distillation()}, "distillation must have a teacher, not none"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ConfigError, match="^" + message):
        vq.finetune_(plain()[0], batches(), **settings)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Rates(signs=-1), "rate signs must be zero or positive, not -1"),
        (lambda: Rates(alpha=0), "alpha must be positive, not 0"),
        (lambda: Distillation(weight=0), r"distillation weight must be in \(0, 1\], not 0"),
        (lambda: Distillation(temperature=0), "temperature must be positive, not 0"),
        (lambda: Refinement(interval_steps=0), "refinement interval_steps must be positive"),
        (lambda: Refinement(margin=1), r"refinement margin must be in \[0, 1\), not 1"),
        (lambda: Refinement(until=0), r"refinement until must be in \(0, 1\], not 0"),
    ],
)
def test_impossible_values_are_refused(make, message):
    with pytest.raises(ConfigError, match="^" + message):
        make()


def test_the_model_cannot_teach_itself():
    model, _ = plain()
    with pytest.raises(
        ConfigError, match=r"^teacher must be another model, not the one that learns"
    ):
        vq.finetune_(model, batches(), teacher=model)


def test_the_ten_line_loop_trains(capsys):
    runpy.run_path(str(EXAMPLES / "own_loop.py"), run_name="__main__")
    first, last = (float(word) for word in capsys.readouterr().out.split() if word[0].isdigit())
    assert last < 0.3 * first
