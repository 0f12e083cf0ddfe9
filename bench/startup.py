"""Processor seconds of commands from start to end: user and system, the least of nine runs.

``help`` is ``signbook --help``, ``plan`` that of the digits model under a recipe for its blocks,
``inspect`` that of the file which ``compress`` makes by this recipe. Nearly all of it is what the
interpreter imports.
"""

import resource
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from harness import Bench

RUNS = 9
SIGNBOOK = (sys.executable, "-m", "signbook")
MODEL = "py:signbook.zoo.digits:DigitsViT"
RECIPE = '"blocks.*": {method: ssvq, d: 8, k: 16}\n'


def measured(arguments: list[str]) -> dict[str, float]:
    """The least processor time of a command."""
    times = []
    for _ in range(RUNS):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([*SIGNBOOK, *arguments], check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return {"seconds": min(times)}


def main() -> None:
    """Measure each command and print the table."""
    bench = Bench("startup", __doc__, seeds=1)
    with tempfile.TemporaryDirectory() as name:
        recipe = Path(name) / "recipe.yaml"
        recipe.write_text(RECIPE)
        model = [MODEL, "--recipe", str(recipe)]
        subprocess.run([*SIGNBOOK, "compress", *model, "--out", name], check=True)
        commands = {
            "help": ["--help"],
            "inspect": ["inspect", str(Path(name) / "model.vq.safetensors")],
            "plan": ["plan", *model],
        }
        for seed in bench.seeds:
            for arm, arguments in commands.items():
                bench.measure("start to end", arm, seed, partial(measured, arguments))
    bench.finish()


if __name__ == "__main__":
    main()
