"""How the models are trained that :mod:`signbook.diffusion.trained` keeps."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from signbook.data.images import Images
from signbook.diffusion.sampler import traits_of
from signbook.zoo.ddpm import STEPS, noised, signal_share
from vq.progress import bar

__all__ = ["train_classifier_", "train_denoiser_"]

#: Share of the images whose class a denoiser is not told.
_UNTOLD = 0.1


def train_denoiser_(
    model: nn.Module, images: Images, *, steps: int, batch: int = 64, rate: float = 2e-3
) -> None:
    """Train a model to predict the noise in images, whose classes it is told, nine in ten.

    Noise and steps are drawn as by Ho et al. (arXiv 2006.11239, algorithm 1), all of it from
    torch's global generator. The loss is the squared error of the velocity that the noise implies
    (Salimans and Ho, arXiv 2202.00512), to which all steps matter about equally.

    Parameters
    ----------
    model : nn.Module
        Called with (noisy, step, label), or without labels if it knows no classes; says which
        (:func:`signbook.diffusion.sampler.traits_of`).
    images : Images
    steps, batch : int
    rate : float
        The highest learning rate of AdamW's one cycle.
    """
    classes, left = traits_of(model).classes, signal_share()

    def loss() -> Tensor:
        chosen = torch.randint(len(images), (batch,))
        clean = images.x[chosen].float() / 255 - 0.5
        step, noise = torch.randint(1, STEPS + 1, (batch,)), torch.randn_like(clean)
        inputs: tuple[Tensor, ...] = (noised(clean, step, noise), step)
        if classes is not None:
            untold = torch.rand(batch) < _UNTOLD
            inputs = (*inputs, torch.where(untold, classes, images.y[chosen]))
        predicted: Tensor = model(*inputs)
        return ((predicted - noise).square() / left[step, None, None, None]).mean()

    _train_(model, loss, steps, rate, "training the diffusion model")


def train_classifier_(
    model: nn.Module, images: Images, *, steps: int, batch: int = 64, rate: float = 2e-3
) -> None:
    """Train a classifier of images in [0, 1], moved by up to a pixel, a batch at a time.

    Parameters are as for :func:`train_denoiser_`.
    """
    height, width = images.x.shape[2:]

    def loss() -> Tensor:
        chosen = torch.randint(len(images), (batch,))
        y, x = torch.randint(3, (2,)).tolist()
        moved = pad(images.x[chosen].float() / 255, (1, 1, 1, 1))[
            ..., y : y + height, x : x + width
        ]
        return cross_entropy(model(moved), images.y[chosen])

    _train_(model, loss, steps, rate, "training the classifier")


def _train_(
    model: nn.Module, loss_of: Callable[[], Tensor], steps: int, rate: float, what: str
) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    model.train()
    with bar(what, steps) as advance:
        for _ in range(steps):
            loss = loss_of()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            advance(note=f"loss {float(loss.detach()):.3f}")
    model.eval()
