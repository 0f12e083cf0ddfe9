"""LSI moves singular values, and a corner where it has one."""

import pytest

import vq
from tests.rescomp.models import chain, vectors
from vq.errors import ConfigError
from vq.methods.lsi import lsi_

RECIPE = vq.Recipe({"*": vq.Int2(group=8)})


def test_an_increment_for_every_singular_value():
    settings = {"epochs": 1, "held_out": 0, "clip": None}
    plain = lsi_(chain().eval(), vectors(2, rows=32), RECIPE, **settings)
    assert [layer.trained for layer in plain.layers] == [12, 16, 4]
    corner = lsi_(chain().eval(), vectors(2, rows=32), RECIPE, corner=3, **settings)
    assert [layer.trained for layer in corner.layers] == [12 + 6, 16 + 6, 4 + 6]


def test_a_corner_beyond_the_rank_is_refused():
    with pytest.raises(ConfigError, match=r"layer '4': corner must be at most its rank, 4, not 5"):
        lsi_(chain().eval(), vectors(2), RECIPE, corner=5)
