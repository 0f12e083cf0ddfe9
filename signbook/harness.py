"""Run the tasks of EleutherAI's lm-evaluation-harness on a causal model, compressed or not.

Examples
--------
With the extra ``lm-eval``, and ``model`` from ``signbook.zoo.llama`` or transformers::

    import lm_eval
    wrapped = harness_model(model, tokenizer)
    lm_eval.simple_evaluate(wrapped, tasks=["lambada_openai"])
"""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from signbook.evaluation import choose_device
from signbook.extras import require

__all__ = ["TextTokenizer", "harness_model"]


class TextTokenizer(Protocol):
    """What the wrapper needs of a tokenizer; ``bos`` is the token that starts a text."""

    bos: int

    def encode(self, text: str, *, bos: bool = True) -> list[int]:
        """Text to tokens."""
        ...

    def decode(self, tokens: Iterable[int]) -> str:
        """Tokens to text."""
        ...


def harness_model(
    model: nn.Module,
    tokenizer: Any,
    *,
    length: int = 512,
    batch: int = 8,
    device: str = "auto",
) -> Any:
    """Wrap a causal model as the ``model`` argument of ``lm_eval.simple_evaluate``.

    Parameters
    ----------
    model : nn.Module
        Of transformers, or any other that turns tokens [B, T] into logits [B, T, V].
    tokenizer : of transformers, or TextTokenizer
        The first for a model of transformers, which the harness's own wrapper takes.
    length : int
        Most tokens the model can take.
    batch : int
        Rows scored together.

    Raises
    ------
    ConfigError
        If lm-eval is not installed.
    """
    require("lm_eval", extra="lm-eval", purpose="the evaluation harness")
    place = choose_device(device)
    model = model.to(place).eval()
    if hasattr(model, "config") and hasattr(model.config, "model_type"):
        own = require("lm_eval.models.huggingface", extra="lm-eval", purpose="the harness")
        return own.HFLM(pretrained=model, tokenizer=tokenizer, max_length=length, batch_size=batch)
    return _wrapper_class()(model, tokenizer, length, batch, place)


def _wrapper_class() -> Any:
    """Define the wrapper; its base class exists only where lm-eval is installed."""
    from lm_eval.api.model import TemplateLM
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

    class CausalLM(TemplateLM):  # type: ignore[misc]
        """A plain causal module behind the harness's interface."""

        def __init__(
            self,
            model: nn.Module,
            tokenizer: TextTokenizer,
            length: int,
            batch: int,
            device: torch.device,
        ) -> None:
            super().__init__()
            self._model, self._tokenizer = model, tokenizer
            self._length, self._batch, self._device = length, batch, device

        @property
        def eot_token_id(self) -> int:
            return self._tokenizer.bos

        @property
        def device(self) -> torch.device:
            return self._device

        @property
        def tokenizer_name(self) -> str:
            return type(self._tokenizer).__name__

        def tok_encode(
            self, string: str, add_special_tokens: bool | None = None, **_: Any
        ) -> list[int]:
            return self._tokenizer.encode(string, bos=add_special_tokens is not False)

        def _loglikelihood_tokens(
            self, requests: Sequence[tuple[Any, list[int], list[int]]], **_: Any
        ) -> list[tuple[float, bool]]:
            """Log-likelihood of every continuation, and whether it is the greedy one."""
            order = sorted(
                range(len(requests)), key=lambda i: -len(requests[i][1]) - len(requests[i][2])
            )
            found: list[tuple[float, bool]] = [(0.0, True)] * len(requests)
            for start in range(0, len(order), self._batch):
                chosen = order[start : start + self._batch]
                rows = [(requests[i][1] + requests[i][2])[-self._length - 1 :] for i in chosen]
                logits = self._logits([row[:-1] for row in rows])
                for place, (i, row) in enumerate(zip(chosen, rows, strict=True)):
                    count = min(len(requests[i][2]), len(row) - 1)
                    targets = torch.tensor(row[len(row) - count :])
                    likely = logits[place, len(row) - 1 - count : len(row) - 1].log_softmax(-1)
                    score = likely.gather(1, targets[:, None]).double().sum()
                    found[i] = float(score), bool((likely.argmax(1) == targets).all())
            return found

        def loglikelihood_rolling(
            self, requests: Sequence[Any], disable_tqdm: bool = False
        ) -> list[float]:
            """Log-likelihood of whole texts, in windows that predict every token once."""
            totals = []
            for (text,) in (request.args for request in requests):
                windows = get_rolling_token_windows(
                    token_list=self.tok_encode(text, add_special_tokens=False),
                    prefix_token=self.prefix_token_id,
                    max_seq_len=self._length,
                    context_len=1,
                )
                parts = [(None, *make_disjoint_window(window)) for window in windows]
                totals.append(sum(score for score, _ in self._loglikelihood_tokens(parts)))
            return totals

        def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
            """Greedy continuations up to the first stop text; no key-value cache, so slow."""
            return [self._continue(*request.args) for request in requests]

        def _continue(self, text: str, settings: dict[str, Any]) -> str:
            stops = settings.get("until") or []
            stops = [stops] if isinstance(stops, str) else stops
            tokens = self.tok_encode(text)
            prompt, written = len(self._tokenizer.decode(tokens)), ""
            for _ in range(int(settings.get("max_gen_toks", 64))):
                chosen = int(self._logits([tokens[-self._length :]])[0, -1].argmax())
                if chosen == self.eot_token_id:
                    break
                tokens.append(chosen)
                written = self._tokenizer.decode(tokens)[prompt:]
                ends = [written.index(stop) for stop in stops if stop and stop in written]
                if ends:
                    return written[: min(ends)]
            return written

        @torch.no_grad()
        def _logits(self, rows: Sequence[Sequence[int]]) -> Tensor:
            """Logits [B, T, V] on the CPU for rows that are padded at the right."""
            longest = max(map(len, rows))
            padded = [[*row, *[self.eot_token_id] * (longest - len(row))] for row in rows]
            output = self._model(torch.tensor(padded, device=self._device))
            logits: Tensor = getattr(output, "logits", output)
            return logits.float().cpu()

    return CausalLM
