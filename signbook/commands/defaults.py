"""Defaults of the library, for options that show them before anything heavy is imported."""

import ast
import functools
from pathlib import Path
from typing import Any

__all__ = ["Defaults"]

_ROOT = Path(__file__).parents[2]


class Defaults:
    """The defaults of a function's parameters or of a dataclass's fields, as attributes.

    They are read from the module's source: to import it may mean to import torch, which takes
    seconds, and ``--help`` must not. They must be literals, or constants of a module of ours.

    Parameters
    ----------
    module : str
        Dotted name, such as "vq.learning.finetune".
    name : str
        Of the function or class in it.

    Examples
    --------
    >>> Defaults("vq.learning.finetune", "finetune_").accumulate
    1
    """

    def __init__(self, module: str, name: str) -> None:
        self._module, self._name = module, name

    def __getattr__(self, parameter: str) -> Any:
        for node in _body(self._module):
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == self._name:
                found = _fields(node) if isinstance(node, ast.ClassDef) else _parameters(node)
                if parameter in found:
                    return _value(self._module, found[parameter])
                where = f"{self._module}.{self._name}"
                raise AttributeError(f"{where} has no default for {parameter!r}")
        raise AttributeError(f"{self._module} has no {self._name}")


@functools.cache
def _body(module: str) -> list[ast.stmt]:
    folder = _ROOT.joinpath(*module.split("."))
    path = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
    return ast.parse(path.read_text()).body


def _fields(node: ast.ClassDef) -> dict[str, ast.expr]:
    return {
        each.target.id: each.value
        for each in node.body
        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name) and each.value
    }


def _parameters(node: ast.FunctionDef) -> dict[str, ast.expr]:
    every = node.args
    by_place = zip(reversed(every.args), reversed(every.defaults), strict=False)
    by_name = zip(every.kwonlyargs, every.kw_defaults, strict=True)
    return {each.arg: value for each, value in (*by_place, *by_name) if value is not None}


def _value(module: str, node: ast.expr) -> Any:
    return _constant(module, node.id) if isinstance(node, ast.Name) else ast.literal_eval(node)


def _constant(module: str, name: str) -> Any:
    for node in _body(module):
        match node:
            case ast.Assign(targets=[ast.Name(id=found)], value=value) if found == name:
                return _value(module, value)
            case ast.ImportFrom(module=str(source), names=names):
                if any(alias.name == name for alias in names):
                    return _constant(source, name)
    raise AttributeError(f"{module} has no constant {name}")
