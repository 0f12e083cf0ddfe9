"""Diffusion models: what they draw, what they meet on the way, and how it is judged.

============  =======================================================
module        what it does
============  =======================================================
sampler       images from noise, step by step
schedulers    the same by schedulers of diffusers
networks      networks of diffusers as ours are asked
trajectories  what a model is given at these steps, as training data
door          both by name, for commands
fidelity      how much images of two models from equal noise are the same
likeness      Fréchet distance, precision and recall, class agreement
training      trains a diffusion transformer, or a classifier
trained       models that are trained once, by name
============  =======================================================
"""

from signbook.diffusion.door import generation, trajectories
from signbook.diffusion.fidelity import fidelity
from signbook.diffusion.likeness import (
    class_agreement,
    frechet_distance,
    likeness,
    precision_and_recall,
)
from signbook.diffusion.sampler import DDIM, sample, visits
from signbook.diffusion.trained import (
    digits_dit,
    digits_judge,
    mnist_dit,
    mnist_judge,
    mnist_unet,
    trained,
)
from signbook.diffusion.trajectories import Trajectories

__all__ = [
    "DDIM",
    "Trajectories",
    "class_agreement",
    "digits_dit",
    "digits_judge",
    "fidelity",
    "frechet_distance",
    "generation",
    "likeness",
    "mnist_dit",
    "mnist_judge",
    "mnist_unet",
    "precision_and_recall",
    "sample",
    "trained",
    "trajectories",
    "visits",
]
