"""Files of commands: complete or absent, in folders that are checked before any work."""

import errno
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import typer

import vq
from signbook.cli import app
from signbook.files import check_outputs, make_folder, output_folder, refuse_inputs, write_json
from signbook.naming import resolve_model
from tests.signbook.runner import refused
from vq.container import OutputError
from vq.errors import ConfigError


def test_documents_are_complete_or_absent(tmp_path):
    path = tmp_path / "document.json"
    write_json(path, {"µ": 1.5})
    assert json.loads(path.read_text(encoding="utf-8")) == {"µ": 1.5}
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"µ": float("nan")})
    assert json.loads(path.read_text(encoding="utf-8")) == {"µ": 1.5}
    assert list(tmp_path.iterdir()) == [path]


def test_folders(tmp_path):
    folder = make_folder(tmp_path / "a" / "b")
    assert folder.is_dir() and make_folder(folder) == folder and not list(folder.iterdir())
    (tmp_path / "file").touch()
    message = r"file/inside: must be a folder that can be written, but Not a directory; choose "
    with pytest.raises(OutputError, match=message):
        make_folder(tmp_path / "file" / "inside")


def test_a_folder_is_made_by_many_at_once(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(make_folder, [tmp_path / "shared"] * 400)) == {tmp_path / "shared"}


def _linked(tmp_path, monkeypatch):
    """A file that is read, by all the paths that lead to it."""
    folder = tmp_path / "folder"
    folder.mkdir()
    source = folder / "source.yaml"
    source.write_text("input")
    (tmp_path / "soft").symlink_to(source)
    (tmp_path / "hard").hardlink_to(source)
    (tmp_path / "into").symlink_to(folder)
    monkeypatch.chdir(folder)
    return source, {
        "itself": source,
        "relative": os.path.relpath(source),
        "around": folder / ".." / "folder" / "source.yaml",
        "a link": tmp_path / "soft",
        "a hard link": tmp_path / "hard",
        "a folder's link": tmp_path / "into" / "source.yaml",
    }


def test_outputs_that_are_inputs_are_refused_by_any_path(tmp_path, monkeypatch):
    source, paths = _linked(tmp_path, monkeypatch)
    for path in paths.values():
        for out, given in ((source, path), (path, source)):
            with pytest.raises(ConfigError, match=r"^--json must not be a file that is read, not"):
                refuse_inputs([("--json", type(source)(out))], [None, given])
    refuse_inputs([("--json", None), ("--out", source)], [None, tmp_path / "other"])


def test_names_of_models_data_and_memories_are_inputs_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "package").mkdir()
    for name in ("package/__init__.py", "toy.py", "package/data.py", "ddr.ini"):
        (tmp_path / name).touch()
    for output, given in {
        "toy.py": "py:toy:net?depth=2",
        "package/data.py": "py:package.data:task",
        "package/__init__.py": "py:package:task",
        "ddr.ini": "ddr.ini:clock_mhz=800",
    }.items():
        with pytest.raises(
            ConfigError, match=rf"^--json must not be a file that is read.*{output}"
        ):
            refuse_inputs([("--json", tmp_path / output)], [given])
        with pytest.raises(ConfigError, match=r"^--json must not be a file that is read"):
            refuse_inputs([("--json", tmp_path / "toy.py")], [f"hf:{tmp_path}"])
    refuse_inputs(
        [("--json", tmp_path / "new.py")], ["py:new_module:net", "timm:deit", "ddr4-2400"]
    )


def test_two_outputs_are_two_files(tmp_path):
    both = [("--out", tmp_path / "a"), ("--json", tmp_path / "b" / ".." / "a")]
    (tmp_path / "b").mkdir()
    with pytest.raises(ConfigError, match=r"^--json must be another file than that of --out, not"):
        refuse_inputs(both, [])


def test_places_that_cannot_be_written_are_refused_before_work(tmp_path):
    for place, message in {
        tmp_path: "must be a file to write, not a folder; give --json another",
        "/dev/null": "must be a file to write, not a device; give --json another",
        tmp_path / "no" / "x": "must lie in a folder that can be written, but No such file",
        tmp_path / ("x" * 300): "must lie in a folder that can be written, but File name too long",
    }.items():
        with pytest.raises(OutputError, match=f"^{re.escape(f'{place}: {message}')}"):
            check_outputs([("--json", type(tmp_path)(place))], [])
    check_outputs([("--json", tmp_path / "x"), ("--out", None)], [])
    assert not list(tmp_path.iterdir())


def test_links_that_lead_nowhere_are_places_to_write(tmp_path):
    for name, end in (("dangling", "gone"), ("circle", "circle")):
        (tmp_path / name).symlink_to(end)
        check_outputs([("--out", tmp_path / name)], [tmp_path / "input"])


def test_a_folder_is_made_for_runs_that_can_write_all(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(OutputError, match=r"/no/x: must lie in a folder"):
        with output_folder(out, [("--json", tmp_path / "no" / "x")], []):
            pass
    assert not out.exists()
    with output_folder(out, [("--json", out / "x")], []):
        assert out.is_dir()
    assert not list(out.iterdir())


def test_two_runs_in_one_folder_refuse_each_other(tmp_path):
    hold = "import pathlib, sys; from signbook.files import output_folder\n"
    hold += "with output_folder(pathlib.Path(sys.argv[1]), [], []): print(flush=True); input()"
    process = subprocess.Popen(
        [sys.executable, "-c", hold, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout.readline()
    with pytest.raises(OutputError, match=r"must be used by one run at a time, but another is"):
        with output_folder(tmp_path, [], []):
            pass
    process.communicate(b"\n")
    for _ in range(2):
        with output_folder(tmp_path, [], []):
            pass


NET = "py:signbook.zoo.digits:DigitsViT?depth=1&dim=32"
DIGITS = "py:signbook.data:digits"
#: Commands whose output OUT is their input IN; of a folder, IN is what the command writes to it.
OVERWRITING = {
    "plan": ("plan", NET, "--recipe", "IN", "--json", "OUT"),
    "plan, weights": ("plan", NET, "--recipe", "OTHER", "--weights", "IN", "--json", "OUT"),
    "compress": ("compress", NET, "--recipe", "IN", "--out", "DIR", "--json", "OUT"),
    "compress, weights": ("compress", NET, "--recipe", "OTHER", "--weights", "IN", "--out", "DIR",
                          "--json", "OUT"),
    "compress, folder": ("compress", NET, "--recipe", "DIR/model.vq.safetensors", "--out", "OUT"),
    "compress, codebook": ("compress", NET, "--recipe", "BOOK", "--out", "DIR", "--json", "OUT"),
    "compress, data": ("compress", NET, "--recipe", "OTHER", "--data", "py:signbook.data:x?path=IN",
                       "--out", "DIR", "--json", "OUT"),
    "plan, codebook": ("plan", NET, "--recipe", "BOOK", "--json", "OUT"),
    "finetune": ("finetune", NET, "--recipe", "IN", "--data", DIGITS, "--out", "DIR", "--json",
                 "OUT"),
    "finetune, codebook": ("finetune", NET, "--recipe", "BOOK", "--data", DIGITS, "--out", "DIR",
                           "--json", "OUT"),
    "finetune, folder": ("finetune", NET, "--recipe", "DIR/run.json", "--data", DIGITS, "--out",
                         "OUT"),
    "quantize": ("quantize", NET, "--data", DIGITS, "--recipe", "IN", "--out", "DIR", "--json",
                 "OUT"),
    "quantize, folder": ("quantize", NET, "--data", DIGITS, "--recipe", "DIR/quantize.json",
                         "--out", "OUT"),
    "inspect": ("inspect", "IN", "--json", "OUT"),
    "eval": ("eval", NET, "--data", DIGITS, "--file", "IN", "--json", "OUT"),
    "generate": ("generate", NET, "--prompt", "a", "--file", "IN", "--json", "OUT"),
    "eval, weights": ("eval", NET, "--data", DIGITS, "--weights", "IN", "--json", "OUT"),
    "eval, rom": ("eval", NET, "--data", DIGITS, "--file", "OTHER", "--rom", "IN", "--json", "OUT"),
    "integer": ("integer", NET, "--file", "IN", "--data", DIGITS, "--out", "OUT"),
    "integer in place": ("integer", NET, "--file", "IN", "--data", DIGITS, "--json", "OUT"),
    "integer, json": ("integer", NET, "--file", "IN", "--data", DIGITS, "--out", "DIR/x", "--json",
                      "OUT"),
    "export": ("export", "IN", "--to", "dense", "--out", "OUT"),
    "export, json": ("export", "IN", "--to", "dense", "--out", "DIR/x", "--json", "OUT"),
    "export to onnx": ("export", "IN", "--to", "onnx", "--model", NET, "--data", DIGITS, "--out",
                       "OUT"),
    "export, map": ("export", "DIR/x.json", "--to", "dram", "--out", "OUT/x"),
    "export, folder": ("export", "DIR/model.safetensors", "--to", "gptq", "--out", "OUT"),
    "rtl": ("rtl", "--out", "DIR", "--accelerator", "IN", "--report", "--json", "OUT"),
    "rtl, liberty": ("rtl", "--out", "DIR", "--liberty", "IN", "--report", "--json", "OUT"),
    "rtl, page": ("rtl", "--out", "OUT", "--accelerator", "DIR/signbook_accelerator.md"),
    "simulate": ("simulate", "IN", "--json", "OUT"),
    "simulate, waves": ("simulate", "IN", "--waves", "OUT"),
    "simulate, accelerator": ("simulate", "OTHER", "--accelerator", "IN", "--json", "OUT"),
    "estimate": ("estimate", "minilm-l6", "--recipe", "IN", "--json", "OUT"),
    "estimate, memory": ("estimate", "minilm-l6", "--recipe", "int4", "--memory",
                         "IN:clock_mhz=800", "--json", "OUT"),
    "estimate, codebook": ("estimate", "minilm-l6", "--recipe", "BOOK", "--json", "OUT"),
    "sweep": ("sweep", "--out", "DIR", "--space", "IN", "--json", "OUT"),
    "sweep, target": ("sweep", "IN", "--out", "DIR", "--json", "OUT"),
    "sweep, folder": ("sweep", "--out", "OUT", "--space", "DIR/sweep.json"),
    "sweep, codebook": ("sweep", "minilm-l6", "--out", "DIR", "--recipe", "BOOK", "--json", "OUT"),
    "report": ("report", "IN", "--out", "OUT"),
}  # fmt: skip


WAYS = ("itself", "a hard link", "a link", "relative", "around")


def _way(way, source, folder):
    """Another path to ``source``, or, of a folder, to it."""
    match way:
        case "a hard link" if source.is_file():
            (folder / "hard").hardlink_to(source)
            return folder / "hard"
        case "a link" | "a hard link":
            (folder / "soft").symlink_to(source)
            return folder / "soft"
        case "relative":
            return Path(os.path.relpath(source))
        case "around":
            (folder / "x").mkdir()
            return folder / "x" / ".." / source.name
    return source


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", OVERWRITING)
def test_every_command_refuses_to_overwrite_what_it_reads(case, way, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = OVERWRITING[case]
    folder = tmp_path / "out"
    folder.mkdir()
    (tmp_path / "OTHER").write_text("input")
    inside = [word for word in words if word.startswith("DIR/") and word != "DIR/x"]
    source = folder / inside[0].removeprefix("DIR/") if inside else tmp_path / "input"
    source.write_text("input")
    if "BOOK" in words:
        np.save(tmp_path / "book.npy", np.ones((4, 4), np.int8))
        (tmp_path / "book.yaml").write_text("'*': {method: ssvq, codebook: book.npy}\n")
        source = tmp_path / "book.npy"
    other = _way(way, folder if inside else source, tmp_path)
    names = {"IN": source, "OUT": other, "DIR": folder, "OTHER": tmp_path / "OTHER"}
    names["BOOK"] = tmp_path / "book.yaml"
    pattern = re.compile("|".join(rf"\b{name}\b" for name in names))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    text = refused(*(pattern.sub(lambda found: str(names[found[0]]), word) for word in words))
    assert re.search(r"must (not be a file that is read|be another file than that of)", text), text
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


FULL = {
    "compress": ("compress", NET, "--recipe", "recipe.yaml", "--out", "out"),
    "quantize": ("quantize", NET, "--method", "rtn", "--out", "out"),
    "inspect": ("inspect", "out/model.vq.safetensors", "--json", "old"),
    "export": ("export", "out/model.vq.safetensors", "--to", "dense", "--out", "old"),
    "export, image": ("export", "out/model.vq.safetensors", "--to", "dram", "--out", "old"),
    "estimate": ("estimate", "out/model.vq.safetensors", "--methods", "none", "--json", "old"),
}


@pytest.mark.parametrize("case", FULL)
def test_a_full_disk_leaves_what_was_there(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text("blocks.*: {method: int8}\n")
    network = resolve_model(NET)
    vq.compress_(network, vq.Recipe({"blocks.*": vq.Int8()}), progress=False)
    (tmp_path / "out").mkdir()
    vq.save(network, tmp_path / "out" / "model.vq.safetensors")
    (tmp_path / "old").write_text("old")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    text = refused(*FULL[case])
    assert re.match(r"error: OutputError: .*: must be writable, not refused \(No space left", text)
    assert text.count("\n") == 1
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


LOCKED = {
    "compress": (NET, "--recipe", "recipe.yaml"),
    "finetune": (NET, "--recipe", "recipe.yaml", "--data", DIGITS),
    "quantize": (NET, "--method", "rtn"),
    "export": ("file", "--to", "gptq"),
    "rtl": (),
    "sweep": ("minilm-l6", "--recipe", "int4"),
    "demo": (),
}


@pytest.mark.parametrize("command", LOCKED)
def test_every_command_refuses_a_folder_that_another_run_writes_to(command, tmp_path):
    out = tmp_path / "out"
    with output_folder(out, [], []):
        text = refused(command, *LOCKED[command], "--out", out)
        assert not list(out.iterdir())
    assert text.startswith(f"error: OutputError: {out}: must be used by one run at a time, but ano")


def test_every_command_that_writes_a_folder_is_locked_here():
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    outs = {
        name: option
        for name, command in commands.items()
        for option in command.params
        if option.name == "out"
    }
    files = {name for name, out in outs.items() if out.metavar == "FILE"}
    assert outs.keys() - files == LOCKED.keys() - {"export"}  # of which some are folders
    assert files == {"export", "integer", "report"}
