"""Codewords of layers with signs stay magnitudes."""

from tests.vq.learning.models import trained
from vq.formats.model import compressed_layers
from vq.learning.rates import Rates


def test_codewords_that_would_turn_negative_stop_at_zero():
    _, model, _ = trained(rates=Rates(codebooks=0.3))
    codebooks = [layer.codebook for layer in compressed_layers(model)]
    assert all(codebook.min() >= 0 for codebook in codebooks)
    assert any((codebook == 0).any() for codebook in codebooks)
