"""Programs of Triton: right under its interpreter, and compiled for devices that are not here."""

import importlib.util
import os
import subprocess
import sys
from typing import Any

import pytest
import torch

from tests.vq.inference.devices import check
from tests.vq.inference.layers import FORMS, weight_of
from vq.inference import gpu
from vq.inference.tiles import Tiling

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="no triton; install signbook[gpu]"
)
KINDS = {
    torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16", torch.int8: "i8",
    torch.uint8: "u8", torch.int32: "i32", torch.int64: "i64",
}  # fmt: skip


@pytest.mark.slow
@needs_triton
def test_the_interpreter_gives_what_the_reference_does():
    done = subprocess.run(
        [sys.executable, "-m", "tests.vq.inference.devices"],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [*FORMS]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("form", FORMS)
def test_a_device_gives_what_the_reference_does(form):
    check(form, "cuda", products_of_bfloat16=True)


@pytest.mark.slow
@needs_triton
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("form", ["nibbles8", "bytes", "parity", "out", "int4", "int8"])
def test_they_compile_for_devices(form, capability, monkeypatch, tmp_path):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    import triton
    from triton.backends.compiler import GPUTarget

    from vq.inference import programs

    launches: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def keep(name: str, grid: tuple[int, ...], *values: Any, **known: Any) -> None:
        launches.append((name, values, known))

    monkeypatch.setattr(gpu, "_launch", keep)
    weight = weight_of(FORMS[form]())
    t = Tiling(*weight.tiling)
    layer = t, weight.tiles, weight.codebook, weight.scale, weight.zeros
    gpu.linear(torch.ones(1, t.inputs), *layer, torch.ones(t.outputs))
    gpu.linear(torch.ones(4, t.inputs).half(), *layer, None)
    gpu.linear(torch.ones(4, t.inputs).bfloat16(), *layer, None)
    gpu.rows(*layer[:3], None, None, torch.arange(2))
    if gpu.multiplies(t):
        gpu.sums(torch.ones(1, t.inputs, dtype=torch.int8), *layer[:3])
        gpu.sums(torch.ones(70, t.inputs, dtype=torch.int8), *layer[:3])
    for name, values, known in launches:
        program = getattr(programs, name)
        options = {"enable_fp_fusion": known.pop("enable_fp_fusion")}
        given = dict(zip(program.arg_names, values, strict=False))
        fixed = known | {n: None for n, value in given.items() if value is None}
        kinds = {
            n: f"*{KINDS[v.dtype]}" if isinstance(v, torch.Tensor) else "i32"
            for n, v in given.items()
        }
        source = triton.compiler.ASTSource(
            fn=program,
            signature=kinds | {n: "constexpr" for n in fixed},
            constexprs={(program.arg_names.index(n),): value for n, value in fixed.items()},
        )
        target = GPUTarget("cuda", capability, 32)
        assert triton.compile(source, target=target, options=options).asm["cubin"], name
