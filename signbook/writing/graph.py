"""Integer graphs as language models that write: what hardware computes, in numpy."""

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

from vq.container import Container, account, open_container
from vq.container.rom import roms_of
from vq.integer.tokens import TokenModel, TokenNode, read_tokens
from vq.integer.tokens.writing import require_writer, vocabulary_of

__all__ = ["IntegerWriter", "load_writer"]


@dataclass(frozen=True, eq=False)
class IntegerWriter:
    """A graph of tokens, and what it reads.

    Attributes
    ----------
    model : TokenModel
    bytes_per_token : int
        Of weights, as they lie in the file: of an embedding that is looked up, a row.
    """

    model: TokenModel
    bytes_per_token: int

    @property
    def config(self) -> SimpleNamespace:
        """How many tokens it knows, and the longest text."""
        context = self.model.graph.context
        return SimpleNamespace(vocabulary=vocabulary_of(self.model), context=context)


def load_writer(file: Path, rom: Path | None = None) -> IntegerWriter:
    """Read the integer graph of a file.

    Raises
    ------
    ContainerError
        If there is none of a transformer, or it is damaged.
    ConfigError
        If it continues no texts.
    """
    with open_container(file, rom=roms_of(rom)) as container:
        model = read_tokens(container)
        require_writer(model)
        return IntegerWriter(model, _bytes_per_token(container, model))


def _bytes_per_token(container: Container, model: TokenModel) -> int:
    layers = [entry.geometry for entry in container.layers]
    sizes = {one.geometry.name: one.total_bytes for one in account(layers)}
    sizes |= {name: own["weight"].nbytes for name, own in model.numbers.items() if "weight" in own}
    nodes = [node for node in model.graph.nodes if isinstance(node, TokenNode)]
    whole = {n.layer or n.settings["table"] for n in nodes if n.op == "linear"}
    looked_up = {n.layer or n.name for n in nodes if n.op == "embedding"} - whole
    vocabulary = vocabulary_of(model)
    return sum(sizes[n] for n in whole) + sum(sizes[n] // vocabulary for n in looked_up)
