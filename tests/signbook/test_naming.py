"""Models and data by name; a wrong name gives one error that helps."""

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from signbook.naming import resolve_data, resolve_model
from signbook.tasks import Classification
from vq.errors import ConfigError

OWN = """
import torch
from torch import nn
from signbook.tasks import Classification

def net(width: int = 4, act: str = "relu", bias: bool = True):
    return nn.Linear(2, width, bias=bias)

def data():
    return Classification([(torch.rand(3, 2), torch.zeros(3, dtype=torch.int64))])

def text(tokenizer="own"):
    return Classification([tokenizer])

def leaves():
    raise SystemExit(3)

def broken():
    raise KeyError("secret")

def needs(thing):
    return thing

number = 3
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A module of the user's, in the folder where the command runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("own_zoo_for_naming.py").write_text(OWN)
    yield "py:own_zoo_for_naming:"
    sys.modules.pop("own_zoo_for_naming", None)


def test_zoo_model():
    model = resolve_model("py:signbook.zoo.resnet:resnet20")
    assert sum(p.numel() for p in model.parameters()) == 269_722 and not model.training


def test_own_model_with_options(own):
    model = resolve_model(own + "net?width=7&bias=false&act=gelu")
    assert isinstance(model, nn.Linear) and model.out_features == 7 and model.bias is None


def test_own_data(own):
    assert isinstance(resolve_data(own + "data"), Classification)
    for given, found in (("text", ["file"]), ("text?tokenizer=x", ["x"])):
        assert resolve_data(own + given, {"tokenizer": "file", "other": 1}).batches == found
    assert resolve_data(own + "text").batches == ["own"]
    assert isinstance(resolve_data(own + "data", {"tokenizer": "file"}), Classification)


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_weights(own, tmp_path, suffix):
    state = {"weight": torch.rand(4, 2), "bias": torch.rand(4)}
    path = tmp_path / f"w.{suffix}"
    save_file(state, path) if suffix == "safetensors" else torch.save(state, path)
    assert torch.equal(resolve_model(own + "net", path).weight, state["weight"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "resnet20",
            r"must be named timm:NAME.*did you mean 'py:signbook.zoo.resnet:resnet20'",
        ),
        ("py:", "model must be named timm:NAME"),
        ("timm:", "model must be named timm:NAME"),
        ("py:signbook.zoo.resnet", "model must be named py:package.module:factory"),
        (
            "py:signbook.zoo.resnt:resnet20",
            r"module 'signbook.zoo.resnt'.*did you mean 'py:",
        ),
        (
            "py:signbook.zoo.resnet:resnet2",
            "have a factory 'resnet2' .did you mean 'resnet20'",
        ),
        ("py:absent_package:net", "module 'absent_package' must be importable, not absent"),
        ("py:{own}number", "must have a factory 'number'"),
        ("py:{own}net?widht=3", r"takes width, act, bias, not widht \(did you mean 'width'"),
        ("py:{own}net?width", "option must be KEY=VALUE, not 'width'"),
        ("py:{own}needs", "options must fit the factory, which takes thing, not none$"),
        ("py:{own}needs?thing=1", "must give a torch module, not int"),
        ("py:{own}data", "must give a torch module, not Classification"),
        ("py:{own}leaves", "factory must return, not raise SystemExit: 3"),
        ("py:{own}broken", "factory must return, not raise KeyError: 'secret'"),
    ],
)
def test_wrong_models(own, name, message):
    with pytest.raises(ConfigError, match=message):
        resolve_model(name.replace("py:{own}", own))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cifar10_exct", "data must be named py:.*did you mean 'py:signbook.data:cifar10_exact'"),
        ("timm:resnet18", "data must be named py:package.module:factory"),
        ("py:signbook.data:cifar10", "must have a factory 'cifar10' .did you mean 'cifar10_"),
        ("py:{own}net", "must give a task .see signbook.tasks., not Linear"),
    ],
)
def test_wrong_data(own, name, message):
    with pytest.raises(ConfigError, match=message):
        resolve_data(name.replace("py:{own}", own))


def test_module_that_cannot_be_imported(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("own_broken_module.py").write_text("1 / 0\n")
    with pytest.raises(ConfigError, match="raises ZeroDivisionError"):
        resolve_model("py:own_broken_module:net")
    Path("own_needy_module.py").write_text("import absent_dependency\n")
    with pytest.raises(ConfigError, match="module 'absent_dependency' must be importable"):
        resolve_model("py:own_needy_module:net")


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [("timm:resnet18", "timm", "vision"), ("hf:gpt2", "transformers", "lm")],
)
def test_missing_extras_say_how_to_install_them(monkeypatch, name, package, extra):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf"pip install 'signbook\[{extra}\]'"):
        resolve_model(name)


def test_broken_extras_say_what_is_wrong(monkeypatch, tmp_path):
    """What PyPI's torchvision does beside a CPU build of torch."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    Path("timm.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    with pytest.raises(ConfigError, match="must load, but operator torchvision::nms does not"):
        resolve_model("timm:resnet18")
