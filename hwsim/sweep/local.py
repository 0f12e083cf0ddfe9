"""Worker processes of this machine."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import forkserver
from multiprocessing.connection import wait
from types import FrameType

__all__ = ["LocalPool", "local_pool"]

_GRACE_SECONDS = 5


class LocalPool(ProcessPoolExecutor):
    """A pool whose workers can be ended under way, and end themselves with their parent."""

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
    # Workers are born with Ctrl-C blocked: it may come before they have settled in.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return LocalPool(workers, mp_context=context, initializer=_settle_in)


def _settle_in() -> None:
    """Leave Ctrl-C to the parent, clean up when it says so, and do not outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _leave)
    threading.Thread(target=_follow_parent, daemon=True).start()


def _leave(number: int, frame: FrameType | None) -> None:
    """As an exception, so that a simulator that runs is ended, too."""
    sys.exit(1)


def _follow_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(_GRACE_SECONDS)
    os._exit(1)
