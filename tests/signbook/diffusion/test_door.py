"""A model's own sampling by name: for the commands that judge it, and that distil on it."""

import copy
import json

import pytest
import torch
from torch import nn

import vq
from signbook.diffusion import generation, trajectories
from signbook.evaluation import evaluate
from signbook.naming import resolve_data, resolve_model
from signbook.reporting.documents import read_document
from signbook.reporting.evaluated import Evaluated
from signbook.tasks import Denoising, Generation
from signbook.zoo import judge
from signbook.zoo.dit import DiT
from tests.signbook.diffusion.models import Knows
from tests.signbook.runner import refused, run
from vq.errors import ConfigError

MODEL = "py:signbook.zoo.dit:digits?depth=1&width=16"
DATA = f"py:signbook.diffusion:trajectories?model={MODEL.partition('?')[0]}&steps=4&batch=6"


def test_targets_are_what_the_model_answers():
    torch.manual_seed(0)
    task = resolve_data(DATA)
    assert isinstance(task, Denoising) and len(task.batches) == 4
    torch.manual_seed(0)
    again = trajectories(model="py:signbook.zoo.dit:digits", steps=4, batch=6)
    (noisy, step, label), noise = next(iter(again.batches))
    assert noisy.shape == noise.shape == (6, 1, 8, 8)
    assert len(step) == len(label) == 6
    first, second = (next(iter(again.batches))[0][0] for _ in range(2))
    assert not torch.equal(first, second)


def test_a_transformer_is_distilled_on_its_own_sampling(tmp_path):
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "out"
    recipe.write_text("blocks.*: {method: vq, d: 2, k: 16}\n")
    model = MODEL.partition("?")[0]
    options = ("--recipe", recipe, "--data", DATA, "--out", out, "--epochs", 2, "--device", "cpu")
    done = run("finetune", model, *options, "--method", "vq4dit")
    assert done.returncode == 0, done.stderr
    document = json.loads((out / "run.json").read_text())
    assert document["run"]["rules"]["candidates"][-1]["decided"] == 1


DRAWN = "py:signbook.diffusion:generation?pictures=digits&count=70&steps=2"


@pytest.fixture
def untrained(monkeypatch):
    """A judge that has learnt nothing."""
    torch.manual_seed(0)
    model = judge.digits()
    monkeypatch.setattr("signbook.diffusion.door.digits_judge", lambda: model)


def small() -> nn.Module:
    """A diffusion transformer that predicts something: fresh ones predict 0."""
    model = DiT(8, patch=4, width=16, depth=1, heads=2)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model


def test_every_model_is_given_the_same(untrained):
    task = resolve_data(f"{DRAWN}&batch=30")
    assert isinstance(task, Generation) and [len(x) for x, _ in task.batches] == [30, 30, 10]
    noise, labels = (torch.cat(part) for part in zip(*task.batches, strict=True))
    assert noise.shape == (70, 1, 8, 8) and labels.tolist() == [*range(10)] * 7
    again = generation(pictures="digits", count=70, batch=70).batches
    assert torch.equal(next(iter(again))[0], noise)
    ((other,),) = generation(pictures="digits", count=70, batch=70, seed=1, labels=False).batches
    assert not torch.equal(other, noise)
    assert task.real.shape == (450, 1, 8, 8) and (task.real.min(), task.real.max()) == (0, 1)


def test_equal_models_draw_the_same(untrained):
    model = small()
    found = evaluate(model, resolve_data(DRAWN), reference=copy.deepcopy(model))
    assert found.metrics["frechet_to_reference"] == pytest.approx(0, abs=1e-6)
    assert found.metrics["sqnr_db"] == 200 and found.metrics["feature_distance"] == 0
    assert found.drift == {"steps": [1000, 500], "relative_error": [0, 0]}
    assert found.metrics["same_class"] == 1 and found.metrics["frechet"] > 1e-3
    assert found.reference is not None and found.reference.items() <= found.metrics.items()
    assert found.samples is not None and found.samples["model"] == found.samples["reference"]
    other = evaluate(small(), resolve_data(DRAWN), reference=model)
    assert other.metrics["frechet_to_reference"] > 1e-6 and other.reference == found.reference
    assert other.drift is not None and other.drift["relative_error"][1] > 0
    guided = evaluate(model, resolve_data(f"{DRAWN}&guidance=2.0"))
    assert guided.drift is None, "there is nothing to part from"
    assert guided.metrics["frechet"] != found.metrics["frechet"]


def test_networks_of_diffusers_draw_by_their_own_schedule(untrained, tmp_path):
    """Pixels of theirs are twice as far from 0 as those of the zoo."""
    diffusers = pytest.importorskip("diffusers")
    unet = diffusers.UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, block_out_channels=(4,), norm_num_groups=2,
        down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",), num_class_embeds=10,
        layers_per_block=1, attention_head_dim=4,
    )  # fmt: skip
    scheduler = diffusers.DDIMScheduler()
    diffusers.DDPMPipeline(unet, scheduler).save_pretrained(tmp_path)
    model = resolve_model(f"diffusers:{tmp_path}")
    found = evaluate(model, resolve_data(DRAWN))
    assert found.samples is not None
    image = torch.tensor(found.samples["model"][3])
    scheduler.set_timesteps(2)
    noise, labels = next(iter(resolve_data(DRAWN).batches))
    x = noise
    with torch.no_grad():
        for step in scheduler.timesteps:
            x = scheduler.step(model.network(x, step, labels).sample, step, x).prev_sample
    wanted = ((x[3, 0] / 2 + 0.5).clamp(0, 1) * 255).round()
    assert (image - wanted).abs().max() <= 1
    other = evaluate(model, resolve_data(f"{DRAWN}&sampler=euler"))
    assert other.samples != found.samples
    with pytest.raises(
        ConfigError, match=r"1, .*: sampler must be one of ddim, dpm\+\+, euler, no"
    ):
        evaluate(model, resolve_data(f"{DRAWN}&sampler=ddpm"))
    with pytest.raises(ConfigError, match=r"which takes pictures, .*, not pictures, count, .*eta"):
        resolve_data(f"{DRAWN}&eta=0.5")


def test_models_without_classes_are_told_none(untrained):
    model = Knows(torch.full((1, 8, 8), 0.1))
    model.shape = (1, 8, 8)
    task = resolve_data(f"{DRAWN}&labels=false")
    found = evaluate(model, task)
    assert found.samples is not None and found.samples["model"][0] == [[153] * 8] * 8
    with pytest.raises(ConfigError, match=r"1, .*: labels must be given to a model that knows c"):
        evaluate(model, resolve_data(DRAWN))
    with pytest.raises(ConfigError, match=r"1, .*: labels must be given to a model that knows c"):
        evaluate(small(), task)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("pictures=letters", "^pictures must be 'digits' or 'mnist', not 'letters'$"),
        ("", "options must fit the factory, which takes pictures, count, batch, steps, guidance"),
        ("pictures=digits&count=64", "^count must be more than 64, the features that .*, not 64$"),
        ("pictures=digits&steps=0", "^evaluation batch 1, .*: steps must be 1 to 1000, .*, not 0$"),
        ("pictures=digits&steps=1001", "steps must be 1 to 1000, .*, not 1001$"),
    ],
)
def test_generation_that_cannot_work(untrained, options, message):
    with pytest.raises(ConfigError, match=message):
        evaluate(small(), resolve_data(f"py:signbook.diffusion:generation?{options}"))


def test_a_file_is_judged_beside_its_model(untrained, tmp_path, monkeypatch):
    model, file = small(), tmp_path / "small.vq.safetensors"
    monkeypatch.setattr("signbook.diffusion.digits_dit", lambda: copy.deepcopy(model))
    compressed = copy.deepcopy(model)
    vq.compress_(compressed, vq.Recipe({"blocks.*": vq.VQ(d=4, k=4)}))
    vq.save(compressed, file)
    words = ("eval", "py:signbook.diffusion:digits_dit", "--data", DRAWN, "--file", file)
    out, page = tmp_path / "out.json", tmp_path / "report.html"
    pytest.importorskip("torchmetrics")
    assert (done := run(*words, "--json", out)).returncode == 0, done.stderr
    alone = json.loads(out.read_text())
    assert set(alone) == {"schema", "metrics", "samples"} and set(alone["samples"]) == {"model"}
    done = run(*words, "--reference", "--json", out, "--device", "cpu")
    assert done.returncode == 0 and "frechet_to_reference" in done.stdout, done.stderr
    document = json.loads(out.read_text())
    assert set(document["metrics"]) - set(document["reference"]) == {
        "frechet_to_reference", "same_class", "sqnr_db", "psnr_db", "ssim", "feature_distance"
    }  # fmt: skip
    assert document["samples"]["model"] == alone["samples"]["model"]
    assert document["samples"]["model"] != document["samples"]["reference"]
    read = read_document(out)
    assert isinstance(read, Evaluated) and read.samples is not None
    assert read.model_dump() == {k: v for k, v in document.items() if k != "schema"} | {
        "protocol": None
    }
    assert (done := run("report", out, "--out", page)).returncode == 0, done.stderr
    text = page.read_text()
    assert document["drift"]["steps"] == [1000, 500]
    assert document["drift"]["relative_error"][0] == 0 < document["drift"]["relative_error"][1]
    assert text.count("<svg") == 2 and ">difference<" in text and "same_class" in text
    document["samples"]["model"][3][2][1] = 256
    out.write_text(json.dumps(document))
    assert f"{out}: samples.model[3][2][1] must be at most 255, not 256" in refused(
        "report", out, "--out", page
    )


def test_it_is_nothing_to_learn_from(untrained, tmp_path):
    (tmp_path / "recipe.yaml").write_text("blocks.*: {method: vq, d: 2, k: 16}\n")
    words = ("finetune", MODEL.partition("?")[0], "--recipe", tmp_path / "recipe.yaml")
    done = refused(*words, "--data", DRAWN, "--out", tmp_path / "out")
    assert "data must be something to learn from, not generation, which only judges" in done
