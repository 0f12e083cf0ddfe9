"""Photographs: what is cut out and resized, what is drawn, and what damaged files are called."""

import io

import numpy as np
import pytest
import torch

from signbook.data import PhotoBatches, Photos, image_folder, imagenet_sample, imagenet_val
from signbook.data.factories import caltech101, imagenette160
from signbook.data.photos import load_packed, load_photo_folder
from signbook.naming import resolve_data
from tests.signbook.shared import shared
from vq.errors import ConfigError

pillow = pytest.importorskip("PIL.Image")


def encoded(pixels, kind="png"):
    """A file of an image [H, W, 3] or [H, W]."""
    file = io.BytesIO()
    pillow.fromarray(np.asarray(pixels, np.uint8)).save(file, kind)
    return file.getvalue()


def photos(*images):
    files = [encoded(image) for image in images]
    return Photos(range(len(files)), files.__getitem__, lambda i: f"image {i}")


@pytest.fixture
def wide():
    """4 x 8 pixels whose red says the column, and green the row."""
    image = np.zeros((4, 8, 3), np.uint8)
    image[..., 0] = np.arange(8) * 10
    image[..., 1] = np.arange(4)[:, None] * 10
    return image


def only(batches):
    ((x, y),) = batches
    return x, y


def test_the_middle_square_keeps_its_pixels(wide):
    x, y = only(PhotoBatches(photos(wide), size=4, crop=1.0, batch=1))
    assert y.tolist() == [0] and x.dtype == torch.float32
    assert torch.equal(x[0] * 255, torch.from_numpy(wide[:, 2:6]).permute(2, 0, 1).float())
    x, _ = only(PhotoBatches(photos(wide), size=2, crop=0.5, batch=1))
    assert (x[0, 0] * 255).tolist() == [[30, 40]] * 2
    assert (x[0, 1] * 255).tolist() == [[10, 10], [20, 20]]


def test_the_whole_image_is_resized_bicubically(wide):
    x, _ = only(PhotoBatches(photos(wide), size=4, batch=1))
    known = np.asarray(pillow.fromarray(wide).resize((4, 4), pillow.Resampling.BICUBIC))
    assert torch.equal(x[0] * 255, torch.from_numpy(known.copy()).permute(2, 0, 1).float())
    assert x[0, 0].max() > 60 / 255  # both ends are there


@pytest.mark.parametrize(
    ("normalize", "low", "high"),
    [
        ("none", 0, 1),
        ("half", -1, 1),
        ("lite", -127 / 128, 1),
        ("imagenet", -0.485 / 0.229, 0.515 / 0.229),
    ],
)
def test_values_by_normalisation(normalize, low, high):
    images = np.zeros((1, 1, 3)), np.full((1, 1, 3), 255)
    x, _ = only(PhotoBatches(photos(*images), size=1, normalize=normalize, batch=2))
    assert x[:, 0, 0, 0].tolist() == pytest.approx([low, high])


def test_grey_images_get_three_channels():
    x, _ = only(PhotoBatches(photos(np.full((2, 2), 51)), size=2, batch=1))
    assert torch.equal(x, torch.full((1, 3, 2, 2), 0.2))


def test_augmented_parts_are_large_enough_mirrored_and_repeatable():
    image = np.zeros((60, 60, 3))
    image[..., 0] = 4 * np.arange(60)
    image[..., 1] = 4 * np.arange(60)[:, None]
    many = photos(*[image] * 64)
    x, _ = only(PhotoBatches(many, size=60, augment=True, batch=64, seed=1))
    wide = (x[:, 0, 0, -1] - x[:, 0, 0, 0]) * 255 / 240  # shares of both sides
    high = (x[:, 1, -1, 0] - x[:, 1, 0, 0]) * 255 / 240
    assert 16 < (wide < 0).sum() < 48  # mirrored
    area, shape = wide.abs() * high, wide.abs() / high
    assert 0.3 < area.min() < 0.5 and 0.8 < area.max() <= 1
    assert 0.7 < shape.min() < 0.9 and 1.1 < shape.max() < 1.4
    again = PhotoBatches(many, size=60, augment=True, batch=64, seed=1)
    assert torch.equal(only(again)[0], x)
    assert not torch.equal(only(again)[0], x)  # another pass draws others
    again.epoch = 0
    assert torch.equal(only(again)[0], x)


def test_one_batch_is_decoded_at_a_time(wide):
    read = []
    file = encoded(wide)
    many = Photos([0] * 9, lambda i: read.append(i) or file, str)
    batches = iter(PhotoBatches(many, size=4, batch=2))
    assert next(batches)[0].shape == (2, 3, 4, 4)
    assert read == [0, 1]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"size": 0}, "^size must be a positive whole number of pixels, not 0$"),
        ({"size": True}, "^size must be a positive whole number of pixels, not True$"),
        ({"seed": -1}, "^seed must be 0 or more, not -1$"),
        ({"size": 9.5}, "^size must be a positive whole number of pixels, not 9.5$"),
        ({"crop": 1.5}, "^crop must be a share of the shorter side, above 0 and up to 1, or none "
                        "for the whole image, not 1.5$"),
        ({"crop": "centre"}, "^crop must be a share .* not 'centre'$"),
        ({"normalize": "no"}, "^normalize must be one of none, imagenet, half, lite, not 'no'$"),
    ],
)  # fmt: skip
def test_impossible_settings(wide, options, said):
    with pytest.raises(ConfigError, match=said):
        PhotoBatches(photos(wide), batch=1, **options)


@pytest.fixture
def folder(tmp_path, wide):
    """Two classes, three images, and files that are none."""
    for name in ("b/2.png", "a/1.png", "b/1.PNG", "b/notes.txt", ".hidden/1.png", "list.png"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(wide))
    return tmp_path / "photos"


def test_a_folder_on_the_command_line(folder):
    task = resolve_data(f"py:signbook.data.factories:image_folder?root={folder}&size=8&batch=3")
    x, y = only(task.batches)
    assert x.shape == (3, 3, 8, 8) and y.tolist() == [0, 1, 1]
    assert only(image_folder(root=str(folder), limit=1, batch=1).batches)[1].tolist() == [0]


def test_labels_by_a_list_of_classes(folder, tmp_path):
    (tmp_path / "classes").write_text("z zebra\n\nb bee\na ant, with wings\n")
    assert load_photo_folder(folder, tmp_path / "classes").y.tolist() == [2, 1, 1]
    (tmp_path / "classes").write_text("a\n")
    with pytest.raises(
        ConfigError,
        match=f"^{folder}: folder 'b' must be a class of {tmp_path}/classes, but is not; "
        "add or move it$",
    ):
        load_photo_folder(folder, tmp_path / "classes")
    (tmp_path / "classes").write_text("\n")
    with pytest.raises(ConfigError, match=f"^{folder}: folder 'a' must be a class of "):
        load_photo_folder(folder, tmp_path / "classes")
    (tmp_path / "classes").write_text("a ant\nb bee\na again\n")
    with pytest.raises(
        ConfigError,
        match=f"^{tmp_path}/classes: classes must be a folder's name a line, each once, not 'a' "
        "twice$",
    ):
        load_photo_folder(folder, tmp_path / "classes")


@pytest.mark.parametrize("content", [None, b"\xff\xfe\xff"])
def test_unreadable_list_of_classes(folder, tmp_path, content):
    if content:
        (tmp_path / "classes").write_bytes(content)
    reason = "it holds other bytes" if content else "No such file or directory"
    with pytest.raises(
        ConfigError,
        match=f"^{tmp_path}/classes: classes must be a text file with a folder's name a line, "
        f"but {reason}$",
    ):
        load_photo_folder(folder, tmp_path / "classes")


def test_folders_without_images(tmp_path):
    with pytest.raises(
        ConfigError,
        match=f"^{tmp_path}/no: must be a readable folder, but No such file or directory; "
        "see root$",
    ):
        load_photo_folder(tmp_path / "no")
    (tmp_path / "a").mkdir()
    with pytest.raises(
        ConfigError,
        match=rf"^{tmp_path}: must hold a folder of images \(.jpg, .*\) for each class, but 1 "
        "folders hold none$",
    ):
        load_photo_folder(tmp_path)


@pytest.mark.parametrize("kind", ["png", "jpeg", "gif"])
@pytest.mark.parametrize("damage", ["empty", "cut", "text"])
def test_damaged_images_are_named(folder, kind, damage):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3))
    whole = encoded(noise, kind)
    bad = {"empty": b"", "cut": whole[: len(whole) // 2], "text": b"<html>"}[damage]
    (folder / "b/1.PNG").write_bytes(bad)
    with pytest.raises(
        ConfigError,
        match=f"^{folder}/b/1.PNG: must be a whole image, but it is damaged, or none; "
        "replace it or leave it out$",
    ):
        list(PhotoBatches(load_photo_folder(folder), batch=1, size=2))


def test_images_that_vanish_are_named(folder):
    found = load_photo_folder(folder)
    (folder / "a/1.png").unlink()
    with pytest.raises(ConfigError, match=r"a/1.png: must be a whole image, but No such file or"):
        found.decode(0)


@pytest.fixture
def packed(monkeypatch, tmp_path, wide):
    """Write ``x/x.npz`` of three images, with offsets of one's own."""
    monkeypatch.setenv("SIGNBOOK_DATA", str(tmp_path))
    (tmp_path / "x").mkdir()
    files = [encoded(wide), b"none", encoded(wide)]

    def write(offsets=None):
        whole = np.cumsum([0, *map(len, files)])
        offsets = offsets and [whole[-1] if offset == "end" else offset for offset in offsets]
        np.savez(
            tmp_path / "x/x.npz", jpeg=np.frombuffer(b"".join(files), np.uint8),
            offsets=whole if offsets is None else np.array(offsets), y=np.array([5, 6, 7]),
        )  # fmt: skip
        return tmp_path / "x/x.npz"

    return write


def test_packed_images(packed):
    path = packed()
    two = load_packed("x/x.npz", limit=2)
    assert two.y.tolist() == [5, 6] and two.decode(0).size == (8, 4)
    with pytest.raises(ConfigError, match=f"^{path}: image 1 must be a whole image, but it is"):
        two.decode(1)


@pytest.mark.parametrize("offsets", [[0, 1, "end"], [0, 5, 3, "end"], [0, 1, 2, 3]])
def test_offsets_that_do_not_fit(packed, offsets):
    path = packed(offsets)
    with pytest.raises(
        ConfigError,
        match=rf"^{path}: offsets must rise to the \d+ bytes of jpeg, once for each of 3",
    ):
        load_packed("x/x.npz")


@pytest.mark.parametrize(
    ("door", "folder", "count", "classes"),
    [
        (imagenet_val, "imagenet_val", 650, 1000),
        (imagenet_sample, "imagenet_sample", 1000, 1000),
        (imagenette160, "imagenette160", 1500, 1000),
        (caltech101, "caltech101", 5142, 102),
    ],
)
def test_doors_of_the_shared_files(door, folder, count, classes):
    shared(folder)
    batches = door(batch=50).batches
    assert batches._count == count
    x, y = next(iter(door(batch=2, limit=20).batches))
    assert x.shape == (2, 3, 224, 224) and 0.1 < x.mean() < 0.9
    assert 0 <= y.min() and y.max() < classes
