"""Transformers from their published configurations: shapes alone, no trained weights."""

from dataclasses import dataclass

from hwsim.workloads.layer import WorkloadLayer
from hwsim.workloads.network import Workload

__all__ = ["deit", "llama_2_7b", "minilm_l6", "smollm2_135m"]

_EMBEDDING = "model.embed_tokens"

#: Width and heads of each size: Touvron et al. 2020, arXiv 2012.12877, table 1.
_DEIT = {"tiny": (192, 3), "small": (384, 6), "base": (768, 12)}


def deit(size: str) -> Workload:
    """DeiT for images of 224 pixels in patches of 16: 12 blocks, 196 patches and a class token.

    Names are those of timm. The attention of a block is one matmul for the scores and one for the
    values, each of as many products as there are heads.
    """
    d, heads = _DEIT[size]
    tokens, head = 197, d // heads
    b = "blocks.{}"

    def linear(name: str, inputs: int, outputs: int, source: str) -> WorkloadLayer:
        return WorkloadLayer(
            f"{b}.{name}", "linear", inputs, outputs, rows=tokens, count=12, kept=outputs,
            sources=(f"{b}.{source}",),
        )  # fmt: skip

    def norm(name: str) -> WorkloadLayer:
        return WorkloadLayer(f"{b}.{name}", "norm", d, d, rows=tokens, count=12, kept=2 * d)

    def residual(name: str, source: str) -> WorkloadLayer:
        return WorkloadLayer(
            f"{b}.{name}", "add", d, d, rows=tokens, count=12, sources=(f"{b}.{source}",)
        )

    layers = [
        WorkloadLayer(
            "patch_embed.proj", "conv2d", 3, d, height=224, width=224, kernel=(16, 16),
            stride=(16, 16), kept=d,
        ),
        WorkloadLayer(
            "pos_embed", "add", d, d, rows=tokens, kept=d + tokens * d,
            note="keeps the class token as well",
        ),
        norm("norm1"),
        linear("attn.qkv", d, 3 * d, "norm1"),
        *_attention(f"{b}.attn", tokens, tokens, heads, head, count=12),
        linear("attn.proj", d, d, "attn.values"),
        residual("add1", "attn.proj"),
        norm("norm2"),
        linear("mlp.fc1", d, 4 * d, "norm2"),
        WorkloadLayer(
            f"{b}.mlp.act", "activation", 4 * d, 4 * d, rows=tokens, count=12,
            sources=(f"{b}.mlp.fc1",),
        ),
        linear("mlp.fc2", 4 * d, d, "mlp.act"),
        residual("add2", "mlp.fc2"),
        WorkloadLayer("norm", "norm", d, d, rows=tokens, kept=2 * d),
        WorkloadLayer("head", "linear", d, 1000, kept=1000),
    ]  # fmt: skip
    return Workload(
        f"deit-{size}",
        tuple(layers),
        source=f"DeiT-{size.title()}/16 at 224, arXiv 2012.12877, table 1",
    )


def llama_2_7b(m: int = 1, context: int = 512, prefill: int = 0) -> Workload:
    """Llama-2-7B: one step of decoding, or the reading of a prompt.

    Touvron et al. 2023, arXiv 2307.09288; sizes as in the config.json of its publisher: width
    4096, 32 blocks, 32 heads, feed-forward 11008, 32000 words, embedding and head not tied. Names
    are those of transformers.

    Parameters
    ----------
    m : int
        Sequences that are decoded together: rows of every linear.
    context : int
        Words that each of them attends to, the new one included.
    prefill : int
        Words of a prompt that are read at once, instead of decoding. Attention counts all pairs,
        masked ones too; the head sees the last word alone.
    """
    sizes = _Llama(4096, 11008, blocks=32, heads=32, keys=32, words=32000, tied=False)
    return sizes.workload("llama-2-7b", "Llama-2-7B", "arXiv 2307.09288", m, context, prefill)


def smollm2_135m(m: int = 1, context: int = 512, prefill: int = 0) -> Workload:
    """SmolLM2-135M: one step of decoding, or the reading of a prompt.

    Ben Allal et al. 2025, arXiv 2502.02737; sizes as in the config.json of its publisher: a Llama
    of width 576, 30 blocks, 9 heads of which 3 each share keys and values, feed-forward 1536, 49152
    words. The head has the embedding's weights: what a recipe says of ``model.embed_tokens`` holds
    for both. For each word the head reads them all, the embedding one row.

    Parameters
    ----------
    m, context, prefill
        See :func:`llama_2_7b`.
    """
    sizes = _Llama(576, 1536, blocks=30, heads=9, keys=3, words=49152, tied=True)
    return sizes.workload("smollm2-135m", "SmolLM2-135M", "arXiv 2502.02737", m, context, prefill)


@dataclass(frozen=True)
class _Llama:
    """Sizes of a Llama: width, feed-forward, heads, and how many of keys and values."""

    d: int
    ffn: int
    blocks: int
    heads: int
    keys: int
    words: int
    tied: bool

    def workload(
        self, name: str, called: str, paper: str, m: int, context: int, prefill: int
    ) -> Workload:
        """Layers, with the names of transformers."""
        d, ffn, blocks, heads, keys = self.d, self.ffn, self.blocks, self.heads, self.keys
        rows, seen = (prefill, prefill) if prefill else (m, context)
        head = d // heads
        b = "model.layers.{}"

        def linear(name: str, inputs: int, outputs: int, source: str) -> WorkloadLayer:
            return WorkloadLayer(
                f"{b}.{name}", "linear", inputs, outputs, rows=rows, count=blocks,
                sources=(f"{b}.{source}",),
            )  # fmt: skip

        def other(name: str, op: str, width: int, *sources: str, kept: int = 0) -> WorkloadLayer:
            return WorkloadLayer(
                f"{b}.{name}", op, width, width, rows=rows, count=blocks, kept=kept,
                sources=tuple(f"{b}.{s}" for s in sources),
            )  # fmt: skip

        sequences = 1 if prefill else m
        layers = [
            WorkloadLayer(_EMBEDDING, "embedding", self.words, d, rows=rows),
            other("input_layernorm", "norm", d, kept=d),
            linear("self_attn.q_proj", d, d, "input_layernorm"),
            *(linear(f"self_attn.{n}_proj", d, keys * head, "input_layernorm") for n in "kv"),
            # Heads that share keys are rows of one product.
            *_attention(
                f"{b}.self_attn", rows // sequences * (heads // keys), seen, keys, head,
                count=blocks, batch=sequences,
            ),
            linear("self_attn.o_proj", d, d, "self_attn.values"),
            other("add1", "add", d, "self_attn.o_proj"),
            other("post_attention_layernorm", "norm", d, "add1", kept=d),
            linear("mlp.gate_proj", d, ffn, "post_attention_layernorm"),
            other("mlp.act_fn", "activation", ffn, "mlp.gate_proj"),
            linear("mlp.up_proj", d, ffn, "post_attention_layernorm"),
            other("mlp.gate", "mul", ffn, "mlp.act_fn", "mlp.up_proj"),
            linear("mlp.down_proj", ffn, d, "mlp.gate"),
            other("add2", "add", d, "mlp.down_proj", "add1"),
            WorkloadLayer("model.norm", "norm", d, d, rows=rows, kept=d),
            WorkloadLayer(
                "lm_head", "linear", d, self.words, rows=1 if prefill else m,
                shares=_EMBEDDING if self.tied else "",
            ),
        ]  # fmt: skip
        doing = f"prefill of {prefill}" if prefill else f"decoding, M = {m}, context {context}"
        return Workload(name, tuple(layers), source=f"{called}, {doing}; {paper}")


def minilm_l6(tokens: int = 128) -> Workload:
    """Encoder of all-MiniLM-L6-v2 on one sentence, without its pooling layer.

    A BERT (Devlin et al. 2018, arXiv 1810.04805) of width 384, 6 blocks, 12 heads, feed-forward
    1536, 30522 words and 512 positions: the config.json of nreimers/MiniLM-L6-H384-uncased. Names
    are those of transformers.

    Parameters
    ----------
    tokens : int
        Words of the sentence, at most 512: rows of every linear.
    """
    d, ffn, heads, blocks = 384, 1536, 12, 6
    b = "encoder.layer.{}"

    def linear(name: str, inputs: int, outputs: int, *sources: str) -> WorkloadLayer:
        return WorkloadLayer(
            f"{b}.{name}", "linear", inputs, outputs, rows=tokens, count=blocks, kept=outputs,
            sources=tuple(f"{b}.{s}" for s in sources),
        )  # fmt: skip

    def other(name: str, op: str, width: int, *sources: str, kept: int = 0) -> WorkloadLayer:
        return WorkloadLayer(
            f"{b}.{name}", op, width, width, rows=tokens, count=blocks, kept=kept,
            sources=tuple(f"{b}.{s}" for s in sources),
        )  # fmt: skip

    # The input of a block is the norm before it, which only the first block can name.
    layers = [
        WorkloadLayer("embeddings.word_embeddings", "embedding", 30522, d, rows=tokens),
        WorkloadLayer("embeddings.token_type_embeddings", "embedding", 2, d, rows=tokens),
        WorkloadLayer("embeddings.add_types", "add", d, d, rows=tokens),
        WorkloadLayer("embeddings.position_embeddings", "embedding", 512, d, rows=tokens),
        WorkloadLayer("embeddings.add_positions", "add", d, d, rows=tokens),
        WorkloadLayer("embeddings.LayerNorm", "norm", d, d, rows=tokens, kept=2 * d),
        *(linear(f"attention.self.{n}", d, d) for n in ("query", "key", "value")),
        *_attention(f"{b}.attention.self", tokens, tokens, heads, d // heads, count=blocks),
        linear("attention.output.dense", d, d, "attention.self.values"),
        other("attention.output.add", "add", d, "attention.output.dense"),
        other("attention.output.LayerNorm", "norm", d, "attention.output.add", kept=2 * d),
        linear("intermediate.dense", d, ffn, "attention.output.LayerNorm"),
        other("intermediate.act", "activation", ffn, "intermediate.dense"),
        linear("output.dense", ffn, d, "intermediate.act"),
        other("output.add", "add", d, "output.dense", "attention.output.LayerNorm"),
        other("output.LayerNorm", "norm", d, "output.add", kept=2 * d),
    ]
    return Workload("minilm-l6", tuple(layers), source=f"all-MiniLM-L6-v2, {tokens} tokens")


def _attention(
    name: str, rows: int, seen: int, heads: int, width: int, *, count: int, batch: int = 1
) -> list[WorkloadLayer]:
    """Scores of queries [rows, width] with ``seen`` keys, their softmax, and the sums of values."""
    groups = batch * heads
    return [
        WorkloadLayer(
            f"{name}.scores", "matmul", width, seen, rows=rows, groups=groups, count=count
        ),
        WorkloadLayer(f"{name}.softmax", "softmax", seen, seen, rows=groups * rows, count=count),
        WorkloadLayer(
            f"{name}.values", "matmul", seen, width, rows=rows, groups=groups, count=count
        ),
    ]
