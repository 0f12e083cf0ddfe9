"""Ledger of a traced model: layers so far, and which layer gave which value."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hwsim.workloads.layer import INPUT, WEIGHTED_OPS, WorkloadLayer
from vq.container import ConfigError, bulleted

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["LayerDraft", "Ledger", "is_tensor", "storage_of", "tensors_in"]

Slice = tuple[int, int, tuple[int, ...]]


@dataclass
class LayerDraft:
    """A layer whose ``kept`` is not complete yet. ``image`` says that its output has positions."""

    name: str
    op: str
    fields: dict[str, Any]
    image: bool = False
    kept: dict[int, int] = field(default_factory=dict)

    def layer(self, weights: Collection[int] = ()) -> WorkloadLayer:
        """The layer; of what it keeps, storages of ``weights`` do not count."""
        kept = sum(n for storage, n in self.kept.items() if storage not in weights)
        return WorkloadLayer(self.name, self.op, kept=kept, **self.fields)


class Ledger:
    """Layers of a model that runs, and what they gave.

    Values are known by their storage, which views share. Outputs are kept until the end, so that
    no storage is used twice.
    """

    def __init__(self, model: "nn.Module", inputs: Sequence[Any]) -> None:
        self._drafts: list[LayerDraft] = []
        self._problems: list[str] = []
        self._names: Counter[str] = Counter()
        self._stack: list[tuple[str, Any, LayerDraft | None]] = []
        self._parameters = {
            storage_of(p): (name, p.numel())
            for name, p in model.named_parameters(remove_duplicate=False)
        }
        #: Weights by storage, offset and shape, with the layer that used them first.
        self._weights: dict[Slice, str] = {}
        start = LayerDraft(INPUT, "", {})
        self._made = {storage_of(t): start for t in tensors_in(inputs) if t.is_floating_point()}
        self._alive: list[Any] = []
        #: Parameters that were used before there was a layer, and all that were used.
        self._early: dict[int, int] = {}
        self._counted: set[int] = set()

    def layers(self, called: str) -> tuple[WorkloadLayer, ...]:
        """All layers, in order.

        Raises
        ------
        ConfigError
            If there is none with weights, or operations were met that no workload has.
        """
        problems = list(dict.fromkeys(self._problems))
        if not problems and not any(d.op in WEIGHTED_OPS for d in self._drafts):
            problems = ["a layer with weights must run on the sample, but none did"]
        if problems:
            raise ConfigError(bulleted(f"{called} as a workload", problems))
        weights = {key[0] for key in self._weights}
        if self._drafts:
            self._drafts[0].kept.update(self._early)
        return tuple(draft.layer(weights) for draft in self._drafts)

    def _count_kept(self, given: "list[Tensor]", out: Any, draft: LayerDraft | None) -> None:
        """Parameters count where they are first used; a view is no use."""
        views = {storage_of(t) for t in tensors_in([out])}
        target = draft or (self._drafts[-1] if self._drafts else None)
        for value in given:
            storage = storage_of(value)
            if storage not in self._parameters or storage in views:
                continue
            if storage not in self._counted:
                self._counted.add(storage)
                place = self._early if target is None else target.kept
                place[storage] = self._parameters[storage][1]

    def _weighted(
        self, op: str, name: str, weight: Any, fields: dict[str, Any], x: Any, image: bool = False
    ) -> LayerDraft:
        shape = WorkloadLayer("shape", op, **fields).weight_shape
        key = (storage_of(weight), int(weight.storage_offset()), shape)
        first = self._weights.get(key)
        if first is not None:
            fields["shares"] = first
        draft = self._add(name, op, fields, [] if x is None else [x], image)
        self._weights.setdefault(key, draft.name)
        return draft

    def _is_weight(self, value: "Tensor", outputs: int, inputs: int) -> bool:
        """A parameter, or the weight that a module of a computed one multiplies with."""
        if storage_of(value) in self._parameters:
            return True
        _, module, _ = self._stack[-1] if self._stack else ("", None, None)
        computed = getattr(module, "parametrizations", {})
        return "weight" in computed and storage_of(value) not in self._made

    def _owner(self, weight: "Tensor") -> str:
        """Name of the module that holds a weight, of the parameter if that is no ``weight``."""
        path, module, _ = self._stack[-1] if self._stack else ("", None, None)
        storage = storage_of(weight)
        own = module is not None and any(
            storage_of(p) == storage for p in module.parameters(recurse=False)
        )
        name = self._parameters.get(storage, (f"{path}.weight", 0))[0]
        if own:
            name = f"{path}.{name.rpartition('.')[2]}" if path else name
        return name.removesuffix(".weight") or "weight"

    def _elementwise(self, op: str, operands: "Sequence[Tensor]", name: str = "") -> LayerDraft:
        x = operands[0]
        image = self._is_image(x)
        if image:
            channels, height, width = (*x.shape[1:], 1)[:3]
            fields = {"inputs": channels, "outputs": channels, "height": height, "width": width}
        else:
            channels = x.shape[-1] if x.ndim else 1
            fields = {"inputs": channels, "outputs": channels, "rows": x.numel() // channels}
        return self._add(name or f"{self._path()}.{op}".lstrip("."), op, fields, operands, image)

    def _is_image(self, x: "Tensor") -> bool:
        """Whether a value is [1, C, H, W] or [1, C, L], as the layer that it is from gave it."""
        made = self._made.get(storage_of(x))
        if made is None or not made.image:
            return False
        layer = made.layer()
        sizes = (layer.outputs, layer.out_height, layer.out_width)
        return tuple(x.shape[1:]) in (sizes, sizes[:2] if layer.out_width == 1 else sizes)

    def _add(
        self,
        name: str,
        op: str,
        fields: dict[str, Any],
        operands: Sequence[Any],
        image: bool = False,
    ) -> LayerDraft:
        made = [self._made.get(storage_of(x)) for x in operands]
        fields["sources"] = tuple(dict.fromkeys(d.name for d in made if d is not None))
        base = name.replace("{}", "")
        self._names[base] += 1
        if self._names[base] > 1:
            base = f"{base}:{self._names[base]}"
        draft = LayerDraft(base, op, fields, image)
        self._drafts.append(draft)
        return draft

    def _give(self, value: "Tensor", draft: LayerDraft) -> None:
        self._made[storage_of(value)] = draft
        self._alive.append(value)

    def _known(self, *values: "Tensor") -> bool:
        """Whether a layer gave one of them."""
        found = (self._made.get(storage_of(v)) for v in values)
        return any(draft is not None and draft.op for draft in found)

    def _path(self) -> str:
        return self._stack[-1][0] if self._stack else ""


def is_tensor(value: object) -> bool:
    """Whether a value is a tensor of torch."""
    import torch

    return isinstance(value, torch.Tensor)


def tensors_in(values: Sequence[Any]) -> "list[Tensor]":
    """Tensors among values, and in lists and tuples among them."""
    found = []
    for value in values:
        if is_tensor(value):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += tensors_in(value)
    return found


def storage_of(value: "Tensor") -> int:
    """What tells a value from others and is the same for its views, on every device."""
    return int(value.untyped_storage()._cdata)
