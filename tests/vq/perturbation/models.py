"""Models whose blocks have norms and attention of all kinds, and what is found in them."""

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

import vq
from signbook.zoo.llama import Llama, LlamaConfig
from vq.calibration.stages import stages_of
from vq.calibration.streams import Runner, Stream
from vq.calibration.survey import survey, without_cache
from vq.calibration.weights import Weights
from vq.perturbation.finding import Finder
from vq.recipe.selection import select


def grouped():
    """Decoder with RMS norms, grouped heads and rotary embeddings of adjacent pairs."""
    torch.manual_seed(0)
    model = Llama(LlamaConfig(32, 48, 2, 4, 2, 40, 16)).eval()
    return _lively(model)


class Attention(nn.Module):
    """All three projections in one linear, with biases."""

    def __init__(self):
        super().__init__()
        self.qkv, self.proj = nn.Linear(32, 96), nn.Linear(32, 32)

    def forward(self, x):
        q, k, v = self.qkv(x).reshape(*x.shape[:2], 3, 4, 8).permute(2, 0, 3, 1, 4)
        return self.proj(scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Before(nn.Module):
    """Block with norms, with biases, before what reads them."""

    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(32), nn.LayerNorm(32)
        self.attn = Attention()
        self.fc1, self.fc2 = nn.Linear(32, 48), nn.Linear(48, 32)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.fc2(torch.nn.functional.gelu(self.fc1(self.norm2(x))))


class Behind(Before):
    """The same with norms behind each sum, which the next sum reads, too."""

    def forward(self, x):
        x = self.norm1(x + self.attn(x))
        return self.norm2(x + self.fc2(torch.nn.functional.gelu(self.fc1(x))))


def before():
    torch.manual_seed(0)
    return _lively(nn.Sequential(Before(), Before()).eval())


def behind():
    torch.manual_seed(0)
    return _lively(nn.Sequential(Behind(), Behind()).eval())


class Ended(nn.Module):
    """Layers before the first block and behind the last."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Linear(32, 32), nn.Linear(32, 8)
        self.blocks = nn.ModuleList(before())

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


@torch.no_grad()
def _lively(model):
    """Gains and biases that are not all alike, channels of unlike sizes."""
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter += 0.3 * torch.randn_like(parameter)
        else:
            parameter.copy_(torch.randn_like(parameter) / parameter.shape[1] ** 0.5)
    return model


def rows(count=4, seed=1):
    """Hidden states with a few large channels, [2, 12, 32] each."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.ones(32).index_fill(0, torch.tensor([3, 17]), 8.0)
    return [torch.randn(2, 12, 32, generator=generator) * sizes for _ in range(count)]


def tokens(count=4, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(40, (2, 12), generator=generator) for _ in range(count)]


LINEARS = vq.Recipe({"*": vq.Int4(group=16)})

BLOCKS = vq.Recipe({"blocks.*": vq.Int4(group=16)})


@torch.no_grad()
def pairs_of(model, data, recipe):
    """(stage, its pairs, its results, its weights, the finder), for every block."""
    selection = select(model, recipe)
    seen = survey(model, data, [layer.name for layer in selection.layers])
    stream = Stream(Runner(model, data, seen.chain, offload=False))
    finder = Finder(stream, {layer.name: layer for layer in selection.layers})
    for stage in stages_of([layer.name for layer in selection.layers], seen):
        weights = Weights([x for x in selection.layers if x.name in stage.layers])
        if stage.layers:
            with without_cache(model):
                found = finder.find(stage, weights)
            yield stage, *found, weights, finder
        if seen.chain is not None:
            with without_cache(model):
                stream.advance(stage)
