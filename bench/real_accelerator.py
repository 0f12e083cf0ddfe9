"""What SmolLM2-135M and EfficientNet-Lite0 cost on the accelerator, as their benches store them.

Works are those of ``real_language.py`` and ``real_vision.py``. An arm is a format, not a method:
who chose the codes makes no difference. Of scalars, arms are the groups that may be chosen there,
``scalar g144``, with zeros ``scalar g192z``; ``ssvq d=4`` and ``ssvq d=2`` are what runs where the
hardware does not have what the bench stores. SmolLM2 decodes one word, so that every linear has one
row; its head, which is its embedding, is int8 in all arms, and read once. Lite0 sees one image; its
1x1 convolutions and classifier have one codebook, stem and depthwise layers are int8 in all arms.

By the cycle model, on one instance for all: 16x16 multipliers, 128 bits, two buffers of 256 KiB
(the least that a row of Lite0's depthwise layers fits), codebooks of up to 512 codewords from d = 2
on. ``cycles`` are with ideal memory, 16 bytes each; ``dram_cycles`` with LPDDR4-3200 and a clock of
500 MHz, and so is ``energy_uj``, which is the memory's alone. Ratios and speed-ups are against
int8; ``blocks_speedup`` is without the head. ``with_rest`` has on top of both what is not run
(attention, norms, activations of SmolLM2; nothing of Lite0), at its assumed time. ``depthwise`` is
the share of cycles in such layers. Where d is no power of two, which the hardware does not have,
bytes are counted from the file's layout, and there are no cycles.

``smollm2 block, RTL``: the first block with its trained weights, quantised by ``qep-ssvq`` of
``smollm2@2.1`` on 2,048 tokens, each layer on one row, bit for bit; left out where packages or data
for that are absent. All is deterministic: one seed.

``--plot FILE`` draws accuracy against bytes, from the documents of other benches that ``--beside``
names (``scalars``, ``real_language``, ``real_vision``) and this one.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import real_vision
from accuracy_plot import accuracy_against_bytes
from harness import Bench
from quantised import Arm, Setting
from real_language import GROUPS
from real_language import WORKS as LANGUAGE
from real_vision import CODEBOOKS as VISION

import vq
from hwsim import estimate_workload, simulate
from hwsim.workloads import PlannedFile, Workload, workload
from hwsim.workloads.lower import geometries_of
from rescomp import QEP, Fitting, quantize_
from rtl import AcceleratorConfig
from signbook.data.factories import wikitext2
from signbook.files import write_text
from signbook.zoo.smollm2 import smollm2
from vq import Int8, Recipe
from vq.container import account
from vq.errors import ConfigError
from vq.text.files import read_text

CONFIG = AcceleratorConfig(input_bytes=1 << 18, output_bytes=1 << 18, d_min=2, index_bits_max=9)
IDEAL, DRAM = "ideal:bytes_per_cycle=16,latency=20", "lpddr4-3200"
EMBEDDING = "model.embed_tokens"
INT8 = Recipe({"*": Int8()})
QUICK = ("int8", "ssvq")
#: Where SSVQ has sub-vectors that the hardware has not: the best one that runs.
RUNS = {"smollm2@3.1": vq.SSVQ(d=4, k=256), "smollm2@4.1": vq.SSVQ(d=2, k=64)}


def recipes_of(work: str) -> dict[str, Recipe]:
    """Arms of a work: what every layer is stored in."""
    if work in VISION:
        found = {arm: real_vision.recipe(book) for arm, book in VISION[work].items()}
    else:
        found = {arm: _beside_head(Arm(LANGUAGE[work], arm)) for arm in ("ssvq", "vq")}
        if work in RUNS:
            own = replace(LANGUAGE[work], books={"ssvq": RUNS[work]}, instead={})
            found[f"ssvq d={RUNS[work].d}"] = _beside_head(Arm(own, "ssvq"))
        for groups in GROUPS:
            arm = f"scalar g{groups['group']}{'z' * groups['zeros']}"
            found[arm] = _beside_head(Arm(LANGUAGE[work], "gptq"), **groups)
    return {"int8": INT8} | found


def _beside_head(arm: Arm, **groups: Any) -> Recipe:
    """What an arm stores SmolLM2's blocks in, and its embedding in int8."""
    return Recipe({**arm.recipe(Setting(**groups)).rules, EMBEDDING: Int8()})


def shapes_of(work: str) -> str:
    """The network that a work compresses, and what it does."""
    return "efficientnet-lite0" if work in VISION else "smollm2-135m:m=1,context=512"


def measured(work: str, recipe: Recipe) -> dict[str, float]:
    """Metrics of one arm."""
    network = workload(shapes_of(work))
    geometries = geometries_of(network.expanded(), recipe)
    counted = account([g for g in geometries if g.name != EMBEDDING])
    bits = 8 * sum(a.total_bytes for a in counted) / sum(a.geometry.weights for a in counted)
    int8, rest = _baseline(shapes_of(work), IDEAL)
    if any(g.d & (g.d - 1) for g in geometries):
        read = int8["bytes_read"] - streamed_bytes(network, INT8) + streamed_bytes(network, recipe)
        traffic = int8["bytes_read"] / read
        return {"bits_per_weight": bits, "bytes_read": read, "traffic_ratio": traffic}
    run, dram = _run(network, recipe, IDEAL)[0], _run(network, recipe, DRAM)[0]
    dram_int8 = _baseline(shapes_of(work), DRAM)[0]
    return {
        "bits_per_weight": bits,
        "bytes_read": run["bytes_read"],
        "traffic_ratio": int8["bytes_read"] / run["bytes_read"],
        "cycles": run["cycles"],
        "speedup": int8["cycles"] / run["cycles"],
        "with_rest": (int8["cycles"] + rest) / (run["cycles"] + rest),
        "dram_cycles": dram["cycles"],
        "dram_speedup": dram_int8["cycles"] / dram["cycles"],
        "energy_uj": dram["energy_pj"] / 1e6,
        "energy_ratio": dram_int8["energy_pj"] / dram["energy_pj"],
        **(_of_lite0(run) if work in VISION else _of_smollm2(run, int8)),
    }


def _of_lite0(run: Mapping[str, Any]) -> dict[str, float]:
    cycles = [layer["cycles"] for layer in run["layers"] if layer["name"].endswith("depthwise")]
    return {"depthwise": sum(cycles) / run["cycles"]}


def _of_smollm2(run: Mapping[str, Any], int8: Mapping[str, Any]) -> dict[str, float]:
    ours, base = (one["cycles"] - one["layers"][-1]["cycles"] for one in (run, int8))
    return {"blocks_speedup": base / ours}


def streamed_bytes(network: Workload, recipe: Recipe) -> int:
    """Streams and codebooks of a file, each once, as single rows read them."""
    file = PlannedFile(geometries_of(network.expanded(), recipe))
    books = {entry.codebook for entry in file.layers if entry.codebook}
    return sum(span.nbytes for span in [*books, *(entry.stream for entry in file.layers)])


@cache
def _baseline(shapes: str, memory: str) -> tuple[dict[str, Any], int]:
    return _run(workload(shapes), INT8, memory)


def _run(network: Workload, recipe: Recipe, memory: str) -> tuple[dict[str, Any], int]:
    """A run of the document, and cycles of what is not run."""
    document = estimate_workload(network, recipe, config=CONFIG, memory=memory, methods=())
    return document["runs"]["compressed"], (document["rest"] or {"cycles": 0})["cycles"]


@cache
def _block() -> dict[str, Any]:
    """The document of one trained block in RTL."""
    model = smollm2()
    rules = Arm(LANGUAGE["smollm2@2.1"], "ssvq").recipe(Setting()).rules
    recipe = Recipe({name: kind for name, kind in rules.items() if ".layers.0." in name})
    text = wikitext2(part="calibrate", limit=4, length=512, tokenizer="smollm2", detokenize=True)
    data = [{"input_ids": tokens} for tokens, _ in text.batches]
    quantize_(model, data, recipe, QEP(), fitting=Fitting(sweeps=1))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "block.vq.safetensors"
        vq.save(model.get_submodule("model.layers.0"), path)
        document = simulate(path, config=CONFIG, memory=IDEAL, check=True)
    if not all(run["bit_exact"] for run in document["runs"].values()):
        raise SystemExit("RTL runs must be bit-exact")
    return document


def in_rtl(arm: str) -> dict[str, float]:
    """Metrics of one run of the block."""
    runs = _block()["runs"]
    run, int8 = runs[arm], runs["int8"]
    return {
        "bytes_read": run["bytes_read"],
        "traffic_ratio": int8["bytes_read"] / run["bytes_read"],
        "cycles": run["cycles"],
        "speedup": int8["cycles"] / run["cycles"],
    }


def main() -> None:
    """Measure every row and print the table."""
    own = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    own.add_argument("--plot", type=Path)
    own.add_argument("--beside", type=Path, nargs="+", default=[])
    options, sys.argv[1:] = own.parse_known_args()
    bench = Bench("real_accelerator", __doc__, seeds=1)
    for work in [*LANGUAGE, *VISION][: 1 if bench.quick else None]:
        for arm, recipe in recipes_of(work).items():
            if not bench.quick or arm in QUICK:
                bench.measure(work, arm, 0, partial(measured, work, recipe))
    if not bench.quick:
        try:
            for arm, run in (("int8", "int8"), ("ssvq", "compressed")):
                bench.measure("smollm2 block, RTL", arm, 0, partial(in_rtl, run))
        except ConfigError as error:
            print(f"smollm2 block, RTL: left out, because {error}")
    rows = bench.finish()["rows"]
    if options.plot:
        others = [json.loads(read_text(path, f"document {str(path)!r}")) for path in options.beside]
        rows += [row for document in others for row in document["rows"]]
        write_text(options.plot, accuracy_against_bytes(rows))


if __name__ == "__main__":
    main()
