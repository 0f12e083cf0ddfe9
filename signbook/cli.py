"""The command line: each command calls one Python function and prints what it returns."""

import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change one accelerator setting (bus_bits=128, array=16x16, ...) or its clock_mhz, "
        "which DRAM needs; repeatable.",
    ),
]
Accelerator = Annotated[
    Path | None,
    typer.Option(metavar="FILE.yaml", help="Accelerator settings by name; --set wins."),
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
_WARNINGS = 3
_STATUSES = ("done", "refused", "failed")
MODEL_HELP = "timm:NAME, hf:PATH_OR_ID or py:package.module:factory."
ROWS_HELP = (
    "Rows of random activations for each layer on its own. Left out, a file with an integer graph "
    "runs as a network, any other with one row."
)
DEFAULT_MEMORY = "ideal:bytes_per_cycle=16,latency=20"
MEMORY_HELP = (
    "Memory model: ideal:bytes_per_cycle=16,latency=20, a DRAM (ddr4-2400, ddr4-3200, lpddr4-3200, "
    "lpddr5-6400, hbm2) or a file.ini of DRAMsim3, with settings such as "
    "ddr4-2400:mapping=rorabacobgch,clock_mhz=500,controller_latency_ns=30."
)
Memory = Annotated[str, typer.Option(help=MEMORY_HELP)]
Methods = Annotated[
    str,
    typer.Option(help="Baselines beside the file: int8, int4, int3, int2 by commas, or 'none'."),
]


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
    from signbook.commands.finetune import plan_named
    from signbook.files import write_json

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
    from signbook.commands.finetune import compress_named
    from signbook.files import write_json

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
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write scalars for it to the folder.")
    ] = False,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...; auto takes the best.")] = "auto",
    json: Json = None,
) -> None:
    """Cluster, train codebooks and signs, and write one container; resumable."""
    from signbook.commands.finetune import finetune_named
    from signbook.files import write_json
    from vq.learning.finetune import Rates

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
        tensorboard=tensorboard,
        device=device,
    )
    _print_run(document)
    losses = document["run"]["losses"]
    _print_rows("training", [("loss, first epoch", _text(losses[0])), ("last", _text(losses[-1]))])
    if json is not None:
        write_json(json, document)


@app.command()
def quantize(
    model: Annotated[str, typer.Argument(help=MODEL_HELP)],
    data: Annotated[str, typer.Option(help="Calibration data: py:package.module:factory.")],
    out: Out,
    method: Annotated[
        str, typer.Option(help="rtn, gptq, gptaq, gptq-r, gptaq-r, exa or foem.")
    ] = "gptq",
    bits: Annotated[
        int | None,
        typer.Option(help="2, 3, 4 (default) or 8, of linears and convolutions."),
    ] = None,
    group: Annotated[
        int | None, typer.Option(min=1, help="Weights that share a scale; 128 by default.")
    ] = None,
    asymmetric: Annotated[
        bool, typer.Option("--asymmetric", help="Store a zero for every group, too.")
    ] = False,
    recipe: Annotated[
        Path | None, typer.Option(metavar="FILE", help="In place of bits, group and asymmetric.")
    ] = None,
    alpha: Annotated[float | None, typer.Option(help="Of the asymmetry: gptaq, gptaq-r.")] = None,
    alpha2: Annotated[float | None, typer.Option(help="Of the drift: gptq-r, gptaq-r.")] = None,
    beta: Annotated[float | None, typer.Option(help="Of exa and foem.")] = None,
    mode: Annotated[str | None, typer.Option(help="allw or org: gptq-r, gptaq-r.")] = None,
    clip: Annotated[
        bool, typer.Option("--clip/--no-clip", help="Search for narrower ranges.")
    ] = False,
    activation_order: Annotated[
        bool,
        typer.Option(
            "--activation-order/--no-activation-order", help="Round inputs of high energy first."
        ),
    ] = True,
    dynamic_groups: Annotated[
        bool,
        typer.Option(
            "--dynamic-groups",
            help="Take a group's scale when its turn comes; needs --no-activation-order.",
        ),
    ] = False,
    damping: Annotated[float, typer.Option(help="In units of the mean diagonal.")] = 0.01,
    measure: Annotated[
        bool,
        typer.Option(
            "--measure/--no-measure",
            help="Report errors; without, rtn, gptq, gptq-r and foem run one model, not two.",
        ),
    ] = True,
    rotate: Annotated[
        bool, typer.Option("--rotate", help="Rotate a model built like Llama first.")
    ] = False,
    activation_bits: Annotated[
        int | None, typer.Option(help="Round the layers' inputs while calibrating, 2 to 8 bits.")
    ] = None,
    weights: Weights = None,
    batches: Annotated[int, typer.Option(min=1, help="Calibration batches to use.")] = 16,
    offload: Annotated[
        bool, typer.Option("--offload", help="Keep hidden states on the CPU between blocks.")
    ] = False,
    seed: Seed = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Take finished blocks from the folder.")
    ] = False,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...; auto takes the best.")] = "auto",
    json: Json = None,
) -> None:
    """Quantise to a few bits on calibration data, block by block, and write one container."""
    from rescomp import Clip
    from rescomp import Settings as Solver
    from signbook.commands.quantize import quantize_named
    from signbook.files import write_json

    settings = Solver(
        damping,
        activation_order,
        dynamic_groups,
        clip=Clip() if clip else None,
        measure=measure,
    )
    try:
        with _warnings_in_short():
            document = quantize_named(
                model,
                data,
                out,
                method=method,
                options={"alpha": alpha, "alpha2": alpha2, "beta": beta, "mode": mode},
                bits=bits,
                group=group,
                asymmetric=asymmetric,
                recipe=recipe,
                settings=settings,
                rotate=rotate,
                activation_bits=activation_bits,
                weights=weights,
                batches=batches,
                offload=offload,
                seed=seed,
                device=device,
                resume=resume,
            )
    except KeyboardInterrupt:
        typer.echo(
            f"interrupted; every finished block is in {out}: the same command with --resume goes "
            "on from there",
            err=True,
        )
        raise typer.Exit(130) from None
    errors = ("error", "asymmetric_error")
    rows = [
        layer | {key: "" if layer[key] is None else f"{layer[key]:.3g}" for key in errors}
        for layer in document["layers"]
    ]
    _print_table("quantised layers", ("name", "method", "bits_per_weight", *errors, "tokens"), rows)
    totals = ("file", "file_bytes", "bits_per_weight", "seconds")
    facts = [(key, _text(document[key])) for key in totals]
    if dead := sum(layer["dead_columns"] for layer in rows):
        facts.append(("dead inputs", f"{dead:,}: always 0 in the data, their weights are 0 now"))
    if raised := [layer["name"] for layer in rows if layer["damping"] > damping]:
        facts.append(("raised damping", ", ".join(raised)))
    _print_rows("total", facts)
    if json is not None:
        write_json(json, document)


@app.command()
def inspect(
    file: Annotated[Path, typer.Argument(help="A *.vq.safetensors file.")],
    json: Json = None,
) -> None:
    """Show what a container holds and account for every byte."""
    from signbook.commands.inspect import inspect_file
    from signbook.files import write_json

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
    activation_bits: Annotated[
        int | None,
        typer.Option(help="Round the inputs of the linear layers (FILE's, if given), 2 to 8 bits."),
    ] = None,
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
        activation_bits=activation_bits,
        device=device,
    )
    beside = found.reference
    rows = [
        {"metric": name, "value": f"{value:.5g}"}
        | ({"reference": f"{beside.get(name, ''):.5}"} if beside else {})
        for name, value in found.metrics.items()
    ]
    _print_table(f"{file or model} on {data}", list(rows[0]), rows)
    if found.protocol is not None:
        _print_rows("protocol", [(key, _text(value)) for key, value in found.protocol.items()])
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
    from signbook.commands.integer import integer_named
    from signbook.files import write_json

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
    from signbook.commands.export import export_named
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
    accelerator: Accelerator = None,
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
    from signbook.commands.accelerator import read_settings
    from signbook.files import make_folder, write_json

    if weights_only and report:
        raise ConfigError("--report must stand without --weights-only: it reports on accelerators")
    if json is not None and not report:
        raise ConfigError("--json must stand beside --report: it is where the report goes")
    kind = StreamerConfig if weights_only else AcceleratorConfig
    values, _ = read_settings(accelerator, settings, rom)  # Verilog has no clock rate
    config = kind.from_mapping(values)
    typer.echo(write_verilog(config, make_folder(out) / f"{top_of(config)}.v"))
    if not (report and isinstance(config, AcceleratorConfig)):
        return
    from rtl.build.report import CORE, area_report, area_table, clock_report, clock_table

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
    accelerator: Accelerator = None,
    settings: Settings = None,
    rom: Rom = None,
    memory: Memory = DEFAULT_MEMORY,
    rows: Annotated[int | None, typer.Option(help=ROWS_HELP)] = None,
    methods: Methods = "int8",
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Require that the cycle model counts the same, counter by counter."
        ),
    ] = False,
    json: Json = None,
) -> None:
    """Run a container on the RTL under Verilator and measure bytes, cycles and energy.

    The file's own bytes are the memory, and every output is compared with numpy's. The baselines
    are the same layers on the same hardware, memory and activations. The first run of a
    configuration builds its simulator, which takes a minute or two.

    For example: simulate model.vq.safetensors --memory ddr4-2400 --set clock_mhz=800 --methods
    int8,int4 --check
    """
    from rtl import AcceleratorConfig
    from signbook.commands.accelerator import read_settings
    from signbook.commands.simulate import stream

    values, clock = read_settings(accelerator, settings, rom)
    document = stream(
        file,
        config=AcceleratorConfig.from_mapping(values),
        memory=_clocked(memory, clock),
        rows=rows,
        methods=_methods(methods),
        check=check,
    )
    _print_document(f"{file}, RTL", document, json)
    if check:
        runs = len(document["runs"])
        near = "" if document["memory"]["name"] == "ideal" else ", cycles within 1 %"
        typer.echo(f"cycle model: all counters agree in {runs} run{'s' * (runs > 1)}{near}")


@app.command()
def estimate(
    target: Annotated[
        str,
        typer.Argument(
            help="A *.vq.safetensors file, or the text of a workload: deit-tiny, "
            "llama-2-7b:m=1,context=512, minilm-l6:tokens=128, resnet-20, a SCALE-Sim topology.csv."
        ),
    ],
    recipe: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="Of a workload: ssvq:d=8,k=16, vq:d=4,k=256, int4, ... for all its layers, or a "
            "YAML file of patterns. With one, a file stands for its shapes alone.",
        ),
    ] = None,
    accelerator: Accelerator = None,
    settings: Settings = None,
    rom: Rom = None,
    memory: Memory = DEFAULT_MEMORY,
    rows: Annotated[
        int | None,
        typer.Option(help=ROWS_HELP + " The text of a workload says its own rows."),
    ] = None,
    methods: Methods = "int8",
    json: Json = None,
) -> None:
    """Predict what simulate would measure, in seconds and for networks of any size.

    The cycle model steps the same control without data. With an ideal memory every counter equals
    the RTL's. Of a workload, what the accelerator does not run (attention, norms, activations) is
    counted apart, and once more as part of the whole.

    For example: estimate minilm-l6:tokens=1 --recipe ssvq:d=8,k=16 --memory lpddr4-3200 --methods
    int8,int4
    """
    from rtl import AcceleratorConfig
    from signbook.commands.accelerator import read_settings
    from signbook.commands.simulate import foresee

    values, clock = read_settings(accelerator, settings, rom)
    document = foresee(
        target,
        recipe=recipe,
        config=AcceleratorConfig.from_mapping(values),
        memory=_clocked(memory, clock),
        rows=rows,
        methods=_methods(methods),
    )
    _print_document(f"{target}, cycle model", document, json)


def _clocked(memory: str, clock_mhz: str | None) -> str:
    from hwsim.memory.clock import memory_at

    return memory if clock_mhz is None else memory_at(memory, clock_mhz)


def _methods(text: str) -> tuple[str, ...]:
    if text == "none":
        return ()
    return tuple(dict.fromkeys(method.strip() for method in text.split(",")))


def _print_document(title: str, document: dict[str, Any], json: Path | None) -> None:
    from signbook.commands.tables import layer_rows, rest_rows, run_rows, summary_rows
    from signbook.files import write_json

    heading, layers = layer_rows(document)
    _print_table(f"{title}: {heading}", list(layers[0]), layers)
    runs = run_rows(document)
    _print_table(f"{title}: runs", list(runs[0]), runs)
    if rest := rest_rows(document):
        _print_table("not run by the accelerator", list(rest[0]), rest)
    _print_rows("ratios", summary_rows(document))
    if json is not None:
        write_json(json, document)


@app.command()
def sweep(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the sweep; made if missing.")],
    targets: Annotated[
        list[str] | None,
        typer.Argument(help="*.vq.safetensors files, or workloads such as deit-tiny."),
    ] = None,
    space: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The space in YAML; options take the place of its axes."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=V,V", help="Values of one accelerator setting; repeatable."
        ),
    ] = None,
    memory: Annotated[list[str] | None, typer.Option(help=MEMORY_HELP + " Repeatable.")] = None,
    recipe: Annotated[
        list[str] | None,
        typer.Option(help="For workloads: ssvq:d=8,k=16, int4, or a YAML file. Repeatable."),
    ] = None,
    rows: Annotated[
        str | None, typer.Option(metavar="M,M", help="For files: rows of activations, as simulate.")
    ] = None,
    engine: Annotated[
        str | None, typer.Option(help="model (the default) or rtl, for files.")
    ] = None,
    search: Annotated[
        int | None,
        typer.Option(metavar="TRIALS", help="Let optuna choose points instead of taking all."),
    ] = None,
    objective: Annotated[
        list[str] | None,
        typer.Option(help="What points are compared by; repeatable. By default cycles, area_macs."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Points at once; by default one for each processor.")
    ] = None,
    dask: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Scheduler of a Dask cluster to run on.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of a search.")] = 0,
    retries: Annotated[
        int, typer.Option(help="How often a point whose worker process died is tried again.")
    ] = 1,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the sweep that the folder holds.")
    ] = False,
    json: Json = None,
) -> None:
    """Measure many accelerators, memories and recipes, and find those that no other one beats.

    For example: sweep deit-tiny --out DIR --recipe ssvq:d=8,k=16 --set array=16x16,32x32
    --memory ddr4-2400 --memory lpddr5-6400. Whatever stops it, --resume goes on.
    """
    from signbook.commands.sweep import front_table, sweep_named
    from signbook.files import write_json

    try:
        document = sweep_named(
            targets or (),
            out,
            space=space,
            engine=engine,
            settings=settings or (),
            memories=memory or (),
            recipes=recipe or (),
            rows=rows,
            objectives=objective or (),
            search=search,
            workers=workers,
            dask=dask,
            seed=seed,
            retries=retries,
            resume=resume,
        )
    except KeyboardInterrupt:
        typer.echo(
            f"interrupted; every finished point is in {out}: the same command with --resume goes "
            "on from there",
            err=True,
        )
        raise typer.Exit(130) from None
    table = front_table(document)
    if table:
        _print_table("front: " + ", ".join(document["objectives"]), list(table[0]), table)
    counts = [(s, sum(row["status"] == s for row in document["rows"])) for s in _STATUSES]
    _print_rows("points", [(status, _text(count)) for status, count in counts])
    if json is not None:
        write_json(json, document)


@app.command()
def report(
    documents: Annotated[
        list[Path],
        typer.Argument(
            metavar="DOCUMENT.json...", help="What simulate, estimate and sweep wrote by --json."
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The page to write.")],
) -> None:
    """Write one HTML page about any number of documents: plots, tables, and no other file."""
    from signbook.report import write_report

    write_report(documents, out)
    typer.echo(f"report: {out}")


@contextmanager
def _warnings_in_short() -> Iterator[None]:
    """Show warnings when the work is done, a line each, and of many the first ones."""
    with warnings.catch_warnings(record=True) as caught:
        yield
    texts = list(dict.fromkeys(str(warning.message) for warning in caught))
    for text in texts[:_WARNINGS]:
        typer.echo(f"warning: {text}", err=True)
    if len(texts) > _WARNINGS:
        typer.echo(f"warning: {len(texts) - _WARNINGS} more like these", err=True)


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
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_text(row[column]) for column in columns))
    Console().print(table)
