"""Pages of the reference: one for each package, each room in it, and each loose module.

Every object is described once, on the page of the module that defines it; a package lists the names
that it exports and leads there.
"""

import importlib
import inspect
import pydoc
import shutil
from collections.abc import Iterable
from pathlib import Path

PACKAGES = ("vq", "rescomp", "rtl", "hwsim", "signbook")
ROOT = Path(__file__).parents[1]


def write(folder: Path) -> None:
    """Write the pages as Markdown to ``folder``, which is theirs alone."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for package in PACKAGES:
        _write(folder, package)


def defined(path: str) -> str | None:
    """The dotted path under which an object is described; None if there is no such object."""
    found = pydoc.locate(path)
    if found is None:
        return None
    home, own = getattr(found, "__module__", None), getattr(found, "__qualname__", None)
    return f"{home}.{own}" if home and own else path


def _write(folder: Path, name: str) -> None:
    """Write the page of a package, room or loose module, and of all that lies in it."""
    package, _, short = name.partition(".")
    text = [f"# {short or package}", _rst(_automodule(name, _exported(name)), _table(name))]
    inner = _inside(name)
    pages = [i for i in inner if _is_folder(i) or not short]
    for module in inner:
        if module not in pages:
            text += [f"## {module}", _rst(_automodule(module))]
    if pages:
        text.append("```{toctree}\n:maxdepth: 1\n\n" + "\n".join(pages) + "\n```")
    (folder / f"{name}.md").write_text("\n\n".join(text) + "\n")
    for page in pages:
        _write(folder, page)


def _inside(name: str) -> list[str]:
    """Rooms, then modules, in a folder; nothing in a module."""
    folder = ROOT.joinpath(*name.split("."))
    modules = [path.stem for path in folder.glob("*.py") if not path.stem.startswith("__")]
    rooms = [path.parent.name for path in folder.glob("*/__init__.py")]
    return [f"{name}.{inner}" for inner in (*sorted(rooms), *sorted(modules))]


def _is_folder(name: str) -> bool:
    return ROOT.joinpath(*name.split(".")).is_dir()


def _exported(name: str) -> dict[str, str]:
    """Names that a package exports from its modules, and where each is defined."""
    names = getattr(importlib.import_module(name), "__all__", ()) if _is_folder(name) else ()
    homes = {public: defined(f"{name}.{public}") for public in names}
    return {public: home for public, home in homes.items() if home != f"{name}.{public}"}


def _rst(*blocks: str) -> str:
    return "```{eval-rst}\n" + "\n\n".join(blocks) + "\n```"


def _automodule(name: str, without: Iterable[str] = ()) -> str:
    option = f"\n   :exclude-members: {', '.join(without)}" if without else ""
    return f".. automodule:: {name}{option}"


def _table(package: str) -> str:
    """What a package exports, each name with the first line of what is said about it."""
    rows = ""
    for name, home in _exported(package).items():
        says = (inspect.getdoc(pydoc.locate(home)) or "").partition("\n")[0]
        rows += f"   * - :py:obj:`{name} <{home}>`\n     - {says}\n"
    return f".. list-table:: Exported names\n   :widths: auto\n\n{rows}" if rows else ""
