"""Layers in the solver's layout: order, goal, units, and what comes back."""

import numpy as np
import pytest
import torch

from rescomp import GPTAQ, GPTQ, QEP, Fitting, Settings
from rescomp.codebooks.problem import Problem
from rescomp.factor import inverse_factor
from tests.rescomp.oracles import DAMPING, damped, problem
from vq import SSVQ


def layout(p, method=GPTQ(), *, scale="output", outputs=(12,), order=True):  # noqa: B008
    kind = SSVQ(d=4, k=8, scale=scale)
    g = kind.geometry("a", "linear", (outputs[0], len(p.x)))
    settings = Settings(dtype=torch.float64, activation_order=order)
    weights = torch.split(p.tensor(), list(outputs))
    return Problem.of(weights, g, method.correction(), p.statistics(), settings, Fitting(), None, 0)


def test_groups_come_in_the_order_of_their_energy_and_go_back():
    p = problem(12, 40)
    one = layout(p)
    energy = np.diag(p.hessian).reshape(-1, 4).sum(1)
    assert one.groups.tolist() == np.argsort(-energy, kind="stable").tolist()
    order = (one.groups[:, None] * 4 + torch.arange(4)).reshape(-1)
    assert torch.equal(one.original, p.tensor().T[order])
    torch.testing.assert_close(one.hessian, torch.from_numpy(p.hessian)[order][:, order])
    found = one.solve(0.01)
    # What is left of the first group, which nothing was passed on to, is the weight as it was.
    first = slice(4 * int(one.groups[0]), 4 * int(one.groups[0]) + 4)
    torch.testing.assert_close(found.latent[first].abs(), p.tensor().T[first].abs())
    assert layout(p, order=False).groups.tolist() == list(range(10))


@pytest.mark.parametrize(("method", "share"), [(GPTQ(), 0), (GPTAQ(0.25), 0.25), (QEP(0.5), 0.5)])
def test_goal_is_the_weight_that_the_method_wants(method, share):
    p = problem(12, 40)
    one = layout(p, method, order=False)
    goal = one._goal(inverse_factor(one.hessian, DAMPING))
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
