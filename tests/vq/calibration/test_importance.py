"""What measures importance, against formulas; and that it leaves the model as it was."""

import copy

import pytest
import torch
from torch import nn

import vq
from tests.vq.models import Net, batches, unchanged
from vq import SSVQ, Recipe
from vq.calibration.batches import fingerprint
from vq.calibration.importance import (
    input_second_moments,
    output_gradients,
    squared_gradients,
)
from vq.errors import ConfigError
from vq.formats.model import provenance_of


def test_squared_gradients_are_the_mean_over_batches():
    model = Net().eval()
    before = copy.deepcopy(model.state_dict())
    found = squared_gradients(model, batches(3))
    expected = torch.zeros_like(model.fc1.weight)
    for x, y in batches(3):
        loss = nn.functional.cross_entropy(model(x), y)
        expected += torch.autograd.grad(loss, model.fc1.weight)[0] ** 2
    torch.testing.assert_close(found["fc1"], expected.detach())
    assert found.keys() == {"stem", "fc1", "fc2", "head"}
    unchanged(model, before)
    assert model.fc1.weight.grad is None


def test_output_gradients_are_those_of_every_output():
    model = Net().eval()
    before = copy.deepcopy(model.state_dict())
    found = output_gradients(model, batches(3))
    assert found.keys() == {"stem", "fc1", "fc2", "head"}
    want = dict.fromkeys(found, 0)
    for x, y in batches(3):
        stem = model.stem(x[:, None])
        fc1 = model.fc1(stem.flatten(1))
        fc2 = model.fc2(torch.relu(model.norm(fc1)))
        head = model.head(torch.relu(fc2))
        loss = nn.functional.cross_entropy(head, y)
        outputs = {"stem": stem, "fc1": fc1, "fc2": fc2, "head": head}
        for name, grad in zip(outputs, torch.autograd.grad(loss, [*outputs.values()]), strict=True):
            want[name] += grad.square().transpose(1, -1).flatten(0, -2).sum(0)
    for name, values in found.items():
        assert values.shape == (len(model.get_submodule(name).weight),)
        torch.testing.assert_close(values, want[name])
    unchanged(model, before)
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_output_gradients_of_every_kind_of_layer():
    class Text(Every):
        def forward(self, tokens):
            return nn.functional.relu(super().forward(tokens), inplace=True).mean(1)

    data = [(torch.randint(0, 10, (5, 9)), torch.zeros(5, dtype=torch.int64)) for _ in range(2)]
    found = output_gradients(Text(), data)
    assert {name: len(values) for name, values in found.items()} == {"conv": 6, "fc": 4}


def test_output_gradients_need_targets():
    with pytest.raises(ConfigError, match=r"^calibration batches must be \(inputs, targets\) to"):
        output_gradients(Net(), [x for x, _ in batches(1)])
    bad = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    data = [(torch.ones(2, 4), torch.zeros(2, 4))]
    with pytest.raises(ConfigError, match="must give finite gradients, but layers '1', '0' saw"):
        output_gradients(bad, data, loss=lambda x, y: (x * torch.inf).sum())


def test_gradients_are_measured_for_frozen_weights_and_flags_restored():
    model = Net()
    model.fc1.weight.requires_grad_(False)
    assert squared_gradients(model, batches(1))["fc1"].sum() > 0
    assert not model.fc1.weight.requires_grad and model.training


class Every(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(10, 12)
        self.conv = nn.Conv1d(12, 6, 3, groups=3)
        self.fc = nn.Linear(6, 4)
        self.unused = nn.Linear(2, 2)

    def forward(self, tokens):
        x = self.embed(tokens).transpose(1, 2)
        return self.fc(self.conv(x).transpose(1, 2))


def test_second_moments_of_every_kind_of_layer():
    model = Every()
    data = [torch.randint(0, 10, (5, 9)) for _ in range(2)]
    found = input_second_moments(model, data)
    assert found.keys() == {"embed", "conv", "fc"}
    counts = torch.bincount(torch.cat(data).reshape(-1), minlength=10).float()
    assert torch.equal(found["embed"], counts[:, None].expand(10, 12))
    with torch.no_grad():
        hidden = [model.embed(t).transpose(1, 2) for t in data]
        moments = sum(h.square().mean(dim=(0, 2)) for h in hidden)
        for output in range(6):
            group = output // 2
            expected = moments[4 * group : 4 * group + 4, None].expand(4, 3)
            torch.testing.assert_close(found["conv"][output], expected)
        into_fc = [model.conv(h).transpose(1, 2) for h in hidden]
        total = sum(x.square().mean(dim=(0, 1)) for x in into_fc)
    torch.testing.assert_close(found["fc"], total[None].expand(4, 6))


def test_importance_protects_what_matters():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64, bias=False))
    original = model[0].weight.detach().clone()
    importance = torch.ones(64, 64)
    importance[:, ::8] = 100.0
    plain, weighted = copy.deepcopy(model), copy.deepcopy(model)
    vq.compress_(plain, Recipe({"0": SSVQ(d=8, k=16)}))
    vq.compress_(weighted, Recipe({"0": SSVQ(d=8, k=16)}), importance={"0": importance})

    def errors(m):
        squared = (m[0].weight.detach() - original).square()
        return squared[:, ::8].sum(), (squared * importance).sum()

    assert errors(weighted)[0] < 0.5 * errors(plain)[0]
    assert errors(weighted)[1] < 0.7 * errors(plain)[1]


@pytest.mark.parametrize("importance", ["inputs", "gradients"])
def test_measured_importance_changes_the_codebooks(importance):
    plain, weighted = Net(), Net()
    weighted.load_state_dict(plain.state_dict())
    recipe = Recipe({"fc*": SSVQ(d=8, k=16)})
    vq.compress_(plain, recipe)
    vq.compress_(weighted, recipe, calibration=batches(), importance=importance)
    assert not torch.equal(plain.fc1.weight, weighted.fc1.weight)
    assert provenance_of(weighted).calibration == fingerprint(batches())
    assert provenance_of(plain).calibration == "0" * 64


def test_inputs_that_overflow_inside_the_model_are_named():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    with pytest.raises(ConfigError, match=r"must give finite inputs, but layers '0', '1' saw"):
        input_second_moments(model, [torch.full((2, 4), 3e38)])
