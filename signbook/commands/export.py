"""``signbook export``: a container in another form."""

from collections.abc import Mapping
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
        "vq.export", "export_dense"
    ).dtype,
    model: Annotated[
        str | None, typer.Option(help="For onnx and for transformers: " + MODEL_HELP)
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="For onnx: data whose first batch has the input's shape.")
    ] = None,
    base: Annotated[int, typer.Option(min=0, help="For dram: address of the image.")] = Defaults(
        "vq.export", "export_dram"
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
    from signbook.files import check_outputs, output_folder, write_json
    from signbook.packed import FORMATS, export_packed
    from signbook.packed.folder import WEIGHTS
    from vq.container.rom import roms_of
    from vq.export import export_dense, export_dram

    targets = ("dense", "onnx", "dram", *FORMATS)
    if to not in targets:
        raise ConfigError(f"--to must be one of {', '.join(targets)}, not {to!r}")
    files, layers = [out], {}
    sources = [file, model, data, rom]
    if to in FORMATS:
        outputs = [("--out", out / name) for name in (WEIGHTS, "config.json")]
        with output_folder(out, [*outputs, ("--json", json)], sources):
            layers = export_packed(file, to, out, model=model, dense_others=dense_others, rom=rom)
            files = layers.pop("files")
    else:
        beside = out.with_name(out.name + ".json") if to == "dram" else None
        check_outputs([("--out", out), ("--out", beside), ("--json", json)], sources)
    if to == "dense":
        export_dense(file, out, dtype=dtype, rom=roms_of(rom))
    elif to == "dram":
        files.append(out.with_name(out.name + ".json"))
        write_json(files[1], export_dram(file, out, base=base))
    elif to == "onnx":
        _export_onnx(file, out, model, data, rom)
    written = [{"file": str(path), "bytes": path.stat().st_size} for path in files]
    document: dict[str, Any] = {
        "schema": "signbook.export/1",
        "to": to,
        "written": written,
        **layers,
    }
    save_json(json, document)
    print_rows(
        f"{to} of {file}", [(row["file"], text(row["bytes"])) for row in document["written"]]
    )
    return document


def _export_onnx(
    file: Path, out: Path, model: str | None, data: str | None, rom: Path | None
) -> None:
    """Write a model with the weights of ``file`` and inputs like the first batch of ``data``."""
    import vq
    from signbook.naming import resolve_data, resolve_model
    from vq.calibration.batches import split
    from vq.container.rom import roms_of
    from vq.export import export_onnx

    if model is None or data is None:
        raise ConfigError("--to onnx must come with --model, the architecture, and --data")
    loaded = vq.load(file, into=resolve_model(model, pretrained=False), rom=roms_of(rom))
    batch = next(iter(resolve_data(data).batches), None)
    inputs = None if batch is None else split(batch)[0]
    if inputs is None or isinstance(inputs, Mapping):
        raise ConfigError(f"{data}: first batch must hold inputs by position")
    export_onnx(loaded, inputs, out)
