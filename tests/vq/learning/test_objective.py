"""The loss of a batch: the task, a teacher, or both, for batches of every form."""

import copy
from collections import UserDict
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import vq
from tests.vq.learning.models import plain
from tests.vq.models import batches
from vq import SSVQ, Recipe
from vq.errors import ConfigError
from vq.learning.objective import Distillation, soft_cross_entropy
from vq.learning.rates import Rates


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


def test_own_loss_is_used():
    model = nn.Sequential(nn.Linear(16, 8))
    vq.compress_(model, Recipe({"0": SSVQ(d=8, k=4)}))
    data = [(torch.randn(64, 16), torch.zeros(64, 8))]
    result = vq.finetune_(model, data, epochs=60, loss=nn.functional.mse_loss)
    assert result.losses[-1] < 0.5 * result.losses[0]


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
    with pytest.raises(ConfigError, match=r"^training batch 2, float32 \[4, 16\], must be \(inp"):
        vq.finetune_(model, [*batches(4)[:1], torch.randn(4, 16)], epochs=1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Distillation(weight=0), r"distillation weight must be in \(0, 1\], not 0"),
        (lambda: Distillation(temperature=0), "temperature must be positive, not 0"),
    ],
)
def test_impossible_values_are_refused(make, message):
    with pytest.raises(ConfigError, match="^" + message):
        make()


@pytest.mark.parametrize("classes", [1, 7])
def test_a_teacher_of_another_shape_is_refused(classes):
    model = nn.Sequential(nn.Linear(4, 8))
    vq.compress_(model, Recipe({"*": SSVQ(d=4, k=4)}), progress=False)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(
        ConfigError, match=rf"^teacher must give outputs \[3, 8\], as .* not \[3, {classes}\], for"
    ):
        vq.finetune_(
            model, [torch.ones(3, 4)], epochs=1, teacher=nn.Linear(4, classes), progress=False
        )
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
