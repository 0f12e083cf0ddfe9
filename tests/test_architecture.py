"""The house rules: which folder may import what, what an import costs, and public names."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from vq.formats.registry import FORMATS

ROOT = Path(__file__).parents[1]
PACKAGES = ("vq", "rescomp", "rtl", "hwsim", "signbook")

#: Own modules that each folder may import (docs/architecture.md draws this).
MAY_IMPORT = {
    "vq/container": ("vq.container", "vq.errors"),
    "vq/formats": (
        "vq.container",
        "vq.distributed",
        "vq.errors",
        "vq.formats",
        "vq.layers",
        "vq.native",
        "vq.progress",
    ),
    "vq/clustering": ("vq.clustering", "vq.container", "vq.errors", "vq.formats"),
    "vq": ("vq",),
    "rescomp": ("rescomp", "vq"),
    "rtl": ("rtl", "vq.container", "vq.native"),
    "rtl/bus": ("rtl.bus", "rtl.config", "vq.container"),
    "rtl/decode": ("rtl.decode", "rtl.bus", "rtl.config", "rtl.descriptor", "vq.container"),
    "rtl/compute": ("rtl.compute", "rtl.settings", "vq.container"),
    "rtl/transfer": ("rtl.transfer", "rtl.compute", "rtl.bus", "rtl.config", "vq.container"),
    "hwsim": ("hwsim", "vq.errors"),
    "hwsim/memory": ("hwsim.memory", "vq.errors", "vq.native"),
    "hwsim/program": ("hwsim.program", "rtl", "vq.container", "vq.integer"),
    "hwsim/workloads": (
        "hwsim.workloads",
        "hwsim.program",
        "rtl",
        "vq.container",
        "vq.errors",
        "vq.integer",
        "vq.recipe.recipe",
        "vq.version",
    ),
    "hwsim/simulator": (
        "hwsim.simulator",
        "hwsim.program",
        "hwsim.memory",
        "hwsim.defaults",
        "rtl",
        "vq.container",
        "vq.native",
    ),
    "hwsim/cycles": (
        "hwsim.cycles",
        "hwsim.program",
        "hwsim.memory",
        "rtl",
        "vq.container",
        "vq.native",
    ),
    "hwsim/measure": (
        "hwsim.measure",
        "hwsim.workloads",
        "hwsim.simulator",
        "hwsim.cycles",
        "hwsim.program",
        "hwsim.memory",
        "hwsim.defaults",
        "rtl",
        "vq.container",
        "vq.errors",
        "vq.integer",
    ),
    "hwsim/sweep": (
        "hwsim.sweep",
        "hwsim.measure",
        "hwsim.workloads",
        "hwsim.memory",
        "hwsim.defaults",
        "rtl",
        "vq.container",
        "vq.errors",
        "vq.recipe.recipe",
        "vq.version",
    ),
    "signbook": PACKAGES,
}
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
}


def sources(folder: str) -> list[Path]:
    """Modules of a folder, without those of a folder inside that has rules of its own."""
    inner = [ROOT / other for other in MAY_IMPORT if other.startswith(f"{folder}/")]
    files = sorted((ROOT / folder).rglob("*.py"))
    return [f for f in files if not any(f.is_relative_to(other) for other in inner)]


def imports(path: Path, *, top_level_only: bool = False) -> set[str]:
    """Dotted names that a module imports; ``from vq import errors`` counts as vq.errors."""
    tree = ast.parse(path.read_text())
    found = set()
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports must be absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_imports_run_downward_only(folder):
    allowed = MAY_IMPORT[folder]
    for path in sources(folder):
        for name in imports(path):
            if name.split(".")[0] in PACKAGES:
                fits = any(name == a or name.startswith(a + ".") for a in allowed)
                assert fits, f"{path.relative_to(ROOT)} imports {name}; {folder} may use {allowed}"


@pytest.mark.parametrize("package", ["vq", "rescomp", "rtl", "hwsim"])
def test_no_file_needs_itself(package):
    """Not by way of others, nor by imports inside functions or for types."""
    names = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in (ROOT / package).rglob("*.py")
    }
    needed = {
        name: {(full if full in names else full.rpartition(".")[0]) for full in imports(path)}
        & names.keys() - {name}
        for name, path in names.items()
    }
    left = dict(needed)
    while ready := [name for name, others in left.items() if not others & left.keys()]:
        for name in ready:
            del left[name]
    # What is left imports a circle, or is part of one.
    assert not left, "circle among " + ", ".join(sorted(left))


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_heavy_packages_stay_where_they_belong(folder):
    for path in sources(folder):
        for name in imports(path, top_level_only=True):
            package = name.split(".")[0]
            if package in HEAVY:
                home = folder.split("/")[0]
                assert folder != "vq/container" and home in HEAVY[package], f"{path}: {name}"


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("vq", ("torch", "faiss", "amaranth", "cocotb")),
        ("vq.container", ("torch", "faiss", "amaranth", "cocotb", "safetensors")),
        ("vq.integer", ("torch", "faiss", "amaranth", "cocotb", "safetensors")),
        ("vq.recipe.recipe", ("torch", "faiss", "amaranth", "cocotb")),
        ("vq.formats.scalar", ("torch", "faiss", "amaranth", "cocotb")),
        ("vq.formats.model", ("faiss", "amaranth", "cocotb")),
        ("vq.storage", ("faiss", "amaranth", "cocotb")),
        ("vq.export", ("faiss", "onnx", "amaranth", "cocotb")),
        ("vq.compress", ("amaranth", "cocotb", "sklearn", "matplotlib")),
        ("rtl", ("torch", "cocotb")),
        ("hwsim.measure.simulate", ("torch",)),
        # Reports are made where no hardware package is installed.
        ("hwsim.measure.document", ("torch", "amaranth", "cocotb", "numpy")),
        ("hwsim.sweep.document", ("torch", "amaranth", "cocotb", "numpy")),
        ("signbook.report", ("torch", "amaranth", "cocotb")),
        ("hwsim.workloads.door", ("torch", "amaranth", "cocotb")),
        ("hwsim.workloads.lower", ("torch", "cocotb")),
        ("hwsim.workloads.trace", ("torch", "amaranth", "cocotb")),
        # Inside the simulator, at the start of every run.
        ("hwsim.simulator.streamer_testbench", ("numpy", "torch", "amaranth")),
        ("hwsim.simulator.accelerator_testbench", ("numpy", "torch", "amaranth")),
        ("signbook.cli", ("torch", "amaranth", "cocotb", "matplotlib")),
    ],
)
def test_importing_is_lean(module, absent):
    code = (
        f"import sys, {module}; "
        f"print([m for m in {absent!r} if m in sys.modules]); "
        "import importlib; assert 'torch' not in sys.modules or not __import__('torch')"
        ".cuda.is_initialized()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.strip() == "[]"


#: Folders that know formats: what is stored, how it is made, read and decoded.
KNOW_FORMATS = ("vq/formats", "vq/container", "vq/inference", "rtl")
#: Classes of formats and of their weights, which nobody else tells apart.
KINDS = {home.rpartition(":")[2] for home in FORMATS.values()} | {
    "CodebookWeight",
    "PlainVQ",
    "ScalarWeight",
    "SignSplit",
}


def asks_for_formats(node: ast.AST) -> bool:
    """Whether code goes by which format something has, instead of asking it for what it needs."""
    if isinstance(node, ast.Compare):
        sides = [node.left, *node.comparators]
        attributes = {x.attr for x in sides if isinstance(x, ast.Attribute)}
        if isinstance(node.ops[0], ast.In | ast.NotIn):
            sides = node.comparators  # whether a mapping has a key is no question of a format
        texts = {x.value for s in sides for x in ast.walk(s) if isinstance(x, ast.Constant)}
        names = {x.id for x in ast.walk(node) if isinstance(x, ast.Name)}
        kinds = "type" in names and names & KINDS
        return bool("method" in attributes or texts & FORMATS.keys() or kinds)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        names = {x.id for part in node.args for x in ast.walk(part) if isinstance(x, ast.Name)}
        return node.func.id in ("isinstance", "issubclass") and bool(names & KINDS)
    return isinstance(node, ast.MatchClass) and ast.unparse(node.cls) in KINDS


@pytest.mark.parametrize("package", [p for p in PACKAGES if p not in KNOW_FORMATS])
def test_only_formats_know_formats(package):
    homes = [ROOT / folder for folder in KNOW_FORMATS]
    for path in sorted((ROOT / package).rglob("*.py")):
        if not any(path.is_relative_to(home) for home in homes):
            for node in ast.walk(ast.parse(path.read_text())):
                assert not asks_for_formats(node), f"{path.relative_to(ROOT)}:{node.lineno}"


@pytest.mark.parametrize(
    ("code", "asks"),
    [
        ("g.method == 'int8'", True),
        ("layer.method not in SCALAR", True),
        ("method != 'ssvq'", True),
        ("name in ('vq', 'int4')", True),
        ("isinstance(layer.format, SSVQ | VQ)", True),
        ("isinstance(weight, (SignSplit, int))", True),
        ("type(rule) is Int8", True),
        ("'int8' in runs", False),
        ("isinstance(rule, Format)", False),
        ("g.k > 0 and not g.group", False),
        ("{'method': g.method}", False),
    ],
)
def test_what_asks_for_formats(code, asks):
    assert any(map(asks_for_formats, ast.walk(ast.parse(code)))) == asks


def modules() -> list[str]:
    found = []
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found.append(".".join(p for p in parts if p != "__init__"))
    # Runs in the simulator only.
    return [m for m in found if m != "hwsim.simulator.streamer_testbench"]


@pytest.mark.parametrize("name", modules())
def test_public_names_exist_and_are_listed_in_order(name):
    module = importlib.import_module(name)
    names = getattr(module, "__all__", [])
    assert list(names) == sorted(names, key=_constants_first), "sort __all__, constants first"
    for public in names:
        assert hasattr(module, public)


def _constants_first(name: str) -> tuple[int, str]:
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


@pytest.mark.parametrize("name", modules())
def test_every_public_thing_says_what_it_is(name):
    module = importlib.import_module(name)
    assert module.__doc__, f"{name} must have a docstring"
    for public in getattr(module, "__all__", []):
        value = getattr(module, public)
        if callable(value) and getattr(value, "__module__", "").startswith(PACKAGES):
            assert value.__doc__, f"{name}.{public} must have a docstring"


def test_libraries_do_not_print():
    for folder in MAY_IMPORT.keys() - {"signbook"}:
        for path in sources(folder):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                    assert node.func.id != "print", f"{path}:{node.lineno}"
