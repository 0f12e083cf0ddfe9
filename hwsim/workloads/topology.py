"""SCALE-Sim topology files: layer tables as CSV, of convolutions or of matrix products.

The first line that is not empty names the columns. A row ends with a comma, which that tool needs;
columns behind the known ones are ignored. Nothing is padded there: sizes are those of the padded
input, and windows that reach beyond it count (the quotient is rounded up). That tool reads columns
by their place: tables such as DeepBench's, which name the width twice, hold height, then width.
"""

import csv
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hwsim.workloads.layer import WorkloadLayer
from hwsim.workloads.network import Workload
from vq.container import ConfigError, atomic_file, bulleted
from vq.text.files import read_text

__all__ = ["read_topology", "write_topology"]

_CONV = (
    "ifmap height", "ifmap width", "filter height", "filter width", "channels", "num filter",
    "strides",
)  # fmt: skip
_GEMM = ("M", "N", "K")
_TITLES = [name.title().replace("Ifmap", "IFMAP") for name in _CONV]
_LARGEST = 2**32
#: What that tool looks for in a name to take a row for a depthwise convolution.
_DEPTHWISE = "DP"


@dataclass(frozen=True)
class _Row:
    line: int
    name: str
    numbers: tuple[int, ...]
    sparsity: str
    batch: int


def read_topology(path: str | os.PathLike[str]) -> Workload:
    """Read a topology file; its header says whether rows are convolutions or ``M, N, K``.

    A convolution whose filter spans one row of a single channel is a matrix product in that tool,
    and becomes a linear. A row with ``DP`` in its name is a depthwise convolution, as there. Names
    that repeat get a number. A batch multiplies the rows of a linear. Sparsity is noted, and the
    layer taken as dense. A line with a name alone is a heading, and skipped.

    Raises
    ------
    ConfigError
        If the file cannot be read as such a table: every problem with its line and column.
    """
    path = Path(path)
    text = read_text(path, str(path))
    reader = csv.reader(text.split("\n"), skipinitialspace=True, strict=True)
    try:
        lines = [(reader.line_num, [cell.strip() for cell in line]) for line in reader]
    except csv.Error:
        raise ConfigError(
            f"{path}: line {reader.line_num}: must be comma-separated values, but a quotation in "
            "it does not end, ends before a comma, or is too long"
        ) from None
    table = [(number, cells) for number, cells in lines if any(cells)]
    if not table:
        raise ConfigError(f"{path}: must begin with a line of column names, not be empty")
    gemm, extras = _header(path, *table[0])
    problems: list[str] = []
    rows = [_row(*line, gemm, extras, problems) for line in table[1:]]
    names: Counter[str] = Counter()
    layers = []
    for row in rows:
        if row is not None:
            names[row.name] += 1
            number = names[row.name]
            unique = row.name if number == 1 else f"{row.name}:{number}"
            try:
                layers.append((_gemm if gemm else _conv)(row, unique))
            except ConfigError as error:
                problems += [f"line {row.line}: {p}" for p in _listed(error)]
    if not layers and not problems:
        problems.append("rows must be at least one, not none")
    if problems:
        raise ConfigError(bulleted(f"{path}: topology", problems))
    return Workload(path.stem, tuple(layers), source=f"SCALE-Sim topology {path.name}")


def _header(path: Path, line: int, cells: Sequence[str]) -> tuple[bool, dict[str, int]]:
    """Whether rows are M, N, K; and at which columns a sparsity or a batch lies."""
    names = [re.sub(r"[^a-z]+", " ", cell.lower()).strip() for cell in cells]
    gemm = names[1:4] == ["m", "n", "k"]
    for pair in (slice(1, 3), slice(3, 5)):
        sides = names[pair]
        if len(set(sides)) == 1 and sides[0] in _CONV:  # one side's name for both: see above
            names[pair] = [sides[0].split()[0] + side for side in (" height", " width")]
    if not gemm:
        for column, want in enumerate(_CONV, 1):
            given = names[column] if column < len(names) else ""
            # "Stride" is written with and without s, "Num Filter" likewise.
            if given.rstrip("s") != want.rstrip("s"):
                raise ConfigError(
                    f"{path}: line {line}, column {column + 1}: must be named {want!r}, or "
                    f"the table be Layer, M, N, K, not {cells[column] if given else ''!r}"
                )
    first = 1 + len(_GEMM if gemm else _CONV)
    extras = {}
    for column, name in enumerate(names[first:], first):
        kind = next((k for k in ("sparsity", "batch") if name.startswith(k)), None)
        if kind is not None:
            extras[kind] = column
    return gemm, extras


def _row(
    line: int, cells: Sequence[str], gemm: bool, extras: dict[str, int], problems: list[str]
) -> _Row | None:
    """Read one line; what is wrong with it is appended to ``problems``."""
    if not any(cells[1:]):
        return None
    columns = _GEMM if gemm else _CONV
    at = f"line {line}, column"
    before = len(problems)
    if not cells[0]:
        problems.append(f"{at} 1 (layer name): must be text, not empty")
    numbers = []
    for column, name in enumerate(columns, 1):
        numbers.append(_number(cells, column, f"{at} {column + 1} ({name})", problems))
    sparsity = ""
    # A ratio is known by its form even where the header does not name it.
    column = extras.get("sparsity", len(columns) + 1)
    given = cells[column] if column < len(cells) else ""
    if "sparsity" in extras or ":" in given:
        ratio = re.fullmatch(r"(\d{1,4}) *: *(\d{1,4})", given or "1:1")
        if ratio is None or not 1 <= int(ratio[1]) <= int(ratio[2]):
            problems.append(
                f"{at} {column + 1} (sparsity): must be a ratio N:M with N from 1 to M, "
                f"not {given!r}"
            )
        elif int(ratio[1]) < int(ratio[2]):
            sparsity = f"{int(ratio[1])}:{int(ratio[2])}"
    batch = 1
    if "batch" in extras and any(cells[extras["batch"] : extras["batch"] + 1]):
        column = extras["batch"]
        batch = _number(cells, column, f"{at} {column + 1} (batch size)", problems)
        if batch > 1 and not gemm:
            problems.append(f"{at} {column + 1} (batch size): must be 1, not {batch}")
    if len(problems) > before:
        return None
    return _Row(line, cells[0], tuple(numbers), sparsity, batch)


def _number(cells: Sequence[str], column: int, at: str, problems: list[str]) -> int:
    given = cells[column] if column < len(cells) else ""
    if re.fullmatch(r"\+?[0-9]{1,18}", given) and 1 <= int(given) < _LARGEST:
        return int(given)
    problems.append(
        f"{at}: must be a whole number from 1 to {_LARGEST - 1}, not {given!r}"
        if given
        else f"{at}: must be a whole number, not missing"
    )
    return 1


def _gemm(row: _Row, name: str) -> WorkloadLayer:
    m, n, k = row.numbers
    return _linear(row, name, m * row.batch, n, k)


def _linear(row: _Row, name: str, m: int, n: int, k: int) -> WorkloadLayer:
    return WorkloadLayer(name, "linear", k, n, rows=m, note=_note(row))


def _conv(row: _Row, name: str) -> WorkloadLayer:
    height, width, kernel_y, kernel_x, channels, filters, stride = row.numbers
    if (kernel_y, kernel_x, channels, stride) == (1, width, 1, 1) and width > 1:
        return _linear(row, name, height, filters, width)
    if kernel_y > height or kernel_x > width:
        raise ConfigError(
            f"filter of {kernel_y} x {kernel_x} must fit the input of {height} x {width}"
        )
    depthwise = _DEPTHWISE in row.name
    return WorkloadLayer(
        name,
        "conv2d",
        channels,
        filters * channels if depthwise else filters,
        height=height,
        width=width,
        kernel=(kernel_y, kernel_x),
        stride=(stride, stride),
        padding=((0, -(height - kernel_y) % stride), (0, -(width - kernel_x) % stride)),
        groups=channels if depthwise else 1,
        note=_note(row),
    )


def _note(row: _Row) -> str:
    return f"{row.sparsity} sparse in the file, taken as dense" if row.sparsity else ""


def _listed(error: ConfigError) -> list[str]:
    """The problems of an error, without their heading."""
    first, *rest = str(error).split("\n- ")
    return rest or [first]


def write_topology(workload: Workload, path: str | os.PathLike[str]) -> list[str]:
    """Write the layers with products as a topology file, every repetition as rows.

    Of linears and matmuls alone the table is ``M, N, K``, else one of convolutions, in which a
    matrix product is a filter that spans one row. Padding enlarges the input. A grouped
    convolution becomes a row for each group; a depthwise one, one row, marked as that tool wants.

    Returns
    -------
    list of str
        Names of the layers that are left out because they have no products.

    Raises
    ------
    ConfigError
        If a convolution has dilation or unequal strides, which the table cannot say; all of them
        are named.
    OutputError
        If the file cannot be written.
    """
    problems = [
        f"layer {layer.name!r}: {what} must be {want}, not {given}"
        for layer in workload.layers
        if layer.op.startswith("conv")
        for what, want, given, fits in (
            ("dilation", "1", layer.dilation, layer.dilation == (1, 1)),
            ("strides", "equal", layer.stride, layer.stride[0] == layer.stride[1]),
        )
        if not fits
    ]
    if problems:
        raise ConfigError(bulleted(f"workload {workload.name!r} as a topology", problems))
    layers = workload.expanded().layers
    with_products = [layer for layer in layers if layer.macs]
    gemm = all(not layer.op.startswith("conv") for layer in with_products)
    header: list[str | int] = ["Layer", *_GEMM] if gemm else ["Layer name", *_TITLES]
    table = [header, *(row for layer in with_products for row in _rows(layer, gemm))]
    with atomic_file(path) as file:
        file.write("".join(", ".join(map(str, row)) + ",\n" for row in table).encode())
    return [layer.name for layer in layers if not layer.macs]


def _rows(layer: WorkloadLayer, gemm: bool) -> list[list[str | int]]:
    name = re.sub(r"[,\"\r\n]", "_", layer.name)
    if layer.op.startswith("conv"):
        # That tool rounds up where a window reaches beyond the input: cut what no window sees.
        size = [
            (out - 1) * stride + kernel
            for out, stride, kernel in zip(
                (layer.out_height, layer.out_width), layer.stride, layer.kernel, strict=True
            )
        ]
        channels, filters = layer.inputs // layer.groups, layer.outputs // layer.groups
        rest: list[str | int] = [*size, *layer.kernel]
        if layer.groups > 1 and channels == 1:
            return [[f"{_DEPTHWISE}_{name}", *rest, layer.inputs, filters, layer.stride[0]]]
        plain = name.replace(_DEPTHWISE, _DEPTHWISE.lower())
        names = [plain] if layer.groups == 1 else [f"{plain}/{g}" for g in range(layer.groups)]
        return [[each, *rest, channels, filters, layer.stride[0]] for each in names]
    name = name.replace(_DEPTHWISE, _DEPTHWISE.lower())
    m, n, k = layer.rows, layer.outputs, layer.inputs
    names = [name] if layer.groups == 1 else [f"{name}/{g}" for g in range(layer.groups)]
    return [[each, m, n, k] if gemm else [each, m, k, 1, k, 1, n, 1] for each in names]
