"""Rows of batches, shared out: together they are the batch, and what is drawn is drawn alike."""

import copy
import warnings

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from vq.calibration import sharing
from vq.calibration.sharing import Share
from vq.errors import ConfigError
from vq.learning.randomness import generators_of


@pytest.fixture
def as_rank(monkeypatch):
    """Be one of several processes, whose first batches are ``others``."""

    def become(rank, ranks, others=None):
        monkeypatch.setattr(sharing, "rank", lambda: rank)
        monkeypatch.setattr(sharing, "ranks", lambda: ranks)
        monkeypatch.setattr(sharing, "gather", lambda item: [item] + (others or []))

    return become


def rows(count, *shape):
    return torch.arange(count * max(1, torch.Size(shape).numel())).reshape(count, *shape)


def test_one_process_has_the_batches_themselves():
    batches = [(rows(3, 2), rows(3))]
    share = Share(batches)
    assert next(iter(share)) is batches[0] and len(share) == 1


def test_shares_are_the_rows_of_the_batch_whatever_holds_them(as_rank):
    batch = ({"ids": rows(6, 2), "more": (rows(6), [rows(6, 1)])}, rows(6))
    parts = []
    for rank in range(3):
        as_rank(rank, 3)
        (part,) = Share([batch])
        assert part[0]["ids"].tolist() == batch[0]["ids"][rank::3].tolist()
        assert part[0]["more"][1][0].shape == (2, 1)
        parts.append(part[1])
    assert sorted(torch.cat(parts).tolist()) == list(range(6))


def test_rows_that_cannot_be_shared_alike_are_left_out_with_one_warning(as_rank):
    batches = [(rows(5, 2), rows(5))] * 2
    for rank, want in ((0, [0, 2]), (1, [1, 3])):
        as_rank(rank, 2)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert [y.tolist() for _, y in Share(batches)] == [want, want]
        (warning,) = caught
        assert str(warning.message).startswith("training batch 1 has 5 rows: 1 of them left out")


@pytest.mark.parametrize(
    "batch",
    [(rows(1, 2), rows(1)), (rows(4, 2), rows(2)), (rows(4, 2), torch.tensor(1)), "text"],
    ids=["one row", "other rows", "no rows", "no tensor"],
)
def test_batches_that_cannot_be_shared_are_named(as_rank, batch):
    as_rank(0, 2)
    share = iter(Share([(rows(4, 2), rows(4)), batch], "training"))
    next(share)
    message = r"^training batch 2 must have as many rows in every tensor, and one at least for each"
    with pytest.raises(ConfigError, match=message):
        next(share)


def test_other_batches_on_another_process_are_refused(as_rank):
    batches = [(rows(4, 2), rows(4))]
    as_rank(0, 2, others=["another"])
    message = r"^training batch 1 must be the same on all 2 processes, .* say shared=True"
    with pytest.raises(ConfigError, match=message):
        next(iter(Share(batches)))


def test_loaders_draw_alike_and_leave_the_global_state(as_rank):
    def loader():
        return DataLoader(TensorDataset(rows(8)), batch_size=4, shuffle=True)

    orders = []
    for rank in range(2):
        as_rank(rank, 2)
        torch.manual_seed(rank)  # dropout differs between processes
        share, before = Share(loader(), seed=7), torch.get_rng_state()
        orders.append([torch.cat([x for (x,) in share]) for _ in range(2)])
        assert torch.equal(torch.get_rng_state(), before)
    for own, other in zip(*orders, strict=True):
        assert sorted(torch.cat([own, other]).tolist()) == list(range(8))
    assert not torch.equal(orders[0][0], orders[0][1])  # the second pass has another order


def test_training_finds_samplers_and_generators_behind_it():
    generator = torch.Generator()
    loader = DataLoader(TensorDataset(rows(8)), batch_size=4, shuffle=True, generator=generator)
    share = Share(loader)
    assert share.sampler is loader.sampler and len(copy.copy(share)) == 2
    assert set(generators_of(share)) == {share.generator, generator}
