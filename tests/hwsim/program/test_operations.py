"""Operations of a graph's nodes, run by the vector unit, against the golden model."""

from pathlib import Path

import numpy as np
import pytest

from hwsim.program.operations import COPY, operation_of, refusal_of, shares_of
from tests import golden
from tests.rtl.vector.operations import wide
from tests.rtl.vector.rows import QUICK, Operation, check
from vq.container import open_container
from vq.integer.tokens import Rows, TokenNode, read_tokens
from vq.integer.tokens.arithmetic import WIDE_MAX, interpolated
from vq.integer.tokens.graph import form_of

FILE = Path(golden.__file__).with_name("every_token.vq.safetensors")
LANES = QUICK.lanes
ON_ROWS = {"to_rows", "narrow", "rotary", "product", "function", "add", "layer_norm", "rms_norm"}


def test_nodes_of_a_text() -> None:
    """Every node on rows that the unit has: its rows are those of numpy, and its factors."""
    with open_container(FILE) as container:
        model = read_tokens(container)
    values = model.trace(np.array([[0, 5, 2, 3]]))
    known = {node.name: node for node in model.graph.nodes}
    work, refused = [], []
    for node in model.graph.nodes:
        if not isinstance(node, TokenNode) or node.op not in ON_ROWS:
            continue
        forms = [form_of(known[name]) for name in node.inputs]
        if refusal_of(node, forms, LANES):
            refused.append(node.name)
            continue
        own, angles = model.numbers.get(node.name, {}), None
        rows, heads = [values[name][0] for name in node.inputs], 1
        if node.op == "rotary":
            heads = node.settings["heads"]
            tables = model.numbers[node.inputs[1]]
            angles = {name: table[: len(rows[0])] for name, table in tables.items()}
        operation = operation_of(node, forms, own, lanes=LANES, angles=angles)
        work.append(_row_by_row(operation, rows, values[node.name], heads))
    assert refused == ["sum", "norm", "k.turned", "on", "out", "last"]
    assert len(work) == 7
    x = values["q"][0]
    work.append(_row_by_row(COPY, [x], values["q"], 1))
    scores, shares = values["mixed.scores"][0, 1], values["mixed.shares"]
    softmax = shares_of(model.numbers["mixed"], lanes=LANES, loads=True)
    fields = {"length": 1, "longer": 1}
    work.append(_row_by_row(softmax, [scores], Rows(shares.codes[0, 1:2], *(
        getattr(shares, f)[0, 1:2] for f in ("factor", "shift"))), 1, fields))  # fmt: skip
    check(work)


def _row_by_row(operation, rows, value, heads, fields=()) -> Operation:
    """As the unit's tests have it: rows of heads, numbers as beats."""
    x, *more = (
        one.reshape(len(one) * heads, -1) for one in rows[:2] if heads == 1 or one is rows[0]
    )
    codes, factors = (value.codes, value) if isinstance(value, Rows) else (value, None)
    pairs = [] if factors is None else list(
        zip(factors.factor[0, :, 0].tolist(), factors.shift[0, :, 0].tolist(), strict=True)
    )  # fmt: skip
    numbers = [np.frombuffer(operation.numbers, "<i2")] if operation.numbers else []
    want = codes[0].reshape(len(x), -1)
    return Operation(
        dict(operation.fields) | dict(fields), x, want, more[0] if more else None, numbers, pairs
    )


@pytest.mark.parametrize("form", ["int8", "int16"])
def test_functions_between_entries(form) -> None:
    rng = np.random.default_rng(1)
    x, table = wide(rng, (2, 12)), rng.integers(-WIDE_MAX, WIDE_MAX + 1, 257)
    node = TokenNode("f", "function", ("x",), (12,), form)
    operation = operation_of(node, ["int16"], {"entries": table}, lanes=LANES)
    check([_row_by_row(operation, [x], interpolated(x, table, form)[None], 1)])


def test_what_the_unit_has_not_is_said() -> None:
    node = TokenNode("a", "rotary", ("x", "y"), (24,), settings={"heads": 2, "pairs": "halves"})
    assert refusal_of(node, ["int16", "int16"], 4) == (
        "half a head must be a multiple of 4 (lanes of the unit), not 6"
    )
    assert "must not be int32" in refusal_of(node, ["int32"], 4)
