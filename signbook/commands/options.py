"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from signbook.commands.defaults import Defaults
from signbook.commands.printing import is_standard, keep_output

__all__ = [
    "DEVICE",
    "MEMORY",
    "MEMORY_HELP",
    "METHODS",
    "MODEL_HELP",
    "ROWS_HELP",
    "SEED",
    "Accelerator",
    "Activations",
    "Book",
    "Device",
    "File",
    "Importance",
    "Json",
    "Memory",
    "Methods",
    "Model",
    "Norms",
    "Out",
    "Packed",
    "Recipe",
    "Rom",
    "Seed",
    "Settings",
    "Tokenizer",
    "Weights",
]

MODEL_HELP = "timm:NAME, hf:PATH_OR_ID, diffusers:PATH or py:package.module:factory."
ROWS_HELP = (
    "Rows of random activations for each layer on its own. Left out, a file with an integer graph "
    "runs as a network, any other with one row."
)
MEMORY_HELP = (
    "Memory model: ideal:bytes_per_cycle=16,latency=20, a DRAM (ddr4-2400, ddr4-3200, lpddr4-3200, "
    "lpddr5-6400, hbm2) or a file.ini of DRAMsim3, with settings such as "
    "ddr4-2400:mapping=rorabacobgch,clock_mhz=500,controller_latency_ns=30."
)

Model = Annotated[str, typer.Argument(help=MODEL_HELP)]
File = Annotated[Path, typer.Argument(help="A *.vq.safetensors file.")]
Tokenizer = Annotated[
    str | None,
    typer.Option(
        help="What the file is to carry: stories260k, smollm2, minilm, a folder or id of "
        "transformers, a file that carries one, or none; by default the model's, if it has one."
    ),
]
Weights = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Weights: safetensors, or a torch file.")
]
Recipe = Annotated[Path, typer.Option(metavar="FILE", help="Patterns and methods, in YAML.")]
Importance = Annotated[
    str | None, typer.Option(help="Weigh errors by 'inputs' or 'gradients' of the data.")
]
Norms = Annotated[
    bool,
    typer.Option(
        "--norms/--no-norms", help="Measure the statistics of batch norms again on the data."
    ),
]
Out = Annotated[Path, typer.Option(metavar="DIR", help="Folder for the files; made if missing.")]


def _keep_output(context: typer.Context, path: Path | None) -> Path | None:
    if is_standard(path):
        context.with_resource(keep_output())
    return path


Json = Annotated[
    Path | None,
    typer.Option(
        "--json",
        metavar="FILE",
        callback=_keep_output,
        help="Also write the result as JSON; - is standard output, and all else is printed to "
        "standard error.",
    ),
]

Seed = Annotated[int, typer.Option(min=0, help="Equal seeds give equal results.")]
SEED: int = Defaults("vq.compress", "compress_").seed
Device = Annotated[str, typer.Option(help="cpu, cuda, ...; auto takes the best.")]
DEVICE: str = Defaults("signbook.evaluation", "evaluate").device

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
        "--rom", metavar="FILE.npy", help="Codebook in ROM for every layer: \\[k, d] int8 of numpy."
    ),
]
Book = Annotated[
    Path | None,
    typer.Option(
        "--rom", metavar="FILE.npy", help="Codebook that the file only names: an array of numpy."
    ),
]
Packed = Annotated[
    bool, typer.Option("--packed", help="Let FILE's layers run from their packed weights.")
]
Activations = Annotated[
    str | None,
    typer.Option(
        help="What packed layers round each token to: int8, int16 or exact; "
        f"{Defaults('vq.inference.modules', 'pack_').activations} by default."
    ),
]
_MEASURED = Defaults("hwsim.measure.simulate", "simulate")
Memory = Annotated[str, typer.Option(help=MEMORY_HELP)]
MEMORY: str = _MEASURED.memory
Methods = Annotated[
    str,
    typer.Option(help="Baselines beside the file: int8, int4, int3, int2 by commas, or 'none'."),
]
METHODS = ",".join(_MEASURED.methods)
