"""Wrapped models and weights that are computed: refused before any work, alike by the plan."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

import rescomp
import vq
from vq import SSVQ, VQ, Int8, Recipe
from vq.errors import ConfigError, RecipeError
from vq.formats.model import compressed_layers
from vq.recipe.plain import check_values

RECIPE = Recipe({"*": SSVQ(d=4, k=8)})
START = r"^model has 1 problem:\n- layer '2': weight must be a plain parameter of its own, "
KEEP = r", or keep the layer by the rule '2': None$"
BAKE = "; make it one by torch.nn.utils.parametrize.remove_parametrizations"


class Twice(nn.Module):
    def forward(self, x):
        return 2 * x

    def right_inverse(self, x):
        return x / 2


class Computed(nn.Linear):
    """A linear whose weight is a property."""

    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs)
        self.gain = nn.Parameter(self._parameters.pop("weight").detach().clone())

    @property
    def weight(self):
        return self.gain * 2


class Buffered(nn.Linear):
    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs)
        weight = self._parameters.pop("weight").detach()
        self.register_buffer("weight", weight)


class Packed(torch.Tensor):
    """As libraries hold weights that they have quantised."""

    def detach(self):
        return super().detach().as_subclass(Packed)


class Params4bit(nn.Parameter):
    pass


def with_weight(parameter):
    layer = nn.Linear(16, 16)
    layer.weight = parameter
    return layer


def with_ints():
    return with_weight(nn.Parameter(torch.ones(16, 16, dtype=torch.uint8), requires_grad=False))


def parametrised():
    layer = nn.Linear(16, 16)
    parametrize.register_parametrization(layer, "weight", Twice())
    return layer


def pruned():
    return prune.l1_unstructured(nn.Linear(16, 16), "weight", 0.5)


def pruned_twice():
    return prune.random_structured(pruned(), "weight", 0.5, dim=0)


COMPUTED = {
    "weight norm": (
        lambda: parametrizations.weight_norm(nn.Linear(16, 16)),
        "not computed by WeightNorm" + BAKE,
    ),
    "spectral norm": (
        lambda: parametrizations.spectral_norm(nn.Linear(16, 16)),
        "not computed by SpectralNorm" + BAKE,
    ),
    "orthogonal": (
        lambda: parametrizations.orthogonal(nn.Linear(16, 16)),
        "not computed by Orthogonal" + BAKE,
    ),
    "own": (parametrised, "not computed by Twice" + BAKE),
    "old weight norm": (
        lambda: nn.utils.weight_norm(nn.Linear(16, 16)),
        "not computed by WeightNorm; make it one by torch.nn.utils.remove_weight_norm",
    ),
    "old spectral norm": (
        lambda: nn.utils.spectral_norm(nn.Linear(16, 16)),
        "not computed by SpectralNorm; make it one by torch.nn.utils.remove_spectral_norm",
    ),
    "pruned": (
        pruned,
        "not computed by L1Unstructured; make it one by torch.nn.utils.prune.remove",
    ),
    "pruned twice": (
        pruned_twice,
        "not computed by PruningContainer; make it one by torch.nn.utils.prune.remove",
    ),
    "property": (lambda: Computed(16, 16), "not a buffer or a property; make it one"),
    "buffer": (lambda: Buffered(16, 16), "not a buffer or a property; make it one"),
    "integers": (with_ints, "not torch.uint8 torch.strided; start from the original model"),
}


FOREIGN = {
    "complex": (
        lambda: nn.Linear(16, 16, dtype=torch.complex64),
        "not torch.complex64 torch.strided; start from the original model",
    ),
    "a kind of tensor": (
        lambda: with_weight(nn.Parameter(torch.randn(16, 16).as_subclass(Packed))),
        "not Packed; start from the original model",
    ),
    "a kind of parameter": (
        lambda: with_weight(Params4bit(torch.randn(16, 16))),
        "not Params4bit; start from the original model",
    ),
    "sparse": (
        lambda: with_weight(nn.Parameter(torch.eye(16).to_sparse())),
        "not torch.float32 torch.sparse_coo; start from the original model",
    ),
}


def around(layer):
    return nn.Sequential(nn.Linear(16, 16), nn.ReLU(), layer)


def same(model, before):
    state = model.state_dict()
    return state.keys() == before.keys() and all(
        torch.equal(state[n], t) for n, t in before.items()
    )


def quantize_(model, recipe):
    rescomp.quantize_(model, [torch.randn(4, 16)], Recipe(dict.fromkeys(recipe.rules, Int8())))


@pytest.mark.filterwarnings("ignore:.*is deprecated")
@pytest.mark.parametrize(("make", "message"), COMPUTED.values(), ids=COMPUTED)
@pytest.mark.parametrize("work", [vq.compress_, vq.plan, quantize_])
def test_computed_weights_are_refused_before_any_work(work, make, message):
    model = around(make())
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ConfigError, match=START + message + KEEP):
        work(model, RECIPE)
    assert same(model, before)


@pytest.mark.parametrize(("make", "message"), FOREIGN.values(), ids=FOREIGN)
@pytest.mark.parametrize("work", [vq.compress_, vq.plan])
def test_weights_of_other_kinds_are_refused_before_any_work(work, make, message):
    model = around(make())
    before = dict(model.named_parameters())
    with pytest.raises(ConfigError, match=START + message + KEEP):
        work(model, RECIPE)
    assert all(p is before[n] for n, p in model.named_parameters())


@pytest.mark.filterwarnings("ignore:.*is deprecated")
@pytest.mark.parametrize("kind", [kind for kind in COMPUTED if kind not in ("pruned twice", "own")])
def test_computed_weights_are_kept_when_the_recipe_says_so(tmp_path, kind):
    make = COMPUTED[kind][0]
    model, fresh = around(make()), around(make())
    recipe = Recipe({"0": SSVQ(d=4, k=8), "2": None})
    planned = vq.plan(model, recipe)
    vq.compress_(model, recipe, progress=False)
    assert vq.save(model, tmp_path / "x").file_bytes == planned.file_bytes
    loaded = vq.load(tmp_path / "x", into=fresh)
    x = torch.randn(3, 16)
    if kind != "integers":
        assert torch.equal(loaded.eval()(x), model.eval()(x))


class SelfMerging(nn.Linear):
    """A layer with an adapter that it merges into its own weight when the mode changes."""

    def __init__(self, inputs, outputs, *, merged=False):
        super().__init__(inputs, outputs)
        self.lora_A = nn.Parameter(torch.randn(2, inputs))
        self.lora_B = nn.Parameter(torch.randn(outputs, 2))
        self.merged = merged

    def train(self, mode=True):
        if mode == self.merged:
            sign = -1 if mode else 1
            self.weight.data += sign * self.lora_B @ self.lora_A
            self.merged = not mode
        return super().train(mode)


class Terms(nn.Linear):
    """A linear with a term of its own, which it never merges."""

    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs)
        self.lora_A = nn.Parameter(torch.randn(2, inputs))
        self.lora_B = nn.Parameter(torch.randn(outputs, 2))

    def forward(self, x):
        return super().forward(x) + x @ self.lora_A.T @ self.lora_B.T


@pytest.mark.parametrize("work", [vq.compress_, vq.plan])
def test_layers_that_merge_adapters_by_themselves_are_refused(work):
    model = around(SelfMerging(16, 16))
    before = copy.deepcopy(model.state_dict())
    message = (
        r"not one that SelfMerging\.train\(\) may merge 'lora_A', 'lora_B' into; merge them for "
        "good into a layer of torch"
    )
    with pytest.raises(ConfigError, match=START + message + KEEP):
        work(model, RECIPE)
    assert same(model, before)
    merged = r"^model must hold its adapters once, but '2' are merged into weights beside them, and"
    with pytest.raises(ConfigError, match=merged):
        work(around(Adapter(nn.Linear(16, 16), merged=True)), RECIPE)
    with pytest.raises(ConfigError, match=merged):
        work(around(SelfMerging(16, 16, merged=True)), RECIPE)


def test_layers_with_terms_of_their_own_are_compressed_with_them(tmp_path):
    model, fresh = around(Terms(16, 16)), around(Terms(16, 16))
    vq.compress_(model, RECIPE, progress=False)
    vq.save(model, tmp_path / "x")
    x = torch.randn(3, 16)
    assert torch.equal(vq.load(tmp_path / "x", into=fresh)(x), model(x))
    folded = nn.Sequential(Terms(16, 16), nn.BatchNorm1d(16))
    with pytest.raises(RecipeError, match=r"^recipe has 2 problems:\n- layer '0': scale must be"):
        vq.compress_(folded, Recipe({"0": VQ(d=4, k=8, scale="norm")}))


class Adapter(nn.Module):
    """A low-rank adapter around a layer, as the ones of libraries are."""

    def __init__(self, layer, *, merged=False):
        super().__init__()
        self.base_layer, self.merged = layer, merged
        self.down, self.up = nn.Linear(16, 2, bias=False), nn.Linear(2, 16, bias=False)

    @property
    def weight(self):
        return self.base_layer.weight

    def forward(self, x):
        return self.base_layer(x) + self.up(self.down(x))


def test_adapters_leave_the_layer_inside_its_own_name(tmp_path):
    model = around(Adapter(nn.Linear(16, 16)))
    fresh = copy.deepcopy(model)
    vq.compress_(model, Recipe({"*": SSVQ(d=4, k=8), "*.down": None, "*.up": None}))
    assert [layer.name for layer in compressed_layers(model)] == ["0", "2.base_layer"]
    vq.save(model, tmp_path / "x")
    x = torch.randn(3, 16)
    assert torch.equal(vq.load(tmp_path / "x", into=fresh)(x), model(x))


def test_an_adapter_is_not_lost_in_a_merge():
    model = around(nn.Linear(16, 16))
    vq.compress_(model, RECIPE, progress=False)
    adapter = Adapter(model[2])
    delta = adapter.up.weight @ adapter.down.weight
    with pytest.raises(ConfigError, match=r"^layer '2': a compressed weight must not be assigned"):
        adapter.weight.data += delta


WRAPPERS = {
    "OptimizedModule": (lambda m: torch.compile(m, backend="eager"), "_orig_mod"),
    "DataParallel": (nn.DataParallel, "module"),
    "AveragedModel": (torch.optim.swa_utils.AveragedModel, "module"),
}


@pytest.mark.parametrize("kind", WRAPPERS)
@pytest.mark.parametrize("work", [vq.compress_, vq.plan])
def test_wrapped_models_are_refused(work, kind):
    wrap, inner = WRAPPERS[kind]
    with pytest.raises(
        ConfigError, match=rf"^model must be bare, not in {kind}; give its \.{inner}, and wrap it"
    ):
        work(wrap(around(nn.Linear(16, 16))), RECIPE)
    with pytest.raises(
        ConfigError,
        match=rf"^model has 1 problem:\n- layer '2' must be bare, not in {kind}; put its "
        rf"\.{inner} in its place, and wrap it again afterwards$",
    ):
        work(around(wrap(nn.Linear(16, 16))), RECIPE)


@pytest.mark.parametrize("work", [vq.compress_, vq.plan])
@pytest.mark.parametrize("layer", [nn.LazyLinear(16), nn.LazyConv2d(8, 3), nn.LazyBatchNorm1d()])
def test_lazy_modules_are_refused(work, layer):
    with pytest.raises(ConfigError, match=r"^model must have all its shapes, but '2\.\w+'.* wait"):
        work(around(layer), RECIPE)


def test_models_without_values_can_be_planned_only(tmp_path):
    with torch.device("meta"):
        model = around(nn.Linear(16, 16))
    assert len(vq.plan(model, RECIPE).layers) == 2
    message = r"^model must hold values, but '0\.weight', .* are on the meta device; build"
    with pytest.raises(ConfigError, match=message):
        vq.compress_(model, RECIPE)
    with pytest.raises(ConfigError, match=message):
        check_values(model)
    with pytest.raises(ConfigError, match=message):
        rescomp.quantize_(model, None, 8)
    whole = around(nn.Linear(16, 16))
    vq.compress_(whole, RECIPE, progress=False)
    vq.save(whole, tmp_path / "x")
    with pytest.raises(ConfigError, match=message):
        vq.load(tmp_path / "x", into=model)
    vq.load(tmp_path / "x", into=model.to_empty(device="cpu"))
    assert torch.equal(model[0].weight, whole[0].weight)
    with pytest.raises(
        ConfigError, match=r"^model must have all its shapes, but '0\.weight', '0\."
    ):
        vq.load(tmp_path / "x", into=nn.Sequential(nn.LazyLinear(16), nn.ReLU(), nn.Linear(16, 16)))
    with pytest.raises(ConfigError, match=r"^model must hold values, but "):
        vq.save(whole.to("meta"), tmp_path / "y")
    assert not (tmp_path / "y").exists()


@pytest.mark.parametrize("where", ["0", "1"])
def test_a_norm_takes_no_scale_over_if_tensors_are_computed(where):
    model = nn.Sequential(nn.Linear(16, 16), nn.BatchNorm1d(16))
    prune.l1_unstructured(model.get_submodule(where), "bias", 0.5)
    with pytest.raises(RecipeError, match=rf"because tensor '{where}\.bias' is computed$"):
        vq.compress_(model, Recipe({"0": VQ(d=4, k=8, scale="norm")}))


def test_tensors_of_which_only_a_part_is_here_are_refused(monkeypatch):
    model = around(nn.Linear(16, 16))
    monkeypatch.setattr("vq.recipe.plain.local", lambda t: t[:1])
    with pytest.raises(
        ConfigError, match=r"^model must be whole, but '0\.weight', .* are sharded; "
    ):
        check_values(model)


@pytest.mark.filterwarnings("ignore:Initializing zero-element")
@pytest.mark.parametrize(
    ("kind", "sizes"), [(nn.Linear, (16, 0)), (nn.Linear, (0, 16)), (nn.Embedding, (0, 16))]
)
@pytest.mark.parametrize("work", [vq.compress_, vq.plan])
def test_layers_without_weights_are_named(work, kind, sizes):
    with pytest.raises(
        ConfigError,
        match=r"layer '2': weight must be a plain parameter .* not empty, \[\d+, \d+\]; l",
    ):
        work(around(kind(*sizes)), RECIPE)
