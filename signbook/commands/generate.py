"""``signbook generate``: a language model continues a text, dense or packed."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
from vq.errors import ConfigError
from vq.text.visible import visible

if TYPE_CHECKING:
    from torch import nn

    from signbook.writing.graph import IntegerWriter

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
    integer: Annotated[
        bool,
        typer.Option("--integer", help="Run FILE's integer graph in numpy, as the hardware does."),
    ] = False,
    tokens: Annotated[int, typer.Option(min=1, help="Tokens to write at most.")] = _TOKENS,
    temperature: Annotated[
        float, typer.Option(min=0.0, help="0 takes the most probable token; above, they are drawn.")
    ] = _TEMPERATURE,
    seed: Seed = SEED,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            help="stories260k, smollm2, minilm, a folder or id of transformers, or a file that "
            "carries one; by default FILE's, else the model's."
        ),
    ] = None,
    rom: Book = None,
    device: Device = DEVICE,
    json: Json = None,
) -> dict[str, Any]:
    """Let a language model continue a text, from its packed weights too.

    For example: generate hf:DIR --file small.vq.safetensors --packed --prompt "Once upon a time"
    """
    from signbook.data.words import words_in
    from signbook.files import check_outputs
    from signbook.loading import check_activations, load_model
    from signbook.writing.door import prompt_tokens, write
    from signbook.writing.graph import load_writer
    from vq.inference.device import choose_device

    check_outputs([("--json", json)], [model, weights, file, rom])
    check_activations(packed, activations)
    if integer and (file is None or packed):
        raise ConfigError(
            "--integer must come with --file, the container that holds the graph, and without "
            "--packed: a graph's layers are decoded"
        )
    place = choose_device(device)
    words = words_in(file, model, tokenizer)
    prompt_tokens(words, prompt)  # before anything takes long
    with warnings_in_short():
        loaded: nn.Module | IntegerWriter
        if integer and file is not None:
            loaded = load_writer(file, rom)
        else:
            loaded = load_model(
                model, weights, file, rom=rom, packed=packed, activations=activations
            )
            loaded.to(place).eval()
        _show(prompt)
        written = write(
            loaded, words, prompt, tokens=tokens, temperature=temperature, seed=seed, show=_show
        )
        typer.echo()
    document = written.document()
    save_json(json, document)
    rows = [(name, text(document[name])) for name in _SHOWN if document[name] is not None]
    print_rows(f"{len(written.tokens)} tokens, until {written.stopped}", rows)
    return document


def _show(piece: str) -> None:
    """Print a piece of text at once, as it is but for what would move the cursor elsewhere."""
    typer.echo("\n".join(map(visible, piece.split("\n"))), nl=False)
