"""The house rules: which folder may import what, what an import costs, and public names."""

import ast
import importlib
import importlib.util
import subprocess
import sys
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("vq", "rescomp", "rtl", "hwsim", "signbook")

#: Plain files that each room of a package, or that room alone, may import.
COMMON = {
    "vq": "vq/text vq/errors vq/version vq/progress vq/layers vq/distributed vq/native",
    "vq/container": "vq/errors",
    "vq/text": "vq/errors",
    "vq/native": "vq/errors",
    "rescomp": "vq/errors vq/version vq/progress vq/layers vq/distributed vq/native",
    "rtl": "rtl/config rtl/accelerator_config rtl/descriptor rtl/program rtl/rom rtl/settings "
    "vq/container",
    "hwsim": "hwsim/defaults vq/text vq/errors vq/version vq/native",
    "signbook": "signbook/extras signbook/files signbook/hints signbook/tasks "
    "vq/errors vq/progress",
}
#: What else the files of each room may import: a room, with the rooms inside, or a file
#: (docs/architecture.md draws this). A package's own line is for the files beside its rooms.
ARROWS = {
    "vq/text": "",
    "vq/native": "",
    "vq/container": "",
    "vq/formats": "vq/container",
    "vq/clustering": "vq/formats vq/container",
    "vq/recipe": "vq/formats vq/clustering vq/container",
    "vq/universal": "vq/recipe vq/formats vq/clustering vq/container",
    "vq/inference": "vq/formats vq/container",
    "vq/calibration": "vq/recipe vq/formats vq/clustering vq/container",
    "vq/activations": "vq/calibration vq/formats vq/container",
    "vq/learning": "vq/calibration vq/activations vq/formats vq/clustering vq/recipe vq/container",
    "vq/learning/rules": "vq/learning/rates vq/formats vq/clustering vq/container",
    "vq/perturbation": "vq/learning vq/activations vq/calibration vq/formats vq/recipe "
    "vq/container",
    "vq/methods": "vq/perturbation vq/activations vq/learning vq/calibration vq/formats vq/recipe "
    "vq/clustering vq/container",
    "vq/integer": "vq/storage vq/calibration vq/formats vq/container",
    "vq/integer/steps": "vq/integer vq/activations vq/storage vq/calibration vq/formats "
    "vq/container",
    "vq/integer/tokens": "vq/integer vq/storage vq/calibration vq/formats vq/container",
    "vq/export": "vq/calibration vq/integer vq/formats vq/container",
    "vq/hf": "vq/storage vq/activations vq/formats vq/inference vq/integer vq/container",
    "vq": "vq",
    "rescomp": "vq/formats vq/clustering vq/calibration vq/activations vq/learning vq/recipe "
    "vq/container",
    "rtl/bus": "",
    "rtl/decode": "rtl/bus",
    "rtl/compute": "rtl/bus",
    "rtl/vector": "rtl/bus",
    "rtl/transfer": "rtl/bus rtl/compute",
    "rtl/control": "rtl/bus rtl/transfer rtl/vector rtl/checker",
    "rtl/build": "rtl vq/native vq/version",
    "rtl": "rtl/bus rtl/decode rtl/compute rtl/vector rtl/transfer rtl/control rtl/build",
    "hwsim/memory": "",
    "hwsim/program": "rtl vq/container vq/integer",
    "hwsim/workloads": "hwsim/program rtl vq/container vq/integer vq/recipe",
    "hwsim/simulator": "hwsim/memory hwsim/program rtl vq/container",
    "hwsim/simulator/axi": "hwsim/memory hwsim/simulator",
    "hwsim/cycles": "hwsim/memory hwsim/program rtl vq/container",
    "hwsim/measure": "hwsim rtl vq/container vq/integer",
    "hwsim/sweep": "hwsim/measure hwsim/workloads hwsim/memory rtl vq/container vq/recipe",
    "hwsim": "hwsim",
    "signbook/zoo": "signbook/data/images vq/hf vq/native",
    "signbook/data": "signbook/zoo vq/container",
    "signbook/diffusion": "signbook/zoo signbook/data signbook/naming vq/calibration",
    "signbook/packed": "signbook/naming vq",
    "signbook/plots": "",
    "signbook/writing": "signbook/data signbook/meters signbook/zoo vq/inference vq/calibration "
    "vq/recipe vq/integer vq/container",
    "signbook/reporting": "signbook/plots hwsim vq/text",
    "signbook": "signbook vq rescomp rtl hwsim",
}
#: Files beside the rooms of a package: a listing that draws the architecture has few.
LOOSE = {"vq": 8, "rtl": 9, "hwsim": 2, "signbook": 12}
#: Heavy packages, and the folders that may import them at the top of a module.
HEAVY = {
    "torch": ("vq", "rescomp", "signbook"),
    "faiss": ("vq",),
    "amaranth": ("rtl",),
    "cocotb": ("hwsim",),
    "sklearn": (),
    "jinja2": (),
    "matplotlib": ("signbook",),
    "rich": ("signbook",),
    "typer": ("signbook",),
    "diffusers": (),
    "torchmetrics": (),
    "triton": ("vq",),
}


@lru_cache
def modules() -> dict[str, Path]:
    """All files of the packages, by their names as folders: vq/formats, vq/formats/grids."""
    files = [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]
    names = [file.relative_to(ROOT).with_suffix("").as_posix() for file in files]
    return {n.removesuffix("/__init__"): f for n, f in zip(names, files, strict=True)}


def within(name: str, room: str) -> bool:
    return f"{name}/".startswith(f"{room}/")


def imports(nodes: Iterable[ast.AST]) -> set[str]:
    """Dotted names that statements import; ``from vq import errors`` counts as vq.errors."""
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports must be absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def run_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes below but those that only a type checker reads."""
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)):
            yield child
            yield from run_nodes(child)


@lru_cache
def arrows() -> dict[str, set[str]]:
    """Modules of ours that each one imports, anywhere in its file."""
    found = {}
    for name, file in modules().items():
        dotted = imports(run_nodes(ast.parse(file.read_text())))
        paths = {path.replace(".", "/") for path in dotted if path.split(".")[0] in PACKAGES}
        # A name inside a module counts as the module.
        found[name] = {p if p in modules() else p.rsplit("/", 1)[0] for p in paths} - {name}
    return found


@pytest.mark.parametrize("room", ARROWS)
def test_imports_run_downward_only(room):
    allowed = {room, *ARROWS[room].split(), *COMMON[innermost(room, COMMON)].split()}
    for name in (name for name in modules() if innermost(name, ARROWS) == room):
        for other in arrows()[name]:
            fits = any(within(other, one) for one in allowed)
            assert fits, f"{name} imports {other}; {room} may use {sorted(allowed)}"


def innermost(name: str, rooms: Iterable[str]) -> str:
    return max((room for room in rooms if within(name, room)), key=len)


def test_no_files_import_each_other_in_a_circle():
    """What imports nothing that is left, or is imported by nothing left, is in no circle."""
    left = dict(arrows())
    while True:
        targets = set().union(*left.values())
        ends = [name for name in left if not left[name] & left.keys() or name not in targets]
        if not ends:
            break
        for name in ends:
            del left[name]
    assert not left, f"these import each other, or stand between those that do: {sorted(left)}"


@pytest.mark.parametrize("package", LOOSE)
def test_few_files_lie_beside_the_rooms(package):
    loose = [n for n, f in modules().items() if f.parent == ROOT / package and n != package]
    assert len(loose) <= LOOSE[package], f"{package} has {sorted(loose)}"


def test_heavy_packages_stay_where_they_belong():
    astray = []
    for name, file in modules().items():
        found = {other.split(".")[0] for other in imports(ast.parse(file.read_text()).body)}
        for package in HEAVY.keys() & found:
            home = name.split("/")[0]
            if home not in HEAVY[package] or within(name, "vq/container"):
                astray.append(f"{name} imports {package}")
    assert not astray


#: Modules to import one after another in one process, with what is not loaded then.
LEAN = [
    [
        # Inside the simulator, at the start of every run.
        ("hwsim.simulator.streamer_testbench", "numpy torch amaranth"),
        ("hwsim.simulator.accelerator_testbench", "numpy torch amaranth"),
    ],
    [
        # Reports are made where no hardware package is installed.
        ("hwsim.measure.document", "torch amaranth cocotb numpy"),
        ("hwsim.sweep.document", "torch amaranth cocotb numpy"),
        ("signbook.report", "torch amaranth cocotb"),
    ],
    [
        ("vq.container", "torch faiss amaranth cocotb safetensors"),
        ("vq.integer", "torch faiss amaranth cocotb safetensors"),
        ("vq", "torch faiss amaranth cocotb"),
        ("vq.recipe.recipe", "torch faiss amaranth cocotb"),
        ("vq.formats.scalar", "torch faiss amaranth cocotb"),
        ("hwsim.workloads.door", "torch amaranth cocotb"),
        ("hwsim.workloads.trace", "torch amaranth cocotb"),
        ("signbook.cli", "torch amaranth cocotb matplotlib"),
        ("vq.formats.model", "faiss amaranth cocotb"),
        ("vq.storage", "faiss triton amaranth cocotb"),
        ("vq.inference.modules", "faiss triton amaranth cocotb"),
        ("vq.export", "faiss onnx amaranth cocotb"),
        ("vq.compress", "amaranth cocotb sklearn matplotlib"),
    ],
    [
        ("rtl", "torch cocotb"),
        ("hwsim.workloads.lower", "torch cocotb"),
        ("hwsim.measure.simulate", "torch"),
    ],
]


@pytest.mark.parametrize("chain", LEAN)
def test_importing_is_lean(chain):
    code = (
        f"import importlib, sys\nfor module, absent in {chain!r}:\n"
        "    importlib.import_module(module)\n"
        "    print(*(f'{module} loads {a}' for a in absent.split() if a in sys.modules), end='')\n"
        "assert 'torch' not in sys.modules or not sys.modules['torch'].cuda.is_initialized()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout == ""


#: What needs a simulator, or a package that is seldom here.
ELSEWHERE = {"hwsim/simulator/streamer_testbench"}
if importlib.util.find_spec("triton") is None:
    ELSEWHERE.add("vq/inference/programs")
#: By their dotted names.
IMPORTABLE = [name.replace("/", ".") for name in modules() if name not in ELSEWHERE]


def test_public_names_exist_and_are_listed_in_order():
    for name in IMPORTABLE:
        module = importlib.import_module(name)
        names = getattr(module, "__all__", [])
        ordered = sorted(names, key=_constants_first)
        assert list(names) == ordered, f"{name}: sort __all__, constants first"
        for public in names:
            assert hasattr(module, public), f"{name}.{public}"


def _constants_first(name: str) -> tuple[int, str]:
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


def test_every_public_thing_says_what_it_is():
    silent = []
    for name in IMPORTABLE:
        module = importlib.import_module(name)
        things = {name: module}
        for public in getattr(module, "__all__", []):
            value = getattr(module, public)
            if callable(value) and getattr(value, "__module__", "").startswith(PACKAGES):
                things[f"{name}.{public}"] = value
        silent += [thing for thing, value in things.items() if not value.__doc__]
    assert not silent, "these must have a docstring"


def test_libraries_do_not_print():
    for name, file in modules().items():
        if not within(name, "signbook"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                    assert node.func.id != "print", f"{file}:{node.lineno}"
