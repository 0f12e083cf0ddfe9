"""Two processes on half the data each find the codes that one finds on all."""

import pytest
import torch
from torch import nn

from rescomp import QEP, Settings, Statistics, quantize_
from tests.processes import two_processes
from tests.rescomp.models import Branches, Normed, chain, vectors
from vq.calibration.gathering import Gatherer
from vq.errors import ConfigError, SignbookError
from vq.formats.model import compressed_layers

EXACT = Settings(dtype=torch.float64)


def weights(build, data, **settings):
    torch.manual_seed(0)
    model = build()
    result = quantize_(model, data, 3, QEP(), settings=EXACT, **settings)
    found = {layer.name: layer.module.weight.detach() for layer in compressed_layers(model)}
    reports = {x.geometry.name: [x.report.tokens, x.report.error] for x in result.layers}
    return found, reports


def normed(data):
    torch.manual_seed(0)
    model = Normed()
    quantize_(model, data, 3, QEP(), settings=EXACT)
    return model.state_dict()


def refused(*args, **settings):
    try:
        weights(*args, **settings)
    except SignbookError as error:
        return type(error).__name__, str(error)
    raise AssertionError("nothing was raised")


def loud():
    """Whose second layer sees infinity where inputs are large."""
    model = nn.Sequential(nn.Linear(12, 12), nn.Linear(12, 12))
    model[0].weight.data *= 1000
    return model


def worker(rank, folder):
    mine = vectors(8)[rank::2]
    gathered = []
    plain = Gatherer.gather

    def gather(*args):
        gathered.append(plain(*args))
        return gathered[-1]

    Gatherer.gather = gather
    found = {"chain": weights(chain, mine), "uneven": weights(Branches, vectors(5)[rank * 3 :][:3])}
    found["sums"] = [(s.hessian, s.cross, s.tokens) for parts in gathered for s in parts]
    found["normed"] = normed(vectors(5, rows=32)[rank * 3 :][:3])
    place = folder / "checkpoints"
    found["stored"] = weights(chain, mine, checkpoint_dir=place)
    found["resumed"] = weights(chain, mine, checkpoint_dir=place, resume=True)
    bad = [x * float("nan") if rank else x for x in mine]
    found["nan"] = refused(chain, bad)
    found["inside"] = refused(loud, [x * 1e36 if rank else x for x in mine])
    found["blocks"] = refused(Branches if rank else chain, mine)
    torch.save(found, folder / f"{rank}.pt")


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = two_processes(worker, tmp_path_factory.mktemp("two"))
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.parametrize(("name", "build", "count"), [("chain", chain, 8), ("uneven", Branches, 5)])
def test_codes_are_those_of_one_process(two, name, build, count):
    want, reports = weights(build, vectors(count))
    for found, reported in (rank[name] for rank in two):
        assert found.keys() == want.keys()
        for layer, weight in want.items():
            assert torch.equal(found[layer], weight), layer
            assert reported[layer][0] == reports[layer][0]
            assert reported[layer][1] == pytest.approx(reports[layer][1], rel=1e-9)


def test_statistics_are_those_of_one_process(two, monkeypatch):
    gathered = []
    plain = Gatherer.gather

    def gather(*args):
        gathered.append(plain(*args))
        return gathered[-1]

    monkeypatch.setattr(Gatherer, "gather", gather)
    weights(chain, vectors(8))
    weights(Branches, vectors(5))
    sums: list[Statistics] = [s for parts in gathered for s in parts]
    assert len(sums) == len(two[0]["sums"])
    for rank in two:
        for one, (hessian, cross, tokens) in zip(sums, rank["sums"], strict=True):
            assert tokens == one.tokens
            torch.testing.assert_close(hessian, one.hessian, rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(cross, one.cross, rtol=1e-12, atol=1e-12)


def test_batch_norms_are_those_of_one_process(two):
    want = normed(vectors(5, rows=32))
    for found in (rank["normed"] for rank in two):
        torch.testing.assert_close(found, want, rtol=1e-6, atol=1e-7)
        assert found["tail.num_batches_tracked"] == 5


def test_processes_resume_together(two):
    for rank in two:
        for name in ("stored", "resumed"):
            for layer, weight in rank["chain"][0].items():
                assert torch.equal(rank[name][0][layer], weight)


def test_an_error_of_one_process_is_an_error_of_all(two):
    for rank in two:
        kind, text = rank["nan"]
        assert kind == ConfigError.__name__ and "must be finite, not NaN or infinity" in text
        kind, text = rank["inside"]
        assert kind == ConfigError.__name__ and text.startswith("layer '1': inputs must be finite")
        kind, text = rank["blocks"]
        assert kind == ConfigError.__name__
        assert "must be the same on all ranks" in text
