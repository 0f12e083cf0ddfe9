"""The scalar solver against the column loop as published: seconds of one core, and codes.

A layer of 4096 x 4096, 4 bits in groups of 128, activation order. The published loop is written
below as its equations read: blocks of 128 columns, one column after another, the inverse of the
Hessian by two Cholesky factors. Both get the same grid and the same statistics, one after the
other, on one core, timed by the thread's own clock; ratios are of the same round. ``columns`` is
the loop over columns with its updates, ``whole`` everything from weight and statistics to codes.

Codebooks (SSVQ d=8, VQ d=4, k=256, a scale per output; ``parity`` is SSVQ as ``signbook quantize``
stores it, k=512 and parity signs) against the scalar solver of the same method, 3 bits in groups of
64, on the same statistics and in the same round: all layers of a block of SmolLM2's shape, those
that see the same inputs solved as one, and the large layer. k-means is counted; gathering the
statistics, which both need, is not.

Besides, what each method makes of the objective on small synthetic layers, which are kinder to
asymmetric methods than real ones: a linear layer causes all of the difference.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cache, partial
from typing import Any, TypeVar

import torch
from harness import Bench
from torch import Tensor

from rescomp import (
    GPTAQ,
    GPTAQR,
    GPTQ,
    GPTQR,
    QEP,
    RTN,
    Clip,
    Fitting,
    Settings,
    Statistics,
    quantize_codebook,
)
from rescomp.levels import ColumnGrids
from rescomp.methods import Method
from rescomp.quantize import quantize_matrix
from rescomp.solver import solve_columns
from vq import SSVQ, VQ, Int2, Int3, Int4
from vq.container import Geometry
from vq.formats.clip import fit_grid
from vq.formats.grids import Grid

T = TypeVar("T")

SIZE, GROUP, BLOCK, DAMPING = 4096, 128, 128, 0.01
METHODS: dict[str, Method] = {
    "RTN": RTN(),
    "GPTQ": GPTQ(),
    "GPTQ-R": GPTQR(),
    "GPTAQ": GPTAQ(),
    "GPTAQ-R": GPTAQR(),
    "GPTAQ-R, two shares": GPTAQR(1.0, 0.25),
    "GPTAQ-R, org": GPTAQR(mode="org"),
    "QEP": QEP(),
}
QUALITY: dict[str, Method] = {
    "RTN": RTN(),
    "GPTQ": GPTQ(),
    "GPTQ-R": GPTQR(),
    "GPTQ-R, org": GPTQR(mode="org"),
    "GPTAQ": GPTAQ(),
    "GPTAQ-R": GPTAQR(),
    "GPTAQ-R, org": GPTAQR(mode="org"),
    "GPTAQ, alpha 1": GPTAQ(1.0),
    "QEP, beta 0.25": QEP(0.25),
    "QEP, beta 0.5": QEP(0.5),
    "QEP": QEP(),
}
CODEBOOKS: dict[str, tuple[Method, SSVQ | VQ, Fitting]] = {
    f"{name}{'+sweep' * sweeps}": (method, kind, Fitting(sweeps=sweeps))
    for method in (GPTQ(), GPTAQ(), QEP())
    for name, kind, sweeps in (
        (f"{method.name}-ssvq", SSVQ(d=8, k=256, scale="output"), 0),
        (f"{method.name}-ssvq", SSVQ(d=8, k=256, scale="output"), 1),
        (f"{method.name}-parity", SSVQ(d=8, k=512, parity=True, scale="output"), 0),
        (f"{method.name}-parity", SSVQ(d=8, k=512, parity=True, scale="output"), 1),
        (f"{method.name}-vq", VQ(d=4, k=256, scale="output"), 0),
    )
}
#: Inputs and outputs of the layers of a block of SmolLM2 that see the same.
BLOCK_SHAPES = ((576, (576, 192, 192)), (576, (576,)), (576, (1536, 1536)), (1536, (576,)))


def data(size: int, seed: int, batches: int) -> tuple[Tensor, Iterator[tuple[Tensor, Tensor]]]:
    """Random weight, and batches of its inputs, after quantisation and before.

    The inputs have a falling spectrum and come out of a linear layer rounded to three bits.
    """
    generator = torch.Generator().manual_seed(seed)

    def random(rows: int, columns: int) -> Tensor:
        return torch.randn(rows, columns, generator=generator) / size**0.5

    weight, before = random(size, size), random(size, size)
    mix = random(size, size) * torch.arange(1, size + 1) ** -0.5
    step = before.abs().amax(dim=1, keepdim=True) / 3.5
    rounded = (before / step).round_().clamp_(-4, 3) * step

    def draw() -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(batches):
            latent = random(size // 2, size) @ mix.T
            yield latent @ rounded.T, latent @ before.T

    return weight, draw()


@cache
def layer(size: int, seed: int) -> tuple[Tensor, Geometry, Statistics]:
    """A layer to quantise, with two tokens per input."""
    weight, batches = data(size, seed, 4)
    statistics = Statistics.empty(size, cross=True)
    for x, y in batches:
        statistics.add(x, y)
    return weight, Int4(group=GROUP).geometry("fc", "linear", (size, size)), statistics


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


def seconds(run: Callable[[], T]) -> tuple[float, T]:
    """Time that this thread computed, and what came out."""
    start = time.thread_time()
    found = run()
    return time.thread_time() - start, found


@cache
def against_published(size: int, seed: int) -> dict[str, dict[str, float]]:
    """Both on one layer, in both precisions: times, their ratio, and how many codes agree."""
    weight, g, gathered = layer(size, seed)
    order = torch.argsort(gathered.hessian.diagonal(), descending=True, stable=True)
    found: dict[str, dict[str, float]] = {}
    reference: Tensor | None = None
    for dtype in (torch.float64, torch.float32):
        statistics = Statistics(gathered.hessian.to(dtype), None, gathered.tokens)
        settings = Settings(damping=DAMPING, dtype=dtype, measure=False)
        prepare = partial(prepared, weight.to(dtype), g, statistics.hessian, order)
        preparing, (ordered, hessian, grid) = seconds(prepare)
        factoring, factor = seconds(partial(published_factor, hessian))
        published = partial(published_columns, ordered, factor, grid, order)
        looping, theirs = seconds(published)
        same_factor, same = seconds(partial(our_columns, ordered, factor, grid, order, g))
        whole = partial(quantize_matrix, weight, g, GPTQ(), statistics, settings)
        ours, result = seconds(whole)
        mine = result.integers[:, order]
        reference = theirs if reference is None else reference
        published_whole = preparing + factoring + looping
        found[str(dtype).removeprefix("torch.")] = {
            "columns s": same_factor,
            "columns s, published": looping,
            "columns, times faster": looping / same_factor,
            "whole s": ours,
            "whole s, published": published_whole,
            "whole, times faster": published_whole / ours,
            "equal codes %, same factor": equal(same, theirs),
            "equal codes %": equal(mine, theirs),
            "codes of float64 %": equal(mine, reference),
            "codes of float64 %, published": equal(theirs, reference),
        }
    return found


def prepared(
    weight: Tensor, g: Geometry, hessian: Tensor, order: Tensor
) -> tuple[Tensor, Tensor, Grid]:
    """Grid, and weight and Hessian in the order of solving, for the published loop."""
    return weight[:, order], hessian[order][:, order], fit_grid(weight, g)


def our_columns(weight: Tensor, factor: Tensor, grid: Grid, order: Tensor, g: Geometry) -> Tensor:
    """The solver alone, on the factor of the published loop."""
    rows = weight.T.contiguous()
    grids = ColumnGrids(g, grid, rows, order.tolist(), None)
    feedback = factor / factor.diagonal()[:, None]
    return solve_columns(rows, rows, feedback, None, grids, GPTQ().correction()).T


def equal(a: Tensor, b: Tensor) -> float:
    """Share of equal entries, in percent."""
    return 100 * float((a == b).double().mean())


@cache
def methods(size: int, seed: int) -> dict[str, dict[str, float]]:
    """Each method on one layer, in an order that changes with the seed."""
    weight, g, statistics = layer(size, seed)
    settings = Settings(damping=DAMPING, measure=False)
    arms = [(name, method, settings) for name, method in METHODS.items()]
    arms.append(("GPTQ, clipped", GPTQ(), replace(settings, clip=Clip())))
    start = seed % len(arms)
    times = {}
    for name, *how in arms[start:] + arms[:start]:
        run = partial(quantize_matrix, weight, g, how[0], statistics, how[1])
        times[name] = seconds(run)[0]
    return {
        name: {"whole s": t, "over GPTQ": t / times["GPTQ"], "over GPTAQ": t / times["GPTAQ"]}
        for name, t in times.items()
    }


@cache
def codebooks(
    shapes: tuple[tuple[int, tuple[int, ...]], ...], seed: int
) -> dict[str, dict[str, float]]:
    """Codebooks on all layers of some shapes, and scalars of the same method beside."""
    groups = []
    for inputs, outputs in shapes:
        _, batches = data(inputs, seed, 4)
        statistics = Statistics.empty(inputs, cross=True)
        for x, y in batches:
            statistics.add(x, y)
        generator = torch.Generator().manual_seed(seed)
        weights = [torch.randn(n, inputs, generator=generator) for n in outputs]
        groups.append((weights, statistics))
    settings = Settings(damping=DAMPING, measure=False)

    def scalars(method: Method) -> None:
        for weights, statistics in groups:
            for weight in weights:
                g = Int3(group=64).geometry("fc", "linear", tuple(weight.shape))
                quantize_matrix(weight, g, method, statistics, settings)

    def coded(method: Method, kind: SSVQ | VQ, fitting: Fitting) -> None:
        for weights, statistics in groups:
            shaped = [kind.geometry("fc", "linear", tuple(w.shape)) for w in weights]
            quantize_codebook(weights, shaped, method, statistics, settings, fitting)

    methods = {method.name: method for method, _, _ in CODEBOOKS.values()}
    times = {name: seconds(partial(scalars, method))[0] for name, method in methods.items()}
    found = {}
    for name, how in CODEBOOKS.items():
        took, _ = seconds(partial(coded, *how))
        over = {"over scalars": took / times[how[0].name], "over GPTAQ": took / times["gptaq"]}
        found[name] = {"whole s": took, **over}
    return found


@cache
def objectives(seed: int, bits: int) -> dict[str, dict[str, float]]:
    """``|W y - Q x|**2`` of each method over GPTQ's, on its tokens and on others."""
    size = 256
    weight, batches = data(size, seed, 32)
    pairs = list(batches)
    statistics = Statistics.empty(size, cross=True)
    for x, y in pairs[:16]:
        statistics.add(x, y)
    kind = {2: Int2, 3: Int3}[bits](group=64, zeros=True)
    settings = Settings(damping=DAMPING, clip=Clip(), measure=False)
    g = kind.geometry("fc", "linear", (size, size))

    def error(method: Method, part: list[tuple[Tensor, Tensor]]) -> float:
        q = quantize_matrix(weight, g, method, statistics, settings).weight
        return sum(float((y @ weight.T - x @ q.T).square().sum()) for x, y in part)

    own, other = (error(GPTQ(), part) for part in (pairs[:16], pairs[16:]))
    return {
        name: {
            "error over GPTQ": error(method, pairs[:16]) / own,
            "held-out error over GPTQ": error(method, pairs[16:]) / other,
        }
        for name, method in QUALITY.items()
    }


def main() -> None:
    """Measure every row and print the table."""
    bench = Bench("solver", __doc__, seeds=5)
    torch.set_num_threads(1)
    size = SIZE // 4 if bench.quick else SIZE
    tables: list[tuple[str, Callable[[int], dict[str, dict[str, float]]], Iterable[str]]] = [
        (
            f"{size}x{size}: against the published loop",
            partial(against_published, size),
            ("float32", "float64"),
        ),
        (f"{size}x{size}: methods", partial(methods, size), (*METHODS, "GPTQ, clipped")),
        ("block of SmolLM2: codebooks", partial(codebooks, BLOCK_SHAPES), CODEBOOKS),
        (f"{size}x{size}: codebooks", partial(codebooks, ((size, (size,)),)), CODEBOOKS),
        ("256x256, 3 bits", partial(objectives, bits=3), QUALITY),
        ("256x256, 2 bits", partial(objectives, bits=2), QUALITY),
    ]
    for seed in bench.seeds:
        for work, table, arms in tables:
            for arm in arms:
                bench.measure(work, arm, seed, partial(row, table, seed, arm))
        for cached in (layer, against_published, methods, codebooks):
            cached.cache_clear()
    bench.finish()


def row(table: Callable[[int], dict[str, dict[str, float]]], seed: int, arm: str) -> Any:
    """One line of a table that is measured as a whole, once."""
    return table(seed)[arm]


if __name__ == "__main__":
    main()
