"""The door: resuming, processes, what it refuses, and that nothing half done is left."""

import copy
import functools
import os
import signal

import pytest
import torch
from torch import nn

import vq
from tests.processes import Group, two_processes
from tests.rescomp.models import Keywords, chain, llama, tokens, vectors
from tests.vq.perturbation import interrupted
from tests.vq.perturbation.test_work import BOTH, RECIPE, learnt
from vq.container import account, open_container
from vq.errors import ConfigError, ResumeError, UnsupportedLayerError, WeightError
from vq.formats.model import provenance_of
from vq.learning.checkpoint import StageCheckpoints
from vq.learning.fitting import Fitter
from vq.perturbation.composition import Clip, Composition, Perturb
from vq.perturbation.door import learn_scalars_
from vq.perturbation.mask import Mask


def same(a, b):
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


def test_files_have_the_bytes_and_geometry_of_rounding(tmp_path):
    original, model, result = learnt()
    plain = copy.deepcopy(original)
    vq.compress_(plain, RECIPE)
    for name, one in (("sde", model), ("rtn", plain)):
        vq.save(one, tmp_path / f"{name}.vq.safetensors")
    paths = [tmp_path / f"{name}.vq.safetensors" for name in ("sde", "rtn")]
    assert paths[0].stat().st_size == paths[1].stat().st_size
    with open_container(paths[0]) as a, open_container(paths[1]) as b:
        assert [e.geometry for e in a.layers] == [e.geometry for e in b.layers]
        for name in ("0", "2.0", "4"):
            weight = model.get_submodule(name).weight
            assert torch.equal(torch.from_numpy(a.weight(name)), weight)
    read = vq.load(paths[0], into=chain().eval())
    assert all(torch.equal(read(x), model(x)) for x in vectors(2))
    counted = account([layer.geometry for layer in result.layers])
    bits = 8 * sum(one.total_bytes for one in counted)
    assert result.bits_per_weight == bits / sum(one.geometry.weights for one in counted)
    assert provenance_of(model).seed == 0


def test_runs_are_repeatable_and_depend_on_the_seed():
    found = [learnt(epochs=2, seed=seed)[1] for seed in (0, 0, 1)]
    assert same(found[0], found[1]) and not same(found[0], found[2])


@pytest.mark.parametrize(
    ("build", "more"),
    [(chain, {"offload": False}), (chain, {"offload": True}), (Keywords, {"window": 2})],
)
def test_resumed_runs_end_like_undisturbed_ones(tmp_path, monkeypatch, build, more):
    original, want, result = learnt(build, **more)
    save = StageCheckpoints.save

    def stop(self, stage, state):
        save(self, stage, state)
        raise KeyboardInterrupt

    settings = {"epochs": 4, "held_out": 0, "checkpoint_dir": tmp_path, **more}
    data = vectors(6, rows=32)
    model = copy.deepcopy(original)
    monkeypatch.setattr(StageCheckpoints, "save", stop)
    with pytest.raises(KeyboardInterrupt):
        learn_scalars_(model, data, RECIPE, BOTH, **settings)
    monkeypatch.undo()
    assert same(model, original) and len(list(tmp_path.iterdir())) == 1
    for _ in range(2):  # the second time, all is there
        model = copy.deepcopy(original)
        again = learn_scalars_(model, data, RECIPE, BOTH, **settings, resume=True)
        assert same(model, want) and again == result
    for match, change in (
        ("but its method differs", {"composition": Composition(clipping=Clip())}),
        ("but its settings differs", {"patience": 1}),
        ("but its recipe differs", {"recipe": vq.Recipe({"*": vq.Int4()})}),
    ):
        given = {"recipe": RECIPE, "composition": BOTH} | settings | change
        with pytest.raises(ResumeError, match=match):
            learn_scalars_(copy.deepcopy(original), data, **given, resume=True)


def test_look_ahead_adds_the_losses_of_the_blocks_behind():
    pytest.importorskip("transformers")
    recipe = vq.Recipe({"*_proj": vq.Int2(group=8)})
    data = tokens(4)
    found = {
        name: learnt(llama, data, recipe=recipe, epochs=1, **settings)[2].blocks
        for name, settings in (
            ("none", {}),
            ("one", {"look_ahead": 1}),
            ("heavy", {"look_ahead": 1, "depth_weights": (1.0, 3.0)}),
        )
    }
    assert [one.name for one in found["one"]] == [f"model.layers.{i}" for i in range(3)]
    first = {name: blocks[0].before for name, blocks in found.items()}
    behind = first["one"] - first["none"]
    assert behind > 0 and first["heavy"] == pytest.approx(first["none"] + 3 * behind, rel=1e-4)


def test_two_blocks_learn_together_and_the_second_goes_on(monkeypatch):
    seen, begun = [], []
    fit = Fitter.fit

    def watched(self, stage, goal, groups, begin):
        own = {id(p) for group in groups for p in group["params"]}
        names = [n for n, p in self._model.named_parameters() if id(p) in own]
        seen.append((stage.name, sorted({name.split(".parametrizations")[0] for name in names})))
        found = fit(self, stage, goal, groups, begin)
        begun.append(begin is not None)
        return found

    monkeypatch.setattr(Fitter, "fit", watched)
    _, _, plain = learnt(Keywords)
    seen.clear()
    begun.clear()
    _, _, found = learnt(Keywords, window=2)
    first, second, third = ([f"blocks.{i}.fc{j}" for j in (1, 2)] for i in range(3))
    assert seen == [
        ("start", ["embed"]), ("blocks.0", first + second), ("blocks.1", second + third),
        ("blocks.2", third), ("end", ["head"]),
    ]  # fmt: skip
    assert begun == [False, False, True, True, False]
    assert found.blocks[1].after < found.blocks[1].before
    assert found.blocks[1].before != plain.blocks[1].before  # behind the second
    assert [one.trained for one in found.layers] == [one.trained for one in plain.layers]


def worker(rank, folder):
    rows = [x[rank * 16 :][:16] for x in vectors(6, rows=32)]
    _, model, result = learnt(data=rows, epochs=2)
    torch.save((model.state_dict(), [one.after for one in result.blocks]), folder / f"{rank}.pt")


def test_two_processes_are_one_with_steps_of_both(tmp_path):
    folder = two_processes(worker, tmp_path)
    ours, theirs = (torch.load(folder / f"{rank}.pt") for rank in (0, 1))
    assert all(torch.equal(value, theirs[0][name]) for name, value in ours[0].items())
    _, alone, result = learnt(epochs=2)
    assert ours[1] == theirs[1] == pytest.approx([one.after for one in result.blocks], rel=0.02)
    for name, value in alone.state_dict().items():
        if value.is_floating_point():
            assert float((value - ours[0][name]).abs().mean()) < 0.02, name


def test_what_cannot_be_is_refused_before_work():
    def refused(kind, match, model=None, data=None, recipe=RECIPE, composition=BOTH, **settings):
        model = chain() if model is None else model
        before = copy.deepcopy(model)
        with pytest.raises(kind, match=match):
            learn_scalars_(
                model, vectors(2) if data is None else data, recipe, composition, **settings
            )
        assert same(model, before)

    wide = Composition(Perturb(Mask(12)))
    match = r"^method has 2 problems:\n- layer '0': width must be below its rank, 12, not 12\n- l"
    refused(ConfigError, match, composition=wide)
    refused(ConfigError, "at least one batch, not none", data=[])
    refused(ConfigError, "^checkpoint_dir must be given to resume", resume=True)
    refused(ConfigError, r"- epochs must be positive, not 0$", epochs=0)
    refused(ConfigError, r"patience must be positive, not 0$", patience=0)
    refused(ConfigError, r"^window must be 1 or 2, not 3$", window=3)
    refused(ConfigError, r"depth_weights must be 2, .* not 1$", look_ahead=1, depth_weights=(1.0,))
    refused(ConfigError, r"layer '0': weight must not learn in float16", model=chain().half())
    books = vq.Recipe({"*": vq.SSVQ(d=4, k=4)})
    refused(UnsupportedLayerError, r"layer '0': format must be int8, int4, .*'ssvq'", recipe=books)
    refused(ConfigError, "at least one layer, not none", recipe=vq.Recipe({"*": None}))
    broken = nn.Sequential(nn.Linear(12, 4))
    broken[0].weight.data[0, 0] = torch.inf
    refused(WeightError, r"layer '0': weight must be finite", model=broken)
    large = nn.Sequential(nn.Linear(12, 4))
    large[0].weight.data *= 1e9
    refused(WeightError, r"layer '0': weights must be at most", model=large)


@pytest.mark.slow
def test_a_run_that_is_killed_behind_a_block_ends_like_others(tmp_path, tmp_path_factory):
    main, outputs = functools.partial(interrupted.main, tmp_path), tmp_path_factory.mktemp("out")
    with Group([main], outputs) as group:
        group.wait_for("saved\n")
        os.kill(group.pids[0], signal.SIGKILL)
        assert group.wait() == [-signal.SIGKILL]
    assert [one.name for one in tmp_path.iterdir()] == ["stage-0001"]
    with Group([functools.partial(main, resume=True)], outputs) as group:
        assert group.wait() == [0], group.errors()
    want = interrupted.run(None, window=2).state_dict()
    found = torch.load(tmp_path / "final.pt", weights_only=True)
    assert want.keys() == found.keys()
    assert all(torch.equal(value, found[name]) for name, value in want.items())
