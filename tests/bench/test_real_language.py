"""The comparison on SmolLM2: arms, bits, choices, pieces, and one arm on a small model."""

import sys
from dataclasses import replace

import pytest
import torch

import vq
from bench import real_language
from bench.harness import Bench
from bench.real_language import Arm, Setting, Work
from rescomp import GPTAQ, GPTAQR, GPTQ, QEP, RTN
from signbook.tasks import LanguageModelling
from vq.errors import ConfigError, ResumeError

TWO, THREE, FOUR = real_language.WORKS.values()
#: As the script finds it, beside itself.
quantised = sys.modules[Arm.__module__]


@pytest.mark.parametrize(
    ("work", "arm", "share", "method"),
    [
        (TWO, "rtn", None, RTN()),
        (TWO, "gptq", None, GPTQ()),
        (TWO, "gptaq", 1.0, GPTAQ(1.0)),
        (TWO, "gptaq-r", 0.1, GPTAQR(0.25, 0.1, mode="org")),
        (THREE, "gptaq-r", None, GPTAQR()),
        (TWO, "exa", None, QEP()),
        (TWO, "exa@0.5", 0.75, QEP(0.5)),
        (TWO, "gptaq-vq", None, GPTAQ()),
        (TWO, "gptaq-r-ssvq", 0.1, GPTAQR(0.25, 0.1)),
        (THREE, "qep-ssvq", 0.75, QEP(0.75)),
    ],
)
def test_arms_name_methods(work, arm, share, method):
    assert Arm(work, arm).method(Setting(share=share)) == method


def test_recipes_hold_all_linears_and_share_codebooks_in_a_block():
    layers = {f"model.layers.7.{name}" for names in quantised.PARTS.values() for name in names}
    for work in (TWO, THREE):
        for kind in ("vq", "ssvq"):
            books = Arm(work, f"gptaq-{kind}").recipe(Setting()).rules
            assert len(books) == 30 * 7 and layers < books.keys()
            for part, names in quantised.PARTS.items():
                book = work.instead.get((kind, part), work.books[kind])
                wanted = replace(book, scale="output", shared=f"7.{part}")
                assert {books[f"model.layers.7.{name}"] for name in names} == {wanted}
    scalars = Arm(TWO, "exa@0.5").recipe(Setting(group=128, zeros=True)).rules
    assert (
        set(scalars.values()) == {vq.Int2(group=128, zeros=True)} and scalars.keys() == books.keys()
    )
    assert Arm(FOUR, "rtn").recipe(Setting(group=192)).rules[max(layers)] == vq.Int4(group=192)


@pytest.mark.parametrize("work", real_language.WORKS.values(), ids=real_language.WORKS)
def test_codebooks_have_equal_bits_and_scalars_no_fewer(work):
    real_language.check_bits(work)


@pytest.mark.parametrize(
    ("plain", "bits"),
    [
        (vq.VQ(d=4, k=128), "1.8"),  # fewer than SSVQ
        (vq.VQ(d=4, k=512), "2.3"),  # more than 2 % above
    ],
)
def test_codebooks_of_other_bits_are_refused(plain, bits):
    work = Work("other", 2, {"ssvq": vq.SSVQ(d=8, k=256), "vq": plain})
    words = rf"^work 'other': vq must .* than ssvq, 2\.0654, .* scalars, 2\.1120, not {bits}\d+$"
    with pytest.raises(ConfigError, match=words):
        real_language.check_bits(work)


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Function that starts the same bench anew, as a later process would."""
    monkeypatch.chdir(tmp_path)

    def begin(*arguments):
        monkeypatch.setattr(sys, "argv", ["bench", *arguments])
        names = tuple(real_language.WORKS), real_language.ARMS
        return Bench("real_language", "What it measures.", seeds=2, works=names[0], arms=names[1])

    return begin


def test_settings_are_chosen_one_after_another(start, monkeypatch):
    asked = []

    def run(arm, setting, seed, rows, judged, folder):
        asked.append((arm.work.name, setting))
        assert (seed, rows, judged, folder) == (0, 32, 16, None)
        return {"held_out": abs(setting.group - 150) + abs((setting.share or 0) - 0.2)}

    monkeypatch.setattr(real_language, "measured", run)
    monkeypatch.setattr(real_language, "alone", lambda function, *given: function(*given))
    groups = [Setting(192, True, 0.75), Setting(144, share=0.75)]
    best = Setting(144, share=0.5)
    bench = start()
    assert real_language.chosen(bench, Arm(TWO, "exa")) == best
    assert asked == [(TWO.name, one) for one in [*groups, best]]
    assert not bench.finish()["rows"], "tries are no results"
    assert real_language.chosen(start(), Arm(TWO, "exa")) == best
    assert len(asked) == 3, "kept tries are not made again"
    for arm in ("rtn", "gptq", "exa@0.5"):
        assert real_language.chosen(start(), Arm(TWO, arm)) == Setting(144)
    assert len(asked) == 3, "groups are those of exa, and the share of a name is not chosen"
    assert real_language.chosen(start(), Arm(TWO, "gptaq-r")) == Setting(144, share=0.25)
    assert [one.share for _, one in asked[3:]] == [0.25, 0.1]
    book = Setting(share=0.5, sweeps=1)
    assert real_language.chosen(start(), Arm(FOUR, "qep-ssvq")) == book
    assert {name for name, _ in asked[5:]} == {THREE.name} and len(asked) == 7
    assert real_language.chosen(start(), Arm(THREE, "qep-ssvq+blocks")) == book
    for arm, first in (("fp32", Setting()), ("ssvq", Setting()), ("gptq-ssvq", Setting(sweeps=1))):
        assert real_language.chosen(start(), Arm(TWO, arm)) == first and len(asked) == 7


def test_pieces_are_planned_seed_by_seed(start):
    def plan(*arguments):
        return [(a.work.name, a.name, seed) for a, seed in real_language.planned(start(*arguments))]

    whole = plan()
    assert len(whole) == len(set(whole)) == (16 + 14) + (16 + 12) + 14
    assert [seed for work, _, seed in whole if work == TWO.name] == [0] * 16 + [1] * 14
    assert {seed for work, _, seed in whole if work == FOUR.name} == {0}
    piece = plan("--works", "smollm2@3.1", "--arms", "qep-vq", "rtn")
    assert piece == [(THREE.name, "qep-vq", 0), (THREE.name, "rtn", 0), (THREE.name, "qep-vq", 1)]
    quick = [(TWO.name, arm, 0) for arm in ("fp32", "gptaq", "exa", "qep-vq", "qep-ssvq")]
    assert plan("--quick") == quick
    assert plan("--quick", "--arms", "exa", "gptq") == [(TWO.name, "exa", 0)]


@pytest.fixture
def small(monkeypatch):
    """A work on one block of a small model, and random text."""
    from transformers import LlamaConfig, LlamaForCausalLM

    def model():
        torch.manual_seed(1)
        config = LlamaConfig(
            vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=1,
            num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True,
        )  # fmt: skip
        return LlamaForCausalLM(config).eval()

    asked = []

    def text(*, limit, length, batch, tokenizer, part="second", seed=None, detokenize=False):
        assert (length, batch, tokenizer, detokenize) == (512, 1, "smollm2", part != "second")
        asked.append((part, limit, seed))
        generator = torch.Generator().manual_seed(len(part) + (seed or 0))
        rows = torch.randint(64, (limit, 1, 24), generator=generator)
        return LanguageModelling([(row, torch.ones(1, 24, dtype=torch.bool)) for row in rows])

    monkeypatch.setattr(quantised, "smollm2", model)
    monkeypatch.setattr(quantised, "wikitext2", text)
    monkeypatch.setattr(quantised, "tinyshakespeare", text)
    monkeypatch.setattr(quantised, "BLOCKS", 1)
    books = {"ssvq": vq.SSVQ(d=4, k=16), "vq": vq.VQ(d=2, k=16)}
    return Work("small", 2, books), asked


def test_an_arm_is_quantised_on_its_seed_and_judged_on_other_text(small):
    work, asked = small
    fp32 = quantised.measured(Arm(work, "fp32"), Setting(), 0, 6, 4)
    judged = [("judge", 4, None), ("second", 2, None), ("choose", 2, None)]
    assert asked == judged and fp32["logit_kl"] == fp32["logit_kl_p99"] == 0
    assert "bits_per_weight" not in fp32
    found = {}
    for name in ("gptq", "vq", "qep-ssvq"):
        asked.clear()
        setting = Setting(group=16) if name == "gptq" else Setting(sweeps=1)
        one = quantised.measured(Arm(work, name), setting, 5, 6, 4)
        assert asked == [("calibrate", 6, 5), *judged]
        assert one.keys() - fp32.keys() == {"bits_per_weight", "solver_seconds", "peak_mb"}
        assert 0 < one["logit_kl_median"] < one["logit_kl"] < one["logit_kl_p99"]
        assert one["perplexity"] != fp32["perplexity"] and one["shakespeare"] != fp32["shakespeare"]
        assert one["solver_seconds"] > 0 and one["peak_mb"] > 50
        found[name] = one
    recipe = Arm(work, "vq").recipe(Setting())
    assert found["vq"]["bits_per_weight"] == quantised.bits_of(quantised.smollm2(), recipe)
    again = quantised.measured(Arm(work, "qep-ssvq"), Setting(sweeps=1), 6, 6, 4)
    assert again["logit_kl"] != found["qep-ssvq"]["logit_kl"]


def test_tuned_arms_go_on_from_each_other(small, tmp_path, monkeypatch):
    work, _ = small
    steps, distil = [], vq.distil_

    def noted(model, data, teacher, **options):
        steps.append(len(data))
        return distil(model, data, teacher, **options)

    monkeypatch.setattr(vq, "distil_", noted)
    found, stamps = [], []
    for parts in ("+blocks", "+blocks+scales"):
        arm = Arm(work, f"qep-ssvq{parts}")
        found.append(quantised.measured(arm, Setting(), 5, 6, 4, tmp_path))
        stamps.append({p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()})
    assert stamps[0] and stamps[0] == stamps[1], "blocks are tuned again"
    assert steps == [6] and found[0]["bits_per_weight"] == found[1]["bits_per_weight"]
    with pytest.raises(ResumeError, match="checkpoint"):
        quantised.measured(Arm(work, "qep-ssvq"), Setting(), 5, 6, 4, tmp_path)
