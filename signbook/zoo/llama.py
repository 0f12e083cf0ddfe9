"""A small Llama (grouped-query attention, rotary positions, gated MLP) and its 260K checkpoint."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention, silu

from signbook.zoo.checkpoints import load_weights, read_state
from vq.errors import ConfigError

__all__ = ["Cache", "Llama", "LlamaConfig", "generate", "load_stories260k", "stories260k"]

_HEADER_INTS = 7
_ROPE_THETA = 10_000.0


@dataclass(frozen=True)
class LlamaConfig:
    """Sizes of a model; the defaults are those of stories260K.

    Attributes
    ----------
    dim, hidden : int
        Width of the residual stream and of the MLP.
    layers, heads, kv_heads : int
        Blocks, query heads, and heads of keys and values; ``kv_heads`` divides ``heads``.
    vocabulary, context : int
        Tokens known, and the longest sequence.
    bos_token_id : int
        Token that begins a text.
    """

    dim: int = 64
    hidden: int = 172
    layers: int = 5
    heads: int = 8
    kv_heads: int = 4
    vocabulary: int = 512
    context: int = 512
    bos_token_id: int = 1


class Cache:
    """Keys and values of the tokens that a model has read, for those that follow."""

    def __init__(self) -> None:
        self._held: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    @property
    def count(self) -> int:
        """Tokens read."""
        return next((k.shape[2] for k, _ in self._held.values()), 0)

    def extend(self, layer: nn.Module, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Add a layer's keys and values, both [B, heads, T, size]; all that there are of it."""
        if layer in self._held:
            before = self._held[layer]
            k, v = torch.cat([before[0], k], dim=2), torch.cat([before[1], v], dim=2)
        self._held[layer] = k, v
        return k, v


class _RMSNorm(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5) * self.weight


class _Attention(nn.Module):
    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.size = config.dim // config.heads
        self.repeats = config.heads // config.kv_heads
        self.wq = nn.Linear(config.dim, config.heads * self.size, bias=False)
        self.wk = nn.Linear(config.dim, config.kv_heads * self.size, bias=False)
        self.wv = nn.Linear(config.dim, config.kv_heads * self.size, bias=False)
        self.wo = nn.Linear(config.heads * self.size, config.dim, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, cache: Cache | None = None) -> Tensor:
        count, tokens, _ = x.shape
        q, k, v = (
            projected.view(count, tokens, -1, self.size).transpose(1, 2)  # [B, heads, T, size]
            for projected in (self.wq(x), self.wk(x), self.wv(x))
        )
        q, k = _rotate(q, cos, sin), _rotate(k, cos, sin)
        seen = None
        if cache is not None:
            k, v = cache.extend(self, k, v)
            seen = torch.ones(tokens, k.shape[2], dtype=torch.bool, device=x.device)
            seen = seen.tril(k.shape[2] - tokens)
        k, v = (part.repeat_interleave(self.repeats, dim=1) for part in (k, v))
        mixed = scaled_dot_product_attention(q, k, v, seen, is_causal=seen is None)
        out: Tensor = self.wo(mixed.transpose(1, 2).reshape(count, tokens, -1))
        return out


class _MLP(nn.Module):
    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.w1 = nn.Linear(config.dim, config.hidden, bias=False)
        self.w3 = nn.Linear(config.dim, config.hidden, bias=False)
        self.w2 = nn.Linear(config.hidden, config.dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.w2(silu(self.w1(x)) * self.w3(x))
        return out


class _Block(nn.Module):
    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.attn_norm = _RMSNorm(config.dim)
        self.attn = _Attention(config)
        self.ffn_norm = _RMSNorm(config.dim)
        self.ffn = _MLP(config)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, cache: Cache | None = None) -> Tensor:
        x = x + self.attn(self.attn_norm(x), cos, sin, cache)
        out: Tensor = x + self.ffn(self.ffn_norm(x))
        return out


class Llama(nn.Module):
    """Causal language model: tokens [B, T] give logits [B, T, vocabulary].

    Positions count from 0; ``position_ids`` [1, T], if given, may be others, below 0 among them.
    With a cache of :meth:`new_cache`, tokens follow those that it was given before.
    The embedding is also the output layer; it is stored once, as ``embed.weight``.

    Raises
    ------
    ConfigError
        By ``forward``, if there are more tokens than the context has places.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.vocabulary, config.dim)
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.layers))
        self.norm = _RMSNorm(config.dim)
        cos, sin = _rotations(config)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.02)

    def new_cache(self) -> Cache:
        """Nothing read yet."""
        return Cache()

    def forward(
        self, tokens: Tensor, position_ids: Tensor | None = None, cache: Cache | None = None
    ) -> Tensor:
        first = 0 if cache is None else cache.count
        count = first + tokens.shape[1]
        if count > self.config.context:
            raise ConfigError(f"tokens must be at most {self.config.context}, not {count}")
        x = self.embed(tokens)
        cos, sin = self.cos[first:count], self.sin[first:count]
        if position_ids is not None:
            far = position_ids[:, None].abs()  # for all heads
            cos, sin = self.cos[far], self.sin[far] * position_ids[:, None, :, None].sign()
        for block in self.blocks:
            x = block(x, cos, sin, cache)
        return linear(self.norm(x), self.embed.weight)

    def state_from(self, path: Path) -> dict[str, Tensor]:
        """Read a llama2.c ``*.bin`` file, or a torch file with this model's own names."""
        return _read_llama2c(path, self.config) if path.suffix == ".bin" else read_state(path)


def _rotations(config: LlamaConfig) -> tuple[Tensor, Tensor]:
    """Cosine and sine of every position and pair of head dimensions, both [context, size / 2]."""
    size = config.dim // config.heads
    speeds = _ROPE_THETA ** -(torch.arange(0, size, 2, dtype=torch.float64) / size)
    angles = torch.arange(config.context, dtype=torch.float64)[:, None] * speeds
    return angles.cos().float(), angles.sin().float()


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn adjacent pairs of the head dimensions of [B, heads, T, size] by their position."""
    even, odd = x[..., ::2], x[..., 1::2]
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2)


def _read_llama2c(path: Path, config: LlamaConfig) -> dict[str, Tensor]:
    """Read a version-0 file: seven int32, then float32 tensors, equal kinds of all layers together.

    Raises
    ------
    ConfigError
        If its sizes are not those of ``config``, or its length or contents contradict them.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: must be a readable file, but {error.strerror}") from error
    header = np.frombuffer(raw[: 4 * _HEADER_INTS], "<i4")
    c = config
    sizes = (c.dim, c.hidden, c.layers, c.heads, c.kv_heads, c.vocabulary, c.context)
    if tuple(header.tolist()) != sizes:
        raise ConfigError(f"{path}: sizes must be {sizes}, not {tuple(header.tolist())}")
    head = c.dim // c.heads
    shapes = {
        "embed": (c.vocabulary, c.dim),
        "attn_norm": (c.layers, c.dim),
        "attn.wq": (c.layers, c.dim, c.dim),
        "attn.wk": (c.layers, c.kv_heads * head, c.dim),
        "attn.wv": (c.layers, c.kv_heads * head, c.dim),
        "attn.wo": (c.layers, c.dim, c.dim),
        "ffn_norm": (c.layers, c.dim),
        "ffn.w1": (c.layers, c.hidden, c.dim),
        "ffn.w2": (c.layers, c.dim, c.hidden),
        "ffn.w3": (c.layers, c.hidden, c.dim),
        "norm": (c.dim,),
        "cos": (c.context, head // 2),
        "sin": (c.context, head // 2),
    }
    expected = 4 * (_HEADER_INTS + sum(math.prod(shape) for shape in shapes.values()))
    if len(raw) != expected:
        raise ConfigError(f"{path}: must be {expected} bytes long, not {len(raw)}")
    state, position = {}, 4 * _HEADER_INTS
    for name, shape in shapes.items():
        count = math.prod(shape)
        values = np.frombuffer(raw, "<f4", count, position).reshape(shape).astype(np.float32)
        position += 4 * count
        if name in ("cos", "sin"):
            _check_rotations(path, torch.from_numpy(values), name, config)
        elif name in ("embed", "norm"):
            state[f"{name}.weight"] = torch.from_numpy(values)
        else:
            for i, layer in enumerate(values):
                state[f"blocks.{i}.{name}.weight"] = torch.from_numpy(layer.copy())
    return state


def _check_rotations(path: Path, table: Tensor, name: str, config: LlamaConfig) -> None:
    ours = _rotations(config)[name == "sin"]
    if not torch.allclose(table, ours, atol=1e-4):
        raise ConfigError(f"{path}: table {name!r} must hold rotations with theta {_ROPE_THETA:g}")


def stories260k() -> Llama:
    """Build the 260K model with fresh weights."""
    return Llama(LlamaConfig())


def load_stories260k(path: str | Path) -> Llama:
    """Load ``stories260K.bin``: 1.237 nats per token on 120 stories of TinyStories."""
    return load_weights(stories260k(), path)


@torch.no_grad()
def generate(model: Llama, tokens: list[int], count: int) -> list[int]:
    """Continue ``tokens`` by up to ``count`` of the most probable ones; stop at a new text.

    Reads the whole text again for each token: meant for checks, not for use.
    """
    sequence = list(tokens)
    for _ in range(count):
        chosen = int(model(torch.tensor([sequence]))[0, -1].argmax())
        if chosen in (1, 2):  # beginning or end of a text
            break
        sequence.append(chosen)
    return sequence
