"""A file in the order of an instance: itself, or a copy whose streams have been re-ordered."""

from collections.abc import Iterator
from contextlib import contextmanager

from hwsim.measure.document import Reordered
from rtl import AcceleratorConfig
from vq.container import ConfigError, Container, bulleted, open_container
from vq.container.reorder import write_reordered
from vq.native import scratch_folder

__all__ = ["in_order_of"]


@contextmanager
def in_order_of(
    container: Container, config: AcceleratorConfig
) -> Iterator[tuple[Container, Reordered | None]]:
    """A file whose blocks are as high as the array, and what was re-ordered for that, if anything.

    The copy lives as long as the context; the file itself stays as it is. Weights and the size of
    every tensor are the same.

    Raises
    ------
    ConfigError
        If sub-vectors of a layer would straddle blocks. All such layers are named.
    ContainerError
        If the file is damaged.
    """
    rows = config.rows
    geometries = [entry.geometry for entry in container.layers]
    tiles = {g.tile_outputs for g in geometries}
    if tiles <= {rows}:
        yield container, None
        return
    problems = [
        f"layer {g.name!r}: d must divide {rows}, the rows of the array, as its sub-vectors lie "
        f"along the outputs (axis 'out'), not {g.d}"
        for g in geometries
        if g.axis == "out" and rows % g.d
    ]
    if problems:
        raise ConfigError(bulleted("accelerator", problems))
    with scratch_folder() as folder:
        path = folder / container.path.name
        write_reordered(path, container, rows)
        with open_container(path, rom=config.streamer.roms) as copy:
            copy.path = container.path  # errors name the file that was given
            first = tiles.pop() if len(tiles) == 1 else None
            yield copy, Reordered.model_validate({"from": first, "to": rows})
