"""Models of timm and of transformers: folders, weights, no network."""

import socket
import sys
import time
import types

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from signbook.naming import resolve_model
from vq.errors import ConfigError


@pytest.fixture
def timm(monkeypatch):
    """A stand-in for timm that has no network: what matters is what is asked of it."""

    def create_model(name: str, pretrained: bool) -> nn.Module:
        if pretrained:
            raise OSError("We couldn't connect\n to 'https://huggingface.co'")
        return nn.Linear(2, 4)

    fake = types.ModuleType("timm")
    fake.list_models = lambda: ["deit_tiny_patch16_224", "resnet18"]
    fake.create_model = create_model
    monkeypatch.setitem(sys.modules, "timm", fake)


def test_timm_without_network(timm):
    with pytest.raises(
        ConfigError,
        match=r"model 'timm:resnet18.a1_in1k': must be in a local folder or cache, or reachable "
        r"by network, but loading raised OSError \(We couldn't connect\); fill the cache",
    ):
        resolve_model("timm:resnet18.a1_in1k")


def test_timm_with_weights_needs_no_network(timm, tmp_path):
    state = {"weight": torch.rand(4, 2), "bias": torch.rand(4)}
    save_file(state, tmp_path / "w.safetensors")
    model = resolve_model("timm:resnet18", tmp_path / "w.safetensors")
    assert torch.equal(model.weight, state["weight"])
    assert isinstance(resolve_model("timm:resnet18", pretrained=False), nn.Linear)


def test_timm_name_that_does_not_exist(timm):
    with pytest.raises(ConfigError, match="did you mean 'deit_tiny_patch16_224'"):
        resolve_model("timm:deit_tny_patch16_224")


@pytest.fixture
def small_llama(tmp_path):
    """A folder that ``save_pretrained`` wrote."""
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config)
    model.save_pretrained(tmp_path / "llama")
    return model, tmp_path / "llama"


def test_transformers_folder(small_llama, capfd):
    model, folder = small_llama
    loaded = resolve_model(f"hf:{folder}")
    assert type(loaded).__name__ == "LlamaForCausalLM" and not loaded.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name])
    fresh = resolve_model(f"hf:{folder}", pretrained=False)
    name = "model.layers.0.mlp.up_proj.weight"
    assert not torch.equal(fresh.state_dict()[name], model.state_dict()[name])
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [("config.json", "one of its files is damaged"), ("model.safetensors", "its weights are dam")],
)
def test_damaged_transformers_folder(small_llama, damage, reason):
    _, folder = small_llama
    (folder / damage).write_bytes((folder / damage).read_bytes()[:50])
    with pytest.raises(ConfigError, match=rf"model 'hf:.*llama': must be in a .*, but {reason}"):
        resolve_model(f"hf:{folder}")


def test_what_transformers_says_of_a_model_is_one_clause(small_llama):
    _, folder = small_llama
    (folder / "config.json").write_text('{"model_type": "none"}')
    with pytest.raises(
        ConfigError, match=r"raised ValueError \(The checkpoint .*\.\); fill"
    ) as seen:
        resolve_model(f"hf:{folder}")
    assert len(str(seen.value)) < 450 and "\n" not in str(seen.value)


def test_tensors_that_no_file_holds_are_named(small_llama):
    _, folder = small_llama
    save_file({}, folder / "model.safetensors", {"format": "pt"})
    with pytest.warns(UserWarning, match=r"12 of its tensors .* random, the first is 'lm_head"):
        resolve_model(f"hf:{folder}")


@pytest.mark.parametrize("name", ["a/b/c", "--", "a b"])
def test_names_that_the_hub_cannot_have(name):
    pytest.importorskip("transformers")
    with pytest.raises(ConfigError, match="but the hub has no names of this form; fill"):
        resolve_model(f"hf:{name}")


def test_folder_without_a_model(tmp_path):
    pytest.importorskip("transformers")
    with pytest.raises(ConfigError, match=r"folder must hold a config\.json"):
        resolve_model(f"hf:{tmp_path}")
    with pytest.raises(ConfigError, match="must be a folder that exists, or an id of the hub"):
        resolve_model(f"hf:{tmp_path}/absent")


def test_transformers_id_without_network(monkeypatch, tmp_path, capfd):
    """Where the hub's name does not resolve, nothing is tried again and nothing waits."""
    pytest.importorskip("transformers")
    from huggingface_hub import constants

    def fail(*_):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.delenv("HTTPS_PROXY", raising=False)
    monkeypatch.delenv("https_proxy", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(socket, "getaddrinfo", fail)
    begin = time.monotonic()
    with pytest.raises(ConfigError, match="but it is not in the cache, and the hub does not"):
        resolve_model("hf:no/such")
    assert time.monotonic() - begin < 5
    assert constants.HF_HUB_OFFLINE is False
    assert capfd.readouterr() == ("", "")
