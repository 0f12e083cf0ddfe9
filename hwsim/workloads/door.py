"""The door: a workload by its text."""

import difflib
import inspect
import os
import re
from collections.abc import Callable, Mapping
from functools import partial

from hwsim.workloads.network import Workload
from hwsim.workloads.residual import efficientnet_lite0, resnet20, resnet50
from hwsim.workloads.stored import workload_of_container
from hwsim.workloads.topology import read_topology
from hwsim.workloads.transformers import deit, llama_2_7b, minilm_l6, smollm2_135m
from vq.container import ConfigError, bulleted

__all__ = ["BUILT_IN", "workload"]

#: Networks whose shapes are known, by name.
BUILT_IN: Mapping[str, Callable[..., Workload]] = {
    "deit-tiny": partial(deit, "tiny"),
    "deit-small": partial(deit, "small"),
    "deit-base": partial(deit, "base"),
    "efficientnet-lite0": efficientnet_lite0,
    "llama-2-7b": llama_2_7b,
    "minilm-l6": minilm_l6,
    "resnet-20": resnet20,
    "resnet-50": resnet50,
    "smollm2-135m": smollm2_135m,
}
#: Largest value of each setting, by name, where it is not ``_SETTING_MAX``.
_LIMITS = {"tokens": 512}
_SETTING_MAX = 2**20


def workload(text: str) -> Workload:
    """Make the workload that ``text`` names.

    A built-in name, perhaps with settings (``llama-2-7b:m=1,context=512`` or ``:prefill=512``,
    ``smollm2-135m`` likewise; ``minilm-l6:tokens=128``); else the path of a ``.csv`` topology or of
    a container (``.safetensors``, perhaps with ``:rows=16``).

    Raises
    ------
    ConfigError
        If the name, a setting or a value is unknown, with what is meant by it perhaps.
    ContainerError
        If the file is damaged.

    Examples
    --------
    >>> workload("llama-2-7b:m=4,context=128").macs > workload("deit-tiny").macs
    True
    """
    name, _, settings = text.partition(":")
    if name in BUILT_IN:
        make = BUILT_IN[name]
        known = {
            key: parameter.default == 0
            for key, parameter in inspect.signature(make).parameters.items()
        }
        values = _settings(text, settings, known)
        if values.get("prefill") and values.keys() & {"m", "context"}:
            raise ConfigError(
                f"workload {text!r}: must be a prefill or a decoding with m and context, not both"
            )
        return make(**values)
    # A path may hold colons of its own; what follows the last one are settings if it looks so.
    found = re.fullmatch(r"(.*\.safetensors):([a-z_]+=.*)", text, re.S)
    path, settings = (found[1], found[2]) if found else (text, "")
    if path.endswith(".csv"):
        return read_topology(path)
    if path.endswith(".safetensors"):
        return workload_of_container(path, **_settings(text, settings, {"rows": False}))
    near = difflib.get_close_matches(name.lower(), BUILT_IN, n=1, cutoff=0.5)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    raise ConfigError(
        f"workload must be one of {', '.join(BUILT_IN)}, a .csv topology or a container, "
        f"not {text!r}{hint}"
        + (", which is a file of another kind" if os.path.isfile(path) else "")
    )


def _settings(text: str, settings: str, known: Mapping[str, bool]) -> dict[str, int]:
    """Read ``key=value,...``; a known key says whether its value may be 0."""
    problems, values = [], {}
    for part in settings.split(",") if settings else []:
        key, _, value = (piece.strip() for piece in part.partition("="))
        limit = _LIMITS.get(key, _SETTING_MAX)
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            must = f"setting must be one of {', '.join(known)}" if known else "it has no settings"
            problems.append(f"{must}, not {key!r}{hint}")
        elif key in values:
            problems.append(f"{key} must be given once, not twice")
        elif not (
            re.fullmatch(r"[0-9]{1,12}", value) and int(not known[key]) <= int(value) <= limit
        ):
            least = 0 if known[key] else 1
            problems.append(f"{key} must be a whole number from {least} to {limit}, not {value!r}")
        else:
            values[key] = int(value)
    if problems:
        raise ConfigError(bulleted(f"workload {text!r}", problems))
    return values
