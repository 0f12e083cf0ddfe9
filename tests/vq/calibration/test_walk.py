"""The walk gives any worker both models' inputs, gradients, blocks behind, and what was saved."""

import copy
from contextlib import nullcontext

import pytest
import torch

import vq
from tests.rescomp.models import Branches, Keywords, chain, llama, tokens, vectors
from vq.calibration.stages import stages_of
from vq.calibration.streams import Runner, Stream, Streams
from vq.calibration.survey import survey, without_cache
from vq.calibration.walk import walk
from vq.formats.model import compressed_layers


class Note:
    """Notes what it is given; changes nothing."""

    def __init__(self, streams, ahead=0):
        self.streams, self.ahead = streams, ahead
        self.outputs, self.used, self.left = {}, [], []

    def at(self, stage):
        return nullcontext()

    def do(self, stage):
        both = (self.streams.changed, self.streams.reference)
        self.outputs[stage.name] = [s.run(stage, 0, ahead=self.ahead) for s in both]
        return {"name": stage.name}

    def use(self, stage, state):
        self.used.append((stage.name, state["name"]))


def streams_of(model, teacher, data, layers):
    seen, plain = survey(model, data, layers), survey(teacher, data, layers)
    both = [Stream(Runner(m, data, s.chain, offload=False)) for m, s in
            ((model, seen), (teacher, plain))]  # fmt: skip
    return stages_of(layers, seen), Streams(*both)


def two_models(build):
    torch.manual_seed(0)
    teacher = build()
    model = copy.deepcopy(teacher)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    return model, teacher


def behind(model, name, x):
    """What a module of the whole model gives."""
    found = []
    handle = model.get_submodule(name).register_forward_hook(lambda m, a, out: found.append(out))
    model(x)
    handle.remove()
    return found[0][0] if isinstance(found[0], tuple) else found[0]


@torch.no_grad()
def test_both_models_run_as_they_do_alone():
    model, teacher = two_models(Keywords)
    data = vectors(2)
    layers = ["head", "embed", *(f"blocks.{i}.fc1" for i in range(3))]
    stages, streams = streams_of(model, teacher, data, layers)
    assert [(s.name, s.layers) for s in stages] == [
        ("start", ("embed",)), *((f"blocks.{i}", (f"blocks.{i}.fc1",)) for i in range(3)),
        ("end", ("head",)),
    ]  # fmt: skip
    work = Note(streams)
    walk(stages, work, streams)
    for i, one in enumerate((model, teacher)):
        assert torch.equal(work.outputs["start"][i], one.embed(data[0]))
        for block in range(3):
            want = behind(one, f"blocks.{block}", data[0])
            assert torch.equal(work.outputs[f"blocks.{block}"][i], want)
        assert torch.equal(work.outputs["end"][i], one(data[0]))


@torch.no_grad()
def test_blocks_behind_run_too_as_many_as_there_are():
    pytest.importorskip("transformers")
    model, teacher = two_models(llama)
    layers = [f"model.layers.{i}.mlp.up_proj" for i in range(3)]
    with without_cache(model), without_cache(teacher):
        stages, streams = streams_of(model, teacher, tokens(1), layers)
        work = Note(streams, ahead=1)
        walk(stages, work, streams)
        for block, last in enumerate((1, 2, 2)):
            for i, one in enumerate((model, teacher)):
                want = behind(one, f"model.layers.{last}", tokens(1)[0])
                assert torch.equal(work.outputs[f"model.layers.{block}"][i], want)


@torch.no_grad()
def test_a_model_without_blocks_is_one_stage():
    model, teacher = two_models(Branches)
    stages, streams = streams_of(model, teacher, vectors(1), ["c", "a"])
    work = Note(streams)
    walk(stages, work, streams)
    assert stages[0].layers == ("a", "c")
    for i, one in enumerate((model, teacher)):
        assert torch.equal(work.outputs["model"][i], one(vectors(1)[0]))


class Memory:
    """Stages that are kept in a dictionary."""

    def __init__(self, states):
        self.states = states

    def load(self, stage):
        return self.states.get(stage)

    def save(self, stage, state):
        self.states[stage] = state


@torch.no_grad()
def test_finished_stages_are_used_and_others_done():
    model, teacher = two_models(chain)
    stages, streams = streams_of(model, teacher, vectors(1), ["0", "2.0", "4"])
    store = Memory({1: {"name": "stored"}})
    work = Note(streams)
    walk(stages, work, streams, store)
    assert work.used == [("0", "stored")] and list(work.outputs) == ["2.0", "4"]
    assert [state["name"] for state in store.states.values()] == ["stored", "2.0", "4"]


def test_nothing_runs_for_a_worker_that_needs_no_inputs():
    class Blind(Note):
        def do(self, stage):
            self.left.append(stage.name)

    model, teacher = two_models(chain)
    stages, _ = streams_of(model, teacher, vectors(1), ["0", "4"])
    model.forward = None
    work = Blind(None)
    walk(stages, work, None)
    assert work.left == ["0", "4"]


class Gradients(Note):
    def do(self, stage):
        changed, reference = self.streams.changed, self.streams.reference
        with torch.no_grad():
            wanted = reference.run(stage, 0, ahead=self.ahead)
        with torch.enable_grad():
            found = changed.run(stage, 0, ahead=self.ahead)
            (found - wanted).square().sum().backward()
        return {}


@pytest.mark.parametrize("ahead", [0, 1])
def test_gradients_reach_codebooks_and_latents_as_in_a_loop_by_hand(ahead):
    pytest.importorskip("transformers")
    teacher = llama()
    data = tokens(1)
    by_walk = copy.deepcopy(teacher)
    vq.compress_(by_walk, vq.Recipe({"*_proj": vq.SSVQ(d=4, k=8)}))
    by_hand = copy.deepcopy(by_walk)
    layers = [layer.name for layer in compressed_layers(by_walk)]
    with torch.no_grad(), without_cache(by_walk), without_cache(teacher):
        stages, streams = streams_of(by_walk, teacher, data, layers)
        walk(stages, Gradients(streams, ahead), streams)
    with without_cache(by_hand), without_cache(teacher):
        hidden = [m.model.embed_tokens(data[0]).detach() for m in (by_hand, teacher)]
        places = torch.arange(data[0].shape[1])[None]
        for i in range(3):
            turned = by_hand.model.rotary_emb(hidden[0], places)
            mask = torch.full((10, 10), -torch.inf).triu(1)[None, None]
            settings = {"position_embeddings": turned, "attention_mask": mask}
            outputs = [h.detach() for h in hidden]
            for j in range(i, min(i + ahead, 2) + 1):
                outputs = [
                    m.model.layers[j](h, **settings)
                    for m, h in zip((by_hand, teacher), outputs, strict=True)
                ]
                if j == i:
                    hidden = [h.detach() for h in outputs]
            (outputs[0] - outputs[1].detach()).square().sum().backward()
    pairs = zip(compressed_layers(by_walk), compressed_layers(by_hand), strict=True)
    for ours, theirs in pairs:
        for a, b in zip(ours.originals, theirs.originals, strict=True):
            assert a.grad.abs().max() > 0
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-5)
