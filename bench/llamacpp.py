"""llama.cpp beside us: a checkpoint of transformers as its file, and the file's speed.

Its own program quantises. What it is given is a Llama whose output layer is its embedding, in
float32, by the names and orders that the GGUF format has for it.
"""

import ctypes
import importlib.util
import json
import math
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from signbook.extras import require
from signbook.loading import load_model
from signbook.tasks import LanguageModelling
from vq.errors import ConfigError, OutputError
from vq.recipe.footprint import resident_bytes

__all__ = ["KINDS", "lacking", "measured", "write_gguf"]

EXTRA = "llama-cpp"
#: What llama.h calls the kinds of files that all of whose matrices are of one type.
KINDS = {"q8_0": "LLAMA_FTYPE_MOSTLY_Q8_0", "q4_0": "LLAMA_FTYPE_MOSTLY_Q4_0"}
#: Names of a block's tensors there, by those of transformers.
NAMES = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}  # fmt: skip
#: Kinds of tokens in a file: words of a text, and what only starts, ends or parts texts.
NORMAL, CONTROL = 1, 3


def lacking() -> str:
    """Why it cannot run here; nothing if it can."""
    for package in ("llama_cpp", "gguf"):
        if importlib.util.find_spec(package) is None:
            return f"package {package!r} is not installed (extra {EXTRA})"
    return ""


def measured(
    folder: Path,
    out: Path,
    kind: str,
    prompt: Sequence[int],
    lengths: tuple[int, int],
    threads: int,
    judged: LanguageModelling,
) -> dict[str, float]:
    """Speed, memory and perplexity of a checkpoint in a kind of file, in a process of its own.

    Parameters
    ----------
    folder : Path
        Of transformers.
    out : Path
        Where files are made, and kept; made before, their making costs no memory here.
    kind : str
        One of :data:`KINDS`.
    prompt : sequence of int
    lengths : tuple of int
        Tokens behind the prompt, and runs over it.
    threads : int
    judged : LanguageModelling
    """
    library = require("llama_cpp", extra=EXTRA, purpose="llama.cpp")
    file = quantised(folder, out, kind)
    before = resident_bytes()
    common = {"model_path": str(file), "n_ctx": 1024, "n_threads": threads, "verbose": False}
    model = library.Llama(**common, n_threads_batch=threads)
    model.eval(prompt[:4])
    times, steps = [], []
    for _ in range(lengths[1]):
        model.reset()
        start = time.perf_counter()
        model.eval(prompt)
        times.append(time.perf_counter() - start)
    for _ in range(lengths[0]):
        start = time.perf_counter()
        token = model.sample(temp=0.0)
        model.eval([token])
        steps.append(time.perf_counter() - start)
    held = resident_bytes() - before
    model.close()
    model = library.Llama(**common, n_threads_batch=threads, logits_all=True)
    return {
        "decode_tokens_per_second": 1 / statistics.median(steps),
        "prefill_tokens_per_second": len(prompt) / statistics.median(times),
        "resident_bytes": held,
        "perplexity": perplexity(model, judged),
    }


def perplexity(model: Any, judged: LanguageModelling) -> float:
    """As ``signbook eval`` measures it: over tokens that are predicted from those before them."""
    nats, count = 0.0, 0
    for tokens, scored in judged.batches:
        for row, wanted in zip(tokens, scored, strict=True):
            model.reset()
            model.eval(row.tolist())
            logits = torch.from_numpy(np.array(model.scores[: len(row)]))
            chosen = wanted[1:].nonzero()[:, 0]
            likely = logits[chosen].double().log_softmax(-1)
            nats -= float(likely.gather(1, row[1:][chosen][:, None]).sum())
            count += len(chosen)
    return math.exp(nats / count)


def quantised(folder: Path, out: Path, kind: str) -> Path:
    """The file of a checkpoint in a kind, made by llama.cpp the first time.

    Raises
    ------
    OutputError
        If llama.cpp refuses.
    """
    library = require("llama_cpp", extra=EXTRA, purpose="llama.cpp")
    file, dense = out / f"{kind}.gguf", out / "f32.gguf"
    if not file.exists():
        if not dense.exists():
            write_gguf(folder, dense)
        options = library.llama_model_quantize_default_params()
        options.ftype = getattr(library, KINDS[kind])
        made = file.with_suffix(".part")
        names = (bytes(dense), bytes(made))
        if status := library.llama_model_quantize(*names, ctypes.byref(options)):
            raise OutputError(f"{file}: llama.cpp must write it, but ends with status {status}")
        made.rename(file)
    return file


def write_gguf(folder: Path, path: Path) -> None:
    """Write a checkpoint of a Llama in float32.

    Raises
    ------
    ConfigError
        If it is none of those that are known here.
    """
    gguf = require("gguf", extra=EXTRA, purpose="writing a GGUF")
    model: Any = load_model(f"hf:{folder}")
    c = model.config
    if c.model_type != "llama" or not c.tie_word_embeddings or c.attention_bias or c.mlp_bias:
        raise ConfigError(
            f"{folder}: must be a Llama without biases whose output layer is its embedding"
        )
    made = path.with_suffix(".part")
    writer = gguf.GGUFWriter(made, "llama")
    writer.add_name(folder.name)
    writer.add_block_count(c.num_hidden_layers)
    writer.add_context_length(c.max_position_embeddings)
    writer.add_embedding_length(c.hidden_size)
    writer.add_feed_forward_length(c.intermediate_size)
    writer.add_head_count(c.num_attention_heads)
    writer.add_head_count_kv(c.num_key_value_heads)
    writer.add_layer_norm_rms_eps(c.rms_norm_eps)
    writer.add_rope_freq_base(c.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(c.head_dim)
    writer.add_vocab_size(c.vocab_size)
    writer.add_file_type(0)
    _add_words(writer, folder, c)
    for name, tensor in tensors(model):
        writer.add_tensor(name, tensor.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    made.rename(path)


def tensors(model: Any) -> Iterator[tuple[str, Tensor]]:
    """All tensors by their names there.

    There, the two coordinates that a rotation mixes are neighbours; with transformers they are
    half a head apart.
    """
    heads = {"attn_q": model.config.num_attention_heads, "attn_k": model.config.num_key_value_heads}
    yield "token_embd.weight", model.model.embed_tokens.weight.detach().float()
    yield "output_norm.weight", model.model.norm.weight.detach().float()
    for number, block in enumerate(model.model.layers):
        for own, name in NAMES.items():
            tensor = block.get_submodule(own).weight.detach().float()
            if name in heads:
                halves = tensor.reshape(heads[name], 2, -1, tensor.shape[1])
                tensor = halves.transpose(1, 2).reshape(tensor.shape)
            yield f"blk.{number}.{name}.weight", tensor


def _add_words(writer: Any, folder: Path, config: Any) -> None:
    """Add a tokenizer of byte pairs, as the folder has it."""
    about = json.loads((folder / "tokenizer.json").read_text())
    words = {token: text for text, token in about["model"]["vocab"].items()}
    added = {each["id"]: each["content"] for each in about["added_tokens"]}
    words |= added
    count = config.vocab_size
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list([words.get(token, f"[{token}]") for token in range(count)])
    writer.add_token_types([CONTROL if token in added else NORMAL for token in range(count)])
    merges = about["model"]["merges"]
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in merges])
    writer.add_bos_token_id(config.bos_token_id)
    writer.add_eos_token_id(config.eos_token_id)
