"""The command line: each command calls one Python function and prints what it returns."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from vq.container import ConfigError, SignbookError

__all__ = ["app", "main"]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Sign-splitting vector quantisation, from checkpoint to clock cycle.",
)

Json = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Also write the result as JSON.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one accelerator setting; repeatable."),
]
Rom = Annotated[
    Path | None,
    typer.Option(
        "--rom", metavar="FILE.npy", help="Codebook in ROM for every layer: [k, d] int8 of numpy."
    ),
]
Recipe = Annotated[Path, typer.Option(metavar="FILE", help="Patterns and methods, in YAML.")]
Out = Annotated[Path, typer.Option(metavar="DIR", help="Folder for the files; made if missing.")]
Weights = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Weights: safetensors, or a torch file.")
]
Seed = Annotated[int, typer.Option(min=0, help="Equal seeds give equal results.")]
MODEL_HELP = "timm:NAME, hf:PATH_OR_ID or py:package.module:factory."
MEMORY_HELP = "Memory model, such as ideal:bytes_per_cycle=16,latency=20."


def main() -> None:
    """Run a command. Exit 0: fine. 1: an error that Signbook names, in one line. 2: usage."""
    try:
        app()
    except SignbookError as error:
        Console(stderr=True, soft_wrap=True, highlight=False).print(
            f"[bold red]error:[/] {type(error).__name__}: ", end=""
        )
        print(error, file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print("interrupted; every file that is there is complete", file=sys.stderr)
        raise SystemExit(1) from None


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the files.")] = Path("signbook-demo"),
    seed: Annotated[int, typer.Option(min=0, help="Of data split, model and batches.")] = 0,
    json: Json = None,
) -> None:
    """Train, compress, pack, stream through RTL and report: the whole path on real data.

    Needs no network, no GPU and no argument; takes about two minutes on two cores.
    """
    from signbook.demo import run_demo
    from signbook.report import headline

    result = run_demo(out, seed=seed, json_path=json)
    _print_rows("Signbook demo", headline(result.document))
    typer.echo(f"report: {result.report}")


@app.command()
def plan(
    model: Annotated[str, typer.Argument(help=MODEL_HELP)],
    recipe: Recipe,
    weights: Weights = None,
    seed: Seed = 0,
    json: Json = None,
) -> None:
    """Predict a compression: exact bytes, what is skipped and why, about how long and how large."""
    from signbook.files import write_json
    from signbook.training import plan_named

    document = plan_named(model, recipe, weights=weights, seed=seed)
    columns = ("name", "method", "weights", "axis", "d", "k", "bytes", "bits_per_weight")
    _print_table(f"{model} by {recipe}", columns, document["layers"])
    _print_table("skipped", ("name", "reason"), document["skipped"])
    _print_rows("total", [(k, _text(v)) for k, v in document.items() if not isinstance(v, list)])
    if json is not None:
        write_json(json, document)


@app.command()
def compress(
    model: Annotated[str, typer.Argument(help=MODEL_HELP)],
    recipe: Recipe,
    out: Out,
    weights: Weights = None,
    data: Annotated[str | None, typer.Option(help="Calibration data, named like a model.")] = None,
    importance: Annotated[
        str | None, typer.Option(help="Weigh errors by 'inputs' or 'gradients' of the data.")
    ] = None,
    seed: Seed = 0,
    json: Json = None,
) -> None:
    """Cluster the layers that a recipe selects and write one container, without training."""
    from signbook.files import write_json
    from signbook.training import compress_named

    document = compress_named(
        model, recipe, out, weights=weights, data=data, importance=importance, seed=seed
    )
    _print_run(document)
    if json is not None:
        write_json(json, document)


@app.command()
def finetune(
    model: Annotated[str, typer.Argument(help=MODEL_HELP)],
    recipe: Recipe,
    data: Annotated[str, typer.Option(help="Training data, named like a model.")],
    out: Out,
    weights: Weights = None,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the data.")] = 10,
    rate_signs: Annotated[float, typer.Option(help="Of signs, in mean weights per step.")] = 3e-2,
    rate_codebooks: Annotated[float, typer.Option(help="Of codebooks, likewise.")] = 1e-2,
    rate_rest: Annotated[float, typer.Option(help="Of norms, biases, kept layers.")] = 1e-3,
    teacher: Annotated[
        bool, typer.Option("--teacher", help="Learn from the original model's outputs too.")
    ] = False,
    fixed_signs: Annotated[
        bool, typer.Option("--fixed-signs", help="Keep every sign: the control.")
    ] = False,
    amp: Annotated[str | None, typer.Option(help="bf16 computes activations in bfloat16.")] = None,
    accumulate: Annotated[int, typer.Option(min=1, help="Batches per optimiser step.")] = 1,
    importance: Annotated[
        str | None, typer.Option(help="Weigh errors by 'inputs' or 'gradients' of the data.")
    ] = None,
    seed: Seed = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the newest checkpoint in the folder.")
    ] = False,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...; auto takes the best.")] = "auto",
    json: Json = None,
) -> None:
    """Cluster, train codebooks and signs, and write one container; resumable."""
    from signbook.files import write_json
    from signbook.training import finetune_named
    from vq.finetune import Rates

    document = finetune_named(
        model,
        recipe,
        data,
        out,
        weights=weights,
        epochs=epochs,
        rates=Rates(rate_signs, rate_codebooks, rate_rest),
        teacher=teacher,
        fixed_signs=fixed_signs,
        amp=amp,
        accumulate=accumulate,
        importance=importance,
        seed=seed,
        resume=resume,
        device=device,
    )
    _print_run(document)
    losses = document["run"]["losses"]
    _print_rows("training", [("loss, first epoch", _text(losses[0])), ("last", _text(losses[-1]))])
    if json is not None:
        write_json(json, document)


@app.command()
def inspect(
    file: Annotated[Path, typer.Argument(help="A *.vq.safetensors file.")],
    json: Json = None,
) -> None:
    """Show what a container holds and account for every byte."""
    from signbook.files import write_json
    from signbook.inspection import inspect_file

    document = inspect_file(file)
    columns = ("name", "method", "weights", "d", "k", "stream_bytes", "codebook_bytes",
               "scale_bytes", "padding_bytes", "bits_per_weight")  # fmt: skip
    _print_table(str(file), columns, document["layers"])
    _print_rows("total", [(k, _text(v)) for k, v in document.items() if not isinstance(v, list)])
    if json is not None:
        write_json(json, document)


@app.command("eval")
def evaluate(
    model: Annotated[str, typer.Argument(help=MODEL_HELP)],
    data: Annotated[str, typer.Option(help="py:package.module:factory, which gives a task.")],
    weights: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Uncompressed weights of the model.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A *.vq.safetensors file to evaluate.")
    ] = None,
    reference: Annotated[
        bool, typer.Option("--reference", help="Compare FILE with the uncompressed model.")
    ] = False,
    integer: Annotated[
        bool, typer.Option("--integer", help="Run FILE's integer graph, as the hardware does.")
    ] = False,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...; auto takes the best.")] = "auto",
    json: Json = None,
) -> None:
    """Measure a model, or a compressed file beside the model it was made from.

    For example: eval py:signbook.zoo.resnet:resnet20 --weights resnet20.th --file
    r20.vq.safetensors --data py:signbook.data:cifar10_exact
    """
    from signbook.evaluation import evaluate_named
    from signbook.files import write_json

    found = evaluate_named(
        model,
        data,
        weights=weights,
        file=file,
        reference=reference,
        integer=integer,
        device=device,
    )
    beside = found.reference
    rows = [
        {"metric": name, "value": f"{value:.5g}"}
        | ({"reference": f"{beside.get(name, ''):.5}"} if beside else {})
        for name, value in found.metrics.items()
    ]
    _print_table(f"{file or model} on {data}", list(rows[0]), rows)
    if json is not None:
        write_json(json, found.document(with_reference=reference))


@app.command()
def integer(
    model: Annotated[str, typer.Argument(help=MODEL_HELP)],
    file: Annotated[Path, typer.Option(metavar="FILE", help="A *.vq.safetensors file of it.")],
    data: Annotated[str, typer.Option(help="Calibration data: py:package.module:factory.")],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write here and leave FILE as it is.")
    ] = None,
    choice: Annotated[
        str, typer.Option(help="How activation scales are chosen: mse, percentile or max.")
    ] = "mse",
    batches: Annotated[int, typer.Option(min=1, help="Calibration batches to use.")] = 4,
    json: Json = None,
) -> None:
    """Store a compressed model's integer graph in its file: int8 activations, int32 sums."""
    from signbook.files import write_json
    from signbook.integer import integer_named

    document = integer_named(model, file, data, out=out, choice=choice, batches=batches)
    rows = [{**row, "step": f"{row['step']:.4g}"} for row in document["nodes"]]
    _print_table(str(out or file), ("name", "op", "shape", "relu", "macs", "step"), rows)
    if json is not None:
        write_json(json, document)


@app.command()
def export(
    file: Annotated[Path, typer.Argument(help="A *.vq.safetensors file.")],
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
    dtype: Annotated[str, typer.Option(help="Of dense weights: fp32, bf16 or fp16.")] = "fp32",
    model: Annotated[
        str | None, typer.Option(help="For onnx and for transformers: " + MODEL_HELP)
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="For onnx: data whose first batch has the input's shape.")
    ] = None,
    base: Annotated[int, typer.Option(min=0, help="For dram: address of the image.")] = 0,
    dense_others: Annotated[
        bool,
        typer.Option(
            "--dense-others", help="For transformers: layers that it cannot hold become dense."
        ),
    ] = False,
    json: Json = None,
) -> None:
    """Write a container as dense weights, as ONNX, as an accelerator's memory, or repacked."""
    from signbook.exporting import export_named
    from signbook.files import write_json

    document = export_named(
        file, to, out, dtype=dtype, model=model, data=data, base=base, dense_others=dense_others
    )
    _print_rows(
        f"{to} of {file}", [(row["file"], _text(row["bytes"])) for row in document["written"]]
    )
    if json is not None:
        write_json(json, document)


@app.command()
def rtl(
    out: Annotated[Path, typer.Option(help="Folder for the Verilog and its manifest.")],
    settings: Settings = None,
    rom: Rom = None,
    weights_only: Annotated[
        bool, typer.Option("--weights-only", help="The streamer of decoded weights alone.")
    ] = False,
    report: Annotated[
        bool,
        typer.Option(
            "--report",
            help="Also synthesise it for an ECP5: area by block, what the decoder adds to an "
            "accelerator for int8, and then clocks. The first time areas take many minutes, clocks "
            "hours.",
        ),
    ] = False,
    json: Json = None,
) -> None:
    """Generate the accelerator as Verilog, with a manifest and a map of its registers."""
    from rtl import AcceleratorConfig, StreamerConfig, top_of, write_verilog
    from signbook.files import make_folder, write_json

    if weights_only and report:
        raise ConfigError("--report must stand without --weights-only: it reports on accelerators")
    if json is not None and not report:
        raise ConfigError("--json must stand beside --report: it is where the report goes")
    kind = StreamerConfig if weights_only else AcceleratorConfig
    config = kind.from_mapping(_mapping(settings, rom))
    typer.echo(write_verilog(config, make_folder(out) / f"{top_of(config)}.v"))
    if not (report and isinstance(config, AcceleratorConfig)):
        return
    from rtl.report import CORE, area_report, area_table, clock_report, clock_table

    with Console(stderr=True).status("synthesis") as status:
        area = area_report(config, progress=status.update)
        typer.echo(area_table(area))
        clock = clock_report(config, core=CORE, progress=status.update)
    typer.echo(clock_table(clock))
    if json is not None:
        write_json(json, area | clock)


@app.command()
def simulate(
    file: Annotated[Path, typer.Argument(help="A *.vq.safetensors file.")],
    settings: Settings = None,
    rom: Rom = None,
    memory: Annotated[str, typer.Option(help=MEMORY_HELP)] = "ideal:bytes_per_cycle=16,latency=20",
    rows: Annotated[
        int | None,
        typer.Option(
            help="Rows of random activations for each layer on its own. Left out, a file with an "
            "integer graph runs as a network, any other with one row."
        ),
    ] = None,
    methods: Annotated[
        str, typer.Option(help="Baselines to run beside the file, or 'none'.")
    ] = "int8",
    json: Json = None,
) -> None:
    """Run a container on the RTL under Verilator and measure bytes and cycles."""
    from rtl import AcceleratorConfig
    from signbook.files import write_json
    from signbook.streaming import stream

    document = stream(
        file,
        config=AcceleratorConfig.from_mapping(_mapping(settings, rom)),
        memory=memory,
        rows=rows,
        methods=() if methods == "none" else tuple(methods.split(",")),
    )
    columns = ("name", "method", "weights", "bytes_read", "cycles", "busy_cycles")
    for name, one in document["runs"].items():
        _print_table(f"{name}, RTL", columns, one["layers"])
        totals = ("cycles", "bytes_read", "bursts", "busy_cycles", "bit_exact", "wall_seconds")
        _print_rows(name, [(key, _text(one[key])) for key in totals])
    _print_rows("ratios", [(key, _text(document[key])) for key in ("speedup", "traffic_ratio")])
    if json is not None:
        write_json(json, document)


def _mapping(settings: list[str] | None, rom: Path | None) -> dict[str, str]:
    """Read KEY=VALUE settings of a command line; the codebook of a file is one of them."""
    pairs = [setting.partition("=") for setting in settings or []]
    for setting, equals, _ in pairs:
        if not equals:
            raise ConfigError(f"--set must be KEY=VALUE, not {setting!r}")
    values = {key.strip(): value.strip() for key, _, value in pairs}
    if rom is not None:
        from rtl import read_rom, rom_text

        if "codebook_rom" in values:
            raise ConfigError("--rom must stand without --set codebook_rom: it is the same setting")
        values["codebook_rom"] = rom_text(read_rom(rom))
    return values


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.3f}"
    return f"{value:,}" if type(value) is int else str(value)


def _print_run(document: dict[str, Any]) -> None:
    columns = ("name", "method", "weights", "bits_per_weight", "relative_error")
    _print_table("compressed layers", columns, document["layers"])
    totals = ("file", "file_bytes", "bits_per_weight")
    _print_rows("total", [(key, _text(document[key])) for key in totals])


def _print_rows(title: str, rows: Sequence[tuple[str, str]]) -> None:
    table = Table(title=title, title_justify="left", show_header=False)
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def _print_table(title: str, columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    table = Table(title=title, title_justify="left")
    for column in columns:
        numeric = bool(rows) and isinstance(rows[0][column], int | float)
        table.add_column(column, justify="right" if numeric else "left")
    for row in rows:
        table.add_row(*(_text(row[column]) for column in columns))
    Console().print(table)
