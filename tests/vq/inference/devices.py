"""What programs of a GPU must give, on the device, or under Triton's interpreter.

``python -m`` this runs the second, in a process of its own: Triton asks for it when it is imported.
"""

import os

import numpy as np
import pytest
import torch

from tests.vq.inference.layers import FORMS, inputs_of, same_bits, wanted, weight_of
from vq.inference import gpu, operator
from vq.inference.tiles import Tiling

#: Tokens, and how near to the exact product of magnitudes.
EXACT = (
    (torch.float32, 1, 1e-6), (torch.float16, 1, 1e-3), (torch.bfloat16, 1, 1e-2),
    (torch.float32, 3, 1e-6), (torch.float16, 16, 1e-3), (torch.bfloat16, 17, 1e-2),
    (torch.bfloat16, 2, 1e-2), (torch.float32, 0, 0),
)  # fmt: skip


def check(form: str, device: str, *, products_of_bfloat16: bool) -> None:
    """Compare all that an operator does with a layer, on a device."""
    sample = FORMS[form]()
    weight, g = weight_of(sample).to(device), sample.layer.geometry
    t = Tiling.of(g)
    integers = operator._integers(t, weight.tiles, weight.codebook, torch.arange(g.O).to(device))
    book = sample.integers if not t.group else None
    assert book is None or np.array_equal(integers.cpu().numpy(), book)
    matrix = weight.rows(torch.arange(g.O).to(device)).cpu()
    assert torch.equal(matrix, torch.from_numpy(sample.weight.reshape(g.O, g.I)))
    chosen = torch.tensor([[3, 0], [g.O - 1, 3]])
    assert torch.equal(weight.rows(chosen.to(device)).cpu(), matrix[chosen])
    bias = np.random.default_rng(1).standard_normal(g.O).astype(np.float32)

    def multiplied(x: torch.Tensor, own: torch.Tensor | None, activations: str) -> torch.Tensor:
        return operator._gpu_linear(
            x.to(device), weight.tiles, weight.codebook, weight.scale, weight.zeros,
            None if own is None else own.to(device), list(t), activations,
        ).cpu()  # fmt: skip

    for activations, tokens in (("int8", 1), ("int8", 5), ("int8", 70), ("int16", 3)):
        x, own = inputs_of(sample, tokens), None if tokens == 5 else bias
        y = multiplied(
            torch.from_numpy(x), None if own is None else torch.from_numpy(own), activations
        )
        assert same_bits(y.numpy(), wanted(sample, x, own, activations)), (activations, tokens)
    if not t.group:
        weight.scale = weight.scale.sign() / 100  # so that products fit fp16
    matrix = weight.rows(torch.arange(g.O).to(device)).cpu().double()
    for kind, tokens, near in EXACT:
        if kind == torch.bfloat16 and 1 < tokens <= gpu.MOST_TOKENS and not products_of_bfloat16:
            continue
        x = torch.randn(tokens, g.I).to(kind)
        for own in (None, torch.from_numpy(bias)):
            y = multiplied(x, own, "exact")
            exact = x.double() @ matrix.T + (0 if own is None else own)
            most = x.double().abs() @ matrix.abs().T + (0 if own is None else own.abs())
            assert y.dtype == kind
            assert ((y.double() - exact).abs() <= near * most).all(), (kind, tokens)
    x = torch.ones(3, g.I)
    x[1, 2] = float("nan")
    y = multiplied(x, None, "exact")
    assert y[1].isnan().all() and y[[0, 2]].isfinite().all()


def main() -> None:
    """Check all forms under the interpreter, which has no products of bfloat16 matrices."""
    os.environ["TRITON_INTERPRET"] = "1"
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(operator, "_has_programs", lambda t, tiles: True)
        for form in FORMS:
            check(form, "cpu", products_of_bfloat16=False)
            print(form)
    gpu.require(torch.device("cpu"))


if __name__ == "__main__":
    main()
