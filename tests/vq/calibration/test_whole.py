"""Models are changed wholly or not at all."""

import copy
import tempfile

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

import vq
from tests.vq.models import Net, batches, unchanged
from vq import SSVQ, Recipe
from vq.calibration.batches import on_batch
from vq.calibration.whole import Before, restored, whole
from vq.errors import ConfigError, OutputError

RECIPE = Recipe({"fc*": SSVQ(d=4, k=8)})


class Shifted(nn.Module):
    def forward(self, x):
        return x + 1


def test_what_a_block_did_is_undone_whatever_stopped_it():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    parametrize.register_parametrization(model[0], "bias", Shifted())
    before, kinds = copy.deepcopy(model.state_dict()), [type(m) for m in model.modules()]
    names = list(before)
    for error in (KeyboardInterrupt, ValueError, MemoryError):
        with pytest.raises(error), whole(model):
            parametrize.register_parametrization(model[0], "weight", Shifted())
            model[1].weight.data.fill_(3)
            model[1].running_mean.add_(1)
            model.note, model[1].training = 1, False
            model.add_module("more", nn.Linear(2, 2))
            raise error
        assert list(model.state_dict()) == names and [type(m) for m in model.modules()] == kinds
        assert not hasattr(model, "note") and model[1].training
        assert isinstance(model[0].weight, nn.Parameter)
        unchanged(model, before)


def test_modules_are_given_back_what_they_held():
    model = nn.Linear(4, 4)
    weight, kind = model.weight, type(model)
    with restored([model, model]):
        parametrize.register_parametrization(model, "weight", Shifted())
        with torch.no_grad():
            model.bias.fill_(3)
    assert model.weight is weight and type(model) is kind and (model.bias == 3).all()


def test_trained_tensors_are_copied_and_some_errors_leave_the_model():
    model = nn.Linear(4, 4)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(KeyError), whole(model, trained=True):
        model.weight.data.zero_()
        raise KeyError
    unchanged(model, before)
    with pytest.raises(KeyError), whole(model, trained=True, but=(KeyError,)):
        model.weight.data.zero_()
        raise KeyError
    assert not model.weight.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_weights_that_were_put_away_come_back(dtype):
    model = nn.Sequential(nn.Linear(5, 3), nn.Linear(3, 2)).to(dtype)
    state = copy.deepcopy(model.state_dict())
    with tempfile.TemporaryFile() as file:
        before = Before(model, file, trained=False)
        weights = [model[0].weight, model[1].weight]
        for weight in weights:
            before.put_away(weight)
            weight.data = torch.zeros_like(weight)
        model[0].weight = nn.Parameter(torch.zeros(3, 5))
        before.drop(weights[0])
        before.drop(weights[1])  # which the model still holds
        assert not weights[0].numel() and weights[1].numel()
        before.restore()
    assert model[0].weight is weights[0]
    unchanged(model, state)


class Full:
    def seek(self, *place):
        return 0

    def write(self, data=b""):
        raise OSError(28, "No space left on device")


def test_weights_that_find_no_room_are_refused():
    model = nn.Linear(2, 2)
    with pytest.raises(OutputError, match=r"^.*: must have room .* No space left.*set TMPDIR"):
        Before(model, Full(), trained=False).put_away(model.weight)


FAILS = {
    "a batch of one": ([torch.randn(8, 16), torch.randn(1, 16)], ConfigError),
    "a width": ([torch.randn(8, 16), torch.randn(8, 15)], ConfigError),
    "a dtype": ([torch.randn(8, 16), torch.randint(0, 9, (8, 16))], ConfigError),
    "no tensor": ([torch.randn(8, 16), "text"], ConfigError),
    "an empty batch": ([torch.randn(8, 16), torch.randn(0, 16)], ConfigError),
    "an empty tuple": ([torch.randn(8, 16), ()], ConfigError),
}


@pytest.mark.parametrize("case", FAILS)
@pytest.mark.parametrize("importance", [None, "inputs"])
def test_a_compression_that_fails_can_be_tried_again(case, importance):
    data, error = FAILS[case]
    torch.manual_seed(0)
    model = Net()
    before = copy.deepcopy(model.state_dict())
    for _ in range(2):
        with pytest.raises(error, match=r"batch 2\b"):
            vq.compress_(model, RECIPE, calibration=data, importance=importance, progress=False)
        assert list(model.state_dict()) == list(before)
        unchanged(model, before)
    again, fresh = model, copy.deepcopy(model)
    for one in (again, fresh):
        vq.compress_(one, RECIPE, calibration=batches(2), progress=False)
    unchanged(again, fresh.state_dict())


def test_a_compression_that_is_interrupted_is_undone(monkeypatch):
    def stop(model, provenance):
        raise KeyboardInterrupt

    monkeypatch.setattr("vq.compress.set_provenance", stop)
    model = nn.Sequential(nn.Linear(16, 8), nn.BatchNorm1d(8))
    before = copy.deepcopy(model.state_dict())
    for data in (None, [torch.randn(8, 16)]):
        with pytest.raises(KeyboardInterrupt):
            rules = Recipe({"0": SSVQ(d=4, k=8, scale="norm")})
            vq.compress_(model, rules, calibration=data, progress=False)
        assert list(model.state_dict()) == list(before)
        unchanged(model, before)


def test_generators_are_kept_for_all_passes():
    torch.manual_seed(0)
    one = Net()
    other = copy.deepcopy(one)
    settings = {"importance": "inputs", "progress": False}
    vq.compress_(one, RECIPE, calibration=(b for b in batches(2)), **settings)
    vq.compress_(other, RECIPE, calibration=batches(2), **settings)
    unchanged(one, other.state_dict())


class Stops:
    """Batches of which the second fails, as ``error``, when it is drawn."""

    def __init__(self, error):
        self.error = error

    def __len__(self):
        return 3

    def __iter__(self):
        yield batches(1)[0]
        raise self.error


GOOD, LABELS = batches(1)[0], torch.zeros(4).long()
BAD_TRAINING = {
    "labels": ([GOOD, (torch.randn(4, 16), LABELS + 9)], ConfigError, "IndexError"),
    "a width": ([GOOD, (torch.randn(4, 9), LABELS)], ConfigError, "RuntimeError"),
    "one row": ([GOOD, (torch.randn(1, 16), LABELS[:1])], ConfigError, "more than 1 value"),
    "a data set": (Stops(OSError("gone")), ConfigError, "not raise OSError: gone"),
    "Ctrl-C": (Stops(KeyboardInterrupt()), KeyboardInterrupt, ""),
}


@pytest.mark.parametrize("case", BAD_TRAINING)
def test_a_training_that_fails_can_be_tried_again(case):
    data, error, message = BAD_TRAINING[case]
    torch.manual_seed(0)
    model = Net()
    vq.compress_(model, RECIPE, progress=False)
    before = copy.deepcopy(model.state_dict())
    fresh = copy.deepcopy(model)
    for _ in range(2):
        with pytest.raises(error, match=f"batch 2.*{message}" if message else None):
            vq.finetune_(model, data, epochs=1, seed=0, progress=False)
        unchanged(model, before)
    for one in (model, fresh):
        vq.finetune_(one, batches(2), epochs=1, seed=0, progress=False)
    unchanged(model, fresh.state_dict())


STORED = {
    "complex": (torch.zeros(2, dtype=torch.complex64), "tensor 'extra': tensors to keep must have"),
    "sparse": (torch.eye(2).to_sparse(), "tensor 'extra' must be dense, not torch.sparse_coo"),
    "unsigned": (torch.zeros(2, dtype=torch.uint32), "tensor 'extra': tensors to keep must have"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", STORED)
def test_what_cannot_be_stored_is_refused_before_work(case):
    tensor, message = STORED[case]
    model = Net()
    model.register_buffer("extra", tensor)
    for work in (vq.compress_, vq.plan):
        with pytest.raises(ConfigError, match=rf"^model to store has 1 problem:\n- {message}"):
            work(model, RECIPE)
    assert isinstance(model.fc1.weight, nn.Parameter)
    model.register_buffer("extra", tensor, persistent=False)
    vq.compress_(model, RECIPE, progress=False)


def test_errors_that_say_enough_pass():
    for error in (ConfigError("own"), torch.OutOfMemoryError("CUDA out of memory")):
        with pytest.raises(type(error), match=f"^{error}$"), on_batch(1, torch.zeros(2)):
            raise error
    batch = {"ids": torch.zeros(2, 3).long(), "more": [torch.zeros(1), None]}
    shown = r"\{ids: int64 \[2, 3\], more: \(float32 \[1\], NoneType\)\}"
    with (
        pytest.raises(
            ConfigError, match=rf"^model must accept calibration batch 3, {shown}, but raises Key"
        ),
        on_batch(3, batch),
    ):
        raise KeyError("x")


def test_nothing_is_put_away_without_need(monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_get_default_tempdir", Full().write)  # no folder can be written
    with pytest.raises(ValueError), whole(nn.Linear(2, 2)):
        raise ValueError
    model = nn.Linear(2, 2)
    with pytest.raises(OutputError, match=r"^TMPDIR: must have room for the unquantised"):
        with whole(model) as before:
            before.put_away(model.weight)
