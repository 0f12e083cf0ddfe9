"""The door: what is stored is what was computed with, and bad input is refused by name."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import vq
from rescomp import GPTAQ, GPTQ, GPTQR, QEP, RTN, Clip, Settings, Statistics, quantize_matrix
from tests.rescomp.oracles import problem
from tests.vq.container.samples import PROPERTY
from vq import Int2, Int3, Int4, Int8, Recipe
from vq.container import Geometry, open_container, write_container
from vq.errors import ConfigError, UnsupportedLayerError, WeightError
from vq.formats.clip import fit_grid
from vq.formats.grids import levels_of, range_grid, spread
from vq.formats.model import compressed_layers
from vq.formats.scalar_weights import ScalarWeight

KINDS = [Int4(group=16), Int3(group=7, zeros=True), Int2(group=1000), Int8()]
PLAIN = Settings(activation_order=False)


def linear(shape, kind=KINDS[0]):
    return kind.geometry("fc", "linear", shape)


def identity(inputs, tokens=10**6):
    return Statistics(torch.eye(inputs), None, tokens)


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("method", [RTN(), GPTQ(), GPTQR(mode="org"), QEP()], ids=str)
@pytest.mark.parametrize("clip", [None, Clip(steps=10)])
def test_every_reader_decodes_the_weight_of_the_solver(tmp_path, kind, method, clip):
    p = problem(9, 40)
    g = kind.geometry("fc", "linear", p.weight.shape)
    found = quantize_matrix(p.tensor(), g, method, p.statistics(torch.float32), Settings(clip=clip))
    write_container(tmp_path / "x", [found.to_layer()])
    with open_container(tmp_path / "x") as file:
        assert file.geometry("fc") == g
        assert file.weight("fc").tobytes() == found.weight.numpy().tobytes()
        assert np.array_equal(file.integers("fc"), found.integers.numpy())
    if g.group:
        weight = ScalarWeight(g, found.weight, found.grid)
        assert torch.equal(weight(found.weight), found.weight)  # codes round to themselves


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_rounding_to_nearest_is_what_compress_does(kind):
    model = nn.Sequential(nn.Conv2d(6, 5, 3))
    weight = model[0].weight.detach().clone()
    vq.compress_(model, Recipe({"*": kind}))
    (layer,) = compressed_layers(model)
    want = layer.to_layer()
    g = want.geometry
    matrix = weight.movedim(1, -1).reshape(g.O, g.I)
    got = quantize_matrix(matrix, g, RTN()).to_layer()
    assert got.geometry == g and np.array_equal(got.stream, want.stream)
    assert np.array_equal(got.scale, want.scale)
    if g.group:
        assert np.array_equal(got.group_scales, want.group_scales)
        assert not g.zeros or np.array_equal(got.group_zeros, want.group_zeros)


@PROPERTY
@given(
    st.sampled_from([RTN(), GPTQ(), GPTAQ(1.0), GPTQR(0.5, "org"), QEP()]),
    st.sampled_from([2, 3, 4]), st.booleans(), st.booleans(), st.booleans(),
    st.integers(1, 12), st.integers(1, 20), st.integers(1, 9), st.integers(1, 50),
    st.integers(0, 2**16),
)  # fmt: skip
def test_any_shape_gives_codes_in_range(
    method, bits, zeros, ordered, clipped, outputs, inputs, group, leaf, seed
):
    torch.manual_seed(seed)
    kind = {2: Int2, 3: Int3, 4: Int4}[bits](group=group, zeros=zeros)
    x = torch.randn(30, inputs)
    s = Statistics.empty(inputs, cross=True)
    s.add(x, x + 0.1 * torch.randn(30, inputs))
    weight = torch.randn(outputs, inputs)
    before = weight.clone(), s.hessian.clone(), s.cross.clone()
    clip = Clip(steps=5) if clipped else None
    dynamic = not ordered and bits != 3 and not (isinstance(method, GPTQR) and inputs > 1)
    settings = Settings(activation_order=ordered, dynamic_groups=dynamic, clip=clip, leaf=leaf)
    found = quantize_matrix(weight, linear((outputs, inputs), kind), method, s, settings)
    layer = found.to_layer()  # refuses codes out of range
    assert layer.geometry.groups == outputs * -(-inputs // group)
    assert torch.isfinite(found.weight).all()
    assert found.report.damping == (0 if method == RTN() else 0.01)
    for now, then in zip((weight, s.hessian, s.cross), before, strict=True):
        assert torch.equal(now, then)


def test_dynamic_grids_are_those_of_the_weights_of_their_turn():
    """By hand: the second group's only column is 1 + 0.5 * (what rounding took from the first)."""
    weight = torch.tensor([[3.0, 1.3, 1.0]], dtype=torch.float64)
    hessian = torch.eye(3, dtype=torch.float64)
    hessian[1, 2] = hessian[2, 1] = 0.5
    kind = Int2(group=2)
    settings = Settings(damping=0, activation_order=False, dynamic_groups=True, dtype=torch.float64)
    s = Statistics(hessian, None, 9)
    found = quantize_matrix(weight, linear((1, 3), kind), GPTQ(), s, settings)
    assert found.grid.scale.tolist() == [[2.0, float(np.float16((1 - 0.35) / 1.5))]]
    assert found.integers.tolist() == [[1, 1, 1]]
    fixed = quantize_matrix(weight, linear((1, 3), kind), GPTQ(), s, PLAIN)
    assert fixed.grid.scale[0, 1] == float(np.float16(1 / 1.5))


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_clipping_is_the_best_of_its_candidates(bits, zeros):
    torch.manual_seed(bits)
    weight = torch.randn(5, 23) ** 3
    weight[2, :10] = 0
    kind = {2: Int2, 3: Int3, 4: Int4}[bits](group=10, zeros=zeros)
    g = linear((5, 23), kind)
    clip = Clip(shrink=0.7, steps=20, power=1.7)

    def errors(grid):
        scale = spread(grid.scale, g)
        low, high = levels_of(g, None if grid.zero is None else spread(grid.zero, g))
        gap = ((weight / scale).round().clamp(low, high) * scale - weight).abs() ** clip.power
        return torch.stack([part.sum(dim=1) for part in gap.split(10, dim=1)], dim=1)

    tried = [errors(range_grid(weight * (1 - i / 20), g)) for i in range(14)]
    got = errors(fit_grid(weight, g, clip))
    torch.testing.assert_close(got, torch.stack(tried).amin(dim=0))
    assert (got < tried[0]).any() and got[2, 0] == 0
    whole = fit_grid(weight, g, clip).scale
    rows = torch.cat([fit_grid(row[None], linear((1, 23), kind), clip).scale for row in weight])
    assert torch.equal(whole, rows)


def test_clipping_int8_and_many_rows():
    torch.manual_seed(0)
    weight = torch.randn(3000, 65)
    weight[:, 0] = 100
    full = fit_grid(weight, linear((3000, 65), Int8())).scale
    got = fit_grid(weight, linear((3000, 65), Int8()), Clip(steps=10)).scale
    assert full.shape == got.shape == (3000, 1)
    assert (got <= full).all()
    zeros = fit_grid(torch.zeros(2, 5), linear((2, 5), Int8()), Clip(steps=10))
    assert zeros.scale.tolist() == [[1], [1]]


def test_damping_is_raised_until_the_result_is_finite():
    """Four equal inputs: singular, and no multiple of an empty damping helps."""
    x = torch.randn(50, 1).repeat(1, 4)
    s = Statistics.empty(4)
    s.add(x)
    s.hessian.fill_(float(s.hessian[0, 0]))
    s.hessian.diagonal().mul_(0.9995)  # not quite semi-definite
    weight = torch.randn(3, 4)
    for start, used in ((0, 1e-3), (1e-4, 1e-3), (0.01, 0.01)):
        found = quantize_matrix(weight, linear((3, 4)), GPTQ(), s, Settings(damping=start))
        assert found.report.damping == pytest.approx(used)
        assert torch.isfinite(found.weight).all()
    s.hessian.fill_(1.0).diagonal().fill_(0.1)
    with pytest.raises(ConfigError, match=r"^layer 'fc': hessian must be positive semi-definite"):
        quantize_matrix(weight, linear((3, 4)), GPTQ(), s)


def test_an_overflow_in_the_loop_raises_the_damping():
    """Huge cross terms leave no number in float32; all damping there is does not help."""
    s = identity(6)
    s.cross = torch.full((6, 6), 1e30)
    with pytest.raises(ConfigError, match="positive semi-definite"):
        quantize_matrix(torch.randn(3, 6), linear((3, 6)), GPTAQ(1.0), s)


def test_inputs_that_are_always_zero():
    s = Statistics.empty(4)
    s.add(torch.zeros(9, 4))
    found = quantize_matrix(torch.randn(2, 4), linear((2, 4)), GPTQ(), s)
    assert found.report.dead_columns == 4 and not found.weight.any()
    assert quantize_matrix(torch.ones(2, 4), linear((2, 4)), RTN(), s).weight.all()


def test_few_tokens_are_warned_about_with_their_number():
    torch.manual_seed(0)
    s = Statistics.empty(8)
    s.add(torch.randn(2, 3, 8))
    want = r"^layer 'fc': statistics should hold a token for each of 8 inputs, not 6;"
    with pytest.warns(UserWarning, match=want) as caught:
        found = quantize_matrix(torch.randn(3, 8), linear((3, 8)), GPTQ(), s)
    assert caught[0].filename == __file__ and len(caught) == 1
    assert found.report.tokens == 6
    quantize_matrix(torch.randn(3, 8), linear((3, 8)), RTN(), s)


def test_reports():
    p = problem()
    g = linear(p.weight.shape)
    s = p.statistics()
    found = quantize_matrix(p.tensor(), g, QEP(), s)
    weight = found.weight.double()
    assert found.report.error == s.error(p.tensor(), weight)
    assert found.report.asymmetric_error == s.asymmetric_error(p.tensor(), weight) < 0
    want = p.error(weight) - p.error(p.weight)
    assert found.report.asymmetric_error == pytest.approx(want, rel=1e-9)
    unmeasured = quantize_matrix(p.tensor(), g, QEP(), s, Settings(measure=False)).report
    assert (unmeasured.error, unmeasured.asymmetric_error) == (None, None)
    assert quantize_matrix(p.tensor(), g, RTN()).report.error is None
    symmetric = Statistics(s.hessian, None, s.tokens)
    report = quantize_matrix(p.tensor(), g, GPTQ(), symmetric).report
    assert report.error == report.asymmetric_error > 0


def test_half_precision_weights_are_widened():
    p = problem()
    weight = p.tensor().bfloat16()
    for method in (RTN(), GPTQ()):
        a, b = (
            quantize_matrix(w, linear(p.weight.shape), method, p.statistics())
            for w in (weight, weight.float())
        )
        assert torch.equal(a.weight, b.weight)


@pytest.mark.parametrize(
    ("weight", "statistics", "method", "error", "message"),
    [
        ((3, 5), 4, GPTQ(), ConfigError, r"layer 'fc': weight must be \[3, 4\], not \[3, 5\]"),
        ((3, 4), 5, GPTQ(), ConfigError, r"layer 'fc': hessian must be \[4, 4\], not \[5, 5\]"),
        ((3, 4), None, GPTQ(), ConfigError, "layer 'fc': statistics must be given for gptq"),
        ((3, 4), 4, QEP(), ConfigError, "layer 'fc': statistics must hold cross for qep, not None"),
        ((3, 4), 4, GPTAQ(), ConfigError, "layer 'fc': statistics must hold cross for gptaq"),
    ],
)
def test_what_does_not_fit_is_refused(weight, statistics, method, error, message):
    s = None if statistics is None else identity(statistics)
    with pytest.raises(error, match=f"^{message}"):
        quantize_matrix(torch.ones(weight), linear((3, 4)), method, s)


def test_bad_numbers_are_refused():
    weight, g = torch.ones(3, 4), linear((3, 4))
    for value in (float("nan"), float("inf")):
        bad = weight.clone()
        bad[1, 2] = value
        with pytest.raises(WeightError, match=r"^layer 'fc': weight must be finite"):
            quantize_matrix(bad, g, RTN())
        s = identity(4)
        s.hessian[1, 2] = value
        with pytest.raises(ConfigError, match=r"^layer 'fc': hessian must be finite"):
            quantize_matrix(weight, g, GPTQ(), s)
        s = identity(4)
        s.cross = torch.full((4, 4), value)
        with pytest.raises(ConfigError, match=r"^layer 'fc': cross must be finite"):
            quantize_matrix(weight, g, GPTQ(), s)
    with pytest.raises(WeightError, match=r"^layer 'fc': weights must be at most .* of int4"):
        quantize_matrix(weight * 1e6, g, GPTQ(), identity(4))
    with pytest.raises(ConfigError, match=r"^layer 'fc': statistics must hold tokens, not none"):
        quantize_matrix(weight, g, GPTQ(), Statistics.empty(4))
    s = identity(4)
    s.hessian[0, 1] = 0.5
    with pytest.raises(ConfigError, match=r"^layer 'fc': hessian must be symmetric, not with"):
        quantize_matrix(weight, g, GPTQ(), s)
    s.hessian[0, 0] = -1
    with pytest.raises(ConfigError, match=r"^layer 'fc': hessian's diagonal must not be negative"):
        quantize_matrix(weight, g, GPTQ(), s)
    shared = Geometry("fc", "linear", (3, 4), "int8", scales=1)
    with pytest.raises(
        UnsupportedLayerError, match=r"^layer 'fc': scales must be 3, one per output"
    ):
        quantize_matrix(weight, shared, RTN())
    with pytest.raises(UnsupportedLayerError, match=r"^layer 'fc': method must be one of int8"):
        quantize_matrix(weight, linear((3, 4), vq.SSVQ(d=4, k=2)), GPTQ(), identity(4))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Settings(damping=-1), "damping must be 0 to 1, not -1"),
        (lambda: Settings(damping=float("nan")), "damping must be 0 to 1, not nan"),
        (lambda: Settings(dtype=torch.float16), "dtype must be float32 or float64, not torch"),
        (lambda: Settings(leaf=0), "leaf must be positive, not 0"),
        (lambda: Settings(org_block=-3), "org_block must be positive, not -3"),
        (lambda: Settings(dynamic_groups=True), "activation_order must be False with dynamic"),
        (lambda: Clip(shrink=1), r"clip shrink must be in \(0, 1\), not 1"),
        (lambda: Clip(steps=0), "clip steps must be positive, not 0"),
        (lambda: Clip(power=float("inf")), "clip power must be positive, not inf"),
        (lambda: GPTAQ(-0.1), "gptaq alpha must be finite and not negative, not -0.1"),
        (lambda: QEP(float("nan")), "qep beta must be finite and not negative, not nan"),
        (lambda: GPTQR(mode="w"), "gptq-r mode must be one of allw, org, not 'w'"),
    ],
)  # fmt: skip
def test_impossible_settings_are_refused(make, message):
    with pytest.raises(ConfigError, match=f"^{message}"):
        make()


def test_groups_and_blocks_that_do_not_nest_are_refused():
    g = linear((3, 40), Int4(group=12))
    settings = Settings(activation_order=False, dynamic_groups=True, org_block=16)
    want = r"^dynamic groups must divide blocks of mode 'org', 16, or be multiples, not 12"
    with pytest.raises(ConfigError, match=want):
        quantize_matrix(torch.ones(3, 40), g, GPTQR(mode="org"), identity(40), settings)
