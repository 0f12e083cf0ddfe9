"""Parts of a method: each may be absent, and its rate follows the layer's grid."""

import math

import pytest
import torch

import vq
from vq.errors import ConfigError
from vq.formats.grids import range_grid
from vq.perturbation.composition import Clip, Composition, Perturb
from vq.perturbation.mask import Mask
from vq.perturbation.moves import FreeMove, SingularMove

G = vq.Int2(group=8).geometry("fc", "linear", (12, 20))
WEIGHT = torch.randn(12, 20, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("composition", "kinds", "clips", "trained"),
    [
        (Composition(clipping=Clip()), [], True, 36),
        (Composition(Perturb(), Clip()), [SingularMove], True, 12 + 36),
        (Composition(Perturb(Mask(2))), [SingularMove], False, 12 + 22 + 20),
        (Composition(Perturb(None)), [FreeMove], False, 240),
    ],
)
def test_parts_may_be_absent(composition, kinds, clips, trained):
    one = composition.weight(G, WEIGHT)
    assert [type(move) for move in one.moves] == kinds and (one.clipping is not None) == clips
    groups = one.groups()
    assert sum(p.numel() for group in groups for p in group["params"]) == trained
    assert len(groups) == len(kinds) + clips


def test_rates_are_shares_of_the_grids_step():
    move, clip = Composition(Perturb(Mask(1), 0.02), Clip(0.3)).weight(G, WEIGHT).groups()
    scale = float(range_grid(WEIGHT, G).scale.mean())
    assert move["lr"] == pytest.approx(0.02 * scale * math.sqrt(240 / 34))
    assert clip["lr"] == 0.3 and clip["weight_decay"] == 0


def test_impossible_settings_are_refused():
    for match, build in (
        (r"^clipping has 1 problem:\n- rate must be positive, not 0$", lambda: Clip(0)),
        (r"^clipping has 1 problem:\n- start must be finite, not inf$", lambda: Clip(start=1e999)),
        (r"rate must be positive, not nan$", lambda: Perturb(rate=math.nan)),
        (r"^composition must hold one part at least, not none$", Composition),
    ):
        with pytest.raises(ConfigError, match=match):
            build()
    assert Composition(Perturb(Mask(12))).problems(G) == [
        "width must be below its rank, 12, not 12"
    ]
    assert Composition(Perturb(None), Clip()).problems(G) == []
