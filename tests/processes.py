"""Processes that work together by gloo, in tests.

Threads of gloo's may outlive the interpreter in torch 2.13 and abort a process that has done all
its work, about one in forty (docs/log.md). Workers therefore leave at once when they are done, and
what ends by that abort is run again.
"""

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import torch
from torch import distributed as dist
from torch import multiprocessing as mp

_TRIES = 3
_ABORT = "terminate called without an active exception"


def two_processes(worker, folder: Path) -> Path:
    """Run ``worker(rank, place)`` in two processes; return the place, made in ``folder``."""
    for attempt in range(_TRIES):
        place = folder / f"try-{attempt}"
        place.mkdir()
        try:
            mp.spawn(_work, (worker, place), nprocs=2)
            break
        except mp.ProcessExitedException as error:
            if error.signal_name != "SIGABRT" or attempt == _TRIES - 1:
                raise
    return place


def _work(rank, worker, place):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", f"file://{place / 'store'}", timedelta(seconds=60), world_size=2, rank=rank
    )
    worker(rank, place)
    dist.destroy_process_group()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def run_group(command, **settings) -> subprocess.CompletedProcess:
    """Run a command of torchrun, again if it ends by that abort; it must be one that resumes."""
    for _ in range(_TRIES):
        done = subprocess.run(command, capture_output=True, text=True, **settings)
        if _ABORT not in done.stderr:
            break
    return done
