"""Instances with a codebook in ROM, and layers that name it."""

from dataclasses import replace
from typing import TypeVar

import numpy as np

from rtl import AcceleratorConfig, StreamerConfig, rom_text

Instance = TypeVar("Instance", AcceleratorConfig, StreamerConfig)


def codebook(shape: tuple[int, int]) -> np.ndarray:
    """[k, d] magnitudes, which both ssvq and vq may use."""
    return np.random.default_rng(list(shape)).integers(0, 128, shape).astype(np.int8)


def fixed(config: Instance, shape: tuple[int, int]) -> Instance:
    """The same instance with the codebook of that shape in ROM."""
    return replace(config, codebook_rom=rom_text(codebook(shape)))


def named(config: AcceleratorConfig | StreamerConfig) -> dict:
    """What a layer must be given to use the codebook of an instance."""
    streamer = config.streamer if isinstance(config, AcceleratorConfig) else config
    ((name, book),) = streamer.roms.items()
    return {"codebook": book, "codebook_name": name}
