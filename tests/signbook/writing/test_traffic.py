"""Bytes that a token reads."""

import torch
from torch import nn

import vq
from signbook.writing.traffic import bytes_per_token
from signbook.zoo.llama import Llama, LlamaConfig


class Tied(nn.Module):
    def __init__(self, *, tied: bool = True) -> None:
        super().__init__()
        self.embed = nn.Embedding(40, 16)
        self.places = nn.Embedding(10, 16)
        self.norm = nn.LayerNorm(16)
        self.head = nn.Linear(16, 40, bias=False)
        self.register_buffer("table", torch.zeros(100), persistent=False)
        if tied:
            self.head.weight = self.embed.weight


def test_of_tables_one_row_is_read():
    norm, row, head = 4 * 2 * 16, 4 * 16, 4 * 40 * 16
    assert bytes_per_token(Tied()) == norm + 2 * row + head
    assert bytes_per_token(Tied(tied=False)) == norm + 2 * row + head


def test_a_table_that_is_the_output_layer_is_read_as_a_whole():
    model = Llama(LlamaConfig(dim=16, hidden=24, layers=1, heads=2, kv_heads=1, vocabulary=40))
    assert bytes_per_token(model) == 4 * sum(p.numel() for p in model.parameters())


def test_packed_layers_read_their_packed_bytes():
    torch.manual_seed(0)
    model = Tied()
    vq.compress_(model, vq.Recipe({"places": None, "*": vq.Int4(group=8)}), progress=False)
    vq.pack_(model)
    packed = model.head.packed
    held = sum(t.nbytes for t in packed.buffers())
    assert held == 48 * (16 // 2 + 2 * 2)  # 16 outputs fill a block: codes, scales of two groups
    assert bytes_per_token(model) == held + held // 40 + 4 * (2 * 16 + 16)
