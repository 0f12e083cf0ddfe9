"""A second implementation of section 7 of docs/spec-integer-graph.md: loops over Python integers.

Shares no code with ``vq.integer``; of the container it uses only weights and raw kept tensors.
Values are lists of rows, a row with a factor being (codes, factor, shift).
"""

import json
import math

import numpy as np

from tests.vq.integer import naive
from vq.container import open_container

_KINDS = {"I8": "i1", "I16": "<i2", "U8": "u1", "I32": "<i4", "I64": "<i8"}


def forward(path, inputs, length=None, past=None) -> dict:
    """Output of every node for one text, a list of tokens, or one int8 image."""
    with open_container(path) as file:
        graph = json.loads(file.kept("_integer.graph").data)
        run = _Run(file, graph, length or len(inputs), past)
        for node in graph["nodes"]:
            given = [run.values[name] for name in node["inputs"]]
            run.values[node["name"]] = run.of(node, inputs, *given)
    return run.values


def shifted(value: int, m: int, s: int) -> int:
    product = value * m
    assert abs(product) < 2**47 and -(2**15) < m < 2**15
    return (product + 2 ** (s - 1)) // 2**s if s > 0 else product * 2**-s


def clamp(value: int, form: str) -> int:
    low, high = {"int8": (-128, 127), "int32": (-(2**27) + 1, 2**27 - 1)}.get(form, (-32639, 32639))
    return max(low, min(high, value))


def reciprocal(value: int) -> tuple[int, int]:
    n = value.bit_length()
    return min(2 ** (14 + n) // value, 2**15 - 1), n


class _Run:
    def __init__(self, file, graph, length, past):
        self.file, self.graph, self.length, self.values = file, graph, length, {}
        self.nodes = {node["name"]: node for node in graph["nodes"]}

    def numbers(self, node, field):
        kept = self.file.kept(f"_integer.{node['name']}.{field}")
        return np.frombuffer(kept.data, _KINDS[kept.dtype]).reshape(kept.shape).tolist()

    def of(self, node, inputs, *given):
        if node["op"] == "tokens":
            return list(inputs)
        if node["op"] == "input":
            return inputs
        if node["op"] == "conv":
            return naive.conv(self.file, node, given[0])
        return getattr(self, node["op"])(node, *given)

    def embedding(self, node, tokens):
        table = self.table(node)
        m, s = self.numbers(node, "multiplier"), self.numbers(node, "shift")
        return [[clamp(shifted(w, m[t], s[t]), node["form"]) for w in table[t]] for t in tokens]

    def table(self, node):
        if node["layer"]:
            return self.file.integers(node["layer"]).tolist()
        return self.numbers(node, "weight")

    def constant(self, node):
        rows = self.numbers(node, "rows")
        return rows[: self.length] if len(rows) == self.graph["context"] else rows

    def angles(self, node):
        pair = self.numbers(node, "cosine"), self.numbers(node, "sine")
        return list(zip(*pair, strict=True))

    def linear(self, node, x):
        source = self.nodes[node["settings"]["table"]] if not node["layer"] else node
        weight = self.table(source)
        fields = [self.numbers(node, f) for f in ("bias", "multiplier", "shift")]
        out = []
        for row in x:
            codes, *factor = row if isinstance(row, tuple) else (row,)
            out.append([])
            for o, (bias, m, s) in enumerate(zip(*fields, strict=True)):
                products = [v * w for v, w in zip(codes, weight[o], strict=True)]
                total = sum(products)
                if node["layer"]:
                    total = naive.accumulate(self.file, node, o, list(enumerate(products)))
                assert abs(total) < 2**31
                total = bias + (shifted(total, *factor) if factor else total)
                assert abs(total) < 2**31
                out[-1].append(clamp(shifted(total, m, s), node["form"]))
        return out

    def each(self, node, value, *rows):
        m, s = self.numbers(node, "multiplier"), self.numbers(node, "shift")
        return [
            [clamp(shifted(value(*v), m[0], s[0]), node["form"]) for v in zip(*r, strict=True)]
            for r in zip(*rows, strict=True)
        ]

    def add(self, node, a, b):
        (m, n), (s, *more) = self.numbers(node, "multiplier"), self.numbers(node, "shift")
        if node["form"] == "int32":
            forms = [self.nodes[name]["form"] for name in node["inputs"]]
            a, b = (
                x if form == "int32" else [[shifted(v, k, t) for v in row] for row in x]
                for x, form, k, t in zip((a, b), forms, (m, n), (s, *more), strict=True)
            )
            return [
                [clamp(v + w, "int32") for v, w in zip(*r, strict=True)]
                for r in zip(a, b, strict=True)
            ]
        return [
            [clamp(shifted(v * m + w * n, 1, s), node["form"]) for v, w in zip(*r, strict=True)]
            for r in zip(a, b, strict=True)
        ]

    def product(self, node, a, b):
        return self.each(node, lambda v, w: v * w, a, b)

    def narrow(self, node, x):
        return self.each(node, lambda v: v, x)

    def function(self, node, x):
        entries = self.numbers(node, "entries")

        def one(v):
            if len(entries) == 256:
                return entries[v + 128]
            i, rest = v // 256 + 128, v % 256
            fine = entries[i] * 256 + (entries[i + 1] - entries[i]) * rest
            if node["form"] == "int16":
                return clamp((fine + 128) // 256, "int16")
            return clamp((fine + 2**15) // 2**16, "int8")

        if isinstance(x, np.ndarray):
            return np.array([one(int(v)) for v in x.reshape(-1)]).reshape(x.shape)
        return [[one(v) for v in row] for row in x]

    def norm(self, node, x, centred):
        fields = [self.numbers(node, f) for f in ("bias", "multiplier", "shift")]
        (epsilon,) = self.numbers(node, "epsilon")
        out = []
        for row in x:
            e = max(0, max(1, *(abs(v) for v in row)).bit_length() - 15)
            row = [(v + 2**e // 2) // 2**e for v in row]
            n, total = len(row), sum(row) if centred else 0
            energy = n * sum(v * v for v in row) - total * total + max(1, epsilon // 4**e)
            k = (energy.bit_length() - 31) // 2 * 2
            wide = energy >> k if k > 0 else energy << -k
            assert 2**30 <= wide < 2**32
            r = min(2**30 // math.isqrt(wide), 2**15 - 1)
            z = [shifted(n * v - total, r, 12 + k // 2) for v in row]
            out.append([
                clamp(shifted(v + b, m, s), node["form"])
                for v, b, m, s in zip(z, *fields, strict=True)
            ])  # fmt: skip
        return out

    def rms_norm(self, node, x):
        return self.norm(node, x, False)

    def layer_norm(self, node, x):
        return self.norm(node, x, True)

    def to_rows(self, node, x):
        out = []
        for row in x:
            most = max(1, *(abs(v) for v in row))
            r, n = reciprocal(most)
            codes = [max(-127, min(127, shifted(127 * v, r, 14 + n))) for v in row]
            out.append((codes, most << (15 - n), 30 - n))
        return out

    def rotary(self, node, x, angles):
        heads, half = node["settings"]["heads"], len(angles[0][0])
        (m,), (s,) = self.numbers(node, "multiplier"), self.numbers(node, "shift")
        out = []
        for row, (cos, sin) in zip(x, angles, strict=False):
            turned = list(row)
            for head in range(heads):
                for i in range(half):
                    at = head * 2 * half
                    a, b = (2 * i, 2 * i + 1)
                    if node["settings"]["pairs"] == "halves":
                        a, b = i, i + half
                    u, v = row[at + a], row[at + b]
                    turned[at + a] = u * cos[i] - v * sin[i]
                    turned[at + b] = u * sin[i] + v * cos[i]
            out.append([clamp(shifted(v, m, s), node["form"]) for v in turned])
        return out

    def slice(self, node, x):
        start = node["settings"]["start"]
        return [row[start : start + node["shape"][0]] for row in x]

    def places(self, node, x):
        return x.reshape(len(x), -1).T.tolist()

    def place(self, node, x):
        return [[0] * len(x[0]) for _ in range(node["settings"]["before"])] + x

    def select(self, node, x):
        return [x[node["settings"]["row"]]]

    def mean(self, node, x):
        rows = x[node["settings"]["first"] : self.length]
        r, n = reciprocal(len(rows))
        (m,), (s,) = self.numbers(node, "multiplier"), self.numbers(node, "shift")
        fine = [shifted(sum(column), r, 6 + n) for column in zip(*rows, strict=True)]
        return [[clamp(shifted(v, m, s), node["form"]) for v in fine]]

    def attention(self, node, q, k, v):
        s = node["settings"]
        (m0, m1, m2), (s0, s1, s2) = (self.numbers(node, f) for f in ("multiplier", "shift"))
        size, shared = len(q[0]) // s["heads"], s["heads"] // s["kv_heads"]
        out = [[] for _ in q]
        tokens = self.nodes[self.graph["nodes"][0]["name"]]["op"] == "tokens"
        for i, row in enumerate(q):
            seen = range(i + 1) if s["causal"] else range(self.length if tokens else len(k))
            for head in range(s["heads"]):
                own, other = head * size, head // shared * size
                scores = [
                    clamp(shifted(sum(row[own + d] * k[j][other + d] for d in range(size)), m0, s0),
                          "int16")
                    for j in seen
                ]  # fmt: skip
                powers = []
                for score in scores:
                    u = shifted(max(scores) - score, m1, s1)
                    octave, entry = u // 256, round(2 ** (15 - u % 256 / 256))
                    half = 2**octave // 2
                    powers.append((entry + half) // 2**octave if octave < 16 else 0)
                if s["shares"] == "rows":
                    parts = [(127 * e + 2**14) // 2**15 for e in powers]
                    r, n = reciprocal(sum(parts))
                else:
                    r, n = reciprocal(sum(powers))
                    parts = [shifted(e, r, n) for e in powers]
                for d in range(size):
                    mixed = sum(p * v[j][other + d] for p, j in zip(parts, seen, strict=True))
                    if s["shares"] == "rows":
                        mixed = shifted(mixed, r, 7 + n)
                    out[i].append(clamp(shifted(mixed, m2, s2), node["form"]))
        return out
