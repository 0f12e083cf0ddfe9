"""``signbook integer``: give a container the integer graph that the hardware runs."""

import math
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from signbook.commands.defaults import Defaults
from signbook.commands.options import Book, Json, Model, Tokenizer
from signbook.commands.printing import print_table, save_json
from vq.errors import ConfigError

if TYPE_CHECKING:
    from vq.integer import IntegerModel
    from vq.integer.steps import StepModel
    from vq.integer.tokens import TokenModel

__all__ = ["run"]


def run(
    model: Model,
    file: Annotated[Path, typer.Option(metavar="FILE", help="A *.vq.safetensors file of it.")],
    data: Annotated[
        str | None, typer.Option(help="Calibration data: py:package.module:factory.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write here and leave FILE as it is.")
    ] = None,
    choice: Annotated[
        str, typer.Option(help="How activation scales are chosen: mse, percentile or max.")
    ] = Defaults("vq.integer.build", "add_integer").choice,
    batches: Annotated[int, typer.Option(min=1, help="Calibration batches to use.")] = 4,
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Of w4a8-diffusion, instead of --data: steps of the sampler."),
    ] = None,
    sampler: Annotated[
        str | None, typer.Option(help="Of w4a8-diffusion: ddim, dpm++, euler, or its own.")
    ] = None,
    guidance: Annotated[
        float | None, typer.Option(help="Of w4a8-diffusion: of sampling with classes.")
    ] = None,
    images: Annotated[
        int, typer.Option(min=1, help="Of w4a8-diffusion: images to draw for calibration.")
    ] = Defaults("vq.integer.steps.build", "add_steps").images,
    context: Annotated[
        int | None,
        typer.Option(min=1, help="Of a transformer: the longest text; at most 512 if not said."),
    ] = None,
    operands: Annotated[
        str,
        typer.Option(help="Of a transformer: what linears read, in int8, rows or int16."),
    ] = Defaults("vq.integer.tokens.build", "add_tokens").operands,
    tokenizer: Tokenizer = None,
    rom: Book = None,
    json: Json = None,
) -> dict[str, Any]:
    """Store a compressed model's integer graph in its file: int8 activations, int32 sums."""
    from signbook.data.carried import carries, carry
    from signbook.data.words import words_for
    from signbook.files import check_outputs
    from signbook.naming import resolve_data, resolve_model
    from vq.calibration.batches import each
    from vq.container.rom import roms_of
    from vq.integer import add_integer

    if batches < 1:
        raise ConfigError(f"batches must be at least 1, not {batches}")
    own = ("--file", file) if out is None else ("--out", out)
    check_outputs([own, ("--json", json)], [model, data, rom, None if out is None else file])
    architecture = resolve_model(model, pretrained=False)
    if (steps is None) == (data is None):
        raise ConfigError(
            "integer must have either --data, or --steps for a file of w4a8-diffusion, not "
            f"{'both' if data else 'neither'}"
        )
    if steps is not None:
        from signbook.diffusion.sampler import traits_of
        from signbook.diffusion.schedulers import sampler_for
        from vq.calibration.sampling import Noise
        from vq.integer.steps.build import add_steps

        drawing = sampler_for(architecture, sampler, steps, guidance=guidance)
        traits = traits_of(architecture)
        found = add_steps(
            file, architecture, drawing, Noise(*traits), out=out, choice=choice, images=images,
            classes=0 if traits.classes is None else traits.classes + 1, rom=roms_of(rom),
        )  # fmt: skip
        document = _steps_document(out or file, found)
        save_json(json, document)
        print_table(str(out or file), ("name", "op", "on", "shape", "macs"), document["nodes"])
        return document
    if sampler is not None or guidance is not None:
        raise ConfigError("--sampler and --guidance must come with --steps")
    assert data is not None
    own_words = {"tokenizer": str(file)} if carries(file) else {}
    inputs = list(islice(each(resolve_data(data, own_words).batches), batches))
    from vq.integer.tokens.arithmetic import BYTE
    from vq.integer.tokens.build import add_tokens, is_transformer

    if is_transformer(architecture):
        words = words_for(model, tokenizer) if tokenizer or not own_words else None
        tokens = add_tokens(
            file, architecture, inputs, out=out, choice=choice, context=context,
            operands=operands, rom=roms_of(rom),
        )  # fmt: skip
        if words is not None:
            carry(out or file, words)
        document = _tokens_document(out or file, tokens)
        save_json(json, document)
        rows = [{**row, "step": f"{row['step']:.4g}"} for row in document["nodes"]]
        print_table(str(out or file), ("name", "op", "form", "shape", "macs", "step"), rows)
        return document
    if context is not None or operands != BYTE or tokenizer is not None:
        raise ConfigError("--context, --operands and --tokenizer must come with a transformer")
    integer = add_integer(file, architecture, inputs, out=out, choice=choice, rom=roms_of(rom))
    document = _document(out or file, integer)
    save_json(json, document)
    rows = [{**row, "step": f"{row['step']:.4g}"} for row in document["nodes"]]
    print_table(str(out or file), ("name", "op", "shape", "relu", "macs", "step"), rows)
    return document


def _steps_document(file: Path, model: "StepModel") -> dict[str, Any]:
    from vq.integer.graph import Node

    graph = model.graph
    nodes = []
    for place, node in enumerate(graph.nodes):
        layer = model.layers.get(node.name)
        macs = layer.products.weight[0].size * math.prod(node.shape) if layer else 0
        on_device = isinstance(node, Node)
        int8 = on_device or node.op == "quantize"
        nodes.append({
            "name": node.name, "op": node.op, "on": "device" if on_device else "host",
            "inputs": list(node.inputs), "shape": list(node.shape), "macs": macs,
            "relu": False, "step": float(model.scales[0, place]),
            "steps": model.scales[:, place].tolist() if int8 else None,
        })  # fmt: skip
    return {
        "schema": "signbook.integer/1",
        "file": str(file),
        "choice": graph.choice,
        "calibration": graph.calibration,
        "macs": sum(node["macs"] for node in nodes),
        "times": list(graph.times),
        "classes": graph.classes,
        "nodes": nodes,
    }


def _tokens_document(file: Path, model: "TokenModel") -> dict[str, Any]:
    """Multiplications are of one token, those of attention with the cache left out."""
    from vq.integer.tokens.graph import form_of

    graph = model.graph
    nodes = []
    for place, node in enumerate(graph.nodes):
        p = model.weights.get(node.name) if node.op in ("linear", "conv") else None
        nodes.append({
            "name": node.name, "op": node.op, "form": form_of(node), "inputs": list(node.inputs),
            "shape": list(node.shape), "relu": False, "step": float(model.scales[place]),
            "macs": p.weight[0].size * math.prod(node.shape) if p else 0,
        })  # fmt: skip
    return {
        "schema": "signbook.integer/1",
        "file": str(file),
        "choice": graph.choice,
        "calibration": graph.calibration,
        "macs": sum(node["macs"] for node in nodes),
        "context": graph.context,
        "causal": graph.causal,
        "nodes": nodes,
    }


def _document(file: Path, integer: "IntegerModel") -> dict[str, Any]:
    graph = integer.graph
    nodes = [
        {
            "name": node.name,
            "op": node.op,
            "inputs": list(node.inputs),
            "shape": list(node.shape),
            "relu": node.relu,
            "macs": _macs(integer, place),
            "step": float(integer.scales[place]),
        }
        for place, node in enumerate(graph.nodes)
    ]
    return {
        "schema": "signbook.integer/1",
        "file": str(file),
        "choice": graph.choice,
        "calibration": graph.calibration,
        "macs": sum(_macs(integer, place) for place in range(len(graph.nodes))),
        "nodes": nodes,
    }


def _macs(integer: "IntegerModel", place: int) -> int:
    """Multiplications of a node for one input, those with padding counted."""
    node = integer.graph.nodes[place]
    if not node.layer:
        return 0
    weight = integer.parameters[node.name].weight
    per_output: int = weight[0].size
    return per_output * math.prod(node.shape)
