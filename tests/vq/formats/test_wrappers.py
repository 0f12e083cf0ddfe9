"""Wrapped models are saved and loaded under their bare names; those in pieces are refused."""

import pytest
import torch
from torch import nn

import vq
from rescomp import quantize_
from tests.vq.recipe.test_plain import RECIPE, WRAPPERS, around
from vq import Int8, Recipe
from vq.errors import ConfigError
from vq.formats.wrappers import bare, listed, wrapped_name
from vq.integer import add_integer


@pytest.mark.parametrize("kind", WRAPPERS)
def test_files_hold_the_bare_names(tmp_path, kind):
    wrap, _ = WRAPPERS[kind]
    model, fresh = around(nn.Linear(16, 16)), around(nn.Linear(16, 16))
    vq.compress_(model, RECIPE, progress=False)
    vq.save(model, tmp_path / "bare")
    vq.save(wrap(model), tmp_path / "wrapped")
    assert (tmp_path / "bare").read_bytes() == (tmp_path / "wrapped").read_bytes()
    wrapped = wrap(fresh)
    assert vq.load(tmp_path / "wrapped", into=wrapped) is wrapped
    assert torch.equal(bare(wrapped)[2].weight, model[2].weight)
    assert bare(wrapped) is fresh or kind == "AveragedModel"  # which holds a copy
    model[2] = wrap(model[2])
    with pytest.raises(ConfigError, match=r"^model has 1 problem:\n- layer '2' must be bare, not"):
        vq.save(model, tmp_path / "none")
    assert not (tmp_path / "none").exists()


class FullyShardedDataParallel(nn.Module):
    """Twin of the wrapper of that name, which only a group of processes can make."""

    __module__ = "torch.distributed.fsdp.fully_sharded_data_parallel"

    def __init__(self, model):
        super().__init__()
        self._fsdp_wrapped_module = model


@pytest.mark.parametrize(
    ("wrap", "where"),
    [(lambda m: m, "all of it"), (lambda m: nn.Sequential(m), "layer '0'")],
)
@pytest.mark.parametrize("work", [vq.compress_, vq.plan])
def test_sharded_models_are_refused(work, wrap, where):
    with pytest.raises(
        ConfigError,
        match=rf"^model has 1 problem:\n- {where} must be whole, not in FullyShardedDataParallel",
    ):
        work(wrap(FullyShardedDataParallel(around(nn.Linear(16, 16)))), RECIPE)


@pytest.mark.parametrize("kind", WRAPPERS)
def test_integer_graphs_have_the_bare_names(tmp_path, kind):
    wrap, inner = WRAPPERS[kind]
    model, path = around(nn.Linear(16, 16)), tmp_path / "x"
    vq.compress_(model, Recipe({"*": Int8()}), progress=False)
    vq.save(model, path)
    wrapped = wrap(around(nn.Linear(16, 16)))
    assert wrapped_name(wrapped) == inner and wrapped_name(model) is None
    graph = add_integer(path, wrapped, [torch.randn(4, 16)]).graph
    assert [node.layer for node in graph.nodes if node.layer] == ["0", "2"]


def test_of_many_names_the_first_are_listed():
    assert listed(["a", "b"]) == "'a', 'b'"
    assert listed([str(i) for i in range(11)]).endswith("'7' and 3 more")


SCRIPTS = {
    "scripted": torch.jit.script,
    "traced": lambda m: torch.jit.trace(m, torch.ones(1, 16)),
    "one layer": lambda m: nn.Sequential(m[0], torch.jit.script(m[1])),
}


@pytest.mark.filterwarnings("ignore:.torch.jit")
@pytest.mark.parametrize("make", SCRIPTS.values(), ids=SCRIPTS)
def test_torchscript_is_refused_at_every_door(tmp_path, make):
    model = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16))
    script = make(model)
    vq.compress_(model, RECIPE, progress=False)
    vq.save(model, tmp_path / "file")
    for door in (
        lambda: vq.plan(script, RECIPE),
        lambda: vq.compress_(script, RECIPE, progress=False),
        lambda: quantize_(script, None, 4),
        lambda: vq.load(tmp_path / "file", into=script),
        lambda: vq.save(script, tmp_path / "none"),
    ):
        with pytest.raises(
            ConfigError, match=r"^model has 1 problem:\n- .* must be a module of Python, not Torch"
        ):
            door()
