"""How transformers loads a container: a configuration, a quantizer and a conversion.

transformers is imported when they are registered, not with this module; until then each class
lacks its base class of transformers.
"""

import functools
import importlib
import re
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vq.activations.runtime import attach_stored
from vq.container import LAYOUT, Container, open_container
from vq.container.constants import LAYOUTS
from vq.errors import ConfigError, ContainerError, bulleted
from vq.formats.kept import dtype_tag
from vq.formats.model import set_provenance
from vq.formats.wrappers import listed
from vq.inference.decode import decode_weight
from vq.inference.modules import stored_weights, use_packed, with_tied
from vq.inference.weight import PackedWeight

__all__ = ["FILE", "METHOD", "PACKED", "SignbookConfig", "register_classes", "transformers"]

#: Name of the container in a folder.
FILE = "model.vq.safetensors"
#: What ``quant_method`` says in ``config.json``.
METHOD = "signbook"
#: While a model is loaded whose layers stay packed: how their activations are rounded.
PACKED: ContextVar[str | None] = ContextVar("PACKED", default=None)


def transformers() -> Any:
    """Import transformers.

    Raises
    ------
    ConfigError
        If it is not installed.
    """
    try:
        return importlib.import_module("transformers")
    except ModuleNotFoundError as error:
        if error.name != "transformers":
            raise
        raise ConfigError(
            "models of transformers: package 'transformers' must be installed, not absent; "
            "run: pip install 'signbook[lm]'"
        ) from error


@functools.cache
def register_classes() -> None:
    """Give the classes below their bases of transformers, and make them known there, once.

    Raises
    ------
    ConfigError
        If transformers is missing or too old.
    """
    version = transformers().__version__
    try:
        base = importlib.import_module("transformers.quantizers.base").HfQuantizer
        auto = importlib.import_module("transformers.quantizers.auto")
        configs = importlib.import_module("transformers.utils.quantization_config")
        importlib.import_module("transformers.core_model_loading")
    except ModuleNotFoundError as error:
        raise ConfigError(_too_old(version)) from error
    if not hasattr(base, "update_weight_conversions"):
        raise ConfigError(_too_old(version))
    config = type("SignbookConfig", (SignbookConfig, configs.QuantizationConfigMixin), {})
    quantizer = type("SignbookQuantizer", (_Quantizer, base), {})
    auto.register_quantization_config(METHOD)(config)
    auto.register_quantizer(METHOD)(quantizer)


def _too_old(version: str) -> str:
    return (
        "transformers must let a quantizer decode what it reads (5.23 does), "
        f"not be version {version}; run: pip install --upgrade transformers"
    )


class SignbookConfig:
    """What ``config.json`` says about a container; transformers' own base class comes second."""

    # The model is dense once it is loaded; transformers then forgets the quantizer.
    dequantize = True

    def __init__(
        self,
        quant_method: str = METHOD,
        layout: str = LAYOUT,
        file: str = FILE,
        recipe: Any = None,
        **unknown: Any,
    ) -> None:
        problems = [
            f"{name} must be {' or '.join(map(repr, wanted))}, not {value!r}"
            for name, value, wanted in (
                ("quant_method", quant_method, (METHOD,)),
                ("layout", layout, LAYOUTS),
            )
            if value not in wanted
        ]
        problems += [f"{name} must not be set" for name in unknown]
        if problems:
            raise ConfigError(bulleted("quantization_config", problems))
        self.quant_method = quant_method
        self.layout = layout
        self.file = file
        self.recipe = recipe


class _Quantizer:
    """Decodes a container while transformers loads it; transformers' own base comes second.

    transformers opens the container like any safetensors file. The kept tensors are ordinary
    entries of the state dictionary. A layer's stream takes the place of its weight: a conversion,
    as transformers calls it, decodes the one into the other. The rest is ignored.
    """

    quantization_config: Any
    pre_quantized: bool
    is_trainable = True
    _container: Container | None = None
    _packed: dict[str, PackedWeight] | None = None

    def is_serializable(self) -> bool:
        return False

    def validate_environment(self, *args: Any, **kwargs: Any) -> None:
        if not self.pre_quantized:
            raise ConfigError(
                "model must be compressed already, not by from_pretrained; "
                "call vq.compress_ and vq.hf.save_pretrained"
            )

    def _process_model_before_weight_loading(
        self, model: Any, checkpoint_files: list[str] | None = None, **kwargs: Any
    ) -> None:
        if getattr(model.config, "distributed_config", None) is not None:
            raise ConfigError("a compressed model must be loaded by one process, not in shards")
        found = [Path(file) for file in checkpoint_files or ()]
        if [file.name for file in found] != [self.quantization_config.file]:
            raise ConfigError(
                f"weights must be in {self.quantization_config.file!r} only, as config.json says, "
                f"not in {[str(file) for file in found]}"
            )
        container = open_container(found[0])
        # What is wrong with it now: transformers would hide an error in a report of its own.
        if (activations := PACKED.get()) is None:
            container.verify()
        else:
            self._packed = _pack(container, model, activations)
        streams = {f"{entry.geometry.name}.stream" for entry in container.layers}
        own = streams | set(container.kept_names)
        parts = {name for name in container.tensor_spans() if name not in own}
        parts |= {name for name in container.kept_names if not container.is_own(name)}
        ignored = set(model._keys_to_ignore_on_load_unexpected or ())
        ignored |= {f"^{re.escape(name)}$" for name in parts}
        model._keys_to_ignore_on_load_unexpected = ignored
        self._container = container

    def update_weight_conversions(self, weight_conversions: list[Any], model: Any) -> list[Any]:
        """Decode streams; leave out renamings, since the names are those of the modules."""
        assert self._container is not None
        loading = importlib.import_module("transformers.core_model_loading")
        decoder = type("Decode", (_Decode, loading.ConversionOps), {})
        packed = self._packed is not None
        return [
            loading.WeightConverter(
                rf"^{re.escape(entry.geometry.name)}\.stream$",
                f"{entry.geometry.name}.weight",
                [decoder(self._container, entry.geometry.name, packed)],
            )
            for entry in self._container.layers
        ]

    def get_new_dtype(self, converter: Any, param: Any, dtype: Any) -> Any:
        """Dtype to cast a stored tensor to; that of a decoded weight is left to its decoder."""
        for operation in getattr(converter, "operations", ()):
            operation.dtype = dtype
            return None
        stored = param.get_dtype() if hasattr(param, "get_dtype") else dtype_tag(param)
        return dtype if stored.startswith(("F", "BF")) else None

    def _process_model_after_weight_loading(self, model: Any, **kwargs: Any) -> Any:
        """Leave no trace: the model is what its architecture makes of the decoded weights.

        What the file says remains at run time is put in place.
        """
        for name in ("_keys_to_ignore_on_load_unexpected", "_weight_conversions"):
            vars(model).pop(name, None)
        vars(model.config).pop("transformers_weights", None)
        if self._container is not None:
            if self._packed is not None:
                weights = with_tied(model, self._packed)
                use_packed({name: model.get_submodule(name) for name in weights}, weights)
                set_provenance(model.requires_grad_(False), self._container.provenance)
            attach_stored(model, self._container)
            self._container.close()
        return model


def _pack(container: Container, model: Any, activations: str) -> dict[str, PackedWeight]:
    """Pack the layers of a container for a model, and check all else that it holds.

    Raises
    ------
    ContainerError
    """
    known = {name for name, _ in model.named_modules(remove_duplicate=False)}
    names = [entry.geometry.name for entry in container.layers]
    if absent := [name for name in names if name not in known]:
        raise ContainerError(
            f"{container.path}: layers {listed(absent)} must be in the model that config.json "
            "describes; take both from one folder"
        )
    with torch.device("cpu"):  # transformers makes models on the meta device
        weights = stored_weights(container, model, activations, progress=False)
    for name in container.tensor_spans():
        container.tensor_bytes(name)
        container.forget(name)
    return weights


class _Decode:
    """Decodes one layer in place of its stream, where transformers has put the stream.

    Of a layer that stays packed, a single zero stands for the weight until it is put in place.
    """

    def __init__(self, container: Container, layer: str, packed: bool) -> None:
        self.container = container
        self.layer = layer
        self.packed = packed
        self.dtype: torch.dtype | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Decode":
        return self  # transformers copies conversions; an open file has no copy

    def convert(
        self, input_dict: dict[str, Any], full_layer_name: str = "", **kwargs: Any
    ) -> dict[str, list[Tensor]]:
        ((stream,),) = input_dict.values()
        if self.packed:
            g = self.container.geometry(self.layer)
            shape = g.shape[::-1] if g.op == "linear_t" else g.shape
            zero = torch.zeros((), dtype=self.dtype, device=stream.device)
            return {full_layer_name: [zero.expand(shape)]}
        weight = decode_weight(self.container, self.layer, stream.device)
        return {full_layer_name: [weight.to(self.dtype)]}
