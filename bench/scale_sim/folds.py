"""Closed forms of what SCALE-Sim and our accelerator count for a layer, from its shapes alone.

A layer is M positions times K inputs for each of N outputs. Both tools cut K and N by the array, so
both need as many tiles ("folds" there); what a tile costs beside its M vectors is what differs.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from hwsim.program.records import LayerRecord
from hwsim.workloads import WorkloadLayer
from rtl import AcceleratorConfig

__all__ = ["DATAFLOWS", "Folds", "folds", "our_parts"]

#: Weight, output and input stationary, as SCALE-Sim calls them.
DATAFLOWS = ("ws", "os", "is")


@dataclass(frozen=True)
class Folds:
    """Cycles of one layer in SCALE-Sim without stalls.

    Attributes
    ----------
    vectors : int
        Cycles in which something enters the array.
    load_cycles : int
        In which what stays in the array is loaded, and nothing multiplies; 0 for ``os``.
    skew_cycles : int
        In which the wavefront enters and leaves, once for each fold; one less for each layer,
        because the number of the last cycle is reported. A depthwise convolution is a layer there
        for each of its channels.
    """

    vectors: int
    load_cycles: int
    skew_cycles: int

    @property
    def cycles(self) -> int:
        """As its report has them."""
        return self.vectors + self.load_cycles + self.skew_cycles


def folds(layer: WorkloadLayer, rows: int, columns: int, dataflow: str = "ws") -> Folds:
    """Closed form of SCALE-Sim's cycles on ``rows`` times ``columns`` multipliers.

    Its rows take inputs and its columns outputs (``ws``), positions and outputs (``os``), inputs
    and positions (``is``).
    """
    m, n = layer.positions, layer.outputs // layer.groups
    k = layer.weights // layer.outputs
    down, across, time = {"ws": (k, n, m), "os": (m, n, k), "is": (k, m, n)}[dataflow]
    count = layer.groups * -(-down // rows) * -(-across // columns)
    load = 0 if dataflow == "os" else rows
    return Folds(count * time, count * load, count * (rows + columns - 2) - layer.groups)


def _pieces(layer: WorkloadLayer, columns: int) -> list[int]:
    """Cycles that the walk takes for a vector of each tile of a row of weights.

    A piece ends with the tap of the window, with the word of the buffer, or with the vector.
    Topologies have no groups but those of one channel, which are all alike. An image of which a
    convolution reads patches that do not overlap lies patch by patch: one tap.
    """
    channels, taps = layer.inputs // layer.groups, layer.kernel[0] * layer.kernel[1]
    if layer.kernel == layer.stride and layer.groups == 1 and not any(map(any, layer.padding)):
        channels, taps = channels * taps, 1
    found, lane, pieces = [], 0, 0
    for _ in range(taps):
        channel = 0
        while channel < channels:
            length = min(columns - lane, columns - channel % columns, channels - channel)
            channel, lane, pieces = channel + length, lane + length, pieces + 1
            if lane == columns:
                found.append(pieces)
                lane = pieces = 0
    return [*found, pieces] if pieces else found


def our_parts(
    layer: WorkloadLayer,
    strip_positions: Sequence[int],
    config: AcceleratorConfig,
    record: LayerRecord,
) -> dict[str, int]:
    """Cycles of our accelerator for a layer, by what they are; they sum to ``record.cycles``.

    ``vectors``, ``pieces``, ``requantiser`` and ``ragged tiles`` are closed forms, the others are
    what the cycle model counts.

    Parameters
    ----------
    layer : WorkloadLayer
        With int8 weights.
    strip_positions : sequence of int
        Positions of each descriptor that the layer was cut into.
    config : AcceleratorConfig
    record : LayerRecord
        What the cycle model counts for the layer, all strips together.

    Returns
    -------
    dict of str to int
        ``vectors``: one enters the array. ``pieces``: one is put together from several taps of the
        window. ``requantiser``: a block's last tile gives sums faster than they are requantised,
        but for the last position, which the next tile hides. ``ragged tiles``: a tile that is not
        whole, or of an odd row of weights, comes in parts of beats, and takes longer than the
        vectors of the tile before it. ``rest``: the cycle model's compute stalls less the last
        three, from what layers hide of each other. Then its other stalls.

    Raises
    ------
    SystemExit
        If there are not as many vectors as the closed form says.
    """
    rows, columns = config.rows, config.columns
    k = layer.weights // layer.outputs
    blocks = -(-layer.outputs // rows)
    passes = 1 if layer.groups == 1 else max(1, rows * layer.groups // layer.outputs)
    pieces = _pieces(layer, columns)
    slower = max(0, rows // config.scale_lanes - pieces[-1])
    beat_inputs = config.bus_bits // rows
    at_once = math.gcd(k, beat_inputs)  # inputs of all outputs of a block that is whole
    vectors = 0
    waits = dict.fromkeys(("pieces", "requantiser", "ragged tiles"), 0)
    before = None
    for positions, block in itertools.product(strip_positions, range(blocks)):
        outputs = min(rows, layer.outputs - block * rows)
        of_tile, last_waits = passes * positions, slower * (positions - 1)
        vectors += of_tile * len(pieces)
        waits["pieces"] += of_tile * (sum(pieces) - len(pieces))
        waits["requantiser"] += last_waits
        for tile, cost in enumerate(pieces):
            inputs = min(columns, k - tile * columns)
            if outputs < rows:
                load = outputs // math.gcd(outputs, rows) * inputs
            else:
                load = inputs // at_once if at_once < beat_inputs else 0
            waits["ragged tiles"] += 0 if before is None else max(0, load - before)
            before = of_tile * cost
        before += last_waits
    if vectors != record.busy_cycles:
        raise SystemExit(f"{layer.name}: must be {vectors} vectors, not {record.busy_cycles}")
    stalls = dict(record.stall_cycles)
    rest = stalls.pop("compute") - sum(waits.values())
    return {"vectors": vectors, **waits, "rest": rest, **stalls}
