"""Prose of Python's own documentation, and a small Llama that writes in its manner.

``pydoc_data.topics`` is part of the standard library: it is what ``help("assert")`` prints. Its
text, and so every figure, differs a little between versions of Python.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from signbook.zoo.fitting import fit
from signbook.zoo.llama import Llama, LlamaConfig
from signbook.zoo.pieces import Pieces

__all__ = [
    "TopicBatches",
    "Topics",
    "continued",
    "load_topics",
    "nats_per_token",
    "next_token_loss",
    "topics_llama",
    "train",
]

VOCABULARY = 512
CONTEXT = 64
#: Of the topics in the order of their names, one in so many is held out.
_EVERY, _TEST, _CHOICE = 8, 1, 7
#: A paragraph of English has at least so many words, and letters and spaces make this share of it.
_WORDS, _LETTERS = 8, 0.85
_PROMPT_WORDS = 5


@dataclass(frozen=True)
class Topics:
    """Tokens of the prose, and what they stand for.

    Attributes
    ----------
    train, test : int64 tensors [T]
        No paragraph of ``test`` is in ``train``: some topics repeat parts of others.
    pieces : Pieces
        Learned from ``train``.
    prompt : str
        How the first paragraph of ``test`` begins.
    """

    train: Tensor
    test: Tensor
    pieces: Pieces
    prompt: str


def load_topics(texts: Mapping[str, str], *, choice: bool = False) -> Topics:
    """Split the prose by topics: of eight in the order of their names, the second is for the test.

    Parameters
    ----------
    texts : mapping of str to str
        Text by topic, at least two.
    choice : bool
        Leave these out altogether, and test on the last of eight: settings are chosen by that.
    """
    parts: dict[int, list[str]] = {part: [] for part in range(_EVERY)}
    for number, name in enumerate(sorted(texts)):
        parts[number % _EVERY] += _paragraphs(texts[name])
    hidden = dict.fromkeys(parts.pop(_TEST))
    test = dict.fromkeys(p for p in parts.pop(_CHOICE) if p not in hidden) if choice else hidden
    train = dict.fromkeys(p for part in parts.values() for p in part if p not in hidden | test)
    text = "\n".join(train)
    pieces = Pieces(text, VOCABULARY)
    return Topics(
        torch.from_numpy(pieces.encode(text)),
        torch.from_numpy(pieces.encode("\n".join(test))),
        pieces,
        " ".join(next(iter(test)).split()[:_PROMPT_WORDS]),
    )


class TopicBatches:
    """Shuffled training batches of (tokens [B, T], next tokens [B, T]).

    Every pass cuts the text anew, from a start of its own; equal seeds give equal sequences.
    """

    def __init__(self, data: Topics, *, batch: int = 16, seed: int = 0) -> None:
        self._tokens = data.train
        self._batch = batch
        self._generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return (len(self._tokens) - CONTEXT) // CONTEXT // self._batch  # from any start

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        first = int(torch.randint(CONTEXT, (), generator=self._generator))
        tokens, following = _windows(self._tokens[first:])
        order = torch.randperm(len(tokens), generator=self._generator)
        for i in range(len(self)):
            chosen = order[i * self._batch : (i + 1) * self._batch]
            yield tokens[chosen], following[chosen]


def _windows(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Cut a text [T] into windows [N, CONTEXT], and what follows each of their tokens."""
    whole = (len(tokens) - 1) // CONTEXT * CONTEXT
    return tokens[:whole].view(-1, CONTEXT), tokens[1 : whole + 1].view(-1, CONTEXT)


def topics_llama(layers: int = 4) -> Llama:
    """Build the model with fresh weights; the linears of four blocks hold 442,368 of them."""
    return Llama(LlamaConfig(96, 256, layers, 4, 4, VOCABULARY, CONTEXT))


def next_token_loss(logits: Tensor, following: Tensor) -> Tensor:
    """Nats per token of logits [B, T, V] and the tokens [B, T] that follow."""
    return cross_entropy(logits.flatten(0, 1), following.flatten())


def train(model: nn.Module, batches: TopicBatches, epochs: int, rate: float) -> nn.Module:
    """Train ``model`` with AdamW and a one-cycle learning rate; return it."""
    return fit(
        model, batches, next_token_loss, epochs=epochs, rate=rate, clip=1.0,
        description="training the language model",
    )  # fmt: skip


@torch.no_grad()
def nats_per_token(model: nn.Module, tokens: Tensor) -> float:
    """Mean loss over a text [T] in windows of the context, each without what was before it."""
    read, following = _windows(tokens)
    return float(next_token_loss(model.eval()(read), following))


@torch.no_grad()
def continued(
    model: nn.Module,
    data: Topics,
    *,
    characters: int = 200,
    temperature: float = 0.5,
    seed: int = 0,
) -> str:
    """The prompt and what ``model`` writes behind it, token by token at random, on one line."""
    generator = torch.Generator().manual_seed(seed)
    tokens = data.pieces.encode(data.prompt).tolist()
    while len(text := data.pieces.decode(tokens)) < len(data.prompt) + characters:
        logits = model.eval()(torch.tensor([tokens[-CONTEXT:]]))[0, -1, : len(data.pieces)]
        chances = torch.softmax(logits / temperature, 0)
        tokens.append(int(torch.multinomial(chances, 1, generator=generator)))
    return " ".join(text.split())


def _paragraphs(text: str) -> list[str]:
    """Paragraphs of English, each on one line: no headings, no code, no grammar."""
    found = []
    for block in re.split(r"\n\s*\n", text):
        line = " ".join(block.replace("`", '"').split())
        letters = sum(character.isalpha() or character == " " for character in line)
        if (
            len(line.split()) >= _WORDS
            and line.isascii()
            and line[-1] in ".:"
            and letters > _LETTERS * len(line)
            and not re.search(r"::=|>>>", line)
        ):
            found.append(line)
    return found
