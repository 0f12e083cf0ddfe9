"""What the batch norms of a model should expect."""

from collections.abc import Iterable

import torch
from torch import nn

from vq.calibration.batches import Batch, as_it_was, call_model, feed, split
from vq.errors import ConfigError

__all__ = ["reestimate_norms_"]


@torch.no_grad()
def reestimate_norms_(model: nn.Module, batches: Iterable[Batch]) -> int:
    """Measure the running statistics of all batch norms again; return how many there are.

    Compression changes the distribution that a norm sees; without this, a compressed network of
    batch norms can lose most of its accuracy before any training.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    norms = [m for m in norms if m.track_running_stats and m.running_mean is not None]
    if not norms:
        return 0
    before = [{name: t.clone() for name, t in norm.named_buffers()} for norm in norms]
    momenta = [norm.momentum for norm in norms]
    try:
        with as_it_was(model):
            model.eval()
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None  # the plain average of all batches
                norm.train()
            feed(batches, lambda batch: call_model(model, split(batch)[0]))
            for norm in norms:
                for name, statistic in norm.named_buffers():
                    if not torch.isfinite(statistic).all():
                        raise ConfigError(f"calibration data must give finite {name}, not NaN")
    except BaseException:
        for norm, buffers in zip(norms, before, strict=True):
            for name, value in buffers.items():
                norm.get_buffer(name).copy_(value)
        raise
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
    return len(norms)
