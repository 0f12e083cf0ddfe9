"""Files that are wrong, damaged or hostile are refused, and the model stays as it was."""

import os
import pickle
import struct

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from signbook.zoo.checkpoints import load_weights, read_state
from signbook.zoo.ddpm import ddpm
from signbook.zoo.llama import load_stories260k
from signbook.zoo.minilm import load_minilm
from signbook.zoo.resnet import load_resnet20, resnet20, resnet44
from signbook.zoo.resnet8 import load_resnet8
from signbook.zoo.tiniest import tiniest
from tests.signbook.shared import shared
from vq.errors import ConfigError


def equal(one, other):
    return all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("factory", [resnet20, tiniest, ddpm])
@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s, "epoch": 3},
                                  lambda s: {f"module.{n}": v for n, v in s.items()}])  # fmt: skip
def test_own_weights_return_from_a_torch_file(tmp_path, factory, wrap):
    original = factory()
    torch.save(wrap(original.state_dict()), tmp_path / "w.pt")
    torch.manual_seed(1)
    loaded = load_weights(factory(), tmp_path / "w.pt")
    assert equal(loaded.state_dict(), original.state_dict()) and not loaded.training


@pytest.mark.parametrize("factory", [resnet20, tiniest, ddpm])
def test_own_weights_return_from_safetensors(tmp_path, factory):
    original = factory()
    save_file(original.state_dict(), tmp_path / "w.safetensors")
    torch.manual_seed(1)
    loaded = load_weights(factory(), tmp_path / "w.safetensors")
    assert equal(loaded.state_dict(), original.state_dict())


class Holder(nn.Module):
    """A model that has a submodule of one of the prefixes' names."""

    def __init__(self, name):
        super().__init__()
        setattr(self, name, nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)))


NAMINGS = {
    "as they are": lambda n: n,
    "data parallel": lambda n: f"module.{n}",
    "Lightning": lambda n: f"model.{n}",
    "compiled": lambda n: f"_orig_mod.{n}",
    "compiled in Lightning": lambda n: f"model._orig_mod.{n}",
    "data parallel around compiled": lambda n: f"module._orig_mod.{n}",
    "a compiled layer": lambda n: n.replace(".0.", ".0._orig_mod."),
    "sharded": lambda n: f"_fsdp_wrapped_module.{n.replace('.0.', '.0._fsdp_wrapped_module.')}",
    "recomputed layers": lambda n: n.replace(".0.", ".0._checkpoint_wrapped_module."),
    "all of them": lambda n: (
        f"module.{n.replace('.0.', '.0._orig_mod._checkpoint_wrapped_module.')}"
    ),
    "the inner model": lambda n: n.partition(".")[2],
}


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("own", ["module", "model", "_orig_mod"])
@pytest.mark.parametrize("naming", NAMINGS)
def test_prefixes_are_resolved_against_the_model(tmp_path, naming, own, suffix):
    original, path = Holder(own), tmp_path / f"w{suffix}"
    state = {NAMINGS[naming](n): t for n, t in original.state_dict().items()}
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    assert equal(load_weights(Holder(own), path).state_dict(), original.state_dict())


def test_prefixes_of_a_part_leave_the_rest_its_names(tmp_path):
    original = nn.Sequential(nn.Linear(3, 4))
    state = {f"model.{n}": t for n, t in original.state_dict().items()}
    save_file(state | {"loss.weight": torch.ones(2)}, tmp_path / "w.safetensors")
    with pytest.raises(
        ConfigError, match=r"has 1 problem:\n- tensor 'loss.weight' must be in the model$"
    ):
        load_weights(nn.Sequential(nn.Linear(3, 4)), tmp_path / "w.safetensors")
    two = {"model.0.weight": torch.ones(4, 3), "0.weight": torch.ones(4, 3)}
    save_file(two | {"0.bias": torch.ones(4)}, tmp_path / "w.safetensors")
    with pytest.raises(ConfigError, match=r"- tensor 'model.0.weight' must be in the model$"):
        load_weights(nn.Sequential(nn.Linear(3, 4)), tmp_path / "w.safetensors")


def lightning(state, **others):
    return {"pytorch-lightning_version": "2.5", "epoch": 1, "state_dict": state} | others


@pytest.mark.parametrize("wrap", [lightning, lambda s: {"model_state_dict": s, "epoch": 1},
                                  lambda s: {"model": s, "optimizer": {"state": {}}}])  # fmt: skip
def test_checkpoints_of_trainers_hold_their_state_inside(tmp_path, wrap):
    original = nn.Sequential(nn.Linear(3, 4))
    torch.save(wrap({f"model.{n}": t for n, t in original.state_dict().items()}), tmp_path / "w")
    loaded = load_weights(nn.Sequential(nn.Linear(3, 4)), tmp_path / "w")
    assert equal(loaded.state_dict(), original.state_dict())


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_averaged_models_bring_a_counter(tmp_path, suffix):
    original, path = nn.Sequential(nn.Linear(3, 4)), tmp_path / f"w{suffix}"
    state = torch.optim.swa_utils.AveragedModel(original).state_dict()
    assert "n_averaged" in state
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    loaded = load_weights(nn.Sequential(nn.Linear(3, 4)), path)
    assert equal(loaded.state_dict(), original.state_dict())


@pytest.mark.parametrize("key", ["module", "state_dict_ema", "ema"])
def test_averages_are_taken_if_there_is_nothing_else(tmp_path, key):
    original, other = nn.Sequential(nn.Linear(3, 4)), nn.Sequential(nn.Linear(3, 4))
    torch.save({key: original.state_dict(), "epoch": 2}, tmp_path / "w")
    loaded = load_weights(nn.Sequential(nn.Linear(3, 4)), tmp_path / "w")
    assert equal(loaded.state_dict(), original.state_dict())
    torch.save({key: original.state_dict(), "state_dict": other.state_dict()}, tmp_path / "w")
    assert equal(read_state(tmp_path / "w"), other.state_dict())


def test_one_of_several_files_is_explained(tmp_path):
    path = tmp_path / "model-00001-of-00002.safetensors"
    save_file({"0.weight": torch.ones(4, 3)}, path)
    with pytest.raises(
        ConfigError,
        match=r"has 1 problem:\n- tensor '0.bias' must be in the file\nit is one of several "
        r"files; name the model hf:FOLDER, which reads them all$",
    ):
        load_weights(nn.Sequential(nn.Linear(3, 4)), path)


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_distributed_checkpoints_are_explained(tmp_path, monkeypatch):
    from torch.distributed.checkpoint import save

    folder = tmp_path / "all"
    save({"0.weight": torch.ones(4, 3)}, checkpoint_id=folder, no_dist=True)
    for path in (folder, next(folder.glob("*.distcp"))):
        with pytest.raises(
            ConfigError, match=rf"^{path}: weights must be one file, not a distributed checkpoint;"
        ):
            read_state(path)
    torch.save({"0.weight": torch.ones(4, 3)}, tmp_path / "part.pt")
    monkeypatch.setattr(torch.Tensor, "to_local", None, raising=False)  # as a DTensor has
    with pytest.raises(ConfigError, match=r"entry '0\.weight' must be whole, not one process's pa"):
        read_state(tmp_path / "part.pt")


class Settings:
    pass


ONLY = r": must be a whole torch file of tensors only, "


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize(
    ("write", "message"),
    [
        (
            lambda model, path: torch.save(model, path),
            rf"{ONLY}not objects of .*torch\.nn\.modules\.linear\.Linear.*, whose code is never "
            r"run; save model\.state_dict\(\) instead of the model$",
        ),
        (
            lambda model, path: torch.save(lightning(model.state_dict(), hp=Settings()), path),
            rf"{ONLY}not objects of .*Settings, whose code is never run; "
            "save the 'state_dict' of this Lightning checkpoint alone$",
        ),
        (
            lambda model, path: torch.jit.save(torch.jit.trace(model, torch.ones(1, 3)), path),
            rf"{ONLY}not a TorchScript program; save the state_dict\(\) of the original model$",
        ),
        (
            lambda model, path: path.write_bytes(pickle.dumps(model.state_dict())),
            rf"{ONLY}but it is damaged or a pickle of another program; write it by torch\.save",
        ),
        (
            lambda model, path: path.write_text("weights"),
            rf"{ONLY}but it is damaged or not one of torch; write it by torch\.save",
        ),
        (
            lambda model, path: path.mkdir(),
            r": weights must be one file, not a folder; one of transformers is a model, hf:FOLDER$",
        ),
    ],
)
def test_files_of_other_kinds_are_explained(tmp_path, write, message):
    path = tmp_path / "w.ckpt"
    write(nn.Sequential(nn.Linear(3, 4)), path)
    with pytest.raises(ConfigError, match=rf"^{path}{message}"):
        load_weights(nn.Sequential(nn.Linear(3, 4)), path)


@pytest.mark.parametrize("name", ["model.safetensors.index.json", "pytorch_model.bin.index.json"])
def test_index_files_are_explained(tmp_path, name):
    (tmp_path / name).write_text('{"weight_map": {}}')
    with pytest.raises(
        ConfigError, match=rf"{name}: weights must be one file, not the index of several; name the"
    ):
        read_state(tmp_path / name)


@pytest.mark.parametrize("damage", [lambda b: b"", lambda b: b[:-3], lambda b: b"?" * 20])
def test_damaged_safetensors(tmp_path, damage):
    path = tmp_path / "w.safetensors"
    save_file(nn.Linear(3, 4).state_dict(), path)
    path.write_bytes(damage(path.read_bytes()))
    message = (
        r"w\.safetensors: must be a whole safetensors file, which it is not; it may be damaged"
    )
    with pytest.raises(ConfigError, match=message):
        read_state(path)


def test_missing_file(tmp_path):
    with pytest.raises(ConfigError, match=r"absent\.th: weights must be a readable file"):
        load_resnet20(tmp_path / "absent.th")


def test_other_architecture(tmp_path):
    torch.save(resnet44().state_dict(), tmp_path / "w.pt")
    model = resnet20()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ConfigError, match=r"to CifarResNet has \d+ problems:\n(?s:.*)and \d+ more"):
        load_weights(model, tmp_path / "w.pt")
    assert equal(before, model.state_dict())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("linear.bias"), "tensor 'linear.bias' must be in the file"),
        (lambda s: s.update(extra=torch.zeros(1)), "tensor 'extra' must be in the model"),
        (
            lambda s: s.update({"linear.bias": torch.zeros(11)}),
            r"tensor 'linear.bias' must have shape \(10,\), not \(11,\)",
        ),
        (
            lambda s: s.update({"linear.bias": torch.full((10,), torch.nan)}),
            "tensor 'linear.bias' must be finite",
        ),
        (lambda s: s.update(note="text"), "entry 'note' must be a tensor, not str"),
    ],
)
def test_misfits_are_named(tmp_path, change, message):
    state = dict(resnet20().state_dict())
    change(state)
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(ConfigError, match=message):
        load_resnet20(tmp_path / "w.pt")


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("hostile-was-here",)


def test_code_in_a_file_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"w": Hostile()}, "w.pt")
    with pytest.raises(ConfigError, match="must be a whole torch file of tensors only"):
        read_state(tmp_path / "w.pt")
    assert not (tmp_path / "hostile-was-here").exists()


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, -1])
def test_truncated_files(tmp_path, suffix, keep):
    path = tmp_path / f"w{suffix}"
    state = resnet20().state_dict()
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    raw = path.read_bytes()
    path.write_bytes(raw[: int(keep * len(raw)) if isinstance(keep, float) else keep])
    with pytest.raises(ConfigError, match=rf"w\{suffix}: must be a whole"):
        load_resnet20(path)


def llama_file(tmp_path, edit):
    raw = bytearray(shared("stories260K/stories260K.bin").read_bytes())
    path = tmp_path / "w.bin"
    path.write_bytes(bytes(edit(raw) or raw))
    return path


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda raw: raw[:-4], "must be 1056540 bytes long, not 1056536"),
        (lambda raw: raw + b"\0", "must be 1056540 bytes long, not 1056541"),
        (lambda raw: raw[:20], r"sizes must be \(64, 172,"),
        (lambda raw: struct.pack_into("<i", raw, 0, 65), r"not \(65, 172,"),
        (lambda raw: struct.pack_into("<f", raw, len(raw) - 4, 2.0), "table 'sin'"),
        (
            lambda raw: struct.pack_into("<f", raw, 28, float("inf")),
            "'embed.weight' must be",
        ),
    ],
)
def test_damaged_llama_files(tmp_path, edit, message):
    with pytest.raises(ConfigError, match=message):
        load_stories260k(llama_file(tmp_path, edit))


def test_missing_llama_file(tmp_path):
    with pytest.raises(ConfigError, match="must be a readable file"):
        load_stories260k(tmp_path / "absent.bin")


def test_other_schedule_of_a_diffusion_model(tmp_path):
    torch.save(ddpm().state_dict() | {"alpha_t": torch.ones(51)}, tmp_path / "w.pt")
    with pytest.raises(ConfigError, match="'alpha_t' must be the schedule with 1000 steps"):
        load_weights(ddpm(), tmp_path / "w.pt")


@pytest.mark.parametrize("keep", [0, 100, 50_000])
def test_damaged_keras_files(tmp_path, keep):
    pytest.importorskip("h5py")
    raw = shared("mlperf_tiny/resnet8_cifar10.h5").read_bytes()
    (tmp_path / "w.h5").write_bytes(raw[:keep])
    with pytest.raises(
        ConfigError, match=r"w\.h5: must be a whole ResNet-8 Keras .* gives no '\w+"
    ):
        load_resnet8(tmp_path / "w.h5")


def test_keras_file_without_h5py(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(ConfigError, match=r"pip install 'signbook\[keras\]'"):
        load_resnet8(tmp_path / "w.h5")


def test_folder_without_a_model(tmp_path):
    with pytest.raises(ConfigError, match=r"must be a folder with a config\.json"):
        load_minilm(tmp_path)


def test_lazy_models_are_refused_before_weights_are_read(tmp_path):
    torch.save(nn.Linear(4, 2).state_dict(), tmp_path / "w.pt")
    with pytest.raises(ConfigError, match=r"^model must have all its shapes, but .*weight"):
        load_weights(nn.LazyLinear(2), tmp_path / "w.pt")
