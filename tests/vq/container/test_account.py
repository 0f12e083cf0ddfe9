"""Every byte of the compressed part is charged once, to one layer and one cause."""

from hypothesis import given
from hypothesis import strategies as st

from vq.container import Provenance, account, open_container, plan_file, write_container

from .samples import KEPT, PROPERTY, Sample, coded, grouped, int8, one_of_each, samples


def sums_up(path, layers: list[Sample]) -> None:
    rows = account([s.layer.geometry for s in layers])
    with open_container(path) as file:
        spans = file.tensor_spans()
        last = spans[f"{layers[-1].name}.stream"]
        first = next(iter(spans.values()))
        assert sum(row.total_bytes for row in rows) == last.offset + last.nbytes - first.offset


@PROPERTY
@given(st.data(), st.integers(1, 4))
def test_account_equals_the_file(scratch, data, count: int):
    layers = [data.draw(samples(f"layer{n}")) for n in range(count)]
    path = scratch / "account.vq.safetensors"
    write_container(path, [s.layer for s in layers], KEPT)
    sums_up(path, layers)


def test_account_with_a_shared_codebook(small):
    layers = one_of_each()
    sums_up(small, layers)
    rows = {row.geometry.name: row for row in account([s.layer.geometry for s in layers])}
    assert (rows["a"].codebook_bytes, rows["b"].codebook_bytes) == (20, 0)


def test_plain_layer_by_hand():
    # 128 × 256 weights, d = 8, k = 16: 4096 sub-vectors of 4 + 8 bits are 6144 bytes, 8 chunks.
    (row,) = account([coded(shape=(128, 256), d=8, k=16).layer.geometry])
    assert (row.stream_bytes, row.codebook_bytes, row.scale_bytes) == (6144, 128, 4)
    assert row.padding_bytes == 60  # after the scale; all else is whole
    assert row.bits_per_weight == 8 * 6336 / 32768


def test_the_same_formula_for_int8():
    (row,) = account([int8(shape=(3, 5), per_output=True).layer.geometry])
    assert (row.stream_bytes, row.codebook_bytes, row.scale_bytes) == (15, 0, 12)
    assert row.padding_bytes == (64 - 15) + (64 - 12)


def test_layers_without_a_scale_pay_for_none():
    """The rounding of ``_scales`` goes to the first layer that has one."""
    first, second = (coded(n, scales=s) for n, s in (("a", "none"), ("b", "layer")))
    rows = account([first.layer.geometry, second.layer.geometry])
    assert [row.scale_bytes for row in rows] == [0, 4]
    assert rows[1].padding_bytes - rows[0].padding_bytes == 60


def test_groups_count_as_scales():
    (row,) = account([grouped(shape=(6, 10), group=4).layer.geometry])
    assert row.stream_bytes == 30  # 60 codes of 4 bits
    assert row.scale_bytes == 18 * 2 + 18  # fp16 scale and uint8 zero
    assert row.padding_bytes == (256 - 30) + (64 - 36) + (64 - 18)


def test_rom_codebook_is_free():
    plain = coded().layer.geometry
    rom = plain.__class__.from_json({**plain.to_json(), "codebook": "rom:" + 64 * "0"})
    (row,) = account([rom])
    assert row.codebook_bytes == 0


def test_nothing_costs_nothing():
    assert account([]) == []
    assert plan_file([], {}, Provenance()).file_bytes == 4096
