"""Images with labels, and repeatable batches of them."""

import gzip
import io
import struct
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from signbook.data.files import data_file
from signbook.extras import require
from vq.errors import ConfigError

__all__ = [
    "ImageBatches",
    "Images",
    "Passes",
    "load_cifar10_exact",
    "load_cifar10_jpeg",
    "load_mnist",
    "read_arrays",
    "spread",
]

_CROP = 4
#: Of MNIST's images, one in so many is held out: the second half is harder than the first.
_EVERY = 5


@dataclass(frozen=True, eq=False)
class Images:
    """Images ``x`` [N, C, H, W] uint8 and their classes ``y`` [N] int64."""

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)


class Passes(ABC):
    """Batches of images, drawn anew for every pass and repeatable.

    Parameters
    ----------
    count : int
        Images there are.
    batch : int
        Images in a batch.
    shuffle : bool
        Draw a new order for every pass, and leave out an incomplete last batch.
    seed : int
        Of all that is drawn. Pass ``n`` depends on ``seed`` and ``n`` alone: set the attribute
        ``epoch`` to start with a later one.
    """

    def __init__(self, count: int, *, batch: int, shuffle: bool, seed: int) -> None:
        if batch < 1 or (shuffle and batch > count):  # shuffled, it would leave all of them out
            most = f"1 to {count} images" if shuffle else "positive"
            raise ConfigError(f"batch must be {most}, not {batch}")
        if seed < 0:
            raise ConfigError(f"seed must be 0 or more, not {seed}")
        self._count = count
        self._batch = batch
        self._shuffle = shuffle
        self._seed = seed
        self.epoch = 0

    @abstractmethod
    def draw(self, chosen: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Make a batch of the images whose numbers are ``chosen`` [B]."""

    def __len__(self) -> int:
        whole, rest = divmod(self._count, self._batch)
        return whole if self._shuffle or not rest else whole + 1

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        mixed = np.random.SeedSequence([self._seed, self.epoch]).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(mixed[0] >> np.uint64(1)))
        self.epoch += 1
        count = self._count
        order = torch.randperm(count, generator=generator) if self._shuffle else torch.arange(count)
        for i in range(len(self)):
            yield self.draw(order[i * self._batch : (i + 1) * self._batch], generator)


class ImageBatches(Passes):
    """Batches of (images [B, C, H, W] float32 in [0, 1], labels [B] int64).

    Parameters
    ----------
    images : Images
    batch, shuffle, seed
        See :class:`Passes`.
    augment : bool
        Mirror half of the images and move all by up to 4 pixels, black beyond the border.
    """

    def __init__(
        self,
        images: Images,
        *,
        batch: int = 128,
        shuffle: bool = False,
        augment: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(len(images), batch=batch, shuffle=shuffle, seed=seed)
        self._images = images
        self._augment = augment

    def draw(self, chosen: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Take the images, mirrored and moved where that is asked for."""
        x = self._images.x[chosen]
        x = _jitter(x, generator) if self._augment else x
        return x.float() / 255, self._images.y[chosen]


def _jitter(x: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror and move images [B, C, H, W], each by its own draw."""
    count, channels, height, width = x.shape
    flip = torch.randint(0, 2, (count, 1), generator=generator, dtype=torch.bool)
    dy, dx = torch.randint(0, 2 * _CROP + 1, (2, count, 1), generator=generator)
    rows = torch.arange(height) + dy
    columns = torch.where(flip, torch.arange(width).flip(0), torch.arange(width)) + dx
    padded = pad(x, (_CROP,) * 4)
    image = torch.arange(count)[:, None, None, None]
    channel = torch.arange(channels)[:, None, None]
    return padded[image, channel, rows[:, None, :, None], columns[:, None, None, :]]


def load_cifar10_exact(split: str = "test") -> Images:
    """CIFAR-10 images, bit for bit: 761 of the test set, or 3,805 of the training set."""
    _check_split(split)
    x, y = read_arrays(data_file("cifar10_exact/cifar10_exact.npz"), f"{split}_x", f"{split}_y")
    return Images(torch.from_numpy(x), torch.from_numpy(y.astype(np.int64)))


def load_cifar10_jpeg(split: str = "test", limit: int | None = None) -> Images:
    """CIFAR-10 images from JPEG files: 10,000 of the test set, or 10,000 of the training set.

    The file is sorted by class; ``limit`` takes as many images spread evenly over it. Decoding
    all takes about two seconds.
    """
    _check_split(split)
    path = data_file(f"cifar10_jpeg/cifar10_jpeg_{split}.npz")
    pillow = require("PIL.Image", extra="vision", purpose="decoding JPEG images")
    raw, offsets, y = read_arrays(path, "jpeg", "offsets", "y")
    chosen = spread(len(y), limit)
    x = np.empty((len(chosen), 3, 32, 32), np.uint8)
    for place, i in enumerate(chosen):
        with pillow.open(io.BytesIO(raw[offsets[i] : offsets[i + 1]].tobytes())) as image:
            x[place] = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    return Images(torch.from_numpy(x), torch.from_numpy(y[chosen].astype(np.int64)))


def load_mnist(split: str | None = None) -> Images:
    """The 10,000 test images of MNIST [10000, 1, 28, 28], or a part of them.

    With ``split="test"``, every fifth of them; with ``"train"``, the 8,000 others.
    """
    x = _read_idx(data_file("mnist/t10k-images-idx3-ubyte.gz"))
    y = _read_idx(data_file("mnist/t10k-labels-idx1-ubyte.gz"))
    images = Images(torch.from_numpy(x[:, None]), torch.from_numpy(y.astype(np.int64)))
    if split is None:
        return images
    _check_split(split)
    held_out = torch.arange(len(images)) % _EVERY == _EVERY - 1
    chosen = held_out if split == "test" else ~held_out
    return Images(images.x[chosen], images.y[chosen])


def _read_idx(path: Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Read a gzipped idx file of bytes: two zeros, type 8, the rank, big-endian sizes, data."""
    try:
        raw = gzip.decompress(path.read_bytes())
        zeros, kind, rank = struct.unpack_from(">HBB", raw)
        shape = struct.unpack_from(f">{rank}I", raw, 4)
        if (zeros, kind) != (0, 8):
            raise ValueError("it starts with other bytes")
        return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape).copy()
    except (OSError, EOFError, zlib.error, struct.error, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is damaged, or none"
        raise ConfigError(f"{path}: must be a whole idx file of bytes, but {reason}") from error


def read_arrays(path: Path, *names: str) -> list[np.ndarray[Any, np.dtype[Any]]]:
    """Read arrays of an npz file."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return [arrays[name] for name in names]
    except (OSError, ValueError, EOFError, KeyError, TypeError, zlib.error,
            zipfile.BadZipFile) as error:  # fmt: skip
        reason = getattr(error, "strerror", None) or "it is damaged, or has not all of them"
        raise ConfigError(
            f"{path}: must be a whole npz file with {', '.join(names)}, but {reason}"
        ) from error


def _check_split(split: str) -> None:
    if split not in ("train", "test"):
        raise ConfigError(f"split must be 'train' or 'test', not {split!r}")


def spread(count: int, limit: int | None) -> np.ndarray[Any, np.dtype[np.int64]]:
    """``limit`` of ``count`` places, evenly; all without a limit."""
    if limit is None:
        return np.arange(count)
    if not 1 <= limit <= count:
        raise ConfigError(f"limit must be 1 to {count} images, not {limit}")
    return np.arange(limit) * count // limit
