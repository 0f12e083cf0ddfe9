"""Data sets as tasks, for commands: ``--data py:signbook.data:cifar10_exact``.

All but ``digits``, ``digits_noise`` and ``image_folder`` read the folder that :func:`data_folder`
finds. Options follow the name: ``py:signbook.data:cifar10_jpeg?split=train&augment=true&batch=64``.
"""

from signbook.data.factories import (
    caltech101,
    cifar10_exact,
    cifar10_jpeg,
    digits,
    digits_noise,
    image_folder,
    imagenet_sample,
    imagenet_val,
    imagenette160,
    mnist,
    mnist_noise,
    tinyshakespeare,
    tinystories,
    wikitext2,
    wikitext2_sentences,
)
from signbook.data.files import data_file, data_folder
from signbook.data.images import (
    ImageBatches,
    Images,
    load_cifar10_exact,
    load_cifar10_jpeg,
    load_mnist,
)
from signbook.data.noise import NoiseBatches
from signbook.data.photos import PhotoBatches, Photos
from signbook.data.pictures import load_pictures
from signbook.data.texts import (
    detokenized,
    load_stories,
    load_wikitext2,
    sentences_of,
    token_batches,
)

__all__ = [
    "ImageBatches",
    "Images",
    "NoiseBatches",
    "PhotoBatches",
    "Photos",
    "caltech101",
    "cifar10_exact",
    "cifar10_jpeg",
    "data_file",
    "data_folder",
    "detokenized",
    "digits",
    "digits_noise",
    "image_folder",
    "imagenet_sample",
    "imagenet_val",
    "imagenette160",
    "load_cifar10_exact",
    "load_cifar10_jpeg",
    "load_mnist",
    "load_pictures",
    "load_stories",
    "load_wikitext2",
    "mnist",
    "mnist_noise",
    "sentences_of",
    "tinyshakespeare",
    "tinystories",
    "token_batches",
    "wikitext2",
    "wikitext2_sentences",
]
