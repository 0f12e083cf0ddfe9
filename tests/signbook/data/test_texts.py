"""Stories, paragraphs, sentences and their tokens."""

import pytest
import torch

from signbook.data import (
    detokenized,
    factories,
    load_stories,
    load_wikitext2,
    sentences_of,
    tinyshakespeare,
    tinystories,
    token_batches,
    wikitext2,
    wikitext2_sentences,
)
from signbook.data.texts import masked_batches
from signbook.data.tokenizing import Words
from signbook.tasks import TextProtocol
from tests.signbook.shared import shared
from vq.errors import ConfigError

TEXT = """\
Spot ran.

He came back.

Once upon a time, there was a dog.

It barked.

One day, it slept.

There was a cat.
"""


def test_stories_start_where_they_are_known_to(monkeypatch, tmp_path):
    monkeypatch.setenv("SIGNBOOK_DATA", str(tmp_path))
    (tmp_path / "tinystories_text").mkdir()
    (tmp_path / "tinystories_text/tinystories_val_small.txt").write_text(TEXT)
    assert load_stories() == [
        "Spot ran.\nHe came back.",
        "Once upon a time, there was a dog.\nIt barked.",
        "One day, it slept.",
        "There was a cat.",
    ]


def test_token_batches_score_what_can_be_predicted():
    batches = token_batches([[1, 5, 6], [1, 7], [9], [1, 2, 3, 4, 5]], batch=2, length=4, filler=0)
    (first, scored), (second, _) = batches
    assert first.tolist() == [[1, 5, 6], [1, 7, 0]]
    assert scored.tolist() == [[False, True, True], [False, True, False]]
    assert second.tolist() == [[1, 2, 3, 4]]
    assert scored.dtype == torch.bool and first.dtype == torch.int64


@pytest.mark.parametrize(("batch", "length"), [(0, 8), (4, 1)])
def test_impossible_token_batches(batch, length):
    with pytest.raises(ConfigError, match="batch must be positive and length 2 or more"):
        token_batches([[1, 2]], batch=batch, length=length)


def test_sentences():
    paragraph = (
        "The cat sat on the mat with Mr. Brown . It purred . "
        'When the dog came in , the cat left the room . " Stay here for a while , " he said to it .'
    )
    assert sentences_of([paragraph, paragraph]) == [
        "The cat sat on the mat with Mr. Brown .",
        "When the dog came in , the cat left the room .",
        '" Stay here for a while , " he said to it .',
    ]
    assert len(sentences_of([paragraph], limit=1)) == 1


def test_validation_and_training_stories_are_disjoint():
    shared("tinystories_text")
    shared("stories260K/tok512.bin")
    stories = load_stories()
    validation, training = tinystories(), tinystories(skip=120, limit=None)
    assert sum(len(tokens) for tokens, _ in validation.batches) == 120
    assert sum(len(tokens) for tokens, _ in training.batches) == len(stories) - 120


def test_wikitext_rows():
    shared("wikitext2/valid.txt")
    shared("stories260K/tok512.bin")
    paragraphs = load_wikitext2()
    assert paragraphs[0].startswith("Homarus gammarus , known as")
    batches = wikitext2(limit=5, batch=2, length=64).batches
    assert [tuple(tokens.shape) for tokens, _ in batches] == [(2, 64), (2, 64), (1, 64)]


def test_sentence_inputs():
    shared("wikitext2/valid.txt")
    pytest.importorskip("transformers")
    try:
        task = wikitext2_sentences(limit=10, batch=4)
    except ConfigError as error:
        pytest.skip(str(error))
    assert [len(inputs["input_ids"]) for inputs in task.batches] == [4, 4, 2]
    assert set(task.batches[0]) == {"input_ids", "attention_mask"}


def test_rows_of_an_encoder_are_cut_before_what_ends_them():
    (one,) = masked_batches([[9, 1, 2, 3, 4, 8], [9, 5, 8], [9, 8]], [9, 8], batch=3, length=4)
    assert one["input_ids"].tolist() == [[9, 1, 2, 8], [9, 5, 8, 0], [9, 8, 0, 0]]
    assert one["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0]]
    (bare,) = masked_batches([[1, 2, 3]], [], batch=1, length=2)
    assert bare["input_ids"].tolist() == [[1, 2]]


@pytest.mark.parametrize(
    ("spaced", "written"),
    [
        (" = = = Size = = = \n", "=== Size ===\n"),
        ("about 1 @,@ 500 to 5 @.@ 4 , red @-@ tipped", "about 1,500 to 5.4, red-tipped"),
        ('He said , " No ! " and left " it " .', 'He said, "No!" and left "it".'),
        ("It isn 't Ann 's ; the lords ' cars ( 2 % ) .", "It isn't Ann's; the lords' cars (2%)."),
        ("the ' best ' of [ all ] for $ 5 : 20 ° \n", "the 'best' of [all] for $5: 20°\n"),
        ('one " quote \n two " quotes', 'one " quote\ntwo " quotes'),  # of a line, never of two
    ],
)
def test_wikitext_is_written_as_it_was(spaced, written):
    assert detokenized(spaced) == written


@pytest.fixture
def counted(monkeypatch, tmp_path):
    """A text of 120 tokens, each its own place, whatever the tokenizer."""
    monkeypatch.setenv("SIGNBOOK_DATA", str(tmp_path))
    (tmp_path / "tinyshakespeare").mkdir()
    (tmp_path / "tinyshakespeare/input.txt").write_text(" ".join(map(str, range(120))))
    monkeypatch.setattr(
        factories, "words_of", lambda name: Words(lambda text: [*map(int, text.split())], str)
    )


def rows(**options):
    return [
        tokens[0].tolist() for tokens, _ in tinyshakespeare(batch=1, length=8, **options).batches
    ]


def test_parts_of_a_text_share_nothing(counted):
    bounds = {"all": (0, 120), "calibrate": (0, 70), "choose": (70, 80), "judge": (80, 120)}
    for part, (first, end) in bounds.items():
        assert [token for row in rows(part=part) for token in row] == [*range(first, end)]
    with pytest.raises(
        ConfigError, match=r"^part must be one of all, calibrate, choose, judge, not 'test'$"
    ):
        tinyshakespeare(part="test")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"length": 0}, "^length must be a whole number of 2 or more, not 0$"),
        ({"limit": -3}, "^limit must be a whole number of 1 or more, not -3$"),
        ({"limit": "few"}, "^limit must be a whole number of 1 or more, not 'few'$"),
        ({"seed": -1}, "^seed must be a whole number of 0 or more, not -1$"),
        (
            {"part": "choose", "length": 11, "seed": 0},
            "^length must be 10 tokens at most, as many as this text has, to draw rows of it, not "
            "11$",
        ),
    ],
)
def test_impossible_rows(counted, options, said):
    with pytest.raises(ConfigError, match=said):
        tinyshakespeare(**options)


def test_a_seed_draws_whole_rows(counted):
    drawn = rows(part="calibrate", seed=1)
    assert sorted(drawn) == [[*range(i, i + 8)] for i in range(0, 64, 8)]
    assert drawn[:3] == rows(part="calibrate", seed=1, limit=3) != rows(part="calibrate", limit=3)
    assert rows(part="calibrate", seed=2) != drawn
    task = tinyshakespeare(part="judge", length=8, limit=2, seed=3)
    assert task.protocol == TextProtocol(
        "tinyshakespeare, drawn with seed 3, part 'judge', 2 rows", "stories260k", 8, 8
    )
