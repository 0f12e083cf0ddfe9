"""Llama: causal, rotary, bounded."""

import pytest
import torch

from signbook.zoo.llama import Llama, LlamaConfig, stories260k
from vq.errors import ConfigError


def test_llama_looks_only_back():
    model = stories260k().eval()
    tokens = torch.randint(3, 512, (1, 12))
    changed = tokens.clone()
    changed[0, 8] = (changed[0, 8] + 1) % 512
    with torch.no_grad():
        before, after = model(tokens), model(changed)
    assert torch.equal(before[:, :8], after[:, :8])
    assert not torch.allclose(before[:, 8:], after[:, 8:])


def test_llama_depends_on_distance_not_on_place():
    """Rotary positions: attention of one head, moved by five places, is the same."""
    from signbook.zoo.llama import _rotate, _rotations

    cos, sin = _rotations(LlamaConfig())
    q, k = torch.randn(2, 1, 1, 1, 8)
    scores = [
        (_rotate(q, cos[i : i + 1], sin[i : i + 1]) * _rotate(k, cos[j : j + 1], sin[j : j + 1]))
        .sum()
        .item()
        for i, j in ((7, 3), (12, 8))
    ]
    assert scores[0] == pytest.approx(scores[1], abs=1e-5)


def test_llama_refuses_more_than_its_context():
    model = Llama(LlamaConfig(layers=1, context=8))
    with pytest.raises(ConfigError, match="tokens must be at most 8, not 9"):
        model(torch.zeros(1, 9, dtype=torch.int64))


def test_llama_reads_on_from_a_cache():
    torch.manual_seed(0)
    model = Llama(LlamaConfig(layers=2, context=12)).eval()
    tokens = torch.randint(3, 512, (2, 12))
    cache = model.new_cache()
    with torch.no_grad():
        parts = [model(tokens[:, a:b], cache=cache) for a, b in ((0, 5), (5, 6), (6, 9), (9, 12))]
        assert torch.allclose(torch.cat(parts, dim=1), model(tokens), atol=1e-5)
    assert cache.count == 12
    with pytest.raises(ConfigError, match="tokens must be at most 12, not 13"):
        model(tokens[:, :1], cache=cache)
