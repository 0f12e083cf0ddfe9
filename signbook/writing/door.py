"""Let a language model continue a text: the most probable tokens, or drawn ones."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from signbook.data.tokenizing import Words
from signbook.meters.logits import logits_of
from signbook.meters.meter import require
from signbook.writing.graph import IntegerWriter
from signbook.writing.stream import Stream
from signbook.writing.traffic import bytes_per_token
from signbook.zoo.hub import silent_transformers
from vq.calibration.batches import device_of
from vq.errors import ConfigError, SignbookError
from vq.integer.tokens.writing import continued, greatest
from vq.recipe.footprint import resident_bytes

__all__ = ["SCHEMA", "Written", "prompt_tokens", "write"]

SCHEMA = "signbook.generate/1"

#: What configurations call the tokens that a model knows, and the longest text.
_VOCABULARY, _CONTEXT = ("vocab_size", "vocabulary"), ("max_position_embeddings", "context")


@dataclass(frozen=True)
class Written:
    """What a model wrote behind a prompt, and what that took.

    Attributes
    ----------
    prompt, text : str
    prompt_tokens : int
    tokens : list of int
        What was chosen, the end of a text included.
    stopped : str
        By what: "end" of a text, "tokens" that were asked for, or the model's "context".
    prefill_seconds, decode_seconds : float
        Until the first token, and from there to the last.
    resident_bytes : int
        Memory of the process in the end.
    bytes_per_token : int
        Weights that every token reads, see :func:`signbook.writing.traffic.bytes_per_token`.
    """

    prompt: str
    text: str
    prompt_tokens: int
    tokens: list[int]
    stopped: str
    prefill_seconds: float
    decode_seconds: float
    resident_bytes: int
    bytes_per_token: int

    def document(self) -> dict[str, Any]:
        """The ``signbook.generate/1`` document; speeds are tokens per second.

        That of decoding is none where only one token was chosen.
        """
        decoded = len(self.tokens) - 1
        return {
            "schema": SCHEMA,
            **vars(self),
            "prefill_tokens_per_second": self.prompt_tokens / self.prefill_seconds,
            "decode_tokens_per_second": decoded / self.decode_seconds if decoded else None,
        }


def prompt_tokens(words: Words, prompt: str) -> list[int]:
    """Tokens of a prompt.

    Raises
    ------
    ConfigError
        If there are none, or the tokenizer does not know one.
    """
    found = words.encode(prompt) if prompt else []
    if not found:
        raise ConfigError("--prompt must hold text, not nothing")
    if words.unknown is not None and words.unknown in found:
        known = words.decode([token for token in found if token != words.unknown])
        raise ConfigError(
            f"--prompt must be made of what the tokenizer knows, of which it knows only {known!r}; "
            "reword it, or give another --tokenizer"
        )
    return found


@torch.no_grad()
def write(
    model: nn.Module | IntegerWriter,
    words: Words,
    prompt: str,
    *,
    tokens: int = 64,
    temperature: float = 0.0,
    seed: int = 0,
    show: Callable[[str], None] = lambda piece: None,
) -> Written:
    """Let a causal language model continue a text.

    A model of transformers and an integer graph keep keys and values of earlier tokens, as does a
    model that has a ``new_cache()`` and takes it as ``cache``. Any other reads the whole text again
    for every token. All modules but those of transformers must give logits [1, T, V] for tokens
    [1, T].

    Parameters
    ----------
    model : module or IntegerWriter
        A module in evaluation mode, on the device that it is to run on.
    words : Words
        Its tokenizer.
    prompt : str
    tokens : int
        To choose at most; fewer where the text ends, or the model's context.
    temperature : float
        0 takes the most probable token; else logits are divided by it, and tokens drawn.
    seed : int
        Of the drawing.
    show : callable
        Is given the text piece by piece, as it is written.

    Raises
    ------
    ConfigError
        If the prompt is empty, unknown, or as long as the context; if the model is no causal
        language model; if ``temperature`` is none.
    """
    if not 0 <= temperature < math.inf:
        raise ConfigError(f"--temperature must be 0 or above, and finite, not {temperature}")
    given = prompt_tokens(words, prompt)
    _check_vocabulary(model, given)
    context = _of_configuration(model, _CONTEXT)
    room = tokens if context is None else min(tokens, context - len(given))
    if room < 1:
        raise ConfigError(
            f"--prompt must leave room in the model's context of {context} tokens, not take "
            f"{len(given)}; shorten it"
        )
    record = _Record(Stream(words.decode, given, show))
    steps = _Steps(given, room, temperature, seed, words.ends)
    if isinstance(model, IntegerWriter):
        ends = _by_graph(model, steps, record)
    else:
        run = _by_transformers if hasattr(model, "can_generate") else _by_steps
        ends = run(model, steps, record)
    record.stream.end()
    last = "context" if room < tokens else "tokens"
    return Written(
        prompt,
        record.stream.text,
        len(given),
        record.tokens,
        "end" if record.tokens[-1] in ends else last,
        record.times[0] - record.start,
        record.times[-1] - record.times[0],
        resident_bytes(),
        model.bytes_per_token if isinstance(model, IntegerWriter) else bytes_per_token(model),
    )


@dataclass(frozen=True)
class _Steps:
    """What a model is to do."""

    given: list[int]
    count: int
    temperature: float
    seed: int
    ends: frozenset[int]


@dataclass
class _Record:
    """Takes tokens as they are chosen; transformers knows it as a streamer."""

    stream: Stream
    tokens: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    start: float = 0.0
    has_prompt: bool = False

    def take(self, token: int) -> None:
        self.times.append(time.perf_counter())
        self.tokens.append(token)
        self.stream.add(token)

    def put(self, value: Tensor) -> None:
        """Take a token, as transformers gives it; first of all it gives the prompt."""
        if self.has_prompt:
            self.take(int(value))
        self.has_prompt = True

    def end(self) -> None:
        """Nothing more comes."""


def _by_transformers(model: Any, steps: _Steps, record: _Record) -> frozenset[int]:
    import transformers

    if not model.can_generate() or model.config.is_encoder_decoder:
        raise ConfigError(
            f"model must be a causal language model, which continues texts, not "
            f"{type(model).__name__}; name one whose config.json says so"
        )
    own = getattr(model.generation_config, "eos_token_id", None)
    ends = steps.ends | frozenset([own] if isinstance(own, int) else own or ())
    given = torch.tensor([steps.given], device=device_of(model))
    with silent_transformers(), torch.random.fork_rng():
        how = transformers.GenerationConfig(  # type: ignore[no-untyped-call]
            max_new_tokens=steps.count,
            do_sample=steps.temperature > 0,
            temperature=steps.temperature or 1.0,
            top_k=0,
            top_p=1.0,
            repetition_penalty=1.0,
            eos_token_id=sorted(ends) or None,
            pad_token_id=min(ends, default=0),
        )
        torch.manual_seed(steps.seed)
        record.start = time.perf_counter()
        model.generate(
            given, attention_mask=torch.ones_like(given), generation_config=how, streamer=record
        )
    return ends


def _by_steps(model: Any, steps: _Steps, record: _Record) -> frozenset[int]:
    generator = torch.Generator().manual_seed(steps.seed)
    text = torch.tensor([steps.given], device=device_of(model))
    cache = model.new_cache() if hasattr(model, "new_cache") else None
    record.start = time.perf_counter()
    while len(record.tokens) < steps.count:
        token = _chosen(_last_logits(model, text, cache), steps.temperature, generator)
        record.take(token)
        if token in steps.ends:
            break
        new = text.new_tensor([[token]])
        text = new if cache is not None else torch.cat([text, new], dim=1)
    return steps.ends


def _by_graph(writer: IntegerWriter, steps: _Steps, record: _Record) -> frozenset[int]:
    model = writer.model
    generator = torch.Generator().manual_seed(steps.seed)

    def drawn(codes: NDArray[np.int64]) -> int:
        logits = torch.from_numpy(model.dequantize(codes))
        return _chosen(logits, steps.temperature, generator)

    record.start = time.perf_counter()
    choose = drawn if steps.temperature else greatest
    for token in continued(model, steps.given, steps.count, choose):
        record.take(token)
        if token in steps.ends:
            break
    return steps.ends


def _last_logits(model: nn.Module, text: Tensor, cache: object) -> Tensor:
    """Logits [V] of what comes behind what is in the cache and a text [1, T], on the CPU."""
    try:
        logits = logits_of(model(text) if cache is None else model(text, cache=cache))
    except SignbookError:
        raise
    except Exception as error:  # a model is the user's code
        raise ConfigError(
            "model must be a language model, which gives logits [1, T, vocabulary] for tokens "
            f"[1, T], but raises {type(error).__name__} for {list(text.shape)}"
        ) from error
    found = require(logits, "logits", [1, text.shape[1], "vocabulary"], "finite")
    return found[0, -1].float().cpu()


def _chosen(logits: Tensor, temperature: float, generator: torch.Generator) -> int:
    if not temperature:
        return int(logits.argmax())
    shares = (logits / temperature).softmax(-1)
    return int(torch.multinomial(shares, 1, generator=generator))


def _check_vocabulary(model: nn.Module | IntegerWriter, given: Sequence[int]) -> None:
    known = _of_configuration(model, _VOCABULARY)
    if known is not None and max(given) >= known:
        raise ConfigError(
            f"tokens of the prompt must be 0 to {known - 1}, which the model knows, not "
            f"{max(given)}; give --tokenizer the model's own"
        )


def _of_configuration(model: nn.Module | IntegerWriter, names: Sequence[str]) -> int | None:
    """A whole number above 0 that the model's configuration has by one of the names."""
    config: Any = getattr(model, "config", None)
    if hasattr(config, "get_text_config"):
        config = config.get_text_config()
    found = (getattr(config, name, None) for name in names)
    return next((n for n in found if isinstance(n, int) and n > 0), None)
