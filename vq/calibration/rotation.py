"""Rotate a model's residual stream, so that no channel is larger than the others.

A model of transformers built like Llama computes the same after ``rotate_``: the weights of norms
move into the linears behind them, what is left of a norm commutes with any rotation ``Q``, and all
that writes to the residual stream or reads from it takes ``Q`` or its inverse into its weight.
Besides, the values of every attention head can be rotated between ``v_proj`` and ``o_proj``.
Nothing is left to do at run time, and the model remains one of its class. Rotations at run time,
such as that of the inputs of ``down_proj``, are not made.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from vq.errors import ConfigError, bulleted
from vq.formats.model import is_compressed
from vq.formats.remaining import require_plain

__all__ = ["hadamard", "orthogonal", "rotate_"]

_ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
_MLP = ("gate_proj", "up_proj", "down_proj")
_NORMS = ("input_layernorm", "post_attention_layernorm")


def hadamard(size: int) -> Tensor | None:
    """Matrix of 1 and -1 with orthogonal rows, [size, size] float64.

    A power of two times 1, or times ``p + 1`` or ``2 (p + 1)`` for a prime ``p`` (constructions of
    Sylvester and Paley); None for other sizes.
    """
    if size < 1:
        return None
    found = _core(size)
    if found is None and size % 2 == 0 and (half := hadamard(size // 2)) is not None:
        found = torch.kron(torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64), half)
    return found


def _core(size: int) -> Tensor | None:
    """Hadamard matrix that is not twice a smaller one that :func:`hadamard` makes."""
    if size == 1:
        return torch.ones(1, 1, dtype=torch.float64)
    if size % 4:
        return None
    if _is_prime(size - 1):
        skew = _paley(size - 1, sign=-1)
        return skew + torch.eye(size, dtype=torch.float64)
    half = size // 2
    if half % 4 == 2 and _is_prime(half - 1):
        symmetric = _paley(half - 1, sign=1)
        plus = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
        minus = torch.tensor([[1.0, -1.0], [-1.0, -1.0]], dtype=torch.float64)
        return torch.kron(symmetric, plus) + torch.kron(torch.eye(half).double(), minus)
    return None


def _paley(p: int, *, sign: int) -> Tensor:
    """Matrix [p + 1, p + 1] of 0 on the diagonal and 1 and -1 by quadratic residues elsewhere."""
    squares = torch.zeros(p, dtype=torch.float64)
    squares[[i * i % p for i in range(1, p)]] = 2
    character = squares - 1
    character[0] = 0
    places = torch.arange(p)
    found = torch.zeros(p + 1, p + 1, dtype=torch.float64)
    found[0, 1:], found[1:, 0] = 1, sign
    found[1:, 1:] = character[(places[:, None] - places) % p]
    return found


def _is_prime(n: int) -> bool:
    return n > 1 and all(n % i for i in range(2, math.isqrt(n) + 1))


def orthogonal(size: int, generator: torch.Generator) -> Tensor:
    """Rotation [size, size] float64: a Hadamard matrix with random signs, else a random one."""
    known = hadamard(size)
    if known is not None:
        signs = torch.randint(0, 2, (size,), generator=generator).double() * 2 - 1
        return known * signs / math.sqrt(size)
    # Uniform over all rotations and reflections, once the signs of R are taken out.
    q, r = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))
    turn: Tensor = (q * r.diagonal().sign()).contiguous()
    return turn


@torch.no_grad()
def rotate_(model: nn.Module, *, heads: bool = True, seed: int = 0) -> None:
    """Rotate a model of transformers that is built like Llama, in place.

    An output layer that is tied to the embedding is untied, in the configuration too: only one of
    them takes the weight of the last norm.

    Parameters
    ----------
    model : transformers model for causal language modelling
    heads : bool
        Also rotate the values of every attention head.
    seed : int
        Of the rotations.

    Raises
    ------
    ConfigError
        If the model is built otherwise; it is then unchanged.
    """
    require_plain(model, "rotation")
    parts = _Parts(model)
    generator = torch.Generator().manual_seed(seed)
    q = orthogonal(parts.embedding.weight.shape[1], generator)
    parts.untie()
    _turn(parts.embedding, inputs=q)
    for layer in parts.layers:
        attention, mlp = layer.self_attn, layer.mlp
        readers = [attention.q_proj, attention.k_proj, attention.v_proj]
        for norm, behind in (
            (layer.input_layernorm, readers),
            (layer.post_attention_layernorm, [mlp.gate_proj, mlp.up_proj]),
        ):
            for linear in behind:
                _turn(linear, scale=norm.weight, inputs=q)
            norm.weight.fill_(1)
        for linear in (attention.o_proj, mlp.down_proj):
            _turn(linear, outputs=q)
        if heads:
            turn = orthogonal(attention.head_dim, generator)
            _turn(attention.v_proj, outputs=_along(turn, attention.v_proj.out_features))
            _turn(attention.o_proj, inputs=_along(turn, attention.o_proj.in_features))
    _turn(parts.head, scale=parts.norm.weight, inputs=q)
    parts.norm.weight.fill_(1)


def _turn(
    module: Any,
    *,
    scale: Tensor | None = None,
    inputs: Tensor | None = None,
    outputs: Tensor | None = None,
) -> None:
    """Let a linear [O, I] take ``x @ inputs`` in place of ``x * scale``, give ``y @ outputs``."""
    weight = module.weight.data
    w = weight.double()
    if scale is not None:
        w = w * scale.double()
    if inputs is not None:
        w = w @ inputs.to(w.device)
    if outputs is not None:
        turn = outputs.to(w.device)
        w = turn.T @ w
        if getattr(module, "bias", None) is not None:
            module.bias.data = (module.bias.double() @ turn).to(module.bias.dtype)
    module.weight.data = w.to(weight.dtype)


def _along(turn: Tensor, size: int) -> Tensor:
    """The same rotation for every head, [size, size]."""
    return torch.kron(torch.eye(size // len(turn), dtype=turn.dtype), turn)


class _Parts:
    """Parts of a model, each where Llama has it."""

    def __init__(self, model: Any) -> None:
        self._model = model
        body = getattr(model, "model", None)
        problems = [] if isinstance(body, nn.Module) else ["it must hold its layers in 'model'"]
        problems += list(_problems(model, body)) if not problems else []
        if problems:
            kind = type(model).__name__
            raise ConfigError(bulleted(f"model {kind} is not built like Llama and", problems))
        assert body is not None
        self.embedding, self.layers, self.norm = body.embed_tokens, body.layers, body.norm
        self.head = model.lm_head

    def untie(self) -> None:
        """Give the output layer a weight of its own."""
        if self.head.weight is self.embedding.weight:
            self.head.weight = nn.Parameter(self.embedding.weight.detach().clone())
            self._model.config.tie_word_embeddings = False


def _problems(model: Any, body: Any) -> Iterator[str]:
    """What keeps a model from being rotated."""
    if any(map(is_compressed, model.modules())):
        yield "its layers must not be compressed yet; rotate first"
    if not isinstance(getattr(body, "embed_tokens", None), nn.Embedding):
        yield "model.embed_tokens must be an embedding"
    if not isinstance(getattr(model, "lm_head", None), nn.Linear):
        yield "lm_head must be a linear layer"
    if not _is_rms_norm(getattr(body, "norm", None)):
        yield "model.norm must be an RMS norm with a plain weight"
    layers = getattr(body, "layers", None)
    if not isinstance(layers, nn.ModuleList):
        yield "model.layers must be a list of blocks"
        return
    for i, layer in enumerate(layers):
        for name in _NORMS:
            if not _is_rms_norm(getattr(layer, name, None)):
                yield f"model.layers.{i}.{name} must be an RMS norm with a plain weight"
        others = {name for name, _ in layer.named_children()} - {*_NORMS, "self_attn", "mlp"}
        if others:
            yield f"model.layers.{i} must not hold {', '.join(sorted(others))}"
        for part, names in (("self_attn", _ATTENTION), ("mlp", _MLP)):
            module = getattr(layer, part, None)
            for name in names:
                if not isinstance(getattr(module, name, None), nn.Linear):
                    yield f"model.layers.{i}.{part}.{name} must be a linear layer"
        if not isinstance(getattr(getattr(layer, "self_attn", None), "head_dim", None), int):
            yield f"model.layers.{i}.self_attn must say its head_dim"


def _is_rms_norm(norm: Any) -> bool:
    """Whether a norm divides by the root mean square and multiplies by its weight, no more."""
    weight = getattr(norm, "weight", None)
    if (
        not isinstance(weight, Tensor)
        or weight.ndim != 1
        or getattr(norm, "bias", None) is not None
    ):
        return False
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, len(weight), generator=generator).to(weight) + 1
    want = x.float() * x.float().square().mean(-1, keepdim=True).rsqrt() * weight.float()
    return bool(torch.allclose(norm(x).float(), want, rtol=2e-2, atol=1e-3))
