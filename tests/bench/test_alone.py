"""Measurements of their own."""

import torch

from bench.alone import alone
from vq.recipe.footprint import peak_bytes


def test_measurements_run_in_a_process_of_their_own_on_one_core():
    torch.set_num_threads(2)
    assert alone(torch.get_num_threads) == 1 and torch.get_num_threads() == 2


def test_peaks_of_memory_are_of_their_process():
    held = torch.ones(100_000_000)
    assert alone(peak_bytes) < peak_bytes() - held.nbytes / 2
