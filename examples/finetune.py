"""Compress and fine-tune a named model on one process or, under torchrun, on several.

    torchrun --nproc-per-node 8 examples/finetune.py MODEL --recipe FILE --data DATA --out DIR

The same names as on the command line (docs/models-and-data.md); examples/README.md holds the
commands of the large runs. Start it again with --resume after an interruption.
"""

import argparse
import copy
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import distributed as dist

import vq
from signbook.evaluation import choose_device
from signbook.files import FILE_NAME, make_folder, write_json
from signbook.naming import resolve_data, resolve_model
from signbook.objectives import objective_of
from vq.distributed import is_main, ranks, together
from vq.errors import SignbookError


@contextmanager
def processes(device: str) -> Iterator[torch.device]:
    """Join the other processes, if there are any; give this one its device."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield choose_device(device)
        return
    cuda = device in ("auto", "cuda") and torch.cuda.is_available()
    place = choose_device(f"cuda:{os.environ['LOCAL_RANK']}" if cuda else "cpu")
    if cuda:
        torch.cuda.set_device(place)
    dist.init_process_group("nccl" if cuda else "gloo")
    try:
        yield place
    finally:
        dist.destroy_process_group()
    # All is done: threads of gloo's may outlive the interpreter in torch 2.13, and abort.
    sys.stdout.flush()
    os._exit(0)


def finetune(options: argparse.Namespace, device: torch.device) -> None:
    """Cluster, train, and write the container and the record of the run."""
    with together():
        if is_main():
            make_folder(options.out)
    objective = objective_of(resolve_data(options.data))
    model = resolve_model(options.model, options.weights).to(device)
    teacher = copy.deepcopy(model) if options.teacher else None
    result = vq.compress_(model, vq.Recipe.from_yaml(options.recipe), seed=options.seed)
    record = vq.finetune_(
        model,
        objective.batches,
        epochs=options.epochs,
        rates=vq.Rates(options.rate_signs, options.rate_codebooks, options.rate_rest),
        loss=objective.loss,
        teacher=teacher,
        fixed_signs=options.fixed_signs,
        amp=options.amp,
        accumulate=options.accumulate,
        checkpoint_dir=options.out / "checkpoints",
        checkpoint_steps=options.checkpoint_steps,
        resume=options.resume,
        seed=options.seed,
    )
    if is_main():
        file = vq.save(model, options.out / FILE_NAME)
        facts = {"bits_per_weight": result.bits_per_weight, "file_bytes": file.file_bytes}
        write_json(options.out / "run.json", {**facts, "run": record.to_json()})
        print(f"{ranks()} processes, {record.steps} steps: loss {record.losses[-1]:.4f}, ", end="")
        print(f"{result.bits_per_weight:.3f} bits per weight, {options.out / FILE_NAME}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--recipe", type=Path, required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--rate-signs", type=float, default=vq.Rates.signs)
    parser.add_argument("--rate-codebooks", type=float, default=vq.Rates.codebooks)
    parser.add_argument("--rate-rest", type=float, default=vq.Rates.rest)
    parser.add_argument("--teacher", action="store_true", help="learn from the original model too")
    parser.add_argument("--fixed-signs", action="store_true", help="keep every sign: the control")
    parser.add_argument("--amp", choices=["bf16"])
    parser.add_argument("--accumulate", type=int, default=1, help="batches per optimiser step")
    parser.add_argument("--checkpoint-steps", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args(arguments)
    try:
        with processes(options.device) as device:
            finetune(options, device)
    except SignbookError as error:
        raise SystemExit(f"error: {type(error).__name__}: {error}") from None


if __name__ == "__main__":
    main()
