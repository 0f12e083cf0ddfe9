"""What must hold exactly, in float64: the solver against the algorithms written out literally."""

import numpy as np
import pytest
import torch

from rescomp import (
    FOEM,
    GPTAQ,
    GPTAQR,
    GPTQ,
    GPTQR,
    QEP,
    RTN,
    Clip,
    Settings,
    Statistics,
    quantize_matrix,
)  # fmt: skip
from rescomp.factor import cross_term_, inverse_factor, transposed_times
from tests.rescomp.oracles import (
    DAMPING,
    Levels,
    Problem,
    damped,
    literal,
    problem,
    resolved,
    solves,
)
from vq import Int2, Int3, Int4, Int8

KINDS = {2: Int2, 3: Int3, 4: Int4}
METHODS = [
    RTN(), GPTQ(), GPTAQ(), GPTAQ(1.0), GPTQR(), GPTQR(1.0, "org"), GPTAQR(), GPTAQR(1.0, 1.0),
    GPTAQR(0.25, 0.5), GPTAQR(mode="org"), GPTAQR(1.0, 0.25, "org"), FOEM(), QEP(), QEP(0.5),
]  # fmt: skip


def geometry(p, kind):
    return kind.geometry("layer", "linear", p.weight.shape)


def exact(**more):
    return Settings(**{"dtype": torch.float64, "activation_order": False, "leaf": 5, **more})


def integers(p, method, kind, **more):
    found = quantize_matrix(p.tensor(), geometry(p, kind), method, p.statistics(), exact(**more))
    return found.integers.numpy()


@pytest.mark.parametrize("n", [1, 3, 40, 600])
def test_factor_is_that_of_the_inverse(n):
    rng = np.random.default_rng(n)
    x = rng.standard_normal((n, 2 * n))
    h = x @ x.T
    before = h.copy()
    u = inverse_factor(torch.from_numpy(h), DAMPING).numpy()
    assert np.array_equal(h, before)
    assert np.array_equal(u, np.triu(u)) and (np.diag(u) > 0).all()
    np.testing.assert_allclose(u.T @ u @ damped(h), np.eye(n), atol=1e-9)
    order = rng.permutation(n)
    sorted_ = torch.from_numpy(h[order][:, order])
    assert torch.equal(
        inverse_factor(torch.from_numpy(h), DAMPING, torch.from_numpy(order)),
        inverse_factor(sorted_, DAMPING),
    )
    rows = rng.standard_normal((n, 7))
    got = transposed_times(torch.from_numpy(u), torch.from_numpy(rows)).numpy()
    np.testing.assert_allclose(got, u.T @ rows, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("n", [40, 600])
def test_cross_terms_are_one_solve_per_column_i1_i2(n):
    p = problem(2, n, 3 * n) if n < 100 else None
    rng = np.random.default_rng(0)
    h = damped(p.hessian) if p else damped((lambda x: x @ x.T)(rng.standard_normal((n, 2 * n))))
    d = p.cross if p else rng.standard_normal((n, n))
    u = inverse_factor(torch.from_numpy(h), 0.0)
    got = cross_term_(torch.from_numpy(d.copy()), u).numpy()
    chosen = slice(None) if p else slice(0, n, 97)  # one solve of 600 columns for every row is slow
    want = solves(d, h) if p else np.stack([_row(d, h, q) for q in range(0, n, 97)])
    np.testing.assert_allclose(got[chosen], want, atol=1e-11 * np.abs(want).max())
    assert np.array_equal(got, np.triu(got, 1))
    r = cross_term_(torch.from_numpy(d + h), u).numpy()
    t = (u / u.diagonal()[:, None]).numpy()
    np.testing.assert_allclose(r, got - np.triu(t, 1), atol=1e-11 * np.abs(r).max())


def _row(matrix, h, q):
    out = np.zeros(len(h))
    out[q + 1 :] = np.linalg.solve(h[q + 1 :, q + 1 :], matrix[q, q + 1 :])
    return out


@pytest.mark.parametrize("method", METHODS, ids=str)
@pytest.mark.parametrize("kind", [Int4(group=16), Int2(group=7, zeros=True), Int8()], ids=str)
def test_cuts_do_not_matter_i3(method, kind):
    p = problem(9, 61)
    want = integers(p, method, kind, leaf=1000)
    for leaf in (1, 2, 3, 7, 32, 60, 61):
        assert np.array_equal(integers(p, method, kind, leaf=leaf), want)


@pytest.mark.parametrize("method", [m for m in METHODS if m != RTN()], ids=str)
@pytest.mark.parametrize("group", [4, 16, 64])
def test_cuts_do_not_matter_with_dynamic_groups_i3(method, group):
    p = problem(9, 61)
    kind = Int3(group=group)
    found = [
        quantize_matrix(
            p.tensor(), geometry(p, kind), method, p.statistics(),
            exact(dynamic_groups=True, leaf=leaf, org_block=16),
        )
        for leaf in (1, 3, 8, 1000)
    ]  # fmt: skip
    for other in found[1:]:
        assert torch.equal(found[0].integers, other.integers)
        assert torch.equal(found[0].grid.scale, other.grid.scale)


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("seed", range(3))
def test_gptq_is_least_squares_solved_again_i4(bits, seed):
    p = problem(seed=seed)
    kind = KINDS[bits](group=16, zeros=bits == 3)
    levels = Levels(p.weight, geometry(p, kind))
    assert np.array_equal(integers(p, GPTQ(), kind), resolved(p, levels, asymmetric=False))


def test_gptq_stays_orthogonal_to_the_drift_i5():
    """Before every column, what all columns have drifted is invisible to the free ones."""
    p = problem()
    h = damped(p.hessian)
    levels = Levels(p.weight, geometry(p, Int3()))
    _, seen = literal(p, levels)
    found = integers(p, GPTQ(), Int3())
    u = inverse_factor(torch.from_numpy(p.hessian), DAMPING).numpy()
    t = u / np.diag(u)[:, None]
    weight = p.weight.copy()
    for q in range(weight.shape[1] - 1):
        np.testing.assert_allclose(weight[:, q], seen[:, q], atol=1e-12)
        rounded = found[:, q] * levels.scale[:, q]
        weight[:, q + 1 :] -= np.outer(weight[:, q] - rounded, t[q, q + 1 :])
        weight[:, q] = rounded
        view = (p.weight - weight) @ h[:, q + 1 :]
        assert np.abs(view).max() < 1e-12 * np.abs(p.weight @ h).max()


@pytest.mark.parametrize("kind", [Int4(group=16), Int2(group=8, zeros=True)], ids=str)
def test_without_a_difference_or_a_share_methods_coincide_i6(kind):
    same, differ = problem(same=True), problem()
    plain = integers(same, GPTQ(), kind)
    assert np.array_equal(integers(same, GPTAQ(1.0), kind), plain)
    assert np.array_equal(integers(same, QEP(), kind), plain)
    for mode in ("allw", "org"):
        assert np.array_equal(
            integers(same, GPTAQR(1.0, 0.5, mode), kind), integers(same, GPTQR(0.5, mode), kind)
        )
    plain = integers(differ, GPTQ(), kind)
    for method in (GPTAQ(0), QEP(0), FOEM(0), GPTQR(0), GPTQR(0, "org"), GPTAQR(0, 0)):
        assert np.array_equal(integers(differ, method, kind), plain)
    assert np.array_equal(
        integers(differ, GPTAQR(0.5, 0), kind), integers(differ, GPTAQ(0.5), kind)
    )
    assert np.array_equal(integers(differ, FOEM(0.3), kind), integers(differ, GPTQR(0.3), kind))


@pytest.mark.parametrize("mode", ["allw", "org"])
@pytest.mark.parametrize(
    ("alpha", "alpha2"), [(0, 0), (0.25, 0), (1, 0), (0.25, 0.25), (1, 1), (0.25, 1), (1, 0.1)]
)
@pytest.mark.parametrize("block", [1, 8, 16, 128])
def test_one_matrix_is_the_literal_two_i7(alpha, alpha2, mode, block):
    p = problem(seed=3)
    kind = Int3(group=16)
    want, _ = literal(
        p, Levels(p.weight, geometry(p, kind)), alpha=alpha, alpha2=alpha2, mode=mode, block=block
    )
    got = integers(p, GPTAQR(alpha, alpha2, mode), kind, org_block=block)
    assert np.array_equal(got, want)


@pytest.mark.parametrize("mode", ["allw", "org"])
@pytest.mark.parametrize(("alpha", "alpha2"), [(0, 0), (1, 0), (0.25, 0.25), (1, 0.1)])
@pytest.mark.parametrize("group", [4, 16, 32])
def test_dynamic_groups_are_the_literal_ones_i7(alpha, alpha2, mode, group):
    p = problem(seed=8)
    kind = Int3(group=group, zeros=True)
    levels = Levels(p.weight, geometry(p, kind))
    want, _ = literal(p, levels, alpha=alpha, alpha2=alpha2, mode=mode, block=16, dynamic=kind)
    found = quantize_matrix(
        p.tensor(), geometry(p, kind), GPTAQR(alpha, alpha2, mode), p.statistics(),
        exact(dynamic_groups=True, org_block=16),
    )  # fmt: skip
    assert np.array_equal(found.integers.numpy(), want)
    fitted = found.grid.scale.repeat_interleave(group, dim=1)[:, :40].numpy()
    assert np.array_equal(fitted, levels.scale)


@pytest.mark.parametrize("mode", ["allw", "org"])
@pytest.mark.parametrize("alpha2", [0.1, 0.25, 1])
def test_gptq_r_is_the_literal_one_without_cross_i7(alpha2, mode):
    p = problem(seed=4)
    kind = Int2(group=8, zeros=True)
    levels = Levels(p.weight, geometry(p, kind))
    want, _ = literal(p, levels, alpha2=alpha2, cross=False, mode=mode, block=16)
    assert np.array_equal(integers(p, GPTQR(alpha2, mode), kind, org_block=16), want)


def test_mode_org_depends_on_its_block_and_allw_does_not():
    p = problem(seed=5)
    for mode, depends in (("allw", False), ("org", True)):
        found = [
            integers(p, GPTQR(0.5, mode), Int2(group=8), org_block=block) for block in (4, 1000)
        ]
        assert np.array_equal(*found) != depends


@pytest.mark.parametrize("seed", range(3))
def test_qep_is_asymmetric_least_squares_solved_again_i8(seed):
    p = problem(seed=seed)
    levels = Levels(p.weight, geometry(p, Int3(group=16)))
    want = resolved(p, levels, asymmetric=True)
    assert np.array_equal(integers(p, QEP(), Int3(group=16)), want)


def test_asymmetric_error_is_the_distance_to_the_exact_target_i8():
    p = problem()
    p.y += 0.1 * np.random.default_rng(9).standard_normal(p.y.shape)  # what no weight can restore
    h, d = p.hessian, p.cross
    target = p.weight + p.weight @ d @ np.linalg.inv(h)
    s = p.statistics()
    constant = None
    for seed in range(3):
        q = p.weight + 0.1 * np.random.default_rng(seed).standard_normal(p.weight.shape)
        found = s.asymmetric_error(p.tensor(), torch.from_numpy(q))
        direct = p.error(q)
        np.testing.assert_allclose(found, direct - p.error(p.weight), rtol=1e-9)
        rest = direct - (((q - target) @ p.x) ** 2).sum() / p.x.shape[1]
        constant = rest if constant is None else constant
        np.testing.assert_allclose(rest, constant, rtol=1e-9)
        gap = ((p.weight - q) @ p.x) ** 2
        np.testing.assert_allclose(s.error(p.tensor(), torch.from_numpy(q)), gap.sum() / 400)


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_units_of_the_inputs_do_not_matter_i9(method):
    p = problem()
    want = integers(p, method, Int3(group=16), activation_order=True)
    scaled = Problem(p.weight, 4 * p.x, 4 * p.y)
    assert np.array_equal(integers(scaled, method, Int3(group=16), activation_order=True), want)


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_activation_order_makes_the_order_of_columns_irrelevant_i10(method):
    """One group, so that grids move with their columns; two inputs tie and have equal columns."""
    p = problem()
    p.x[7], p.y[7], p.weight[:, 7] = p.x[20], p.y[20], p.weight[:, 20]
    order = np.random.default_rng(0).permutation(40)
    if list(order).index(7) > list(order).index(20):  # ties keep their order
        order = order[::-1]
    want = integers(p, method, Int4(group=40), activation_order=True)
    moved = Problem(p.weight[:, order], p.x[order], p.y[order])
    got = integers(moved, method, Int4(group=40), activation_order=True)
    assert np.array_equal(got, want[:, order])


@pytest.mark.parametrize("mode", ["allw", "org"])
def test_activation_order_keeps_groups_where_they_are(mode):
    p = problem(seed=6)
    order = np.argsort(-np.diag(p.hessian), kind="stable")
    kind = Int3(group=16, zeros=True)
    want, _ = literal(
        p, Levels(p.weight, geometry(p, kind)), alpha=1, alpha2=0.5, mode=mode, block=16,
        order=order,
    )  # fmt: skip
    got = integers(p, GPTAQR(1, 0.5, mode), kind, activation_order=True, org_block=16)
    assert np.array_equal(got, want)


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("method", [m for m in METHODS if m != RTN()], ids=str)
def test_dead_columns_are_zero_and_do_nothing_i11(method, zeros):
    p = problem(seed=7)
    dead = [0, 13, 39]
    p.x[dead] = 0
    kind = Int3(group=40, zeros=zeros)
    found = quantize_matrix(p.tensor(), geometry(p, kind), method, p.statistics(), exact())
    assert found.report.dead_columns == 3
    assert not found.integers[:, dead].any() and not found.weight[:, dead].any()
    alive = np.setdiff1d(np.arange(40), dead)
    cut = Problem(p.weight[:, alive], p.x[alive], p.y[alive])
    want = integers(cut, method, Int3(group=40, zeros=zeros), org_block=1000)
    got = quantize_matrix(
        p.tensor(), geometry(p, kind), method, p.statistics(), exact(org_block=1000)
    )
    assert np.array_equal(got.integers[:, alive].numpy(), want)


def test_statistics_of_shards_add_up_i12():
    p = problem()
    whole = p.statistics()
    parts = Statistics.empty(40, cross=True, dtype=torch.float64)
    for part in (slice(300, 400), slice(0, 7), slice(7, 300)):
        shard = Statistics.empty(40, cross=True, dtype=torch.float64)
        shard.add(torch.from_numpy(p.x[:, part].T.copy()), torch.from_numpy(p.y[:, part].T.copy()))
        parts.merge(shard)
    assert parts.tokens == whole.tokens == 400
    for a, b in ((parts.hessian, whole.hessian), (parts.cross, whole.cross)):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    g = geometry(p, Int4(group=16))
    for method in (GPTQ(), QEP()):
        found = [
            quantize_matrix(p.tensor(), g, method, s, exact()).integers for s in (whole, parts)
        ]
        assert torch.equal(*found)


@pytest.mark.parametrize("clip", [None, Clip(steps=20)])
@pytest.mark.parametrize("kind", [Int4(group=16), Int2(group=7, zeros=True), Int8()], ids=str)
def test_white_inputs_make_every_symmetric_method_round_to_nearest(kind, clip):
    p = problem(same=True)
    white = Statistics(torch.diag(torch.rand(40, dtype=torch.float64) + 0.5), None, 400)
    want = integers(p, RTN(), kind, clip=clip)
    for method in (GPTQ(), GPTQR(), GPTQR(1.0, "org"), FOEM()):
        for ordered in (False, True):
            s = exact(clip=clip, activation_order=ordered)
            found = quantize_matrix(p.tensor(), geometry(p, kind), method, white, s)
            assert np.array_equal(found.integers.numpy(), want)
