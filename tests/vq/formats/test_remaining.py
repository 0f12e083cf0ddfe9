"""Whatever remains at a module is seen by rooms that do not know what it is."""

import pytest
import torch
from torch import nn

from vq.errors import ConfigError
from vq.formats.remaining import Remaining, remaining, require_plain


class Note(Remaining):
    kind = "note"

    def __call__(self, module, args, kwargs=None):
        return None


def test_hooks_and_forwards_are_seen():
    model, note = nn.Sequential(nn.Linear(2, 2)), Note()
    assert remaining(model[0]) == []
    model[0].register_forward_pre_hook(note)
    model[0].register_forward_pre_hook(lambda *_: None)
    assert remaining(model[0]) == [note]
    vars(model)["forward"] = note
    assert remaining(model) == [note]
    with pytest.raises(ConfigError, match=r"^exports must be given a model .* run time \(note\);"):
        require_plain(model, "exports")
    require_plain(nn.Linear(2, 2), "exports")
    assert torch.is_tensor(model[0](torch.ones(1, 2)))
