"""Llama for the large runs: ready to train, or its shapes alone.

py:examples.llama:causal_lm?name=meta-llama/Llama-3.2-1B
py:examples.llama:shapes?size=2-7b
"""

import torch
from torch import nn

from signbook.extras import require
from signbook.zoo.hub import quiet_transformers
from vq.errors import ConfigError

#: What the published configurations say about shapes; all else is irrelevant to a plan.
SIZES = {
    "3.2-1b": {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "vocab_size": 128256,
        "tie_word_embeddings": True,
    },
    "2-7b": {
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "vocab_size": 32000,
        "tie_word_embeddings": False,
    },
}


def causal_lm(*, name: str, dtype: str = "float32", recompute: bool = True) -> nn.Module:
    """Load a language model of transformers for training.

    ``hf:NAME`` keeps the published bfloat16, in which Adam's small steps on embeddings and norms
    are rounded away; hence float32. ``recompute`` trades a second forward pass for the memory of
    activations.
    """
    transformers = require("transformers", extra="lm", purpose=f"model {name!r}")
    with quiet_transformers(f"model {name!r}"):
        model: nn.Module = transformers.AutoModelForCausalLM.from_pretrained(
            name, dtype=getattr(torch, dtype)
        )
    model.config.use_cache = False
    if recompute:
        new, old = "activation_checkpointing_enable", "gradient_checkpointing_enable"
        getattr(model, new if hasattr(model, new) else old)({"use_reentrant": False})
    return model


def shapes(*, size: str, dtype: str = "bfloat16") -> nn.Module:
    """A Llama without weights, for ``signbook plan``: needs no checkpoint and no memory."""
    transformers = require("transformers", extra="lm", purpose=f"shapes of Llama {size}")
    if size not in SIZES:
        raise ConfigError(f"size must be one of {', '.join(SIZES)}, not {size!r}")
    with torch.device("meta"):
        model: nn.Module = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES[size]))
    return model.to(getattr(torch, dtype))
