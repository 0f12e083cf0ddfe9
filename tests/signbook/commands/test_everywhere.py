"""Every command with names that are hard to print, in files that are hard to name."""

import json
import os
import pty
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

import vq
from signbook.commands import printing
from signbook.commands.inspect import inspect_file
from signbook.naming import resolve_model
from tests.hwsim.programs import SMALL
from tests.signbook.runner import refused, run
from vq.text.visible import visible

FOLDER = "a b 'q' \"q\" $HOME `x` #1; [b] :smile: é 層 \x1b[2J"
LAYERS = ("fc[q]", "fc[/x]", ":smile:", "e\x1b[2J\nnd", "層層", "[red]" + 24 * "long")
MODULE = f"""
import torch
from torch import nn
from signbook.tasks import Classification

def net(names={LAYERS!r}):
    torch.manual_seed(0)
    model = nn.Sequential()
    for name in names:
        model.add_module(name, nn.Linear(16, 16))
    return model

def traceable():  # torch.fx writes names into its code as they are
    return net([name for name in {LAYERS!r} if name.isprintable()])

def data():
    return Classification([(torch.randn(32, 16), torch.arange(32) % 4)])
"""
NET, TRACEABLE, DATA = "py:hard:net", "py:hard:traceable", "py:hard:data"
FILE, SHAPES = "in.vq.safetensors", "--accelerator=small.yaml"
WORDS = {
    "plan": ("plan", NET, "--recipe=r [q].yaml"),
    "compress": ("compress", NET, "--recipe=r [q].yaml", "--out=OUT"),
    "finetune": ("finetune", NET, "--recipe=r [q].yaml", "--data", DATA, "--epochs=1", "--out=OUT"),
    "blockwise": ("finetune", NET, "--recipe=r [q].yaml", "--data", DATA, "--epochs=0",
                  "--blockwise", "--out=OUT"),
    "codebook": ("codebook", "build", NET, TRACEABLE, "--d=4", "--k=8", "--out=OUT"),
    "quantize": ("quantize", NET, "--data", DATA, "--out=OUT"),
    "inspect": ("inspect", FILE),
    "eval": ("eval", NET, "--data", DATA, "--file", FILE, "--reference"),
    "integer": ("integer", TRACEABLE, "--data", DATA, "--file=t.safetensors", "--out=OUT"),
    "dense": ("export", FILE, "--to=dense", "--out=OUT"),
    "dram": ("export", FILE, "--to=dram", "--out=OUT"),
    "rtl": ("rtl", "--weights-only", "--out=OUT"),
    "simulate": ("simulate", FILE, SHAPES),
    "estimate": ("estimate", FILE, SHAPES),
    "sweep": ("sweep", FILE, "--set=array=8x8", "--out=OUT"),
    "report": ("report", "measured [q].json", "--out=OUT"),
}  # fmt: skip
#: What prints no table, or has no document.
BARE = ("rtl", "report")
NARROW = {"COLUMNS": "40", "TERM": "xterm"}
STYLE = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder of a hard name, with a model, its file, its data and its accelerator."""
    folder = tmp_path_factory.mktemp("hard") / FOLDER
    folder.mkdir()
    (folder / "hard.py").write_text(MODULE)
    (folder / "r [q].yaml").write_text("'*': {method: ssvq, d: 4, k: 8, tile_outputs: 4}\n")
    settings = {"array": f"{SMALL.rows}x{SMALL.columns}", **SMALL.to_mapping()}
    settings = {k: v for k, v in settings.items() if k not in ("rows", "columns")}
    (folder / "small.yaml").write_text(json.dumps(settings))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(folder)
        for name, file in ((NET, FILE), (TRACEABLE, "t.safetensors")):
            network = resolve_model(name)
            vq.compress_(network, vq.Recipe.from_yaml("r [q].yaml"))
            vq.save(network, file)
        estimated = run("estimate", FILE, SHAPES, "--json=measured [q].json")
        assert estimated.returncode == 0, estimated.stderr
        yield folder


@pytest.fixture
def tables(place, monkeypatch):
    """What is handed to the printer of tables: titles, headers, rows. The RTL is not run."""
    import hwsim

    found = []
    printed = printing._print

    def spy(title, header, rows, numeric):
        found.append((title, header, rows, numeric))
        printed(title, header, rows, numeric)

    monkeypatch.setattr(printing, "_print", spy)
    only = ("check", "waves")

    def estimated(*a, **b):
        return hwsim.estimate(*a, **{name: b[name] for name in b if name not in only})

    monkeypatch.setattr(hwsim, "simulate", estimated)
    return found


def words(case, out):
    return [word.replace("OUT", out) for word in WORDS[case]]


@pytest.mark.parametrize("case", WORDS)
def test_off_a_terminal_a_row_is_a_line_with_its_whole_names(case, tables):
    done = run(*words(case, f"{case} $x '{FOLDER[:9]}"), env={"COLUMNS": "40"})
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    printed = [
        [c.strip() for c in re.split("[│┃]", x.strip("│┃"))] for x in done.stdout.splitlines()
    ]
    assert bool(tables) == (case not in BARE)
    for title, header, rows, _ in tables:
        assert [visible(title)] in printed
        for row in [header, *rows] if header else rows:
            cells = [visible(cell).strip() for cell in row]
            assert cells in printed, (cells, done.stdout)


@pytest.mark.parametrize("case", [case for case in WORDS if case not in BARE])
def test_a_document_goes_alone_to_standard_output_and_a_narrow_terminal_loses_no_figure(
    case, tables
):
    done = run(*words(case, f"{case} 2 #層\n"), "--json=-", env=NARROW, terminal=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["schema"].startswith("signbook.")
    assert not Path("-").exists()
    shown = STYLE.sub("", done.stderr)
    assert "\x1b" not in shown
    for title, _, rows, _ in tables:
        assert visible(title) in shown
        for row in rows:
            for cell in row:
                assert visible(cell).strip()[:8] in shown, cell


@pytest.mark.parametrize("case", [case for case, of in WORDS.items() if "--out=OUT" in of])
def test_but_for_documents_a_dash_is_the_name_of_a_file_or_folder(case, place):
    done = run(*words(case, "-"))
    assert done.returncode == 0, done.stderr
    assert done.stdout and Path("-").exists()
    if Path("-").is_file():
        again = refused("export", "-", "--to=dense", "--out=-")
        assert re.match("error: ConfigError: --out must not be a file that is read, not -", again)
        Path("-").unlink()
    else:
        shutil.rmtree("-")


def test_errors_show_what_names_hold(place):
    text = refused("inspect", "a\x1b[2J[/b].safetensors")
    assert text.startswith(r"error: ContainerError: a\x1b[2J[/b].safetensors: must be a readable")


def test_a_real_terminal_of_forty_columns(place):
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "signbook", "inspect", FILE]
    environment = {**os.environ, **NARROW}
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        shown = b""
        with suppress(OSError):  # its end
            while piece := os.read(ours, 4096):
                shown += piece
    os.close(ours)
    assert process.returncode == 0
    lines = STYLE.sub("", shown.decode()).splitlines()
    for layer in inspect_file(FILE)["layers"]:
        assert visible(layer["name"]) in lines
        assert f"  bits_per_weight {layer['bits_per_weight']:.3f}" in lines
