"""Text files of other systems, and files that are none."""

import pytest

from vq.errors import ConfigError, RecipeError
from vq.text.files import read_text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_byte_order_marks_say_the_encoding_and_are_gone(tmp_path, encoding):
    mark = "\ufeff" if encoding[-2:] in ("le", "be") else ""
    path = tmp_path / "a.txt"
    path.write_bytes((mark + "µ: 1\r\n").encode(encoding))
    assert read_text(path, "file") == "µ: 1\r\n"


def test_what_is_no_text_is_refused(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"a\xe9b")
    with pytest.raises(ConfigError, match=r"^it: must be text in UTF-8, not b'\\xe9b' at byte 1$"):
        read_text(path, "it")
    with pytest.raises(ConfigError, match=r"^it: must be at most 2 bytes long, not longer$"):
        read_text(path, "it", limit_bytes=2)
    with pytest.raises(ConfigError, match=r"^it: must be a readable file, but Is a directory$"):
        read_text(tmp_path, "it")
    with pytest.raises(RecipeError, match=r"^it: must be a readable file, but No such file"):
        read_text(tmp_path / "absent", "it", error=RecipeError)
    with pytest.raises(ConfigError, match=r"^it: must be a readable file, but embedded null byte$"):
        read_text("a\0b", "it")
