"""A decoded weight is read like any tensor; what is written to it is refused, not lost."""

import copy
import io

import pytest
import torch
from torch import Tensor, nn

import vq
from vq import SSVQ, Int4, Int8, Recipe
from vq.errors import ConfigError
from vq.formats.decoded import Decoded, decoded

REFUSED = r"^layer '0': a compressed weight must not be assigned to or changed in place, since "


def compressed(kind=Int8()):  # noqa: B008 - frozen dataclass
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8))
    vq.compress_(model, Recipe({"0": kind}), progress=False)
    return model


def iadd(weight):
    weight += 1


WRITES = {
    "assign": lambda w: setattr(w, "data", torch.zeros(8, 8)),
    "data": lambda w: iadd(w.data),
    "data, copy": lambda w: w.data.copy_(torch.zeros(8, 8)),
    "detached": lambda w: w.detach().add_(1),
    "detached twice": lambda w: w.detach().data.detach().mul_(2),
    "in place": lambda w: w.copy_(torch.zeros(8, 8)),
    "all items": lambda w: w.__setitem__(..., 0),
    "an item of data": lambda w: w.data.__setitem__(0, 0),
    "operator": iadd,
    "init": nn.init.zeros_,
    "init, normal": nn.init.xavier_normal_,
    "init data": lambda w: nn.init.constant_(w.data, 1.0),
    "moved nowhere": lambda w: w.cpu().zero_(),
    "transposed": lambda w: w.T.add_(1),
    "a row": lambda w: w.data[0].zero_(),
    "rows, one by one": lambda w: [row.zero_() for row in w.detach()],
    "flat": lambda w: w.view(-1).mul_(0),
    "parts": lambda w: w.detach().chunk(2)[0].zero_(),
    "a view of a view": lambda w: w.data.T[0].unsqueeze(0).zero_(),
    "set": lambda w: w.set_(torch.zeros(8, 8)),
}


@pytest.mark.parametrize("kind", [SSVQ(d=4, k=4), Int4(group=8), Int8()], ids=str)
@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_what_is_written_to_a_weight_is_refused_not_lost(write, kind):
    model = compressed(kind)
    before = model[0].weight.clone()
    with torch.no_grad(), pytest.raises(ConfigError, match=REFUSED):
        write(model[0].weight)
    assert torch.equal(model[0].weight, before)


def test_what_is_computed_from_a_weight_is_ordinary():
    model = compressed()
    weight = model[0].weight
    assert type(weight) is Decoded
    for made in (
        weight * 1,
        weight.clone(),
        weight.half(),
        weight.T * 1,
        weight @ weight,
        model(weight),
    ):
        assert type(made) is Tensor
    made = weight.clone()
    made += 1
    assert weight.requires_grad and torch.equal(weight.detach(), weight.data)
    weight.sum().backward()
    assert all(p.grad is not None for p in model[0].parametrizations.parameters())


@pytest.mark.parametrize("look", [lambda w: w, lambda w: w.data, lambda w: w.detach()])
def test_a_parameter_made_of_a_weight_is_one(look):
    parameter = nn.Parameter(look(compressed()[0].weight))
    assert type(parameter) is nn.Parameter and parameter.is_leaf and parameter.requires_grad
    parameter.sum().backward()
    torch.optim.SGD([parameter], 0.1, foreach=False).step()
    parameter.data += 1
    other = nn.Linear(8, 8)
    other.weight.data = look(compressed()[0].weight)
    other.weight.data.add_(1)


def test_copies_and_files_hold_ordinary_tensors():
    weight, file = compressed()[0].weight.detach(), io.BytesIO()
    torch.save({"weight": weight}, file)
    file.seek(0)
    read = torch.load(file, weights_only=True)["weight"]
    for made in (read, copy.deepcopy(weight)):
        assert type(made) is Tensor and torch.equal(made, weight)
        made.zero_()
    assert weight.any()


def test_torch_makes_an_ordinary_weight_of_it_again():
    model = compressed()
    before = model[0].weight.clone()
    nn.utils.parametrize.remove_parametrizations(model[0], "weight")
    assert type(model[0].weight) is nn.Parameter and torch.equal(model[0].weight, before)
    model[0].weight.data += 1


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize(
    "run",
    [
        lambda m, x: torch.compile(m, backend="eager", fullgraph=True)(x),
        lambda m, x: torch.fx.symbolic_trace(m)(x),
        lambda m, x: torch.export.export(m, (x,)).module()(x),
        lambda m, x: torch.func.functional_call(m, dict(m.named_parameters()), (x,)),
        lambda m, x: nn.DataParallel(m)(x),
    ],
    ids=["compile", "fx", "export", "functional_call", "DataParallel"],
)
def test_models_are_traced_as_before(run):
    model, x = compressed(SSVQ(d=4, k=4)), torch.randn(3, 8)
    assert torch.equal(run(model, x), model(x))


def test_stand_ins_of_tracers_stay_what_they_are():
    with torch._subclasses.FakeTensorMode():
        stand_in = torch.empty(2)
    assert type(decoded(stand_in, "a")) is not Decoded
