"""One codebook for weights with the same inputs: what is stored, what is refused."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from rescomp import GPTQ, GPTQR, QEP, RTN, Fitting, Settings, Statistics, quantize_codebook
from tests.rescomp.oracles import problem
from vq import SSVQ, VQ, Int4
from vq.container import open_container, write_container
from vq.errors import ConfigError, UnsupportedLayerError, WeightError

KINDS = [
    SSVQ(d=4, k=16, scale="output"), SSVQ(d=4, k=16, parity=True), VQ(d=4, k=16, scale="output"),
    VQ(d=1, k=9),
]  # fmt: skip
EXACT = Settings(dtype=torch.float64)
PLAIN = GPTQ()


def geometries(kind, *weights):
    return [kind.geometry(f"layer{i}", "linear", w.shape) for i, w in enumerate(weights)]


def coded(p, kind, method=PLAIN, *, settings=EXACT, **more):
    weights = more.pop("weights", [p.tensor()])
    return quantize_codebook(
        weights, geometries(kind, *weights), method, p.statistics(), settings, **more
    )


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_weight_is_what_numpy_reads_of_the_file(kind, tmp_path):
    (found,) = coded(problem(), kind)
    layer = found.compressed(found.latent)
    trained = found.trained()
    entry = layer.to_layer("layer0", *(trained[role] for role in layer.roles))
    path = tmp_path / "x.vq.safetensors"
    write_container(path, [entry], {})
    with open_container(path) as container:
        assert np.array_equal(found.weight.numpy(), container.weight("layer0"))
    assert found.report.error > 0 and found.report.dead_columns == 0


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_compensating_and_refitting_lower_the_error(kind):
    p = problem(40, 40, same=True)
    alone = copy.deepcopy(p)
    alone.x = alone.y = np.eye(40)
    (clustered,) = coded(alone, kind)
    errors = [p.error(clustered.weight)]
    for sweeps in (0, 1, 3):
        (found,) = coded(p, kind, fitting=Fitting(sweeps=sweeps))
        errors.append(p.error(found.weight))
    assert errors[1] < 0.5 * errors[0]
    # What never rises is the error with the damping in it.
    assert errors[3] < 1.01 * errors[2] < errors[1]


def test_layers_that_share_a_codebook_are_solved_as_one():
    p = problem(20, 40)
    both = [p.tensor()[:8], p.tensor()[8:]]
    kind = SSVQ(d=4, k=16, scale="output")
    (whole,) = coded(p, kind)
    parts = coded(p, kind, weights=both)
    assert torch.equal(whole.weight, torch.cat([part.weight for part in parts]))
    assert all(torch.equal(part.codebook, whole.codebook) for part in parts)


def test_restarts_keep_the_best():
    p = problem(40, 40, same=True)
    kind = VQ(d=4, k=16)
    single = [p.error(coded(p, kind, seed=seed)[0].weight) for seed in range(3)]
    (found,) = coded(p, kind, fitting=Fitting(restarts=3))
    assert p.error(found.weight) == pytest.approx(min(single))
    assert max(single) > min(single)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_equal_importance_changes_nothing(kind):
    p = problem()
    fitting = Fitting(em=2, again=1, sweeps=1)
    (want,) = coded(p, kind, fitting=fitting)
    for rows in (torch.ones(12), torch.full((12,), 7.0), torch.zeros(12)):
        (found,) = coded(p, kind, fitting=fitting, importance=[rows])
        assert torch.equal(found.weight, want.weight)
        assert torch.equal(found.latent, want.latent)


@pytest.mark.parametrize("sweeps", [0, 1])
@pytest.mark.parametrize("kind", KINDS[:3], ids=str)
def test_outputs_that_matter_are_nearer(kind, sweeps):
    p = problem(40, 40, same=True)
    rows = torch.ones(40)
    rows[:2] = 1000
    fitting = Fitting(sweeps=sweeps)

    def errors(importance):
        total = torch.zeros(40, dtype=torch.float64)
        for seed in range(3):
            (found,) = coded(p, kind, fitting=fitting, importance=importance, seed=seed)
            gap = p.tensor() - found.weight
            total += (gap @ torch.from_numpy(p.hessian) * gap).sum(1)
        return total

    plain, weighed = errors(None), errors([rows])
    assert weighed[:2].sum() < 0.85 * plain[:2].sum()
    assert (weighed * rows).sum() < (plain * rows).sum()


def test_given_the_codebook_importance_moves_scales_of_layers_alone():
    p, rows = problem(), torch.linspace(0.1, 9, 12)
    book = torch.rand(16, 4, generator=torch.Generator().manual_seed(0))
    for scale, alike in (("output", True), ("layer", False)):
        kind = SSVQ(d=4, k=16, scale=scale)
        plain, weighed = (
            coded(p, kind, book=book, fitting=Fitting(sweeps=1), importance=one)[0]
            for one in (None, [rows])
        )
        close = torch.allclose(plain.unit, weighed.unit, rtol=1e-5)
        assert torch.equal(plain.indices, weighed.indices) or not alike
        assert close is alike


def test_outputs_that_do_not_matter_get_codes_all_the_same():
    p, rows = problem(), torch.ones(12)
    rows[3] = 0
    kind = SSVQ(d=4, k=16, scale="output")
    (plain,), (found,) = coded(p, kind), coded(p, kind, importance=[rows])
    gaps = [(p.tensor() - one.weight)[3].norm() / p.tensor()[3].norm() for one in (plain, found)]
    assert gaps[1] < 2 * gaps[0]


def test_a_given_codebook_stays():
    p, kind = problem(), SSVQ(d=4, k=16, scale="output")
    book = torch.rand(16, 4, generator=torch.Generator().manual_seed(0))
    (found,) = coded(p, kind, book=book, fitting=Fitting(sweeps=1))
    assert torch.equal(found.codebook, book)
    (other,) = coded(p, kind, fitting=Fitting(sweeps=1))
    assert p.error(other.weight) < p.error(found.weight)


def test_ragged_and_dead_inputs_and_silent_outputs():
    p = problem(12, 38)
    p.x[[3, 4, 5, 20]] = p.y[[3, 4, 5, 20]] = 0
    p.weight[2] = 0
    (found,) = coded(p, SSVQ(d=4, k=16, scale="output"), QEP(), fitting=Fitting(sweeps=1))
    assert found.report.dead_columns == 4
    assert found.weight.shape == (12, 38) and found.weight.isfinite().all()
    assert found.weight[2].abs().max() < 1e-20
    assert found.geometry.N == 12 * 10


def test_singular_hessians_take_more_damping():
    p = problem(12, 40, tokens=5)
    settings = replace(EXACT, damping=0)
    with pytest.warns(UserWarning, match=r"^layer 'layer0': statistics should hold a token"):
        (found,) = coded(p, SSVQ(d=4, k=16), settings=settings)
    assert 0 < found.report.damping <= 1 and found.weight.isfinite().all()


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("sweeps", [0, 1])
def test_odd_inputs_give_finite_weights(kind, sweeps):
    """All tokens equal, no input ever other than 0, a stream that died, weights of one value."""
    for change in ("equal", "dead", "stream", "constant", "outputs"):
        p = problem()
        if change == "equal":
            p.x, p.y = (np.repeat(one[:, :1], 400, axis=1) for one in (p.x, p.y))
        elif change == "constant":
            p.weight[:] = 1
        elif change == "outputs":
            p.weight *= np.logspace(-20, 8, 12)[:, None]
        else:
            p.x[:] = 0
            p.y[:] = 0 if change == "dead" else p.y
        settings = Settings(measure=False)
        (found,) = coded(p, kind, QEP(), fitting=Fitting(sweeps=sweeps), settings=settings)
        for part in (found.weight, found.codebook, found.latent, found.unit):
            assert part.isfinite().all(), change
        if change == "equal":  # one direction is all that matters, and it is met
            assert p.error(found.weight) < 0.05 * p.error(0 * found.weight)
        if change in ("dead", "stream"):
            assert found.report.dead_columns == 40


@pytest.mark.parametrize("inputs", [3, 33, 39])
def test_a_ragged_tail_is_filled_and_counted(inputs):
    p = problem(30, inputs)
    kind = SSVQ(d=8, k=16, scale="output")
    (found,) = coded(p, kind, QEP(), fitting=Fitting(sweeps=1))
    groups = -(-inputs // 8)
    assert found.indices.shape == (30 * groups,) and found.geometry.N == 30 * groups
    assert found.weight.shape == found.latent.shape == (30, inputs)
    assert p.error(found.weight) < 0.5 * p.error(0 * found.weight)


def test_a_codebook_that_cannot_reach_the_weights_is_named():
    p, kind = problem(), SSVQ(d=4, k=16, scale="output")
    book = torch.rand(16, 4, generator=torch.Generator().manual_seed(0)) * 1e-3
    match = (
        r"^layer 'layer0': codebook should reach 0.5, half the root mean square of weights, not "
    )
    with pytest.warns(UserWarning, match=match):
        (found,) = coded(p, kind, book=book)
    with pytest.warns(UserWarning, match=match):
        (swept,) = coded(p, kind, book=book, fitting=Fitting(sweeps=1))
    assert p.error(swept.weight) < 0.5 * p.error(found.weight)


@pytest.mark.parametrize(
    ("book", "match"),
    [
        (torch.ones(8, 4), r"codebook must be \[16, 4\], not \[8, 4\]$"),
        (torch.full((16, 4), torch.nan), "codebook must be finite, not NaN or infinite$"),
        (torch.full((16, 4), -2.0), "codebook must be magnitudes, as signs are stored, not -2$"),
    ],
)
def test_codebooks_that_are_not_the_layers_are_refused(book, match):
    with pytest.raises(ConfigError, match=f"^layer 'layer0': {match}"):
        coded(problem(), SSVQ(d=4, k=16, scale="output"), book=book)


def test_bad_input_is_refused():
    p, kind = problem(), SSVQ(d=4, k=16)

    def refused(error, match, **more):
        with pytest.raises(error, match=match):
            coded(p, **{"kind": kind, **more})

    refused(ConfigError, "^layer 'layer0': method must compensate", method=RTN())
    refused(ConfigError, "^layer 'layer0': method must compensate", method=GPTQR(mode="org"))
    refused(
        ConfigError, "^layer 'layer0': k must be at most its 120 sub-vectors", kind=SSVQ(d=4, k=121)
    )
    refused(UnsupportedLayerError, "^layer 'layer0': format must be ssvq or vq", kind=Int4(group=8))
    refused(
        UnsupportedLayerError, "with axis 'out'", kind=SSVQ(d=4, k=16, axis="out"),
    )  # fmt: skip
    refused(UnsupportedLayerError, ", 0 scales", kind=SSVQ(d=4, k=16, scale="norm"))
    refused(WeightError, "^layer 'layer0': weight must be finite", weights=[p.tensor() / 0])
    refused(
        WeightError, "^layer 'layer0': weight must be at most 1.09951e.12 in magnitude, not ",
        weights=[p.tensor() * 1e30],
    )  # fmt: skip
    with pytest.raises(ConfigError, match=r"^layer 'layer0': weight must be \[12, 40\], not"):
        quantize_codebook(
            [p.tensor().T], geometries(kind, p.tensor()), GPTQ(), p.statistics(), EXACT
        )
    mixed = [geometries(kind, p.tensor())[0], geometries(VQ(d=4, k=16), p.tensor())[0]]
    with pytest.raises(
        ConfigError, match=r"^layer 'layer0': codebook must be that of 'layer0', ssvq"
    ):
        quantize_codebook([p.tensor()] * 2, mixed, GPTQ(), p.statistics(), EXACT)
    with pytest.raises(ConfigError, match=r"^layer 'layer0': statistics must hold cross for qep"):
        only = Statistics(p.statistics().hessian, None, 400)
        quantize_codebook([p.tensor()], geometries(kind, p.tensor()), QEP(), only, EXACT)
    for field in ("restarts", "candidates"):
        with pytest.raises(ConfigError, match=f"^{field} must be at least 1, not 0"):
            Fitting(**{field: 0})
