"""Photographs of any size: compressed files that are decoded batch by batch, every pass anew."""

import io
import math
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from signbook.data.files import data_file
from signbook.data.images import Passes, read_arrays, spread
from signbook.extras import require
from signbook.zoo.images import Standardize
from vq.errors import ConfigError

__all__ = ["PhotoBatches", "Photos", "load_packed", "load_photo_folder"]

_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
#: What Pillow's decoders raise, besides errors of their own, on bytes that are no whole image.
_DAMAGED = (
    OSError, EOFError, SyntaxError, ValueError, TypeError, IndexError, KeyError,
    struct.error, zlib.error,
)  # fmt: skip
_LEAST_AREA = 0.35
_WIDEST = 4 / 3
#: Mean and deviation that models expect which do not normalise by themselves.
_NORMALIZE = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5,) * 3, (0.5,) * 3),
    "lite": ((127 / 255,) * 3, (128 / 255,) * 3),
}


class Photos:
    """Compressed images and their labels ``y`` [N] int64.

    Parameters
    ----------
    labels : array-like of int [N]
    read : callable
        From the number of an image to its compressed bytes.
    name : callable
        From the number of an image to what errors call it.
    """

    def __init__(
        self, labels: Any, read: Callable[[int], bytes], name: Callable[[int], str]
    ) -> None:
        self.y = torch.as_tensor(labels, dtype=torch.int64)
        self._read = read
        self._name = name

    def __len__(self) -> int:
        return len(self.y)

    def decode(self, number: int) -> Any:
        """Give one image as Pillow's, in RGB.

        Raises
        ------
        ConfigError
            If it cannot be read, with its name.
        """
        pillow = require("PIL.Image", extra="vision", purpose="decoding images")
        try:
            with pillow.open(io.BytesIO(self._read(number))) as image:
                return image.convert("RGB")
        except (*_DAMAGED, pillow.DecompressionBombError) as error:
            reason = getattr(error, "strerror", None) or "it is damaged, or none"
            raise ConfigError(
                f"{self._name(number)} must be a whole image, but {reason}; replace it or leave "
                "it out"
            ) from error


class PhotoBatches(Passes):
    """Batches of (images [B, 3, size, size] float32, labels [B] int64).

    One batch is decoded at a time.

    Parameters
    ----------
    photos : Photos
    size : int
        Height and width, to which images are resized bicubically.
    crop : float, optional
        Take the square in the middle, its side this share of the shorter side; without it, the
        whole image whatever its shape.
    normalize : str
        "none" gives values x in [0, 1], as the models of the zoo take them. "imagenet" takes
        ImageNet's mean and deviation, "half" gives 2 x - 1, "lite" (255 x - 127) / 128.
    batch, shuffle, seed
        See :class:`signbook.data.images.Passes`.
    augment : bool
        In place of ``crop``, a random part of 35 % of the area or more and 3:4 to 4:3, half of
        them mirrored.

    Raises
    ------
    ConfigError
        For impossible settings; in a pass, for an image that cannot be read.
    """

    def __init__(
        self,
        photos: Photos,
        *,
        size: int = 224,
        crop: float | None = None,
        normalize: str = "none",
        batch: int = 32,
        shuffle: bool = False,
        augment: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(len(photos), batch=batch, shuffle=shuffle, seed=seed)
        if type(size) is not int or size < 1:
            raise ConfigError(f"size must be a positive whole number of pixels, not {size!r}")
        if crop is not None and (isinstance(crop, str) or not 0 < crop <= 1):
            raise ConfigError(
                f"crop must be a share of the shorter side, above 0 and up to 1, or none for the "
                f"whole image, not {crop!r}"
            )
        if normalize != "none" and normalize not in _NORMALIZE:
            known = ", ".join(["none", *_NORMALIZE])
            raise ConfigError(f"normalize must be one of {known}, not {normalize!r}")
        self._photos = photos
        self._size = size
        self._crop = crop
        self._augment = augment
        self._normalize = None if normalize == "none" else Standardize(*_NORMALIZE[normalize])

    def draw(self, chosen: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Decode, cut and resize the images."""
        pillow = require("PIL.Image", extra="vision", purpose="resizing images")
        draws = torch.rand(len(chosen), 5, generator=generator).tolist() if self._augment else None
        x = np.empty((len(chosen), self._size, self._size, 3), np.uint8)
        for place, number in enumerate(chosen.tolist()):
            image = self._photos.decode(number)
            box = _part(image.size, draws[place]) if draws else _middle(image.size, self._crop)
            pixels = np.asarray(image.resize((self._size,) * 2, pillow.Resampling.BICUBIC, box=box))
            x[place] = pixels[:, ::-1] if draws and draws[place][4] < 0.5 else pixels
        values = torch.from_numpy(x).permute(0, 3, 1, 2).contiguous().float() / 255
        return values if self._normalize is None else self._normalize(values), self._photos.y[
            chosen
        ]


Box = tuple[int, int, int, int]  # left, top, right, bottom


def _middle(size: tuple[int, int], crop: float | None) -> Box:
    """The square in the middle of an image of ``size`` (width, height), or all of it.

    >>> _middle((300, 256), 0.875), _middle((300, 200), None)
    ((38, 16, 262, 240), (0, 0, 300, 200))
    """
    width, height = size
    if crop is None:
        return 0, 0, width, height
    side = max(round(crop * min(size)), 1)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


def _part(size: tuple[int, int], draw: list[float]) -> Box:
    """A part of an image of ``size`` by draws in [0, 1): area, shape, left, top.

    >>> _part((100, 100), [0.0, 0.5, 0.0, 0.999])
    (0, 41, 59, 100)
    """
    width, height = size
    area = width * height * (_LEAST_AREA + (1 - _LEAST_AREA) * draw[0])
    shape = math.exp((2 * draw[1] - 1) * math.log(_WIDEST))
    wide = min(max(round(math.sqrt(area * shape)), 1), width)
    high = min(max(round(math.sqrt(area / shape)), 1), height)
    left, top = int(draw[2] * (width - wide + 1)), int(draw[3] * (height - high + 1))
    return left, top, left + wide, top + high


def load_packed(name: str, limit: int | None = None) -> Photos:
    """Read a data file with ``jpeg`` (bytes of all images), ``offsets`` [N + 1] and ``y`` [N].

    ``limit`` takes as many images spread evenly over it.

    Raises
    ------
    ConfigError
        If the file is absent or damaged, or has fewer images.
    """
    path = data_file(name)
    raw, offsets, y = read_arrays(path, "jpeg", "offsets", "y")
    if offsets.shape != (len(y) + 1,) or offsets[-1] != len(raw) or (np.diff(offsets) < 1).any():
        raise ConfigError(
            f"{path}: offsets must rise to the {len(raw)} bytes of jpeg, once for each of {len(y)} "
            "labels, but they do not; get the file anew"
        )
    chosen = spread(len(y), limit)
    return Photos(
        y[chosen],
        lambda i: raw[offsets[chosen[i]] : offsets[chosen[i] + 1]].tobytes(),
        lambda i: f"{path}: image {chosen[i]}",
    )


def load_photo_folder(
    root: str | Path, classes: str | Path | None = None, limit: int | None = None
) -> Photos:
    """List the images of a folder that holds one folder for each class.

    Parameters
    ----------
    root : path
    classes : path, optional
        Text file whose lines begin with the folders' names, in the order of the labels: for a
        folder that lacks some of the classes. Without it, labels follow the sorted names, as those
        of ImageNet's 1,000 do.
    limit : int, optional
        Images to take, spread evenly.

    Raises
    ------
    ConfigError
        If there are none, a folder is not among ``classes``, or these have a name twice.
    """
    top = str(root)
    try:
        found = sorted(e.name for e in os.scandir(top) if e.is_dir() and e.name[0] != ".")
        names = found if classes is None else _names(classes)
        labels = {name: label for label, name in enumerate(names)}
        if strange := [name for name in found if name not in labels]:
            raise ConfigError(
                f"{root}: folder {strange[0]!r} must be a class of {classes}, but is not; add or "
                "move it"
            )
        files = [
            (os.path.join(top, name, file), labels[name])
            for name in found
            for file in sorted(os.listdir(os.path.join(top, name)))
            if file.lower().endswith(_SUFFIXES)
        ]
    except OSError as error:
        raise ConfigError(
            f"{error.filename}: must be a readable folder, but {error.strerror}; see root"
        ) from error
    if not files:
        raise ConfigError(
            f"{root}: must hold a folder of images ({', '.join(_SUFFIXES)}) for each class, but "
            f"{len(found)} folders hold none"
        )
    chosen = [files[i] for i in spread(len(files), limit)]
    return Photos(
        [label for _, label in chosen],
        lambda i: Path(chosen[i][0]).read_bytes(),
        lambda i: f"{chosen[i][0]}:",
    )


def _names(classes: str | Path) -> list[str]:
    """First words of the lines of a file."""
    try:
        lines = Path(str(classes)).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it holds other bytes"
        raise ConfigError(
            f"{classes}: classes must be a text file with a folder's name a line, but {reason}"
        ) from error
    names = [line.split()[0] for line in lines if line.strip()]
    if twice := [name for i, name in enumerate(names) if name in names[:i]]:
        raise ConfigError(
            f"{classes}: classes must be a folder's name a line, each once, not {twice[0]!r} twice"
        )
    return names
