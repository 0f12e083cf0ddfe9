"""Whatever people get wrong: one error, no traceback, inputs as they were, outputs whole or none.

A run that fails is replayed by its seed: ``MISTAKES_SEED=3 pytest FILE``.
"""

import hashlib
import importlib
import json
import os
import re
import resource
import shlex
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import pytest

from signbook import cli
from tests.signbook import mistakes
from vq.container import open_container

#: Runs in the quick suite, and in the slow one.
QUICK, ALL = 40, 2000
SECONDS = 120
MEMORY = 16 << 30
#: Status of a command that an error has escaped.
ESCAPED = 70


#: What commands import when they work.
LIBRARIES = (
    "vq.compress", "vq.recipe.planning", "vq.learning.finetune", "rescomp.quantize", "vq.integer",
    "signbook.evaluation", "hwsim.measure.estimate", "hwsim.measure.simulate", "hwsim.sweep",
)  # fmt: skip
#: What takes minutes; whatever is refused is refused before.
LONG = ("hwsim.simulator.verilator.build", "rtl.build.emit._generated")


def leave(*arguments: object, **options: object) -> NoReturn:
    raise SystemExit(0)


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mistakes")
    mistakes.furnish(folder)
    for name in cli._NAMES:  # what every run would import again
        importlib.import_module(f"signbook.commands.{name}")
    for name in LIBRARIES:
        importlib.import_module(name)
    return folder


def in_child(words: list[str], folder: Path, scratch: Path) -> NoReturn:
    """Run a command with its own folder, streams, temporary files and time."""
    status = ESCAPED
    try:
        os.setsid()
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(SECONDS)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        os.chdir(folder)
        os.environ.update(TMPDIR=str(scratch / "tmp"), COLUMNS="200")
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(scratch / "torch")  # torch's own
        tempfile.tempdir = None
        for stream, number in (("out", 1), ("err", 2)):
            os.dup2(os.open(scratch / stream, os.O_WRONLY | os.O_CREAT), number)
        sys.stdin, sys.stdout, sys.stderr = open(os.devnull), open(1, "w"), open(2, "w")
        sys.argv = ["signbook", *words]
        warnings.resetwarnings()  # which are errors in these tests, not for people
        for place in LONG:
            module, _, name = place.rpartition(".")
            setattr(importlib.import_module(module), name, leave)
        try:
            cli.main()
        except SystemExit as left:
            status = left.code if isinstance(left.code, int) else 0
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except OSError:
                pass
        os._exit(status)


def run(words: list[str], folder: Path, scratch: Path) -> tuple[int, str, str]:
    """Status, standard output and standard error of a command in a process of its own."""
    (scratch / "tmp").mkdir(parents=True)
    child = os.fork()
    if not child:
        in_child(words, folder, scratch)
    _, status = os.waitpid(child, 0)
    with suppress(ProcessLookupError):  # processes of its own, which must not outlive it
        os.killpg(child, signal.SIGKILL)
    found = [(scratch / name).read_text(errors="replace") for name in ("out", "err")]
    return os.waitstatus_to_exitcode(status), found[0], found[1]


def contents(folder: Path) -> dict[str, str]:
    """What every file and link below a folder is, by its path."""
    found = {}
    for place, folders, files in os.walk(folder):
        for name in files + [n for n in folders if (Path(place) / n).is_symlink()]:
            path = Path(place) / name
            if "__pycache__" in path.parts:
                continue
            link = path.is_symlink()
            what = os.readlink(path) if link else hashlib.sha256(path.read_bytes()).hexdigest()
            found[str(path.relative_to(folder))] = what
    return found


def outputs(words: list[str], folder: Path) -> set[str]:
    """Files that a command may replace: they are outputs, and nothing else."""
    pairs = list(zip(["", *words], words, strict=False))
    written = {os.path.normpath(w) for option, w in pairs if option in ("--out", "--json")}
    read = {os.path.realpath(folder / w) for o, w in pairs if o not in ("--out", "--json")}
    return {name for name in written if os.path.realpath(folder / name) not in read}


def faults(words: list[str], folder: Path, scratch: Path) -> Iterator[str]:
    """Run a command in a folder; say everything that is wrong with how it went."""
    before = contents(folder)
    mine = outputs(words, folder)
    status, out, err = run(words, folder, scratch)
    after = contents(folder)
    if status not in (0, 1, 2):
        yield f"exit status {status}"
    if "Traceback" in err + out:
        yield "a traceback"
    if status == 1 and len(re.findall("^error: ", err, re.M)) != 1:
        yield "not one error"
    if status == 0 and re.search("^error: ", err, re.M):
        yield "an error, but exit status 0"
    for name in before:
        if after.get(name) != before[name] and name not in mine:
            yield f"{name} is not what it was"
    made = sorted(after.keys() - before.keys())
    if status == 2 and made:
        yield f"usage, and yet {made}"
    for name in made:
        yield from broken(folder / name)
    # That of multiprocessing goes when an interpreter ends, which a forked child's does not.
    if left := [n for n in os.listdir(scratch / "tmp") if not n.startswith("pymp-")]:
        yield f"temporary files left: {left}"
    if status == 1 and "new.json" in made:
        yield "a document in spite of the error"


def broken(path: Path) -> Iterator[str]:
    """Say what is half done about a file that a command made."""
    if path.name.startswith("."):
        yield f"{path.name} is temporary"
    if path.suffix == ".json":
        try:
            json.loads(path.read_text())
        except ValueError as error:
            yield f"{path.name}: {error}"
    if path.name.endswith(".vq.safetensors") and path.is_file():
        try:
            with open_container(path) as container:
                container.verify(complete=False)
        except Exception as error:
            yield f"{path.name}: {error}"


def check(seed: int, furnished: Path, scratch: Path) -> str | None:
    """Run a drawn command in a copy of the folder; say what is wrong, and how to replay it."""
    folder = scratch / "folder"
    shutil.copytree(furnished, folder, symlinks=True)
    (folder / "hard-c.vq.safetensors").unlink()
    os.link(folder / "c.vq.safetensors", folder / "hard-c.vq.safetensors")
    words = mistakes.command(seed, folder)
    wrong = list(faults(words, folder, scratch))
    told = (scratch / "err").read_text(errors="replace") if wrong else ""
    shutil.rmtree(scratch)
    if not wrong:
        return None
    return f"MISTAKES_SEED={seed}: signbook {shlex.join(words)}\n{'; '.join(wrong)}\n{told[-1500:]}"


def seeds(count: int) -> range:
    own = os.environ.get("MISTAKES_SEED")
    return range(count) if own is None else range(int(own), int(own) + 1)


def check_all(count: int, furnished: Path, tmp_path: Path) -> None:
    found = [check(seed, furnished, tmp_path / "run") for seed in seeds(count)]
    wrong = [text for text in found if text]
    assert not wrong, f"{len(wrong)} of {len(found)}\n" + "\n\n".join(wrong[:20])


def test_a_few(furnished, tmp_path):
    check_all(QUICK, furnished, tmp_path)


@pytest.mark.slow
def test_many(furnished, tmp_path):
    check_all(ALL, furnished, tmp_path)
