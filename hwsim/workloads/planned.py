"""A file that does not exist: its layers and the place of every tensor, without a weight."""

from collections.abc import Mapping, Sequence

from vq.container import Geometry, LayerEntry, Provenance, Span, plan_file

__all__ = ["PlannedFile"]


class PlannedFile:
    """Stands in for a container where a program is laid out.

    That is all of :class:`hwsim.program.weights.WeightFile`.

    Sizes and places are those of the file that :func:`vq.container.write_container` would write of
    such layers, to the byte.

    Parameters
    ----------
    layers : sequence of Geometry
        In execution order.
    kept : mapping of name to (dtype, shape), optional
        Tensors stored as they are.
    provenance : Provenance, optional

    Raises
    ------
    ContainerError
        If no file can hold such layers, see :func:`vq.container.plan_file`.
    """

    def __init__(
        self,
        layers: Sequence[Geometry],
        kept: Mapping[str, tuple[str, tuple[int, ...]]] | None = None,
        provenance: Provenance | None = None,
    ) -> None:
        plan = plan_file(layers, kept or {}, provenance or Provenance())
        self._spans = {t.name: Span(t.offset, t.nbytes) for t in plan.tensors}
        self.file_bytes = plan.file_bytes
        self.layers = tuple(self._entry(g) for g in layers)

    def _entry(self, g: Geometry) -> LayerEntry:
        stored = g.codebook != "" and not g.in_rom
        codebook = self._spans[g.codebook] if stored else None
        return LayerEntry(g, self._spans[f"{g.name}.stream"], codebook)

    def tensor_spans(self) -> dict[str, Span]:
        """Every tensor of the file, padding included, in file order."""
        return dict(self._spans)

    def image(self) -> None:
        """There are no bytes."""
        return None
