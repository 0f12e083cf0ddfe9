"""Ctrl-C and SIGTERM in every command: one line that says how to go on, and nothing by halves."""

import os
import signal
import subprocess
import sys

import pytest
import typer

import vq
from signbook.cli import app
from signbook.commands.stopping import stoppable
from signbook.naming import resolve_model
from tests.signbook.runner import run
from tests.test_architecture import ROOT

NET = "py:signbook.zoo.digits:DigitsViT?depth=1&dim=32"
DATA = "py:signbook.data:digits"
#: Functions that a command calls when it has work behind it, and the rest of its words.
STOPPED = {
    "plan": ("vq.recipe.planning.account", NET, "--recipe", "recipe.yaml"),
    "compress": ("vq.save", NET, "--recipe", "recipe.yaml", "--out", "out"),
    "finetune": ("vq.save", NET, "--recipe", "recipe.yaml", "--data", f"{DATA}?batch=700",
                 "--epochs", "1", "--device", "cpu", "--out", "out"),
    "quantize": ("vq.save", NET, "--method", "rtn", "--out", "out"),
    "inspect": ("vq.container.Container.verify", "file.safetensors"),
    "eval": ("signbook.evaluation.evaluate", NET, "--data", DATA),
    "generate": ("signbook.loading.resolve_model", "py:signbook.zoo.llama:stories260k", "--prompt",
                 "a", "--tokenizer", "stories260k"),
    "integer": ("vq.integer.tokens.build.trace_transformer", NET, "--file", "file.safetensors",
                "--data", DATA),
    "export": ("vq.container.Container.weight", "file.safetensors", "--to", "dense", "--out", "x"),
    "codebook": ("vq.universal.door.codewords", "build", NET, "--out", "book.npy"),
    "rtl": ("rtl.build.emit.emit_verilog", "--out", "out"),
    "simulate": ("hwsim.simulate", "file.safetensors"),
    "estimate": ("hwsim.estimate", "file.safetensors"),
    "sweep": ("hwsim.sweep.space.Space.files", "minilm-l6", "--recipe", "int4", "--out", "out"),
    "report": ("signbook.report.read_document", "document.json", "--out", "page.html"),
    "demo": ("signbook.demo.acts.load_digits", "--out", "out"),
}  # fmt: skip
ANEW = "no file is half written: the same command starts anew"
RESUMED = {"finetune": "checkpoint", "quantize": "block", "sweep": "point"}


@pytest.fixture
def inputs(tmp_path, monkeypatch):
    (tmp_path / "recipe.yaml").write_text("blocks.*: {method: int8}\n")
    network = resolve_model(NET)
    vq.compress_(network, vq.Recipe({"blocks.*": vq.Int8()}), progress=False)
    vq.save(network, tmp_path / "file.safetensors")
    monkeypatch.chdir(tmp_path)
    # A script's ``&`` ignores it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield sorted(tmp_path.iterdir())
    signal.signal(signal.SIGINT, before)


def test_every_command_is_stopped_here():
    assert STOPPED.keys() == typer.main.get_command(app).commands.keys()  # type: ignore[attr-defined]


@pytest.mark.parametrize("command", STOPPED)
def test_a_command_that_is_stopped_says_how_to_go_on(command, inputs, tmp_path, monkeypatch):
    function, *words = STOPPED[command]
    save = vq.save
    number, word = signal.SIGINT, "interrupted"
    if command in ("compress", "report"):
        number, word = signal.SIGTERM, "terminated"
    monkeypatch.setattr(function, lambda *_, **__: signal.raise_signal(number))
    done = run(command, *words)
    how = "no file is half written: the same command starts anew"
    if part := RESUMED.get(command):
        how = f"every finished {part} is in out: the same command with --resume goes on from there"
    assert done.stderr == f"{word}; {how}\n" and done.returncode == 128 + number
    assert done.stdout == ""
    left = {path.name for path in tmp_path.rglob("*") if path.is_file() and path not in inputs}
    assert not {name for name in left if not name.startswith(("step-", "run.jsonl", "points"))}
    assert (tmp_path / "out").exists() == (command in RESUMED)
    if command == "finetune":
        monkeypatch.setattr(function, save)
        done = run(command, *words, "--resume")
        assert done.returncode == 0, done.stderr
        assert {p.name for p in (tmp_path / "out").rglob("*")} == {
            "model.vq.safetensors", "run.json", "checkpoints", "run.jsonl"
        }  # fmt: skip


INTERRUPTED = """
import os, signal
from signbook.tasks import Classification

class Batches:
    def __len__(self): return 2
    def __iter__(self): os.kill(os.getpid(), signal.SIGINT); yield

def data():
    return Classification(Batches())
"""


def test_ctrl_c_in_a_process(inputs, tmp_path):
    (tmp_path / "toy.py").write_text(INTERRUPTED)
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code += "from signbook.cli import main; main()"
    words = ["compress", NET, "--recipe", "recipe.yaml", "--data", "py:toy:data", "--out", "a/b"]
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 130 and done.stdout == ""
    assert done.stderr == "interrupted; no file is half written: the same command starts anew\n"
    assert not list(tmp_path.glob("a/*"))


def test_pressed_twice_it_still_undoes_what_was_begun(capsys, monkeypatch):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    undone = []
    try:
        with pytest.raises(SystemExit, match=r"^130$"), stoppable():
            try:
                signal.raise_signal(signal.SIGINT)
            finally:
                signal.raise_signal(signal.SIGINT)
                signal.raise_signal(signal.SIGTERM)
                undone.append(True)
    finally:
        signal.signal(signal.SIGINT, before)
    assert undone and capsys.readouterr().err == f"interrupted; {ANEW}\n"
