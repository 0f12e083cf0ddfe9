"""The golden model of a transformer: rows of integers, a cache of keys and values."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vq.container import ContainerError
from vq.integer.golden import Parameters, accumulated, apply_node
from vq.integer.graph import Node
from vq.integer.tokens.arithmetic import (
    STREAM,
    Rows,
    exponentials,
    interpolated,
    mean_of_rows,
    normalised,
    rescaled,
    rotated,
    saturated,
    shares,
    to_rows,
)
from vq.integer.tokens.graph import TokenGraph, TokenNode, form_of

__all__ = ["Cache", "TokenModel", "Value"]

I64 = NDArray[np.int64]
Value = I64 | Rows
#: As many rows are in work at a time.
_ROWS = 2048
#: As many scores of an attention are in work at a time.
_SCORES = 2**17
#: Up to here a matrix product in float32 is exact.
_EXACT = 2**24


@dataclass(eq=False)
class Cache:
    """Keys and values of the rows so far, by the name of the attention.

    Attributes
    ----------
    past : int
        How many rows there are.
    held : dict of str to (keys, values) [B, past, C]
    """

    past: int = 0
    held: dict[str, tuple[I64, I64]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class _Call:
    """What rows of one call have in common.

    Attributes
    ----------
    past : int
        Rows that came before.
    valid : [B, T] bool
        Rows that are no padding.
    cache : Cache, optional
    seen : dict, optional
        Takes what is inside of attentions.
    """

    past: int
    valid: NDArray[np.bool_]
    cache: Cache | None
    seen: dict[str, Value] | None = None


@dataclass(frozen=True, eq=False)
class TokenModel:
    """A graph of tokens with its numbers; see :func:`vq.integer.tokens.read_tokens`.

    Attributes
    ----------
    graph : TokenGraph
    weights : mapping of node name to Parameters
        Of ``linear`` and ``conv``.
    numbers : mapping of node name to mapping of field to integers
        Of other nodes (:func:`vq.integer.tokens.graph.tensors_of`).
    scales : [nodes] float32
        Value of one step of every node's output.
    gain, offset : [C] float32
        How an image becomes int8, as in :class:`vq.integer.IntegerModel`; else empty.
    """

    graph: TokenGraph
    weights: Mapping[str, Parameters]
    numbers: Mapping[str, Mapping[str, NDArray[np.integer]]]
    scales: NDArray[np.float32]
    gain: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    offset: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))

    def quantize(self, values: NDArray[np.floating]) -> NDArray[np.int8]:
        """Real images [B, C, H, W] to int8: ``clamp(rint(gain * x + offset))`` in float32.

        Raises
        ------
        ContainerError
            If the shape is another one, or a value is not finite.
        """
        self._check_image(values)
        column = (-1, *[1] * (values.ndim - 2))
        x = values.astype(np.float32, copy=False) * self.gain.reshape(column)
        x = np.rint(x + self.offset.reshape(column))
        if not np.isfinite(x).all():
            raise ContainerError("integer graph: input must be finite, not NaN or infinity")
        codes: NDArray[np.int8] = np.clip(x, -128, 127).astype(np.int8)
        return codes

    def dequantize(self, outputs: NDArray[np.integer]) -> NDArray[np.float32]:
        """Outputs as real numbers: times the last scale."""
        found: NDArray[np.float32] = outputs.astype(np.float32) * self.scales[-1]
        return found

    def run(
        self,
        inputs: NDArray[np.integer],
        *,
        lengths: NDArray[np.integer] | None = None,
        cache: Cache | None = None,
    ) -> I64:
        """Outputs of the last node.

        Parameters
        ----------
        inputs : [B, T] tokens, or int8 images [B, C, H, W]
        lengths : [B] integers, optional
            How many of the T rows are no padding, which is behind them; 1 to T.
        cache : Cache, optional
            What came before; it takes in these rows. Only for graphs that are causal.

        Returns
        -------
        [B, T, C], or [B, C] where the graph makes one row of them all

        Raises
        ------
        ContainerError
            If tokens are unknown, too many for the context, or of another shape; if lengths are
            out of range, or a cache is given where there can be none.
        """
        parts = []
        count = max(1, _ROWS // max(1, inputs.shape[1] if inputs.ndim == 2 else 64))
        if cache is not None:
            count = max(1, len(inputs))
        for start in range(0, len(inputs), count):
            part = slice(start, start + count)
            own = None if lengths is None else lengths[part]
            for _, value in self._steps(inputs[part], own, cache, None):
                last = value
            assert not isinstance(last, Rows)
            parts.append(last)
        out = np.concatenate(parts) if parts else np.zeros((0, 1, 1), np.int64)
        return out[:, 0] if self.graph.rows()[self.graph.output.name] == 1 else out

    def trace(
        self, inputs: NDArray[np.integer], *, lengths: NDArray[np.integer] | None = None
    ) -> dict[str, Value]:
        """Output of every node by name, [B, T, C]; see :meth:`run`.

        Of an attention ``NAME`` also ``NAME.scores`` [B, heads, T, T] and ``NAME.shares``.
        """
        seen: dict[str, Value] = {}
        seen |= dict(self._steps(inputs, lengths, None, seen))
        return seen

    def _steps(
        self,
        inputs: NDArray[np.integer],
        lengths: NDArray[np.integer] | None,
        cache: Cache | None,
        seen: dict[str, Value] | None,
    ) -> Iterator[tuple[str, Value]]:
        """Run node after node; a value is dropped after its last use."""
        call = self._call(inputs, lengths, cache, seen)
        nodes = self.graph.nodes
        last_use = {name: node.name for node in nodes for name in node.inputs}
        alive: dict[str, Value] = {}
        for node in nodes:
            given = [alive[name] for name in node.inputs]
            value: Value
            if node.op in ("input", "tokens"):
                value = inputs.astype(np.int64)
            elif not isinstance(node, TokenNode):
                (x,) = given
                assert not isinstance(x, Rows)
                convolved = apply_node(node, [x.astype(np.int8)], self.weights[node.name])
                value = convolved.astype(np.int64)
            elif node.op in ("constant", "angles"):
                value = self._constant(node, call)
            else:
                value = self._apply(node, given, call)
            alive = {n: v for n, v in alive.items() if last_use[n] != node.name}
            if node.name in last_use:
                alive[node.name] = value
            yield node.name, value
        if cache is not None:
            cache.past += inputs.shape[1]

    def _call(
        self,
        inputs: NDArray[np.integer],
        lengths: NDArray[np.integer] | None,
        cache: Cache | None,
        seen: dict[str, Value] | None,
    ) -> _Call:
        past = 0 if cache is None else cache.past
        first = self.graph.input
        if isinstance(first, Node):
            self._check_image(inputs)
            if lengths is not None or cache is not None:
                raise ContainerError("integer graph: images must come without lengths and cache")
            return _Call(0, np.ones((len(inputs), 1), np.bool_), None, seen)
        if inputs.ndim != 2 or not inputs.size:
            raise ContainerError(
                f"integer graph: tokens must be [B, T], at least one, not {list(inputs.shape)}"
            )
        count = inputs.shape[1]
        if past + count > self.graph.context:
            raise ContainerError(
                f"integer graph: tokens must be at most {self.graph.context}, its context, "
                f"not {past + count}"
            )
        known = int(first.settings["vocabulary"])
        if inputs.min() < 0 or inputs.max() >= known:
            wrong = inputs.min() if inputs.min() < 0 else inputs.max()
            raise ContainerError(
                f"integer graph: tokens must be 0 to {known - 1}, which it knows, not {wrong}"
            )
        if cache is not None and (lengths is not None or not self.graph.causal):
            raise ContainerError(
                "integer graph: a cache must come without padding, and for rows that do not "
                "depend on later ones"
            )
        own = np.full(len(inputs), count) if lengths is None else lengths
        if own.shape != (len(inputs),) or own.min() < 1 or own.max() > count:
            raise ContainerError(
                f"integer graph: lengths must be [{len(inputs)}], 1 to {count}, not {own.tolist()}"
            )
        return _Call(past, np.arange(count) < own[:, None], cache, seen)

    def _node(self, name: str) -> Node | TokenNode:
        return next(node for node in self.graph.nodes if node.name == name)

    def _check_image(self, values: NDArray[np.generic]) -> None:
        want = self.graph.input.shape
        if values.shape[1:] != want:
            raise ContainerError(
                f"integer graph: input must be [B, {', '.join(map(str, want))}], "
                f"not {list(values.shape)}"
            )

    def _constant(self, node: TokenNode, call: _Call) -> I64:
        """Rows of the graph's own, by position: those of this call where they go by tokens."""
        own = self.numbers[node.name]
        fields = ("cosine", "sine") if node.op == "angles" else ("rows",)
        rows = np.concatenate([own[f] for f in fields], axis=1).astype(np.int64)[None]
        if self.graph.rows()[node.name] is not None:
            return rows
        return rows[:, call.past : call.past + call.valid.shape[1]]

    def _apply(self, node: TokenNode, given: list[Value], call: _Call) -> Value:
        x, s = given[0], node.settings
        own = self.numbers.get(node.name, {})
        m, shift = own.get("multiplier", np.empty(0)), own.get("shift", np.empty(0))
        if node.op == "linear":
            return _linear(node, x, self.weights[node.name])
        assert not isinstance(x, Rows)
        if node.op == "attention":
            return self._attention(node, given, call)
        if node.op == "to_rows":
            return to_rows(x)
        if node.op == "slice":
            return x[..., s["start"] : s["start"] + node.shape[0]]
        if node.op == "places":
            return x.reshape(*x.shape[:2], -1).swapaxes(1, 2)
        if node.op == "place":
            return np.pad(x, ((0, 0), (s["before"], 0), (0, 0)))
        if node.op == "select":
            return x[:, s["row"] : s["row"] + 1]
        if node.op == "function":
            entries = own["entries"].astype(np.int64)
            return entries[x + 128] if len(entries) == 256 else interpolated(x, entries, node.form)
        if node.op == "embedding":
            table = own.get("weight")
            rows = (self.weights[node.name].weight if table is None else table)[x].astype(np.int64)
            found = rescaled(rows, m[x][..., None], shift[x][..., None])
        elif node.op == "add":
            (y,) = given[1:]
            assert not isinstance(y, Rows)
            if node.form == STREAM:
                first, second = (
                    v if form_of(self._node(name)) == STREAM else rescaled(v, m[i], shift[i])
                    for i, (v, name) in enumerate(zip((x, y), node.inputs, strict=True))
                )
                found = first + second
            else:
                found = rescaled(x * int(m[0]) + y * int(m[1]), 1, shift)
        elif node.op == "product":
            (y,) = given[1:]
            assert not isinstance(y, Rows)
            found = rescaled(x * y, m, shift)
        elif node.op == "narrow":
            found = rescaled(x, m, shift)
        elif node.op in ("rms_norm", "layer_norm"):
            z = normalised(x, int(own["epsilon"][0]), centred=node.op == "layer_norm")
            found = rescaled(z + own["bias"], m, shift)
        elif node.op == "rotary":
            cosines, sines = np.split(given[1][:, :, None], 2, axis=-1)  # type: ignore[arg-type]
            heads = x.reshape(*x.shape[:2], s["heads"], -1)
            found = rescaled(rotated(heads, cosines, sines, s["pairs"]).reshape(x.shape), m, shift)
        else:
            assert node.op == "mean"
            valid = call.valid if call.valid.shape[1] == x.shape[1] else np.ones(x.shape[:2], bool)
            found = rescaled(mean_of_rows(x[:, s["first"] :], valid[:, s["first"] :]), m, shift)
        return saturated(found, node.form)

    def _attention(self, node: TokenNode, given: list[Value], call: _Call) -> I64:
        q, k, v = given
        assert not isinstance(q, Rows) and not isinstance(k, Rows) and not isinstance(v, Rows)
        if call.cache is not None:
            if node.name in call.cache.held:
                before = call.cache.held[node.name]
                k, v = (np.concatenate(pair, axis=1) for pair in zip(before, (k, v), strict=True))
            call.cache.held[node.name] = k, v
        out = np.empty((len(q), q.shape[1], node.shape[0]), np.int64)
        insides: list[list[tuple[Value, Value]]] = []
        for row in range(len(q)):
            whole = _heads(node, q[row], k[row], v[row])
            at_once = max(1, _SCORES // (len(whole[0]) * k.shape[1]))
            insides.append([])
            for start in range(0, q.shape[1], at_once):
                part = slice(start, start + at_once)
                queries = whole[0][:, part]
                valid = self._valid(node, call, row, start, queries.shape[1], k.shape[1])
                # Nobody sees keys behind the last query; they would be zeros.
                end = call.past + start + queries.shape[1] if node.settings["causal"] else None
                seen = slice(None if call.seen is not None else end)
                mixed, *inside = self._attend(
                    node, queries, whole[1][:, seen], whole[2][:, seen], valid[:, seen]
                )
                out[row, part] = mixed
                if call.seen is not None:
                    insides[-1].append((inside[0], inside[1]))
        if call.seen is not None:
            for at, what in enumerate(("scores", "shares")):
                parts = [_joined([one[at] for one in row], 1) for row in insides]
                call.seen[f"{node.name}.{what}"] = _joined([_lifted(one) for one in parts], 0)
        return out

    def _valid(
        self, node: TokenNode, call: _Call, row: int, start: int, count: int, keys: int
    ) -> NDArray[np.bool_]:
        """Which keys so many queries of a text may see, [queries, keys]."""
        valid = np.ones((count, keys), np.bool_)
        if call.valid.shape[1] == keys:
            valid &= call.valid[row]
        if node.settings["causal"]:
            own = call.past + start + np.arange(count)
            valid &= np.arange(keys) <= own[:, None]
        return valid

    def _attend(
        self, node: TokenNode, queries: I64, keys: I64, values: I64, valid: NDArray[np.bool_]
    ) -> tuple[I64, I64, Value]:
        """Some queries of one text: what is mixed [T, C], scores [heads, T, keys] and shares."""
        own = self.numbers[node.name]
        m, shift = own["multiplier"].tolist(), own["shift"].tolist()
        sums = _product(queries, keys.swapaxes(1, 2))
        scores = saturated(rescaled(sums, m[0], shift[0]), "int16")
        parts = shares(exponentials(scores, valid, m[1], shift[1]), node.settings["shares"])
        if isinstance(parts, Rows):
            mixed = rescaled(_product(parts.codes, values), parts.factor, parts.shift)
        else:
            mixed = _product(parts, values)
        found = saturated(rescaled(mixed, m[2], shift[2]), node.form)
        return found.swapaxes(0, 1).reshape(queries.shape[1], -1), scores, parts


def _heads(node: TokenNode, q: I64, k: I64, v: I64) -> list[I64]:
    """Queries, keys and values of one text by head of queries, [heads, T, D]."""
    heads, shared = node.settings["heads"], node.settings["kv_heads"]
    queries = q.reshape(len(q), heads, -1).swapaxes(0, 1)
    others = [one.reshape(len(one), shared, -1).swapaxes(0, 1) for one in (k, v)]
    return [queries, *(one.repeat(heads // shared, axis=0) for one in others)]


def _lifted(value: Value) -> Value:
    return value[None]


def _joined(parts: Sequence[Value], axis: int) -> Value:
    rows = [one for one in parts if isinstance(one, Rows)]
    if not rows:
        return np.concatenate([one for one in parts if not isinstance(one, Rows)], axis)
    fields = ("codes", "factor", "shift")
    return Rows(*(np.concatenate([getattr(row, f) for row in rows], axis) for f in fields))


def _linear(node: TokenNode, x: Value, p: Parameters) -> I64:
    codes = x.codes if isinstance(x, Rows) else x
    columns = codes.reshape(1, -1, codes.shape[-1]).swapaxes(1, 2)
    most = max(128, 128 * math.ceil(int(np.abs(codes).max(initial=0)) / 128))
    sums = accumulated(columns, p, most=most).T.reshape(*codes.shape[:-1], -1)
    if isinstance(x, Rows):
        sums = rescaled(sums, x.factor, x.shift)
    return saturated(rescaled(sums + p.bias, p.multiplier, p.shift), node.form)


def _product(first: I64, second: I64) -> I64:
    """Exact product of integers [heads, M, K] and [heads, K, N]."""
    most = int(np.abs(first).max(initial=0)) * int(np.abs(second).max(initial=0)) * first.shape[-1]
    kind = np.float32 if most <= _EXACT else np.float64
    found: I64 = (first.astype(kind) @ second.astype(kind)).astype(np.int64)
    return found
