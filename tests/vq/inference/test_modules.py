"""Models that run from their packed weights."""

import copy
import pickle
import warnings

import pytest
import torch
from torch import nn

import vq
from tests.vq.activations.models import remaining_model
from tests.vq.models import Net
from vq import SSVQ, VQ, Int4, Int8, Recipe
from vq.errors import ConfigError
from vq.inference.modules import is_packed, packed_layers

RECIPE = Recipe({"fc1": SSVQ(d=4, k=16), "fc2": VQ(d=4, k=8), "head": Int8()})


class Pictures(nn.Module):
    """An embedding that is tied to the head, and convolutions of one tap, strided, and of more."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(40, 24)
        self.point = nn.Conv2d(24, 16, 1, stride=2)
        self.line = nn.Conv1d(16, 24, 1, bias=False)
        self.wide = nn.Conv2d(24, 24, 3, padding=1)
        self.head = nn.Linear(24, 40, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.wide(self.embed(ids).movedim(-1, 1))
        x = self.line(self.point(x).flatten(2))
        out: torch.Tensor = self.head(x.movedim(1, -1))
        return out


@pytest.fixture
def net():
    torch.manual_seed(0)
    model = Net().eval()
    vq.compress_(model, RECIPE)
    return model


@pytest.fixture
def pictures():
    torch.manual_seed(0)
    model = Pictures().eval()
    vq.compress_(
        model,
        Recipe(
            {
                "embed": Int4(group=8),
                "head": Int4(group=8),
                "point": SSVQ(d=8, k=16),
                "*": SSVQ(d=4),
            }
        ),
    )
    return model


def pack(model, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return vq.pack_(model, **options)


@pytest.mark.parametrize(
    ("activations", "error"), [("int8", 3e-2), ("int16", 2e-4), ("exact", 1e-6)]
)
def test_outputs_are_those_of_the_dense_weights(net, activations, error):
    x = torch.randn(9, 16)
    with torch.no_grad():
        dense = net(x)
        assert vq.pack_(net, activations=activations) is net
        packed = net(x)
    assert (packed - dense).norm() <= error * dense.norm()
    assert [name for name, _ in packed_layers(net)] == ["fc1", "fc2", "head"]
    assert type(net.fc1).__name__ == "PackedLinear" and isinstance(net.fc1, nn.Linear)


def test_embeddings_ties_and_convolutions(pictures):
    ids = torch.randint(0, 40, (2, 6, 6))
    weights = {name: pictures.get_submodule(name).weight.detach() for name in ("wide", "point")}
    dense = pictures(ids).detach()
    message = r"^packed layers 'wide' are no linears, .* they are decoded at every call"
    with pytest.warns(UserWarning, match=message):
        vq.pack_(pictures, activations="exact")
    packed = pictures(ids)
    assert torch.allclose(packed, dense, atol=1e-5 * float(dense.abs().max()))
    assert pictures.embed.packed is pictures.head.packed
    for name, weight in weights.items():
        assert torch.equal(pictures.get_submodule(name).weight, weight)
    assert torch.equal(pictures.embed(ids), pictures.embed.weight[ids])


@pytest.mark.parametrize("model", ["net", "pictures"])
def test_files_and_state_are_the_same_bytes(model, request, tmp_path):
    model = request.getfixturevalue(model)
    vq.save(model, tmp_path / "before")
    pack(model)
    vq.save(model, tmp_path / "after")
    assert (tmp_path / "before").read_bytes() == (tmp_path / "after").read_bytes()
    other = type(model)()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        vq.load(tmp_path / "before", into=other, packed=True)
    with torch.no_grad():
        for tensor in other.state_dict().values():
            tensor.zero_()
    other.load_state_dict(model.state_dict())
    vq.save(other, tmp_path / "state")
    assert (tmp_path / "before").read_bytes() == (tmp_path / "state").read_bytes()


def test_casts_and_copies(net, tmp_path):
    x = torch.randn(5, 16)
    vq.save(net, tmp_path / "before")
    vq.pack_(net)
    y = net(x)
    assert torch.equal(copy.deepcopy(net)(x), y)
    assert torch.equal(pickle.loads(pickle.dumps(net))(x), y)
    half = copy.deepcopy(net).bfloat16()
    assert torch.allclose(half(x.bfloat16()).float(), y, atol=0.05 * float(y.abs().max()))
    vq.save(half, tmp_path / "after")
    assert (tmp_path / "before").read_bytes() == (tmp_path / "after").read_bytes()


def test_the_compiler_and_export(net):
    vq.pack_(net)
    x = torch.randn(5, 16)
    compiled = torch.compile(net, fullgraph=True, backend="eager")
    exported = torch.export.export(net, (x,))
    assert torch.equal(compiled(x), net(x)) and torch.equal(exported.module()(x), net(x))


def test_memory_is_that_of_the_packed_bytes(tmp_path):
    model = nn.Sequential(nn.Linear(512, 512), nn.Linear(512, 512))
    vq.compress_(model, Recipe({"*": SSVQ(d=8, k=16)}))
    plan = vq.save(model, tmp_path / "x")
    vq.pack_(model)
    held = {t.data_ptr(): t.nbytes for t in model.state_dict().values()}
    assert sum(held.values()) <= 1.05 * (plan.file_bytes - plan.data_offset)


def test_what_remains_at_run_time_stays(tmp_path):
    model = remaining_model()
    before = [len(module._forward_pre_hooks) for module in model.modules()]
    assert sum(before) > 0
    names = [name for name, _ in model.named_modules()]
    vq.save(model, tmp_path / "a")
    pack(model)
    after = {name: len(m._forward_pre_hooks) for name, m in model.named_modules()}
    assert [after[name] for name in names if name in after] == [
        count for name, count in zip(names, before, strict=True) if name in after
    ]
    vq.save(model, tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_what_no_kernel_serves_is_said():
    model = nn.Sequential(nn.Linear(64, 600)).requires_grad_(False)
    vq.compress_(model, Recipe({"0": SSVQ(d=4, k=300)}))
    x = torch.randn(3, 64)
    dense = model(x).detach()
    with pytest.warns(
        UserWarning, match="^packed layers '0' are of a format that no kernel serves"
    ):
        vq.pack_(model, activations="int16")
    assert torch.allclose(model(x), dense, atol=1e-3 * float(dense.abs().max()))


def test_a_forward_of_its_own_is_kept():
    class Doubled(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    model = nn.Sequential(Doubled(16, 8))
    vq.compress_(model, Recipe({"0": Int8()}))
    dense = model(torch.ones(1, 16))
    with pytest.warns(UserWarning, match="packed layers '0' are no linears"):
        vq.pack_(model)
    assert torch.equal(model(torch.ones(1, 16)), dense)


def test_what_is_refused(net):
    with pytest.raises(ConfigError, match=r"^model must hold a compressed layer, not none; call"):
        vq.pack_(Net())
    with pytest.raises(
        ConfigError, match=r"^activations must be one of int8, int16, exact, not 'int4'"
    ):
        vq.pack_(net, activations="int4")
    assert not any(is_packed(module) for module in net.modules())
    nn.utils.parametrizations.weight_norm(net.stem)
    net.fc1.bias.requires_grad_(False)
    nn.utils.parametrize.register_parametrization(net.fc1, "bias", nn.Identity())
    with pytest.raises(
        ConfigError, match=r"^model to pack must have no parametrisations but .* 'fc1'; rem"
    ):
        vq.pack_(net)


def test_a_packed_model_is_not_compressed_again(net):
    vq.pack_(net)
    with pytest.raises(ConfigError, match="fc1"):
        vq.compress_(net, RECIPE)
