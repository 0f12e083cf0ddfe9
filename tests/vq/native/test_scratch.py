"""Temporary folders: gone with their work, and one error where there is no room."""

import errno
import tempfile

import pytest

from vq.errors import OutputError
from vq.native import scratch_folder


@pytest.mark.parametrize("error", [None, KeyboardInterrupt, ZeroDivisionError])
def test_a_folder_lives_as_long_as_its_context(error):
    try:
        with scratch_folder() as folder:
            (folder / "file").touch()
            if error is not None:
                raise error
    except (KeyboardInterrupt, ZeroDivisionError) as raised:
        assert type(raised) is error
    assert not folder.exists()


def test_no_place_and_no_room_are_one_error(monkeypatch, tmp_path):
    message = r"^temporary files must have a folder with room for them, but {}; set TMPDIR to anot"
    with pytest.raises(OutputError, match=message.format("No space left")), scratch_folder() as f:
        raise OSError(errno.ENOSPC, "No space left")
    assert not f.exists()
    for other in (FileNotFoundError(errno.ENOENT, "gone"), OutputError("of another file")):
        with pytest.raises(type(other)) as raised, scratch_folder():
            raise other
        assert raised.value is other
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(OutputError, match=message.format("No such file or directory")):
        with scratch_folder():
            pass
