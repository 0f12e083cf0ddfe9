"""Diffusion networks with scales by time step, in files with their integer graphs."""

import copy

import torch
from torch import nn

import rescomp
import vq
from signbook.zoo.dit import DiT
from signbook.zoo.unet import UNet
from tests.vq.diffusion import STEPS, Short, Tiny, met
from vq.activations.timesteps import round_in_time_
from vq.activations.timetables import tabulate_
from vq.calibration.sampling import Noise
from vq.formats.model import compressed_layers
from vq.formats.scalar import PER_OUTPUT
from vq.integer.steps.build import add_steps

MAKERS = {
    "tiny": Tiny,
    "unet": lambda: UNet(8, (8, 16), told=16, heads=2, classes=3),
    "dit": lambda: DiT(8, patch=4, width=16, depth=1, heads=2, classes=3),
}


def made(name):
    """A model in which nothing is zero."""
    torch.manual_seed(0)
    model = MAKERS[name]().eval()
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return model


def told(model):
    """Classes that a model knows of, 0 if none; the zoo's have one more that stands for none."""
    return 0 if model.classes is None else model.classes + 1


def rounded(name, *, rows=2, bits=8, steps=STEPS, recipe=None):
    """A copy in 4 bits with time tables and scales by time step."""
    model = copy.deepcopy(made(name))
    visits = met(model, steps=steps)
    tabulate_(model, steps, visits[0])
    vq.compress_(model, recipe or rescomp.default_recipe(model, 4, group=PER_OUTPUT))
    names = [layer.name for layer in compressed_layers(model) if layer.name != "label"]
    round_in_time_(model, visits, dict.fromkeys(names, bits), steps, rows=rows)
    return model


def stored(name, folder, **settings):
    """The file of a rounded copy, and its graph."""
    path = folder / f"{name}.vq.safetensors"
    vq.save(rounded(name, **settings), path)
    model = made(name)
    draw = Noise(model.shape, model.classes)
    return path, add_steps(path, model, Short(), draw, images=2, classes=told(model))
