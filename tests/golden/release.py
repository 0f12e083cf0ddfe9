"""Write what a release can be held to: ``python -m tests.golden.release``, once, with its own code.

Later versions read these files for ever (``docs/stability.md``, ``tests/test_stability.py``). The
names used here have existed since 0.1.0, so that its code could write its own.
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
from tests.golden.make import noise
from tests.golden.models import RECIPE, every_method, network, pictures
from vq.container import Container, open_container
from vq.integer import add_integer, read_integer
from vq.version import VERSION

RELEASES = Path(__file__).parent / "releases"
FILES = ("every.vq.safetensors", "integer.vq.safetensors")
DOCUMENTS = ("estimate.json", "sweep.json")
_INTEGER = """\
"0": {method: int8}
"3": {method: ssvq, d: 8, k: 16}
"5": {method: vq, d: 4, k: 16}
"""


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


def main() -> None:
    folder = RELEASES / VERSION
    folder.mkdir(parents=True)  # a release that is there is there for good
    every, integer = (folder / name for name in FILES)
    model = every_method()
    vq.compress_(model, vq.Recipe.from_yaml(RECIPE), progress=False)
    vq.save(model, every)
    model = network()
    vq.compress_(model, vq.Recipe.from_yaml(_INTEGER), progress=False)
    vq.save(model, integer)
    add_integer(integer, network(), pictures().batches)
    facts: dict[str, Any] = {}
    for path in (every, integer):
        with open_container(path) as container:
            facts[path.name] = {"weights": weights(container)}
            if path == integer:
                facts[path.name]["outputs"] = outputs(container)
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
