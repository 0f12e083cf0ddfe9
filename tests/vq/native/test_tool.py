"""Tools: commands as a shell reads them, and what is said of those that fail."""

import subprocess
import time
from pathlib import Path

import pytest

from vq.errors import OutputError, SimulationError
from vq.native.tool import command_of, run_tool


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ccache cc", ["ccache", "cc"]),
        ("gcc -m64 -DA='b c'", ["gcc", "-m64", "-DA=b c"]),
        ("'/my tools/cc'", ["/my tools/cc"]),
        ("  ", ["cc"]),
        ("", ["cc"]),
        (None, ["cc"]),
    ],
)
def test_commands_are_read_as_by_a_shell(text, words, monkeypatch):
    monkeypatch.delenv("CC", raising=False)
    if text is not None:
        monkeypatch.setenv("CC", text)
    assert command_of("CC", "cc") == words


def test_a_quotation_that_does_not_end(monkeypatch):
    monkeypatch.setenv("CC", "'cc")
    with pytest.raises(SimulationError, match=r"^\$CC must be a command as a shell reads it, not "):
        command_of("CC", "cc")


def test_what_a_tool_prints(tmp_path):
    command = ["sh", "-c", "pwd; echo warning >&2"]
    assert run_tool(command, tmp_path, name="sh", remedy="") == f"{tmp_path}\nwarning\n"


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("exit 3", r"^a tool must succeed, not end with status 3:\n\(it printed nothing\)$"),
        ("kill -9 $$", r"^a tool must succeed, not end with signal 9 \(the system may lack memory"),
        (
            "for i in $(seq 40); do echo line $i >&2; echo; done; exit 1",
            r"^a tool must succeed, not end with status 1:\nline 26\n(line \d+\n){13}line 40$",
        ),
    ],
)
def test_a_tool_that_fails(script, message, tmp_path):
    with pytest.raises(SimulationError, match=message):
        run_tool(["sh", "-c", script], tmp_path, name="a tool", remedy="")


def test_a_tool_that_is_none(tmp_path):
    with pytest.raises(SimulationError, match=r"^no-such must be on PATH, but it is not; get it$"):
        run_tool(["no-such"], tmp_path, name="", remedy="get it")
    (tmp_path / "text").write_text("neither binary nor script")
    (tmp_path / "text").chmod(0o755)
    with pytest.raises(SimulationError, match=r"text must be a program, but .*: Exec format"):
        run_tool([str(tmp_path / "text")], tmp_path, name="", remedy="")


def test_what_a_tool_has_started_ends_with_it(tmp_path, monkeypatch):
    started = "sleep 60 & echo $! > child; echo $$ > parent; wait"

    def stop(process, *arguments):
        while not (tmp_path / "parent").exists() or not (tmp_path / "parent").read_text():
            time.sleep(0.01)
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess.Popen, "communicate", stop)
    with pytest.raises(KeyboardInterrupt):
        run_tool(["sh", "-c", started], tmp_path, name="sh", remedy="none")
    child = Path("/proc") / (tmp_path / "child").read_text().strip() / "stat"
    for _ in range(500):
        if not child.exists() or child.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.01)
    raise AssertionError("a process was left behind")


def test_temporary_files_of_a_tool_go_with_it(tmp_path, monkeypatch):
    place = run_tool(["sh", "-c", "mktemp"], tmp_path, name="sh", remedy="").strip()
    assert place and not Path(place).exists()


def test_a_tool_without_room_says_so_in_one_line(tmp_path):
    script = "echo 'as: /tmp/x.s: No space left on device' >&2; exit 1"
    with pytest.raises(OutputError, match=r"^cc must have room for what it writes, but says: No s"):
        run_tool(["sh", "-c", script], tmp_path, name="cc", remedy="")
