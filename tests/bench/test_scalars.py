"""The comparison of scalar methods and codebooks: arms, equal bits, differences, the figure."""

import json
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

import vq
from bench import accuracy_plot, scalars, subjects
from bench.harness import Bench
from rescomp import FOEM, GPTAQ, GPTAQR, GPTQ, GPTQR, QEP, RTN
from signbook.zoo.llama import Llama, LlamaConfig, stories260k
from vq.container import account
from vq.errors import ConfigError
from vq.recipe.selection import select


@pytest.mark.parametrize(
    ("arm", "bits", "method"),
    [
        ("rtn", 3, RTN()),
        ("gptq", 2, GPTQ()),
        ("gptaq@1", 3, GPTAQ(1)),
        ("gptq-r", 3, GPTQR()),
        ("gptq-r@0.1", 2, GPTQR(0.1, mode="org")),
        ("gptaq-r@0.1", 4, GPTAQR(0.25, 0.1)),
        ("exa@0.5", 2, QEP(0.5)),
        ("foem", 3, FOEM()),
        ("gptaq+damped", 3, GPTAQ()),
        ("gptq-r+allw", 2, GPTQR()),
    ],
)
def test_arms_name_methods_and_shares(arm, bits, method):
    assert scalars.method_of(arm, bits) == method


@pytest.mark.parametrize(
    ("arm", "words"),
    [
        ("gptq@0.1", "^arm with a share must be of gptaq, gptq-r, gptaq-r, exa, foem, not 'gptq@0"),
        ("exa@much", "^share of arm 'exa@much' must be a number, not 'much'"),
        ("gptr", "^method must be one of rtn, gptq, .* not 'gptr'"),
    ],
)
def test_arms_that_do_not_exist_are_refused(arm, words):
    with pytest.raises(ConfigError, match=words):
        scalars.method_of(arm, 3)


def test_every_arm_has_a_base_and_every_work_its_name():
    for name, work in scalars.WORKS.items():
        assert work.name == name
        for arm in (*scalars.METHODS[1:], *work.swept):
            scalars.method_of(arm, work.bits)
            assert scalars.BASES[arm.partition("@")[0]] in scalars.METHODS


def bert_block():
    return nn.ModuleDict(
        {name: nn.Linear(384, 384) for name in "qkvo"}
        | {"up": nn.Linear(384, 1536), "down": nn.Linear(1536, 384)}
    )


@pytest.mark.parametrize("work", scalars.WORKS.values(), ids=scalars.WORKS)
def test_codebooks_get_the_total_bits_of_the_scalars(work):
    if work.subject == "minilm":
        model, layers, within = bert_block(), "*", 0.05
    else:
        model, layers, within = stories260k(), "blocks.*", 0.03

    def bits(method):
        chosen = select(model, vq.Recipe({layers: method})).layers
        counted = account([layer.geometry for layer in chosen])
        return 8 * sum(a.total_bytes for a in counted) / sum(a.geometry.weights for a in counted)

    wanted = bits(scalars.KINDS[work.bits](group=work.group))
    for arm, method in work.codebooks.items():
        assert bits(method) == pytest.approx(wanted, rel=within), arm


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Function that starts the same bench anew, as a later process would."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["bench"])
    return lambda: Bench("scalars", "What it measures.", seeds=2)


@pytest.fixture
def subject():
    torch.manual_seed(1)
    model = Llama(LlamaConfig(dim=32, hidden=48, layers=1, heads=4, kv_heads=2, vocabulary=64))
    for linear in (m for m in model.modules() if isinstance(m, nn.Linear)):
        nn.init.normal_(linear.weight)
    tokens = torch.randint(64, (8, 24))
    wanted = model(tokens).detach()

    @torch.no_grad()
    def score(compressed):
        return float((compressed(tokens) - wanted).square().mean())

    return subjects.Subject(
        model, "blocks.*", "nats_per_token", score, lambda seed: [tokens.roll(seed, 0)]
    )


def test_one_work_measures_arms_their_files_and_their_differences(start, subject):
    books = {"ssvq": vq.SSVQ(d=4, k=16), "vq": vq.VQ(d=4, k=16)}
    work = scalars.Work("small", 3, 32, books, ("exa@0.5",), seeds=2)
    bench = start()
    measured = scalars.Comparison(bench, work, subject)
    measured.run()
    measured.sweep()
    rows = {(row["arm"], row["metric"]): row for row in bench.finish()["rows"]}
    mean = {arm: row["mean"] for (arm, metric), row in rows.items() if metric == "nats_per_token"}
    pairs = {"exa@0.5": "gptq"} | {arm: scalars.BASES[arm] for arm in scalars.METHODS[1:]}
    differences = {f"{arm} - {base}": mean[arm] - mean[base] for arm, base in pairs.items()}
    assert mean.keys() == {*scalars.METHODS, "exa@0.5", *books, "fp32", "int8", *differences}
    assert {name: mean[name] for name in differences} == pytest.approx(differences)
    assert mean["fp32"] == 0 and mean["gptq"] < mean["rtn"]
    assert rows["rtn", "nats_per_token"]["seeds"] == 1
    assert rows["gptq - rtn", "nats_per_token"]["seeds"] == 2
    read = {arm: row["mean"] for (arm, metric), row in rows.items() if metric == "bytes_read"}
    assert {read[arm] for arm in scalars.METHODS} == {read["rtn"]}
    assert read["ssvq"] < read["rtn"] < read["int8"]
    assert rows["int8", "speedup"]["mean"] == 1
    assert rows["rtn", "nats_per_token"]["bits_per_weight"] > 3.5

    def unused(model):
        raise AssertionError("finished measurements are not made again")

    known = subjects.Subject(subject.model, "blocks.*", "nats_per_token", unused, unused)
    scalars.Comparison(start(), work, known).run()


def test_training_follows_the_clustering(start, subject):
    asked = []

    def train(arm, method, rate, seed):
        asked.append((arm, method, rate, seed))
        model = Llama(subject.model.config)
        vq.compress_(model, vq.Recipe({"blocks.*": method}), progress=False)
        return model

    def loss(arm, method, rate):
        return abs(rate - 0.1)

    trained = replace(subject, train=train, loss=loss)
    work = scalars.Work("small", 3, 32, {"vq": vq.VQ(d=4, k=16)}, (), seeds=1)
    bench = start()
    scalars.Comparison(bench, work, trained).train()
    assert asked == [("vq", vq.VQ(d=4, k=16), 0.1, 0)]
    assert {row["arm"] for row in bench.finish()["rows"]} == {"vq+trained"}


def test_distilled_encoders_are_read_from_the_bench_that_made_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert subjects.distilled("ssvq") == {}
    folder = tmp_path / "out" / "bench"
    folder.mkdir(parents=True)

    def line(arm, seed, cosine, work="minilm@2.06", budget="full"):
        key = {"work": work, "arm": arm, "seed": seed, "budget": budget, "setting": "rate 1"}
        return json.dumps({"key": key, "metrics": {"cosine": cosine}}) + "\n"

    (folder / "minilm.jsonl").write_text(
        line("ssvq", 0, 0.5)
        + line("vq", 0, 0.25)
        + line("ssvq", 1, 0.1, budget="quick")
        + line("ssvq", 0, 0.75)
        + line("ssvq", -1, 0.1, work="minilm@2.06: choice of ssvq")
    )
    assert subjects.distilled("ssvq") == {0: 0.25}


def test_figure_draws_every_arm_that_was_measured():
    def rows(work, metric, arms):
        for i, arm in enumerate(arms):
            row = {"work": work, "arm": arm, "stderr": 0.01}
            yield row | {"metric": metric, "mean": 1.0 + i}
            if arm != "fp32":
                yield row | {"metric": "bytes_read", "mean": 1000 + 100 * i}

    found = [
        *rows("stories260k@w3g32", "nats_per_token", ["fp32", "rtn", "ssvq"]),
        *rows("stories260k@w2g32", "nats_per_token", ["fp32", "rtn", "exa@0.5"]),
    ]
    one = accuracy_plot.accuracy_against_bytes(found)
    assert "SSVQ" in one and "RTN" in one and "stories260K" in one
    assert (
        "MiniLM" not in one
        and "GPTQ" not in one
        and one == (accuracy_plot.accuracy_against_bytes(found))
    )
    both = accuracy_plot.accuracy_against_bytes(
        [*found, *rows("minilm@w2g128", "embedding_error", ["fp32", "gptq"])]
    )
    assert "MiniLM" in both and "GPTQ" in both
