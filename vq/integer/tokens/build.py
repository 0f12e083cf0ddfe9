"""Build the integer graph of a transformer: trace, observe, turn reals into integers."""

import copy
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vq.calibration.batches import each, fingerprint, shapes_of, split
from vq.container import Container, ContainerError, open_container
from vq.errors import ConfigError
from vq.formats.wrappers import bare
from vq.integer.fixed import to_fixed
from vq.integer.golden import Parameters, reach
from vq.integer.graph import CHOICES, Node
from vq.integer.numbers import with_numbers
from vq.integer.store import products_of
from vq.integer.tokens.arithmetic import BYTE, NORM_BITS, SHARE_BITS, STREAM, STREAM_MAX, WIDE_MAX
from vq.integer.tokens.forms import Plan, planned
from vq.integer.tokens.golden import TokenModel
from vq.integer.tokens.graph import CONTEXT_MAX, TokenGraph, TokenNode
from vq.integer.tokens.observe import Peaks, observed
from vq.integer.tokens.store import NORM_REACH, check_weights, most_of, store_tokens
from vq.integer.tokens.trace import Call, trace_transformer
from vq.integer.tokens.values import Draft
from vq.storage import load

__all__ = ["CONTEXT", "add_tokens", "integerize_tokens", "is_transformer"]

#: Rows that there are tables and a cache for, unless the model itself has fewer.
CONTEXT = 512
#: A value of int16 has room for so much more than was seen.
_HEADROOM = 1.5
#: A sum's greatest magnitude over its rows' usual size, from which on sums are int32.
_MASSIVE = 256
#: Steps of an int16 output that saturate it.
_BEYOND = 2**17
_ANGLE = 2**14

F64 = NDArray[np.float64]
Numbers = dict[str, NDArray[Any]]


def is_transformer(model: nn.Module) -> bool:
    """Whether a model needs a graph of tokens: it looks tokens up, or norms rows by themselves."""
    kinds = [type(module).__name__.lower() for module in model.modules()]
    return any(isinstance(m, nn.Embedding | nn.LayerNorm) for m in model.modules()) or any(
        "rmsnorm" in kind or "attention" in kind for kind in kinds
    )


def add_tokens(
    path: str | os.PathLike[str],
    model: nn.Module,
    batches: Iterable[Any],
    *,
    out: str | os.PathLike[str] | None = None,
    choice: str = "mse",
    context: int | None = None,
    operands: str = "int8",
    rom: Mapping[str, NDArray[np.int8]] | None = None,
    progress: bool = True,
) -> TokenModel:
    """Give a container of a transformer its integer graph.

    Parameters
    ----------
    path : path
        A compressed model.
    model : nn.Module
        A model of the same architecture, which is not changed.
    batches : iterable of inputs or (inputs, ...) tuples
        Calibration data: tokens [B, T], tokens with an ``attention_mask``, or images.
    out : path, optional
        Where to write; without it, the container itself is replaced once the new one is complete.
    choice : str
        How scales of int8 values are chosen: "max", "percentile" or "mse".
    context : int, optional
        The longest text; 512, or what the model itself has if that is less.
    operands : str
        What the array multiplies by weights: "int8", with one scale; "rows", with a factor for
        each token; "int16".
    rom : mapping of ``rom:<sha256>`` to [k, d] int8, optional
        Fixed codebooks that the file only names.
    progress : bool
        Show a progress bar when standard error is a terminal.

    Raises
    ------
    ConfigError
        If the model has operations that have no rule in integers, or layers that are not
        compressed; if data are not as above, or longer than the context.
    ContainerError
        If the file is damaged or does not fit the model.
    OutputError
        If ``out`` cannot be written; what existed before is intact.
    """
    dense = load(path, into=copy.deepcopy(bare(model)), rom=rom, progress=progress).eval()
    with open_container(path, rom=rom) as container:
        found = integerize_tokens(
            dense, container, batches, choice=choice, context=context, operands=operands,
            progress=progress,
        )  # fmt: skip
        store_tokens(container, found, path if out is None else out)
    return found


@torch.no_grad()
def integerize_tokens(
    model: nn.Module,
    container: Container,
    batches: Iterable[Any],
    *,
    choice: str = "mse",
    context: int | None = None,
    operands: str | Mapping[str, str] = "int8",
    shares: str = "rows",
    progress: bool = True,
) -> TokenModel:
    """Build the graph of ``model``, which holds the weights of ``container``.

    Parameters
    ----------
    operands : str or mapping of node name to str
        See :func:`add_tokens`; the forms of single values by the names of the nodes that give
        them, others being int8.
    shares : str
        What attention mixes values by: "rows", int8 with a factor, or "int16".

    Raises
    ------
    ConfigError, ContainerError
        As :func:`add_tokens`.
    """
    if choice not in CHOICES:
        raise ConfigError(f"choice must be one of {', '.join(CHOICES)}, not {choice!r}")
    container.require_plain("an integer graph")
    calls = _calls(batches)
    longest = _context(model, calls, context)
    drafts, factor = trace_transformer(model, _example(calls[0], longest))
    places = {draft.at for draft in drafts if draft.at >= 0 or draft.op == "input"}
    peaks = observed(model, calls, places, choice, progress)
    plan = planned(drafts, operands, shares, stream=_has_massive(drafts, peaks))
    weights = _Weights(model, container, plan)
    built = _Build(plan, peaks, weights)
    graph = TokenGraph(
        tuple(built.nodes), longest, choice, fingerprint([call.main for call in calls])
    )
    graph.check({entry.geometry.name: entry.geometry for entry in container.layers})
    scales = np.array([built.scales[name] for name in built.scales], np.float32)
    scales[-1] *= factor
    first = graph.input
    real: dict[str, NDArray[np.float32]] = {}
    if isinstance(first, Node):
        gain = np.full(first.shape[0], 1 / scales[0], np.float32)
        real = {"gain": gain, "offset": np.zeros_like(gain)}
    return TokenModel(graph, built.weights, built.numbers, scales, **real)


def _has_massive(drafts: Sequence[Draft], peaks: Peaks) -> bool:
    """Whether some channels of a sum are so much greater than all that int16 leaves no steps."""
    sums = [draft.at for draft in drafts if draft.op == "add" and draft.at >= 0]
    return any(peaks.greatest[at] > _MASSIVE * peaks.typical[at] for at in sums)


def _calls(batches: Iterable[Any]) -> list[Call]:
    """How the model is called, batch by batch."""
    return [
        _call(split(batch)[0], f"calibration batch {number}, {shapes_of(batch)}")
        for number, batch in enumerate(each(batches), 1)
    ]


def _call(inputs: Any, where: str) -> Call:
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}
    if isinstance(inputs, Mapping):
        kwargs = dict(inputs)
        main, mask = kwargs.get("input_ids"), kwargs.get("attention_mask")
    else:
        args = tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,)
        main, mask = args[0], args[1] if len(args) > 1 else None
    rank = 0 if not isinstance(main, Tensor) else main.ndim
    if not isinstance(main, Tensor) or rank != (4 if main.is_floating_point() else 2):
        raise ConfigError(
            f"{where}: inputs must be tokens [B, T], tokens with an attention mask, or images "
            "[B, C, H, W]"
        )
    if mask is not None:
        lengths = mask.long().sum(1)
        prefix = torch.arange(mask.shape[1]) < lengths[:, None]
        if mask.shape != main.shape or not torch.equal(prefix, mask.bool()) or lengths.min() < 1:
            raise ConfigError(f"{where}: attention mask must be [B, T], 1 and then 0 in every row")
    return Call(args, kwargs, main, mask)


def _context(model: nn.Module, calls: Sequence[Call], wanted: int | None) -> int:
    """The longest text."""
    if not calls:
        raise ConfigError("calibration data must hold at least one batch, not none")
    if calls[0].main.is_floating_point():
        return CONTEXT_MAX
    config = getattr(model, "config", None)
    for module in model.modules():
        config = getattr(module, "config", None) if config is None else config
    own = getattr(config, "context", getattr(config, "max_position_embeddings", CONTEXT_MAX))
    found = min(own, CONTEXT) if wanted is None else wanted
    if not 1 <= found <= own:
        raise ConfigError(f"context must be 1 to {own}, which the model has, not {found}")
    longest = max(call.main.shape[1] for call in calls)
    if longest > found:
        raise ConfigError(
            f"calibration data must be at most {found} tokens long, the context, not {longest}; "
            "use --context"
        )
    return found


def _example(call: Call, context: int) -> Call:
    """Two inputs to trace, texts as long as the context and the second one padded."""
    if call.main.is_floating_point():
        first = call.main[:1]
        main = torch.cat([first, call.main[-1:] if len(call.main) > 1 else first.flip(-1)])
        return Call((main, *call.args[1:]), call.kwargs, main)
    tokens = call.main.reshape(-1)
    main = tokens.repeat(-(-2 * context // len(tokens)))[: 2 * context].view(2, context)
    mask = None
    if call.mask is not None:
        mask = torch.ones_like(main)
        mask[1, max(1, context // 2) :] = 0
    swap = {id(call.main): main, id(call.mask): mask}
    args = tuple(swap.get(id(one), one) for one in call.args)
    kwargs = {name: swap.get(id(one), one) for name, one in call.kwargs.items()}
    for name, one in kwargs.items():
        if isinstance(one, Tensor) and one is not main and one is not mask:
            if one.shape != call.main.shape or bool(one.any()):
                raise ConfigError(f"calibration data: {name} must be left out, or all 0")
            kwargs[name] = torch.zeros_like(main)
    return Call(args, kwargs, main, mask)


class _Weights:
    """Whose weights layers have: a layer of the file, or a table of the graph."""

    def __init__(self, model: nn.Module, container: Container, plan: Plan) -> None:
        self.container = container
        self._stored = {entry.geometry.name: entry.geometry for entry in container.layers}
        self._names: dict[int, list[str]] = {}
        for name, module in model.named_modules():
            weight = module._parameters.get("weight")
            if weight is not None:
                self._names.setdefault(id(weight), []).append(name)
        self._tables = {
            id(d.weight): d.name
            for d in plan.drafts
            if d.op == "embedding" and d.weight is not None and not self.layer(d)
        }

    def layer(self, draft: Draft) -> str:
        """The layer that holds a draft's weight; empty if none does."""
        names = [n for n in self._names.get(id(draft.weight), []) if n in self._stored]
        if draft.op == "embedding":
            names = [n for n in names if self._fits_embedding(n)]
        return names[0] if names else ""

    def _fits_embedding(self, name: str) -> bool:
        g = self._stored[name]
        return g.op == "embedding" and not g.group

    def table(self, draft: Draft) -> str:
        """The embedding whose table a linear multiplies by, if its layer is not compressed."""
        found = self._tables.get(id(draft.weight), "")
        if not found:
            names = self._names.get(id(draft.weight), [])
            raise ConfigError(
                f"layer {names[0] if names else draft.name!r} must be compressed, not kept; give "
                "it Int8() in the recipe"
            )
        return found


class _Build:
    """Numbers of all nodes, in their order."""

    def __init__(self, plan: Plan, peaks: Peaks, weights: _Weights) -> None:
        self.plan, self.peaks, self.given = plan, peaks, weights
        self.nodes: list[Node | TokenNode] = []
        self.scales: dict[str, float] = {}
        self.weights: dict[str, Parameters] = {}
        self.numbers: dict[str, Numbers] = {}
        self._rows: dict[str, F64] = {}
        stream = [draft for draft in plan.drafts if plan.form[draft] == STREAM and draft.at >= 0]
        most = max((peaks.greatest[draft.at] for draft in stream), default=1.0)
        self._stream = (most * _HEADROOM or 1.0) / STREAM_MAX
        for draft in plan.drafts:
            try:
                self._make(draft)
            except ValueError as error:
                if isinstance(error, ContainerError | ConfigError):
                    raise
                raise ConfigError(
                    f"node {draft.name!r}: {error}; look at its activations"
                ) from None

    def _make(self, draft: Draft) -> None:
        form = self.plan.form[draft]
        step = self.scales[draft.name] = self._scale(draft, form)
        names = tuple(one.name for one, _ in draft.inputs)
        given = [self.scales[one.name] * factor for one, factor in draft.inputs]
        settings = dict(draft.settings)
        layer = ""
        if draft.op in ("linear", "embedding", "conv"):
            layer = self.given.layer(draft)
        if draft.op == "linear":
            settings["table"] = "" if layer else self.given.table(draft)
        if draft.op == "attention":
            settings["shares"] = self.plan.shares
        if draft.op in ("input", "conv"):
            if draft.op == "conv" and not layer:
                self.given.table(draft)
            node: Node | TokenNode = Node(
                draft.name, draft.op, names, draft.shape, layer, **settings
            )
        else:
            node = TokenNode(draft.name, draft.op, names, draft.shape, form, layer, settings)
        self.nodes.append(node)
        if draft.op in ("linear", "conv"):
            self._weighted(draft, node, given[0], step, form)
        elif (make := getattr(self, f"_{draft.op}", None)) is not None:
            self.numbers[draft.name] = make(draft, given, step, form)

    def _scale(self, draft: Draft, form: str) -> float:
        """Value of one step of a node's output."""
        if draft.op in ("slice", "select", "place", "places"):
            ((source, factor),) = draft.inputs
            assert factor == 1.0
            return self.scales[source.name]
        if draft.op == "to_rows":
            return self.scales[draft.inputs[0][0].name] * 2**15 / 127
        if draft.op in ("tokens", "angles"):
            return 1.0
        if draft.op == "constant":
            return (float(draft.real["rows"].abs().max()) or 1.0) / WIDE_MAX
        at = draft.inputs[0][0].at if draft.op == "narrow" else draft.at
        stretch = (draft.inputs[0][0] if draft.op == "narrow" else draft).real.get("stretch", 1.0)
        if form == STREAM:
            return self._stream
        if form == BYTE:
            return (self.peaks.chosen[at] * stretch or 1.0) / 127
        return (self.peaks.greatest[at] * stretch * _HEADROOM or 1.0) / WIDE_MAX

    def _weighted(
        self, draft: Draft, node: Node | TokenNode, step_in: float, step: float, form: str
    ) -> None:
        outputs = draft.shape[0]
        read = self.plan.form[draft.inputs[0][0]]
        if node.layer:
            products, scale = products_of(self.given.container, node.layer, most_of(read))
        else:
            assert isinstance(node, TokenNode)
            table = node.settings["table"]
            weight = self.numbers[table]["weight"]
            products = Parameters(np.empty(0, np.int16), np.empty(0, np.uint8), weight=weight)
            scale = self._rows[table]
        most = reach(products, most_of(read))
        bias = np.zeros(outputs) if draft.bias is None else _numpy(draft.bias)
        if (most >= 2**31 - 1).any():
            raise ConfigError(
                f"layer {draft.name!r}: accumulator must fit int32; it has too many inputs for "
                f"{read} operands"
            )
        gain = _numpy(draft.real["gain"]) if "gain" in draft.real else np.ones(outputs)
        unit = step_in * scale * gain
        beyond = 512 if form == BYTE else _BEYOND
        found = with_numbers(products, most, unit, bias, step, beyond=beyond)
        if isinstance(node, TokenNode):
            check_weights(node, found, read)
        self.weights[draft.name] = found

    def _embedding(self, draft: Draft, given: list[float], step: float, form: str) -> Numbers:
        assert draft.weight is not None
        layer = self.given.layer(draft)
        if layer:
            products, scale = products_of(self.given.container, layer)
            rows = np.broadcast_to(scale, (len(products.weight),))
            m, shift = to_fixed(rows / step)
            self.weights[draft.name] = Parameters(m, shift, weight=products.weight)
            return {"multiplier": m, "shift": shift}
        weight = _numpy(draft.weight)
        rows = np.maximum(np.abs(weight).max(axis=1), 1e-30) / 127
        self._rows[draft.name] = rows
        m, shift = to_fixed(rows / step)
        table = np.rint(weight / rows[:, None]).astype(np.int8)
        return {"multiplier": m, "shift": shift, "weight": table}

    def _constant(self, draft: Draft, given: list[float], step: float, form: str) -> Numbers:
        return {"rows": _codes(_numpy(draft.real["rows"]) / step, WIDE_MAX, np.int16)}

    def _angles(self, draft: Draft, given: list[float], step: float, form: str) -> Numbers:
        return {
            field: _codes(_numpy(draft.real[field]) * _ANGLE, 2**15 - 1, np.int16)
            for field in ("cosine", "sine")
        }

    def _add(self, draft: Draft, given: list[float], step: float, form: str) -> Numbers:
        if form != STREAM:
            return _fixed(np.array(given) / step, shared=True)
        same = [self.plan.form[one] == STREAM for one, _ in draft.inputs]
        if any(own and factor != 1.0 for own, (_, factor) in zip(same, draft.inputs, strict=True)):
            raise ValueError("what goes through must not be scaled")
        return _fixed(np.where(same, 1.0, np.array(given) / step))

    def _function(self, draft: Draft, given: list[float], step: float, form: str) -> Numbers:
        wide = self.plan.form[draft.inputs[0][0]] == "int16"
        grid = np.arange(-128, 129) * 256 * given[0] if wide else np.arange(-128, 128) * given[0]
        values = _numpy(draft.real["function"](torch.from_numpy(grid)))
        if form == "int16":
            return {"entries": _codes(values / step, WIDE_MAX, np.int16)}
        if wide:
            return {"entries": _codes(256 * values / step, WIDE_MAX, np.int16)}
        return {"entries": _codes(values / step, 127, np.int8)}

    def _norm(self, draft: Draft, given: list[float], step: float, form: str) -> Numbers:
        count = draft.shape[0]
        gain = np.ones(count) if draft.weight is None else _numpy(draft.weight)
        bias = np.zeros(count) if draft.bias is None else _numpy(draft.bias)
        beyond = 512 if form == BYTE else _BEYOND
        empty = Parameters(np.empty(0, np.int16), np.empty(0, np.uint8))
        most = np.full(count, NORM_REACH)
        p = with_numbers(empty, most, gain * 2.0**-NORM_BITS, bias, step, beyond=beyond)
        energy = count * count * float(draft.real["epsilon"]) / given[0] ** 2
        epsilon = np.array([min(max(1, round(energy)), 2**60)], np.int64)
        return {"multiplier": p.multiplier, "shift": p.shift, "bias": p.bias, "epsilon": epsilon}

    _rms_norm = _layer_norm = _norm

    def _product(self, draft: Draft, given: list[float], step: float, form: str) -> Numbers:
        return _fixed(np.array([given[0] * given[1] / step]))

    def _rotary(self, draft: Draft, given: list[float], step: float, form: str) -> Numbers:
        return _fixed(np.array([given[0] / _ANGLE / step]))

    def _narrow(self, draft: Draft, given: list[float], step: float, form: str) -> Numbers:
        return _fixed(np.array([given[0] / step]))

    def _mean(self, draft: Draft, given: list[float], step: float, form: str) -> Numbers:
        return _fixed(np.array([given[0] / 256 / step]))

    def _attention(self, draft: Draft, given: list[float], step: float, form: str) -> Numbers:
        q, k, v = given
        score = (self.peaks.scores[draft.at] * _HEADROOM or 1.0) / WIDE_MAX
        share = 2.0**-7 if self.plan.shares == "rows" else 2.0**-SHARE_BITS
        ratios = [q * k * draft.real["scale"] / score, score * math.log2(math.e) * 256]
        return _fixed(np.array([*ratios, share * v / step]))


def _fixed(ratio: F64, *, shared: bool = False) -> Numbers:
    multiplier, shift = to_fixed(ratio, shared=shared)
    return {"multiplier": multiplier, "shift": shift}


def _codes(values: F64, most: int, dtype: Any) -> NDArray[Any]:
    found: NDArray[Any] = np.clip(np.rint(values), -most, most).astype(dtype)
    return found


def _numpy(tensor: Any) -> F64:
    assert isinstance(tensor, Tensor)
    found: F64 = tensor.detach().cpu().double().numpy()
    return found
