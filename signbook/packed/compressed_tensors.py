"""Weights in the format ``pack-quantized`` of compressed-tensors."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from signbook.packed.folder import Stored
from signbook.packed.words import pack_words, read_codes, read_scales, read_zeros
from vq.container import Container, Geometry

__all__ = ["CompressedTensors"]

#: The first release in which codes of 3 bits straddle words.
_VERSION = "0.18.0"


class CompressedTensors:
    """Layers of a container in this format, each with bits, groups and zeros of its own.

    Scales are stored in fp32: readers multiply in the dtype of the scale, and only there is the
    product of an integer and an fp16 scale exact.

    Parameters
    ----------
    container : Container
    layers : sequence of Geometry
        To pack; :meth:`problem` is None for each.
    plain : sequence of str
        Linear layers of the model that are not packed.
    """

    #: Readers cast to the model's dtype; only this one leaves scales and weights as they are.
    dtype = "float32"

    def __init__(
        self, container: Container, layers: Sequence[Geometry], plain: Sequence[str]
    ) -> None:
        self._container = container
        self._layers = layers
        self._plain = plain

    @staticmethod
    def problem(container: Container, g: Geometry) -> str | None:
        """What a layer must be to be packed, if it is not."""
        if g.I % g.group_width:
            return f"inputs must be whole groups of {g.group}, not {g.I}"
        return None

    def tensors(self) -> Iterator[Stored]:
        """Give the packed layers' tensors, in order."""
        for g in self._layers:
            yield from self._layer(g)

    def _layer(self, g: Geometry) -> Iterator[Stored]:
        """Tensors of one layer; a code and a zero stand for themselves less ``2**(b - 1)``."""
        container, name, groups = self._container, g.name, g.I // g.group_width
        yield Stored(
            f"{name}.weight_packed",
            "I32",
            (g.O, -(-g.I * g.b // 32)),
            lambda: pack_words(read_codes(container, name), g.b),
        )
        yield Stored(
            f"{name}.weight_scale",
            "F32",
            (g.O, groups),
            lambda: read_scales(container, name).astype(np.float32),
        )
        if g.zeros:
            yield Stored(
                f"{name}.weight_zero_point",
                "I32",
                (-(-g.O * g.b // 32), groups),
                lambda: pack_words(read_zeros(container, name).T, g.b).T,
            )
        yield Stored(
            f"{name}.weight_shape", "I64", (2,), lambda: np.array([g.O, g.I], dtype=np.int64)
        )

    def config(self) -> dict[str, Any]:
        """``quantization_config``: one group of layers for each kind of coding."""
        kinds: dict[tuple[int, int, bool], list[str]] = {}
        for g in self._layers:
            width = g.group_width if g.group else 0
            kinds.setdefault((g.b, width, not g.zeros), []).append(g.name)
        groups = {}
        for number, ((bits, width, symmetric), names) in enumerate(kinds.items()):
            weights = {
                "num_bits": bits,
                "type": "int",
                "symmetric": symmetric,
                "strategy": "group" if width else "channel",
                "group_size": width or None,
                "dynamic": False,
            }
            groups[f"group_{number}"] = {"targets": names, "weights": weights}
        return {
            "quant_method": "compressed-tensors",
            "version": _VERSION,
            "format": "pack-quantized",
            "quantization_status": "compressed",
            "config_groups": groups,
            "ignore": list(self._plain),
        }
