"""Models with everything that can remain at run time."""

import torch

import vq
from tests.rescomp.models import llama
from vq.activations.prefix import prefixes
from vq.activations.rounding import Rounding
from vq.activations.runtime import attach
from vq.activations.transform import Transform
from vq.calibration.rotation import orthogonal

#: Readers of one tensor in the first block of :func:`small`.
READERS = ["model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.k_proj"]
RECIPE = vq.Recipe({"*_proj": vq.Int4(group=8)})


def small():
    """Llama of two blocks."""
    return llama(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, initializer_range=0.2,
    )  # fmt: skip


def transform(inputs, block, *, dtype=torch.float32, seed=0):
    """With all of its parts, drawn."""
    draw = torch.Generator().manual_seed(seed)
    blocks = torch.stack([orthogonal(block, draw) for _ in range(inputs // block)])
    return Transform(
        blocks.to(dtype),
        (torch.rand(inputs, generator=draw) + 0.5).to(dtype),
        torch.randperm(inputs, generator=draw).int(),
        orthogonal(block, draw)[None].to(dtype),
    )


@torch.no_grad()
def attach_carried(model, part, layers):
    """Put a transform before linears whose weights it goes into."""
    for name in layers:
        module = model.get_submodule(name)
        module.weight.data = part.carried(module.weight).to(module.weight.dtype)
    attach(model, part, layers)


def remaining_model():
    """Compressed, with a transform, both roundings and a prefix."""
    model = small()
    for name, one in prefixes(model, torch.tensor([7, 1])).items():
        one.enter(model.get_submodule(name))
    attach_carried(model, transform(32, 8), READERS)
    attach(model, Rounding(4, clip=0.9), READERS)
    static = Rounding(8, scale=torch.tensor([0.02]))
    attach(model, static, ["model.layers.1.mlp.down_proj"])
    vq.compress_(model, RECIPE)
    return model
