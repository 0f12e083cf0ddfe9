"""Processes that ``torchrun`` starts: they do one command's work together and speak as one.

The first one prints and writes. Where one fails, the first to do so says why, whichever it is, and
all end. Until a group is joined, everything here does what one process alone would do.
"""

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, NoReturn

from vq.errors import ConfigError

__all__ = ["ending", "first_alone", "join", "may_fail_aloud"]

#: Commands whose work processes can share.
_SHARED = ("finetune", "quantize")
_ADDRESS = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_FAILURES = "signbook/failures"

#: What the processes of a group know of each other; None outside of one.
_store: Any = None


def join(command: str | None) -> None:
    """Connect this process with the others of a command, if it is one of several.

    Raises
    ------
    ConfigError
        If ``torchrun`` started several of a command whose work is not shared.
    """
    if any(name not in os.environ for name in _ADDRESS) or int(os.environ["WORLD_SIZE"]) == 1:
        return
    if command in _SHARED:
        _join()
    elif "TORCHELASTIC_RUN_ID" in os.environ and command is not None:
        if os.environ["RANK"] != "0":
            raise SystemExit(1)
        raise ConfigError(
            f"signbook {command}: must run as one process, not as {os.environ['WORLD_SIZE']} of "
            f"torchrun; only {' and '.join(_SHARED)} share their work"
        )


def _join() -> None:
    global _store
    # DistributedDataParallel warns that it looks for unused parameters in vain, from every process.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    import torch
    from torch import distributed as dist
    from torch.distributed.rendezvous import rendezvous

    here = int(os.environ.get("LOCAL_RANK", "0"))
    beside = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    gpus = torch.cuda.device_count()
    if gpus:
        torch.cuda.set_device(here % gpus)
    _store, rank, ranks = next(iter(rendezvous("env://")))
    backend = "cpu:gloo,cuda:nccl" if gpus >= beside else "gloo"
    dist.init_process_group(backend, store=_store, rank=rank, world_size=ranks)
    if rank:
        sys.stdout = sys.stderr = open(os.devnull, "w")


@contextmanager
def first_alone(context: AbstractContextManager[object]) -> Iterator[None]:
    """Enter a context on the first process alone; what it raises there ends all."""
    from vq.distributed import is_main, together

    with ExitStack() as stack:
        with together():
            if is_main():
                stack.enter_context(context)
        yield


def may_fail_aloud() -> bool:
    """Whether this process is to say what went wrong: the first to ask."""
    if _store is None:
        return True
    try:
        first: bool = _store.add(_FAILURES, 1) == 1
    except RuntimeError:  # who kept the store has failed, and gone
        return False
    if first:
        sys.stderr = sys.__stderr__
    return first


@contextmanager
def ending() -> Iterator[None]:
    """Leave at once after the block, if this process is one of several.

    The others may be waiting for it, and threads of gloo's can outlive the interpreter in torch
    2.13, and abort it.
    """
    try:
        yield
    except BaseException as error:
        if _store is None:
            raise
        _leave(error)
    if _store is not None:
        _leave(None)


def _leave(error: BaseException | None) -> NoReturn:
    from torch import distributed as dist

    status: Any = 1
    if error is None or isinstance(error, SystemExit):
        status = getattr(error, "code", None) or 0
    elif not may_fail_aloud():
        pass  # another one's failure has cut the connection, and is told
    elif isinstance(error, dist.DistError) or "gloo" in str(error):
        print(
            "error: processes must all go on to the end, but one has ended, without a word; the "
            "report of torchrun tells which",
            file=sys.stderr,
        )
    else:
        traceback.print_exception(error)
    if not status:
        dist.destroy_process_group()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status if isinstance(status, int) else 1)
