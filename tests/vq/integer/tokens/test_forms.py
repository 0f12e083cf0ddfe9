"""Which values are int8, int16 or rows, and what stands between."""

import pytest

from vq.errors import ConfigError
from vq.integer.tokens.forms import planned
from vq.integer.tokens.values import Draft


def drafts():
    """A norm whose rows a linear reads, and a sum."""

    def one(name, op, *inputs):
        return Draft(name, op, [(i, 1.0) for i in inputs], (8,), 4, True)

    first = one("e", "embedding")
    norm = one("n", "layer_norm", first)
    wide = one("w", "linear", norm)
    part = one("s", "slice", wide)
    mixed = one("a", "attention", part, part, part)
    last = one("l", "linear", mixed)
    return [first, norm, wide, part, mixed, last, one("p", "add", last, norm)]


def forms_of(plan):
    return {draft.name: plan.form[draft] for draft in plan.drafts}


def test_the_array_reads_int8_and_everything_else_int16():
    found = forms_of(planned(drafts(), "int8"))
    assert found == {
        "e": "int16", "n": "int16", "n.narrow": "int8", "w": "int8", "s": "int8", "a": "int8",
        "l": "int16", "p": "int16",
    }  # fmt: skip


def test_linears_read_rows():
    plan = planned(drafts(), "rows")
    found = forms_of(plan)
    assert (found["n.to_rows"], found["a"], found["a.to_rows"]) == ("rows", "int16", "rows")
    assert found["s"] == "int8"  # what attention reads stays
    last = next(draft for draft in plan.drafts if draft.name == "l")
    assert last.inputs[0][0].name == "a.to_rows"


def test_single_values_are_named():
    found = forms_of(planned(drafts(), {"a": "int16"}))
    assert found["a"] == "int16" and "a.narrow" not in found and found["n.narrow"] == "int8"


def test_sums_of_a_stream_are_int32_where_norms_and_sums_read_them():
    found = forms_of(planned(drafts(), "int8", stream=True))
    assert found["p"] == "int16"  # the output
    chain = drafts()
    last = chain[-1]
    chain.append(Draft("z", "rms_norm", [(last, 1.0)], (8,), 4, True))
    found = forms_of(planned(chain, "int8", stream=True))
    assert found["p"] == "int32" and found["e"] == found["n"] == found["z"] == "int16"


@pytest.mark.parametrize("operands,shares,message", [
    ("int4", "rows", "operands must be one of int8, rows, int16, not 'int4'"),
    ({"a": "int4"}, "rows", "not 'int4'"),
    ({"z": "rows"}, "rows", "operands must be values of the model, not z"),
    ("int8", "int8", "shares must be rows or int16, not 'int8'"),
])  # fmt: skip
def test_unknown_forms_are_refused(operands, shares, message):
    with pytest.raises(ConfigError, match=message):
        planned(drafts(), operands, shares)
