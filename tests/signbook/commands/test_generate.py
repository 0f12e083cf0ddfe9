"""``signbook generate``: the text, the document, one-line errors."""

import json

import pytest
import torch

import vq
from signbook.data.carried import carry
from signbook.data.files import data_file
from signbook.data.tokenizing import of_scores
from tests.signbook.runner import refused, run
from tests.signbook.shared import shared
from tests.signbook.writing.models import save_llama
from tests.signbook.zoo.test_tokenizer import SMALL
from vq.integer.tokens.build import add_tokens
from vq.integer.tokens.writing import continued

STORIES = "py:signbook.zoo.llama:stories260k"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    pytest.importorskip("transformers")
    found = tmp_path_factory.mktemp("generate")
    save_llama(found)
    return found


def written(folder, out, *options):
    common = ("--prompt", "Once\x1b[2J", "--tokens", "20", "--json", out)
    done = run("generate", f"hf:{folder}", *common, *options)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "" and done.stdout.startswith("Once\\x1b[2J")
    assert "\x1b" not in done.stdout
    return json.loads(out.read_text()), done.stdout


def test_a_file_packed_and_dense(folder, tmp_path):
    file = ("--file", folder / "small.vq.safetensors")
    out = tmp_path / "out.json"
    dense, printed = written(folder, out, *file)
    packed, _ = written(folder, out, *file, "--packed", "--activations", "exact")
    own, _ = written(folder, out)
    assert packed["tokens"] == dense["tokens"] != own["tokens"]
    assert packed["bytes_per_token"] < dense["bytes_per_token"] == own["bytes_per_token"]
    assert dense["schema"] == "signbook.generate/1" and len(dense["tokens"]) == 20
    assert set(dense) == {
        "schema", "prompt", "text", "prompt_tokens", "tokens", "stopped", "prefill_seconds",
        "decode_seconds", "prefill_tokens_per_second", "decode_tokens_per_second",
        "resident_bytes", "bytes_per_token",
    }  # fmt: skip
    assert "20 tokens, until tokens" in printed and "decode_tokens_per_second" in printed
    drawn = [written(folder, out, "--temperature", "2", "--seed", s)[0]["tokens"] for s in "778"]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_folder_of_a_compressed_model(folder, tmp_path):
    from signbook.loading import load_model
    from tests.signbook.writing.models import save_tokenizer

    model = load_model(f"hf:{folder}")
    recipe = vq.Recipe({"re:.*(lm_head|embed_tokens)": vq.Int8(), "*": vq.SSVQ(d=4)})
    vq.compress_(model, recipe, progress=False)
    vq.hf.save_pretrained(model, tmp_path / "small")
    save_tokenizer(tmp_path / "small")
    out = tmp_path / "out.json"
    dense, _ = written(tmp_path / "small", out)
    packed, _ = written(tmp_path / "small", out, "--packed", "--activations", "exact")
    assert packed["tokens"] == dense["tokens"]


def test_a_story():
    shared("stories260K/stories260K.bin")
    weights = data_file("stories260K/stories260K.bin")
    done = run(
        "generate", STORIES, "--weights", weights, "--prompt", "Once upon a time", "--tokens", "9"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Once upon a time, there was a little girl named\n9 tokens")


def stammerer():
    """A small Llama with fresh weights that knows as many tokens as a small tokenizer."""
    from signbook.zoo.llama import Llama, LlamaConfig

    torch.manual_seed(0)
    model = Llama(LlamaConfig(16, 24, 1, 2, 2, len(SMALL), 16))
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def test_an_integer_graph_writes_with_the_files_own_tokenizer(tmp_path):
    file, model = tmp_path / "small.vq.safetensors", stammerer()
    vq.compress_(model, vq.Recipe({"*": vq.Int8()}), progress=False)
    vq.save(model, file, progress=False)
    graph = add_tokens(file, stammerer(), [torch.arange(16)[None] * 16], progress=False)
    name = "py:tests.signbook.commands.test_generate:stammerer"
    what = ("generate", name, "--file", file, "--integer", "--prompt", "abc", "--tokens", "5")
    assert "its name tells none; give --tokenizer" in refused(*what)
    carry(file, of_scores(SMALL, ""))
    done = run(*what, "--json", tmp_path / "out.json")
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "out.json").read_text())
    assert document["tokens"] == list(continued(graph, SMALL.encode("abc"), 5))
    assert document["bytes_per_token"] > 0 and done.stdout.startswith("abc")
    missing = refused("generate", name, "--integer", "--prompt", "abc")
    assert "--integer must come with --file, the container that holds the graph" in missing


def test_mistakes_are_one_line(folder, tmp_path):
    prompt = ("--prompt", "Once")
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare/config.json").write_text((folder / "config.json").read_text())
    assert "tokenizer '" in refused("generate", f"hf:{tmp_path / 'bare'}", *prompt)
    assert "--prompt must hold text" in refused("generate", f"hf:{folder}", "--prompt", "")
    assert "its name tells none" in refused("generate", "timm:deit_tiny", *prompt)
    packed = refused("generate", f"hf:{folder}", *prompt, "--packed")
    assert "--packed must come with --file" in packed
    without = refused("generate", f"hf:{folder}", *prompt, "--activations", "int8")
    assert "--activations must come with --packed" in without
    long = refused("generate", f"hf:{folder}", "--prompt", 70 * "a")
    assert "--prompt must leave room in the model's context of 64 tokens" in long
    assert run("generate", f"hf:{folder}").returncode == 2
