"""The scalar solver against the column loop as published: seconds of one core, and codes.

A layer of 4096 x 4096, 4 bits in groups of 128, activation order. The published loop is written
below as its equations read: blocks of 128 columns, one column after another, the inverse of the
Hessian by two Cholesky factors. Both get the same grid and the same statistics, one after the
other, on one core, timed by the thread's own clock; ratios are of the same round. ``columns`` is
the loop over columns with its updates, ``whole`` everything from weight and statistics to codes.
"""

import time
from collections.abc import Callable
from functools import partial

import torch
from harness import Bench
from torch import Tensor

import vq
from rescomp import GPTAQ, GPTAQR, GPTQ, GPTQR, QEP, RTN, Clip, Settings, Statistics
from rescomp.grid import fit_grid
from rescomp.levels import ColumnGrids
from rescomp.methods import Method
from rescomp.quantize import quantize_matrix
from rescomp.solver import solve_columns
from vq.container import Geometry
from vq.grids import Grid

SIZE, GROUP, BLOCK, DAMPING = 4096, 128, 128, 0.01
METHODS = {
    "RTN": RTN(),
    "GPTQ": GPTQ(),
    "GPTQ-R": GPTQR(),
    "GPTAQ": GPTAQ(),
    "GPTAQ-R": GPTAQR(),
    "GPTAQ-R, two shares": GPTAQR(1.0, 0.25),
    "GPTAQ-R, org": GPTAQR(mode="org"),
    "QEP": QEP(),
}


def layer(size: int, dtype: torch.dtype, seed: int) -> tuple[Tensor, Geometry, Statistics]:
    """Random weight, and inputs with a falling spectrum behind a layer rounded to three bits."""
    generator = torch.Generator().manual_seed(seed)

    def random(rows: int, columns: int) -> Tensor:
        return torch.randn(rows, columns, generator=generator)

    mix = random(size, size) * torch.arange(1, size + 1) ** -0.5 / size**0.5
    before = random(size, size) / size**0.5
    step = before.abs().amax(dim=1, keepdim=True) / 3.5
    rounded = (before / step).round_().clamp_(-4, 3) * step
    statistics = Statistics.empty(size, cross=True, dtype=dtype)
    for _ in range(4):
        latent = random(size // 2, size) @ mix.T
        statistics.add((latent @ rounded.T).to(dtype), (latent @ before.T).to(dtype))
    weight = random(size, size).to(dtype) / size**0.5
    return weight, vq.Int4(group=GROUP).geometry("layer", "linear", (size, size)), statistics


def published_factor(hessian: Tensor) -> Tensor:
    """Upper factor of the damped inverse, by way of that inverse."""
    damped = hessian.clone()
    damped.diagonal().add_(DAMPING * damped.diagonal().mean())
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    return torch.linalg.cholesky(inverse, upper=True)


def published_columns(weight: Tensor, factor: Tensor, grid: Grid, order: Tensor) -> Tensor:
    """Column by column in blocks; integers [O, I] in the order of ``order``."""
    weight = weight.clone()
    integers = torch.zeros_like(weight)
    for start in range(0, weight.shape[1], BLOCK):
        end = min(start + BLOCK, weight.shape[1])
        block = weight[:, start:end].clone()
        errors = torch.zeros_like(block)
        inner = factor[start:end, start:end]
        for i in range(end - start):
            w = block[:, i]
            scale = grid.scale[:, int(order[start + i]) // GROUP]
            level = torch.clamp(torch.round(w / scale), -8, 7)
            integers[:, start + i] = level
            error = (w - level * scale) / inner[i, i]
            block[:, i:] -= error.unsqueeze(1).matmul(inner[i, i:].unsqueeze(0))
            errors[:, i] = error
        weight[:, end:] -= errors.matmul(factor[start:end, end:])
    return integers


def seconds(run: Callable[[], Tensor]) -> tuple[float, Tensor]:
    """Time that this thread computed, and what came out."""
    start = time.thread_time()
    found = run()
    return time.thread_time() - start, found


def against_published(size: int, dtype: torch.dtype, seed: int) -> dict[str, float]:
    """Both on one layer: times, their ratio, and how many codes agree."""
    weight, g, statistics = layer(size, dtype, seed)
    settings = Settings(damping=DAMPING, dtype=dtype, measure=False)
    energy = statistics.hessian.diagonal()
    order = torch.argsort(energy, descending=True, stable=True)
    grid = fit_grid(weight, g)

    def published() -> Tensor:
        factor = published_factor(statistics.hessian[order][:, order])
        found = published_columns(weight[:, order], factor, fit_grid(weight, g), order)
        return found[:, torch.argsort(order)]

    whole, codes = seconds(
        lambda: quantize_matrix(weight, g, GPTQ(), statistics, settings).integers
    )
    published_whole, published_codes = seconds(published)

    factor = published_factor(statistics.hessian[order][:, order])
    ordered = weight[:, order]
    feedback = factor / factor.diagonal()[:, None]

    def columns() -> Tensor:
        rows = ordered.T.contiguous()
        grids = ColumnGrids(g, grid, rows, order.tolist(), None)
        return solve_columns(rows, rows, feedback, None, grids, GPTQ().rule())

    ours, levels = seconds(columns)
    theirs, integers = seconds(lambda: published_columns(ordered, factor, grid, order))
    return {
        "columns": ours,
        "columns, published": theirs,
        "columns, times faster": theirs / ours,
        "whole": whole,
        "whole, published": published_whole,
        "whole, times faster": published_whole / whole,
        "columns, equal codes %": 100 * float((levels.T == integers).double().mean()),
        "whole, equal codes %": 100 * float((codes == published_codes).double().mean()),
    }


def methods(size: int, seed: int) -> dict[str, dict[str, float]]:
    """All methods in turn on one layer, and again with the search for narrower ranges."""
    weight, g, statistics = layer(size, torch.float32, seed)

    def run(method: Method, clip: Clip | None) -> float:
        settings = Settings(damping=DAMPING, clip=clip, measure=False)
        work = partial(quantize_matrix, weight, g, method, statistics, settings)
        return seconds(lambda: work().integers)[0]

    times = {name: run(method, None) for name, method in METHODS.items()}
    times["GPTQ, clipped"] = run(GPTQ(), Clip())
    return {
        name: {
            "whole": found,
            "over GPTQ": found / times["GPTQ"],
            "over GPTAQ": found / times["GPTAQ"],
        }
        for name, found in times.items()
    }


def main() -> None:
    """Measure every row and print the table."""
    bench = Bench("solver", __doc__, seeds=5)
    torch.set_num_threads(1)
    size = SIZE // 4 if bench.quick else SIZE
    for seed in bench.seeds:
        for dtype, name in ((torch.float32, "float32"), (torch.float64, "float64")):
            if name == "float32" or seed < 2:
                run = partial(against_published, size, dtype, seed)
                bench.measure(f"GPTQ, {size}x{size}", name, seed, run)
        found: dict[str, dict[str, float]] = {}
        for arm in (*METHODS, "GPTQ, clipped"):

            def one(arm: str = arm, found: dict[str, dict[str, float]] = found) -> dict[str, float]:
                found.update({} if found else methods(size, seed))
                return found[arm]

            bench.measure(f"methods, {size}x{size}", arm, seed, one)
    bench.finish()


if __name__ == "__main__":
    main()
