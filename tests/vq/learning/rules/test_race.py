"""One layer's candidates: who they are, who gives way, who decides, and what is remembered."""

import pytest
import torch
from torch import nn

import vq
from vq.formats.model import compressed_layers
from vq.learning.rules.points import cut
from vq.learning.rules.race import Race

KINDS = [
    vq.VQ(d=4, k=12),
    vq.VQ(d=3, k=8, scale="output"),  # ragged
    vq.SSVQ(d=4, k=12),
    vq.SSVQ(d=8, k=6, parity=True, scale="output"),
]


def race(kind=KINDS[0], n=3, *, uniform=False, rate=0.05, original=True):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 12))
    weight = model[0].weight.detach().clone()
    vq.compress_(model, vq.Recipe({"0": kind}))
    layer = next(compressed_layers(model))
    given = weight if original else None
    return model, layer, Race(layer, given, n, uniform=uniform, rate=rate), weight


def nearest(layer, weight):
    """Distances [N, k] of the original's sub-vectors to all codewords, one by one."""
    points = cut(weight, layer, layer.weight.unit)
    words = layer.weight.codewords(layer.codebook).detach()
    if layer.latent is not None:
        points = points.abs()
    counts = cut(torch.ones_like(weight), layer)
    return (((points[:, None] - words) * counts[:, None]).square().sum(2)).sqrt()


@pytest.mark.parametrize("kind", KINDS)
def test_candidates_are_the_nearest_and_weigh_inversely_to_their_distance(kind):
    _, layer, one, weight = race(kind)
    one.begin()
    distances = nearest(layer, weight)
    best = distances.sort(dim=1).values[:, :3]
    mixture = layer.weight.mixture
    chosen = distances.gather(1, mixture.candidates.long())
    torch.testing.assert_close(chosen, best, rtol=1e-3, atol=1e-4)
    wanted = 1 / (best + 1e-5)
    wanted = wanted / wanted.sum(dim=1, keepdim=True)
    torch.testing.assert_close(mixture.ratios(), wanted, rtol=1e-2, atol=1e-3)
    assert one.undecided == one.count == len(layer.weight.indices)


def test_uniform_candidates_weigh_alike_and_latents_stand_for_the_original():
    _, layer, one, _ = race(KINDS[2], uniform=True)
    one.begin()
    assert torch.equal(layer.weight.mixture.ratios(), torch.full((48, 3), 1 / 3))
    _, other, alone, _ = race(KINDS[2], original=False)
    alone.begin()
    same = layer.weight.mixture.candidates == other.weight.mixture.candidates
    assert same.all()


def test_those_confirm_that_are_sure_or_must():
    _, layer, one, _ = race(uniform=True)
    one.begin()
    mixture = layer.weight.mixture
    with torch.no_grad():
        mixture.logits[:6, 1] = 6.0  # weighs 0.995
        mixture.logits[6:10, 2] = 3.0  # weighs 0.91
    wanted = torch.cat([mixture.candidates[:6, 1], mixture.candidates[6:10, 2]])
    with torch.no_grad():
        one.confirm(0.99, 0.0, 1.0)
    assert one.undecided == 42 and torch.equal(layer.weight.indices[:6], wanted[:6])
    with torch.no_grad():
        one.confirm(0.99, 10 / 48, 1.0)
    assert one.undecided == 38 and torch.equal(layer.weight.indices[:10], wanted)
    assert one.moved == 10
    with torch.no_grad():
        one.confirm(0.99, 12 / 48, 11 / 48)  # 12 are more than the layer needs to finish
    assert one.undecided == 0 and layer.weight.mixture is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("along_descent", [False, True])
def test_the_least_candidate_gives_way_to_the_nearest_other_codeword(kind, along_descent):
    model, layer, one, _ = race(kind)
    one.begin()
    mixture = layer.weight.mixture
    with torch.no_grad():  # two of six hold on to poor candidates
        for row in (1, 2):
            mixture.logits[row] = torch.tensor([6.0, 3.0, 0.0])
            far = nearest_words(layer, mixture.candidates[row, 0]).argsort(descending=True)
            mixture.candidates[row, 2] = far[0]
    before, ratios = mixture.candidates.clone(), mixture.ratios().detach()
    one.watch(along_descent)
    g = torch.randn_like(model[0].weight)
    (model[0].weight * g).sum().backward()
    with torch.no_grad():
        goals = mixture.values(layer.weight.codewords(layer.codebook))
        if along_descent:
            goals = goals + descent(layer, mixture, goals, g)
        one.replace(along_descent=along_descent)
    changed = (mixture.candidates != before).any(dim=1)
    assert changed.sum() == one.replaced and changed[1] and changed[2]
    counts = cut(torch.ones_like(g), layer)
    words = layer.weight.codewords(layer.codebook).detach()
    gaps = ((goals[:, None] - words) * counts[:, None]).square().sum(2)
    for row in range(one.count):
        least = int(ratios[row].argmin())
        rest = gaps[row].clone()
        rest[before[row].long()] = torch.inf
        going = int(before[row, least])
        gives_way = ratios[row, least] < 0.05 and rest.min() < gaps[row, going]
        assert bool(changed[row]) == bool(gives_way)
        if gives_way:
            assert int(mixture.candidates[row, least]) == int(rest.argmin())
            assert mixture.ratios()[row, least].item() == pytest.approx(0.05)
            others = [m for m in range(3) if m != least]
            kept = mixture.ratios().detach()[row, others] / 0.95
            torch.testing.assert_close(kept, ratios[row, others] / ratios[row, others].sum())
    assert len(mixture.candidates[1].unique()) == 3


def nearest_words(layer, index):
    words = layer.weight.codewords(layer.codebook).detach()
    return (words - words[int(index)]).norm(dim=1)


def descent(layer, mixture, goals, g):
    """Half of the distance to the candidate that goes, down the gradient of the values."""
    slope, counts = cut(g, layer), cut(torch.ones_like(g), layer)
    if layer.latent is not None:
        slope = slope * layer.weight.in_effect(layer.latent.detach()).sign()
    at = mixture.ratios().argmin(dim=1, keepdim=True)
    words = layer.weight.codewords(layer.codebook).detach()
    going = words[mixture.candidates.gather(1, at)[:, 0].long()]
    reach = ((going - goals) * counts).norm(dim=1, keepdim=True)
    return -0.5 * reach * slope / slope.norm(dim=1, keepdim=True)


def test_logits_follow_rmsprop_and_a_state_is_all_that_matters():
    def steps(model, one, count):
        for _ in range(count):
            model.zero_grad()
            (model[0].weight.square().sum()).backward()
            one.step()

    model, layer, one, _ = race()
    one.begin()
    start = layer.weight.mixture.logits.detach().clone()
    model[0].weight.square().sum().backward()
    grad = layer.weight.mixture.logits.grad.clone()
    one.step()
    step = 0.05 * grad / ((0.1 * grad.square()).sqrt() + 1e-8)
    torch.testing.assert_close(layer.weight.mixture.logits.detach(), start - step)

    steps(model, one, 3)
    with torch.no_grad():
        one.confirm(0.99, 0.25, 1.0)
    state = one.state_dict()
    again, other, two, _ = race()
    two.begin()
    with torch.no_grad():
        other.weight.indices.copy_(layer.weight.indices)
    two.load_state_dict(state)
    for each, mine in ((model, one), (again, two)):
        steps(each, mine, 3)
    assert torch.equal(other.weight.mixture.logits, layer.weight.mixture.logits)
    assert two.undecided == one.undecided == 36 and two.moved == one.moved
    for each in (one, two):
        each.end()
    assert torch.equal(again[0].weight, model[0].weight)
    assert set(one.state_dict()) == {"moved", "replaced"}
    one.load_state_dict(two.state_dict())


@pytest.mark.parametrize("n", [2, 3, 8])
def test_a_race_holds_16_bytes_per_sub_vector_and_candidate(n):
    model, _, one, _ = race(n=n)
    one.begin()
    (model[0].weight.square().sum()).backward()
    one.step()
    tensors = [t for t in one.state_dict().values() if isinstance(t, torch.Tensor)]
    assert sum(t.nbytes for t in tensors) <= 16 * one.count * n


@pytest.mark.parametrize("absolute", [True, False])
def test_the_term_is_how_undecided_all_are(absolute):
    _, layer, one, _ = race(n=2, uniform=True)
    one.begin()
    assert one.term(absolute=absolute).item() == pytest.approx(2 if absolute else 0.5)
    before = layer.weight.mixture.ratios().amax(dim=1)
    with torch.no_grad():
        layer.weight.mixture.logits[:, 0] += 0.1
    one.add_gradient(one.term(absolute=absolute))
    one.step()
    assert (layer.weight.mixture.ratios().amax(dim=1) > before).all()
