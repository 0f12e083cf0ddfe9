"""Processes of their own, in tests, at the price of a fork.

A process that a test starts anew imports torch and the tests' modules for seconds. These are forked
from a server that has done so, and nothing else: it holds no thread, no lock and no state of the
tests that ran before.
"""

import atexit
import functools
import importlib
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from unittest import mock

import torch
from torch import distributed as dist
from torch import multiprocessing as mp

_TRIES = 3
_ABORT = "terminate called without an active exception"


class Group:
    """Processes that run one function each, of a module's top level; they end with the context.

    Their outputs are in ``folder``. If they work ``together``, the first to fail ends the others.
    """

    def __init__(
        self,
        calls: list[Callable[[], object]],
        folder: Path,
        environment: Mapping[str, str] | None = None,
        together: bool = False,
    ) -> None:
        self._folder = folder
        self._codes: list[int] = []
        for number in range(len(calls)):
            for suffix in ("out", "err"):
                (folder / f"{number}.{suffix}").write_text("")
        self._server = _server()
        self._server.send((calls, folder, dict(environment or {}), together))
        self.pids: list[int] = self._server.recv()

    def __enter__(self) -> "Group":
        return self

    def __exit__(self, *_: object) -> None:
        if not self._codes:
            for pid in self.pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.wait()

    def output(self, number: int = 0) -> str:
        """What the process of that number has written to standard output so far."""
        return (self._folder / f"{number}.out").read_text()

    def errors(self, number: int = 0) -> str:
        """What it has written to standard error."""
        return (self._folder / f"{number}.err").read_text()

    def wait_for(self, text: str) -> None:
        """Until the first process has written that; it must not have ended before."""
        while text not in self.output():
            assert not self._server.poll(), self.errors()
            time.sleep(0.001)

    def wait(self) -> list[int]:
        """Exit codes, as those of :class:`subprocess.Popen`, once all have ended."""
        self._codes = self._codes or self._server.recv()
        return self._codes


def two_processes(worker: Callable[[int, Path], object], folder: Path) -> Path:
    """Run ``worker(rank, place)`` in two processes that gloo connects; return the place.

    Threads of gloo's may outlive the interpreter in torch 2.13 and abort a process that has done
    all its work, about one in forty (docs/log.md). Workers therefore leave at once when they are
    done, and what ends by that abort is run again.
    """
    for attempt in range(_TRIES):
        place = folder / f"try-{attempt}"
        place.mkdir()
        calls = [functools.partial(_connected, worker, rank, place) for rank in (0, 1)]
        with Group(calls, folder, together=True) as group:
            codes = group.wait()
        if codes == [0, 0]:
            return place
        if -signal.SIGABRT not in codes:
            break
    raise AssertionError(f"{codes}\n{group.errors(0)}\n{group.errors(1)}")


def _connected(worker: Callable[[int, Path], object], rank: int, place: Path) -> None:
    dist.init_process_group(
        "gloo", f"file://{place / 'store'}", timedelta(seconds=60), world_size=2, rank=rank
    )
    worker(rank, place)
    dist.destroy_process_group()


def free_port() -> int:
    """A port on which processes of this machine may meet."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@functools.cache
def _server() -> Connection:
    """Start the server; it ends when this process does, however that ends."""
    ours, theirs = mp.Pipe()
    with mock.patch.dict(os.environ, TORCH_CPP_LOG_LEVEL="ERROR"):  # torch reads it as it is loaded
        mp.get_context("spawn").Process(target=_serve, args=(theirs,)).start()
    theirs.close()
    atexit.register(ours.close)  # before multiprocessing waits for its processes
    return ours


def _serve(requests: Connection) -> None:
    importlib.import_module("torch._dynamo")  # every optimizer imports it, for more than a second
    while True:
        try:
            calls, folder, environment, together = requests.recv()
        except EOFError:
            return
        pids = []
        for number, call in enumerate(calls):
            pid = os.fork()
            if not pid:
                requests.close()
                _run(call, folder / str(number), environment)
            pids.append(pid)
        requests.send(pids)
        codes: dict[int, int] = {}
        while len(codes) < len(pids):
            pid, status = os.wait()
            codes[pid] = os.waitstatus_to_exitcode(status)
            if together and codes[pid]:
                for other in set(pids) - codes.keys():
                    os.kill(other, signal.SIGKILL)
        requests.send([codes[pid] for pid in pids])


def _run(call: Callable[[], object], outputs: Path, environment: Mapping[str, str]) -> None:
    status = 1
    try:
        for suffix, number in ((".out", 1), (".err", 2)):
            os.dup2(os.open(outputs.with_suffix(suffix), os.O_WRONLY), number)
        os.environ.update(environment)
        torch.set_num_threads(1)
        call()
        status = 0
    except SystemExit as left:
        status = left.code if isinstance(left.code, int) else int(left.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def run_group(command, **settings) -> subprocess.CompletedProcess:
    """Run a command of torchrun, again if it ends by that abort; it must be one that resumes."""
    for _ in range(_TRIES):
        done = subprocess.run(command, capture_output=True, text=True, **settings)
        if _ABORT not in done.stderr:
            break
    return done
