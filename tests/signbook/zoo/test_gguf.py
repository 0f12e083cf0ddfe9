"""Models in GGUF: which file a name means, and what is read from it."""

import importlib
import re

import pytest
import torch

from signbook.naming import resolve_model
from signbook.zoo.gguf import gguf_in, gguf_tokenizer, save_gguf
from vq.errors import ConfigError, OutputError

UP = "blk.0.ffn_up.weight"
#: Lengths of a block's vectors and matrices, outputs first, by their names.
SHAPES = {
    "attn_norm": (64,), "ffn_norm": (64,), "attn_q": (64, 64), "attn_k": (32, 64),
    "attn_v": (32, 64), "attn_output": (64, 64), "ffn_gate": (96, 64), "ffn_up": (96, 64),
    "ffn_down": (64, 96),
}  # fmt: skip


@pytest.fixture
def small(tmp_path):
    """A file with a Llama of one block, and its tensors."""
    pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    gguf = pytest.importorskip("gguf")
    path = tmp_path / "small.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("small")
    writer.add_block_count(1)
    writer.add_context_length(32)
    writer.add_embedding_length(64)
    writer.add_feed_forward_length(96)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(4)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["<s>", "a", "b", "ab"])
    writer.add_token_types([3, 1, 1, 1])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    tensors = {"token_embd.weight": torch.randn(4, 64), "output_norm.weight": torch.randn(64)}
    tensors |= {f"blk.0.{name}.weight": torch.randn(shape) for name, shape in SHAPES.items()}
    for name, tensor in tensors.items():
        raw = tensor.numpy()
        if name == UP:  # as most files store them
            kind = gguf.GGMLQuantizationType.Q4_1
            raw = gguf.quantize(raw, kind)
            writer.add_tensor(name, raw, raw_dtype=kind)
            tensors[name] = torch.from_numpy(gguf.dequantize(raw, kind))
        else:
            writer.add_tensor(name, raw)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path, tensors


def test_a_file_and_its_folder_give_the_model(small, tmp_path, capfd):
    path, tensors = small
    for name in (path, tmp_path):
        model = resolve_model(f"hf:{name}")
        assert type(model).__name__ == "LlamaForCausalLM" and not model.training
        block = model.model.layers[0]
        assert torch.equal(block.mlp.up_proj.weight, tensors[UP])
        assert torch.equal(block.self_attn.v_proj.weight, tensors["blk.0.attn_v.weight"])
        assert model.lm_head.weight is model.model.embed_tokens.weight  # the file has no head
    fresh = resolve_model(f"hf:{path}", pretrained=False)
    assert not torch.equal(fresh.model.layers[0].mlp.up_proj.weight, tensors[UP])
    assert capfd.readouterr() == ("", "")


def test_a_file_becomes_a_folder(small, tmp_path, capfd):
    path, _ = small
    folder = tmp_path / "folder"
    save_gguf(path, folder)
    assert capfd.readouterr() == ("", "")
    assert gguf_in(str(folder)) is None
    loaded, read = resolve_model(f"hf:{folder}"), resolve_model(f"hf:{path}")
    for name, value in read.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name])
    assert "quantization_config" not in (folder / "config.json").read_text()
    assert gguf_tokenizer(path)("abba")["input_ids"] == [3, 2, 1]
    assert (folder / "tokenizer.json").exists()


def test_a_folder_that_cannot_be_written(small, tmp_path, monkeypatch):
    path, _ = small
    transformers = importlib.import_module("transformers")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(transformers.PreTrainedModel, "save_pretrained", full)
    with pytest.raises(
        OutputError, match=r"^/.*/f: must be writable, to hold what small\.gguf holds; "
    ):
        save_gguf(path, tmp_path / "f")


@pytest.mark.parametrize("kept", [0, 3, 30, 900, 0.5, 0.99])
def test_damaged_files(small, kept):
    path, _ = small
    raw = path.read_bytes()
    path.write_bytes(raw[: kept if isinstance(kept, int) else int(kept * len(raw))])
    with pytest.raises(
        ConfigError,
        match=r"^/.*/small\.gguf: must be a whole GGUF of a language model that "
        r"transformers knows, but .*; get the file anew, or update transformers$",
    ):
        resolve_model(f"hf:{path}")


def test_absent_tensors(small):
    path, _ = small
    path.write_bytes(path.read_bytes().replace(b"ffn_gate.weight", b"ffn_gone.weight"))
    with pytest.raises(ConfigError, match=r"absent, 'model\.layers\.0\..*' first of 1\)"):
        resolve_model(f"hf:{path}")


def test_which_file_a_name_means(tmp_path):
    assert gguf_in("owner/name") is None and gguf_in(str(tmp_path)) is None
    (tmp_path / "a.gguf").touch()
    (tmp_path / "config.json").touch()
    assert gguf_in(str(tmp_path)) == gguf_in(f"{tmp_path}/a.gguf") == tmp_path / "a.gguf"
    (tmp_path / "b.gguf").touch()
    assert gguf_in(f"{tmp_path}/b.gguf") == tmp_path / "b.gguf"
    with pytest.raises(
        ConfigError,
        match=rf"^{re.escape(str(tmp_path))}: folder must hold one GGUF, not 2 "
        rf"\(a\.gguf, b\.gguf\); name one, such as {re.escape(str(tmp_path))}/a\.gguf$",
    ):
        resolve_model(f"hf:{tmp_path}")
    (tmp_path / "model.safetensors").touch()
    assert gguf_in(str(tmp_path)) is None
    with pytest.raises(
        ConfigError, match=r"^/.*/c\.gguf: must be a GGUF that exists, not absent; "
    ):
        resolve_model(f"hf:{tmp_path}/c.gguf")


def test_parts_are_refused(tmp_path):
    (tmp_path / "m-00001-of-00002.gguf").touch()
    with pytest.raises(ConfigError, match=r"^/.*\.gguf: must be a whole GGUF, not one of .*; "):
        resolve_model(f"hf:{tmp_path}")


def test_what_must_be_installed(tmp_path, monkeypatch):
    pytest.importorskip("transformers")
    (tmp_path / "a.gguf").touch()
    genuine = importlib.import_module

    def absent(name, *rest):
        if name == "gguf":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return genuine(name, *rest)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(
        ConfigError,
        match=r"^/.*/a\.gguf: package 'gguf' must be installed, not absent; "
        r"run: pip install 'signbook\[gguf\]'$",
    ):
        resolve_model(f"hf:{tmp_path}")
