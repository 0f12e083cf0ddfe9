"""The whole path on real data: train, compress, fine-tune, pack, stream through RTL, report."""

import copy
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

import vq
from hwsim import DEFAULT_MEMORY
from hwsim.simulator.toolchain import find_toolchain
from rtl import AcceleratorConfig
from signbook import plots
from signbook.commands.inspect import inspect_file
from signbook.commands.measuring import Setup
from signbook.commands.simulate import stream
from signbook.demo.language import Sizes, run_language
from signbook.files import make_folder, write_json, write_text
from signbook.plots.training import NAMES
from signbook.report import render, versions
from signbook.reporting.parts import settings
from signbook.zoo.digits import DigitBatches, DigitsViT, load_digits, top1, train
from signbook.zoo.topics import topics_llama
from vq.container import SignbookError
from vq.learning.finetune import FinetuneResult

__all__ = [
    "FILES",
    "Demo",
    "headline",
    "language_rows",
    "render_demo",
    "run_demo",
    "samples",
]

#: Equal bits: the control gets a few more (1.60 against 1.56), never fewer.
ARMS: dict[str, vq.Recipe] = {
    "ssvq": vq.Recipe({"blocks.*": vq.SSVQ(d=8, k=16)}),
    "vq": vq.Recipe({"blocks.*": vq.VQ(d=4, k=64)}),
}
TRAIN_EPOCHS = 30
FINETUNE_EPOCHS = 12
BUS_BITS = 128
REPORT, LANGUAGE = "report.html", "language-ssvq.vq.safetensors"
DIGITS = {arm: f"digits-{arm}.vq.safetensors" for arm in ARMS}
#: All that is written to the folder.
FILES = (REPORT, *DIGITS.values(), LANGUAGE)


@dataclass
class Demo:
    """Result of the demo: the document that scripts read, and what only the report shows."""

    document: dict[str, Any]
    report: Path
    training: dict[str, FinetuneResult] = field(default_factory=dict)
    inspections: dict[str, dict[str, Any]] = field(default_factory=dict)
    language: dict[str, FinetuneResult] = field(default_factory=dict)


def run_demo(
    out: Path,
    *,
    seed: int = 0,
    json_path: Path | None = None,
    sizes: Sizes = Sizes(),  # noqa: B008 - frozen dataclass
) -> Demo:
    """Run the demo and write the containers, ``report.html`` and the JSON document.

    Parameters
    ----------
    out : Path
        Folder for all files; made if missing.
    seed : int
        Of the data split, the model, the clustering and the batches.
    json_path : Path, optional
        Also write the ``signbook.demo/1`` document there.
    sizes : Sizes
        Of the language model and its training.

    Raises
    ------
    OutputError
        If a folder cannot be written; checked before any work.
    SimulationError
        If the simulator or its compiler is missing; checked before any work.
    """
    make_folder(out)
    if json_path is not None:
        make_folder(json_path.parent)
    find_toolchain()
    # Matrices this small gain nothing from a second thread, and lose much if a core is shared.
    torch.set_num_threads(1)
    seconds: dict[str, float] = {}
    torch.manual_seed(seed)
    with _timed(seconds, "train"):
        data = load_digits(seed)
        model = train(DigitsViT(), data, epochs=TRAIN_EPOCHS, seed=seed)
    accuracy = {"fp32": top1(model, data)}
    demo = Demo({}, out / REPORT)
    files = {arm: out / name for arm, name in DIGITS.items()}
    for arm, recipe in ARMS.items():
        compressed = copy.deepcopy(model)
        with _timed(seconds, f"compress_{arm}"):
            vq.compress_(compressed, recipe, seed=seed)
        accuracy[f"{arm}_clustered"] = top1(compressed, data)
        with _timed(seconds, f"finetune_{arm}"):
            demo.training[arm] = vq.finetune_(
                compressed, DigitBatches(data, seed=seed), epochs=FINETUNE_EPOCHS
            )
        accuracy[arm] = top1(compressed, data)
        vq.save(compressed, files[arm])
        _require_lossless(compressed, files[arm], DigitsViT())
        demo.inspections[arm] = inspect_file(files[arm])
    setup = Setup(AcceleratorConfig(bus_bits=BUS_BITS), DEFAULT_MEMORY, ("int8",))
    with _timed(seconds, "simulate"):
        measured = stream(files["ssvq"], setup)
    with _timed(seconds, "language"):
        language = run_language(sizes, seed=seed)
    demo.language = language.training
    written = out / LANGUAGE
    vq.save(language.model, written)
    _require_lossless(language.model, written, topics_llama(sizes.layers))
    with _timed(seconds, "simulate_language"):
        streamed = stream(written, setup)
    demo.document = {
        "schema": "signbook.demo/1",
        "file": str(files["ssvq"]),
        "accuracy": accuracy,
        "bits_per_weight": {arm: i["bits_per_weight"] for arm, i in demo.inspections.items()},
        "simulate": measured,
        "language": language.document | {"file": str(written), "simulate": streamed},
        "seconds": seconds,
    }
    write_text(demo.report, render_demo(demo, seed=seed))
    if json_path is not None:
        write_json(json_path, demo.document)
    return demo


def headline(document: dict[str, Any]) -> list[tuple[str, str]]:
    """Rows of the demo's table: what a reader looks for first, ready to print."""
    accuracy, bits = document["accuracy"], document["bits_per_weight"]
    measured = document["simulate"]
    compressed, int8 = measured["runs"]["compressed"], measured["runs"]["int8"]
    limit = 8 / bits["ssvq"]
    share = measured["speedup"] / limit
    exact = "yes" if _exact(measured) else "NO"
    language = document["language"]["simulate"]
    again = "bit for bit" if _exact(language) else "DIFFERENT"
    count = len(language["runs"]["compressed"]["layers"])
    return [
        ("test accuracy, fp32", f"{accuracy['fp32']:.2%}"),
        ("test accuracy, SSVQ", f"{accuracy['ssvq_clustered']:.2%} clustered, "
                                f"{accuracy['ssvq']:.2%} fine-tuned"),
        ("test accuracy, VQ (control)", f"{accuracy['vq_clustered']:.2%} clustered, "
                                        f"{accuracy['vq']:.2%} fine-tuned"),
        ("bits per weight", f"SSVQ {bits['ssvq']:.3f}, VQ {bits['vq']:.3f}, all bytes counted"),
        ("bytes read on the bus", f"{compressed['bytes_read']:,} (int8: {int8['bytes_read']:,})"),
        ("cycles", f"{compressed['cycles']:,} (int8: {int8['cycles']:,})"),
        ("int8 bytes / compressed bytes", f"{measured['traffic_ratio']:.3f}"),
        ("speed-up over int8, measured in RTL", f"{measured['speedup']:.3f}x"),
        ("limit 8 / bits per weight", f"{limit:.3f}x, reached to {share:.1%}"),
        ("RTL gives what numpy gives, bit for bit", exact),
        (f"the language model's {count} layers in RTL", f"{language['speedup']:.3f}x, {again}"),
    ]  # fmt: skip


def _exact(measured: dict[str, Any]) -> bool:
    return all(run["bit_exact"] for run in measured["runs"].values())


def language_rows(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of the language model's table, one an arm: on topics that no training saw."""
    language = document["language"]
    return [
        {
            "arm": name,
            "bits per weight": language["bits_per_weight"].get(arm, 32.0),
            "nats per token": language[arm],
            "above fp32": language[arm] - language["fp32"],
        }
        for arm, name in NAMES.items()
    ]


def samples(document: dict[str, Any]) -> list[tuple[str, str]]:
    """What each arm of the language model writes behind the same words."""
    return [(name, document["language"]["samples"][arm]) for arm, name in NAMES.items()]


def render_demo(demo: Demo, *, seed: int) -> str:
    """Render the demo's report as one HTML page that needs no other file."""
    document = demo.document
    runs = document["simulate"]["runs"]
    names = [layer["name"] for layer in runs["compressed"]["layers"]]
    figures = {
        "accuracy": plots.accuracy_bars(document["accuracy"]),
        "training": plots.training_curves(
            {arm: result.losses for arm, result in demo.training.items()},
            [signs.changed for signs in demo.training["ssvq"].signs],
        ),
        "nats": plots.loss_bars({arm: document["language"][arm] for arm in NAMES}),
        "language": plots.training_curves(
            {arm: result.losses for arm, result in demo.language.items()},
            [signs.changed for signs in demo.language["ssvq"].signs],
        ),
        "bytes": plots.bytes_per_layer(
            names, {run: [row["bytes_read"] for row in one["layers"]] for run, one in runs.items()}
        ),
        "cycles": plots.cycles_per_layer(
            names,
            {
                run: [{"busy": row["busy_cycles"], **row["stall_cycles"]} for row in one["layers"]]
                for run, one in runs.items()
            },
        ),
    }
    return render(
        "demo.html.j2",
        document=document,
        headline=headline(document),
        language_rows=language_rows(document),
        samples=samples(document),
        figures=figures,
        inspections=demo.inspections,
        training=demo.training,
        settings=settings,
        versions=versions(),
        seed=seed,
    )


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[name] = round(time.perf_counter() - start, 3)


def _require_lossless(model: nn.Module, path: Path, fresh: nn.Module) -> None:
    """Read ``path`` back and require the weights that ``model`` computes with, bit for bit."""
    loaded = dict(vq.load(path, into=fresh).named_modules())
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, torch.Tensor) and not torch.equal(weight, loaded[name].weight):
            raise SignbookError(f"{path}: layer {name!r} must load with the bits that were saved")
