"""The golden model against loops over integers, and against itself row by row."""

import numpy as np
import pytest

from tests.vq.integer.tokens import naive
from tests.vq.integer.tokens.models import CONTEXT, WORDS, padded, stored, texts
from vq.container import ContainerError
from vq.integer.tokens import Cache, Rows


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    return stored("llama", tmp_path_factory.mktemp("golden"))


def same(seen, names, found) -> None:
    for name in names:
        value = found[name]
        if isinstance(value, Rows):
            parts = (value.codes[0], value.factor[0, :, 0], value.shift[0, :, 0])
            for at, one in enumerate(parts):
                assert one.tolist() == [row[at] for row in seen[name]], name
        else:
            assert value[0].tolist() == np.asarray(seen[name]).tolist(), name


@pytest.mark.parametrize("name", ["llama", "stream", "vision", "encoder"])
@pytest.mark.parametrize(
    "operands,shares", [("int8", "rows"), ("rows", "int16"), ("int16", "rows")]
)
def test_every_node_gives_what_loops_over_integers_give(
    tmp_path, monkeypatch, name, operands, shares
):
    if name == "stream":
        name = "llama"
        monkeypatch.setattr("vq.integer.tokens.build._MASSIVE", 1)
    path, _, model = stored(name, tmp_path, operands=operands, shares=shares)
    names = [n.name for n in model.graph.nodes if n.op not in ("tokens", "angles", "constant")]
    if name == "vision":
        image = np.random.default_rng(0).integers(-128, 128, (1, 1, 8, 8)).astype(np.int8)
        same(naive.forward(path, image[0]), names, model.trace(image))
        return
    tokens, length = texts(1, 6, seed=5).numpy(), 4 if name == "encoder" else None
    lengths = None if length is None else np.array([length])
    seen = naive.forward(path, tokens[0, :length].tolist(), length)
    found = model.trace(tokens, lengths=lengths)
    kept = {
        n: v if isinstance(v, Rows) or v.shape[1] == 1 else v[:, : length or 6]
        for n, v in found.items()
    }
    kept |= {n: v[:, : length or 6] for n, v in found.items() if isinstance(v, Rows)}
    same(seen, names, kept)


def test_a_text_row_by_row_gives_the_integers_of_all_rows_at_once(case):
    _, _, model = case
    tokens = texts(3).numpy()
    whole = model.run(tokens)
    cache = Cache()
    parts = [model.run(tokens[:, :5], cache=cache)]
    parts += [model.run(tokens[:, i : i + 1], cache=cache) for i in range(5, CONTEXT)]
    assert cache.past == CONTEXT
    assert np.array_equal(np.concatenate(parts, axis=1), whole)


def test_later_tokens_change_nothing_of_a_causal_text(case):
    _, _, model = case
    tokens = texts(2).numpy()
    other = tokens.copy()
    other[:, 7:] = (other[:, 7:] + 1) % WORDS
    first, second = model.run(tokens), model.run(other)
    assert np.array_equal(first[:, :7], second[:, :7])
    assert not np.array_equal(first[:, 7:], second[:, 7:])


def test_padding_changes_nothing(tmp_path):
    _, _, model = stored("encoder", tmp_path)
    batch = padded()
    lengths = batch["attention_mask"].sum(1).numpy()
    found = model.run(batch["input_ids"].numpy(), lengths=lengths)
    assert found.shape == (4, 8)
    alone = model.run(batch["input_ids"][1:2, :5].numpy())
    assert np.array_equal(found[1:2], alone)


def test_parts_of_a_batch_are_what_the_whole_is(case, monkeypatch):
    _, _, model = case
    tokens = texts(5).numpy()
    whole = model.run(tokens)
    monkeypatch.setattr("vq.integer.tokens.golden._ROWS", 2 * CONTEXT)
    monkeypatch.setattr("vq.integer.tokens.golden._SCORES", 100)
    assert np.array_equal(model.run(tokens), whole)


def test_inputs_that_do_not_fit_are_refused(case, tmp_path):
    _, _, model = case
    with pytest.raises(ContainerError, match="tokens must be at most 12, its context, not 13"):
        model.run(np.zeros((1, 13), int))
    cache = Cache()
    model.run(np.zeros((1, 10), int), cache=cache)
    with pytest.raises(ContainerError, match="at most 12, its context, not 13"):
        model.run(np.zeros((1, 3), int), cache=cache)
    assert cache.past == 10
    with pytest.raises(ContainerError, match="tokens must be 0 to 29, which it knows, not 30"):
        model.run(np.array([[3, 30]]))
    with pytest.raises(ContainerError, match="not -1"):
        model.run(np.array([[-1]]))
    with pytest.raises(ContainerError, match=r"tokens must be \[B, T\], at least one"):
        model.run(np.zeros((2, 0), int))
    with pytest.raises(ContainerError, match=r"lengths must be \[1\], 1 to 3, not \[4\]"):
        model.run(np.zeros((1, 3), int), lengths=np.array([4]))
    with pytest.raises(ContainerError, match="a cache must come without padding"):
        model.run(np.zeros((1, 3), int), lengths=np.array([2]), cache=Cache())
    _, _, encoder = stored("encoder", tmp_path)
    with pytest.raises(ContainerError, match="do not depend on later ones"):
        encoder.run(np.zeros((1, 3), int), cache=Cache())


def test_images_that_do_not_fit_are_refused(tmp_path):
    _, _, model = stored("vision", tmp_path)
    with pytest.raises(ContainerError, match=r"input must be \[B, 1, 8, 8\], not \[2, 3, 8, 8\]"):
        model.run(np.zeros((2, 3, 8, 8), np.int8))
    with pytest.raises(ContainerError, match="input must be finite"):
        model.quantize(np.full((1, 1, 8, 8), np.nan))
    with pytest.raises(ContainerError, match="images must come without lengths and cache"):
        model.run(np.zeros((1, 1, 8, 8), np.int8), cache=Cache())
