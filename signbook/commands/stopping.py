"""What a command says when it is stopped: by Ctrl-C, or by a signal to end."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

from signbook.commands.torchrun import may_fail_aloud
from vq.text.visible import visible

__all__ = ["resumable", "stoppable"]

_NOTHING_LEFT = "no file is half written: the same command starts anew"


class _Terminated(KeyboardInterrupt):
    """SIGTERM, which undoes what Ctrl-C does."""


@contextmanager
def stoppable() -> Iterator[None]:
    """End a command that is stopped with one line that says how to go on.

    The exit status is 130 after Ctrl-C and 143 after SIGTERM, as in a shell. Whatever the block
    holds is left as if it had failed, so that no process and no temporary file stays behind.
    """
    here = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, _stop) if here else None
    if here and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _stop)
    try:
        yield
    except KeyboardInterrupt as stop:
        ended = isinstance(stop, _Terminated)
        how = next(iter(getattr(stop, "__notes__", ())), _NOTHING_LEFT)
        if may_fail_aloud():
            print(visible(f"{'terminated' if ended else 'interrupted'}; {how}"), file=sys.stderr)
        raise SystemExit(128 + (signal.SIGTERM if ended else signal.SIGINT)) from None
    finally:
        if here:
            signal.signal(signal.SIGTERM, before)
            if signal.getsignal(signal.SIGINT) is _stop:
                signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def resumable(out: Path, part: str) -> Iterator[None]:
    """Have :func:`stoppable` say that every finished ``part`` is in ``out``, and how to go on."""
    try:
        yield
    except KeyboardInterrupt as stop:
        stop.add_note(
            f"every finished {part} is in {out}: the same command with --resume goes on from there"
        )
        raise


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    for other in (signal.SIGINT, signal.SIGTERM):
        signal.signal(other, signal.SIG_IGN)  # whoever presses it twice: what began is undone whole
    raise _Terminated if number == signal.SIGTERM else KeyboardInterrupt
