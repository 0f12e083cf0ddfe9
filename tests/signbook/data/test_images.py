"""Image files and repeatable batches."""

import gzip
import struct

import numpy as np
import pytest
import torch

from signbook.data import (
    ImageBatches,
    Images,
    cifar10_exact,
    data_file,
    load_cifar10_exact,
    load_cifar10_jpeg,
    load_mnist,
    mnist,
)
from tests.signbook.shared import shared
from vq.errors import ConfigError


@pytest.fixture
def images():
    return Images(
        torch.randint(0, 256, (10, 3, 8, 8), dtype=torch.uint8), torch.arange(10, dtype=torch.int64)
    )


def passed(batches):
    return [(x.clone(), y.tolist()) for x, y in batches]


def test_plain_batches_are_the_images_in_order(images):
    batches = ImageBatches(images, batch=4)
    assert len(batches) == 3
    x, y = zip(*batches, strict=True)
    assert torch.equal(torch.cat(x), images.x.float() / 255)
    assert torch.cat(y).tolist() == list(range(10))
    assert [len(part) for part in y] == [4, 4, 2]


def test_shuffled_batches_are_whole_and_follow_seed_and_pass(images):
    one, same = (ImageBatches(images, batch=4, shuffle=True, seed=3) for _ in range(2))
    assert len(one) == 2
    orders = [[y for _, y in passed(one)] for _ in range(3)]
    assert [[y for _, y in passed(same)] for _ in range(3)] == orders
    assert orders[0] != orders[1]
    same.epoch = 2
    assert [y for _, y in passed(same)] == orders[2]
    other = ImageBatches(images, batch=4, shuffle=True, seed=4)
    assert [y for _, y in passed(other)] != orders[0]


def test_augmented_images_are_mirrored_and_moved():
    """One white pixel may come anywhere within four pixels of its place or its mirror image."""
    x = torch.zeros(400, 1, 16, 16, dtype=torch.uint8)
    x[:, 0, 8, 6] = 255
    images = Images(x, torch.zeros(400, dtype=torch.int64))
    ((moved, _),) = ImageBatches(images, batch=400, augment=True)
    assert moved.shape == (400, 1, 16, 16)
    places = [tuple(image[0].nonzero()[0].tolist()) for image in moved]
    assert all(len(image[0].nonzero()) == 1 for image in moved)
    assert {row for row, _ in places} == set(range(4, 13))
    assert {column for _, column in places} == set(range(2, 14))  # 6 +- 4 and 9 +- 4
    ((again, _),) = ImageBatches(
        Images(x, torch.zeros(400, dtype=torch.int64)), batch=400, augment=True
    )
    assert torch.equal(moved, again)


def test_all_channels_move_together(images):
    same = Images(images.x[:, :1].expand(-1, 3, -1, -1), images.y)
    ((moved, _),) = ImageBatches(same, batch=10, augment=True)
    assert torch.equal(moved[:, 0], moved[:, 2])


def test_impossible_batches(images):
    with pytest.raises(ConfigError, match=r"^batch must be positive, not 0"):
        ImageBatches(images, batch=0)
    for batch in (0, 11):
        with pytest.raises(ConfigError, match=f"^batch must be 1 to 10 images, not {batch}"):
            ImageBatches(images, batch=batch, shuffle=True)


def test_fewer_images_than_a_batch_are_one(images):
    ((some, _),) = ImageBatches(images, batch=11)
    assert len(some) == 10


@pytest.mark.parametrize(("split", "count"), [("test", 761), ("train", 3805)])
def test_exact_cifar(split, count):
    shared("cifar10_exact/cifar10_exact.npz")
    images = load_cifar10_exact(split)
    assert images.x.shape == (count, 3, 32, 32) and images.x.dtype == torch.uint8
    assert sorted(images.y.unique().tolist()) == list(range(10))
    if split == "test":
        assert images.y[:5].tolist() == [3, 8, 8, 0, 6]  # cat, ship, ship, aeroplane, frog


def test_limited_cifar():
    shared("cifar10_exact/cifar10_exact.npz")
    assert sum(len(y) for _, y in cifar10_exact(limit=100, batch=30).batches) == 100


def test_jpeg_cifar():
    shared("cifar10_jpeg/cifar10_jpeg_test.npz")
    images = load_cifar10_jpeg("test", limit=50)
    assert images.x.shape == (50, 3, 32, 32)
    assert torch.bincount(images.y).tolist() == [5] * 10
    for limit in (0, 10_001):
        with pytest.raises(ConfigError, match=f"limit must be 1 to 10000 images, not {limit}"):
            load_cifar10_jpeg("test", limit=limit)


def test_mnist():
    shared("mnist/t10k-images-idx3-ubyte.gz")
    images = load_mnist()
    assert images.x.shape == (10_000, 1, 28, 28)
    assert images.y[:5].tolist() == [7, 2, 1, 0, 4]


def test_parts_of_mnist():
    shared("mnist/t10k-images-idx3-ubyte.gz")
    whole, train, test = (load_mnist(split) for split in (None, "train", "test"))
    assert len(train) == 8000 and torch.equal(test.x, whole.x[4::5])
    assert torch.equal(test.y, whole.y[4::5]) and train.y[:5].tolist() == [7, 2, 1, 0, 1]
    joined = torch.cat([train.x, test.x]).flatten(1).sum(1).sort().values
    assert torch.equal(joined, whole.x.flatten(1).sum(1).sort().values)
    ((x, y),) = mnist(split="train", limit=30, batch=50).batches
    assert torch.equal(x, train.x[:30] / 255) and torch.equal(y, train.y[:30])


def test_unknown_split():
    with pytest.raises(ConfigError, match="split must be 'train' or 'test', not 'val'"):
        load_cifar10_exact("val")


def test_unknown_part_of_mnist():
    shared("mnist/t10k-images-idx3-ubyte.gz")
    with pytest.raises(ConfigError, match="split must be 'train' or 'test', not 'val'"):
        load_mnist("val")


def test_absent_data(monkeypatch, tmp_path):
    monkeypatch.setenv("SIGNBOOK_DATA", str(tmp_path))
    with pytest.raises(ConfigError, match="set SIGNBOOK_DATA to the folder that holds it"):
        load_mnist()


def test_of_several_files_the_largest(monkeypatch, tmp_path):
    monkeypatch.setenv("SIGNBOOK_DATA", str(tmp_path))
    for name, size in (("a1", 1), ("a2", 3), ("a3", 2)):
        (tmp_path / name).write_bytes(b"x" * size)
    assert data_file("a*").name == "a2"


HEAD = struct.pack(">HBBIII", 0, 8, 3, 2, 28, 28)


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"", id="empty"),
        pytest.param(gzip.compress(b""), id="empty archive"),
        pytest.param(gzip.compress(HEAD), id="no images"),
        pytest.param(gzip.compress(HEAD + bytes(2 * 28 * 28 + 1)), id="a byte too many"),
        pytest.param(
            gzip.compress(HEAD.replace(b"\x08", b"\x0d") + bytes(2 * 28 * 28)), id="floats"
        ),
        pytest.param(gzip.compress(HEAD + bytes(2 * 28 * 28))[:-9], id="cut archive"),
    ],
)
def test_damaged_idx_files(monkeypatch, tmp_path, raw):
    monkeypatch.setenv("SIGNBOOK_DATA", str(tmp_path))
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist/t10k-images-idx3-ubyte.gz").write_bytes(raw)
    with pytest.raises(ConfigError, match="must be a whole idx file of bytes"):
        load_mnist()


@pytest.mark.parametrize("keep", [0, 10, -100])
def test_damaged_npz_files(monkeypatch, tmp_path, keep):
    monkeypatch.setenv("SIGNBOOK_DATA", str(tmp_path))
    (tmp_path / "cifar10_exact").mkdir()
    path = tmp_path / "cifar10_exact/cifar10_exact.npz"
    np.savez(path, test_x=np.zeros((2, 3, 32, 32), np.uint8), test_y=np.zeros(2, np.uint8))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ConfigError, match="must be a whole npz file"):
        load_cifar10_exact()


def test_npz_file_without_the_arrays(monkeypatch, tmp_path):
    monkeypatch.setenv("SIGNBOOK_DATA", str(tmp_path))
    (tmp_path / "cifar10_exact").mkdir()
    np.savez(tmp_path / "cifar10_exact/cifar10_exact.npz", other=np.zeros(2))
    with pytest.raises(ConfigError, match=r"npz file with test_x, test_y, but it is damaged, or"):
        load_cifar10_exact()
