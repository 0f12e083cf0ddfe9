"""The model card: read by the hub's rules, true to the file, and never in another text's place."""

import re

import pytest
import torch
import yaml

import vq
from vq import SSVQ, Int8, Recipe
from vq.container import account, open_container
from vq.errors import ConfigError
from vq.hf.card import CARD, literal

transformers = pytest.importorskip("transformers", reason="the extra lm is not installed")

import vq.hf  # noqa: E402

CALIBRATION = [torch.tensor([[2, 7, 1, 8]])]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    sizes = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, vocab_size=40)
    config = transformers.LlamaConfig(**sizes, num_key_value_heads=1, intermediate_size=48)
    made = transformers.LlamaForCausalLM(config)
    recipe = Recipe({"lm_head": Int8(), "*_proj": SSVQ(d=4, k=8), "*": None})
    vq.compress_(made, recipe, calibration=CALIBRATION, seed=11, progress=False)
    return made


def card_of(model, folder, **settings):
    vq.hf.save_pretrained(model, folder, **settings)
    text = (folder / CARD).read_text()
    _, front, body = text.split("---\n", 2)
    return yaml.safe_load(front), body


def cells(body, start):
    line = next(line for line in body.splitlines() if line.startswith(f"| {start}"))
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_front_matter_is_what_the_hub_reads(model, tmp_path):
    front, body = card_of(model, tmp_path / "a", base_model="owner/Llama-3.2-1B", license="mit")
    assert front == {
        "library_name": "transformers",
        "base_model": "owner/Llama-3.2-1B",
        "base_model_relation": "quantized",
        "license": "mit",
        "tags": ["signbook", "int8", "ssvq"],
    }
    assert "# owner/Llama-3.2-1B, compressed\n" in body
    front, _ = card_of(model, tmp_path / "b")
    assert front.keys() == {"library_name", "tags"}  # nobody said what it was made from


def test_a_model_that_was_loaded_by_name_says_so(model, tmp_path, monkeypatch):
    monkeypatch.setattr(model, "name_or_path", "owner/name")
    assert card_of(model, tmp_path / "a")[0]["base_model"] == "owner/name"
    monkeypatch.setattr(model, "name_or_path", str(tmp_path))
    assert "base_model" not in card_of(model, tmp_path / "b")[0]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(model, "name_or_path", "a")  # a folder here
    assert "base_model" not in card_of(model, tmp_path / "c")[0]


def test_sizes_are_those_of_the_file(model, tmp_path):
    _, body = card_of(model, tmp_path)
    path = tmp_path / vq.hf.FILE
    with open_container(path) as container:
        counted = account([entry.geometry for entry in container.layers])
        made = container.provenance
    for method in ("ssvq", "int8"):
        own = [one for one in counted if one.geometry.method == method]
        weights, held = (
            sum(one.geometry.weights for one in own),
            sum(one.total_bytes for one in own),
        )
        assert cells(body, method) == [
            f"{method}, linear", str(len(own)), f"{weights:,}", f"{held:,}",
            f"{round(8 * held / weights, 3):.6g}",
        ]  # fmt: skip
    held = sum(one.total_bytes for one in counted)
    assert cells(body, "all compressed")[3] == f"{held:,}"
    assert cells(body, "kept as")[3] == f"{path.stat().st_size - held:,}"
    assert cells(body, "the file")[3] == f"{path.stat().st_size:,}"
    assert cells(body, "seed")[1] == "11"
    assert cells(body, "sha256")[1] == made.calibration != "0" * 64
    assert cells(body, "compressed by")[1] == made.tool
    assert '"*\\_proj"' not in body and '"*_proj"' in body  # the recipe, as it is


def test_its_code_loads_the_model(model, tmp_path):
    _, body = card_of(model, tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", body, re.S)
    names = {}
    exec(code.replace("FOLDER", str(tmp_path)), names)
    weight = model.lm_head.weight.detach()
    assert torch.equal(names["model"].lm_head.weight.detach(), weight)


def test_evaluations_are_tables(model, tmp_path):
    document = {
        "schema": "signbook.eval/1",
        "metrics": {"perplexity": 13.123456789, "logit_kl": 0.5},
        "reference": {"perplexity": 9.75},
        "protocol": {"text": "a|b", "context_tokens": 2048},
    }
    _, body = card_of(model, tmp_path, evaluation=document)
    assert cells(body, "metric") == ["metric", "compressed", "original"]
    assert cells(body, "perplexity") == ["perplexity", "13.1235", "9.75"]
    assert cells(body, "logit\\_kl") == ["logit\\_kl", "0.5", ""]
    assert "How the text was cut: text: a\\|b, context\\_tokens: 2048." in body
    rows = [{"task": "arc_easy", "score": 0.5}, {"task": "<b>", "score": 1, "n": 7}]
    _, body = card_of(model, tmp_path, evaluation=rows)
    assert cells(body, "task") == ["task", "score", "n"]
    assert cells(body, "arc") == ["arc\\_easy", "0.5", ""]
    assert cells(body, "\\<b") == ["\\<b\\>", "1", "7"]


@pytest.mark.parametrize(
    "given", ["good", {"top1": 0.5}, {"metrics": 3}, [3], [], [{}], [{"a": None}], [{"a": [1]}]]
)
def test_what_is_no_evaluation_is_refused_before_work(model, tmp_path, given):
    with pytest.raises(ConfigError, match=r"^evaluation must be a document of signbook eval, or "):
        vq.hf.save_pretrained(model, tmp_path / "a", evaluation=given)
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("given", ["/models/llama", "a/b/c", "", "a b", "a/b\n"])
def test_base_models_are_names_on_the_hub(model, tmp_path, given):
    with pytest.raises(ConfigError, match=r"^base_model must be the name of a model on the hub"):
        vq.hf.save_pretrained(model, tmp_path / "a", base_model=given)
    assert not (tmp_path / "a").exists()


def test_a_card_of_another_writer_stays(model, tmp_path):
    card_of(model, tmp_path)
    ours = (tmp_path / CARD).read_text()
    assert card_of(model, tmp_path, license="mit")[0]["license"] == "mit"  # ours is written anew
    own = "\n".join(line for line in ours.splitlines() if "Written by signbook" not in line)
    for text in (own, "# mine\n", ""):
        (tmp_path / CARD).write_text(text)
        before = (tmp_path / vq.hf.FILE).stat().st_mtime_ns
        with pytest.raises(
            ConfigError, match=r"README.md: must be a card that signbook wrote, not"
        ):
            vq.hf.save_pretrained(model, tmp_path)
        assert (tmp_path / vq.hf.FILE).stat().st_mtime_ns == before
        vq.hf.save_pretrained(model, tmp_path, card=False)
        assert (tmp_path / CARD).read_text() == text


def test_names_stand_as_they_are():
    assert literal("a_b|<c>*`[d](e)\n$x$ :smile: @me #1") == (
        r"a\_b\|\<c\>\*\`\[d\](e)\\n\$x\$ \:smile\: \@me \#1"
    )
