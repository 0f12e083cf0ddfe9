"""Time of a training step with compressed weights over that of a plain fp32 step.

Arms take turns inside one process, step by step, and every ratio is of neighbouring steps; the
figure is the median of the ratios, its spread half the distance of the quartiles. One thread.
The step holds forward, loss, backward, Adam, and for SSVQ the flip tracking.
"""

import copy
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from harness import Bench
from torch import nn

import vq
from signbook.data.files import data_file
from signbook.data.images import load_cifar10_exact
from signbook.meters import embedding_of
from signbook.zoo.resnet import load_resnet20
from vq.learning.rules.driver import Rules

METHODS = {
    "vq": vq.VQ(d=4, k=64),
    "ssvq": vq.SSVQ(d=8, k=16),
    "ssvq parity": vq.SSVQ(d=8, k=16, parity=True),
}


def stepper(model: nn.Module, loss: Callable[[nn.Module], torch.Tensor]) -> Callable[[], None]:
    """Return a function that makes one training step."""
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    rules = Rules(model, [vq.Freezing()], 10_000)

    def step() -> None:
        value = loss(model)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        rules.before_step()
        optimizer.step()
        rules.after_step()

    return step


def resnet20() -> tuple[nn.Module, str, Callable[[nn.Module], torch.Tensor]]:
    """ResNet-20 on a batch of 64 images."""
    images = load_cifar10_exact("train")
    x, y = images.x[:64].float() / 255, images.y[:64]
    model = load_resnet20(data_file("resnet_cifar10/resnet20-*.th"))
    return model, "layer*.conv?", lambda m: nn.functional.cross_entropy(m(x), y)


def minilm() -> tuple[nn.Module, str, Callable[[nn.Module], torch.Tensor]]:
    """MiniLM on a batch of 16 sentences of 64 tokens, against fixed target embeddings."""
    from signbook.zoo.minilm import minilm as build

    model = build()
    inputs = {
        "input_ids": torch.randint(1000, 20_000, (16, 64)),
        "attention_mask": torch.ones(16, 64, dtype=torch.int64),
    }
    target = torch.randn(16, 384)

    def loss(m: Any) -> torch.Tensor:
        return nn.functional.mse_loss(embedding_of(m(**inputs), inputs), target)

    return model, "*.layer.*", loss


def compare(build: Callable[[], Any], rounds: int) -> dict[str, dict[str, float]]:
    """Let all arms step in turn; return the ratios of each to fp32."""
    model, pattern, loss = build()
    steppers = {"fp32": stepper(copy.deepcopy(model), loss)}
    for name, method in METHODS.items():
        compressed = copy.deepcopy(model)
        vq.compress_(compressed, vq.Recipe({pattern: method}))
        steppers[name] = stepper(compressed, loss)
    for step in steppers.values():
        step()
    times: dict[str, list[float]] = {name: [] for name in steppers}
    for _ in range(rounds):
        for name, step in steppers.items():
            start = time.perf_counter()
            step()
            times[name].append(time.perf_counter() - start)
    out = {}
    for name in METHODS:
        ratios = [a / b for a, b in zip(times[name], times["fp32"], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        out[name] = {
            "time_over_fp32": middle,
            "half_quartile_distance": (high - low) / 2,
            "fp32_milliseconds": 1000 * statistics.median(times["fp32"]),
        }
    return out


def main() -> None:
    """Measure every row and print the table."""
    bench = Bench("training_step", __doc__, seeds=1)
    torch.set_num_threads(1)
    rounds = 5 if bench.quick else 40
    for work, build in (("resnet20 batch 64", resnet20), ("minilm batch 16", minilm)):
        found: dict[str, dict[str, float]] = {}

        def measure(
            arm: str, build: Callable[[], Any] = build, found: dict[str, Any] = found
        ) -> dict[str, float]:
            if not found:
                found.update(compare(build, rounds))
            return found[arm]

        for arm in METHODS:
            bench.measure(work, arm, 0, partial(measure, arm))
    bench.finish()


if __name__ == "__main__":
    main()
