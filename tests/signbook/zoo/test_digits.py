"""The digits, and the transformer that learns them."""

from signbook.demo import ARMS
from signbook.zoo.digits import DigitBatches, DigitsViT, load_digits


def test_split_is_held_out_and_seeded():
    data, again, other = load_digits(0), load_digits(0), load_digits(1)
    assert len(data.train_y) == 1347 and len(data.test_y) == 450
    assert data.test_x.equal(again.test_x) and not data.test_x.equal(other.test_x)
    train = {image.numpy().tobytes() for image in data.train_x}
    assert not any(image.numpy().tobytes() in train for image in data.test_x)


def test_batches_shift_images_and_repeat_by_seed():
    data = load_digits()
    first, again = (list(DigitBatches(data, seed=3)) for _ in range(2))
    assert all(a[0].equal(b[0]) and a[1].equal(b[1]) for a, b in zip(first, again, strict=True))
    batches = DigitBatches(data, seed=3)
    assert not next(iter(batches))[0].equal(next(iter(batches))[0])
    originals = {image.numpy().tobytes() for image in data.train_x}
    unshifted = sum(image.numpy().tobytes() in originals for image in first[0][0])
    assert 0 < unshifted < len(first[0][0]) / 2


def test_block_linears_are_what_the_demo_compresses():
    linears = [
        n for n, _ in DigitsViT().named_modules() if n.endswith(("qkv", "proj", "fc1", "fc2"))
    ]
    chosen = ARMS["ssvq"].resolve([n for n, _ in DigitsViT().named_modules() if n])
    assert all(chosen[name] is not None for name in linears)
    assert chosen["head"] is None and chosen["stem.0"] is None
