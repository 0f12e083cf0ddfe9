"""Run every bench, one after another, and write one JSON document each to out/bench.

    python bench/all.py [--quick] [other options of a bench]

A bench whose data or packages are absent is skipped and says what it lacks. Finished measurements
are kept (``harness.py``), so what was stopped goes on where it was.
"""

import runpy
import subprocess
import sys
from pathlib import Path

from vq.errors import ConfigError

#: Exit status of a bench that lacks something.
SKIPPED = 77


def one(script: Path, options: list[str]) -> int:
    """Run one bench in this process."""
    document = Path("out/bench") / f"{script.stem}{'-quick' * ('--quick' in options)}.json"
    sys.argv = [str(script), "--json", str(document), *options]
    try:
        runpy.run_path(str(script), run_name="__main__")
        return 0
    except ConfigError as error:
        reason = str(error)
    except subprocess.CalledProcessError as error:  # of a bench that measures in a child
        last = (error.stderr or "").rstrip().rpartition("\n")[2]
        _, found, reason = last.partition("ConfigError: ")
        if not found:
            print(error.stderr, file=sys.stderr)
            raise
    print(f"{script.stem}: skipped, because {reason}")
    return SKIPPED


def main() -> None:
    """Run each bench in a process of its own: threads and memory of one must not touch another."""
    if sys.argv[1:2] == ["--one"]:
        raise SystemExit(one(Path(sys.argv[2]), sys.argv[3:]))
    scripts = [
        path
        for path in sorted(Path(__file__).parent.glob("*.py"))
        if path.name != Path(__file__).name and 'if __name__ == "__main__":' in path.read_text()
    ]
    ended: dict[int, list[str]] = {}
    for script in scripts:
        command = [sys.executable, __file__, "--one", str(script), *sys.argv[1:]]
        status = subprocess.run(command, check=False).returncode
        ended.setdefault(status if status in (0, SKIPPED) else 1, []).append(script.stem)
    for status, word in ((0, "done"), (SKIPPED, "skipped"), (1, "failed")):
        print(f"{word}: {', '.join(ended.get(status, ['none']))}")
    raise SystemExit(1 if 1 in ended else 0)


if __name__ == "__main__":
    main()
