"""Models of timm and of transformers, from a local folder, the local cache or the network."""

import contextlib
import importlib
import logging
import os
import re
import socket
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from torch import nn

from signbook.extras import require
from signbook.hints import did_you_mean
from vq.errors import ConfigError, SignbookError
from vq.hf import METHOD, register
from vq.progress import bar

__all__ = [
    "quiet_transformers",
    "reason",
    "silent_transformers",
    "timm_model",
    "transformers_model",
]

#: What it means that a library raises an error of one of these kinds, the clearest first.
_REASONS = {
    "GatedRepoError": "the hub gives it only to those who accepted its terms and are logged in",
    "LocalEntryNotFoundError OfflineModeIsEnabled ConnectionError ConnectError ConnectTimeout "
    "ReadTimeout Timeout TimeoutError": "it is not in the cache, and the hub does not answer",
    "RepositoryNotFoundError": "the hub shows nobody, or not you, anything of that name",
    "RevisionNotFoundError EntryNotFoundError": "it lacks a file that it must have",
    "HFValidationError": "the hub has no names of this form",
    "SafetensorError": "its weights are damaged",
    "JSONDecodeError UnicodeDecodeError": "one of its files is damaged",
    "ModuleNotFoundError": "it needs a package that is not installed",
}


def timm_model(name: str, *, pretrained: bool) -> nn.Module:
    """Build a model of timm.

    Raises
    ------
    ConfigError
        If timm is missing or does not know the name, or the weights cannot be had.
    """
    subject = f"model 'timm:{name}'"
    timm = require("timm", extra="vision", purpose=subject)
    known = timm.list_models()
    architecture = name.partition(".")[0]
    if architecture not in known:
        raise ConfigError(f"{subject}: must be one that timm knows{did_you_mean(name, known)}")
    with _one_error(subject), bar(f"loading {name}", None):
        model: nn.Module = timm.create_model(name, pretrained=pretrained)
    return model


def transformers_model(name: str, *, pretrained: bool) -> nn.Module:
    """Build a model of transformers, with the head that its ``config.json`` names.

    Raises
    ------
    ConfigError
        If transformers is missing, the folder or id leads nowhere, or the weights cannot be had.
    """
    subject = f"model 'hf:{name}'"
    transformers = require("transformers", extra="lm", purpose=subject)
    local = os.path.isdir(name)
    if local and not (Path(name) / "config.json").is_file():
        raise ConfigError(f"{subject}: folder must hold a config.json, not be without")
    if name.startswith((".", "/", "~")) and not local:
        raise ConfigError(f"{subject}: must be a folder that exists, or an id of the hub")
    with quiet_transformers(subject), bar(f"loading {name}", None):
        config = transformers.AutoConfig.from_pretrained(name, local_files_only=local)
        about = getattr(config, "quantization_config", None)
        if isinstance(about, dict) and about.get("quant_method") == METHOD:
            register()  # not always: older versions of transformers load all other models
        named = (config.architectures or ["AutoModel"])[0]
        architecture = getattr(transformers, named, None)
        if architecture is None:
            raise ConfigError(f"{subject}: must be one that transformers knows, not {named!r}")
        model: nn.Module
        if pretrained:
            model, about = architecture.from_pretrained(
                name, local_files_only=local, output_loading_info=True
            )
            if absent := sorted(about["missing_keys"]):
                warnings.warn(
                    f"{subject}: {len(absent)} of its tensors are in no file and stay random, the "
                    f"first is {absent[0]!r}",
                    stacklevel=2,
                )
        elif named == "AutoModel":
            model = transformers.AutoModel.from_config(config)
        else:
            model = architecture(config)
    return model


@contextlib.contextmanager
def quiet_transformers(subject: str) -> Iterator[None]:
    """Silence transformers, and turn whatever it raises into one error.

    Raises
    ------
    ConfigError
        That names ``subject`` and says what to do without a network.
    """
    with silent_transformers(), _one_error(subject):
        yield


@contextlib.contextmanager
def silent_transformers() -> Iterator[None]:
    """Keep transformers from printing, its bars too."""
    control = importlib.import_module("transformers.utils.logging")
    verbosity, bars = control.get_verbosity(), control.is_progress_bar_enabled()
    control.set_verbosity_error()
    control.disable_progress_bar()
    try:
        yield
    finally:
        control.set_verbosity(verbosity)
        if bars:
            control.enable_progress_bar()


@contextlib.contextmanager
def _one_error(subject: str) -> Iterator[None]:
    """Turn what a library raises while it looks for weights into one error; keep it quiet."""
    hub = logging.getLogger("huggingface_hub")
    level = hub.level
    hub.setLevel(logging.CRITICAL)  # it reports every attempt
    try:
        with _offline_at_once():
            yield
    except SignbookError:
        raise
    except Exception as error:  # of transformers, timm, huggingface_hub, safetensors, httpx, ...
        raise ConfigError(
            f"{subject}: must be in a local folder or cache, or reachable by network, but "
            f"{reason(error)}; fill the cache where there is a network, or give a local folder"
        ) from error
    finally:
        hub.setLevel(level)


def reason(error: BaseException) -> str:
    """What went wrong, by the kinds of an error and of those that it came from."""
    kinds: set[str] = set()
    one: BaseException | None = error
    while one is not None:
        kinds |= {kind.__name__ for kind in type(one).__mro__}
        one = one.__cause__ or one.__context__
    found = next((text for names, text in _REASONS.items() if kinds & set(names.split())), None)
    if found is not None:
        return found
    first = re.split(r"(?<=[.:;])\s|\n", str(error).strip(), maxsplit=1)[0]
    library = type(error).__module__.partition(".")[0]
    where = "loading" if library == "builtins" else library
    return f"{where} raised {type(error).__name__}" + (f" ({first[:120]})" if first else "")


@contextlib.contextmanager
def _offline_at_once() -> Iterator[None]:
    """Where the hub's name does not resolve, look into the cache only: its retries take a minute.

    A proxy resolves names itself, so there nothing is assumed.
    """
    try:
        constants: Any = importlib.import_module("huggingface_hub.constants")
    except ImportError:
        yield
        return
    before = constants.HF_HUB_OFFLINE
    if not before and not (os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy")):
        try:
            socket.getaddrinfo(urlsplit(constants.ENDPOINT).hostname, 443)
        except OSError:
            constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
