"""Worker processes of this machine."""

import multiprocessing
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import wait
from types import FrameType
from typing import Any

from vq.native import scratch_folder

__all__ = ["LocalPool", "local_pool"]

_GRACE_SECONDS = 5
_at_work = False


class LocalPool(ProcessPoolExecutor):
    """A pool whose workers can be ended under way, and end themselves with their parent.

    Their temporary files lie in a folder of the pool's, which goes with it: a worker that is
    killed cannot remove them.
    """

    def __init__(self, workers: int, context: Any) -> None:
        self._scratch = ExitStack()
        folder = str(self._scratch.enter_context(scratch_folder()))
        super().__init__(workers, mp_context=context, initializer=_settle_in, initargs=(folder,))

    def submit(self, work: Callable[..., Any], /, *given: Any, **named: Any) -> Future[Any]:
        """As every executor does."""
        return super().submit(_work, work, *given, **named)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """As every executor does."""
        super().shutdown(wait, cancel_futures=cancel_futures)
        self._scratch.close()

    def terminate_workers(self) -> None:
        """End all workers now; what they were doing is lost, and cleaned up behind them.

        One that is inside the cycle model cannot listen, and is killed after a while.
        """
        alive = list((self._processes or {}).values())
        for process in alive:
            process.terminate()
        deadline = time.monotonic() + _GRACE_SECONDS
        while alive and (left := deadline - time.monotonic()) > 0:
            ended = wait([process.sentinel for process in alive], left)
            alive = [process for process in alive if process.sentinel not in ended]
        for process in alive:
            process.kill()
        self.shutdown(cancel_futures=True)


def local_pool(workers: int) -> LocalPool:
    """A pool of processes that have imported what they need before they are made.

    They are forked from a server that holds nothing of this process, neither threads nor locks.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["hwsim.sweep.evaluate"])
    # Workers are born with Ctrl-C blocked: it may come before they have settled in. The tracker
    # would unblock it if it were started meanwhile.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return LocalPool(workers, context)


def _settle_in(folder: str) -> None:
    """Leave Ctrl-C to the parent, clean up when it says so, and do not outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _leave)
    tempfile.tempdir = folder
    threading.Thread(target=_follow_parent, daemon=True).start()


def _work(work: Callable[..., Any], *given: Any, **named: Any) -> Any:
    global _at_work
    try:
        _at_work = True
        return work(*given, **named)
    except SystemExit:
        os._exit(1)  # the pool would take it for a result, and go on
    finally:
        _at_work = False


def _leave(number: int, frame: FrameType | None) -> None:
    """End at once, or by an exception while there is work: a simulator that runs is ended, too."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if _at_work:
        raise SystemExit(1)
    os._exit(1)


def _follow_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    parent.join()
    shutil.rmtree(tempfile.gettempdir(), ignore_errors=True)  # which is the pool's
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(_GRACE_SECONDS)
    shutil.rmtree(tempfile.gettempdir(), ignore_errors=True)
    os._exit(1)
