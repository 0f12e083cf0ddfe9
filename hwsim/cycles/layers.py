"""Layers of the model: what control looks at in the descriptors of a program."""

import functools

import numpy as np
from numpy.typing import NDArray

from hwsim.cycles.header import structures
from rtl.descriptor import CodebookMode, Method
from rtl.program import PROGRAM_BYTES, PROGRAM_LAYER
from rtl.transfer.parameters import GROUPS_PER_SLOT
from vq.container import GRANULE_BYTES, ConfigError

__all__ = ["kinds_of_layers", "layers_of_program"]

#: Fields of a descriptor that a layer of the model has under another name.
_RENAMED = {
    "weighted": "weighted",
    "frees_input": "frees_input",
    "groups": "groups",
    "parameters": "parameters",
    "parameter_granules": "parameter_granules",
    **{
        name: f"weights.{name}"
        for name in (
            "index_bits", "codebook_granules", "stream_granules", "chunks", "group_beats",
            "block_beats",
        )
    },
    "tile_log2_d": "tile.log2_d",
    "tile_outputs": "tile.outputs",
    "tile_columns": "tile.columns",
    "identity": "tile.identity",
    "tiles": "tile.tiles",
    **{
        name: f"walk.{name}"
        for name in (
            "blocks", "block_groups", "group_blocks", "group_inputs", "first_channel",
            "out_height", "out_width", "kernel_y", "kernel_x", "pool", "scale_tiles",
        )
    },
    "input_enable": "load.input.enable",
    "input_granules": "load.input.region.granules",
    "input_address": "load.input.region.address",
    "residual_enable": "load.residual.enable",
    "residual_granules": "load.residual.region.granules",
    "residual_address": "load.residual.region.address",
    "after_writes": "load.after_writes",
    "positions": "output.positions",
    "addition": "output.addition.enable",
    "store_granules": "store.region.granules",
    "store_address": "store.region.address",
    "record": "store.record",
    "early": "store.early",
}  # fmt: skip
#: Empty layers behind the last one, at which queues may look.
_BEHIND = 8
#: Further layers are not looked at: more than queues hold.
_NEAR = 63


def layers_of_program(descriptors: bytes) -> NDArray[np.void]:
    """Describe every layer of a program for the model.

    Parameters
    ----------
    descriptors : bytes
        As they lie in memory, 256 bytes for each layer.

    Returns
    -------
    [layers + some] structured array
        ``Layer`` of ``machine.h``; those behind the last layer are zero.

    Raises
    ------
    ConfigError
        If a count does not fit the model, which has 31 bits for it.
    """
    count = len(descriptors) // PROGRAM_BYTES
    layout = structures()["Layer"]
    layers = np.zeros(count + _BEHIND, layout)
    places = {name: _place(path) for name, path in _RENAMED.items()}
    weights = {
        name: _place(f"weights.{name}")
        for name in (
            "method", "codebook_mode", "log2_d", "last_granules", "last_sign_granules",
            "codebook_address", "stream_address",
        )
    }  # fmt: skip
    for number in range(count):
        at = PROGRAM_BYTES * number
        packed = int.from_bytes(descriptors[at : at + PROGRAM_BYTES], "little")
        layer = {name: _field(packed, *place) for name, place in places.items()}
        layer |= _weights({name: _field(packed, *place) for name, place in weights.items()})
        layer["check_cycles"] = _check_cycles(layer)
        for name, value in layer.items():
            if layout[name].itemsize == 4 and value >= 1 << 31:
                raise ConfigError(f"layer {number}: {name} must be below 2**31, not {value}")
            layers[name][number] = value
    for name, wanted in (("next_weighted", "weighted"), ("next_load", "load")):
        following = count
        for number in range(count - 1, -1, -1):
            layers[name][number] = following
            if layers[wanted][number]:
                following = number
    return layers


def kinds_of_layers(layers: NDArray[np.void], burst_granules: int) -> NDArray[np.int32]:
    """Number the layers so that those have one number that control cannot tell apart.

    Of an address it sees the place in a burst; of the layers that follow, how far the next one is
    that has a stream or a codebook, as long as it is near.
    """
    columns = []
    for name in layers.dtype.names or ():
        column = layers[name].astype(np.int64)
        if layers.dtype[name].itemsize == 8:
            column %= burst_granules
        if name in ("next_weighted", "next_load"):
            column = np.minimum(column - np.arange(len(layers)), _NEAR)
        columns.append(column)
    _, kinds = np.unique(np.stack(columns, axis=1), axis=0, return_inverse=True)
    return kinds.reshape(-1).astype(np.int32)


@functools.cache
def _place(path: str) -> tuple[int, int, bool]:
    """First bit and width of a field, and whether it has a sign."""
    layout, first = PROGRAM_LAYER, 0
    for name in path.split("."):
        field = layout[name]
        first, layout = first + field.offset, field.shape
    return first, field.width, getattr(layout, "signed", False)


def _field(packed: int, first: int, width: int, signed: bool) -> int:
    value = packed >> first & ((1 << width) - 1)
    return value - (1 << width) if signed and value >> (width - 1) else value


def _weights(fields: dict[str, int]) -> dict[str, int]:
    """A stream as the decoder sees it, see ``rtl/decode/weights.py``."""
    method, mode = Method(fields["method"]), CodebookMode(fields["codebook_mode"])
    parity, codes = method == Method.SSVQ_PARITY, method == Method.CODES
    last = 1 if codes else fields["last_granules"]
    return {
        "raw": int(method == Method.INT8),
        "is_signed": int(method == Method.SSVQ or parity),
        "parity": int(parity),
        "codes": int(codes),
        "load": int(mode in (CodebookMode.LOAD, CodebookMode.ZEROS)),
        "zeros": int(mode == CodebookMode.ZEROS),
        "log2_d": 0 if codes else fields["log2_d"],
        "last_granules": last,
        "last_sign_granules": fields["last_sign_granules"] if parity else last,
        "codebook_address": fields["codebook_address"] // GRANULE_BYTES,
        "stream_address": fields["stream_address"] // GRANULE_BYTES,
    }


def _check_cycles(layer: dict[str, int]) -> int:
    """Cycles of the shape checks: six products, one bit of a factor per cycle.

    See ``rtl/control/check.py`` and ``multiply.py``: a product takes a cycle to start, one for
    each bit of its first factor, and one to be seen.
    """
    slots_of_block = (layer["groups"] + GROUPS_PER_SLOT - 1) // GROUPS_PER_SLOT + 1
    factors = (
        layer["kernel_y"],
        layer["group_inputs"],
        layer["out_height"],
        layer["tile_columns"],
        layer["groups"],
        slots_of_block,
    )
    return sum(2 + factor.bit_length() for factor in factors)
