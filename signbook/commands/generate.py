"""``signbook generate``: a language model continues a text, dense or packed."""

from pathlib import Path
from typing import Annotated, Any

import typer

from signbook.commands.defaults import Defaults
from signbook.commands.options import (
    DEVICE,
    SEED,
    Activations,
    Book,
    Device,
    Json,
    Model,
    Packed,
    Seed,
    Weights,
)
from signbook.commands.printing import print_rows, save_json, text, warnings_in_short
from vq.text.visible import visible

__all__ = ["run"]

_DEFAULTS = Defaults("signbook.writing.door", "write")
_TOKENS: int = _DEFAULTS.tokens
_TEMPERATURE: float = _DEFAULTS.temperature
_SHOWN = (
    "prompt_tokens", "prefill_tokens_per_second", "decode_tokens_per_second", "resident_bytes",
    "bytes_per_token",
)  # fmt: skip


def run(
    model: Model,
    prompt: Annotated[str, typer.Option(help="The text to continue.")],
    file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A *.vq.safetensors file to run.")
    ] = None,
    weights: Weights = None,
    packed: Packed = False,
    activations: Activations = None,
    tokens: Annotated[int, typer.Option(min=1, help="Tokens to write at most.")] = _TOKENS,
    temperature: Annotated[
        float, typer.Option(min=0.0, help="0 takes the most probable token; above, they are drawn.")
    ] = _TEMPERATURE,
    seed: Seed = SEED,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            help="stories260k, smollm2, or a folder or id of transformers; by default the model's."
        ),
    ] = None,
    rom: Book = None,
    device: Device = DEVICE,
    json: Json = None,
) -> dict[str, Any]:
    """Let a language model continue a text, from its packed weights too.

    For example: generate hf:DIR --file small.vq.safetensors --packed --prompt "Once upon a time"
    """
    from signbook.data.words import tokenizer_of, words_of
    from signbook.files import check_outputs
    from signbook.loading import check_activations, load_model
    from signbook.writing.door import prompt_tokens, write
    from vq.inference.device import choose_device

    check_outputs([("--json", json)], [model, weights, file, rom])
    check_activations(packed, activations)
    place = choose_device(device)
    words = words_of(tokenizer or tokenizer_of(model))
    prompt_tokens(words, prompt)  # before anything takes long
    with warnings_in_short():
        loaded = load_model(
            model, weights, file, rom=rom, packed=packed, activations=activations
        ).to(place)
        _show(prompt)
        written = write(
            loaded.eval(), words, prompt, tokens=tokens, temperature=temperature, seed=seed,
            show=_show,
        )  # fmt: skip
        typer.echo()
    document = written.document()
    save_json(json, document)
    rows = [(name, text(document[name])) for name in _SHOWN if document[name] is not None]
    print_rows(f"{len(written.tokens)} tokens, until {written.stopped}", rows)
    return document


def _show(piece: str) -> None:
    """Print a piece of text at once, as it is but for what would move the cursor elsewhere."""
    typer.echo("\n".join(map(visible, piece.split("\n"))), nl=False)
