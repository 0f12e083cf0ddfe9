"""What a task means for training and for calibration."""

import copy

import pytest
import torch
from torch import nn

from signbook.objectives import IGNORED, calibration_of, label_loss, next_token_loss, objective_of
from signbook.tasks import Classification, Denoising, Embedding, Generation, LanguageModelling
from vq.errors import ConfigError
from vq.learning.randomness import generators_of


def test_next_token_loss_ignores_what_is_not_scored():
    tokens = torch.tensor([[1, 2, 3, 0]])
    scored = torch.tensor([[False, True, True, False]])
    objective = objective_of(LanguageModelling([(tokens, scored)]))
    (batch,) = list(objective.batches)
    assert batch[1].tolist() == [[IGNORED, 2, 3, IGNORED]]
    logits = torch.randn(1, 4, 5)
    expected = -logits.log_softmax(-1)[0, [0, 1], [2, 3]].mean()
    torch.testing.assert_close(next_token_loss(logits, batch[1]), expected)
    assert len(objective.batches) == 1


def test_every_task_says_how_it_is_learned():
    x = torch.randn(2, 3)
    assert not objective_of(Classification([(x, torch.tensor([0, 1]))])).needs_teacher
    denoising = objective_of(Denoising([(x, x)]))
    assert denoising.loss(x, x) == 0 and denoising.distillation_loss(x, x) == 0
    embedding = objective_of(Embedding([x]))
    assert embedding.needs_teacher
    assert embedding.distillation_loss(x, 3 * x) == pytest.approx(0, abs=1e-6)


def test_language_data_keep_their_samplers_and_generators():
    rows = [(torch.ones(4, dtype=torch.int64), torch.ones(4, dtype=torch.bool))] * 8
    generator = torch.Generator().manual_seed(1)
    loader = torch.utils.data.DataLoader(rows, batch_size=2, shuffle=True, generator=generator)
    batches = objective_of(LanguageModelling(loader)).batches
    assert batches.sampler is loader.sampler
    assert generators_of(batches) == generators_of(loader) != []
    assert len(copy.copy(batches)) == 4
    with pytest.raises(AttributeError, match="missing"):
        _ = batches.missing


def test_padded_texts_are_calibrated_without_padding():
    tokens = torch.arange(12).reshape(2, 6)
    scored = torch.tensor([[0, 1, 1, 1, 1, 1], [0, 1, 1, 0, 0, 0]]).bool()
    whole = (tokens[:1], scored[:1])
    found = calibration_of(LanguageModelling([(tokens, scored), whole, whole]), 2)
    assert [(x.tolist(), y) for x, y in found] == [
        ([[0, 1, 2, 3, 4, 5]], None), ([[6, 7, 8]], None), ([[0, 1, 2, 3, 4, 5]], None),
    ]  # fmt: skip
    inputs = {"input_ids": tokens}
    assert calibration_of(Embedding([inputs, inputs]), 5) == [(inputs, None)] * 2
    pair = (tokens, tokens)
    assert calibration_of(Embedding([pair]), 5) == [(pair, None)]


def test_what_only_judges_is_refused():
    x = torch.randn(2, 1, 4, 4)
    task = Generation([(x,)], lambda model, noise: noise, lambda images: (images, images), x)
    for door in (objective_of, lambda task: calibration_of(task, 1)):
        with pytest.raises(ConfigError, match=r"^data must be something to learn from, not gener"):
            door(task)


def test_labels_out_of_range_are_refused():
    logits = torch.randn(3, 5)
    good = torch.tensor([0, 4, 2])
    assert torch.equal(label_loss(logits, good), nn.functional.cross_entropy(logits, good))
    soft = torch.full((3, 5), 0.2)
    assert torch.equal(label_loss(logits, soft), nn.functional.cross_entropy(logits, soft))
    for label in (-100, -1, 5):
        with pytest.raises(ValueError, match=rf"^labels must be 0 to below 5, not {label}$"):
            label_loss(logits, torch.tensor([0, label, 2]))


@pytest.mark.parametrize(
    "labels",
    [torch.zeros(3, 1).long(), torch.zeros(1, 3).long(), torch.zeros(3, 5).long(), torch.zeros(3)],
)
def test_labels_of_another_shape_are_refused(labels):
    with pytest.raises(
        ValueError, match=r"^labels must be \[3(, 5)?\], the class of every input or"
    ):
        label_loss(torch.randn(3, 5), labels)


@pytest.mark.parametrize("noise", [torch.zeros(3, 1), torch.zeros(1, 5), torch.zeros(5)])
def test_noise_that_would_be_broadcast_is_refused(noise):
    with pytest.raises(ValueError, match=r"^noise must be \[3, 5\], not \["):
        objective_of(Denoising([])).loss(torch.zeros(3, 5), noise)


@pytest.mark.parametrize(
    ("scored", "message"),
    [
        (torch.ones(6, dtype=torch.bool), r"scored must be \[6, 6\], not \[6\]$"),
        (torch.ones(6, 1, dtype=torch.bool), r"scored must be \[6, 6\], not \[6, 1\]$"),
        (torch.ones(6, 6).long(), "scored must be bool, not int64$"),
    ],
)
def test_scored_tokens_that_would_be_broadcast_are_refused(scored, message):
    task = LanguageModelling([(torch.zeros(6, 6).long(), scored)])
    for door in (lambda: list(objective_of(task).batches), lambda: calibration_of(task, 1)):
        with pytest.raises(ConfigError, match=rf"^batch 1, \(int64 \[6, 6\], .*\): {message}"):
            door()


def test_a_text_of_which_nothing_is_scored_is_refused():
    labels = torch.full((2, 3), IGNORED)
    with pytest.raises(ValueError, match=r"^a token behind the first of its row must be scored"):
        next_token_loss(torch.randn(2, 3, 5), labels)
    with pytest.raises(
        ValueError, match=r"^logits must be \[2, 3, 'vocabulary'\], not \[2, 5, 3\]"
    ):
        next_token_loss(torch.randn(2, 5, 3), labels + 100)
