"""Language models that run from packed weights, beside dense ones, torch's int8 and llama.cpp.

Works: ``smollm2``, SmolLM2-135M; ``llama-2-7b-shapes``, the shapes of Llama-2-7B with random
weights, so that bandwidth decides and not overhead. Arms: ``fp32`` and ``bf16``; ``torch-int8``,
torch's dynamic int8 linears; ``ssvq@B``, packed at B bits and a scale per output, activations in
8 bits; ``llama.cpp-q8_0`` and ``llama.cpp-q4_0``, of the same checkpoint. Tables of embeddings are
in fp32 with ``fp32`` and ``torch-int8``, in int8 with ``ssvq``, as llama.cpp decides with its own;
that of SmolLM2 is its output layer, too. ``bits_per_weight`` is that of the blocks' linears.

Each arm of each round is a process of its own, arms in a shuffled order, all of them with the same
threads, prompt and number of tokens. Speeds are medians: of whole runs over the prompt, and of
single tokens behind it. ``resident_bytes`` is what the process holds in the end, anonymous and
mapped, above what it held after its imports and a first small model. The table has the mean over
the rounds of ``--seeds`` and their spread. ``perplexity`` is that of 16 rows of 512 tokens of
WikiText-2's last third.

SSVQ of SmolLM2 is QEP's, calibrated on 16,384 tokens, not trained; its files are made once and kept
in out/bench/inference. llama.cpp needs the extra ``llama-cpp``, and runs only SmolLM2: nobody has a
file of random weights for it. An arm that cannot run here is skipped, with its reason.

--quick: a small random Llama and small shapes, few tokens, no llama.cpp.
"""

import importlib.util
import os
import random
import re
import statistics
import time
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import llamacpp
import numpy as np
import torch
from alone import alone
from harness import Bench
from kernels import processor
from torch import Tensor, nn

import vq
from rescomp import Clip, Fitting, Settings, quantize_
from rescomp.methods import QEP
from signbook.data.factories import wikitext2
from signbook.evaluation import evaluate
from signbook.files import make_folder
from signbook.loading import load_model
from signbook.tasks import LanguageModelling
from signbook.writing.traffic import bytes_per_token
from signbook.zoo.hollow import without_values
from signbook.zoo.hub import silent_transformers
from signbook.zoo.smollm2 import smollm2_folder
from vq.container import Geometry, account, open_container
from vq.inference.kernels import instruction_set
from vq.inference.modules import use_packed
from vq.inference.weight import PackedWeight
from vq.recipe.footprint import resident_bytes
from vq.recipe.selection import select

FOLDER = Path("out/bench/inference")
SMOLLM2, SHAPES = "smollm2", "llama-2-7b-shapes"
#: Bits of the blocks' linears, by the arm's name; 1.5 bits are for the shapes alone.
BOOKS = {
    "ssvq@1.5": vq.SSVQ(d=8, k=16, scale="output"),
    "ssvq@2.0": vq.SSVQ(d=4, k=16, scale="output"),
    "ssvq@2.5": vq.SSVQ(d=4, k=64, scale="output"),
    "ssvq@3.0": vq.SSVQ(d=4, k=256, scale="output"),
}
DENSE = {"fp32": 32, "bf16": 16, "torch-int8": 8}
RIVALS = {"llama.cpp-q8_0": 8.5, "llama.cpp-q4_0": 4.5}
ARMS = (*DENSE, *BOOKS, *RIVALS)
THREADS = min(2, os.cpu_count() or 1)
#: Tokens of the prompt, tokens behind it, and runs over the prompt.
LENGTHS, QUICK_LENGTHS = (256, 64, 3), (24, 8, 2)
#: Bytes of a weight while its model is made and run.
HELD = {"fp32": 4, "bf16": 2, "torch-int8": 1.1} | dict.fromkeys(BOOKS, 0.5)
TEXT: dict[str, Any] = {
    "length": 512, "batch": 1, "tokenizer": "smollm2", "detokenize": True,
}  # fmt: skip


def main() -> None:
    """Measure every arm in a process of its own, round by round."""
    bench = Bench("inference", __doc__, seeds=5, works=(SMOLLM2, SHAPES), arms=ARMS)
    for work in bench.works:
        runs = []
        for arm in bench.arms:
            if reason := lacking(work, arm, quick=bench.quick):
                print(f"{work}, {arm}: skipped, because {reason}")
            else:
                runs.append(arm)
        for arm in runs:  # files first, each in a process of its own
            if work == SMOLLM2 and arm in BOOKS:
                file_of(arm, quick=bench.quick)
            if arm in RIVALS:
                alone(llamacpp.quantised, smollm2_folder(), FOLDER, arm.rpartition("-")[2])
        for seed in bench.seeds:
            for arm in random.Random(seed).sample(runs, len(runs)):
                run = partial(alone, measured, work, arm, bench.quick)
                bench.measure(work, arm, seed, run)
    bench.finish(isa=instruction_set(), cpu=processor(), threads=str(THREADS))


def lacking(work: str, arm: str, *, quick: bool) -> str:
    """Why an arm cannot run here; nothing if it can."""
    if work == SMOLLM2 and arm == "ssvq@1.5":
        return "1.5 bits are measured on shapes alone"
    if arm in RIVALS:
        if quick or work == SHAPES:
            return "llama.cpp is given the real checkpoint alone"
        return llamacpp.lacking()
    if importlib.util.find_spec("transformers") is None:
        return "package 'transformers' is not installed (extra lm)"
    if work == SHAPES and not quick:
        need, have = HELD[arm] * 6.74e9, available_bytes()
        if need > have:
            return f"it takes {need / 1e9:.0f} GB of memory, and {have / 1e9:.0f} are free"
    return ""


def available_bytes() -> float:
    """Memory that the system can give."""
    found = re.search(r"MemAvailable:\s*(\d+) kB", Path("/proc/meminfo").read_text())
    return 1024.0 * int(found[1]) if found else 0.0


def measured(work: str, arm: str, quick: bool) -> dict[str, float]:
    """Metrics of one arm, in a process that does nothing else."""
    torch.set_num_threads(THREADS)
    lengths = QUICK_LENGTHS if quick else LENGTHS
    if arm in RIVALS:
        prompt = prompt_of(work, quick).tolist()
        where = (smollm2_folder(), FOLDER, arm.rpartition("-")[2])
        found = llamacpp.measured(*where, prompt, lengths[1:], THREADS, judged(quick))
        return found | {"bits_per_weight": RIVALS[arm]}
    with torch.inference_mode(), silent_transformers():
        speeds(random_llama(SMALL), torch.arange(9), 2, 1)
        instruction_set()
        before = resident_bytes()
        model, bits = made(work, arm, quick)
        found = speeds(model, prompt_of(work, quick), *lengths[1:])
        found |= {"resident_bytes": resident_bytes() - before, "bits_per_weight": bits}
        if arm != "torch-int8":  # torch hides what its layers hold
            found["bytes_per_token"] = bytes_per_token(model)
        if work == SMOLLM2:
            metrics = evaluate(model, judged(quick), device="cpu", progress=False).metrics
            found["perplexity"] = metrics["perplexity"]
    return found


def prompt_of(work: str, quick: bool) -> Tensor:
    """Tokens [T] of the prompt: the text that is judged, or any where there is none."""
    count = (QUICK_LENGTHS if quick else LENGTHS)[0]
    if work == SHAPES:
        return torch.arange(3, 3 + count)
    return next(iter(judged(quick).batches))[0][0, :count]


def speeds(model: Any, prompt: Tensor, behind: int, runs: int) -> dict[str, float]:
    """Tokens per second, of a prompt [T] and behind it; tokens are the most probable ones."""
    model(prompt[None, :4], logits_to_keep=1)
    times, steps = [], []
    for _ in range(runs):
        start = time.perf_counter()
        out = model(prompt[None], use_cache=True, logits_to_keep=1)
        times.append(time.perf_counter() - start)
    for _ in range(behind):
        start = time.perf_counter()
        token = out.logits[:, -1:].argmax(-1)
        out = model(token, past_key_values=out.past_key_values, use_cache=True)
        steps.append(time.perf_counter() - start)
    return {
        "decode_tokens_per_second": 1 / statistics.median(steps),
        "prefill_tokens_per_second": len(prompt) / statistics.median(times),
    }


# ---- models --------------------------------------------------------------------------------------

#: Sizes of Llamas: hidden, intermediate, blocks, heads, heads of keys, vocabulary.
SMALL, SMALL_SHAPES = (64, 128, 2, 2, 1, 512), (256, 512, 2, 4, 4, 512)
LLAMA_2_7B = (4096, 11_008, 32, 32, 32, 32_000)


def random_llama(sizes: tuple[int, ...], *, tied: bool = True) -> Any:
    """A model of transformers with random weights; those of shapes are never made."""
    from transformers import LlamaConfig, LlamaForCausalLM

    hidden, intermediate, blocks, heads, kv_heads, vocabulary = sizes
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            hidden_size=hidden, intermediate_size=intermediate, num_hidden_layers=blocks,
            num_attention_heads=heads, num_key_value_heads=kv_heads, vocab_size=vocabulary,
            tie_word_embeddings=tied, max_position_embeddings=2048,
        )
    ).eval()  # fmt: skip


def folder_of(*, quick: bool) -> Path:
    """The checkpoint: SmolLM2's, or that of a small random model."""
    if not quick:
        return smollm2_folder()
    folder = make_folder(FOLDER) / "quick"
    if not (folder / "config.json").exists():
        with silent_transformers():
            random_llama(SMALL).save_pretrained(folder)
    return folder


def made(work: str, arm: str, quick: bool) -> tuple[Any, float]:
    """The model of an arm, and the bits of its blocks' weights."""
    if work == SHAPES:
        with without_values():
            model = random_llama(SMALL_SHAPES if quick else LLAMA_2_7B, tied=False)
        bits = _bits(select(model, recipe_of(arm)).layers) if arm in BOOKS else DENSE[arm]
        return _prepared(model, arm), bits
    folder = folder_of(quick=quick)
    if arm in BOOKS:
        file = file_of(arm, quick=quick)
        with open_container(file) as container:
            bits = _bits(container.layers)
        return load_model(f"hf:{folder}", file=file, packed=True), bits
    from transformers import AutoModelForCausalLM

    dtype = torch.bfloat16 if arm == "bf16" else torch.float32
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    return _prepared(model, arm), DENSE[arm]


def recipe_of(arm: str) -> vq.Recipe:
    """What an arm's layers are stored in."""
    tables = {"model.embed_tokens": vq.Int8(), "lm_head": vq.Int8()}
    return vq.Recipe({"*_proj": BOOKS.get(arm, vq.Int8()), **tables})


def file_of(arm: str, *, quick: bool) -> Path:
    """The container of a packed arm, made the first time."""
    file = FOLDER / f"{arm}{'-quick' * quick}.vq.safetensors"
    if not file.exists():
        make_folder(FOLDER)
        alone(compress, arm, quick, file)
    return file


def compress(arm: str, quick: bool, file: Path) -> None:
    """Quantise SmolLM2 by QEP into codebooks, and write it."""
    model = load_model(f"hf:{folder_of(quick=quick)}")
    data = [{"input_ids": tokens} for tokens, _ in text("calibrate", 32, quick).batches]
    quantize_(
        model, data, recipe_of(arm), QEP(), settings=Settings(clip=Clip(), measure=False),
        fitting=Fitting(sweeps=0), seed=0,
    )  # fmt: skip
    vq.save(model, file, progress=False)


def text(part: str, rows: int, quick: bool) -> LanguageModelling:
    """Rows of WikiText-2; of a small random model, of random tokens."""
    if not quick:
        seed = {"seed": 0} if part == "calibrate" else {}
        return wikitext2(part=part, limit=rows, **TEXT, **seed)
    tokens = torch.randint(3, SMALL[-1], (rows, 40), generator=torch.Generator().manual_seed(1))
    return LanguageModelling([(tokens, (torch.arange(40) > 0).expand(rows, 40))])


def judged(quick: bool) -> LanguageModelling:
    """What perplexity is measured on."""
    return text("judge", 16, quick)


def _prepared(model: Any, arm: str) -> Any:
    """Let a model run as an arm does; what has no values gets some, never all of them dense."""
    if arm in BOOKS:
        _pack_random(model, arm)
    if arm == "torch-int8":
        for name, module in list(_linears(model)):
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, _dynamic(module))
    _fill(model, torch.bfloat16 if arm == "bf16" else torch.float32)
    return model.requires_grad_(False)


def _linears(model: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    return ((name, m) for name, m in model.named_modules() if type(m) is nn.Linear)


def _dynamic(linear: nn.Linear) -> nn.Module:
    """Torch's int8 linear in the place of another one."""
    holder = nn.Sequential(nn.Linear(1, 1))
    holder[0] = linear
    _fill(holder, torch.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is another door by now
        found = torch.ao.quantization.quantize_dynamic(holder, dtype=torch.qint8, inplace=True)
    return found[0]


def _fill(model: nn.Module, dtype: torch.dtype) -> None:
    for module in model.modules():
        for name, held in module._parameters.items():
            if held is not None and held.is_meta:
                value = torch.full(held.shape, 0.01, dtype=dtype)
                module._parameters[name] = nn.Parameter(value, requires_grad=False)


def _pack_random(model: nn.Module, arm: str) -> None:
    """Give layers without values packed ones of random bits."""
    rng = np.random.default_rng(0)
    weights = {}
    for layer in select(model, recipe_of(arm)).layers:
        g = layer.geometry
        book = torch.from_numpy(rng.integers(0, 128, (g.k, g.d)).astype(np.int8)) if g.k else None
        stream = np.frombuffer(rng.bytes(g.stream_bytes), np.uint8)
        if not g.k:
            stream = np.where(stream == 0x80, 0, stream).astype(np.uint8)
        scale = np.full(g.scales, 1e-4, np.float32)
        weights[g.name] = PackedWeight(g, stream, book, scale, None, torch.float32, "int8")
    use_packed({name: model.get_submodule(name) for name in weights}, weights)


def _bits(layers: Any) -> float:
    """Bits per weight of the blocks' linears, all that they take counted."""
    own: list[Geometry] = [x.geometry for x in layers if x.geometry.name.endswith("_proj")]
    return 8 * sum(a.total_bytes for a in account(own)) / sum(g.weights for g in own)


if __name__ == "__main__":
    main()
