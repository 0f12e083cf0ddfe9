"""Kernels for AArch64: built by a cross compiler, run under an emulator, the reference's bits."""

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.vq.container.samples import Sample, samples
from tests.vq.inference.layers import FORMS, inputs_of, same_bits, wanted, weight_of
from vq.inference import kernels, operator
from vq.inference.tiles import FORMS as NAMES
from vq.inference.tiles import Tiling

pytestmark = pytest.mark.slow
COMPILER, EMULATOR = "aarch64-linux-gnu-gcc", "qemu-aarch64"
DIGITS = {"int8": 1, "int16": 2, "exact": 0}
NEON, DOTPROD = (1 << list(kernels.ISAS).index(isa) for isa in ("neon", "dotprod"))


@dataclass(frozen=True)
class Case:
    sample: Sample
    tokens: int
    activations: str
    has_bias: bool
    threads: int

    @property
    def tiling(self) -> Tiling:
        return Tiling.of(self.sample.layer.geometry)

    @property
    def x(self) -> np.ndarray:
        return inputs_of(self.sample, self.tokens)

    @property
    def bias(self) -> np.ndarray | None:
        rng = np.random.default_rng(1)
        outputs = self.tiling.outputs
        return rng.standard_normal(outputs).astype(np.float32) if self.has_bias else None

    def written(self) -> Iterator[bytes]:
        """What the driver reads (cross.c)."""
        t, weight = self.tiling, weight_of(self.sample)
        layer = self.sample.layer
        call = self.tokens, DIGITS[self.activations], self.threads, layer.geometry.tile
        yield np.array([*t, NAMES.index(t.form), *call], np.int64).tobytes()
        scale = weight.scale.numpy()
        parts = [layer.stream, weight.tiles.numpy(), weight.codebook.numpy()]
        parts += [None, scale] if t.group else [scale, None]
        parts += [None if weight.zeros is None else weight.zeros.numpy(), self.bias, self.x]
        for part in parts:
            yield np.int64(-1 if part is None else part.nbytes).tobytes()
            yield b"" if part is None else part.tobytes()

    def check(self, found: np.ndarray, isa: str) -> np.ndarray:
        """Compare with the reference what the driver wrote, from here on; what is left of it."""
        t, weight = self.tiling, weight_of(self.sample)
        assert found[:8].view(np.int64) == (isa != "portable" and t.form not in ("planes", "bytes"))
        sizes = 8, 4 * self.tokens * t.outputs, t.outputs * t.inputs, t.nbytes
        _, y, rows, tiles, left = np.split(found, np.cumsum(sizes))
        y = y.copy().view(np.float32).reshape(self.tokens, t.outputs)
        if self.activations == "exact":
            x, w = self.x.astype(float), weight.rows(torch.arange(t.outputs)).double().numpy()
            near = 1e-5 * (abs(x) @ abs(w).T) + 1e-5 * (0 if self.bias is None else abs(self.bias))
            exact = x @ w.T + (0 if self.bias is None else self.bias)
            assert (abs(y - exact) <= near).all(), self
        else:
            assert same_bits(y, wanted(self.sample, self.x, self.bias, self.activations)), self
        chosen = torch.arange(t.outputs).flip(0)
        integers = operator._integers(t, weight.tiles, weight.codebook, chosen).numpy()
        assert same_bits(rows.view(np.int8).reshape(integers.shape), integers), self
        assert same_bits(tiles, weight.tiles.numpy()), self
        return left


def cases() -> list[Case]:
    """Every form with every rounding, and any layers beside them."""
    found = [
        Case(make(), tokens, activations, tokens % 2 == 0, 1 + tokens % 3)
        for make in FORMS.values()
        for activations in DIGITS
        for tokens in (1, 2, 3, 4, 7)
    ]

    @settings(derandomize=True, deadline=None, max_examples=300, database=None)
    @given(samples(), st.integers(1, 9), st.sampled_from([*DIGITS]), st.booleans())
    def add(sample: Sample, tokens: int, activations: str, has_bias: bool) -> None:
        if sample.layer.geometry.b <= 8:
            found.append(Case(sample, tokens, activations, has_bias, 1))

    add()
    return found


@pytest.fixture(scope="module")
def everything(tmp_path_factory) -> tuple[list[Case], Path]:
    missing = [tool for tool in (COMPILER, EMULATOR) if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"no {' and no '.join(missing)} (Debian: gcc-aarch64-linux-gnu, qemu-user)")
    found = cases()
    path = tmp_path_factory.mktemp("cross") / "cases"
    path.write_bytes(b"".join(part for case in found for part in case.written()))
    return found, path


@pytest.mark.parametrize(
    ("isa", "processor", "can"),
    [
        ("portable", "cortex-a53", 1 | NEON),
        ("portable", "max", 1 | NEON | DOTPROD),
        ("neon", "cortex-a53", 0),
        ("dotprod", "max", 0),
    ],
)
def test_aarch64_gives_the_bits_of_the_reference(everything, tmp_path, isa, processor, can):
    found, path = everything
    program, out = tmp_path / "cross", tmp_path / "out"
    sources = [Path(__file__).with_name("cross.c"), kernels._SOURCE / f"{isa}.c"]
    flags = ["-O3", "-std=c11", *kernels._FLAGS, *kernels.ISAS[isa], "-fopenmp", "-static"]
    subprocess.run([COMPILER, *flags, "-o", program, *sources], check=True)
    subprocess.run([EMULATOR, "-cpu", processor, program, path, out], check=True)
    left = np.fromfile(out, np.uint8)
    assert left[:8].view(np.int64) == can
    left = left[8:]
    for case in found:
        left = case.check(left, isa)
    assert not len(left)
