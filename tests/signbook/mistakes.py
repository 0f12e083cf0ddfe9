"""Mistakes that people make with the command line: a folder of good and bad files, and commands.

Every command is drawn from a seed: its options take good values mostly, and bad ones often enough.
"""

import json
import os
import random
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
import yaml

import vq
from signbook.naming import resolve_model
from tests.hwsim.programs import SMALL

__all__ = ["command", "furnish"]

MODELS = """
import sys
import torch
from torch import nn


def good(width=16):
    return nn.Sequential(nn.Linear(width, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 8))


def tokens():
    return nn.Sequential(nn.Embedding(32, 16), nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 32))


def convolution():
    picture = nn.Unflatten(1, (1, 4, 4))
    return nn.Sequential(picture, nn.Conv2d(1, 8, 3), nn.Flatten(), nn.Linear(32, 8))


def empty():
    return nn.Sequential()


def relu():
    return nn.Sequential(nn.ReLU())


def alone():
    return nn.Linear(16, 8)


def nan():
    model = good()
    model[0].weight.data[0, 0] = float("nan")
    return model


def huge():
    model = good()
    model[0].weight.data[0, 0] = 1e38
    return model


def zeros():
    model = good()
    for parameter in model.parameters():
        parameter.data.zero_()
    return model


def complex_numbers():
    model = good()
    model.register_buffer("table", torch.ones(2, dtype=torch.complex64))
    return model


def weight_norm():
    model = good()
    nn.utils.parametrizations.weight_norm(model[0])
    return model


def lazy():
    return nn.Sequential(nn.LazyLinear(8))


def meta():
    with torch.device("meta"):
        return good()


def compressed():
    import vq
    model = good()
    vq.compress_(model, vq.Recipe({"0": vq.Int8()}), progress=False)
    return model


def brackets():
    model = nn.Sequential()
    model.add_module("fc[/q]", nn.Linear(16, 8))
    return model


def half():
    return good().half()


def needs(width):
    return good(width)


def text():
    return "no model"


def fails():
    raise RuntimeError("two\\nlines [of] text")


def leaves():
    sys.exit(3)


class Raises(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(16, 8)

    def forward(self, x):
        raise ValueError("forward\\nfails")


def raises():
    return Raises()


class Dictionary(Raises):
    def forward(self, x):
        return {"a": self.fc(x)}


def dictionary():
    return Dictionary()


constant = 3
"""

DATA = """
import torch
from signbook.tasks import Classification, Denoising, Embedding, LanguageModelling


def batches(n=3, size=8, width=16):
    rng = torch.Generator().manual_seed(0)
    return [
        (torch.randn(size, width, generator=rng), torch.randint(8, (size,), generator=rng))
        for _ in range(n)
    ]


def good():
    return Classification(batches())


def ones():
    return Classification(batches(size=1))


def none():
    return Classification([])


def no_rows():
    return Classification(batches(size=0))


def wide():
    return Classification(batches(width=17))


def scalar():
    return Classification([(torch.tensor(1.0), torch.tensor(1))])


def nan():
    found = batches()
    found[1][0][0, 0] = float("nan")
    return Classification(found)


def beyond():
    return Classification([(x, y + 100) for x, y in batches()])


def negative():
    return Classification([(x, y - 100) for x, y in batches()])


def one_hot():
    return Classification([(x, torch.nn.functional.one_hot(y, 8)) for x, y in batches()])


def column():
    return Classification([(x, y[:, None]) for x, y in batches()])


def floats():
    return Classification([(x, y.float()) for x, y in batches()])


def integers():
    return Classification([(x.long(), y) for x, y in batches()])


def doubles():
    return Classification([(x.double(), y) for x, y in batches()])


def texts():
    return Classification([("one", "two")])


def threes():
    return Classification([(x, y, y) for x, y in batches()])


def numbers():
    return Classification([1, 2, 3])


def nothing():
    return Classification(None)


def named():
    return Classification([({"input": x}, y) for x, y in batches()])


def misnamed():
    return Classification([({"pixels": x}, y) for x, y in batches()])


def generator():
    return Classification(batch for batch in batches())


class Broken:
    def __len__(self):
        return 3

    def __iter__(self):
        yield batches()[0]
        raise OSError("the disk\\nis gone")


def broken():
    return Classification(Broken())


def uneven():
    return Classification([*batches(), *batches(width=5)])


def language():
    tokens = torch.arange(24).reshape(2, 12) % 32
    scored = torch.ones(2, 12, dtype=torch.bool)
    scored[:, 0] = False
    return LanguageModelling([(tokens, scored)])


def beyond_vocabulary():
    tokens = torch.arange(24).reshape(2, 12) * 100
    return LanguageModelling([(tokens, torch.ones(2, 12, dtype=torch.bool))])


def embedding():
    return Embedding([x for x, _ in batches()])


def denoising():
    return Denoising([(x, torch.randn(8, 8)) for x, _ in batches()])


def task():
    return batches()


def fails():
    raise KeyError("gone")
"""

MEMORY = """[dram_structure]
protocol = DDR4
bankgroups = 4
"""


def furnish(folder: Path) -> None:
    """Put good and bad files of every kind into ``folder``."""
    (folder / "mistaken_models.py").write_text(MODELS)
    (folder / "mistaken_data.py").write_text(DATA)
    (folder / "not_python.py").write_text("def factory(:\n")
    (folder / "a folder").mkdir()
    (folder / "a folder" / "note.txt").write_text("keep me\n")
    (folder / "empty").touch()
    (folder / "words").write_text("some words, of no kind\n")
    (folder / "binary").write_bytes(random.Random(0).randbytes(3000))
    (folder / "dangling").symlink_to("nowhere")
    (folder / "circle").symlink_to("circle")
    here = Path.cwd()
    os.chdir(folder)
    try:
        _checkpoints(folder)
        _containers(folder)
    finally:
        os.chdir(here)
    _texts(folder)
    _documents(folder)
    np.save(folder / "rom.npy", np.random.default_rng(1).integers(0, 128, (16, 8)).astype(np.int8))
    np.save(folder / "floats.npy", np.zeros((16, 8)))
    np.save(folder / "cube.npy", np.zeros((2, 2, 2), np.int8))
    np.save(folder / "objects.npy", np.array([{}, []], object), allow_pickle=True)
    _damage(folder, "rom.npy")


def _damage(folder: Path, name: str) -> None:
    """Beside a good file, put one cut short, one with a flipped bit, and links to it."""
    data = (folder / name).read_bytes()
    (folder / f"short-{name}").write_bytes(data[: len(data) * 2 // 3])
    (folder / f"head-{name}").write_bytes(data[:11])
    for at in (4, len(data) // 3, len(data) - 9):
        flipped = bytearray(data)
        flipped[at] ^= 4
        (folder / f"flip{at}-{name}").write_bytes(flipped)
    (folder / f"link-{name}").symlink_to(name)
    os.link(folder / name, folder / f"hard-{name}")


def _checkpoints(folder: Path) -> None:
    torch.manual_seed(0)
    state = resolve_model("py:mistaken_models:good").state_dict()
    torch.save(state, "w.pt")
    torch.save({f"module.{k}": v for k, v in state.items()}, "prefixed.pt")
    torch.save({f"x{k}": v for k, v in state.items()}, "strange.pt")
    torch.save({k: v for k, v in state.items() if k != "0.bias"}, "lacking.pt")
    torch.save({k: v.repeat(2) if v.ndim == 1 else v for k, v in state.items()}, "shapes.pt")
    torch.save({"state_dict": state, "epoch": 3}, "nested.pt")
    torch.save([1, 2, 3], "list.pt")
    torch.save(torch.nn.Linear(2, 2), "module.pt")
    torch.save({1: state["0.bias"]}, "numbers.pt")
    safetensors.torch.save_file(state, "w.safetensors")
    _damage(folder, "w.pt")
    _damage(folder, "w.safetensors")


def _containers(folder: Path) -> None:
    torch.manual_seed(0)
    model = resolve_model("py:mistaken_models:good", "w.pt")
    recipe = vq.Recipe({"*": vq.SSVQ(d=8, k=8, tile_outputs=SMALL.rows)})
    vq.compress_(model, recipe, progress=False)
    vq.save(model, "c.vq.safetensors")
    _damage(folder, "c.vq.safetensors")


def _texts(folder: Path) -> None:
    good = "'*': {method: ssvq, d: 8, k: 8}\n"
    files: dict[str, str | bytes] = {
        "r.yaml": good,
        "int8.yaml": "'*': {method: int8}\n",
        "parity.yaml": "'*': {method: ssvq, d: 8, k: 8, parity: true}\n",
        "book.yaml": "'*': {method: ssvq, codebook: rom.npy}\n",
        "nobook.yaml": "'*': {method: ssvq, codebook: gone.npy}\n",
        "rombook.yaml": "'*': {method: ssvq, codebook: 'rom:rom.npy'}\n",
        "norm.yaml": "'0': {method: ssvq, d: 8, k: 8, scale: norm}\n",
        "bom.yaml": b"\xef\xbb\xbf" + good.encode(),
        "utf16.yaml": good.encode("utf-16"),
        "latin.yaml": "'*': {method: ssvq} # \xe9\n".encode("latin-1"),
        "twice.yaml": good + good,
        "key.yaml": "? [a, b]\n: {method: int8}\n",
        "number.yaml": "1.10: {method: int8}\nno: null\n",
        "unknown.yaml": "'*': {method: ssvg}\n",
        "setting.yaml": "'*': {method: ssvq, kk: 8, d: eight}\n",
        "types.yaml": "'*': {method: [ssvq], d: {a: 1}, k: null}\n",
        "infinite.yaml": "'*': {method: ssvq, d: .inf, k: .nan}\n",
        "bool.yaml": "'*': {method: ssvq, d: true, tile_outputs: 1.5}\n",
        "large.yaml": "'*': {method: ssvq, d: 64, k: 65536}\n",
        "nomatch.yaml": "nothing.*: {method: int8}\n",
        "regex.yaml": "'re:(': {method: int8}\n",
        "nothing.yaml": "",
        "null.yaml": "null\n",
        "list.yaml": "[1, 2]\n",
        "scalar.yaml": "7\n",
        "tag.yaml": "'*': !!python/object/apply:os.system ['touch hacked']\n",
        "anchor.yaml": "a: &a {method: int8}\n'*': {<<: *a, tile_outputs: 16}\n",
        "self.yaml": "&a '*': *a\n",
        "tab.yaml": "'*':\n\t{method: int8}\n",
        "documents.yaml": good + "---\n" + good,
        "deep.yaml": "[" * 3000 + "]" * 3000,
        "bomb.yaml": "a: &a [x,x,x,x,x,x,x,x,x]\n"
        + "".join(f"{b}: &{b} [{','.join(['*' + a] * 9)}]\n" for a, b in pairwise("abcdefghi")),
        "control.yaml": "'*': {method: \"a\x07b\"}\n",
        "space.yaml": "accelerator:\n  array: [8x8]\nmemory: ['ideal:latency=4']\n",
        "space2.yaml": "axes: 3\n",
        "t.csv": "Layer name, M, N, K\nfc1, 4, 64, 64\n",
        "conv.csv": "Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, "
        "Num Filter, Strides,\nc1, 8, 8, 3, 3, 4, 8, 1,\n",
        "bom.csv": b"\xef\xbb\xbfLayer name, M, N, K\nfc1, 4, 64, 64\n",
        "header.csv": "Layer name, M, N, K\n",
        "short.csv": "Layer name, M, N, K\nfc1, 4\n",
        "minus.csv": "Layer name, M, N, K\nfc1, -4, 0, 64\n",
        "words.csv": "Layer name, M, N, K\nfc1, four, 64, 64\n",
        "vast.csv": "Layer name, M, N, K\nfc1, 99999999999999, 9999999999999, 64\n",
        "quote.csv": 'Layer name, M, N, K\n"fc1, 4, 64, 64\n',
        "nul.csv": b"Layer name, M, N, K\nfc\x00, 4, 64, 64\n",
        "m.ini": MEMORY,
        "twice.ini": MEMORY + MEMORY,
        "sectionless.ini": "protocol = DDR4\n",
        "percent.ini": "[dram_structure]\nprotocol = %(x)s\n",
        "two.ini": "NUM_BANKS=8 ; number\nNUM_ROWS=16384\n",
        "small.yaml": yaml.safe_dump(_small()),
        "clock.yaml": yaml.safe_dump(_small() | {"clock_mhz": 500}),
        "badarray.yaml": "array: 8by8\n",
        "negative.yaml": "array: -8x8\nbus_bits: -1\n",
        "nested.yaml": "array: {rows: 8}\nbus_bits: [64]\n",
        "vast.yaml": "array: 100000x100000\n",
        "powers.yaml": "bus_bits: 65\naccumulators: 3\n",
    }  # fmt: skip
    for name, content in files.items():
        raw = content if isinstance(content, bytes) else content.encode()
        (folder / name).write_bytes(raw)


def _small() -> dict[str, object]:
    settings = {"array": f"{SMALL.rows}x{SMALL.columns}", **SMALL.to_mapping()}
    return {k: v for k, v in settings.items() if k not in ("rows", "columns")}


def _documents(folder: Path) -> None:
    documents: dict[str, object] = {
        "list.json": [],
        "number.json": 3,
        "none.json": {},
        "plan.json": {"schema": "signbook.plan/1"},
        "fields.json": {"schema": "hwsim.estimate/1"},
        "kinds.json": {"schema": "hwsim.estimate/1", "layers": 3, "file": [], "memory": None},
        "simulate.json": {"schema": "hwsim.simulate/1", "layers": [{}]},
        "sweep.json": {"schema": "hwsim.sweep/1", "points": [1]},
        "future.json": {"schema": "hwsim.estimate/99"},
        "null.json": {"schema": None},
        "schema.json": {"schema": ["hwsim.estimate/1"]},
    }
    for name, document in documents.items():
        (folder / name).write_text(json.dumps(document))
    (folder / "cut.json").write_text('{"schema": "hwsim.estimate/1", ')
    (folder / "nan.json").write_text('{"schema": "hwsim.estimate/1", "layers": [NaN]}')
    (folder / "deep.json").write_text("[" * 100_000)
    (folder / "utf.json").write_bytes(b'{"schema": "\xff"}')


class _Draw:
    """Good or bad values of options, from one seed and the files of a folder."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.random = random.Random(seed)
        self.names = sorted(path.name for path in folder.iterdir())

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def one(self, good: list[str], bad: list[str], share: float = 0.25) -> str:
        return self.random.choice(bad if self.chance(share) else good)

    def file(self, good: list[str], kinds: tuple[str, ...], share: float = 0.3) -> str:
        """A file: good, of this kind though bad, or any at all."""
        alike = [name for name in self.names if name.endswith(kinds)]
        odd = [*self.names, "missing", "no/such/file", "", ".", "..", "/dev/null", "/", "x" * 300]
        pool = self.random.choice([alike, alike, odd])
        return self.one(good, pool, share)

    def factory(self, module: str, good: list[str], others: list[str]) -> str:
        source = MODELS if module.endswith("models") else DATA
        own = [line[4:].partition("(")[0] for line in source.splitlines() if line[:4] == "def "]
        pool = [f"py:{module}:{name}" for name in own] if self.chance(0.8) else others
        return self.one([f"py:{module}:{name}" for name in good], pool, 0.4)

    def model(self) -> str:
        others = [
            "py:mistaken_models", "py:mistaken_models:", "py::good", "py:", "", "good",
            "py:gone:good",
            "py:not_python:factory", "py:mistaken_models:gone", "py:mistaken_models:constant",
            "py:mistaken_models:good?width=0", "py:mistaken_models:good?width=x",
            "py:mistaken_models:good?depth=1", "py:mistaken_models:good?width", "py:a/b:c",
            "py:mistaken_models.good:x", "c.vq.safetensors", "py:..:good",
            "py:.mistaken_models:good",
            "py:mistaken_models:good?width=-3", "py:mistaken_models:good?width=none", "PY:x:y",
            "timm:",
        ]  # fmt: skip
        return self.factory("mistaken_models", ["good", "good", "good", "tokens"], others)

    def data(self) -> str:
        others = [
            "py:mistaken_data",
            "py:mistaken_data:gone",
            "mistaken_data:good",
            "",
            "words",
            "py:mistaken_models:good",
            "py:mistaken_data:good?limit=3",
            "py:mistaken_data:batches",
        ]
        return self.factory("mistaken_data", ["good"], others)

    def number(self, good: list[str]) -> str:
        bad = [
            "-1",
            "0",
            "1",
            "1000000000000",
            "nan",
            "inf",
            "-inf",
            "1e400",
            "x",
            "",
            "1.5",
            "1e-300",
        ]
        return self.one(good, bad, 0.35)

    def weights(self) -> list[str]:
        found = self.file(["w.pt", "w.safetensors"], (".pt", "w.safetensors"), 0.4)
        return ["--weights", found] if self.chance(0.4) else []

    def recipe(self) -> str:
        return self.file(["r.yaml", "int8.yaml", "parity.yaml"], (".yaml",), 0.4)

    def container(self) -> str:
        return self.file(["c.vq.safetensors"], ("c.vq.safetensors",), 0.4)

    def out(self, file: bool = False) -> str:
        bad = [
            ".", "a folder", "words", "c.vq.safetensors", "link-c.vq.safetensors", "w.pt", "r.yaml",
            "hard-c.vq.safetensors", "dangling", "circle", "words/below", "/dev/null", "/proc/x",
            "",
            "a folder/../c.vq.safetensors", "mistaken_models.py", "t.csv", "x" * 300, "none.json",
            "deep/er/out",
        ]  # fmt: skip
        return self.one(["new-file"] if file else ["new-out", "new/out"], bad, 0.25)

    def json(self) -> list[str]:
        if self.chance(0.4):
            return []
        return ["--json", "new.json" if self.chance(0.6) else self.out(file=True)]

    def device(self) -> list[str]:
        bad = ["cuda", "cuda:9", "tpu", "", "meta", "cpu:x", "auto"]
        return ["--device", self.one(["cpu"], bad, 0.15)]

    def accelerator(self) -> list[str]:
        found: list[str] = []
        if self.chance(0.7):
            found += ["--accelerator", self.file(["small.yaml", "clock.yaml"], (".yaml",), 0.3)]
        if self.chance(0.4):
            setting = self.one(
                ["array=8x8", "clock_mhz=500", "bus_bits=64"],
                ["array=0x8", "array=8", "array=-8x-8", "bus_bits=65", "bus=64", "=", "array", "",
                 "clock_mhz=nan", "clock_mhz=0", "clock_mhz=-1", "bus_bits=1e9", "d_max=0",
                 "accumulators=99999999999999999999", "array=8x8x8", "input_bytes=0",
                 "int8_only=2"],
                0.6,
            )  # fmt: skip
            found += ["--set", setting]
        if self.chance(0.2):
            found += ["--rom", self.file(["rom.npy"], (".npy",), 0.5)]
        return found

    def memory(self) -> str:
        bad = [
            "ddr5", "ddr4-2400:mapping=x", "ideal:bytes_per_cycle=0", "ideal:latency=-1", "ideal:",
            "ideal:bytes_per_cycle=nan", "ddr4-2400:clock_mhz=0", "", ":", "ideal:latency",
            "hbm2:,",
            "ideal:bytes_per_cycle=8,latency=99999999999999999999", "ideal:speed=1",
            "lpddr4-3200:clock_mhz=x",
        ]  # fmt: skip
        bad += [name for name in self.names if name.endswith(".ini")] + [
            "words",
            "binary",
            "a folder",
        ]
        return self.one(["ideal:bytes_per_cycle=8,latency=4", "ddr4-2400", "m.ini"], bad, 0.35)

    def methods(self) -> str:
        return self.one(["none", "int8"], ["int9", "", ",", "int8,int8", "none,int8", "INT8"], 0.3)

    def rows(self) -> list[str]:
        return ["--rows", self.number(["1", "2"])] if self.chance(0.4) else []


def _plan(d: _Draw) -> list[str]:
    return [d.model(), "--recipe", d.recipe(), *d.weights(), *d.json()]


def _compress(d: _Draw) -> list[str]:
    found = [d.model(), "--recipe", d.recipe(), "--out", d.out(), *d.weights(), *d.json()]
    if d.chance(0.5):
        found += ["--data", d.data()]
    if d.chance(0.4):
        found += ["--importance", d.one(["inputs", "gradients"], ["hessian", ""])]
    return found + (["--seed", d.number(["3"])] if d.chance(0.2) else [])


def _finetune(d: _Draw) -> list[str]:
    found = [d.model(), "--recipe", d.recipe(), "--out", d.out(), "--data", d.data(), *d.weights()]
    found += ["--epochs", d.number(["1", "2"] if d.chance(0.9) else ["0"])] if d.chance(0.9) else []
    for flag in ("--blockwise", "--teacher", "--fixed-signs", "--resume", "--tensorboard"):
        found += [flag] if d.chance(0.12) else []
    for rate in ("--rate-signs", "--rate-codebooks", "--rate-rest", "--accumulate"):
        found += [rate, d.number(["1"])] if d.chance(0.12) else []
    found += ["--amp", d.one(["bf16"], ["fp16", ""])] if d.chance(0.1) else []
    if found.count("1000000000000") or "--epochs" not in found:
        found = [word.replace("1000000000000", "2") for word in found] + ["--epochs", "1"]
    return found + d.device() + d.json()


def _quantize(d: _Draw) -> list[str]:
    found = [d.model(), "--out", d.out(), *d.weights()]
    found += ["--data", d.data()] if d.chance(0.9) else []
    method = d.one(["rtn", "gptq", "gptaq", "gptq-r", "gptaq-r", "qep", "foem"], ["awq", ""], 0.1)
    found += ["--method", method] if d.chance(0.8) else []
    found += ["--bits", d.number(["2", "3", "4", "8"])] if d.chance(0.4) else []
    found += ["--group", d.number(["4", "8", "16"])] if d.chance(0.4) else []
    found += ["--recipe", d.recipe()] if d.chance(0.2) else []
    for option in ("--alpha", "--alpha2", "--beta", "--damping", "--batches", "--activation-bits"):
        found += [option, d.number(["1"])] if d.chance(0.1) else []
    for flag in ("--asymmetric", "--clip", "--activation-order", "--dynamic-groups", "--no-measure",
                 "--rotate", "--offload", "--resume"):  # fmt: skip
        found += [flag] if d.chance(0.12) else []
    found += ["--mode", d.one(["allw", "org"], ["x"])] if d.chance(0.1) else []
    return found + d.device() + d.json()


def _codebook(d: _Draw) -> list[str]:
    found = ["build", *(d.model() for _ in range(d.random.choice([1, 2, 2])))]
    found += ["--out", d.out(file=True), *d.weights(), *d.json()]
    found += ["--recipe", d.recipe()] if d.chance(0.3) else []
    found += ["--format", d.one(["vq", "ssvq"], ["int8", ""])] if d.chance(0.3) else []
    for option, good in (("--d", ["2", "4"]), ("--k", ["8"]), ("--samples", ["50"])):
        found += [option, d.number(good)] if d.chance(0.4) else []
    found += ["--by", d.one(["kde", "kmeans", "subsample"], ["x", ""])] if d.chance(0.4) else []
    return found + (["--bandwidth", d.number(["0.2"])] if d.chance(0.2) else [])


def _inspect(d: _Draw) -> list[str]:
    return [d.container(), *d.json()]


def _eval(d: _Draw) -> list[str]:
    found = [d.model(), "--data", d.data(), *d.weights(), *d.device()]
    found += ["--file", d.container()] if d.chance(0.6) else []
    for flag in ("--reference", "--integer", "--packed"):
        found += [flag] if d.chance(0.25) else []
    found += ["--activation-bits", d.number(["4", "8"])] if d.chance(0.2) else []
    found += ["--rom", d.file(["rom.npy"], (".npy",), 0.5)] if d.chance(0.1) else []
    return found + d.json()


def _generate(d: _Draw) -> list[str]:
    found = [d.model(), "--prompt", d.one(["abc"], ["", " ", "\x1b", "é" * 99], 0.3), *d.weights()]
    found += ["--file", d.container()] if d.chance(0.5) else []
    found += ["--packed"] if d.chance(0.4) else []
    found += ["--activations", d.one(["int16"], ["int4", ""])] if d.chance(0.2) else []
    found += ["--tokenizer", d.one(["stories260k"], ["gone", "a folder", ""], 0.3)]
    found += ["--tokens", d.number(["2"])] if d.chance(0.5) else ["--tokens", "3"]
    found += ["--temperature", d.number(["1"])] if d.chance(0.3) else []
    return [word.replace("1000000000000", "9") for word in found] + d.device() + d.json()


def _export(d: _Draw) -> list[str]:
    kinds = ["dense", "dram", "onnx", "compressed-tensors", "gptq"]
    found = [d.container(), "--to", d.one(kinds, ["tflite", ""], 0.1), "--out", d.out(file=True)]
    found += ["--dtype", d.one(["fp32", "bf16", "fp16"], ["int8", ""])] if d.chance(0.2) else []
    found += ["--model", d.model()] if d.chance(0.5) else []
    found += ["--data", d.data()] if d.chance(0.5) else []
    found += ["--base", d.number(["4096"])] if d.chance(0.2) else []
    found += ["--dense-others"] if d.chance(0.2) else []
    return found + d.json()


def _integer(d: _Draw) -> list[str]:
    found = [d.model(), "--file", d.container(), "--data", d.data()]
    found += ["--out", d.out(file=True)]  # without, the file itself is changed
    found += ["--choice", d.one(["mse", "percentile", "max"], ["min", ""])] if d.chance(0.3) else []
    found += ["--batches", d.number(["1"])] if d.chance(0.2) else []
    return found + d.json()


def _rtl(d: _Draw) -> list[str]:
    found = ["--out", d.out(), *d.accelerator(), *d.json()]
    return found + (["--weights-only"] if d.chance(0.4) else [])


def _simulate(d: _Draw) -> list[str]:
    found = [d.container(), *d.accelerator(), "--memory", d.memory(), *d.rows()]
    return [*found, "--methods", d.methods(), *d.json()]


def _target(d: _Draw) -> str:
    bad = [
        "deit-tin", "llama-2-7b:m=0", "llama-2-7b:context=x", "minilm-l6:tokens=-1", "resnet-20:",
        "",
        "minilm-l6:tokens=1.5", "minilm-l6:words=3", ":",
        *[n for n in d.names if n.endswith(".csv")],
        "words", "binary", "a folder",
    ]  # fmt: skip
    return d.one(["t.csv", "conv.csv"], bad, 0.4) if d.chance(0.5) else d.container()


def _shapes(d: _Draw) -> str:
    bad = ["ssvq:d=0", "ssvq:k=x", "ssvq:", "int9", "", "ssvq:d=8,d=8", "vq:scale=x", *d.names]
    return d.one(["ssvq:d=8,k=16", "int4", "int8.yaml"], bad, 0.3)


def _estimate(d: _Draw) -> list[str]:
    found = [_target(d), *d.accelerator(), "--memory", d.memory(), *d.rows()]
    found += ["--recipe", _shapes(d)] if d.chance(0.5) else []
    return [*found, "--methods", d.methods(), *d.json()]


def _sweep(d: _Draw) -> list[str]:
    found = ["--out", d.out(), "--workers", "1"]
    found += [_target(d)] if d.chance(0.9) else []
    found += ["--space", d.file(["space.yaml"], (".yaml",), 0.4)] if d.chance(0.4) else []
    found += ["--set", d.one(["array=8x8"], ["array=", "x=1", "array=8x8,8x8", "bus_bits=65", ""])]
    found += ["--memory", d.memory()] if d.chance(0.5) else []
    found += ["--recipe", _shapes(d)] if d.chance(0.4) else []
    found += ["--rows", d.number(["1"])] if d.chance(0.3) else []
    found += ["--engine", d.one(["model"], ["rtx", ""])] if d.chance(0.2) else []
    found += ["--objective", d.one(["cycles"], ["speed", ""])] if d.chance(0.2) else []
    found += ["--search", d.one(["2"], ["0", "-1", "x"])] if d.chance(0.2) else []
    found += ["--resume"] if d.chance(0.1) else []
    return found + d.json()


def _report(d: _Draw) -> list[str]:
    files = [n for n in d.names if n.endswith(".json")] + d.names
    pages = [d.random.choice(files) for _ in range(d.random.choice([0, 1, 1, 1, 2]))]
    return [*pages, "--out", d.out(file=True)]


_COMMANDS: dict[str, Callable[[_Draw], list[str]]] = {
    "plan": _plan, "compress": _compress, "finetune": _finetune, "quantize": _quantize,
    "inspect": _inspect, "eval": _eval, "export": _export, "integer": _integer, "rtl": _rtl,
    "simulate": _simulate, "estimate": _estimate, "sweep": _sweep, "report": _report,
    "codebook": _codebook, "generate": _generate,
}  # fmt: skip


def command(seed: int, folder: Path) -> list[str]:
    """Draw a command line for ``folder``; sometimes a word of it is lost, doubled, or moved."""
    draw = _Draw(seed, folder)
    name = draw.random.choice(list(_COMMANDS))
    words = [name, *_COMMANDS[name](draw)]
    if draw.chance(0.06):
        at = draw.random.randrange(len(words))
        words[at : at + 1] = draw.random.choice([[], [words[at]] * 2, ["--unknown"], ["--help"]])
    return words
