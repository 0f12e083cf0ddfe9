"""Files of commands: complete or absent, in folders that are checked before any work."""

import json

import pytest

from signbook.files import make_folder, write_json
from vq.container import OutputError


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
