"""A container as what an accelerator's memory holds, with a map of it."""

import hashlib
import json
import os
from typing import Any

from vq.container import Container, Span, atomic_files, open_container
from vq.errors import ConfigError
from vq.progress import bar

__all__ = ["export_dram"]

_COPY_BYTES = 2**24


def export_dram(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    base: int = 0,
    beside: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Write what an accelerator's memory holds, and say where everything lies.

    The image is the container itself, byte for byte, so that offsets in both are the same; its
    copy is checked first, as far as that goes without the codebooks of a ROM.

    Parameters
    ----------
    path : path
    out : path
        The image.
    base : int
        Address of the image's first byte, a multiple of 4096.
    beside : path, optional
        The map as JSON; it and the image replace what was there together.
    progress : bool
        Show a progress bar when standard error is a terminal.

    Returns
    -------
    dict
        The ``signbook.dram/1`` document: ``base``, ``bytes``, ``sha256`` of the image, every
        layer with the address and bytes of its stream, codebook and scales (None if it has none)
        and what a decoder has to know of it, and the address of every other tensor; ``runtime``
        lists parts that remain at run time, which an accelerator does not run.

    Raises
    ------
    ConfigError
        If ``base`` is not on a page.
    ContainerError, OutputError
        As :func:`vq.export.export_dense`.
    """
    if base < 0 or base % 4096:
        raise ConfigError(f"base must be a multiple of 4096, not {base}")
    with open_container(path) as container:
        steps = len(container.tensor_spans()) + len(container.layers)
        with bar("checking the file", steps, enabled=progress) as advance:
            container.verify(complete=False, progress=advance)
        image = container.image()
        document = _map(container, base)
        with atomic_files([out] if beside is None else [out, beside]) as (file, *text):
            for start in range(0, len(image), _COPY_BYTES):
                file.write(image[start : start + _COPY_BYTES].data)
            for one in text:
                one.write((json.dumps(document, indent=1) + "\n").encode())
    return document


def _map(container: Container, base: int) -> dict[str, Any]:
    spans = container.tensor_spans()
    layers, first = [], 0
    for entry in container.layers:
        g = entry.geometry
        scale = None
        if g.scales:
            at = spans["_scales"].offset + 4 * first
            scale, first = _place(Span(at, 4 * g.scales), base), first + g.scales
        layers.append(
            {
                "name": g.name, "op": g.op, "shape": list(g.shape), "method": g.method,
                "axis": g.axis, "tile_outputs": g.tile_outputs, "d": g.d, "k": g.k, "b": g.b,
                "sign_bits": g.sign_bits, "group": g.group, "weights": g.weights,
                "sub_vectors": g.N, "stream": _place(entry.stream, base),
                "codebook": None if entry.codebook is None else _place(entry.codebook, base),
                "rom": g.codebook if g.in_rom else None, "scales": scale,
            }
        )  # fmt: skip
    shown = {"_scales"} | {f"{e.geometry.name}.stream" for e in container.layers}
    shown |= {e.geometry.codebook for e in container.layers}
    others = {n: _place(span, base) for n, span in spans.items() if n not in shown}
    image = container.image()
    return {
        "schema": "signbook.dram/1",
        "base": base,
        "bytes": len(image),
        "sha256": hashlib.sha256(image.data).hexdigest(),
        "layers": layers,
        "tensors": {n: place for n, place in others.items() if not n.startswith("_pad.")},
        **container.runtime_facts(),
    }


def _place(span: Span, base: int) -> dict[str, int]:
    return {"address": base + span.offset, "bytes": span.nbytes}
