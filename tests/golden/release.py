"""Write what a release can be held to: ``python -m tests.golden.release``, once, with its own code.

Later versions read these files for ever (``docs/stability.md``, ``tests/test_stability.py``).
"""

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import vq
from hwsim import estimate
from hwsim.sweep import Space, sweep
from tests.golden.make import noise, write_remaining, write_timed, write_turns
from tests.golden.models import RECIPE, every_method, network, pictures
from vq.container import Container, open_container
from vq.integer import add_integer, read_integer
from vq.integer.steps import has_steps, read_steps
from vq.version import TOOL, VERSION

RELEASES = Path(__file__).parent / "releases"
#: Containers, and the first release that has each.
FILES = {
    "every.vq.safetensors": "0.1.0",
    "integer.vq.safetensors": "0.1.0",
    "parts.vq.safetensors": "0.2.0",
    "steps.vq.safetensors": "0.2.0",
    "turns.vq.safetensors": "0.2.0",
}
DOCUMENTS = ("estimate.json", "sweep.json")
_INTEGER = """\
"0": {method: int8}
"3": {method: ssvq, d: 8, k: 16}
"5": {method: vq, d: 4, k: 16}
"""


def files_of(version: str) -> list[str]:
    """Containers of a release."""
    return [name for name, first in FILES.items() if _numbers(first) <= _numbers(version)]


def _numbers(version: str) -> list[int]:
    return [int(number) for number in version.split(".")]


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def weights(container: Container) -> dict[str, str]:
    """Digest of every decoded weight, in numpy."""
    names = [entry.geometry.name for entry in container.layers]
    return {name: digest(container.weight(name).tobytes()) for name in names}


def outputs(container: Container) -> str:
    """Digest of what the integer graph gives for inputs of a label."""
    codes = (noise("release", (4, 3, 6, 6), 256) - 128).astype(np.int8)
    return digest(np.ascontiguousarray(read_integer(container).run(codes)).tobytes())


def calls(container: Container) -> dict[str, str]:
    """Digest of what a graph of time steps gives at every step for inputs of a label."""
    model = read_steps(container)
    x = (noise("release", (4, *model.graph.nodes[0].shape), 256) / 64 - 2).astype(np.float32)
    classes = noise("classes", (4,), model.graph.classes)
    return {str(t): digest(model.run(x, t, classes).tobytes()) for t in model.graph.times}


def parts(container: Container) -> dict[str, str]:
    """Digest of every tensor of what remains at run time."""
    names = [name for name in container.kept_names if not container.is_own(name)]
    return {name: digest(container.kept(name).data) for name in names}


def facts_of(path: Path) -> dict[str, Any]:
    """What later versions must find in a container."""
    with open_container(path) as container:
        facts: dict[str, Any] = {"weights": weights(container)}
        if path.name.startswith("integer"):
            facts["outputs"] = outputs(container)
        if has_steps(container):
            facts["calls"] = calls(container)
        if path.name.startswith(("parts", "steps")):
            facts["parts"] = parts(container)
    return facts


def main() -> None:
    folder = RELEASES / VERSION
    folder.mkdir(parents=True)  # a release that is there is there for good
    every, integer, remaining, timed, turns = paths = [folder / name for name in FILES]
    model = every_method()
    vq.compress_(model, vq.Recipe.from_yaml(RECIPE), progress=False)
    vq.save(model, every)
    model = network()
    vq.compress_(model, vq.Recipe.from_yaml(_INTEGER), progress=False)
    vq.save(model, integer)
    add_integer(integer, network(), pictures().batches)
    write_remaining(remaining, TOOL)
    write_timed(timed, TOOL)
    write_turns(turns, TOOL)
    facts = {path.name: facts_of(path) for path in paths}
    _write(folder / "facts.json", facts)
    measured = estimate(integer, rows=2, methods=["int8", "int4"], memory="ddr4-2400")
    _write(folder / "estimate.json", measured)
    space = {"targets": "minilm-l6:tokens=1", "recipes": "ssvq:d=8,k=16",
             "memories": ["ideal", "ddr4-2400"]}  # fmt: skip
    with tempfile.TemporaryDirectory() as place:
        document = sweep(Space.from_mapping(space), place, workers=1)
    _write(folder / "sweep.json", document)


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n")


if __name__ == "__main__":
    main()
