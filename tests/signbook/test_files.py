"""Files of commands: complete or absent, in folders that are checked before any work."""

import json
import os
import re
import subprocess
import sys

import pytest

from signbook.files import check_outputs, make_folder, output_folder, refuse_inputs, write_json
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
    }.items():
        with pytest.raises(OutputError, match=f"^{re.escape(f'{place}: {message}')}"):
            check_outputs([("--json", type(tmp_path)(place))], [])
    check_outputs([("--json", tmp_path / "x"), ("--out", None)], [])
    assert not list(tmp_path.iterdir())


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
COMMANDS = {
    "plan": ("plan", NET, "--recipe", "FILE", "--json", "FILE"),
    "compress": ("compress", NET, "--recipe", "FILE", "--out", "DIR", "--json", "FILE"),
    "weights": ("compress", NET, "--recipe", "OTHER", "--weights", "FILE", "--out", "DIR",
                "--json", "FILE"),
    "own": ("compress", NET, "--recipe", "DIR/model.vq.safetensors", "--out", "DIR"),
    "finetune": ("finetune", NET, "--recipe", "FILE", "--data", DIGITS, "--out", "DIR",
                 "--json", "FILE"),
    "run.json": ("finetune", NET, "--recipe", "DIR/run.json", "--data", DIGITS, "--out", "DIR"),
    "quantize": ("quantize", NET, "--data", DIGITS, "--recipe", "FILE", "--out", "DIR",
                 "--json", "FILE"),
    "inspect": ("inspect", "FILE", "--json", "FILE"),
    "eval": ("eval", NET, "--data", DIGITS, "--file", "FILE", "--json", "FILE"),
    "integer": ("integer", NET, "--file", "FILE", "--data", DIGITS, "--out", "FILE"),
    "integer in place": ("integer", NET, "--file", "FILE", "--data", DIGITS, "--json", "FILE"),
    "export": ("export", "FILE", "--to", "dense", "--out", "FILE"),
    "dram": ("export", "DIR/x.json", "--to", "dram", "--out", "DIR/x"),
    "gptq": ("export", "DIR/model.safetensors", "--to", "gptq", "--out", "DIR"),
    "rtl": ("rtl", "--out", "DIR", "--accelerator", "FILE", "--report", "--json", "FILE"),
    "simulate": ("simulate", "FILE", "--json", "FILE"),
    "estimate": ("estimate", "minilm-l6", "--recipe", "FILE", "--json", "FILE"),
    "sweep": ("sweep", "--out", "DIR", "--space", "FILE", "--json", "FILE"),
    "report": ("report", "FILE", "--out", "FILE"),
}  # fmt: skip


@pytest.mark.parametrize("case", COMMANDS)
def test_every_command_refuses_to_overwrite_what_it_reads(case, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    places = [tmp_path / "FILE", tmp_path / "OTHER"]
    places += [folder / n for n in ("model.vq.safetensors", "run.json", "x.json")]
    places.append(folder / "model.safetensors")
    for place in places:
        place.write_text("input")
    names = {"FILE": str(places[0]), "OTHER": str(places[1]), "DIR": str(folder)}
    words = [names.get(w, w.replace("DIR/", f"{folder}/")) for w in COMMANDS[case]]
    text = refused(*words)
    assert re.search(r"must (not be a file that is read|be another file than that of)", text), text
    assert all(place.read_text() == "input" for place in places)
    assert len([p for p in tmp_path.rglob("*") if p.is_file()]) == len(places)
