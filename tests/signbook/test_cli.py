"""The command line: exit status, one-line errors, and how little of it a command imports."""

import importlib
import json
import os
import re
import subprocess
import sys

import pytest
import typer

from signbook.cli import app
from tests.signbook.runner import run
from tests.test_architecture import ROOT

FILE = ROOT / "tests" / "golden" / "every_method.vq.safetensors"
COMMANDS = list(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
#: Those that do something, by their words: a group does not.
DOING = [
    [name, *part]
    for name, command in typer.main.get_command(app).commands.items()  # type: ignore[attr-defined]
    for part in ([[part] for part in command.commands] if hasattr(command, "commands") else [[]])
]


def process(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_an_error_is_one_line_and_status_1():
    code = "from signbook.cli import main; main()"
    done = process(code, "inspect", "absent.vq.safetensors")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(
        "error: ContainerError: absent.vq.safetensors: must be a readable"
    )
    assert done.stderr.count("\n") == 1


def test_help_lists_the_commands():
    done = run("--help")
    assert done.returncode == 0
    assert all(f"│ {command} " in done.stdout for command in COMMANDS)


@pytest.mark.parametrize("command", [[], *DOING, ["codebook"]])
def test_help_has_a_short_name(command):
    done = run(*command, "-h")
    assert (done.returncode, done.stdout) == (0, run(*command, "--help").stdout)
    assert "Usage: " in done.stdout


def test_help_imports_nothing_heavy():
    """It must be there at once: torch takes seconds, numpy and pydantic a tenth of one."""
    modules = ", ".join(f"signbook.commands.{command}" for command in COMMANDS)
    heavy = "torch numpy yaml pydantic amaranth rtl.accelerator matplotlib rich hwsim.sweep"
    done = process(
        f"import sys, signbook.cli, {modules}; "
        f"print([name for name in {heavy!r}.split() if name in sys.modules])"
    )
    assert done.stdout == "[]\n", done.stderr


def test_inspect_imports_nothing_heavy():
    done = process(
        "import sys; from signbook.commands.inspect import run; run(sys.argv[1]); "
        "print([n for n in 'torch faiss amaranth matplotlib'.split() if n in sys.modules])",
        str(FILE),
    )
    assert done.stdout.endswith("\n[]\n"), done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_have_a_file_each(command):
    module = importlib.import_module(f"signbook.commands.{command}")
    assert module.__doc__.startswith(f"``signbook {command}``: ")


def test_usage_errors_exit_with_2():
    assert run("inspect").returncode == 2
    assert run("demo", "--seed", "-1").returncode == 2
    done = run("plam")
    assert done.returncode == 2 and "Did you mean 'plan'?" in done.stderr


TOY = """
from torch import nn

def brackets():
    model = nn.Sequential()
    model.add_module("fc[/relu]", nn.Linear(16, 32))
    model.add_module("out[red]", nn.Linear(32, 8))
    return model

def spoken():
    print("made by hand")
    return brackets()
"""


@pytest.fixture
def toy(tmp_path, monkeypatch):
    (tmp_path / "bracketed.py").write_text(TOY)
    (tmp_path / "[q].yaml").write_text("'*': {method: ssvq, d: 4, k: 8}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return ("plan", "py:bracketed:brackets", "--recipe", "[q].yaml", "--json", "[j].json")


def test_names_and_paths_are_no_markup(toy):
    done = run(*toy)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("py:bracketed:brackets by [q].yaml\n")
    assert "│ fc[/relu] │" in done.stdout and "│ out[red]  │" in done.stdout
    done = run("inspect", "a[/b].safetensors")
    assert done.stderr.startswith("error: ContainerError: a[/b].safetensors: must be a readable")


def test_a_document_on_standard_output_is_alone_there(toy, tmp_path):
    """Even what a model prints goes to standard error; the file is no longer written."""
    assert run(*toy).returncode == 0
    want = json.loads((tmp_path / "[j].json").read_text())
    done = run("plan", "py:bracketed:spoken", *toy[2:-1], "-")
    assert json.loads(done.stdout).keys() == want.keys()
    assert done.stdout.startswith('{\n "schema": "signbook.plan/1",\n')
    assert done.stderr.startswith("made by hand\npy:bracketed:spoken by [q].yaml\n")
    assert not (tmp_path / "-").exists()
    done = run("plan", "py:bracketed:brackets", "--recipe", "absent.yaml", "--json", "-")
    assert (done.returncode, done.stdout) == (1, "")


@pytest.mark.parametrize("words", DOING)
def test_every_document_may_go_to_standard_output(words):
    command = typer.main.get_command(app)
    for word in words:
        command = command.commands[word]  # type: ignore[attr-defined]
    documents = [option for option in command.params if "--json" in option.opts]
    assert all("- is standard output" in option.help for option in documents)
    assert bool(documents) == (words != ["report"])


def test_a_group_shows_its_commands_and_helps_with_their_names():
    for words in (["codebook"], ["codebook", "--help"]):
        done = run(*words)
        assert "│ build " in done.stdout + done.stderr
    done = run("codebook", "bild")
    assert done.returncode == 2 and "Did you mean 'build'?" in done.stderr


FULL = (
    r"^error: OutputError: standard output: must take what is printed, but No space left on .*\n$"
)
CLOSED = r"^error: OutputError: standard output: must be open, if only to /dev/null, not closed\n$"


@pytest.mark.parametrize(("redirection", "message"), [(">/dev/full", FULL), (">&-", CLOSED)])
def test_an_output_that_takes_nothing_is_one_line(tmp_path, redirection, message):
    command = f'"{sys.executable}" -c "from signbook.cli import main; main()" "$@" {redirection}'
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    document = tmp_path / "j.json"
    for arguments in (["inspect", FILE, "--json", document], ["--help"]):
        done = subprocess.run(
            ["sh", "-c", command, "sh", *arguments], capture_output=True, text=True, env=environment
        )
        assert done.returncode == 1 and re.match(message, done.stderr), done.stderr
    assert document.exists() == (message == FULL), "the document comes first"


@pytest.mark.parametrize(
    ("arguments", "pipe", "status", "output"),
    [
        ("inspect absent", "2>&-", 1, ""),
        ("inspect absent", "2>/dev/full", 1, ""),
        ("--help", "| true", 0, ""),
        ("--help", "| head -n 2 | wc -l", 0, "2\n"),
    ],
)
def test_outputs_that_nobody_reads(arguments, pipe, status, output):
    command = f"'{sys.executable}' -m signbook {arguments} {pipe}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout.lstrip(" "), done.stderr) == (status, output, "")
