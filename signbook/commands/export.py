"""``signbook export``: a container in another form."""

from pathlib import Path
from typing import Annotated, Any

import typer

from signbook.commands.defaults import Defaults
from signbook.commands.options import MODEL_HELP, Book, File, Json
from signbook.commands.printing import print_rows, save_json, text
from vq.errors import ConfigError

__all__ = ["run"]


def run(
    file: File,
    to: Annotated[
        str,
        typer.Option(
            help="dense (safetensors), onnx, dram (memory image), or for transformers: "
            "compressed-tensors, gptq."
        ),
    ],
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="File to write; a folder for transformers.")
    ],
    dtype: Annotated[str, typer.Option(help="Of dense weights: fp32, bf16 or fp16.")] = Defaults(
        "vq.export.dense", "export_dense"
    ).dtype,
    model: Annotated[
        str | None, typer.Option(help="For onnx and for transformers: " + MODEL_HELP)
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="For onnx: data whose first batch has the inputs' shapes.")
    ] = None,
    opset: Annotated[int, typer.Option(help="For onnx: version of its operators.")] = Defaults(
        "vq.export.onnx", "export_onnx"
    ).opset,
    quantized: Annotated[
        bool,
        typer.Option(
            "--quantized",
            help="For onnx: weights of int8 layers and codebooks stay int8. Without --model and "
            "--data, the file's integer graph is written: activations are int8, too.",
        ),
    ] = False,
    base: Annotated[int, typer.Option(min=0, help="For dram: address of the image.")] = Defaults(
        "vq.export.dram", "export_dram"
    ).base,
    dense_others: Annotated[
        bool,
        typer.Option(
            "--dense-others", help="For transformers: layers that it cannot hold become dense."
        ),
    ] = False,
    rom: Book = None,
    json: Json = None,
) -> dict[str, Any]:
    """Write a container as dense weights, as ONNX, as an accelerator's memory, or repacked."""
    from signbook.files import check_outputs, output_folder
    from signbook.packed import FORMATS, export_packed
    from signbook.packed.folder import WEIGHTS
    from vq.container.rom import roms_of
    from vq.export import export_dense, export_dram

    targets = ("dense", "onnx", "dram", *FORMATS)
    if to not in targets:
        raise ConfigError(f"--to must be one of {', '.join(targets)}, not {to!r}")
    if quantized and to != "onnx":
        raise ConfigError(f"--quantized must come with --to onnx, not --to {to}")
    files, details = [out], {}
    beside = out.parent / f"{out.name}.json" if to == "dram" else None
    sources = [file, model, data, rom]
    if to in FORMATS:
        outputs = [("--out", out / name) for name in (WEIGHTS, "config.json")]
        with output_folder(out, [*outputs, ("--json", json)], sources):
            details = export_packed(file, to, out, model=model, dense_others=dense_others, rom=rom)
            files = details.pop("files")
    else:
        check_outputs([("--out", out), ("--out", beside), ("--json", json)], sources)
    if to == "dense":
        export_dense(file, out, dtype=dtype, rom=roms_of(rom))
    elif beside is not None:
        files.append(beside)
        export_dram(file, out, base=base, beside=beside)
    elif to == "onnx":
        details = _export_onnx(file, out, model, data, rom, opset, quantized)
    written = [{"file": str(path), "bytes": path.stat().st_size} for path in files]
    document: dict[str, Any] = {
        "schema": "signbook.export/1",
        "to": to,
        "written": written,
        **details,
    }
    save_json(json, document)
    rows = [(str(path), text(path.stat().st_size)) for path in files]
    print_rows(f"{to} of {file}", rows + (_onnx_rows(details) if to == "onnx" else []))
    return document


def _export_onnx(
    file: Path,
    out: Path,
    model: str | None,
    data: str | None,
    rom: Path | None,
    opset: int,
    quantized: bool,
) -> dict[str, Any]:
    """Write a model with the weights of ``file``, or its integer graph; return what is in it."""
    import vq
    from signbook.naming import resolve_data, resolve_model
    from vq.calibration.batches import each, split
    from vq.container.rom import roms_of
    from vq.export import export_integer, export_onnx

    if quantized and model is None and data is None:
        return export_integer(file, out, opset=opset, rom=roms_of(rom))
    if model is None or data is None:
        raise ConfigError(
            "--to onnx must come with --model, the architecture, and --data; with neither, "
            "--quantized writes the integer graph of a file that has one"
        )
    architecture = resolve_model(model, pretrained=False).float()
    loaded = vq.load(file, into=architecture, rom=roms_of(rom))
    inputs, _ = split(next(each(resolve_data(data).batches, "export")))
    whole = file if quantized else None
    return export_onnx(loaded, inputs, out, opset=opset, int8=whole, rom=roms_of(rom))


def _onnx_rows(details: dict[str, Any]) -> list[tuple[str, str]]:
    """What an ONNX file takes and gives, and how it was checked."""
    rows = [
        (row["name"], f"{kind}, {row['dtype']} [{', '.join(map(str, row['shape']))}]")
        for kind in ("input", "output")
        for row in details[f"{kind}s"]
    ]
    checked = details["checked"]
    batches = ", ".join(map(str, checked["batches"]))
    rows.append(("opset", text(details["opset"])))
    rows.append(("int8 layers", text(len(details["int8_layers"]))))
    rows.append(("in onnxruntime", f"differs by {checked['max_difference']:.2g} at most"))
    rows.append(("batches tried", batches))
    return rows + [("note", note) for note in details["notes"]]
