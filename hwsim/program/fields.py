"""Fields of a descriptor that say how a window moves and how weights come."""

from typing import Any

from hwsim.program.memory import Place
from hwsim.program.step import Step
from rtl import AcceleratorConfig
from rtl.compute.groups import scale_tiles

__all__ = ["tile_fields", "walk_fields"]


def tile_fields(step: Step, config: AcceleratorConfig) -> dict[str, Any]:
    """What the weight tile has to know: :data:`rtl.compute.tile.TILE_LAYER`."""
    if step.entry is None:
        blocks = -(-step.target.channels // config.rows)
        return {"identity": 1, "tiles": blocks * max(1, config.rows // config.columns)}
    g = step.entry.geometry
    if g.axis == "out":
        return {"outputs": -(-g.O // g.d) * g.d, "columns": g.I}
    return {"log2_d": g.d.bit_length() - 1, "outputs": g.O, "columns": -(-g.I // g.d)}


def walk_fields(
    step: Step,
    config: AcceleratorConfig,
    *,
    out_rows: int,
    in_rows: int,
    first_y: int,
    first_word: int,
    source: Place,
) -> dict[str, Any]:
    """How the window moves: :data:`rtl.compute.walk.WALK_LAYER`.

    ``first_y`` is the first window's row, counted from the first row in the buffer, which lies at
    ``first_word``.
    """
    outputs = step.target.channels
    pixel = source.pixel_bytes // config.columns
    row = pixel * source.tensor.width
    log2_rows = config.rows.bit_length() - 1
    if step.entry is None:  # channels move in groups of a block: see the tile's identity
        groups = {"group_blocks": 1, "group_inputs": config.rows}
        groups |= {"block_groups": 1, "log2_group": log2_rows}
    elif step.groups == 1:
        groups = {"group_blocks": -(-outputs // config.rows), "group_inputs": step.group_inputs}
        groups |= {"block_groups": 1, "log2_group": log2_rows}
    else:
        of_group = outputs // step.groups
        inside = max(1, config.rows // of_group)
        groups = {
            "group_blocks": max(1, of_group // config.rows),
            "group_inputs": step.group_inputs,
            "block_groups": inside,
            "log2_group": min(of_group, config.rows).bit_length() - 1,
        }
    out_height, out_width = out_rows, step.target.width
    if step.pool:
        out_height, out_width = source.tensor.height, source.tensor.width
    first_x = -step.before[1]
    return {
        "blocks": -(-outputs // config.rows),
        **groups,
        "first_channel": step.first_channel,
        "channels": source.tensor.channels,
        "out_height": out_height,
        "out_width": out_width,
        "in_height": in_rows,
        "in_width": source.tensor.width,
        "first_y": first_y,
        "first_x": first_x,
        "first_word": first_word + first_y * row + first_x * pixel,
        "stride_y": step.stride[0],
        "stride_x": step.stride[1],
        "stride_y_words": step.stride[0] * row,
        "stride_x_words": step.stride[1] * pixel,
        "kernel_y": step.kernel[0],
        "kernel_x": step.kernel[1],
        "dilation_y": step.dilation[0],
        "dilation_x": step.dilation[1],
        "dilation_y_words": step.dilation[0] * row,
        "dilation_x_words": step.dilation[1] * pixel,
        "pool": int(step.pool),
        "scale_tiles": _scale_tiles(step, config),
    }


def _scale_tiles(step: Step, config: AcceleratorConfig) -> int:
    if step.entry is None:
        return 0
    g = step.entry.geometry
    return scale_tiles(config.array, step.name, inputs=g.I, group=g.group)
