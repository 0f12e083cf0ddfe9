"""Weights in the format of GPTQ checkpoints, as AutoGPTQ began it and GPTQModel goes on with it."""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from signbook.packed.folder import Stored
from signbook.packed.words import pack_words, read_codes, read_scales, read_zeros
from vq.container import Container, Geometry
from vq.errors import ConfigError

__all__ = ["Gptq"]

_BLOCK = re.compile(r"(.+?)\.\d+\.")


class Gptq:
    """Layers of a container in this format; all have the same bits and the same groups.

    Version 1 of the format stores each zero less one, and so cannot hold a zero of 0; readers
    refuse it for layers with zeros. Those are stored in version 2, which holds zeros as they are.

    Parameters
    ----------
    container : Container
    layers : sequence of Geometry
        To pack; :meth:`problem` is None for each.
    plain : sequence of str
        Linear layers of the model that are not packed.

    Raises
    ------
    ConfigError
        If the layers differ in bits or groups, or do not lie in one row of blocks.
    """

    #: The reader multiplies in fp16, the dtype of the scales.
    dtype = "float16"

    def __init__(
        self, container: Container, layers: Sequence[Geometry], plain: Sequence[str]
    ) -> None:
        self._container = container
        self._layers = layers
        self._plain = plain
        self._blocks = _only(container, "lie in one row of blocks", map(_block, layers))
        whole = all(g.group_width == g.I for g in layers)
        kinds = (f"{g.b} bits and groups of {'all' if whole else g.group} inputs" for g in layers)
        _only(container, "be coded alike", kinds)
        self._bits, self._group = layers[0].b, -1 if whole else layers[0].group
        self._v1 = not any(g.zeros for g in layers)

    @staticmethod
    def problem(container: Container, g: Geometry) -> str | None:
        """What a layer must be to be packed, if it is not."""
        if not _block(g):
            return "must lie in a numbered block, as readers replace no other layers"
        if g.I % g.group_width:
            return f"inputs must be whole groups of {g.group}, not {g.I}"
        for what, count in (("inputs", g.I), ("outputs", g.O)):
            if count * g.b % 32:
                return f"{what} must fill whole words of 32 bits, not be {count} of {g.b} bits"
        scales = read_scales(container, g.name)
        if not np.array_equal(_narrow(scales), scales):
            return "scales must be numbers that fp16 holds, not those of int8"
        return None

    def tensors(self) -> Iterator[Stored]:
        """Give the packed layers' tensors, in order."""
        for g in self._layers:
            yield from self._layer(g)

    def _layer(self, g: Geometry) -> Iterator[Stored]:
        container, name, width = self._container, g.name, g.group_width
        groups = g.I // width
        yield Stored(
            f"{name}.qweight",
            "I32",
            (g.I * g.b // 32, g.O),
            lambda: pack_words(read_codes(container, name), g.b).T,
        )
        yield Stored(
            f"{name}.qzeros",
            "I32",
            (groups, g.O * g.b // 32),
            lambda: pack_words(read_zeros(container, name).T - np.uint8(self._v1), g.b),
        )
        yield Stored(
            f"{name}.scales", "F16", (groups, g.O), lambda: _narrow(read_scales(container, name)).T
        )
        yield Stored(
            f"{name}.g_idx", "I32", (g.I,), lambda: np.arange(g.I, dtype=np.int32) // width
        )

    def config(self) -> dict[str, Any]:
        """``quantization_config``, which names the layers that are packed and those that are not.

        transformers reads the one list, GPTQModel the other.
        """
        return {
            "quant_method": "gptq",
            "checkpoint_format": "gptq" if self._v1 else "gptq_v2",
            "bits": self._bits,
            "group_size": self._group,
            "sym": self._v1,
            "desc_act": False,
            "lm_head": False,
            "pack_dtype": "int32",
            "block_name_to_quantize": self._blocks,
            "modules_in_block_to_quantize": [[g.name for g in self._layers]],
            "dynamic": {f"-:^{re.escape(name)}$": {} for name in self._plain},
        }


def _block(g: Geometry) -> str:
    """Path of the row of blocks that a layer lies in, such as ``model.layers``, or ""."""
    found = _BLOCK.match(g.name)
    return found[1] if found else ""


def _narrow(scales: NDArray[np.float16 | np.float32]) -> NDArray[np.float16]:
    with np.errstate(over="ignore"):  # what does not fit becomes infinite, and is refused
        return scales.astype(np.float16)


def _only(container: Container, requirement: str, found: Iterable[str]) -> str:
    """Return the one value that all layers have.

    Raises
    ------
    ConfigError
    """
    first, *others = dict.fromkeys(found)
    if others:
        raise ConfigError(
            f"{container.path}: layers of a GPTQ checkpoint must {requirement}, "
            f"not in {first} and in {others[0]}; --to compressed-tensors takes all kinds"
        )
    return first
