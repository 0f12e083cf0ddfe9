"""Random states: a seed decides them, and afterwards they are as before."""

import torch

import vq
from tests.vq.learning.models import plain
from tests.vq.models import batches


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
