"""Defaults that commands show are those of the library."""

import inspect

import pytest
import typer

import hwsim
import rescomp
import vq
from hwsim.sweep import sweep
from signbook.cli import app
from signbook.commands.defaults import Defaults
from signbook.demo import run_demo
from signbook.evaluation import evaluate, evaluate_named
from signbook.writing.door import write
from vq.export import export_dense, export_dram, export_onnx
from vq.integer import add_integer
from vq.methods.w4a8_diffusion import Learning

COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("command", "options", "function"),
    [
        ("demo", {"seed": "seed"}, run_demo),
        ("plan", {"seed": "seed"}, vq.plan),
        ("compress", {"seed": "seed", "importance": "importance"}, vq.compress_),
        ("finetune", {"seed": "seed"}, vq.compress_),
        ("finetune", dict.fromkeys(("epochs", "accumulate", "amp", "fixed_signs")), vq.finetune_),
        ("finetune", {"device": "device"}, evaluate),
        ("quantize", {"seed": "seed", "offload": "offload"}, rescomp.quantize_),
        (
            "quantize",
            dict.fromkeys(("damping", "activation_order", "dynamic_groups", "measure")),
            rescomp.Settings,
        ),
        ("eval", {"device": "device"}, evaluate_named),
        ("generate", dict.fromkeys(("tokens", "temperature", "seed")), write),
        ("generate", {"device": "device"}, evaluate_named),
        ("integer", {"choice": "choice", "out": "out"}, add_integer),
        ("export", {"dtype": "dtype"}, export_dense),
        ("export", {"base": "base"}, export_dram),
        ("export", {"opset": "opset"}, export_onnx),
        ("simulate", dict.fromkeys(("memory", "rows", "check")), hwsim.simulate),
        ("estimate", dict.fromkeys(("memory", "rows")), hwsim.estimate),
        ("sweep", dict.fromkeys(("seed", "retries", "search", "workers", "resume")), sweep),
    ],
)
def test_commands_and_functions_agree(command, options, function):
    shown = {option.name: option.default for option in COMMANDS[command].params}
    parameters = inspect.signature(function).parameters
    for option, parameter in options.items():
        assert shown[option] == parameters[parameter or option].default, option


def test_baselines_agree():
    shown = {option.name: option.default for option in COMMANDS["simulate"].params}
    for function in (hwsim.simulate, hwsim.estimate, hwsim.estimate_workload):
        assert tuple(shown["methods"].split(",")) == _default(function, "methods")


def test_defaults_in_words_agree():
    """Where nothing given means more than a value could say."""
    said = {o.name: o.help for c in ("finetune", "quantize", "sweep") for o in COMMANDS[c].params}
    for part in ("signs", "codebooks", "rest"):
        assert f"{_default(vq.Rates, part)} without --method" in said[f"rate_{part}"]
    assert f"{_default(rescomp.default_recipe, 'group')} by default" in said["group"]
    assert f"By default {', '.join(_default(sweep, 'objectives'))}." in said["objective"]
    for command in ("eval", "generate"):
        shown = {option.name: option.help for option in COMMANDS[command].params}
        assert f"{_default(vq.pack_, 'activations')} by default" in shown["activations"]
    assert f"learn from; {_default(Learning, 'rounds')} by default" in said["rounds"]


def _default(function, parameter):
    return inspect.signature(function).parameters[parameter].default


def test_what_is_no_default_is_an_error():
    with pytest.raises(AttributeError, match=r"^vq.export.dense has no export_sparse$"):
        _ = Defaults("vq.export.dense", "export_sparse").dtype
    with pytest.raises(
        AttributeError, match=r"^vq.export.dense.export_dense has no default for 'p"
    ):
        _ = Defaults("vq.export.dense", "export_dense").path
