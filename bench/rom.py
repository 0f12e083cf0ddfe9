"""VQ4ALL's codebook in ROM, beside codebooks in RAM: networks one after another on one instance.

ResNet-20, ResNet-44, ResNet-8 as integer networks, and the linears of a diffusion transformer's
blocks (digits, 16 rows, its tokens), all VQ of one d and k; the Tiniest CNN has norms and gates
that integer graphs lack. Arms: ``rom`` and ``ram`` have the universal codebook of ``vq4all.py``
(seed 0) in all layers, in ROM or loaded by every inference; ``ram once`` loads it in the first one
and keeps it. In ``own`` every network has a codebook of its own, which is kept until another
network's turn, in ``per-layer`` every layer. With d=4, ``rom`` and ``ram`` run what VQ4ALL has
built from that book: the ResNets that ``vq4all.py`` left behind (``nearest`` counts those that it
did not), and the transformer, trained here by 200 steps on its own sampling. Elsewhere, codewords
are the nearest: nothing that is counted depends on which they are.

``N networks``: the first N, one inference each, from one reset and in one memory image, all values
bit for bit those of numpy. Bytes and cycles are the RTL's, 16x16 at 128 bits, ideal memory of 16
bytes a cycle; ``book_bytes`` are held against the register of their channel, ``book_stalls`` are
cycles in which the array waited for a codebook. By the cycle model: ``narrow_cycles`` with 1 byte a
cycle, ``dram_cycles`` and ``energy_uj``, the memory's, with LPDDR4-3200 and a clock of 500 MHz.

``N in turn``: 64 inferences by N networks of ResNet-8's shapes, the smallest, so that switching
counts most; and all with d=8, k=1024, without ``per-layer``: by the cycle model, which counts what
the RTL counts.

``decoder``: cells of an ECP5 by yosys, without DSP; a ROM is logic, a RAM block RAM. Of the
instance above (k up to 256, d 4 to 16), and of one for k=64, d=4 alone.

--quick: ResNet-8 and the transformer, d=4, up to four networks in turn, no cells.
"""

import copy
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from harness import Bench
from torch import nn
from vq4all import BOOKS, LEARNT
from vq4all import NETWORKS as SHARING

import vq
from hwsim import DEFAULT_MEMORY, estimate_turns, simulate_turns
from rtl import AcceleratorConfig, rom_text
from rtl.build.report import decoder_area
from signbook.data.files import data_file
from signbook.data.images import ImageBatches, Images, load_cifar10_exact
from signbook.diffusion import digits_dit
from signbook.diffusion.door import trajectories
from vq.container import open_container, plan_file
from vq.container.writer import write_planned
from vq.formats.book import Book
from vq.integer import add_integer
from vq.methods.vq4all import vq4all_
from vq.universal.door import UniversalCodebook

RAM, LARGE = AcceleratorConfig(), AcceleratorConfig(index_bits_max=10)
KIND, LARGE_KIND = BOOKS["vq"], vq.VQ(d=8, k=1024)
DRAM, NARROW = "lpddr4-3200:clock_mhz=500", "ideal:bytes_per_cycle=1,latency=20"
DIT, TOKENS = "dit", 16
NETWORKS = ("resnet20", "resnet44", "resnet8", DIT)
QUICK = ("resnet8", DIT)
SMALL = "resnet8"
#: Where an arm's codebooks come from, and whether one that is loaded is kept.
ARMS = {
    "rom": ("rom", True),
    "ram once": ("ram", True),
    "ram": ("ram", False),
    "own": ("own", True),
    "per-layer": ("per-layer", True),
}
TURNS, IN_TURN = 64, (1, 2, 4, 16, 64)
RTL = "rtl"


class Study:
    """Files of all networks and arms in one format, each written when it is first asked for."""

    def __init__(self, folder: Path, names: tuple[str, ...], kind: vq.VQ, ram: AcceleratorConfig):
        self._folder, self.names, self._kind, self._ram = folder, names, kind, ram
        images = load_cifar10_exact("train")
        self._calibration = list(ImageBatches(Images(images.x[:256], images.y[:256]), batch=64))

    @cache  # noqa: B019 - there is one in a process
    def original(self, name: str) -> nn.Module:
        """A network before compression."""
        if name == DIT:
            return digits_dit().eval()
        load, path = SHARING[name]
        return load(data_file(path)).eval()

    @cache  # noqa: B019
    def book(self, *names: str, seed: int = 0) -> UniversalCodebook:
        """One codebook for some networks."""
        return vq.universal_codebook({n: self.original(n) for n in names}, self._kind, seed=seed)

    @property
    def universal(self) -> UniversalCodebook:
        """That of the networks that ``vq4all.py`` trains."""
        return self.book(*SHARING)

    def config(self, arm: str, **limits: int) -> AcceleratorConfig:
        """The instance of an arm, or one with other limits."""
        rom = rom_text(self.universal.integers) if arm == "rom" else ""
        return replace(self._ram, codebook_rom=rom, **limits)

    def book_in(self, source: str) -> Book:
        """The universal codebook, in ROM or not."""
        return Book.of(self.universal.integers, rom=source == "rom")

    def recipe(self, name: str, source: str, seed: int) -> vq.Recipe:
        """What all layers of a network become, or those of the transformer's blocks."""
        kind = self._kind
        if source == "own":
            kind = replace(kind, codebook=self.book(name, seed=seed).book)
        elif source != "per-layer":
            kind = replace(kind, codebook=self.book_in(source))
        return vq.Recipe({"blocks.*" if name == DIT else "*": kind})

    def compressed(self, name: str, source: str, seed: int = 0) -> nn.Module:
        """A network of which every sub-vector has its nearest codeword."""
        model, data = copy.deepcopy(self.original(name)), None if name == DIT else self._calibration
        recipe = self.recipe(name, source, seed)
        vq.compress_(model, recipe, calibration=data, seed=0, progress=False)
        return model

    @cache  # noqa: B019
    def learnt(self, name: str) -> Path | None:
        """What VQ4ALL has made of a network, with the universal codebook in the file."""
        if self._kind != KIND:
            return None
        path = LEARNT / f"{name}-vq4all-0.vq.safetensors"
        if name == DIT:
            path = self._folder / path.name
            model, teacher = self.compressed(name, "ram"), self.original(name)
            met = trajectories(model="py:signbook.diffusion:digits_dit", batch=24).batches
            vq4all_(model, met, teacher, loss=nn.functional.mse_loss, epochs=4, progress=False)
            vq.save(model, path)
        return path if path.exists() else None

    @cache  # noqa: B019
    def file(self, name: str, source: str, seed: int = 0) -> Path:
        """A network's file: with an integer graph, but for the transformer's linears."""
        path = self._folder / f"{name}-{source}-{seed}.vq.safetensors"
        learnt = self.learnt(name) if source in ("rom", "ram") else None
        if learnt is None:
            vq.save(self.compressed(name, source, seed), path)
        else:
            _with_book(learnt, path, self.book_in(source))
        if name != DIT:
            roms = self.config("rom").streamer.roms
            add_integer(path, self.original(name), self._calibration, rom=roms, progress=False)
        return path

    @cache  # noqa: B019
    def runs(self, arm: str, memory: str) -> list[dict[str, Any]]:
        """Runs of all networks one after another: in RTL, or by the model with a memory."""
        source, keep = ARMS[arm]
        paths = [self.file(name, source) for name in self.names]
        given: dict[str, Any] = {"config": self.config(arm), "keep": keep, "rows": TOKENS}
        if memory != RTL:
            return _runs(estimate_turns(paths, **given, memory=memory))
        counted = _runs(simulate_turns(paths, **given, check=True))
        if not all(run["bit_exact"] for run in counted):
            raise SystemExit(f"runs of {arm} must be bit-exact")
        return counted

    def networks(self, arm: str, count: int, engine: str) -> dict[str, float]:
        """What the first networks cost, one inference each."""
        narrow, dram = (self.runs(arm, memory)[:count] for memory in (NARROW, DRAM))
        own = ARMS[arm][0] in ("rom", "ram")
        nearest = sum(own and self.learnt(name) is None for name in self.names[:count])
        return _costs(self.runs(arm, engine)[:count]) | {
            "nearest": nearest,
            "narrow_cycles": sum(run["cycles"] for run in narrow),
            "dram_cycles": sum(run["cycles"] for run in dram),
            "energy_uj": sum(run["energy_pj"] for run in dram) / 1e6,
        }

    def in_turn(self, arm: str, count: int) -> dict[str, float]:
        """What all turns of so many networks cost."""
        source, keep = ARMS[arm]
        # Networks that follow each other have other codebooks, if they have their own.
        paths = [self.file(SMALL, source, at % 2 if source == "own" else 0) for at in range(count)]
        turns = [turn % count for turn in range(TURNS)]
        given: dict[str, Any] = {"config": self.config(arm), "keep": keep}
        wide, narrow = (
            _runs(estimate_turns(paths, turns, **given, memory=memory))
            for memory in (DEFAULT_MEMORY, NARROW)
        )
        return _costs(wide) | {"narrow_cycles": sum(run["cycles"] for run in narrow)}


def _with_book(source: Path, target: Path, book: Book) -> None:
    """Copy a file of one fixed codebook, which becomes ``book``: the same one, in ROM or not."""
    with open_container(source) as container:
        layers = [replace(e.geometry, codebook=book.tensor) for e in container.layers]
        plan = plan_file(layers, container.kept_shapes, container.provenance)
        write_planned(target, plan, container.tensor_bytes)


def _runs(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [turn["run"] for turn in document["turns"]]


def _costs(runs: list[dict[str, Any]]) -> dict[str, float]:
    by = [run["bytes_by"] for run in runs]
    kept = ("weights", "activations")
    return {
        "cycles": sum(run["cycles"] for run in runs),
        "book_stalls": sum(run["stall_cycles"]["codebook"] for run in runs),
        "book_bytes": sum(one["codebooks"] for one in by),
        "weight_bytes": sum(one["weights"] for one in by),
        "activation_bytes": sum(one["activations"] for one in by),
        "other_bytes": sum(
            value for one in by for name, value in one.items() if name not in (*kept, "codebooks")
        ),
        "bytes_read": sum(run["bytes_read"] for run in runs),
    }


def cells(config: AcceleratorConfig) -> dict[str, float]:
    """Cells of a decoder."""
    found = decoder_area(config)
    return {name: found[name] for name in ("luts", "ff", "bram")}


def main() -> None:
    """Measure every row and print the table."""
    bench = Bench("rom", __doc__, seeds=1)
    names = QUICK if bench.quick else NETWORKS
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "large").mkdir()
        study = Study(folder, names, KIND, RAM)
        measure(bench, study, "", ARMS, RTL, IN_TURN[: 3 if bench.quick else None])
        if not bench.quick:
            large = Study(folder / "large", names, LARGE_KIND, LARGE)
            measure(bench, large, " d=8 k=1024", [*ARMS][:-1], DEFAULT_MEMORY, IN_TURN)
            alone = {"index_bits_max": 6, "d_min": 4, "d_max": 4}
            for arm in ("rom", "ram"):
                bench.measure("decoder", arm, 0, partial(cells, study.config(arm)))
                run = partial(cells, study.config(arm, **alone))
                bench.measure("decoder k=64 d=4", arm, 0, run)
    bench.finish()


def measure(
    bench: Bench, study: Study, suffix: str, arms: Iterable[str], engine: str, turns: Iterable[int]
) -> None:
    """All rows of one format."""
    for count in range(1, len(study.names) + 1):
        for arm in arms:
            run = partial(study.networks, arm, count, engine)
            bench.measure(f"{count} networks{suffix}", arm, 0, run)
    for count in turns:
        for arm in arms:
            bench.measure(f"{count} in turn{suffix}", arm, 0, partial(study.in_turn, arm, count))


if __name__ == "__main__":
    main()
