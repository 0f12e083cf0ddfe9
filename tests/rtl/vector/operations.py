"""Operations with random numbers, and what the arithmetic of integer graphs makes of them."""

import numpy as np

from rtl.vector.layer import VectorOp
from tests.rtl.vector.rows import Operation
from vq.integer.tokens.arithmetic import (
    EXP2,
    WIDE_MAX,
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

#: Powers of two as a table, 16 bits without sign; the last difference is never used.
POWERS = [int(v) - 2**16 if v > 32767 else int(v) for v in (*EXP2, 0)]


def wide(rng, shape):
    """Values of int16, half of the rows small."""
    values = rng.integers(-WIDE_MAX, WIDE_MAX + 1, shape)
    values[::2] >>= rng.integers(0, 12)
    return values


def bytes_of(rng, shape):
    return rng.integers(-128, 128, shape)


def form(rng):
    """An output format, and its bit of a descriptor."""
    narrow = int(rng.integers(0, 2))
    return ("int8" if narrow else "int16"), {"narrow": narrow}


def fixed(rng, bits):
    """A multiplier, and a shift after which values of so many bits are of int16's size."""
    return int(rng.integers(2**14, 2**15)) * int(rng.choice([-1, 1])), max(1, bits + 15 - 15)


def narrow(rng, x):
    name, bit = form(rng)
    m, s = fixed(rng, 16)
    want = saturated(rescaled(x, m, s), name)
    return Operation({"op": VectorOp.NARROW, "own": m, "shift": s} | bit, x, want)


def add(rng, x):
    name, bit = form(rng)
    y = wide(rng, x.shape)
    (m, s), (n, _) = fixed(rng, 17), fixed(rng, 17)
    want = saturated(rescaled(x * m + y * n, 1, s), name)
    return Operation({"op": VectorOp.ADD, "own": m, "other": n, "shift": s} | bit, x, want, y)


def product(rng, x):
    name, bit = form(rng)
    y = wide(rng, x.shape)
    m, s = fixed(rng, 31)
    want = saturated(rescaled(x * y, m, s), name)
    return Operation({"op": VectorOp.PRODUCT, "own": m, "shift": s} | bit, x, want, y)


def function(rng, x):
    name, bit = form(rng)
    table = np.concatenate([[WIDE_MAX, -WIDE_MAX], rng.integers(-WIDE_MAX, WIDE_MAX + 1, 255)])
    fields = {"op": VectorOp.FUNCTION, "wide": 1, "loads_table": 1, "table": 0}
    fields["shift"] = 16 if bit["narrow"] else 8
    return Operation(fields | bit, x, interpolated(x, table, name), numbers=[table])


def function_of_bytes(rng, x):
    x = saturated(x, "int8")
    table = rng.integers(-128, 128, 257)
    fields = {"op": VectorOp.FUNCTION, "loads_table": 1, "shift": 8, "narrow": 1}
    return Operation(fields, x, table[x + 128], numbers=[table])


def rotary(rng, x, pairs="adjacent", heads=3):
    name, bit = form(rng)
    count, size = x.shape
    angles = rng.uniform(0, 7, (-(-count // heads), size // 2))
    cosine, sine = (np.rint(32767 * f(angles)).astype(np.int64) for f in (np.cos, np.sin))
    per_row = [one.repeat(heads, axis=0)[:count] for one in (cosine, sine)]
    m, s = fixed(rng, 31)
    want = saturated(rescaled(rotated(x, *per_row, pairs), m, s), name)
    both = [cosine, cosine], [-sine, sine]
    if pairs == "adjacent":
        c, s_ = (np.stack(one, axis=-1).reshape(len(angles), size) for one in both)
    else:
        c, s_ = (np.concatenate(one, axis=-1) for one in both)
    numbers = [np.stack([s_[i], c[i], 0 * c[i]], axis=1) for i in range(len(angles))]
    fields = {
        "op": VectorOp.ROTARY, "halves": int(pairs == "halves"), "own": m, "shift": s,
        "loads_channels": 1, "same_channels": heads,
    }  # fmt: skip
    return Operation(fields | bit, x, want, numbers=numbers)


def halves(rng, x):
    return rotary(rng, x, "halves")


def rows(rng, x):
    found = to_rows(x)
    fields = {"op": VectorOp.ROWS, "narrow": 1}
    return Operation(fields, x, found.codes, factors=_pairs(found))


def norm(rng, x, centred=True, epsilon=None):
    name, bit = form(rng)
    if epsilon is None:
        epsilon = int(2 ** rng.uniform(0, 60))
    count = x.shape[1]
    numbers = np.stack(
        [
            rng.integers(-(2**30), 2**30, count) >> rng.integers(0, 30, count),
            rng.integers(-32767, 32768, count),
            rng.integers(14, 30, count),
        ],
        axis=1,
    )
    z = normalised(x, epsilon, centred=centred)
    want = saturated(rescaled(z + numbers[:, 0], numbers[:, 1], numbers[:, 2]), name)
    op = VectorOp.LAYER_NORM if centred else VectorOp.RMS_NORM
    fields = {"op": op, "epsilon": epsilon, "loads_channels": 1}
    return Operation(fields | bit, x, want, numbers=[numbers])


def rms_norm(rng, x):
    return norm(rng, x, centred=False)


def softmax(rng, x, length=None, longer=0, most=None, shares_of="rows"):
    count, keys = x.shape
    length = int(rng.integers(1, keys + 1)) if length is None else length
    most = max(length, keys - 1) if most is None else most
    lengths = np.minimum(length + longer * np.arange(count), most)
    m, s = int(rng.integers(1, 2**15)), int(rng.integers(8, 20))
    powers = exponentials(x, np.arange(keys) < lengths[:, None], m, s)
    found = shares(powers, shares_of)
    fields = {
        "length": length, "length_most": most, "longer": longer, "own": m, "shift": s,
        "loads_table": 1, "table": 1,
    }  # fmt: skip
    if shares_of == "rows":
        fields |= {"op": VectorOp.SHARES, "narrow": 1}
        return Operation(fields, x, found.codes, numbers=[POWERS], factors=_pairs(found))
    return Operation(fields | {"op": VectorOp.SHARES_WIDE}, x, found, numbers=[POWERS])


def causal(rng, x):
    return softmax(rng, x, length=1, longer=1)


def softmax_wide(rng, x):
    return softmax(rng, x, shares_of="int16", longer=int(rng.integers(0, 2)))


def mean(rng, x):
    name, bit = form(rng)
    m, s = fixed(rng, 24)
    valid = np.ones((1, len(x)), np.bool_)
    want = saturated(rescaled(mean_of_rows(x[None], valid)[0], m, s), name)
    return Operation({"op": VectorOp.MEAN, "own": m, "shift": s} | bit, x, want)


def _pairs(found):
    return list(zip(found.factor[:, 0].tolist(), found.shift[:, 0].tolist(), strict=True))


#: By name: what makes an operation of [rows, N] int16.
MAKERS = {
    one.__name__: one
    for one in (
        narrow, add, product, function, function_of_bytes, rotary, halves, rows, norm, rms_norm,
        softmax, causal, softmax_wide, mean,
    )
}  # fmt: skip
