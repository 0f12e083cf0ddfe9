"""Stand-ins for what measures a point, which go wrong on purpose, and small spaces."""

import os
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

from hwsim.sweep import Space
from hwsim.sweep.document import Measures
from hwsim.sweep.evaluate import Work, evaluate

MEMORIES = [f"ideal:bytes_per_cycle={n}" for n in (1, 2, 4, 8, 16, 32)]


def space(**axes: Any) -> Space:
    """A space of six points that nobody has to measure."""
    given = {"targets": ["resnet-20"], "recipes": ["ssvq:d=4,k=16"], "memories": MEMORIES}
    return Space.from_mapping(given | axes)


def made_up(work: Work) -> dict[str, Any]:
    """A row in no time: a function of the point."""
    number = MEMORIES.index(work.memory)
    row = Measures().model_dump() | {"cycles": 1000 // (number + 1), "multipliers": number**2}
    return {"status": "done", "error": None, "engine": work.engine, **row, "seconds": 0.0}


def slow(work: Work) -> dict[str, Any]:
    time.sleep(0.3)
    return made_up(work)


def killer(work: Work) -> dict[str, Any]:
    """Dies on one point, whenever it is tried."""
    if work.memory == MEMORIES[2]:
        os._exit(9)
    return slow(work)


def dies_once(work: Work) -> dict[str, Any]:
    """Dies on one point, the first time: a file beside the target remembers."""
    mark = Path(work.target).with_suffix(".mark")
    if work.memory == MEMORIES[2] and not mark.exists():
        mark.touch()
        os._exit(9)
    return made_up(work)


def deaf(mark: Path) -> None:
    """Hears of no end, as a worker inside the cycle model."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    mark.with_name("new").write_text(tempfile.mkdtemp())
    mark.with_name("new").rename(mark)
    time.sleep(600)


def listening(mark: Path) -> None:
    """Undoes what it has begun when it is ended."""
    try:
        mark.touch()
        time.sleep(600)
    finally:
        mark.unlink()


def raises(work: Work) -> dict[str, Any]:
    if work.memory == MEMORIES[1]:
        raise ZeroDivisionError("on purpose")
    return made_up(work)


def counted(work: Work) -> dict[str, Any]:
    """The real evaluation, which leaves a mark for each time it is called."""
    with open(os.environ["SIGNBOOK_TEST_MARK"], "a") as file:
        file.write(f"{work.memory}\n")
    return evaluate(work)


def comparable(document: dict[str, Any]) -> dict[str, Any]:
    """A document without what the clock on the wall says."""
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in document["rows"]]
    return document | {"rows": rows}
