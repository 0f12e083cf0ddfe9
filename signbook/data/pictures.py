"""Labelled digits as grey images, in a fixed split: what generators learn, and are judged by."""

import torch

from signbook.data.images import Images, load_mnist
from signbook.zoo.digits import load_digits
from vq.errors import ConfigError

__all__ = ["load_pictures"]


def load_pictures(name: str, split: str) -> Images:
    """Images of one part.

    Parameters
    ----------
    name : "digits" or "mnist"
        scikit-learn's of 8x8 pixels, 1,347 and 450, or MNIST's test set of 28x28, 8,000 and 2,000.
    split : "train" or "test"

    Raises
    ------
    ConfigError
        If there is no such name or part, or the data are not there.
    """
    if split not in ("train", "test"):
        raise ConfigError(f"split must be 'train' or 'test', not {split!r}")
    if name == "digits":
        data = load_digits()
        x, y = (data.train_x, data.train_y) if split == "train" else (data.test_x, data.test_y)
        low, high = data.train_x.amin(), data.train_x.amax()  # black and white, 0 and 16
        return Images(((x - low) / (high - low) * 255).round().clamp(0, 255).to(torch.uint8), y)
    if name == "mnist":
        return load_mnist(split)
    raise ConfigError(f"pictures must be 'digits' or 'mnist', not {name!r}")
