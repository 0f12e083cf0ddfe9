"""A second implementation of docs/spec-integer-graph.md: plain loops over Python integers.

Shares no code with ``vq.integer``; of the container it uses only weights and raw kept tensors.
"""

import itertools
import json

import numpy as np

from vq.container import open_container

_KINDS = {"I16": "<i2", "U8": "u1", "I32": "<i4"}


def forward(path, image: np.ndarray) -> dict[str, np.ndarray]:
    """Output of every node for one int8 image."""
    with open_container(path) as file:
        nodes = json.loads(file.kept("_integer.graph").data)["nodes"]
        values = {}
        for node in nodes:
            if node["op"] == "input":
                values[node["name"]] = image
                continue
            given = [values[name] for name in node["inputs"]]
            values[node["name"]] = _OPS[node["op"]](file, node, *given)
            assert list(values[node["name"]].shape) == node["shape"]
    return values


def numbers(file, node, field) -> list[int]:
    kept = file.kept(f"_integer.{node['name']}.{field}")
    return np.frombuffer(kept.data, _KINDS[kept.dtype]).tolist()


def finish(node, accumulator: int, multiplier: int, shift: int) -> int:
    """The requantisation, on integers of any size."""
    assert -(2**31) < accumulator < 2**31
    product = accumulator * multiplier + 2 ** (shift - 1)
    assert -(2**47) <= product < 2**47
    value = product // 2**shift  # rounds down
    return max(0 if node["relu"] else -128, min(127, value))


def accumulate(file, node, o: int, products: list[tuple[int, int]]) -> int:
    """Sum of products, given with the columns of their weights in the container's matrix."""
    g = file.geometry(node["layer"])
    if not g.group:
        return sum(product for _, product in products)
    count = -(-g.I // g.group)
    scales = numbers(file, node, "group_scale")[o * count : (o + 1) * count]
    (shift,) = numbers(file, node, "group_shift")
    total = 0
    for at, scale in enumerate(scales):
        partial = sum(product for column, product in products if column // g.group == at)
        assert -(2**31) < partial < 2**31
        product = partial * scale + (2 ** (shift - 1) if shift else 0)
        assert -(2**47) <= product < 2**47
        total += product // 2**shift  # rounds down
    return total


def linear(file, node, x):
    weight = file.integers(node["layer"]).tolist()
    fields = [numbers(file, node, f) for f in ("bias", "multiplier", "shift")]
    out = np.zeros(node["shape"], np.int8)
    for row in np.ndindex(*x.shape[:-1]):
        for o, (bias, multiplier, shift) in enumerate(zip(*fields, strict=True)):
            products = [int(v) * w for v, w in zip(x[row], weight[o], strict=True)]
            total = bias + accumulate(file, node, o, list(enumerate(products)))
            out[(*row, o)] = finish(node, total, multiplier, shift)
    return out


def conv(file, node, x):
    g = file.geometry(node["layer"])
    matrix = file.integers(node["layer"])
    outputs, inputs, *kernel = g.shape
    fields = [numbers(file, node, f) for f in ("bias", "multiplier", "shift")]
    out = np.zeros(node["shape"], np.int8)
    per_group = outputs // node["groups"]
    taps = list(itertools.product(*map(range, kernel)))
    for o, *position in np.ndindex(*node["shape"]):
        products = []
        for c in range(inputs):
            channel = o // per_group * inputs + c
            for t, tap in enumerate(taps):
                at = tuple(
                    p * s + k * d - before
                    for p, s, k, d, (before, _) in zip(
                        position, node["stride"], tap, node["dilation"], node["padding"],
                        strict=True,
                    )
                )  # fmt: skip
                if all(0 <= i < n for i, n in zip(at, x.shape[1:], strict=True)):
                    column = c * len(taps) + t if g.axis == "kernel" else t * inputs + c
                    products.append((column, int(x[(channel, *at)]) * int(matrix[o, column])))
        total = fields[0][o] + accumulate(file, node, o, products)
        out[(o, *position)] = finish(node, total, fields[1][o], fields[2][o])
    return out


def add(file, node, a, b):
    m, (shift,) = numbers(file, node, "multiplier"), numbers(file, node, "shift")
    out = np.zeros(node["shape"], np.int8)
    for at in np.ndindex(*out.shape):
        out[at] = finish(node, int(a[at]) * m[0] + int(b[at]) * m[1], 1, shift)
    return out


def global_avgpool(file, node, x):
    (m,), (shift,) = numbers(file, node, "multiplier"), numbers(file, node, "shift")
    values = [finish(node, sum(channel.reshape(-1).tolist()), m, shift) for channel in x]
    return np.array(values, np.int8).reshape(node["shape"])


def maxpool(file, node, x):
    out = np.full(node["shape"], -128, np.int8)
    for channel, *position in np.ndindex(*out.shape):
        for tap in itertools.product(*map(range, node["kernel"])):
            at = tuple(
                p * s + k - before
                for p, s, k, (before, _) in zip(
                    position, node["stride"], tap, node["padding"], strict=True
                )
            )
            if all(0 <= i < n for i, n in zip(at, x.shape[1:], strict=True)):
                here = (channel, *position)
                out[here] = max(out[here], x[(channel, *at)])
    return out


def shortcut(file, node, x):
    out = np.zeros(node["shape"], np.int8)
    for channel, *position in np.ndindex(*out.shape):
        source = channel - node["channels"][0]
        if 0 <= source < len(x):
            at = (p * s for p, s in zip(position, node["stride"], strict=True))
            out[(channel, *position)] = x[(source, *at)]
    return out


def relu(file, node, x):
    return np.array([max(0, v) for v in x.reshape(-1).tolist()], np.int8).reshape(x.shape)


def flatten(file, node, x):
    return x.reshape(-1)


_OPS = {
    f.__name__: f for f in (linear, conv, add, global_avgpool, maxpool, shortcut, relu, flatten)
}
