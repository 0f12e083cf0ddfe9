"""Data for the large runs: a folder of images, or a text file, named on the command line.

    py:examples.data:images?folder=/data/imagenet/train&train=true&batch=1024
    py:examples.data:text?file=/data/wikitext-2/train.txt&tokenizer=meta-llama/Llama-3.2-1B&train=true

With ``train``, every pass has a new order, drawn from torch's global random state, and the
processes of ``torchrun`` share each batch: ``batch`` counts all of them together.
"""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from signbook.extras import require
from signbook.tasks import Classification, LanguageModelling
from signbook.zoo.hub import quiet_transformers
from vq.distributed import gather, rank, ranks
from vq.errors import ConfigError

MEAN, STD = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


class Share(Sampler[int]):
    """This process's part of every batch of a random order, the same order on all processes."""

    def __init__(self, count: int, batch: int) -> None:
        if batch < 1 or batch % ranks():
            raise ConfigError(f"batch must be a multiple of the {ranks()} processes, not {batch}")
        self._count = count
        self._length = count // batch * batch // ranks()

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[int]:
        # finetune_ keeps the global state in checkpoints, so a resumed run draws alike.
        seed = gather(int(torch.empty((), dtype=torch.int64).random_()))[0]
        order = torch.randperm(self._count, generator=torch.Generator().manual_seed(seed))
        return iter(order[rank() :: ranks()][: self._length].tolist())


def loader(dataset: Dataset, *, batch: int, train: bool, workers: int = 0) -> DataLoader:
    """Batches in order, or with ``train`` this process's share of shuffled ones."""
    sampler = Share(len(dataset), batch) if train else None
    return DataLoader(
        dataset,
        batch // ranks() if train else batch,
        sampler=sampler,
        drop_last=train,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
    )


class ImageFolder(Dataset):
    """Images of ``folder/CLASS/*.jpeg``, classes numbered in alphabetical order.

    For training a random part, perhaps mirrored; for evaluation the centre, ``size / crop`` pixels
    of the shorter side being in view. As in DeiT, but without its stronger augmentation.
    """

    def __init__(self, folder: Path, *, train: bool, size: int, crop: float) -> None:
        require("PIL.Image", extra="vision", purpose=f"images of {folder}")
        classes = sorted(p for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []
        self.files = [
            (path, label)
            for label, place in enumerate(classes)
            for path in sorted(place.iterdir())
            if path.suffix.lower() in (".jpeg", ".jpg", ".png")
        ]
        if not self.files:
            raise ConfigError(f"{folder}: must hold one folder of images for every class, not none")
        self._train, self._size, self._crop = train, size, crop

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        from PIL import Image

        path, label = self.files[i]
        with Image.open(path) as file:
            image = file.convert("RGB")
        size, mirror = (self._size, self._size), False
        if self._train:
            image = image.crop(random_box(*image.size)).resize(size, Image.Resampling.BICUBIC)
            mirror = bool(torch.rand(()) < 0.5)
        else:
            shorter = int(self._size / self._crop)
            wide, high = (int(shorter * n / min(image.size)) for n in image.size)
            image = image.resize((wide, high), Image.Resampling.BICUBIC)
            left, top = (round((n - self._size) / 2) for n in (wide, high))
            image = image.crop((left, top, left + self._size, top + self._size))
        x = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        return ((x.flip(2) if mirror else x) / 255 - MEAN) / STD, label


def random_box(wide: int, high: int) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of 8 to 100 % of an image, at most 4:3 or 3:4."""
    for _ in range(10):
        share, ratio, x, y = torch.rand(4).tolist()
        area = wide * high * (0.08 + 0.92 * share)
        root = (4 / 3) ** (ratio - 0.5)
        w, h = round(math.sqrt(area) * root), round(math.sqrt(area) / root)
        if 0 < w <= wide and 0 < h <= high:
            left, top = int(x * (wide - w + 1)), int(y * (high - h + 1))
            return left, top, left + w, top + h
    return 0, 0, wide, high


def images(
    *,
    folder: str,
    train: bool = False,
    batch: int = 256,
    size: int = 224,
    crop: float = 0.9,
    workers: int = 4,
) -> Classification:
    """Images of a folder, normalised with the mean and deviation of ImageNet."""
    dataset = ImageFolder(Path(folder), train=train, size=size, crop=crop)
    batches = loader(dataset, batch=batch, train=train, workers=workers)
    return Classification(batches, shared=train)


class Rows(Dataset):
    """Rows of tokens [length], with the mask of those that are predicted: all but the first."""

    def __init__(self, tokens: Tensor) -> None:
        self.tokens = tokens
        self._scored = torch.arange(tokens.shape[1]) > 0

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        return self.tokens[i], self._scored


def text(
    *, file: str, tokenizer: str, train: bool = False, batch: int = 8, length: int = 2048
) -> LanguageModelling:
    """The tokens of one text file in rows of ``length``, as perplexities of WikiText-2 are counted.

    Each row is predicted on its own; an incomplete last row is left out.
    """
    transformers = require("transformers", extra="lm", purpose=f"tokenizer {tokenizer!r}")
    with quiet_transformers(f"tokenizer {tokenizer!r}"):
        known = transformers.AutoTokenizer.from_pretrained(tokenizer)
    try:
        words = Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: must be a readable text, but {error}") from error
    tokens = torch.tensor(known(words, verbose=False)["input_ids"])
    count = len(tokens) // length
    if not count:
        raise ConfigError(f"{file}: must hold at least {length} tokens, not {len(tokens)}")
    rows = Rows(tokens[: count * length].view(count, length))
    return LanguageModelling(loader(rows, batch=batch, train=train), shared=train)
