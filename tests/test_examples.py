"""The commands of examples/README.md, run as they stand there on small stand-ins."""

import json
import os
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import vq
from examples import finetune
from examples.data import Share, images, text
from signbook.cli import app
from signbook.naming import resolve_data, resolve_model
from signbook.objectives import label_loss
from vq.container import open_container
from vq.errors import ConfigError

ROOT = Path(__file__).parents[1]
README = ROOT / "examples" / "README.md"
SIZE = 16


class Attention(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, -1)
        return self.proj(nn.functional.scaled_dot_product_attention(q, k, v))


class Block(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(dim), Attention(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(dim, 4 * dim), "fc2": nn.Linear(4 * dim, dim)})

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp["fc2"](nn.functional.gelu(self.mlp["fc1"](self.norm2(x))))


class TinyDeiT(nn.Module):
    """Layers named as in timm's DeiT, a hundredth of its size."""

    def __init__(self, dim=32):
        super().__init__()
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, dim, 8, 8)})
        self.blocks = nn.Sequential(Block(dim), Block(dim))
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, 2)

    def forward(self, x):
        x = self.patch_embed["proj"](x).flatten(2).transpose(1, 2)
        return self.head(self.norm(self.blocks(x)).mean(1))


def tiny_deit():
    torch.manual_seed(0)
    return TinyDeiT().eval()


def timm_deit():
    timm = pytest.importorskip("timm", exc_type=(ImportError, RuntimeError))
    torch.manual_seed(0)
    settings = {"img_size": SIZE, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}
    return timm.models.vision_transformer.VisionTransformer(**settings, num_classes=2).eval()


def make_images(folder):
    """Reddish and bluish noise in many shapes, 32 images to learn from and 16 to be judged by."""
    pillow = pytest.importorskip("PIL.Image")
    generator = torch.Generator().manual_seed(0)
    for part, count in (("train", 32), ("val", 16)):
        for i in range(count):
            place = folder / part / ("n01", "n02")[i % 2]
            place.mkdir(parents=True, exist_ok=True)
            pixels = torch.randint(0, 128, (20 + i, 50 - i, 3), generator=generator)
            pixels[..., 2 * (i % 2)] += 100
            picture = pillow.fromarray(pixels.to(torch.uint8).numpy())
            picture.save(place / f"{i:02}.JPEG")
    return folder


def make_llama(folder):
    """A Llama of two layers in bfloat16, as they are published, with a tokenizer of 64 words."""
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    words = {"<unk>": 0, **{f"w{i}": i for i in range(1, 64)}}
    plain = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    plain.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    transformers.PreTrainedTokenizerFast(tokenizer_object=plain).save_pretrained(folder / "llama")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(folder / "llama")
    for part, count in (("train", 600), ("test", 300)):  # each word follows from the one before
        (folder / f"wiki.{part}.raw").write_text(
            " ".join(f"w{i * 5 % 63 + 1}" for i in range(count))
        )
    return folder


def commands(title):
    """Commands of one section of the README, in order."""
    section = README.read_text().partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    (block,) = re.findall(r"^```\n(.*?)^```", section, re.S | re.M)
    return [shlex.split(line) for line in block.replace("\\\n", " ").splitlines()]


def run(command, replace, extra=()):
    """Run one command of the README with other names and sizes; return what it printed."""
    words = []
    for word in command:
        for old, new in replace.items():
            word = word.replace(old, str(new))
        words.append(word)
    words += map(str, extra)
    if words[0] == "signbook":
        done = CliRunner().invoke(app, words[1:])
        assert done.exit_code == 0, (words, done.output, done.exception)
        return done.output
    assert words[:3] == ["torchrun", "--nproc-per-node", "8"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2",
             "--master-port", str(port), *words[3:]]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        words, cwd=ROOT, capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def options(command, changes):
    """Arguments of ``examples/finetune.py`` as the README has them, with other values."""
    words = command[command.index("examples/finetune.py") + 1 :]
    for old, new in changes.items():
        words = [word.replace(old, str(new)) for word in words]
    return words


def learn(command, replace, *extra):
    """Train in this process; return the loss of every epoch."""
    words = options(command, replace)
    finetune.main([*words, "--device", "cpu", *map(str, extra)])
    out = Path(words[words.index("--out") + 1])
    return json.loads((out / "run.json").read_text())["run"]["losses"]


def score(output, metric):
    """The value and the reference of one metric in a printed table."""
    (line,) = [line for line in output.splitlines() if re.match(rf"\W*{metric}\W", line)]
    return [float(number) for number in re.findall(r"\d+(?:\.\d+)?", line.partition(metric)[2])]


DEIT, LLAMA = "DeiT-Tiny on ImageNet at 21x", "Llama at 2 bits"


def deit_names(folder, out, model="tiny_deit"):
    return {
        "timm:deit_tiny_patch16_224": f"py:tests.test_examples:{model}",
        "/data/imagenet": folder,
        "images?": f"images?size={SIZE}&",
        "batch=1024": "batch=8",
        "workers=12": "workers=1",
        "runs/deit": out,
    }


def llama_names(folder, out):
    return {
        "meta-llama/Llama-3.2-1B": folder / "llama",
        "/data/wikitext-2-raw": folder,
        "length=1024": "length=16",
        "length=2048": "length=16",
        "examples/llama.yaml": folder / "llama.yaml",
        "runs/llama": out,
    }


def test_deit_commands(tmp_path):
    plan, train, judge = commands(DEIT)
    names = deit_names(make_images(tmp_path), tmp_path / "out")
    run(plan, names, ["--json", tmp_path / "plan.json"])
    planned = json.loads((tmp_path / "plan.json").read_text())
    assert [layer["name"] for layer in planned["layers"]][:2] == [
        "blocks.0.attn.qkv",
        "blocks.0.attn.proj",
    ]
    assert len(planned["layers"]) == 8

    printed = run(train, names, ["--epochs", 1])
    assert printed.startswith("2 processes, 4 steps: loss ")  # 32 images, 8 to a step
    assert printed.count("\n") == 1
    done = json.loads((tmp_path / "out" / "run.json").read_text())
    file = tmp_path / "out" / "model.vq.safetensors"
    assert done["file_bytes"] == planned["file_bytes"] == file.stat().st_size
    assert done["bits_per_weight"] == planned["bits_per_weight"]
    with open_container(file) as container:
        container.verify()
        assert {(e.geometry.method, e.geometry.d, e.geometry.k) for e in container.layers} == {
            ("ssvq", 8, 16)
        }

    top1, reference = score(run(judge, names), "top1")
    model = vq.load(file, into=tiny_deit())
    (batch,) = images(folder=str(tmp_path / "val"), size=SIZE, workers=0).batches
    assert len(batch[1]) == 16
    for network, value in ((model, top1), (tiny_deit(), reference)):
        right = (network(batch[0]).argmax(1) == batch[1]).float().mean()
        assert value == pytest.approx(float(right))


def test_llama_commands(tmp_path):
    small, _, train, judge = commands(LLAMA)
    out = tmp_path / "out"
    names = llama_names(make_llama(tmp_path), out)
    # The recipe as it is, but for k = 256: the stand-in's layers are too small for so many.
    recipe = (ROOT / "examples" / "llama.yaml").read_text()
    (tmp_path / "llama.yaml").write_text(recipe.replace("k: 256", "k: 16"))
    model = f"py:examples.llama:causal_lm?name={tmp_path / 'llama'}"
    run([*small[:2], model, *small[3:]], names, ["--json", tmp_path / "plan.json"])
    planned = json.loads((tmp_path / "plan.json").read_text())
    assert len(planned["layers"]) == 2 * 7

    assert len(learn(train, names, "--epochs", 2)) == 2
    done = json.loads((out / "run.json").read_text())
    file = out / "model.vq.safetensors"
    assert done["file_bytes"] == planned["file_bytes"] == file.stat().st_size
    assert done["bits_per_weight"] == planned["bits_per_weight"]
    assert done["run"]["steps"] == 4  # 37 rows, 16 to a step

    found = run(judge, names)
    perplexity, reference = score(found, "perplexity")
    task = text(file=str(tmp_path / "wiki.test.raw"), tokenizer=str(tmp_path / "llama"), length=16)
    network = vq.load(file, into=resolve_model(model))
    for judged, value in ((network, perplexity), (resolve_model(model), reference)):
        with torch.no_grad():
            nats = [
                -judged(t).logits[:, :-1].log_softmax(-1).gather(2, t[:, 1:, None])
                for t, _ in task.batches
            ]
        assert sum(len(n) for n in nats) == 300 // 16
        assert value == pytest.approx(float(torch.cat(nats).mean().exp()), rel=1e-3)
    assert score(found, "logit_kl")[0] > 0


@pytest.mark.parametrize(("size", "layers"), [("3.2-1b", 16 * 7), ("2-7b", 32 * 7)])
def test_plans_of_the_real_llamas_are_those_that_the_readme_states(tmp_path, size, layers):
    pytest.importorskip("transformers")
    (command,) = [c for c in commands(LLAMA) if f"size={size}" in c[2]]
    run(command, {}, ["--json", tmp_path / "plan.json"])
    planned = json.loads((tmp_path / "plan.json").read_text())
    assert len(planned["layers"]) == layers
    weights = sum(layer["weights"] for layer in planned["layers"])
    bits, size_of_file = planned["bits_per_weight"], planned["file_bytes"]
    row = f"| Llama {size.upper()} | {weights:,} | {bits:.3f} | {size_of_file:,} |\n"
    assert row in README.read_text()


def test_training_learns_and_resumes_to_the_same_file(tmp_path):
    train = commands(DEIT)[1]
    changes = {
        **deit_names(make_images(tmp_path), tmp_path / "whole"),
        "workers=12": "workers=0",
        "3e-3": "3e-2",
        "1e-4": "1e-2",
    }
    losses = learn(train, changes, "--epochs", 8)
    assert losses[-1] < 0.2 * losses[0]
    whole = (tmp_path / "whole" / "model.vq.safetensors").read_bytes()
    model = vq.load(tmp_path / "whole" / "model.vq.safetensors", into=tiny_deit())
    (batch,) = images(folder=str(tmp_path / "val"), size=SIZE, workers=0).batches
    assert (model(batch[0]).argmax(1) == batch[1]).float().mean() > 0.9

    broken = tmp_path / "broken"
    changes["runs/deit"] = broken
    learn(train, changes, "--epochs", 8, "--checkpoint-steps", 18)
    (end,) = (broken / "checkpoints").glob("step-0000000032-*")
    end.unlink()  # as if it had stopped in the middle of the fifth epoch
    assert len(list((broken / "checkpoints").glob("step-0000000018-*"))) == 1
    (broken / "model.vq.safetensors").unlink()
    assert learn(train, changes, "--epochs", 8, "--resume") == losses
    assert (broken / "model.vq.safetensors").read_bytes() == whole


def test_shares_of_the_processes_are_the_batches_of_one(monkeypatch):
    def shares(processes):
        monkeypatch.setattr("examples.data.ranks", lambda: processes)
        found = []
        for rank in range(processes):
            monkeypatch.setattr("examples.data.rank", lambda rank=rank: rank)
            torch.manual_seed(rank)  # processes differ in their global state
            monkeypatch.setattr("examples.data.gather", lambda seed, rank=rank: [7, rank])
            share = Share(22, 6)
            found.append(torch.tensor(list(share)).view(3, -1))
            assert len(share) == found[-1].numel()
        return [sorted(torch.cat([own[step] for own in found]).tolist()) for step in range(3)]

    assert shares(1) == shares(2) == shares(3)
    assert len({i for step in shares(2) for i in step}) == 18
    with pytest.raises(ConfigError, match=r"^batch must be a multiple of the 4 processes, not 6$"):
        monkeypatch.setattr("examples.data.ranks", lambda: 4)
        Share(22, 6)


def test_every_pass_has_its_own_order():
    share = Share(22, 6)
    orders = [list(share), list(share)]
    assert orders[0] != orders[1]
    torch.manual_seed(0)
    assert [list(share), list(share)] == orders


def test_every_epoch_of_training_images_differs_and_repeats_with_the_global_state(tmp_path):
    task = images(
        folder=str(make_images(tmp_path) / "train"), train=True, batch=8, size=SIZE, workers=1
    )
    passes = []
    for seed in (0, None, 0):
        if seed is not None:
            torch.manual_seed(seed)
        passes.append(torch.cat([x for x, _ in task.batches]))
    assert torch.equal(passes[0], passes[2]) and not torch.equal(passes[0], passes[1])
    assert passes[0].shape == (32, 3, SIZE, SIZE)


def test_labels_follow_the_folders_and_the_whole_set_is_judged(tmp_path):
    folder = make_images(tmp_path) / "val"
    task = images(folder=str(folder), batch=5, size=SIZE, workers=0)
    x, y = (torch.cat(part) for part in zip(*task.batches, strict=True))
    assert y.tolist() == [0] * 8 + [1] * 8
    assert (x[:8, 0] > x[:8, 2]).float().mean() > 0.9 > 0.1 > (x[8:, 0] > x[8:, 2]).float().mean()


def test_pixels_are_normalised_and_mirrored(tmp_path):
    pillow = pytest.importorskip("PIL.Image")
    (tmp_path / "n01").mkdir()
    ramp = torch.arange(0, 240, 2, dtype=torch.uint8).expand(3, 90, -1).permute(1, 2, 0)
    pillow.fromarray(ramp.numpy()).save(tmp_path / "n01" / "ramp.png")
    (whole,) = images(folder=str(tmp_path), size=90, crop=1, workers=0).batches.dataset
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = (ramp[0, 15:105] / 255 - mean) / deviation  # the middle 90 of 120 columns
    torch.testing.assert_close(whole[0], expected.T[:, None].expand(3, 90, 90))

    dataset = images(folder=str(tmp_path), size=8, train=True, batch=1, workers=0).batches.dataset
    parts = [dataset[0][0] for _ in range(40)]
    rising = [bool(x[0, 0, 0] < x[0, 0, -1]) for x in parts]
    assert 8 <= sum(rising) <= 32
    assert all((x.std(dim=1) < 1e-5).all() for x in parts)
    ends = {(round(float(x.min()), 3), round(float(x.max()), 3)) for x in parts}
    assert len(ends) > 20


def test_llama_is_loaded_to_be_trained(tmp_path):
    def checkpoints(model):
        return any(getattr(module, "gradient_checkpointing", False) for module in model.modules())

    name = make_llama(tmp_path) / "llama"
    model = resolve_model(f"py:examples.llama:causal_lm?name={name}")
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert checkpoints(model) and not model.config.use_cache
    plain = resolve_model(f"py:examples.llama:causal_lm?name={name}&recompute=false")
    assert not checkpoints(plain)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("images?folder=nowhere", "nowhere: must hold one folder of images for every class, not"),
        ("text?file=nowhere&tokenizer={llama}", "nowhere: must be a readable text, but "),
        ("text?file={llama}/config.json&tokenizer={llama}&length=4096", "at least 4096 tokens"),
        ("text?file=a&tokenizer=./nowhere", "tokenizer './nowhere': must be in a local folder"),
    ],
)
def test_bad_data_are_one_line(tmp_path, data, message):
    data = data.replace("{llama}", str(make_llama(tmp_path) / "llama"))
    with pytest.raises(ConfigError) as error:
        resolve_data(f"py:examples.data:{data}")
    assert message in str(error.value) and "\n" not in str(error.value)


def test_every_option_of_the_script_arrives(tmp_path, monkeypatch):
    found = {}

    def stop(model, batches, **settings):
        found.update(settings)
        raise ConfigError("enough")

    monkeypatch.setattr(vq, "finetune_", stop)
    names = deit_names(make_images(tmp_path), tmp_path / "out")
    extra = ["--teacher", "--fixed-signs", "--resume", "--seed", 5, "--accumulate", 2]
    with pytest.raises(SystemExit, match=r"^error: ConfigError: enough$"):
        learn(commands(DEIT)[1], names, *extra, "--checkpoint-steps", 7)
    for name, tensor in tiny_deit().state_dict().items():
        assert torch.equal(found["teacher"].state_dict()[name], tensor)
    del found["teacher"]
    assert found == {
        "epochs": 10,
        "rates": vq.Rates(signs=3e-3, codebooks=3e-3, rest=1e-4),
        "loss": label_loss,
        "fixed_signs": True,
        "amp": "bf16",
        "accumulate": 2,
        "checkpoint_dir": tmp_path / "out" / "checkpoints",
        "checkpoint_steps": 7,
        "resume": True,
        "seed": 5,
    }


def test_errors_of_the_script_are_one_line(tmp_path):
    with pytest.raises(SystemExit, match=r"^error: ConfigError: data must be named py:"):
        learn(commands(DEIT)[1], {"py:examples.data": "examples", "runs": tmp_path})


def test_with_timm_itself(tmp_path):
    """Stands in for the checkpoint only: timm's code, its names and its view of an image."""
    timm_deit()
    from timm.data import create_transform

    folder = make_images(tmp_path)
    names = deit_names(folder, tmp_path / "out", "timm_deit") | {"workers=12": "workers=0"}
    _, train, judge = commands(DEIT)
    losses = learn(train, names, "--epochs", 1)
    assert len(losses) == 1
    assert 0 <= score(run(judge, names), "top1")[0] <= 1

    from PIL import Image

    transform = create_transform(
        (3, 24, 24), interpolation="bicubic", crop_pct=0.9,
        mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225),
    )  # fmt: skip
    dataset = images(folder=str(folder / "val"), size=24, workers=0).batches.dataset
    for (path, _), (found, _) in zip(dataset.files, dataset, strict=True):
        with Image.open(path) as file:
            assert torch.equal(found, transform(file.convert("RGB")))
