"""LWC learns clipping and nothing else."""

import torch

import vq
from tests.rescomp.models import chain, vectors
from vq.formats.grids import range_grid
from vq.formats.model import compressed_layers
from vq.methods.lwc import lwc_
from vq.perturbation.composition import Clip


def test_only_ranges_move():
    model, original = chain().eval(), chain().eval()
    recipe = vq.Recipe({"*": vq.Int2(group=8, zeros=True)})
    result = lwc_(model, vectors(4, rows=32), recipe, clip=Clip(0.2), epochs=3, held_out=0)
    assert [layer.moved for layer in result.layers] == [0, 0, 0]
    assert [layer.trained for layer in result.layers] == [2 * 16 * 2, 2 * 16 * 2, 2 * 4 * 2]
    assert any(one.after < one.before for one in result.blocks)
    first = next(compressed_layers(model))
    wide = range_grid(original[0].weight.detach(), first.weight.geometry)
    assert bool((first.weight.scale <= wide.scale).all())
    assert not torch.equal(first.weight.scale, wide.scale)
