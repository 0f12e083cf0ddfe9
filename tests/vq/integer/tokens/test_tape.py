"""The tape sees what depends on the input, in order, whatever the model does."""

import pytest
import torch
from torch import nn

from vq.errors import ConfigError
from vq.integer.tokens.tape import Tape, module_names, tensors_in


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(3, 3)

    def forward(self, x, ask=False):
        apart = torch.ones(3).cumsum(0)
        y = self.inner(x) * apart
        if ask and y.sum() > 0:
            return y
        return y.chunk(3, -1)[1] + y.shape[0]


def seen_of(model, *args):
    found = []
    with module_names(model) as names:
        tape = Tape(
            lambda place, module, func, *rest: found.append((place, module, func.__name__)), names
        )
        tape.follow(args[0])
        with tape:
            model(*args)
    return found


def test_only_what_depends_on_the_input_counts():
    want = [(0, "inner", "linear"), (1, "", "mul"), (2, "", "chunk"), (3, "", "add")]
    assert seen_of(Twice(), torch.ones(2, 3)) == want


def test_a_question_about_a_value_is_refused_and_hooks_are_gone():
    model = Twice()
    with pytest.raises(ConfigError, match="must compute the same whatever its inputs are"):
        seen_of(model, torch.ones(2, 3), True)
    assert not model._forward_hooks and not model.inner._forward_pre_hooks


def test_tensors_are_found_in_lists():
    one, other = torch.ones(1), torch.ones(2)
    assert [*tensors_in([3, [one, (other,)], "x"])] == [one, other]
