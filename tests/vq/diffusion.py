"""A network that predicts noise, and a sampler, both as small as they can be."""

import copy

import torch
from torch import nn

import vq
from vq.calibration.sampling import Noise
from vq.formats.scalar import PER_OUTPUT

STEPS = (900, 600, 300, 50)


class Block(nn.Module):
    def __init__(self, width, time):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)
        self.act = nn.SiLU()
        self.project = nn.Linear(time, width)

    def forward(self, x, when):
        return x + self.act(self.conv(x) + self.project(self.act(when))[:, :, None, None])


class Tiny(nn.Module):
    """Called with (noisy [B, 1, 6, 6], steps [B]) and, if it knows classes, these [B]."""

    shape = (1, 6, 6)

    def __init__(self, classes=None):
        super().__init__()
        self.classes = classes
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.time = nn.Sequential(nn.Linear(8, 12), nn.SiLU(), nn.Linear(12, 12))
        self.label = None if classes is None else nn.Embedding(classes, 12)
        self.blocks = nn.ModuleList(Block(8, 12) for _ in range(2))
        self.out = nn.Conv2d(8, 1, 3, padding=1)

    def forward(self, noisy, step, label=None):
        waves = step[:, None] / 1000 * torch.arange(1, 9)
        when = self.time(torch.sin(waves))
        if self.label is not None:
            when = when + self.label(label)
        x = self.stem(noisy)
        for block in self.blocks:
            x = block(x, when)
        return self.out(x)


class Short:
    """DDIM in as many steps as it has."""

    def __init__(self, steps=STEPS):
        self.steps = tuple(steps)

    @torch.no_grad()
    def visits(self, model, noise, *condition):
        x = noise
        left = [1 - t / 1000 for t in (*self.steps, 0)]
        for place, step in enumerate(self.steps):
            inputs = (x, torch.full((len(x),), step), *condition)
            yield inputs
            eps = model(*inputs)
            clean = (x - (1 - left[place]) ** 0.5 * eps) / left[place] ** 0.5
            more = left[place + 1]
            x = more**0.5 * clean.clamp(-1, 1) + (1 - more) ** 0.5 * eps
        return x


def tiny(classes=None, seed=0):
    torch.manual_seed(seed)
    return Tiny(classes).eval()


def start(model, count=4, seed=0):
    """Noise, and classes."""
    draw = Noise(model.shape, model.classes)
    return draw(count, torch.Generator().manual_seed(seed))


def met(model, count=4, seed=0, steps=STEPS):
    """What a model is given while it draws."""
    return list(Short(steps).visits(model, *start(model, count, seed)))


def compressed(model, kind=None, pattern="*"):
    """A copy in few bits."""
    found = copy.deepcopy(model)
    vq.compress_(found, vq.Recipe({pattern: kind or vq.Int4(group=PER_OUTPUT)}))
    return found
