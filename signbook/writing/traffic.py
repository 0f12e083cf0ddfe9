"""Bytes of weights that a language model reads for every token."""

from collections.abc import Iterator

from torch import Tensor, nn

from vq.inference.modules import is_packed
from vq.inference.weight import PackedWeight

__all__ = ["bytes_per_token"]


def bytes_per_token(model: nn.Module) -> int:
    """Bytes of weights that one token reads: all of them, but of a table the one row.

    Tables are embeddings. One that no layer of as many outputs follows is the output layer, too,
    and is read as a whole. Neither what is kept of earlier tokens counts, nor what no file holds.
    """
    tables = {m: m.num_embeddings for m in model.modules() if isinstance(m, nn.Embedding)}
    outputs = {getattr(module, "out_features", None) for module in model.modules()}
    largest = max(tables.values(), default=0)
    whole: dict[int, int] = {}
    rows = 0
    for module in model.modules():
        if isinstance(module, PackedWeight):  # counted with the modules that have it
            continue
        rows_of_table = tables.get(module) if isinstance(module, nn.Embedding) else None
        if rows_of_table is None or (rows_of_table == largest and largest not in outputs):
            whole |= {tensor.data_ptr(): tensor.nbytes for tensor in _own(module)}
        else:
            rows += sum(tensor.nbytes for tensor in _own(module)) // rows_of_table
    return rows + sum(whole.values())


def _own(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters(recurse=False)
    for name, buffer in module.named_buffers(recurse=False):
        if name not in module._non_persistent_buffers_set:
            yield buffer
    if is_packed(module):
        yield from module.get_submodule("packed").buffers()
