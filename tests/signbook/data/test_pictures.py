"""Digits for generators: a fixed split, and pixels as they are."""

import pytest
import torch

from signbook.data import digits_noise, load_mnist, load_pictures, mnist_noise
from tests.signbook.shared import shared
from vq.errors import ConfigError


def unique(images) -> set[bytes]:
    return {image.numpy().tobytes() for image in images.x}


def test_digits_are_held_out_and_keep_their_sixteen_shades():
    train, test = load_pictures("digits", "train"), load_pictures("digits", "test")
    assert (len(train), len(test)) == (1347, 450) and not unique(train) & unique(test)
    shades = torch.cat([train.x, test.x]).unique().double() / 255 * 16
    assert (
        shades.round().tolist() == list(range(17)) and (shades - shades.round()).abs().max() < 0.1
    )
    assert train.y.bincount().min() > 120 and train.x.shape[1:] == (1, 8, 8)


def test_every_fifth_of_mnist_is_held_out():
    shared("mnist/t10k-images-idx3-ubyte.gz")
    train, test, whole = (
        load_pictures("mnist", "train"),
        load_pictures("mnist", "test"),
        load_mnist(),
    )
    assert (len(train), len(test)) == (8000, 2000)
    assert test.x[1].equal(whole.x[9]) and test.y[1] == whole.y[9] and train.x[4].equal(whole.x[5])


def test_noisy_pictures_come_with_their_classes():
    (noisy, _, labels), noise = next(iter(digits_noise(batch=20).batches))
    held_out = load_pictures("digits", "test")
    assert labels.equal(held_out.y[:20]) and noisy.shape == noise.shape == (20, 1, 8, 8)
    assert len(list(digits_noise(split="train", batch=500).batches)) == 3


def test_noisy_mnist_with_classes_is_of_held_out_images():
    shared("mnist/t10k-images-idx3-ubyte.gz")
    batches = list(mnist_noise(limit=30, batch=20, labels=True).batches)
    labels = torch.cat([labels for (_, _, labels), _ in batches])
    assert labels.equal(load_pictures("mnist", "test").y[:30])


def test_pictures_that_are_not_there():
    with pytest.raises(ConfigError, match=r"^pictures must be 'digits' or 'mnist', not 'faces'"):
        load_pictures("faces", "train")
    with pytest.raises(ConfigError, match=r"^split must be 'train' or 'test', not 'all'"):
        load_pictures("digits", "all")
