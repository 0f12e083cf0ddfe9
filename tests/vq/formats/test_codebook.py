"""Settings of codebooks: what they cost, what they fit, and what follows from what is given."""

from dataclasses import replace

import pytest

from vq import SSVQ, VQ, Int8, Recipe
from vq.container import ContainerError


def test_d_and_k_are_the_formats_own_unless_given():
    assert (SSVQ().d, SSVQ().k, VQ().d, VQ().k) == (8, 16, 4, 64)
    assert SSVQ(k=4) == SSVQ(8, 4) and replace(SSVQ(d=4), tile_outputs=8).d == 4
    assert repr(VQ()).startswith("VQ(d=4, k=64, axis='auto', scale='layer'")
    assert Recipe.from_yaml("a: {method: vq, k: 8}\n").rules["a"] == VQ(4, 8)


@pytest.mark.parametrize(
    ("op", "shape", "axis"),
    [("linear", (8, 4), "in"), ("conv2d", (8, 1, 3, 3), "out"), ("conv2d", (8, 8, 3, 3), "in")],
)
def test_the_direction_follows_from_the_layer(op, shape, axis):
    assert SSVQ(d=8).geometry("a", op, shape).axis == axis


def test_misfits():
    assert SSVQ(d=8, k=16).misfit("linear", (4, 16)) == [
        "k must be at most its 8 sub-vectors, not 16"
    ]
    assert SSVQ(d=8, k=16, shared="s").misfit("linear", (4, 16)) == []
    alone = [VQ(shared="s").geometry(name, "linear", (4, 16)) for name in "ab"]
    assert VQ(shared="s").misfit_together(alone) == [
        "codebook 's': k must be at most the 32 sub-vectors of its layers, not 64"
    ]
    assert VQ(k=32, shared="s").misfit_together(alone) == []
    assert SSVQ(d=3).misfit("conv2d", (8, 1, 3, 3)) == [
        "tile_outputs must be a multiple of d = 3, not 16"
    ]


def test_one_codebook_is_one_format():
    assert SSVQ(axis="out").agrees_with(SSVQ(scale="output"))
    assert not SSVQ().agrees_with(SSVQ(k=8)) and not SSVQ(4, 8).agrees_with(VQ(4, 8))
    assert not SSVQ().agrees_with(Int8())


def test_what_is_stored():
    g = SSVQ(d=8, parity=True, scale="output").geometry("a", "linear", (6, 16))
    assert (g.method, g.sign_bits, g.scales, g.codebook) == ("ssvq", 7, 6, "a.codebook")
    g = VQ(scale="norm", shared="s").geometry("a", "linear", (6, 16))
    assert (g.method, g.sign_bits, g.scales, g.codebook) == ("vq", 0, 0, "codebook:s")
    with pytest.raises(ContainerError, match="d must be 1 to 64, not 65"):
        VQ(d=65).geometry("a", "linear", (6, 65))


class Clock:
    """Notes what is asked."""

    def seconds(self, points, d, k, *, weighted, passes=0):
        self.asked = points, d, k, weighted, passes
        return 1.0


def test_cost():
    clock, name = Clock(), f"sha256:{'0' * 64}"
    whole = [SSVQ(d=4).geometry(n, "linear", (8, 16)) for n in "ab"]
    ragged = [SSVQ(d=4).geometry("a", "linear", (8, 17))]
    assert SSVQ(d=4).seconds(whole, clock) == 1.0 and clock.asked == (64, 4, 16, False, 0)
    SSVQ(d=4).seconds(ragged, clock)
    assert clock.asked == (40, 4, 16, True, 0)
    SSVQ(d=4, k=16, codebook=name).seconds(whole, clock)
    assert clock.asked[-1] > 0  # assignments only
    assert SSVQ(d=4).memory_bytes(ragged) > SSVQ(d=4).memory_bytes(whole[:1])
    assert SSVQ(d=4).held_bytes(whole) == 4 * (64 + 256)  # indices and latent signs
    assert VQ(d=4).held_bytes(whole) == 4 * 64
