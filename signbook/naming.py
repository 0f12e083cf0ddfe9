"""Models and data by name: ``timm:NAME``, ``hf:PATH_OR_ID``, ``py:package.module:factory``, ...

A ``py:`` name may carry options of its factory: ``py:signbook.data:cifar10_exact?limit=100``.
Numbers, ``true``, ``false`` and ``none`` are read as such, everything else is text.
"""

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import nn

from signbook.hints import did_you_mean
from signbook.tasks import Task
from signbook.zoo.checkpoints import load_weights
from signbook.zoo.gguf import gguf_in, gguf_model
from signbook.zoo.hollow import without_values
from signbook.zoo.hub import timm_model, transformers_model
from vq.errors import ConfigError, SignbookError

__all__ = ["resolve_data", "resolve_model"]

_MODELS = (
    "py:signbook.zoo.resnet:resnet20",
    "py:signbook.zoo.resnet:resnet44",
    "py:signbook.zoo.tiniest:tiniest",
    "py:signbook.zoo.resnet8:resnet8",
    "py:signbook.zoo.efficientnet:lite0",
    "py:signbook.zoo.llama:stories260k",
    "py:signbook.zoo.ddpm:ddpm",
    "py:signbook.zoo.minilm:minilm",
    "py:signbook.zoo.smollm2:smollm2",
    "py:signbook.zoo.digits:DigitsViT",
    *(f"py:signbook.zoo.vim:trained_{data}" for data in ("digits", "mnist", "cifar10")),
    "py:signbook.zoo.dit:digits",
    "py:signbook.zoo.dit:mnist",
    "py:signbook.zoo.unet:mnist",
    "py:signbook.diffusion:digits_dit",
    "py:signbook.diffusion:digits_judge",
    "py:signbook.diffusion:mnist_dit",
    "py:signbook.diffusion:mnist_judge",
    "py:signbook.diffusion:mnist_unet",
)
_DATA = (
    *(
        f"py:signbook.data:{name}"
        for name in (
            "cifar10_exact", "cifar10_jpeg", "digits", "digits_noise", "imagenet_val",
            "imagenet_sample", "imagenette160", "caltech101", "image_folder", "mnist",
            "mnist_noise", "tinyshakespeare", "tinystories", "wikitext2", "wikitext2_sentences",
        )
    ),
    "py:signbook.diffusion:generation",
    "py:signbook.diffusion:trajectories",
)  # fmt: skip
_WORDS: dict[str, Any] = {"true": True, "false": False, "none": None}


def resolve_model(
    name: str, weights: str | Path | None = None, *, pretrained: bool = True, hollow: bool = False
) -> nn.Module:
    """Build the model that ``name`` says, in evaluation mode.

    Parameters
    ----------
    name : str
        ``timm:NAME``, ``hf:PATH_OR_ID``, ``diffusers:PATH`` or ``py:package.module:factory``. A
        path may lead to a GGUF, or to a folder with one and no other weights; that of diffusers
        leads to a folder.
    weights : path, optional
        A safetensors file, a torch file of tensors, or a file that the model knows how to read.
    pretrained : bool
        Without ``weights``, fetch those that timm or transformers know for the name. A ``py:``
        factory decides by itself.
    hollow : bool
        Let parameters be on the meta device where a configuration makes the model, not a factory:
        for what takes its weights from elsewhere.

    Raises
    ------
    ConfigError
        If the name leads nowhere, an extra is not installed, weights cannot be had (there may be
        no network) or do not fit.
    """
    kind, _, rest = name.partition(":")
    wanted = pretrained and weights is None
    if hollow and kind in ("timm", "hf"):
        with without_values():
            return resolve_model(name, pretrained=False)
    if kind == "timm" and rest:
        model = timm_model(rest, pretrained=wanted)
    elif kind == "hf" and rest:
        file = gguf_in(rest)
        if file is None:
            model = transformers_model(rest, pretrained=wanted)
        else:
            model = gguf_model(file, pretrained=wanted)
    elif kind == "diffusers" and rest:
        # Here, for its package asks this module for models.
        from signbook.diffusion.networks import diffusers_model

        model = diffusers_model(rest, pretrained=wanted)
    elif kind == "py" and rest:
        model = _call(name, "model", _MODELS)
        if not isinstance(model, nn.Module):
            raise ConfigError(f"{name}: must give a torch module, not {type(model).__name__}")
    else:
        raise ConfigError(
            "model must be named timm:NAME, hf:PATH_OR_ID, diffusers:PATH or "
            f"py:package.module:factory, not {name!r}{did_you_mean(name, _MODELS)}"
        )
    return model.eval() if weights is None else load_weights(model, weights)


def resolve_data(name: str, defaults: Mapping[str, Any] | None = None) -> Task:
    """Build the task (data and what to do with it) that ``name`` says.

    Parameters
    ----------
    name : str
    defaults : mapping of str, optional
        Options that the factory is given if it takes them and the name does not give them.

    Raises
    ------
    ConfigError
        If the name leads nowhere or the factory does not return a task.
    """
    if not name.startswith("py:") or name == "py:":
        raise ConfigError(
            f"data must be named py:package.module:factory, not {name!r}{did_you_mean(name, _DATA)}"
        )
    task = _call(name, "data", _DATA, defaults or {})
    if not isinstance(task, Task):
        raise ConfigError(
            f"{name}: must give a task (see signbook.tasks), not {type(task).__name__}"
        )
    return task


def _call(
    name: str, kind: str, known: tuple[str, ...], defaults: Mapping[str, Any] = MappingProxyType({})
) -> Any:
    """Import and call the factory of a ``py:`` name."""
    path, _, query = name.removeprefix("py:").partition("?")
    module_name, _, attribute = path.partition(":")
    if not module_name or not attribute:
        raise ConfigError(
            f"{kind} must be named py:package.module:factory, not {name!r}"
            f"{did_you_mean(name, known)}"
        )
    module = _import(name, module_name, known)
    factory = getattr(module, attribute, None)
    if not callable(factory):
        public = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        near = did_you_mean(attribute, public)
        raise ConfigError(f"{name}: {module_name} must have a factory {attribute!r}{near}")
    options = _taken(defaults, factory) | _options(name, query, factory)
    try:
        return factory(**options)
    except SignbookError:
        raise
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{name}: package {error.name!r} must be installed, not absent"
        ) from error
    except (Exception, SystemExit) as error:  # a factory is the user's code
        raise ConfigError(
            f"{name}: factory must return, not raise {type(error).__name__}: {error}"
        ) from error


def _import(name: str, module_name: str, known: tuple[str, ...]) -> Any:
    here = str(Path.cwd())
    if here not in sys.path:  # as with python -m: the user's own modules lie here
        sys.path.append(here)
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or module_name
        own = module_name == missing or module_name.startswith(missing + ".")
        hint = did_you_mean(name, known) if own else ""
        raise ConfigError(
            f"{name}: module {missing!r} must be importable, not absent{hint}"
        ) from error
    except (Exception, SystemExit) as error:  # a module is the user's code
        raise ConfigError(
            f"{name}: module {module_name!r} must be importable, "
            f"but raises {type(error).__name__}: {error}"
        ) from error


def _options(name: str, query: str, factory: Callable[..., Any]) -> dict[str, Any]:
    """Read ``key=value&...`` and check it against what the factory takes."""
    found = {}
    for part in filter(None, query.split("&")):
        key, equals, value = part.partition("=")
        if not equals:
            raise ConfigError(f"{name}: option must be KEY=VALUE, not {part!r}")
        found[key] = _value(value)
    try:
        inspect.signature(factory).bind(**found)
    except TypeError as error:
        taken = list(inspect.signature(factory).parameters)
        unknown = next((key for key in found if key not in taken), "")
        hint = did_you_mean(unknown, taken) if unknown else ""
        raise ConfigError(
            f"{name}: options must fit the factory, which takes {', '.join(taken) or 'none'}, not "
            f"{', '.join(found) or 'none'}{hint}"
        ) from error
    except ValueError:  # a factory in C says nothing about its options
        pass
    return found


def _taken(defaults: Mapping[str, Any], factory: Callable[..., Any]) -> dict[str, Any]:
    """Those options that a factory takes by name."""
    try:
        taken = inspect.signature(factory).parameters if defaults else {}
    except ValueError:  # a factory in C says nothing about its options
        return {}
    return {key: value for key, value in defaults.items() if key in taken}


def _value(text: str) -> Any:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
