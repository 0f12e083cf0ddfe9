"""One function per data set, with defaults that reproduce the published figures."""

import torch

from signbook.data.files import data_file
from signbook.data.images import (
    ImageBatches,
    Images,
    load_cifar10_exact,
    load_cifar10_jpeg,
    load_mnist,
)
from signbook.data.noise import NoiseBatches
from signbook.data.photos import PhotoBatches, load_packed, load_photo_folder
from signbook.data.pictures import load_pictures
from signbook.data.texts import (
    detokenized,
    load_stories,
    load_wikitext2,
    masked_batches,
    sentences_of,
    token_batches,
)
from signbook.data.words import MINILM, STORIES, words_of
from signbook.tasks import Classification, Denoising, Embedding, LanguageModelling, TextProtocol
from vq.errors import ConfigError

__all__ = [
    "caltech101",
    "cifar10_exact",
    "cifar10_jpeg",
    "digits",
    "digits_noise",
    "image_folder",
    "imagenet_sample",
    "imagenet_val",
    "imagenette160",
    "mnist",
    "mnist_noise",
    "tinyshakespeare",
    "tinystories",
    "wikitext2",
    "wikitext2_sentences",
]

#: Where the parts of a long text begin and end, in twelfths of its tokens.
_PARTS = {"all": (0, 12), "calibrate": (0, 7), "choose": (7, 8), "judge": (8, 12)}


def digits(*, split: str = "test", batch: int = 150, seed: int = 0) -> Classification:
    """The demo's handwritten digits: 450 test or 1,347 training images; needs no data folder."""
    from signbook.zoo.digits import load_digits

    data = load_digits(seed)
    if split not in ("train", "test"):
        raise ConfigError(f"split must be 'train' or 'test', not {split!r}")
    x, y = (data.train_x, data.train_y) if split == "train" else (data.test_x, data.test_y)
    return Classification([(x[i : i + batch], y[i : i + batch]) for i in range(0, len(y), batch)])


def cifar10_exact(
    *,
    split: str = "test",
    limit: int | None = None,
    batch: int = 128,
    shuffle: bool = False,
    augment: bool = False,
    seed: int = 0,
) -> Classification:
    """CIFAR-10 images, bit for bit: 761 of the test set, or 3,805 of the training set."""
    images = load_cifar10_exact(split)
    images = images if limit is None else Images(images.x[:limit], images.y[:limit])
    batches = ImageBatches(images, batch=batch, shuffle=shuffle, augment=augment, seed=seed)
    return Classification(batches)


def cifar10_jpeg(
    *,
    split: str = "test",
    limit: int | None = None,
    batch: int = 128,
    shuffle: bool = False,
    augment: bool = False,
    seed: int = 0,
) -> Classification:
    """CIFAR-10 images that went through JPEG: 10,000 of the test or of the training set."""
    images = load_cifar10_jpeg(split, limit)
    batches = ImageBatches(images, batch=batch, shuffle=shuffle, augment=augment, seed=seed)
    return Classification(batches)


def imagenet_val(
    *,
    limit: int | None = None,
    batch: int = 32,
    size: int = 224,
    crop: float | None = None,
    normalize: str = "none",
) -> Classification:
    """650 validation images of ImageNet, of 227 pixels; for tests alone."""
    photos = load_packed("imagenet_val/imagenet_val650.npz", limit)
    return Classification(
        PhotoBatches(photos, size=size, crop=crop, normalize=normalize, batch=batch)
    )


def imagenet_sample(
    *,
    limit: int | None = None,
    batch: int = 32,
    size: int = 224,
    crop: float | None = 0.875,
    normalize: str = "none",
    shuffle: bool = False,
    augment: bool = False,
    seed: int = 0,
) -> Classification:
    """One image of each class of ImageNet, of 256 pixels, most likely of its training set."""
    photos = load_packed("imagenet_sample/imagenet_sample.npz", limit)
    return Classification(
        PhotoBatches(
            photos, size=size, crop=crop, normalize=normalize,
            batch=batch, shuffle=shuffle, augment=augment, seed=seed,
        )
    )  # fmt: skip


def imagenette160(
    *,
    limit: int | None = None,
    batch: int = 32,
    size: int = 224,
    crop: float | None = None,
    normalize: str = "none",
    shuffle: bool = False,
    augment: bool = False,
    seed: int = 0,
) -> Classification:
    """1,500 training images of ImageNet, of 160 pixels and ten classes."""
    photos = load_packed("imagenette160/imagenette160.npz", limit)
    return Classification(
        PhotoBatches(
            photos, size=size, crop=crop, normalize=normalize,
            batch=batch, shuffle=shuffle, augment=augment, seed=seed,
        )
    )  # fmt: skip


def caltech101(
    *,
    limit: int | None = None,
    batch: int = 32,
    size: int = 224,
    crop: float | None = 1.0,
    normalize: str = "none",
    shuffle: bool = False,
    augment: bool = False,
    seed: int = 0,
) -> Classification:
    """5,142 images of 102 categories, of 160 pixels, to calibrate and to distil.

    Labels are those of Caltech, which no model of ImageNet gives.
    """
    photos = load_packed("caltech101/caltech101_pool.npz", limit)
    return Classification(
        PhotoBatches(
            photos, size=size, crop=crop, normalize=normalize,
            batch=batch, shuffle=shuffle, augment=augment, seed=seed,
        )
    )  # fmt: skip


def image_folder(
    *,
    root: str,
    classes: str | None = None,
    limit: int | None = None,
    batch: int = 32,
    size: int = 224,
    crop: float | None = 0.875,
    normalize: str = "none",
    shuffle: bool = False,
    augment: bool = False,
    seed: int = 0,
) -> Classification:
    """Images of a folder with one folder for each class, such as ImageNet's.

    See :func:`signbook.data.photos.load_photo_folder` for labels and ``classes``.
    """
    photos = load_photo_folder(root, classes, limit)
    return Classification(
        PhotoBatches(
            photos, size=size, crop=crop, normalize=normalize,
            batch=batch, shuffle=shuffle, augment=augment, seed=seed,
        )
    )  # fmt: skip


def mnist(
    *,
    split: str = "test",
    limit: int | None = None,
    batch: int = 100,
    shuffle: bool = False,
    seed: int = 0,
) -> Classification:
    """MNIST's test images in two parts: 8,000 to train with, and every fifth, 2,000, to test."""
    images = load_mnist(split)
    images = images if limit is None else Images(images.x[:limit], images.y[:limit])
    return Classification(ImageBatches(images, batch=batch, shuffle=shuffle, seed=seed))


def mnist_noise(
    *, limit: int = 500, batch: int = 100, seed: int = 0, labels: bool = False
) -> Denoising:
    """MNIST test images with noise of a random step of 1,000.

    With ``labels``, for models that are told the class: of the images that these never saw.
    """
    if not labels:
        return Denoising(NoiseBatches(load_mnist().x[:limit], batch=batch, seed=seed))
    images = load_pictures("mnist", "test")
    return Denoising(NoiseBatches(images.x[:limit], images.y[:limit], batch=batch, seed=seed))


def digits_noise(*, split: str = "test", batch: int = 150, seed: int = 0) -> Denoising:
    """The digits of :func:`digits` with noise of a random step of 1,000, and their classes."""
    images = load_pictures("digits", split)
    return Denoising(NoiseBatches(images.x, images.y, batch=batch, seed=seed))


def tinystories(
    *,
    skip: int = 0,
    limit: int | None = 120,
    batch: int = 8,
    length: int = 512,
    tokenizer: str = STORIES,
) -> LanguageModelling:
    """Stories, one per row. The first 120 are the validation set, 32,262 predicted tokens.

    ``skip=120&limit=none`` is everything else, for training. ``tokenizer`` is "stories260k",
    "smollm2", a file that carries one, or what transformers can load: a folder or an id.
    """
    stories = load_stories()[skip : None if limit is None else skip + limit]
    words = words_of(tokenizer)
    return LanguageModelling(
        token_batches([words.encode(s) for s in stories], batch=batch, length=length),
        TextProtocol(
            f"TinyStories validation, {len(stories)} stories from {skip}",
            words.name or tokenizer,
            length,
            None,
        ),
    )


def wikitext2(
    *,
    limit: int | None = None,
    batch: int = 8,
    length: int = 256,
    tokenizer: str = STORIES,
    detokenize: bool = False,
    part: str = "all",
    seed: int | None = None,
) -> LanguageModelling:
    """WikiText-2 validation text in rows of ``length`` tokens, each predicted from its own row.

    The first token of a row is not scored. ``limit`` counts rows; ``tokenizer`` is "stories260k",
    "smollm2", a file that carries one, or what transformers can load: a folder or an id.
    ``detokenize`` undoes the text's spacing, as models of ordinary texts need it. ``part`` is
    "all", or one of three that share no row: "judge" is the last third, "choose" the twelfth
    before it, for choosing settings, "calibrate" all before. A ``seed`` draws the rows at random,
    whole ones only.
    """
    text = load_wikitext2()
    return _rows_of(
        "WikiText-2 validation" + ", detokenised" * detokenize,
        detokenized("\n".join(text)) if detokenize else "\n".join(text),
        tokenizer, part, length, limit, batch, seed,
    )  # fmt: skip


def tinyshakespeare(
    *,
    limit: int | None = None,
    batch: int = 8,
    length: int = 256,
    tokenizer: str = STORIES,
    part: str = "all",
    seed: int | None = None,
) -> LanguageModelling:
    """Plays of Shakespeare in rows; options are those of :func:`wikitext2` but ``detokenize``."""
    text = data_file("tinyshakespeare/input.txt").read_text(encoding="utf-8")
    return _rows_of("tinyshakespeare", text, tokenizer, part, length, limit, batch, seed)


def _rows_of(
    name: str,
    text: str,
    tokenizer: str,
    part: str,
    length: int,
    limit: int | None,
    batch: int,
    seed: int | None,
) -> LanguageModelling:
    """Rows of one long text, as :func:`wikitext2` describes them."""
    if part not in _PARTS:
        raise ConfigError(f"part must be one of {', '.join(_PARTS)}, not {part!r}")
    for option, value, least in (("length", length, 2), ("limit", limit, 1), ("seed", seed, 0)):
        if value is not None and (type(value) is not int or value < least):
            raise ConfigError(f"{option} must be a whole number of {least} or more, not {value!r}")
    words = words_of(tokenizer)
    tokens = words.encode(text)
    first, end = (len(tokens) * twelfths // 12 for twelfths in _PARTS[part])
    rows = [tokens[i : min(i + length, end)] for i in range(first, end, length)]
    if seed is not None:
        whole = [row for row in rows if len(row) == length]
        if not whole:
            raise ConfigError(
                f"length must be {end - first} tokens at most, as many as this text has, to draw "
                f"rows of it, not {length}"
            )
        order = torch.randperm(len(whole), generator=torch.Generator().manual_seed(seed))
        rows = [whole[i] for i in order.tolist()]
        name += f", drawn with seed {seed}"
    rows = rows[:limit]
    if part != "all":
        name += f", part {part!r}"
    return LanguageModelling(
        token_batches(rows, batch=batch, length=length),
        TextProtocol(f"{name}, {len(rows)} rows", words.name or tokenizer, length, length),
    )


def wikitext2_sentences(
    *, limit: int | None = 512, batch: int = 32, length: int = 128, tokenizer: str = MINILM
) -> Embedding:
    """Sentences of WikiText-2 as inputs of a sentence encoder.

    ``tokenizer`` is "minilm", that of the installed MiniLM, a file that carries one, or what
    transformers can load.
    """
    words = words_of(tokenizer)
    rows = [words.encode(sentence) for sentence in sentences_of(load_wikitext2(), limit)]
    return Embedding(masked_batches(rows, words.encode(""), batch=batch, length=length))
