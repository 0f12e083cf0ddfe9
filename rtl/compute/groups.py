"""Which groups of inputs an array can give scales of their own."""

from rtl.compute.config import ArrayConfig
from vq.container import ConfigError, bulleted

__all__ = ["SCALE_TILES_BITS", "scale_tiles"]

#: Width of the number of tiles in a group.
SCALE_TILES_BITS = 24


def scale_tiles(config: ArrayConfig, layer: str, *, inputs: int, group: int) -> int:
    """Tiles of a group of inputs that has scales of its own, as ``WALK_LAYER`` wants them.

    A tile holds ``columns`` successive inputs and must lie in one group: a group is a whole number
    of tiles, or all inputs of an output. The last group of an output may be shorter.

    Parameters
    ----------
    config : ArrayConfig
    layer : str
        Its name, for the message.
    inputs : int
        Of one output.
    group : int
        Inputs that share a scale; 0 if the layer has no such groups.

    Returns
    -------
    int
        0 if ``group`` is.

    Raises
    ------
    ConfigError
        If the array cannot run such a layer. All problems are in one message.

    >>> scale_tiles(ArrayConfig(columns=16), "fc", inputs=300, group=128)
    8
    >>> scale_tiles(ArrayConfig(columns=16), "conv", inputs=27, group=32)
    2
    """
    if group == 0:
        return 0
    columns = config.columns
    tiles = -(-min(group, inputs) // columns)
    checks = [
        (
            0 < inputs <= group or (group > 0 and group % columns == 0),
            f"group must be a multiple of columns = {columns}, or at least all {inputs} inputs, "
            f"not {group}",
        ),
        (inputs >= 1, f"inputs must be at least 1, not {inputs}"),
        (
            tiles < 1 << SCALE_TILES_BITS,
            f"group must be less than 2**{SCALE_TILES_BITS} tiles of {columns} inputs, not {tiles}",
        ),
    ]
    problems = [problem for holds, problem in checks if not holds]
    if problems:
        raise ConfigError(bulleted(f"layer {layer!r}", problems))
    return tiles
