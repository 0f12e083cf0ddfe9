"""What multiplying by packed weights means, in numpy: every kernel gives these very bits.

Activations are rounded for each token, symmetrically, to whole numbers ``q = round(x * r)`` (to the
nearest, ties to even), in fp32:

- 8 bits: ``r = min(127 / max|x|, 2**126)``;
- 16 bits: ``r = min(32512 / max|x|, 2**126)``, and ``q = 255 * high + low`` with both digits from
  -127 to 127, which is what kernels for 8 bits multiply by, as if there were two tokens.

The sum ``s`` of integer weight times ``q`` is exact, and becomes fp32 once, rounded to nearest.
Then come, each rounded to fp32 in this order:

- one scale or one per output: ``y = s * (1 / r) * scale + bias``;
- scales of groups: ``y = (0 + s_0 * scale_0 + s_1 * scale_1 ...) * (1 / r) + bias``, each group
  with its own sum.

No multiplication is fused with an addition. A token that holds NaN or an infinity gives NaN
everywhere. Weights are integers from -128 to 127, so that the sums over up to 66,000 inputs stay in
32 bits where 128 is added to each weight.
"""

import numpy as np
from numpy.typing import NDArray

__all__ = ["ACTIVATIONS", "DIGIT", "HIGHEST", "grouped_linear", "linear", "rounded"]

#: Greatest whole number that activations are rounded to, by the name of the rounding.
HIGHEST = {"int8": 127, "int16": 32512}
#: All that may happen to activations.
ACTIVATIONS = (*HIGHEST, "exact")
#: What one of the high digit of 16 bits is worth.
DIGIT = 255

F32 = NDArray[np.float32]
_MOST = np.float32(2.0**126)


def rounded(x: F32, activations: str = "int8") -> tuple[NDArray[np.int64], F32]:
    """Round activations [M, I] to whole numbers; what one of them is worth, [M, 1] float32."""
    peak = np.abs(x).max(axis=1, keepdims=True, initial=0)
    finite = np.isfinite(x).all(axis=1, keepdims=True)
    with np.errstate(divide="ignore", over="ignore"):
        factor = np.minimum(np.float32(HIGHEST[activations]) / np.where(finite, peak, 0), _MOST)
    whole = np.rint(np.where(finite, x, 0) * factor).astype(np.int64)
    return whole, np.where(finite, np.float32(1) / factor, np.float32(np.nan))


def linear(
    x: F32,
    integers: NDArray[np.int8],
    scale: F32,
    bias: F32 | None = None,
    activations: str = "int8",
) -> F32:
    """Multiply activations [M, I] by weights [O, I] with scales [1] or [O]: [M, O] float32."""
    whole, step = rounded(x, activations)
    sums = (whole @ integers.T.astype(np.int64)).astype(np.float32)
    with np.errstate(over="ignore", under="ignore"):
        y = sums * step * scale
        return y if bias is None else y + bias


def grouped_linear(
    x: F32,
    integers: NDArray[np.int8],
    scales: NDArray[np.float16],
    group: int,
    bias: F32 | None = None,
    activations: str = "int8",
) -> F32:
    """The same with a scale for each output and group of inputs, [O, ceil(I / group)]."""
    whole, step = rounded(x, activations)
    y = np.zeros((len(x), len(integers)), np.float32)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        for at in range(scales.shape[1]):
            part = slice(at * group, (at + 1) * group)
            sums = whole[:, part] @ integers[:, part].T.astype(np.int64)
            y = y + sums.astype(np.float32) * scales[:, at].astype(np.float32)
        y = y * step
        return y if bias is None else y + bias
