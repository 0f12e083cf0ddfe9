"""Peaks are those of all tokens that count, of layers by the tensor that they read."""

import torch

import vq
from tests.processes import two_processes
from tests.rescomp.models import bert, chain, inputs, llama, masked, tokens, vectors
from vq.calibration.peaks import Peaks, peaks_of, readers_of
from vq.recipe.selection import select

RECIPE = vq.Recipe({"*_proj": vq.Int4(group=8)})


def test_tokens_with_the_largest_magnitudes_are_kept():
    torch.manual_seed(0)
    rows = torch.randn(20, 6)
    found = Peaks(torch.zeros(6), torch.zeros(0, 6))
    for part in rows.split(7):
        found.add(part, 5)
    found.add(rows[:0], 5)
    assert torch.equal(found.largest, rows.abs().amax(0))
    order = rows.abs().amax(1).argsort(descending=True)
    assert torch.equal(found.rows, rows[order[:5]])


@torch.no_grad()
def test_readers_of_one_tensor_are_together():
    model, data = llama(), tokens()
    groups = readers_of(model, data, select(model, RECIPE).layers)
    names = [[layer.name.rpartition(".")[2] for layer in group.layers] for group in groups]
    block = [["q_proj", "k_proj", "v_proj"], ["o_proj"], ["gate_proj", "up_proj"], ["down_proj"]]
    assert names == 3 * block
    peaks = peaks_of(model, data, groups, 4)
    for group, own in zip(groups, peaks, strict=True):
        rows = torch.cat([inputs(model, group.layers[0].name, x)[0] for x in data])
        assert torch.equal(own.largest, rows.abs().amax(0)) and len(own.rows) == 4
        assert float(own.rows.abs().max()) == float(rows.abs().max())


@torch.no_grad()
def test_tokens_that_do_not_count_are_left_out():
    model, data = bert(), masked(2)
    layers = select(model, vq.Recipe({"*.query": vq.Int8(), "*.key": vq.Int8()})).layers
    groups = readers_of(model, data, layers)
    assert [len(group.layers) for group in groups] == [2, 2]
    (own, _) = peaks_of(model, data, groups, 1000)
    assert len(own.rows) == sum(int(x["attention_mask"].sum()) for x in data)


@torch.no_grad()
def second(data):
    """Peaks of what the second layer of a chain reads."""
    model = chain()
    groups = readers_of(model, data, select(model, vq.Recipe({"*": vq.Int8()})).layers)
    return peaks_of(model, data, groups[1:2], 8)[0]


def worker(rank, folder):
    torch.save(vars(second(vectors()[rank::2])), folder / f"{rank}.pt")


def test_processes_see_the_same(tmp_path):
    folder = two_processes(worker, tmp_path)
    ours, theirs = (torch.load(folder / f"{rank}.pt") for rank in (0, 1))
    alone = second(vectors())
    assert torch.equal(ours["largest"], theirs["largest"]) and torch.equal(
        ours["rows"], theirs["rows"]
    )
    torch.testing.assert_close(ours["largest"], alone.largest)
    torch.testing.assert_close(ours["rows"], alone.rows)
