"""What a process holds, and which weights it has not read yet."""

import mmap

import torch
from torch import nn

from vq.recipe import footprint
from vq.recipe.footprint import peak_bytes, resident_bytes, unread_bytes

MEGA = 1 << 20


def test_resident_memory_follows_what_is_held_and_the_peak_stays():
    before = resident_bytes()
    with mmap.mmap(-1, 64 * MEGA) as block:  # an allocator may have as much left from others
        block.write(b"1" * len(block))
        assert resident_bytes() > before + 60 * MEGA
    assert peak_bytes() > before + 60 * MEGA


def test_weights_in_memory_are_read_and_those_on_the_meta_device_are_not():
    model = nn.Linear(64, 32)
    assert unread_bytes(model) == 0
    assert unread_bytes(model.to("meta")) == 4 * (64 * 32 + 32)


def test_weights_of_a_mapped_file_are_unread_each_once(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(bytes(4 * 1000))
    model = nn.Sequential(nn.Linear(10, 100, bias=False), nn.Linear(10, 100, bias=False))
    mapped = torch.from_file(str(path), shared=False, size=1000)
    model[0].weight = model[1].weight = nn.Parameter(mapped.reshape(100, 10))
    assert unread_bytes(model) == 4000


def test_a_system_without_proc_gives_the_peak_and_knows_no_mapped_file(monkeypatch, tmp_path):
    monkeypatch.setattr(footprint, "_PROC", tmp_path)
    assert resident_bytes() == peak_bytes() > 10 * MEGA
    assert unread_bytes(nn.Linear(2, 2)) == 0
