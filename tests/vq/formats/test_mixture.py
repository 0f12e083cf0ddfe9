"""Sub-vectors that have not decided: their values, gradients, and that nothing stores them."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

import vq
from vq.errors import ConfigError
from vq.formats.mixture import Mixture
from vq.formats.model import compressed_layers
from vq.formats.weights import FROZEN


def compressed(kind, shape=(12, 16)):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(shape[1], shape[0]))
    vq.compress_(model, vq.Recipe({"0": kind}))
    return model, next(compressed_layers(model))


def mixture(layer, rows, n=3):
    generator = torch.Generator().manual_seed(1)
    shape = (len(rows), n)
    candidates = torch.stack(
        [torch.randperm(layer.weight.geometry.k, generator=generator)[:n] for _ in rows]
    )
    logits = torch.randn(shape, generator=generator)
    return Mixture(torch.tensor(rows), candidates.to(torch.int32), logits)


KINDS = [
    vq.VQ(d=4, k=8),
    vq.VQ(d=4, k=8, scale="output"),
    vq.SSVQ(d=4, k=8),
    vq.SSVQ(d=5, k=8, parity=True),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("some", [True, False])
def test_values_and_gradients_are_those_of_the_sum(kind, some):
    model, layer = compressed(kind)
    weight = layer.weight
    rows = [0, 3, 4, 7] if some else list(range(len(weight.indices)))
    if layer.latent is not None:
        with torch.no_grad():
            layer.latent[0, 1] = FROZEN
    mixed = mixture(layer, rows)
    weight.mixture = mixed
    g = torch.randn_like(model[0].weight)
    (model[0].weight * g).sum().backward()
    trained = [mixed.logits, *layer.originals]
    found = [tensor.grad.clone() for tensor in trained]

    # The same by one-hot rows over all codewords, through torch's own operations.
    for tensor in trained:
        tensor.grad = None
    hot = nn.functional.one_hot(weight.indices.long(), weight.geometry.k).float()
    ratios = torch.zeros(len(rows), weight.geometry.k)
    ratios = ratios.scatter(1, mixed.candidates.long(), mixed.logits.softmax(1))
    hot = hot.index_copy(0, mixed.rows, ratios)
    weight.mixture = None
    weight._values = lambda book, signs: _signed(hot @ book, signs)
    wanted = model[0].weight
    (wanted * g).sum().backward()
    for mine, tensor in zip(found, trained, strict=True):
        torch.testing.assert_close(mine, tensor.grad)
    del weight._values
    weight.mixture = mixed
    torch.testing.assert_close(model[0].weight, wanted)


def _signed(values, latent):
    """The straight-through estimator, written down once more."""
    if latent is None:
        return values
    sign = torch.copysign(torch.ones(()), latent.detach())
    through = torch.where(latent.detach().abs() < FROZEN, latent, latent.detach())
    return values * sign + values.detach() * (through - through.detach())


def test_one_candidate_is_its_codeword_to_the_bit():
    model, layer = compressed(vq.SSVQ(d=4, k=8))
    hard = model[0].weight.detach().clone()
    rows = torch.arange(len(layer.weight.indices))
    layer.weight.mixture = Mixture(
        rows, layer.weight.indices[:, None].clone(), torch.zeros(len(rows), 1)
    )
    assert torch.equal(model[0].weight, hard)


def test_what_is_undecided_is_not_stored(tmp_path):
    model, layer = compressed(vq.VQ(d=4, k=8))
    layer.weight.mixture = mixture(layer, [0, 5])
    with pytest.raises(ConfigError, match=r"layer '0': all of its sub-vectors .* not 46 of 48"):
        vq.save(model, tmp_path / "m.vq.safetensors")
    assert not list(tmp_path.iterdir())
    layer.weight.mixture = None
    vq.save(model, tmp_path / "m.vq.safetensors")
    assert parametrize.is_parametrized(model[0])
