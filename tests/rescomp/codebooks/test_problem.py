"""Layers in the solver's layout: order, goal, units, and what comes back."""

import numpy as np
import pytest
import torch

from bench.live_tensors import LiveTensors
from rescomp import GPTAQ, GPTAQR, GPTQ, QEP, Fitting, Settings, Statistics
from rescomp.codebooks import problem as layouts
from rescomp.codebooks.problem import Problem
from rescomp.codebooks.refit import objective
from rescomp.factor import inverse_factor
from tests.rescomp.oracles import DAMPING, damped, problem
from vq import SSVQ


def layout(p, method=GPTQ(), *, scale="output", outputs=(12,), order=True, fitting=None):  # noqa: B008
    kind = SSVQ(d=4, k=8, scale=scale)
    g = kind.geometry("a", "linear", (outputs[0], len(p.x)))
    settings = Settings(dtype=torch.float64, activation_order=order)
    weights, given = torch.split(p.tensor(), list(outputs)), (settings, fitting or Fitting())
    return Problem.of(weights, g, method.correction(), p.statistics(), *given, None, 0)


def test_groups_come_in_the_order_of_their_energy_and_go_back():
    p = problem(12, 40)
    one = layout(p)
    energy = np.diag(p.hessian).reshape(-1, 4).sum(1)
    assert one.groups.tolist() == np.argsort(-energy, kind="stable").tolist()
    order = (one.groups[:, None] * 4 + torch.arange(4)).reshape(-1)
    assert torch.equal(one.original, p.tensor().T[order])
    hessian = torch.from_numpy(p.hessian)
    torch.testing.assert_close(one.ordered(one.hessian), hessian[order][:, order])
    found = one.solve(0.01)
    # What is left of the first group, which nothing was passed on to, is the weight as it was.
    first = slice(4 * int(one.groups[0]), 4 * int(one.groups[0]) + 4)
    torch.testing.assert_close(found.latent[first].abs(), p.tensor().T[first].abs())
    assert layout(p, order=False).groups.tolist() == list(range(10))


@pytest.mark.parametrize(("method", "share"), [(GPTQ(), 0), (GPTAQ(0.25), 0.25), (QEP(0.5), 0.5)])
def test_goal_is_the_weight_that_the_method_wants(method, share):
    p = problem(12, 40)
    one = layout(p, method, order=False)
    goal = one._goal(inverse_factor(one.hessian, DAMPING), one.cross)
    want = p.weight + share * p.weight @ p.cross @ np.linalg.inv(damped(p.hessian))
    np.testing.assert_allclose(goal.T.numpy(), want, rtol=1e-9, atol=1e-12)


def test_units_are_those_of_outputs_or_of_layers():
    p = problem(12, 40)
    p.weight[3] = 0
    single = layout(p)._unit(p.tensor().T)
    want = p.tensor().square().mean(1).sqrt()
    assert float(single[3]) == 2.0**-100
    torch.testing.assert_close(single[:3], want[:3])
    both = layout(p, scale="layer", outputs=(4, 8))._unit(p.tensor().T)
    torch.testing.assert_close(both[:4], p.tensor()[:4].square().mean().sqrt().expand(4))
    torch.testing.assert_close(both[4:], p.tensor()[4:].square().mean().sqrt().expand(8))


def tried(p, fitting):
    """Objectives of all starts, and that of what was kept."""
    one = layout(p, fitting=fitting)
    terms = one._terms(0.01)
    costs = [objective(found.fit) for found in one._tries(terms)]
    kept = one.solve(0.01)
    order = (one.groups[:, None] * 4 + torch.arange(4)).reshape(-1)
    signs = torch.where(kept.latent < 0, -1.0, 1.0)
    integers = one._codewords(kept.book).book
    values = integers[kept.indices].permute(0, 2, 1).reshape(kept.latent.shape)
    rest = terms.goal - (values * signs * kept.unit)[order]
    return costs, float((rest * (terms.hessian @ rest)).sum())


@pytest.mark.parametrize(
    ("count", "given"),
    [(3, {"again": 2}), (4, {"again": 1, "restarts": 2, "sweeps": 1}), (2, {"em": 3, "again": 1})],
)
def test_starts_from_compensated_weights_never_raise_the_objective(count, given):
    costs, kept = tried(problem(12, 40), Fitting(**given))
    assert len(set(costs)) == len(costs) == count
    assert kept == pytest.approx(min(costs)) and kept <= costs[0] * (1 + 1e-12)


@pytest.mark.parametrize("em", [0, 2])
def test_a_start_behind_another_is_for_the_weights_of_their_turns(em, monkeypatch):
    seen = {"clustered": [], "expected": []}

    def noted(name):
        plain = getattr(layouts, name)
        return lambda *given: seen[name].append(given) or plain(*given)

    for name in seen:
        monkeypatch.setattr(layouts, name, noted(name))
    one = layout(problem(12, 40), fitting=Fitting(em=em, again=1))
    terms = one._terms(0.01)
    first, _ = one._tries(terms)
    assert not torch.equal(first.latent, terms.goal)
    assert [given[0] is first.latent for given in seen["expected"]] == [False, True]
    assert [given[0] is first.latent for given in seen["clustered"]] == (
        [False] if em else [False, True]
    )
    assert not em or seen["expected"][1][3].book is first.book


@pytest.mark.parametrize(("tries", "solving"), [(1, 2), (2, 3)])
def test_few_matrices_of_all_inputs_are_alive_beside_the_statistics(tries, solving, monkeypatch):
    """Three for the factor; then what passes errors on, which the last fit has no more."""
    x = torch.randn(1536, 768, generator=torch.Generator().manual_seed(0))
    sums = Statistics.empty(768, cross=True)
    sums.add(x, x + x.roll(1, 0))
    live = LiveTensors([], [sums.hessian, sums.cross, x])
    counts = {"solve_groups": [], "refit_book": []}

    def noted(name):
        plain = getattr(layouts, name)
        return lambda *given, **more: (
            counts[name].append(live.now / sums.hessian.nbytes) or plain(*given, **more)
        )

    for name in counts:
        monkeypatch.setattr(layouts, name, noted(name))
    g = SSVQ(d=8, k=4, scale="output").geometry("a", "linear", (4, 768))
    fitting = Fitting(iterations=1, again=tries - 1, sweeps=1)
    with live:
        given = (g, GPTAQR().correction(), sums, Settings(), fitting, None, 0)
        assert Problem.of([x[:4]], *given).solve(0.01) is not None
    assert live.peak < 3.5 * sums.hessian.nbytes
    found = counts["solve_groups"][-1], counts["refit_book"][-1]
    assert found == pytest.approx((solving, 1), abs=0.25)
