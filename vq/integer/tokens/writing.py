"""Text that a graph writes: token by token, with keys and values kept.

This is what hardware that generates is compared with.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from vq.container import ConfigError, ContainerError
from vq.integer.tokens.golden import Cache, TokenModel
from vq.integer.tokens.graph import TokenNode

__all__ = ["continued", "greatest", "require_writer", "vocabulary_of"]


def greatest(logits: NDArray[np.int64]) -> int:
    """The token of the greatest logit [vocabulary], the first of equals."""
    return int(logits.argmax())


def require_writer(model: TokenModel) -> None:
    """Refuse a graph that continues no texts.

    Raises
    ------
    ConfigError
    """
    first, last = model.graph.input, model.graph.output
    if not vocabulary_of(model) or not model.graph.causal or last.shape[0] < vocabulary_of(model):
        raise ConfigError(
            "integer graph must be of a causal language model, which gives a logit for every "
            f"token that it reads, not of {first.op} {list(first.shape)} to {list(last.shape)}; "
            "name another file"
        )


def vocabulary_of(model: TokenModel) -> int:
    """How many tokens a graph knows; 0 if it reads none."""
    first = model.graph.input
    return int(first.settings["vocabulary"]) if isinstance(first, TokenNode) else 0


def continued(
    model: TokenModel,
    prompt: Sequence[int],
    count: int,
    choose: Callable[[NDArray[np.int64]], int] = greatest,
) -> Iterator[int]:
    """Tokens behind a prompt, one after another.

    The prompt is one call of the graph (prefill), every token but the last chosen one another.

    Parameters
    ----------
    model : TokenModel
    prompt : sequence of int
        At least one token.
    count : int
        To choose at most; prompt and tokens fill the context at most.
    choose : callable
        From logits [vocabulary], int64 in steps of the last scale, to a token.

    Yields
    ------
    int

    Raises
    ------
    ConfigError
        If the graph continues no texts.
    ContainerError
        If a token is unknown, or there are more than the context has room for.
    """
    require_writer(model)
    if len(prompt) + count > model.graph.context:
        raise ContainerError(
            f"integer graph: prompt and new tokens must be at most {model.graph.context}, its "
            f"context, not {len(prompt)} and {count}"
        )
    cache = Cache()
    given = np.array([prompt], np.int64)
    for _ in range(count):
        token = choose(model.run(given, cache=cache)[0, -1])
        yield token
        given = np.array([[token]], np.int64)
