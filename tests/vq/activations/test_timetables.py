"""The time path leaves a model, and nothing of what it gives changes, to the last bit."""

import pytest
import torch
from torch import nn

import vq
from signbook.zoo.ddpm import ddpm
from signbook.zoo.dit import DiT
from tests.vq.diffusion import STEPS, Tiny, compressed, met, tiny
from vq.activations.runtime import runtime_tensors
from vq.activations.timetables import TimeTable, tabulate_
from vq.container import open_container
from vq.errors import ConfigError, ContainerError
from vq.formats.model import compressed_layers
from vq.formats.remaining import remaining


def call(model, rows=3, step=STEPS[0], seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, *model.shape, generator=generator)
    inputs = (x, torch.full((rows,), step))
    if model.classes is None:
        return inputs
    return *inputs, torch.randint(model.classes, (rows,), generator=generator)


def tables(model):
    return {n: p for n, m in model.named_modules() for p in remaining(m) if p.kind == "time_table"}


def dit():
    torch.manual_seed(0)
    model = DiT(8, patch=4, width=16, depth=2).eval()
    for parameter in model.parameters():  # a fresh one's gates are zero, and hide all
        nn.init.normal_(parameter, std=0.2)
    return model


@torch.no_grad()
@pytest.mark.parametrize(
    "build", [tiny, lambda: tiny(3), ddpm, dit], ids=["own", "classes", "ddpm", "dit"]
)
@pytest.mark.parametrize("rows", [1, 5])
def test_what_the_network_gives_stays_to_the_last_bit(build, rows):
    """I1 of the reconstruction, first half."""
    torch.manual_seed(0)
    model = build().eval()
    wanted = [model(*call(model, rows, step, seed=step)) for step in STEPS]
    before = sum(p.numel() for p in model.parameters())
    found = tabulate_(model, STEPS, call(model, rows))
    for step, want in zip(STEPS, wanted, strict=True):
        given = model(*call(model, rows, step, seed=step))
        assert torch.equal(given, want) or (rows > 1 and found.spread > 0)
        torch.testing.assert_close(given, want, rtol=0, atol=1e-6)
    assert found.spread < 1e-6
    assert found.parameters == before - sum(p.numel() for p in model.parameters()) > 0
    assert found.modules == [n for n, p in tables(model).items() if len(p.table) == len(STEPS)]


def test_projections_have_tables_and_what_they_alone_read_has_nothing_left():
    model = tiny()
    found = tabulate_(model, STEPS, call(model))
    assert found.modules == ["blocks.0.project", "blocks.1.project"] and found.unread == ["time"]
    assert found.values == 2 * len(STEPS) * 8
    assert tables(model)["time"].table.shape == (1, 12)
    assert not any(name.startswith(("time", "blocks.0.project")) for name in model.state_dict())


@torch.no_grad()
def test_with_classes_all_that_depends_on_step_and_class_leaves():
    model = tiny(3)
    inputs = call(model)
    wanted = [model(*call(model, 3, step, seed=step)) for step in STEPS]
    found = tabulate_(model, STEPS, inputs, classes=3)
    assert found.modules == ["blocks.0.project", "blocks.1.project"]
    assert found.unread == ["time", "label"]
    assert tables(model)["blocks.0.project"].table.shape == (len(STEPS), 3, 8)
    for step, want in zip(STEPS, wanted, strict=True):
        torch.testing.assert_close(model(*call(model, 3, step, seed=step)), want)
    with pytest.raises(
        ConfigError, match=r"classes must be 0 to 2, as a time table has them, not .3"
    ):
        model(inputs[0], inputs[1], torch.tensor([3, 0, 0]))
    with pytest.raises(ConfigError, match=r"classes must be \[3\], one a row, not \[2\]"):
        model(inputs[0], inputs[1], torch.tensor([0, 0]))


@torch.no_grad()
def test_a_transformer_keeps_only_what_reads_the_image():
    model = dit()
    inputs = call(model, 4)
    wanted = [model(*call(model, 4, step, seed=step)) for step in STEPS]
    found = tabulate_(model, STEPS, inputs, classes=11)
    assert found.modules == ["blocks.0.modulation", "blocks.1.modulation", "modulation"]
    assert found.unread == ["time", "label"]
    for step, want in zip(STEPS, wanted, strict=True):
        torch.testing.assert_close(model(*call(model, 4, step, seed=step)), want)


@torch.no_grad()
@pytest.mark.parametrize("classes", [None, 3])
def test_a_file_holds_tables_instead_of_the_path(classes, tmp_path):
    path = tmp_path / "a.vq.safetensors"
    model = compressed(tiny(classes), pattern="blocks.*.conv")
    tabulate_(model, STEPS, call(model), classes=classes)
    vq.save(model, path)
    loaded = vq.load(path, into=tiny(classes, seed=5))
    for inputs in met(tiny(classes), 3):
        assert torch.equal(loaded(*inputs), model(*inputs))
    assert runtime_tensors(loaded) == runtime_tensors(model)
    with open_container(path) as file:
        kinds = [part.kind for part in file.runtime]
        assert kinds.count("clock") == 1 and not any(n.startswith("time.") for n in file.kept_names)
        assert all(row["macs_per_token"] == 0 for row in file.runtime_facts()["runtime"])
    with pytest.raises(ContainerError, match=r"tensor 'stem.weight' must be in the model"):
        vq.load(path, into=nn.Sequential(nn.Linear(2, 2)))
    fresh = tiny(classes)
    keys = list(fresh.state_dict())
    fresh.extra = nn.Linear(2, 2)
    with pytest.raises(ContainerError, match=r"tensor 'extra.weight' must be in the file"):
        vq.load(path, into=fresh)
    assert keys == list(fresh.state_dict())[: len(keys)] and not any(
        map(remaining, fresh.modules())
    )


def test_a_load_that_fails_late_gives_the_time_path_back(tmp_path, monkeypatch):
    path = tmp_path / "a.vq.safetensors"
    model = compressed(tiny(), pattern="blocks.*.conv")
    tabulate_(model, STEPS, call(model))
    vq.save(model, path)
    fresh = tiny(seed=5)
    before = {name: value.clone() for name, value in fresh.state_dict().items()}
    want = fresh(*call(fresh))

    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Tiny, "load_state_dict", fail)
    with pytest.raises(KeyboardInterrupt):
        vq.load(path, into=fresh)
    assert all(torch.equal(value, before[n]) for n, value in fresh.state_dict().items())
    assert torch.equal(fresh(*call(fresh)), want)


def test_only_the_rest_can_be_compressed_afterwards():
    model = tiny()
    tabulate_(model, STEPS, call(model))
    names = [name for name, module in model.named_modules() if hasattr(module, "weight")]
    assert names == ["stem", "blocks.0.conv", "blocks.1.conv", "out"]


class Blind(nn.Module):
    """A network without a time path of its own."""

    shape, classes = (1, 6, 6), None

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1)
        self.out = nn.Conv2d(4, 1, 3, padding=1)

    def forward(self, x, step):
        plane = (step / 1000)[:, None, None, None].expand_as(x)
        return self.out(self.stem(torch.cat([x, plane], 1)))


def test_a_model_whose_time_path_is_not_found_is_told_what_was_looked_at():
    model = Blind()
    with pytest.raises(
        ConfigError,
        match=r"depends on the time step alone, .*; looked at: 'stem' depends on its input and the "
        r"time step; 'out' depends on its input and the time step$",
    ):
        tabulate_(model, STEPS, call(model))
    assert not any(map(remaining, model.modules()))


class Odd(Tiny):
    """Its time path gives one row for the whole batch."""

    def forward(self, noisy, step):
        when = self.time(torch.sin(step[:1, None] / 1000 * torch.arange(1, 9)))
        return self.out(self.blocks[0](self.stem(noisy), when))


def test_other_models_and_calls_are_refused():
    torch.manual_seed(0)
    model = Odd()
    with pytest.raises(ConfigError, match=r"'time' must give a tensor with a row for each of .* 3"):
        tabulate_(model, STEPS, call(model))
    model = tiny()
    with pytest.raises(ConfigError, match=r"inputs must be at least 3, .* and classes, not 2"):
        tabulate_(model, STEPS, call(model), classes=3)
    tabulate_(model, STEPS, call(model))
    with pytest.raises(ConfigError, match=r"must be one that was calibrated, not 77; they are 900"):
        model(*call(model, step=77))
    with pytest.raises(ConfigError, match="that the model has tables for already"):
        tabulate_(model, STEPS[:2], call(model))
    with pytest.raises(ConfigError, match="looked at: 'stem' depends on its input; "):
        tabulate_(model, STEPS, call(model))
    with pytest.raises(ConfigError, match="must be asked where its network is called, not alone"):
        model.time(torch.zeros(1, 8))
    assert "TimeTable([4, 8], classes=0)" in repr(tables(model)["blocks.0.project"])
    assert isinstance(tables(model)["time"], TimeTable) and not list(compressed_layers(model))


@torch.no_grad()
@pytest.mark.parametrize("kind", ["UNet2DModel", "UNet2DConditionModel"])
def test_networks_of_diffusers(kind):
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    shared = {
        "sample_size": 8, "in_channels": 1, "out_channels": 1, "layers_per_block": 1,
        "block_out_channels": (8, 16), "norm_num_groups": 4,
    }  # fmt: skip
    if kind == "UNet2DModel":
        network = diffusers.UNet2DModel(
            **shared, down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        )  # fmt: skip
        more = ()
    else:
        network = diffusers.UNet2DConditionModel(
            **shared, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), cross_attention_dim=8,
            attention_head_dim=4,
        )  # fmt: skip
        more = (torch.randn(2, 5, 8),)

    class Called(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, x, step, *condition):
            return self.network(x, step, *condition).sample

    model = Called().eval()
    x = torch.randn(2, 1, 8, 8)
    wanted = [model(x, torch.full((2,), step), *more) for step in STEPS]
    found = tabulate_(model, STEPS, (x, torch.full((2,), STEPS[0]), *more))
    assert all(name.endswith("time_emb_proj") for name in found.modules) and len(found.modules) > 4
    assert {"network.time_proj", "network.time_embedding"} == set(found.unread)
    for step, want in zip(STEPS, wanted, strict=True):
        given = model(x, torch.full((2,), step), *more)
        assert torch.equal(given, want) or found.spread > 0
        torch.testing.assert_close(given, want, rtol=0, atol=1e-6)
