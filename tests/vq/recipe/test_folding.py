"""Scales that norms take over: the same function, fewer bytes, and refusals where it cannot be."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import vq
from tests.vq.container.naive import NaiveFile
from tests.vq.models import Net, batches
from vq import SSVQ, VQ, Freezing, Int8, Rates, Recipe
from vq.container import open_container
from vq.errors import RecipeError
from vq.formats.model import compressed_layers
from vq.inference.decode import decode_weight
from vq.integer import add_integer
from vq.learning.rules.refinement import Refinement
from vq.recipe.folding import fold_
from vq.search import sensitivity

SHAPE = (3, 9, 9)


class Plain2d(nn.BatchNorm2d):
    """A batch norm with more behind it, as timm has them."""

    def forward(self, x):
        return torch.relu(super().forward(x))


class Mixed(nn.Module):
    """Every pair of layer and norm: grouped, depthwise, with and without bias, one factor or O."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.bn = nn.BatchNorm2d(8)
        self.depth = nn.Conv2d(8, 8, 3, groups=8, bias=False)
        self.bn_depth = nn.BatchNorm2d(8, affine=False)
        self.group = nn.Conv2d(8, 16, 1, groups=2)
        self.bn_group = Plain2d(16)
        self.wide = nn.Conv2d(16, 12, 1)
        self.gn = nn.GroupNorm(3, 12)
        self.wave = nn.Conv1d(12, 8, 3)
        self.bn_wave = nn.BatchNorm1d(8, track_running_stats=False)
        self.fc = nn.Linear(8, 24)
        self.bn_fc = nn.BatchNorm1d(24)
        self.hidden = nn.Linear(24, 16)
        self.ln = nn.LayerNorm(16)
        self.last = nn.Linear(16, 16)
        self.rms = nn.RMSNorm(16)
        self.head = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.bn(self.conv(x)))
        x = self.bn_group(self.group(self.bn_depth(self.depth(x))))
        x = torch.relu(self.bn_wave(self.wave(self.gn(self.wide(x)).flatten(2))))
        x = torch.relu(self.bn_fc(self.fc(x.mean(2))))
        out: torch.Tensor = self.head(self.rms(self.last(torch.relu(self.ln(self.hidden(x))))))
        return out


PER_OUTPUT = ("conv", "depth", "group", "wave", "fc")
PER_LAYER = ("wide", "hidden", "last")
METHODS = {
    "ssvq": SSVQ(d=4, k=8, axis="kernel"),
    "parity": SSVQ(d=4, k=8, axis="in", parity=True),
    "vq": VQ(d=2, k=8),
    "out": VQ(d=2, k=8, axis="out", tile_outputs=4),
    "shared": SSVQ(d=4, k=16, shared="book"),
}


def mixed(eps: float = 1e-3) -> Mixed:
    """Batch norms with statistics have ``eps``; for the others' folding cannot make up."""
    torch.manual_seed(0)
    model = Mixed()
    for norm in model.modules():
        if hasattr(norm, "eps"):
            norm.eps = 1e-12 if getattr(norm, "running_var", None) is None else eps
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            if norm.affine:
                nn.init.normal_(norm.weight)
                nn.init.normal_(norm.bias)
            if norm.running_var is not None:
                nn.init.normal_(norm.running_mean)
                nn.init.uniform_(norm.running_var, 0.2, 2)
    return model


def recipes(method) -> tuple[Recipe, Recipe]:
    """The recipe that leaves all scales to norms, and its twin that stores them."""
    names = PER_OUTPUT + PER_LAYER
    ours = {name: with_scale(method, "norm") for name in names}
    twin = {n: with_scale(method, "output" if n in PER_OUTPUT else "layer") for n in names}
    return Recipe(ours), Recipe(twin)


def with_scale(method, scale):
    return dataclasses.replace(method, scale=scale)


def pair(method, eps: float = 1e-3, **settings):
    """Two models that were compressed alike but for their scales."""
    found = []
    for recipe in recipes(METHODS[method]):
        model = mixed(eps)
        found.append((model, vq.compress_(model, recipe, **settings)))
    return found


def inputs(count: int = 6, seed: int = 1) -> torch.Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(seed))


def close(a: torch.Tensor, b: torch.Tensor, tolerance: float = 1e-5) -> bool:
    return float((a - b).abs().max()) <= tolerance * float(b.abs().max())


# The function stays.


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_outputs_are_those_with_stored_scales(method, training):
    (ours, mine), (twin, theirs) = pair(method, eps=1e-12 if training else 1e-3)
    with torch.no_grad():
        assert close(ours.train(training)(inputs()), twin.train(training)(inputs()), 1e-4)
    for a, b in zip(mine.layers, theirs.layers, strict=True):
        assert a.relative_error == pytest.approx(b.relative_error, rel=1e-4)
        assert a.geometry.scales == 0


def test_weights_are_the_integers_themselves():
    (model, _), _ = pair("ssvq")
    for layer in compressed_layers(model):
        weight = layer.module.weight.detach()
        assert torch.equal(weight, weight.round()) and weight.abs().max() == 127


@pytest.mark.parametrize("norm", [nn.BatchNorm1d, nn.LayerNorm])
def test_transposed_layers_fold_too(norm):
    kind = pytest.importorskip("transformers.pytorch_utils").Conv1D
    found = []
    for scale in ("norm", "output" if norm is nn.BatchNorm1d else "layer"):
        torch.manual_seed(0)
        model = nn.Sequential(kind(24, 32), norm(24, eps=1e-12))
        nn.init.normal_(model[0].bias)
        result = vq.compress_(model, Recipe({"0": VQ(d=4, k=16, scale=scale)}))
        with torch.no_grad():
            found.append((result.layers[0].relative_error, model.eval()(torch.randn(9, 32))))
    (error, ours), (expected, twin) = found
    assert error == pytest.approx(expected, rel=1e-4) and close(ours, twin)


def test_calibration_and_importance_see_no_difference():
    data = [inputs(seed=seed) for seed in (2, 3)]
    settings = {"calibration": data, "importance": "inputs"}
    (ours, _), (twin, _) = pair("ssvq", eps=1e-12, **settings)
    with torch.no_grad():
        assert close(ours.eval()(inputs()), twin.eval()(inputs()), 1e-4)
    for a, b in zip(compressed_layers(ours), compressed_layers(twin), strict=True):
        assert torch.equal(a.weight.indices, b.weight.indices)


def lone(norm: nn.Module, **options) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(32, 16, **options), norm)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("affine", [False, True])
def test_outputs_that_hardly_move_stay_as_they_are(affine, training):
    """Whose variance the norm's eps dwarfs, down to those without any weight."""
    model = lone(nn.BatchNorm1d(16, affine=affine))
    with torch.no_grad():
        model[0].weight[:8] *= torch.tensor([0, 1e-30, 1e-18, 1e-12, 1e-6, 1e-4, 1e-3, 1e-2])[
            :, None
        ]
        x = torch.randn(500, 32)
        out = model[0](x)
        model[1].running_mean.copy_(out.mean(0))
        model[1].running_var.copy_(out.var(0))
        model[1].running_mean[:4] += 0.01  # which eps makes a lot of
        found = []
        for scale in ("norm", "output"):
            own = copy.deepcopy(model)
            vq.compress_(own, Recipe({"0": SSVQ(d=4, k=8, scale=scale)}))
            assert all(bool(t.isfinite().all()) for t in own.state_dict().values())
            found.append(own.train(training)(x))
        if training and not affine:
            found = [out[:, 8:] for out in found]  # nothing there can keep them silent
        ours, twin = found
        # Clustering loses some of the variance, by which training normalises.
        torch.testing.assert_close(ours, twin, rtol=0, atol=0.1 if training else 1e-5)


positive = st.floats(1e-30, 1e6, allow_subnormal=False)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(
    scale=positive, var=st.just(0.0) | positive, mean=st.floats(-1e3, 1e3),
    weight=st.floats(-10, 10), bias=st.floats(-100, 100), eps=st.floats(1e-12, 1e-2),
    x=st.floats(-127e3, 127e3),
)  # fmt: skip
def test_folding_keeps_any_batch_norm(scale, var, mean, weight, bias, eps, x):
    """An integer sum ``x`` becomes what ``scale · x`` became."""
    layer, norm = nn.Linear(1, 1), nn.BatchNorm1d(1, eps=eps)
    with torch.no_grad():
        for tensor, value in (
            (layer.weight, 1), (layer.bias, bias), (norm.weight, weight), (norm.bias, 0.5),
            (norm.running_mean, mean), (norm.running_var, var),
        ):  # fmt: skip
            tensor.fill_(value)
    layer, norm = layer.double(), norm.double().eval()
    given = torch.tensor([[x]], dtype=torch.float64)
    before = norm(scale * given + layer.bias)
    terms = [scale * x, bias, mean]
    size = max(map(abs, terms)) * abs(weight) / (var + eps) ** 0.5
    fold_(layer, norm, torch.tensor([scale], dtype=torch.float64))
    lost = 1e-15 * abs(x * weight) / (var + eps) ** 0.5
    assert abs(float((norm(layer(given)) - before).detach())) <= 1e-9 * (size + 0.5) + lost


def test_folding_into_other_norms_touches_the_bias_alone():
    model = lone(nn.LayerNorm(16))
    norm, bias = copy.deepcopy(model[1].state_dict()), model[0].bias.detach().clone()
    fold_(model[0], model[1], torch.tensor([0.25]))
    assert torch.equal(model[0].bias, 4 * bias)
    assert all(torch.equal(value, norm[name]) for name, value in model[1].state_dict().items())


def test_half_precision_models_keep_their_dtypes():
    model = lone(nn.BatchNorm1d(16)).bfloat16()
    vq.compress_(model, Recipe({"0": SSVQ(d=4, k=8, scale="norm")}))
    assert {t.dtype for t in (model[0].weight, model[0].bias, model[1].weight)} == {torch.bfloat16}
    assert model[0].weight.abs().max() == 127


# The file.


@pytest.mark.parametrize("method", METHODS)
def test_file_is_planned_saved_and_read_exactly(method, tmp_path):
    recipe, twin = recipes(METHODS[method])
    planned, stored = (vq.plan(mixed(), r) for r in (recipe, twin))
    path = tmp_path / "x.vq.safetensors"
    (model, result), _ = pair(method)
    vq.save(model, path)
    assert planned.file_bytes == path.stat().st_size
    assert planned.bits_per_weight == result.bits_per_weight
    assert [a.geometry for a in planned.layers] == [layer.geometry for layer in result.layers]
    scales = 4 * (8 + 8 + 16 + 8 + 24 + 3)
    assert [a.scale_bytes for a in planned.layers] == 8 * [0]
    assert sum(a.scale_bytes for a in stored.layers) == scales
    padding = sum(a.padding_bytes for a in stored.layers)
    saved = padding - sum(a.padding_bytes for a in planned.layers)
    total = [sum(a.total_bytes for a in plan.layers) for plan in (planned, stored)]
    assert total[1] - total[0] == scales + saved == 320  # 268, and 52 to the next multiple of 64
    naive = NaiveFile(path.read_bytes())
    with open_container(path) as file:
        file.verify()
        assert "_scales" not in file.tensor_spans()
        for layer in compressed_layers(model):
            weight = layer.module.weight.detach()
            assert torch.equal(decode_weight(file, layer.name), weight)
            assert file.weight(layer.name).tobytes() == weight.numpy().tobytes()
            assert naive.weights[layer.name] == weight.numpy().tobytes()
    again = vq.load(path, into=mixed())
    with torch.no_grad():
        assert close(again.eval()(inputs()), model.eval()(inputs()))  # equal weights, other strides


def test_recipe_is_read_from_yaml():
    recipe = Recipe.from_yaml("conv: {method: ssvq, d: 4, k: 8, scale: norm}\n")
    assert recipe == Recipe({"conv": SSVQ(d=4, k=8, scale="norm")})
    with pytest.raises(RecipeError, match="int8 has no setting 'scale'"):
        Recipe.from_yaml("conv: {method: int8, scale: norm}\n")


# Training.


def tune(scale: str, method=None, **settings):
    torch.manual_seed(0)
    model = Net()
    method = SSVQ(d=4, k=8) if method is None else method
    vq.compress_(model, Recipe({"fc1": with_scale(method, scale)}))
    settings = {"rates": Rates(rest=5e-3), "epochs": 8, "progress": False, "seed": 0} | settings
    result = vq.finetune_(model, batches(), **settings)
    return model, result


@pytest.mark.parametrize(
    ("method", "refinement"),
    [(SSVQ(d=4, k=8), None), (SSVQ(d=4, k=8), 4), (VQ(d=4, k=32), 4)],
)
def test_training_follows_the_path_of_stored_scales(method, refinement):
    """Gradients of codebooks and latents are in the same units, so Adam goes the same way."""
    options = {
        "freezing": Freezing(interval_steps=4, threshold_start=0.01, threshold_end=0.001),
        "refinement": refinement and Refinement(interval_steps=refinement, margin=0),
    }
    (ours, mine), (twin, theirs) = (tune(s, method, **options) for s in ("norm", "output"))
    assert mine.losses[-1] < 0.5 * mine.losses[0]
    assert mine.losses == pytest.approx(theirs.losses, rel=1e-2)
    a, b = (next(compressed_layers(m)) for m in (ours, twin))
    assert float((a.codebook - b.codebook).detach().abs().max()) < 0.02
    if refinement:
        assert mine.reassigned == pytest.approx(theirs.reassigned, rel=0.1)
        same = (a.weight.indices == b.weight.indices).float().mean()
        assert mine.reassigned > 100 and same > 0.95


def test_gradients_are_those_with_stored_scales():
    (ours, _), (twin, _) = pair("ssvq", eps=1e-12)
    for model in (ours, twin):
        model.train()(inputs(32)).square().sum().backward()
    for a, b in zip(compressed_layers(ours), compressed_layers(twin), strict=True):
        for mine, theirs in zip(a.originals, b.originals, strict=True):
            assert close(mine.grad, theirs.grad, 2e-3), a.name


def test_biases_learn_as_fast_as_they_did():
    """They are in units of the integers now; without its own rate, Adam would not move them."""
    x = torch.randn(64, 32, generator=torch.Generator().manual_seed(0))
    data = [(x, (x[:, 0] > 0).long())]
    moved = []
    for scale in ("norm", "layer"):
        model = lone(nn.LayerNorm(16))
        vq.compress_(model, Recipe({"0": SSVQ(d=4, k=8, scale=scale)}))
        layer = next(compressed_layers(model))
        unit = float(layer.weight.scale(layer.codebook)) if scale == "norm" else 1.0
        before = model[0].bias.detach() * unit
        rates = Rates(signs=0, codebooks=0, rest=1e-2)
        vq.finetune_(model, data, epochs=10, rates=rates, progress=False)
        moved.append(model[0].bias.detach() * unit - before)
    assert moved[1].abs().mean() > 0.02
    assert close(*moved, 0.01)


def test_sensitivity_measures_the_folded_layer():
    def score(model):
        with torch.no_grad():
            return float(model.eval()(inputs()).square().mean())

    methods = [SSVQ(d=4, k=8, scale=s) for s in ("norm", "output")]
    ours, twin = sensitivity(mixed(), {"conv": methods}, score, progress=False)["conv"]
    assert ours.loss_increase == pytest.approx(twin.loss_increase, rel=1e-3)
    assert abs(ours.loss_increase) > 1e-3 and ours.bytes < twin.bytes
    found = sensitivity(mixed(), {"head": [*methods, Int8()]}, score, progress=False)
    assert [c.method for c in found["head"]] == [methods[1], Int8()]  # no norm behind the head


def test_interrupted_training_goes_on_bit_for_bit(tmp_path):
    recipe = Recipe({"0": SSVQ(d=4, k=8, scale="norm")})
    x = torch.randn(64, 32, generator=torch.Generator().manual_seed(0))
    data, finals = [(x[i::4], (x[i::4, 0] > 0).long()) for i in range(4)], []
    for _ in range(2):
        model = lone(nn.LayerNorm(16))
        vq.compress_(model, recipe)
        settings = {"checkpoint_dir": tmp_path, "checkpoint_steps": 3, "resume": True}
        vq.finetune_(model, data, epochs=2, progress=False, seed=0, **settings)
        finals.append(model.state_dict())
        max(tmp_path.glob("step-*.pt")).unlink()  # as if it had stopped after step 6
    assert all(torch.equal(value, finals[1][name]) for name, value in finals[0].items())


# The integer graph.


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.conv = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn(self.stem(x)))
        x = F.relu(self.bn2(self.conv(x)) + x)
        out: torch.Tensor = self.fc(x.mean((2, 3)))
        return out


def test_integer_graph_is_that_with_stored_scales(tmp_path):
    found = []
    for scale in ("norm", "output"):
        torch.manual_seed(0)
        model = Residual()
        with torch.no_grad():
            model.train()(inputs(64))  # plausible statistics
        method = SSVQ(d=4, k=16, axis="kernel", scale=scale)
        vq.compress_(model, Recipe({"stem": method, "conv": method, "fc": Int8()}))
        path = tmp_path / f"{scale}.vq.safetensors"
        vq.save(model, path)
        integer = add_integer(path, Residual(), [inputs(16)])
        found.append((integer, integer.trace(integer.quantize(inputs(16).numpy()))))
        again = vq.load(path, into=Residual())  # the file with a graph is still the model
        assert torch.equal(again.eval()(inputs()), model.eval()(inputs()))
    (ours, mine), (twin, theirs) = found
    np.testing.assert_allclose(ours.scales, twin.scales, rtol=1e-5)
    for name in mine:
        assert np.abs(mine[name].astype(int) - theirs[name].astype(int)).max() <= 1, name
    assert len(np.unique(mine["fc"])) > 10


# Refusals: one error, and the model is as it was.

NORM = SSVQ(d=4, k=4, scale="norm")


class Shaped(nn.Module):
    """One module for every shape of graph that keeps a scale from its norm."""

    def __init__(self) -> None:
        super().__init__()
        self.good, self.bn_good = nn.Linear(16, 16), nn.BatchNorm1d(16)
        self.bare = nn.Linear(16, 16)
        self.twice, self.bn_twice = nn.Linear(16, 16), nn.BatchNorm1d(16)
        self.both, self.bn_both = nn.Linear(16, 16), nn.BatchNorm1d(16)
        self.left, self.right, self.bn_same = (
            nn.Linear(16, 16),
            nn.Linear(16, 16),
            nn.BatchNorm1d(16),
        )
        self.fork, self.bn_a, self.bn_b = (
            nn.Linear(16, 16),
            nn.BatchNorm1d(16),
            nn.BatchNorm1d(16),
        )
        self.read, self.bn_read = nn.Linear(16, 16), nn.BatchNorm1d(16)
        self.turned, self.bn_turned = nn.Linear(16, 16), nn.BatchNorm1d(8)
        self.table, self.ln = nn.Embedding(16, 16), nn.LayerNorm(16)
        self.tied, self.bn_tied = nn.Linear(16, 16), nn.BatchNorm1d(16)
        self.bn_other = nn.BatchNorm1d(16)
        self.bn_other.weight = self.bn_tied.weight
        self.unused = nn.Linear(16, 16)
        self.short, self.bn_short = nn.Linear(16, 16).half(), nn.BatchNorm1d(16)
        self.final = nn.Linear(16, 16)

    def forward(self, x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        x = self.bn_good(self.good(x))
        x = torch.relu(self.bare(x))
        x = self.bn_twice(self.twice(self.twice(x)))
        y = self.both(x)
        x = self.bn_both(y) + y
        x = self.bn_same(self.left(x)) + self.bn_same(self.right(x))
        y = self.fork(x)
        x = self.bn_a(y) + self.bn_b(y)
        x = self.bn_read(self.read(x)) * self.read.weight.mean() + self.read.bias
        x = self.bn_turned(self.turned(x.reshape(-1, 8, 16)))
        x = x + self.ln(self.table(tokens))
        x = self.bn_other(self.bn_tied(self.tied(x)))
        x = self.bn_short(self.short(x))
        return self.final(x)


BECAUSE = "scale must be 'layer' or 'output', not 'norm', because"
PROBLEMS = [
    f"- layer 'bare': {BECAUSE} its output goes into 'relu', not into one norm alone",
    f"- layer 'twice': {BECAUSE} it runs 2 times",
    f"- layer 'twice': {BECAUSE} its output goes into 'twice' and 'bn_twice', not into one norm "
    "alone",
    f"- layer 'both': {BECAUSE} its output goes into 'bn_both' and 'add', not into one norm alone",
    f"- layer 'left': {BECAUSE} its norm 'bn_same' runs 2 times",
    f"- layer 'right': {BECAUSE} its norm 'bn_same' runs 2 times",
    f"- layer 'fork': {BECAUSE} its output goes into 'bn_a' and 'bn_b', not into one norm alone",
    f"- layer 'read': {BECAUSE} the model uses tensors of it directly",
    f"- layer 'turned': {BECAUSE} its norm 'bn_turned' has 8 features, not its 16 outputs",
    f"- layer 'table': {BECAUSE} it is neither a linear nor a convolution",
    f"- layer 'tied': {BECAUSE} tensor 'bn_tied.weight' is tied to 'bn_other.weight'",
    f"- layer 'unused': {BECAUSE} it runs 0 times",
    f"- layer 'short': {BECAUSE} its outputs could leave the range of float16",
    f"- layer 'final': {BECAUSE} its output goes into the model's output, not into one norm alone",
]


def test_whatever_keeps_a_scale_from_a_norm_is_named_all_at_once():
    for act in (vq.plan, vq.compress_):
        model = Shaped()
        before = copy.deepcopy(model.state_dict())
        with pytest.raises(RecipeError) as error:
            act(model, Recipe({"*": NORM}))
        assert str(error.value).splitlines() == ["recipe has 14 problems:", *PROBLEMS]
        after = model.state_dict()
        assert all(torch.equal(value, after[name]) for name, value in before.items())
    vq.compress_(Shaped(), Recipe({"good": NORM}))


def test_other_problems_are_named_with_them():
    with pytest.raises(RecipeError) as error:
        vq.compress_(Net(), Recipe({"fc2": NORM, "head": VQ(d=4, k=64)}))
    assert str(error.value).splitlines()[1:] == [
        f"- layer 'fc2': {BECAUSE} its output goes into 'relu_1', not into one norm alone",
        "- layer 'head': k must be at most its 40 sub-vectors, not 64",
    ]


def test_tied_weights_are_refused():
    model = nn.Sequential(nn.Linear(16, 16), nn.BatchNorm1d(16), nn.Linear(16, 16))
    model[2].weight = model[0].weight
    with pytest.raises(RecipeError, match=r"'0': .* tensor '0.weight' is tied to '2.weight'"):
        vq.compress_(model, Recipe({"*": NORM}))


class Standardised(nn.Linear):
    def forward(self, x):
        return F.linear(x, self.weight / self.weight.std(), self.bias)


def test_layers_that_do_more_to_their_weight_are_refused():
    """Their outputs do not scale with it."""
    model = nn.Sequential(Standardised(16, 16), nn.BatchNorm1d(16))
    with pytest.raises(RecipeError, match=f"'0': {BECAUSE} it runs 0 times"):
        vq.compress_(model, Recipe({"0": NORM}))


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.bn = nn.Linear(16, 16), nn.BatchNorm1d(16)

    def forward(self, x):
        return self.bn(self.fc(x)) if x.sum() > 0 else x


def test_models_that_cannot_be_traced_are_refused():
    for act in (vq.plan, vq.compress_):
        with pytest.raises(RecipeError) as error:
            act(Branching(), Recipe({"fc": NORM}))
        assert str(error.value).splitlines()[1:] == [
            f"- {BECAUSE} torch.fx cannot trace Branching: symbolically traced variables cannot be "
            "used as inputs to control flow"
        ]
    vq.compress_(Branching(), Recipe({"fc": SSVQ(d=4, k=4)}))  # nobody traces it then


def test_plan_needs_no_weights():
    with torch.device("meta"):
        model = Mixed()
    recipe, _ = recipes(METHODS["ssvq"])
    assert vq.plan(model, recipe).file_bytes == vq.plan(mixed(), recipe).file_bytes
