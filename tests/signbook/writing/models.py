"""A small Llama of transformers, a tokenizer of single bytes, and a container, in a folder."""

from pathlib import Path

import torch

import vq

#: What the tokenizer knows besides bytes.
SPECIAL = ("<s>", "</s>", "<unk>")
CONTEXT = 64


def save_llama(folder: Path, *, seed: int = 0) -> None:
    """Write a random model and its tokenizer into a folder, and ``small.vq.safetensors``."""
    import transformers

    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=256 + len(SPECIAL), max_position_embeddings=CONTEXT,
        bos_token_id=256, eos_token_id=257, tie_word_embeddings=True, initializer_range=0.3,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config).eval()
    model.save_pretrained(folder)
    save_tokenizer(folder)
    recipe = vq.Recipe({"model.embed_tokens": vq.Int8(), "lm_head": vq.Int8(), "*": vq.SSVQ(d=4)})
    vq.compress_(model, recipe, progress=False)
    vq.save(model, folder / "small.vq.safetensors", progress=False)


def save_tokenizer(folder: Path) -> None:
    """Write a tokenizer of single bytes."""
    import tokenizers
    import transformers

    bytes_ = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: place for place, piece in enumerate((*bytes_, *SPECIAL))}
    own = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, [], unk_token="<unk>"))
    own.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    own.decoder = tokenizers.decoders.ByteLevel()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=own, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
