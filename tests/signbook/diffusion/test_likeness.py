"""Fréchet distance, precision and recall, class agreement: by hand, and what they refuse."""

import pytest
import torch

from signbook.data import Images
from signbook.diffusion import class_agreement, frechet_distance, likeness, precision_and_recall
from signbook.zoo import judge
from vq.errors import ConfigError


def normal(count: int, mean: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Rows whose mean and covariance, factorᵀ factor, are exact."""
    rows = torch.randn(count, len(mean), dtype=torch.float64)
    white = torch.linalg.qr(rows - rows.mean(0)).Q * (count - 1) ** 0.5
    return white @ factor.double() + mean


def test_normal_distributions_have_the_distance_of_the_closed_form():
    a, b = torch.tensor([1.0, 2, 3]), torch.tensor([2.0, 2, 1])
    one, other = (normal(9, 0 * a, a.diag()), normal(20, b, b.diag()))
    expected = float(b.square().sum() + (a - b).square().sum())
    assert frechet_distance(one, other) == pytest.approx(expected)
    assert frechet_distance(other, one) == pytest.approx(expected)
    turned = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64)).Q
    assert frechet_distance(one @ turned, other @ turned) == pytest.approx(expected)


def test_covariances_that_do_not_commute():
    """tr sqrt(C1 C2) by the eigenvalues of the product."""
    factors = torch.randn(2, 4, 4, dtype=torch.float64)
    covariances = factors.mT @ factors
    roots = torch.linalg.eigvals(covariances[0] @ covariances[1]).real.sqrt().sum()
    expected = sum(c.trace() for c in covariances) - 2 * roots
    zero = torch.zeros(4)
    found = frechet_distance(normal(30, zero, factors[0]), normal(30, zero, factors[1]))
    assert found == pytest.approx(float(expected))


def test_a_set_is_at_no_distance_from_itself_even_if_singular():
    rows = torch.randn(30, 5)
    rows[:, 2], rows[:, 4] = 7.0, rows[:, 3]
    assert frechet_distance(rows, rows.flip(0)) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(rows, rows + 1) == pytest.approx(5)


def test_precision_and_recall_by_hand():
    """On a line, balls reach the nearest other: 0 and 1 cover -1 to 2, 9 and 13 cover 5 to 17."""
    real = torch.tensor([[0.0], [1], [9], [13]])
    generated = torch.tensor([[0.5], [2], [2.5], [7]])
    # Generated balls: 0.5 ± 1.5, 2 ± 0.5, 2.5 ± 0.5, 7 ± 4.5: of the real ones all but 13 are in.
    assert precision_and_recall(generated, real, neighbours=1) == (0.75, 0.75)
    assert precision_and_recall(real, real, neighbours=1) == (1, 1)
    assert precision_and_recall(real + 100, real, neighbours=1) == (0, 0)


def test_what_draws_one_kind_only_is_precise():
    kinds = torch.cat([torch.randn(40, 2), torch.randn(40, 2) + 50])
    precision, recall = precision_and_recall(kinds[:40] + 0.01, kinds)
    assert precision > 0.95 and 0.45 < recall <= 0.5


def test_class_agreement():
    logits = torch.eye(3)[[0, 1, 2, 2]]
    assert class_agreement(logits, torch.tensor([0, 1, 2, 0])) == 0.75


def test_likeness_of_real_images_and_of_others():
    real = Images(torch.randint(0, 256, (70, 1, 8, 8), dtype=torch.uint8), torch.arange(70) % 10)
    model = judge.digits()
    told = model(real.x.float() / 255).argmax(1)
    told[:7] = (told[:7] + 1) % 10
    same = likeness(real.x.float() / 255 - 0.5, real, model, told)
    assert same == {
        "frechet": pytest.approx(0, abs=1e-6), "precision": 1, "recall": 1, "agreement": 0.9
    }  # fmt: skip
    white = likeness(torch.rand(70, 1, 8, 8) + 9, real, model)
    assert white == likeness(torch.full((70, 1, 8, 8), 0.5), real, model), "no pixel is above white"
    assert white["frechet"] > same["frechet"] + 1e-3 and "agreement" not in white


ROWS = torch.randn(10, 3)


@pytest.mark.parametrize("function", [frechet_distance, precision_and_recall])
@pytest.mark.parametrize(
    ("generated", "real", "message"),
    [
        (ROWS, ROWS[:, :2], r"^features must be .*, not \[10, 3\] and \[10, 2\]$"),
        (ROWS[0], ROWS, r"^features must be .*, not \[3\] and \[10, 3\]$"),
        (ROWS, ROWS / 0, "^features of real images must be finite, not NaN or infinite$"),
        (ROWS * torch.nan, ROWS, "^features of generated images must be finite"),
        (ROWS[:3], ROWS, "^(generated images must be more than the 3 dim.*, not 3: the cov|neigh)"),
        (ROWS, ROWS[:2], "^(real images must be more than the 3 dim.*, not 2: the cov|neigh)"),
    ],
)
def test_features_that_cannot_be_judged(function, generated, real, message):
    with pytest.raises(ConfigError, match=message):
        function(generated, real)


def test_other_things_that_cannot_be_judged():
    with pytest.raises(ConfigError, match=r"^neighbours must be 1 to 9, one less .*, not 10$"):
        precision_and_recall(ROWS, ROWS, neighbours=10)
    for logits, labels in ((ROWS, torch.zeros(9)), (ROWS[:0], torch.zeros(0)), (ROWS[0], ROWS[0])):
        with pytest.raises(ConfigError, match=r"^class agreement must be of \[images, classes\]"):
            class_agreement(logits, labels)
    real = Images(torch.zeros(9, 1, 8, 8, dtype=torch.uint8), torch.zeros(9))
    with pytest.raises(
        ConfigError, match=r"^samples must be \[images, 1, 8, 8\], .*, not \[9, 64\]$"
    ):
        likeness(torch.zeros(9, 64), real, judge.digits())
