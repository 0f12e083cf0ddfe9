"""Text files as programs of many systems write them."""

import codecs
import os

from vq.errors import ConfigError

__all__ = ["read_text"]

_LIMIT_BYTES = 1 << 24


def read_text(
    path: str | os.PathLike[str],
    subject: str,
    *,
    error: type[ConfigError] = ConfigError,
    limit_bytes: int = _LIMIT_BYTES,
) -> str:
    """Read a text file: UTF-8, or UTF-16 where a byte-order mark says so; no mark is left.

    Parameters
    ----------
    path : path
    subject : str
        What errors call the file.
    error : type, optional
        What is raised.
    limit_bytes : int, optional
        Longer files are refused.

    Raises
    ------
    ConfigError
        If the file cannot be read, is too long, or is no such text.
    """
    try:
        with open(path, "rb") as file:
            raw = file.read(limit_bytes + 1)
    except (OSError, ValueError) as caught:  # the latter of paths that cannot be, with a zero byte
        reason = getattr(caught, "strerror", None) or str(caught)
        raise error(f"{subject}: must be a readable file, but {reason}") from None
    if len(raw) > limit_bytes:
        raise error(f"{subject}: must be at most {limit_bytes} bytes long, not longer")
    wide = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return raw.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as caught:
        given = raw[caught.start : caught.start + 8]
        raise error(
            f"{subject}: must be text in UTF-8, not {given!r} at byte {caught.start}"
        ) from None
