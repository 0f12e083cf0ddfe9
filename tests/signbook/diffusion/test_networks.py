"""Networks of diffusers, small and random, as ours are asked; from folders; what is refused."""

import json
import sys

import pytest
import torch
from torch import nn

import vq
from signbook.diffusion.networks import Network
from signbook.diffusion.sampler import end_of
from signbook.diffusion.schedulers import sampler_for
from signbook.naming import resolve_model
from vq.errors import ConfigError

diffusers = pytest.importorskip("diffusers")


def labelled(classes: int | None = 4, **settings) -> nn.Module:
    blocks = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",)}
    sizes = {"block_out_channels": (8,), "norm_num_groups": 4, "layers_per_block": 1}
    return diffusers.UNet2DModel(
        **({"sample_size": 8, "in_channels": 1, "out_channels": 1, "num_class_embeds": classes}
           | sizes | blocks | {"attention_head_dim": 4} | settings)
    ).eval()  # fmt: skip


def texted(**settings) -> nn.Module:
    return diffusers.UNet2DConditionModel(
        **({"sample_size": 8, "in_channels": 2, "out_channels": 2, "cross_attention_dim": 6,
            "block_out_channels": (8,), "norm_num_groups": 4, "layers_per_block": 1,
            "attention_head_dim": 4, "down_block_types": ("CrossAttnDownBlock2D",),
            "up_block_types": ("CrossAttnUpBlock2D",)} | settings)
    ).eval()  # fmt: skip


def transformer(**settings) -> nn.Module:
    return diffusers.DiTTransformer2DModel(
        **({"sample_size": 8, "in_channels": 2, "out_channels": 4, "num_layers": 1,
            "num_attention_heads": 2, "attention_head_dim": 4, "norm_num_groups": 2,
            "num_embeds_ada_norm": 5} | settings)
    ).eval()  # fmt: skip


STEP = torch.tensor([3, 999])
X, X2 = torch.randn(2, 1, 8, 8), torch.randn(2, 2, 8, 8)
TEXT = torch.randn(2, 3, 6)


@torch.no_grad()
def test_they_answer_as_diffusers_has_them_answer():
    plain, unet, dit, text = labelled(None), labelled(), transformer(), texted()
    label = torch.tensor([3, 0])
    assert Network(plain)(X, STEP).equal(plain(X, STEP).sample)
    assert Network(unet)(X, STEP, label).equal(unet(X, STEP, class_labels=label).sample)
    assert Network(text)(X2, STEP, TEXT).equal(text(X2, STEP, TEXT).sample)
    found, whole = Network(dit)(X2, STEP, label), dit(X2, STEP, class_labels=label).sample
    assert whole.shape[1] == 4 and found.equal(whole[:, :2]), "the variance is cut off"
    assert [Network(n).shape for n in (unet, dit)] == [(1, 8, 8), (2, 8, 8)]
    assert [Network(n).classes for n in (plain, unet, dit)] == [None, 4, 5]
    assert Network(dit)(X2, STEP, torch.tensor([5, 5])).shape == X2.shape, "5 is no class"


@torch.no_grad()
def test_velocity_and_image_become_noise():
    unet = labelled(None)
    image, noise = torch.randn(2, *X.shape)
    for kind in ("epsilon", "v_prediction", "sample"):
        scheduler = diffusers.DDIMScheduler(prediction_type=kind)
        left = scheduler.alphas_cumprod[STEP][:, None, None, None]
        a, b = left.sqrt(), (1 - left).sqrt()
        told = {"epsilon": noise, "v_prediction": a * noise - b * image, "sample": image}[kind]
        model = Network(unet, scheduler)
        unet.forward = lambda *_, told=told: diffusers.models.unets.unet_2d.UNet2DOutput(told)
        torch.testing.assert_close(model(a * image + b * noise, STEP), noise, atol=1e-3, rtol=0)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_they_are_sampled_as_diffusers_samples_them(kind):
    """By its own loop, with the network's own prediction."""
    unet, noise = labelled(None), torch.randn(2, 1, 8, 8)
    scheduler = diffusers.DDIMScheduler(
        prediction_type=kind, clip_sample=False, num_train_timesteps=50
    )
    found = end_of(
        sampler_for(Network(unet, scheduler), steps=5).visits(Network(unet, scheduler), noise)
    )
    scheduler.set_timesteps(5)
    x = noise
    with torch.no_grad():
        for step in scheduler.timesteps:
            x = scheduler.step(unet(x, step).sample, step, x).prev_sample
    torch.testing.assert_close(found, x, rtol=1e-3, atol=1e-3)


def test_texts_are_guided():
    model = Network(texted(), diffusers.DPMSolverMultistepScheduler())
    sampler = sampler_for(model, steps=2, guidance=2.0, untold=torch.zeros(3, 6))
    met = list(sampler.visits(model, X2, TEXT))
    assert met[1][2].shape == (4, 3, 6) and met[1][2][2:].abs().sum() == 0
    assert not hasattr(model, "classes")


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ((X2, STEP), r"^images must be \[images, 1, 8, 8\] for this UNet2DModel, not \[2, 2, 8, 8"),
        ((X, STEP[:1]), r"^steps must be \[2\], one an image, not \[1\]$"),
        ((X, STEP), r"^condition must be \[2\] for this UNet2DModel, not nothing$"),
        ((X, STEP, TEXT), r"^condition must be \[2\] for this UNet2DModel, not \[2, 3, 6\]$"),
        ((X, STEP, STEP, STEP), r"^condition must be \[2\] .*, not \[2\] and \[2\]$"),
        ((X, STEP, torch.tensor([0, 4])), "^labels must be integers of 0 to 3, not 4$"),
        ((X, STEP, torch.ones(2)), "^labels must be integers of 0 to 3, not float32$"),
    ],
)
def test_inputs_that_do_not_fit(inputs, message):
    with pytest.raises(ConfigError, match=message):
        Network(labelled())(*inputs)


@pytest.mark.parametrize("given", [TEXT[:, :, :5], TEXT[0], TEXT[:1]])
def test_texts_that_do_not_fit(given):
    with pytest.raises(
        ConfigError, match=r"^condition must be \[2, tokens, 6\] for this UNet2DCon"
    ):
        Network(texted())(X2, STEP, given)


def test_networks_without_classes_are_told_nothing():
    with pytest.raises(ConfigError, match=r"^condition must be nothing for this .*, not \[2\]$"):
        Network(labelled(None))(X, STEP, STEP)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Linear(2, 2), "^network must be one of UNet2DModel, .*, not Linear$"),
        (lambda: labelled(sample_size=None), "^UNet2DModel must say the size .*, not None$"),
        (lambda: labelled(None, class_embed_type="timestep"), "not by class_embed_type='times"),
        (lambda: labelled(out_channels=3), "^UNet2DModel must give 1 channels, .*, not 3$"),
        (lambda: texted(class_embed_type="timestep"), "text alone, not by class_embed_type='times"),
        (lambda: texted(cross_attention_dim=(6,)), "^UNet2DConditionModel must read text of one"),
    ],
)  # fmt: skip
def test_networks_that_are_not_adapted(make, message):
    with pytest.raises(ConfigError, match=message):
        Network(make())


def test_predictions_that_noise_cannot_be_made_of():
    flow = diffusers.DPMSolverMultistepScheduler(prediction_type="flow_prediction")
    with pytest.raises(
        ConfigError, match=r"^prediction_type must be one of epsilon, .* not 'flow_p"
    ):
        Network(labelled(), flow)


@torch.no_grad()
def test_commands_can_name_a_folder(tmp_path):
    unet, label = labelled(), torch.tensor([1, 2])
    unet.save_pretrained(tmp_path / "net")
    model = resolve_model(f"diffusers:{tmp_path / 'net'}")
    assert model(X, STEP, label).equal(Network(unet)(X, STEP, label)) and not model.training
    assert model.scheduler is None
    bare = resolve_model(f"diffusers:{tmp_path / 'net'}", pretrained=False)
    assert not bare(X, STEP, label).equal(model(X, STEP, label))
    vq.compress_(model, vq.Recipe({"*.conv1": vq.SSVQ(d=4, k=4)}))
    vq.save(model, tmp_path / "net.vq.safetensors")
    vq.load(tmp_path / "net.vq.safetensors", into=bare)
    torch.testing.assert_close(bare(X, STEP, label), model(X, STEP, label))


def test_commands_can_name_a_pipeline(tmp_path):
    pipeline = diffusers.DDPMPipeline(labelled(None), diffusers.DDPMScheduler(beta_end=0.01))
    pipeline.save_pretrained(tmp_path)
    model = resolve_model(f"diffusers:{tmp_path}")
    share = diffusers.DDPMScheduler(beta_end=0.01).alphas_cumprod
    assert model.scheduler.alphas_cumprod.equal(share) and model.share.equal(share)
    assert sampler_for(model, "ddim", 4).steps == (750, 500, 250, 0)


def test_folders_that_hold_no_network(tmp_path, monkeypatch):
    with pytest.raises(
        ConfigError, match=r"^model 'diffusers:.*absent': must be a folder with the c"
    ):
        resolve_model(f"diffusers:{tmp_path / 'absent'}")
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "VQModel"}))
    with pytest.raises(ConfigError, match=r"^model .*: network must be one of .*, not VQModel$"):
        resolve_model(f"diffusers:{tmp_path}")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match=r"must be readable, but one of its files is damaged$"):
        resolve_model(f"diffusers:{tmp_path}")
    with pytest.raises(
        ConfigError, match=r"hf:PATH_OR_ID, diffusers:PATH or py:.*not 'diffusers:'"
    ):
        resolve_model("diffusers:")
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(ConfigError, match=r"pip install 'signbook\[diffusion\]'"):
        resolve_model(f"diffusers:{tmp_path}")
