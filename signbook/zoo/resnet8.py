"""MLPerf Tiny's ResNet-8 for CIFAR-10, from its Keras checkpoint."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from signbook.extras import require
from signbook.zoo.checkpoints import load_weights, read_state
from signbook.zoo.images import Standardize
from vq.errors import ConfigError

__all__ = ["ResNet8", "load_resnet8", "resnet8"]

_KERAS_EPS = 1e-3


class _Block(nn.Module):
    """Two convolutions; with a stride, a 1x1 convolution as shortcut.

    Keras pads "same" convolutions of stride 2 at the right and at the bottom only, hence ``pad``.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        strided = stride > 1
        self.pad = nn.ZeroPad2d((0, 1, 0, 1)) if strided else nn.Identity()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=0 if strided else 1)
        self.bn1 = nn.BatchNorm2d(outputs, _KERAS_EPS)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(outputs, _KERAS_EPS)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride) if strided else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn1(self.conv1(self.pad(x))).relu()
        y = self.bn2(self.conv2(y))
        out: Tensor = (y + self.shortcut(x)).relu()
        return out


class ResNet8(nn.Module):
    """Three blocks of 16, 32 and 64 channels; every convolution has a bias.

    Takes RGB images [B, 3, 32, 32] in [0, 1] and gives logits [B, classes].
    """

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.normalize = Standardize((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255))
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(16, _KERAS_EPS)
        self.block1 = _Block(16, 16, 1)
        self.block2 = _Block(16, 32, 2)
        self.block3 = _Block(32, 64, 2)
        self.fc = nn.Linear(64, classes)

    def forward(self, images: Tensor) -> Tensor:
        x = self.bn1(self.conv1(self.normalize(images))).relu()
        x = self.block3(self.block2(self.block1(x)))
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits

    def state_from(self, path: Path) -> dict[str, Tensor]:
        """Read the published Keras ``*.h5`` file, or a torch file with this model's own names."""
        return _read_keras(path) if path.suffix in (".h5", ".hdf5") else read_state(path)


#: Our layers in the order in which Keras numbered them.
_CONVOLUTIONS = (
    "conv1", "block1.conv1", "block1.conv2", "block2.conv1", "block2.conv2", "block2.shortcut",
    "block3.conv1", "block3.conv2", "block3.shortcut",
)  # fmt: skip
_NORMS = (
    "bn1", "block1.bn1", "block1.bn2", "block2.bn1", "block2.bn2", "block3.bn1", "block3.bn2",
)  # fmt: skip
_NORM_PARTS = {
    "gamma": "weight", "beta": "bias",
    "moving_mean": "running_mean", "moving_variance": "running_var",
}  # fmt: skip


def _sources() -> dict[str, str]:
    """Every tensor of ours, and the dataset of the Keras file that holds it."""
    numbered = {name: f"conv2d_{i}" if i else "conv2d" for i, name in enumerate(_CONVOLUTIONS)}
    numbered["fc"] = "dense"
    found = {}
    for ours, keras in numbered.items():
        found[f"{ours}.weight"] = f"model_weights/{keras}/{keras}/kernel:0"
        found[f"{ours}.bias"] = f"model_weights/{keras}/{keras}/bias:0"
    for i, ours in enumerate(_NORMS):
        keras = f"batch_normalization_{i}" if i else "batch_normalization"
        for part, leaf in _NORM_PARTS.items():
            found[f"{ours}.{leaf}"] = f"model_weights/{keras}/{keras}/{part}:0"
    return found


def _read_keras(path: Path) -> dict[str, Tensor]:
    h5py = require("h5py", extra="keras", purpose="reading a Keras file")
    if not path.is_file():
        raise ConfigError(f"{path}: weights must be a readable file, not absent; see --weights")
    state = {}
    try:
        with h5py.File(path, "r") as file:
            for ours, dataset in _sources().items():
                values = np.asarray(file[dataset], np.float32)
                if values.ndim == 4:
                    values = values.transpose(3, 2, 0, 1)  # [H, W, C, O] to [O, C, H, W]
                elif values.ndim == 2:
                    values = values.T
                state[ours] = torch.from_numpy(np.ascontiguousarray(values))
    except (OSError, KeyError, RuntimeError, TypeError, ValueError) as error:
        missing = next((name for name in _sources() if name not in state), None)
        raise ConfigError(
            f"{path}: must be a whole ResNet-8 Keras file, but it gives no {missing!r}; get it anew"
        ) from error
    return state


def resnet8() -> ResNet8:
    """Build the model with fresh weights."""
    return ResNet8()


def load_resnet8(path: str | Path) -> ResNet8:
    """Load ``resnet8_cifar10.h5``: 88.44 % of the 761 exact CIFAR-10 test images."""
    return load_weights(resnet8(), path)
