"""What a data set asks of a model: the contract between data factories and evaluation.

A data factory, named ``py:package.module:factory``, returns one of the five classes below. Each
holds ``batches``: anything with a length that can be iterated more than once, such as a list or a
``DataLoader``. What a batch holds says the class.

``inputs`` is a tensor, or a tuple of positional or a mapping of keyword arguments of the model.

Where several processes work together, each makes the same batches and takes its rows of every
one. ``shared`` says that ``batches`` are this process's part already.

Examples
--------
A factory of your own is a function without required arguments:

>>> import torch
>>> def factory() -> Classification:
...     return Classification([(torch.rand(2, 3, 32, 32), torch.tensor([4, 1]))])
>>> len(factory().batches)
1
"""

from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

from torch import Tensor

__all__ = [
    "Batches",
    "Classification",
    "Denoising",
    "Embedding",
    "Generation",
    "Inputs",
    "LanguageModelling",
    "Task",
    "TextProtocol",
]

Inputs = Tensor | tuple[Tensor, ...] | Mapping[str, Tensor]
T_co = TypeVar("T_co", covariant=True)


class Batches(Protocol[T_co]):
    """A sized collection that can be iterated more than once."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[T_co]: ...


@dataclass(frozen=True)
class Classification:
    """Batches of (inputs, labels [B] int64); the model gives logits [B, classes].

    Labels are 0 to below the number of classes; any integer dtype does.
    """

    batches: Batches[tuple[Inputs, Tensor]]
    shared: bool = False


@dataclass(frozen=True)
class TextProtocol:
    """How a text was cut into rows of tokens; without this, perplexities cannot be compared.

    Attributes
    ----------
    text : str
        Which text, and which part of it.
    tokenizer : str
    context_tokens : int
        Length that rows are cut to.
    stride_tokens : int or None
        Tokens from the start of one row to that of the next; None where rows are texts of their
        own.
    """

    text: str
    tokenizer: str
    context_tokens: int
    stride_tokens: int | None


@dataclass(frozen=True)
class LanguageModelling:
    """Batches of (tokens [B, T] int64, scored [B, T] bool); the model gives logits [B, T, V].

    ``scored`` marks the tokens that are to be predicted from those before them in their row:
    not the first one, and not padding. Padding must stand at the right. ``protocol`` goes into the
    documents of evaluations.
    """

    batches: Batches[tuple[Tensor, Tensor]]
    protocol: TextProtocol | None = None
    shared: bool = False


@dataclass(frozen=True)
class Embedding:
    """Batches of inputs; the model gives one vector each [B, D].

    A model that gives ``last_hidden_state`` [B, T, D] instead is averaged over the tokens where
    the input ``attention_mask`` is 1.
    """

    batches: Batches[Inputs]
    shared: bool = False


@dataclass(frozen=True)
class Denoising:
    """Batches of (inputs, noise); the model predicts the noise, in its shape."""

    batches: Batches[tuple[Inputs, Tensor]]
    shared: bool = False


@dataclass(frozen=True)
class Generation:
    """Batches of (noise [B, C, H, W],) or (noise, labels [B] int64), which models draw from.

    Every model is given the same. There is nothing to learn from here. Brightness of images is 0
    to 1; what is outside counts as black or white.

    Attributes
    ----------
    batches : batches of tuples
    sample : callable
        ``sample(model, *batch)`` gives images [B, C, H, W].
    judge : callable
        ``judge(images)`` gives features [N, D] and logits [N, classes], on the CPU.
    real : [N, C, H, W] tensor
        Images that samples are to be like, and that nothing was trained on.
    shared : bool
    visits : callable, optional
        ``visits(model, *batch)`` yields what the model is given at every step, (images [B or more,
        C, H, W], step [B or more], ...), the batch's own images first, and returns what ``sample``
        gives. With it, models can be compared step by step.
    """

    batches: Batches[tuple[Tensor, ...]]
    sample: Callable[..., Tensor]
    judge: Callable[[Tensor], tuple[Tensor, Tensor]]
    real: Tensor
    shared: bool = False
    visits: Callable[..., Generator[tuple[Tensor, ...], None, Tensor]] | None = None


Task = Classification | LanguageModelling | Embedding | Denoising | Generation
