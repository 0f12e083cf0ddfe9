"""Fine-tune on several processes; also runs alone.

    torchrun --nproc-per-node 2 examples/train_distributed.py --checkpoint-dir runs/two

On CPU the processes talk over gloo, with GPUs (one per process) over nccl. The model and the data
are small stand-ins: replace ``build`` and ``data``.
"""

import argparse
import os
import sys
from pathlib import Path

import torch
from torch import distributed as dist
from torch import nn
from torch.utils.data import DataLoader, Dataset, DistributedSampler, TensorDataset

import vq


def build() -> nn.Module:
    """Make the network to compress; every process must make the same."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(16, 64),
        nn.LayerNorm(64),
        nn.ReLU(),
        nn.Linear(64, 64),
        nn.ReLU(),
        nn.Linear(64, 4),
    )


def data() -> Dataset[tuple[torch.Tensor, ...]]:
    """Make examples whose answer is the position of the largest of four sums."""
    x = torch.randn(1024, 16, generator=torch.Generator().manual_seed(1))
    return TensorDataset(x, x.reshape(-1, 4, 4).sum(2).argmax(1))


def main() -> None:
    """Compress, fine-tune together, save once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=64, help="over all processes")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--checkpoint-dir", type=Path)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--out", type=Path, help="file to save to")
    options = parser.parse_args()

    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    device = torch.device("cpu")
    if ranks > 1:
        cuda = torch.cuda.device_count() >= ranks
        dist.init_process_group("nccl" if cuda else "gloo")
        if cuda:
            device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
            torch.cuda.set_device(device)

    model = build().to(device)
    vq.compress_(model, vq.Recipe({"0": vq.SSVQ(d=8, k=16), "3": vq.SSVQ(d=8, k=16)}))
    dataset = data()
    sampler = DistributedSampler(dataset, seed=0) if ranks > 1 else None
    loader = DataLoader(
        dataset,
        batch_size=options.batch // ranks,
        sampler=sampler,
        shuffle=sampler is None,
        generator=torch.Generator().manual_seed(0),
    )
    result = vq.finetune_(
        model,
        loader,
        epochs=options.epochs,
        checkpoint_dir=options.checkpoint_dir,
        resume=options.resume,
        seed=0,
    )
    if ranks == 1 or dist.get_rank() == 0:
        print(f"{ranks} processes, {result.steps} steps: loss {result.losses[-1]:.4f}")
        if options.out is not None:
            vq.save(model, options.out)
    if ranks > 1:
        dist.destroy_process_group()
        # All is done: threads of gloo's may outlive the interpreter in torch 2.13, and abort.
        sys.stdout.flush()
        os._exit(0)


if __name__ == "__main__":
    main()
