"""Fields of a descriptor that say how weights come, how a window moves, and what comes out."""

from typing import Any

from hwsim.program.memory import Place, pixel_bytes
from hwsim.program.step import Step
from hwsim.program.strips import Strip
from rtl import AcceleratorConfig
from rtl.compute.groups import scale_tiles

__all__ = ["output_fields", "tile_fields", "walk_fields"]


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
    strip: Strip, config: AcceleratorConfig, *, source: Place, first_word: int
) -> dict[str, Any]:
    """How the window moves: :data:`rtl.compute.walk.WALK_LAYER`.

    The first row of ``source`` that the strip needs lies in the buffer at ``first_word``.
    """
    step = strip.step
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
    out_height, out_width = strip.rows, step.target.width
    if step.pool:
        out_height, out_width = source.tensor.height, source.tensor.width
    # The first window, counted from the first row in the buffer.
    first_y = strip.first_row * step.stride[0] - step.before[0] - strip.first_input_row
    first_x = -step.before[1]
    return {
        "blocks": -(-outputs // config.rows),
        **groups,
        "first_channel": step.first_channel,
        "channels": source.tensor.channels,
        "out_height": out_height,
        "out_width": out_width,
        "in_height": strip.input_rows,
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


def output_fields(strip: Strip, config: AcceleratorConfig, *, first_word: int) -> dict[str, Any]:
    """What comes out: :data:`rtl.compute.outputs.OUTPUT_LAYER`."""
    channels, addition = strip.step.target.channels, strip.step.addition
    blocks = -(-channels // config.rows)
    added: dict[str, int] = {}
    if addition is not None:
        added = {"own": addition.own, "other": addition.other, "shift": addition.shift}
        added |= {"relu": int(addition.relu), "enable": 1}
    return {
        "blocks": blocks,
        "positions": strip.positions,
        "pixel_words": pixel_bytes(channels, config) // config.rows,
        "last_rows": channels - (blocks - 1) * config.rows,
        "first_word": first_word,
        "addition": added,
    }


def _scale_tiles(step: Step, config: AcceleratorConfig) -> int:
    if step.entry is None:
        return 0
    g = step.entry.geometry
    return scale_tiles(config.array, step.name, inputs=g.I, group=g.group)
