"""EfficientNet-Lite0's bench: arms of equal bits, images of one use each, training that goes on."""

import pytest
import torch
from torch import nn

import bench.real_vision as study
import vq
from signbook.data.photos import Photos
from signbook.zoo.efficientnet import lite0
from vq.container import account
from vq.recipe.selection import select


@pytest.mark.parametrize(("work", "about"), [("lite0@2.3", 2.3), ("lite0@3.3", 3.3)])
def test_arms_are_equal_in_bits(work, about):
    with torch.device("meta"):
        model = lite0(pretrained=False)
    bits = {}
    for name, kind in study.CODEBOOKS[work].items():
        layers = [layer.geometry for layer in select(model, study.recipe(kind)).layers]
        assert sum(g.weights for g in layers) == sum(
            m.weight.numel() for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)
        )
        total = sum(a.total_bytes for a in account(layers))
        bits[name] = 8 * total / sum(g.weights for g in layers)
    assert bits["ssvq"] == pytest.approx(about, rel=0.02)
    assert bits["vq"] == pytest.approx(bits["ssvq"], rel=0.02)


def coloured(count, size, label):
    """Photos of one colour each."""
    from io import BytesIO

    image = pytest.importorskip("PIL.Image")

    def read(i):
        buffer = BytesIO()
        image.new("RGB", (size, size), (i * 40, label, 0)).save(buffer, "PNG")
        return buffer.getvalue()

    return Photos([label] * count, read, str)


def test_images_have_one_use_each(monkeypatch):
    monkeypatch.setattr(study, "BATCH", 2)
    sets = {"imagenet_sample": coloured(10, 8, 0), "imagenet_val": coloured(2, 8, 1)}
    monkeypatch.setattr(study, "load_packed", lambda path, limit=None: sets[path.split("/")[0]])
    data = study.load(quick=False)
    reds = [data.pool.decode(i).getpixel((0, 0))[0] for i in range(len(data.pool))]
    assert [red // 40 for red in reds[:5]] == [1, 2, 3, 4, 6]
    assert data.pool.y.tolist() == [0] * 8
    assert torch.cat([y for _, y in data.test]).tolist() == [1, 1]
    ((held, _),) = data.held_out
    assert held.shape == (2, 3, 128, 128) and held[1, 0, 0, 0] == pytest.approx(200 / 255)


class Small(nn.Module):
    """What the recipe calls for, in little."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 32)
        self.blocks = nn.Sequential(nn.Module())
        block = self.blocks[0]
        block.expand, block.project = nn.Conv2d(16, 32, 1), nn.Conv2d(32, 16, 1)
        block.depthwise, block.norm = nn.Conv2d(32, 32, 1, groups=32), nn.BatchNorm2d(32)
        self.head, self.fc = nn.Conv2d(16, 32, 1), nn.Linear(32, 4)

    def forward(self, x):
        block = self.blocks[0]
        x = block.norm(block.depthwise(block.expand(self.stem(x)))).relu()
        return self.fc(self.head(block.project(x)).mean((2, 3)))


def test_training_goes_on_from_its_checkpoints(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "BATCH", 4)
    monkeypatch.setattr(study, "EPOCHS", 2)
    monkeypatch.setattr(study, "LEARNING_SIZE", 32)
    torch.manual_seed(0)
    photos = coloured(6, 32, 0)
    images = [(torch.rand(8, 3, 64, 64), torch.arange(8) % 4)]
    data = study.Data(images, images, study.Some(photos, [*range(6)] * 2), images)
    vision = study.Vision(Small().eval(), data)
    kind = vq.SSVQ(d=8, k=8, shared="all")
    first = vision.trained(kind, 1e-2, 0, tmp_path, fixed_signs=False)
    assert any(tmp_path.glob("step-*"))
    again = vision.trained(kind, 1e-2, 0, tmp_path, fixed_signs=False)
    assert first["train_loss"] == again["train_loss"] and "signs_changed" in first
    assert (first["agreement"] == again["agreement"]).all()
    assert vision.scores(vision.model)["agreement"].all()
    lost = vision.held_out_loss(kind, tmp_path / "choice", 1e-2, fixed_signs=True)
    assert 0 < lost < 10 and not any((tmp_path / "choice").rglob("step-*"))
