"""Layers that are drawn as one: nothing is lost, and the rule is the stated one."""

from hypothesis import given
from hypothesis import strategies as st

from hwsim.measure.document import Layer, Run, Stalls
from signbook.reporting.places import PLACES, places


def layer(name: str, *, method: str = "ssvq", weights: int = 64, memory: int = 3) -> Layer:
    stalls = Stalls(memory=memory, codebook=0, decoder=0, compute=1, writeback=0)
    return Layer(
        name=name, method=method, weights=weights, macs=weights * 4, m=4, busy_cycles=2,
        stall_cycles=stalls, cycles=memory + 3, bytes_read=weights // 4,
    )  # fmt: skip


def run(layers: list[Layer]) -> Run:
    """Only the layers matter here."""
    return Run.model_construct(layers=layers)


def transformer(blocks: int) -> dict[str, Run]:
    names = [f"model.layers.{i}.{part}" for i in range(blocks) for part in ("q", "k", "up", "down")]
    sizes = {"q": 64, "k": 64, "up": 128, "down": 256}
    layers = [layer(name, weights=sizes[name.rpartition(".")[2]]) for name in [*names]]
    layers.append(layer("lm_head", method="int8", weights=512))
    return {"compressed": run(layers), "int8": run(layers)}


def test_few_layers_stay_as_they_are():
    found = places(transformer((PLACES - 1) // 4))
    assert [place.count for place in found] == [1] * len(found)
    assert found[0].name == "model.layers.0.q"


def test_blocks_that_repeat_are_one():
    found = places(transformer(32))
    assert [place.name for place in found] == [
        "model.layers.{0..31}.q", "model.layers.{0..31}.k", "model.layers.{0..31}.up",
        "model.layers.{0..31}.down", "lm_head",
    ]  # fmt: skip
    assert [place.count for place in found] == [32, 32, 32, 32, 1]
    assert found[0].runs["int8"].cycles["memory"] == 32 * 3


def test_a_block_that_differs_stands_apart():
    layers = [layer(f"blocks.{i}.fc", method="int8" if i == 5 else "ssvq") for i in range(30)]
    found = places({"compressed": run(layers)})
    assert [place.name for place in found] == ["blocks.{0..4, 6..29}.fc", "blocks.5.fc"]


def test_numbers_inside_words_do_not_repeat():
    found = places({"compressed": run([layer(f"conv{i}") for i in range(23)])})
    assert len(found) == 23


def test_the_smallest_are_put_together():
    layers = [layer(f"odd{i}", memory=100 - i) for i in range(40)]
    found = places({"compressed": run(layers)})
    assert len(found) == PLACES
    assert [place.name for place in found] == [f"odd{i}" for i in range(23)] + ["17 other layers"]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b.{}.x", "b.{}.y", "c.{}.{}", "²"]),
            st.integers(0, 3),
            st.integers(0, 50),
            st.integers(0, 3),
        ),
        min_size=1,
        max_size=80,
    ),
    st.integers(2, 30),
)
def test_nothing_is_lost(rows, limit):
    layers = [
        layer(name.format(i, i + 1), weights=16 * size, memory=memory)
        for name, i, memory, size in rows
    ]
    found = places({"compressed": run(layers), "int8": run(layers)}, limit)
    assert len(found) <= max(limit, 1)
    assert sum(place.count for place in found) == len(layers)
    for name in ("compressed", "int8"):
        parts = [place.runs[name] for place in found]
        assert sum(part.total for part in parts) == sum(one.cycles for one in layers)
        assert sum(part.macs for part in parts) == sum(one.macs for one in layers)
        assert sum(part.bytes_read for part in parts) == sum(one.bytes_read for one in layers)
