"""Small transformers, compressed and with their integer graphs."""

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import vq
from signbook.zoo.digits import DigitsViT
from signbook.zoo.llama import Llama, LlamaConfig
from vq import SSVQ, Int4, Int8, Recipe
from vq.container import open_container
from vq.integer.tokens import TokenModel, store_tokens
from vq.integer.tokens.build import integerize_tokens

WORDS = 30
CONTEXT = 12


def texts(rows: int = 4, count: int = CONTEXT, seed: int = 0) -> Tensor:
    return torch.randint(0, WORDS, (rows, count), generator=torch.Generator().manual_seed(seed))


def llama() -> nn.Module:
    """Grouped queries, turned pairs side by side, a table that is the output layer, too."""
    torch.manual_seed(0)
    model = Llama(LlamaConfig(16, 24, 2, 4, 2, WORDS, CONTEXT))
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.3)
    return model.eval()


def vision() -> nn.Module:
    """Convolutions, a class token, positions, one matrix for queries, keys and values."""
    torch.manual_seed(0)
    return DigitsViT(dim=8, depth=1, heads=2, classes=5).eval()


class Encoder(nn.Module):
    """Norms behind sums, a gain, halves that turn together, padding, means, unit vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, 8)
        self.places = nn.Embedding(CONTEXT, 8)
        self.norm = nn.LayerNorm(8)
        self.q, self.k, self.v, self.o = (nn.Linear(8, 8) for _ in range(4))
        self.up, self.down = nn.Linear(8, 12), nn.Linear(12, 8)
        self.last = nn.LayerNorm(8)
        self.gain = nn.Parameter(torch.linspace(-0.5, 1.5, 8))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        count = input_ids.shape[1]
        x = self.norm(self.words(input_ids) + self.places(torch.arange(count))[None])
        q, k, v = (one(x).unflatten(-1, (2, 4)).transpose(1, 2) for one in (self.q, self.k, self.v))
        angle = torch.arange(count)[:, None] * torch.tensor([1.0, 0.1]).repeat(2)

        def turned(x: Tensor) -> Tensor:
            other = torch.cat([-x[..., 2:], x[..., :2]], -1)
            return x * angle.cos() + other * angle.sin()

        mask = attention_mask[:, None, None].bool()
        y = F.scaled_dot_product_attention(turned(q), turned(k), v, attn_mask=mask)
        x = x + self.o(y.transpose(1, 2).flatten(2)) * self.gain
        x = self.last(x + self.down(torch.tanh(self.up(x))))
        weights = attention_mask[..., None].float()
        return F.normalize((x * weights).sum(1) / weights.sum(1), dim=-1)


def encoder() -> nn.Module:
    torch.manual_seed(0)
    return Encoder().eval()


def padded() -> dict[str, Tensor]:
    mask = torch.ones(4, CONTEXT, dtype=torch.long)
    mask[1, 5:] = mask[3, 9:] = 0
    return {"input_ids": texts(), "attention_mask": mask}


MODELS = {"llama": llama, "vision": vision, "encoder": encoder}
_RECIPES = {
    "llama": {"*.wq": Int4(group=8), "*.w1": SSVQ(d=4, k=8), "blocks.*": Int8(), "*": None},
    "vision": {"*": Int8()},
    "encoder": {"words": Int8(), "places": None, "*": Int8()},
}


def data(name: str) -> Any:
    if name == "vision":
        return torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    return padded() if name == "encoder" else texts()


def stored(name: str, folder: Path, **settings: Any) -> tuple[Path, nn.Module, TokenModel]:
    """A file with a graph, the model whose weights it has, and the graph."""
    model = MODELS[name]()
    if name == "encoder":
        settings = {"context": CONTEXT, **settings}
    plain, path = folder / "plain.vq.safetensors", folder / f"{name}.vq.safetensors"
    compressed = copy.deepcopy(model)
    vq.compress_(compressed, Recipe(_RECIPES[name]), progress=False)
    vq.save(compressed, plain, progress=False)
    dense = vq.load(plain, into=model, progress=False).eval()
    with open_container(plain) as file:
        graph = integerize_tokens(dense, file, [data(name)], progress=False, **settings)
        store_tokens(file, graph, path)
    return path, dense, graph
