"""Closed forms of what SCALE-Sim and our accelerator count for a layer, from its shapes alone.

A layer is M positions times K inputs for each of N outputs. Both tools cut K and N by the array, so
both need as many tiles ("folds" there); what a tile costs beside its M vectors is what differs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from hwsim.run import LayerRecord
from hwsim.workloads import WorkloadLayer
from rtl import AcceleratorConfig

__all__ = ["DATAFLOWS", "REST", "Folds", "causes", "compute_causes", "folds"]

#: Weight, output and input stationary, as SCALE-Sim calls them.
DATAFLOWS = ("ws", "os", "is")
#: What the closed forms of our side leave to the cycle model, in the places of overlap.
REST = "compute, rest"


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
        In which the wavefront enters and leaves, once for each fold.
    runs : int
        Layers that this one is there: 1, or one for each channel of a depthwise convolution. The
        number of the last cycle is reported, which is one less than there are.
    """

    vectors: int
    load_cycles: int
    skew_cycles: int
    runs: int

    @property
    def cycles(self) -> int:
        """As its report has them."""
        return self.vectors + self.load_cycles + self.skew_cycles - self.runs


def _sizes(layer: WorkloadLayer) -> tuple[int, int, int]:
    """M, N and K of one group of channels."""
    return layer.positions, layer.outputs // layer.groups, layer.weights // layer.outputs


def folds(layer: WorkloadLayer, rows: int, columns: int, dataflow: str = "ws") -> Folds:
    """Closed form of SCALE-Sim's cycles on ``rows`` times ``columns`` multipliers.

    Its rows take inputs and its columns outputs (``ws``), positions and outputs (``os``), inputs
    and positions (``is``).
    """
    m, n, k = _sizes(layer)
    down, across, time = {"ws": (k, n, m), "os": (m, n, k), "is": (k, m, n)}[dataflow]
    count = layer.groups * -(-down // rows) * -(-across // columns)
    load = 0 if dataflow == "os" else rows
    return Folds(count * time, count * load, count * (rows + columns - 2), layer.groups)


def _pieces(layer: WorkloadLayer, columns: int) -> list[int]:
    """Cycles that the walk takes for a vector of each tile of a row of weights.

    A piece ends with the tap of the window, with the word of the buffer, or with the vector. Of a
    convolution whose groups do not begin with a word, the first group stands for all.
    """
    channels = layer.inputs // layer.groups
    taps = layer.kernel[0] * layer.kernel[1]
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


def compute_causes(
    layer: WorkloadLayer, strip_positions: Sequence[int], config: AcceleratorConfig
) -> dict[str, int]:
    """Closed forms of our busy cycles, and of what the array waits for beside memory.

    Parameters
    ----------
    layer : WorkloadLayer
        With int8 weights.
    strip_positions : sequence of int
        Positions of each descriptor that the layer was cut into.
    config : AcceleratorConfig

    Returns
    -------
    dict of str to int
        ``busy``: a vector enters the array. ``pieces``: one is put together from several taps of
        the window. ``requantiser``: a block's last tile gives sums faster than they are
        requantised, but for the last position, which the next tile hides. ``ragged tiles``: a
        tile that is not whole, or of an odd row of weights, comes weight by weight, and takes
        longer than the vectors of the tile before it.
    """
    rows, columns = config.rows, config.columns
    _, of_group, k = _sizes(layer)
    blocks = -(-layer.outputs // rows)
    passes = 1 if layer.groups == 1 else max(1, rows // of_group)
    pieces = _pieces(layer, columns)
    rounds = max(0, rows // config.scale_lanes - pieces[-1])
    whole_beats = k % (config.bus_bits // rows) == 0
    found = dict.fromkeys(("busy", "pieces", "requantiser", "ragged tiles"), 0)
    for positions in strip_positions:
        found["busy"] += blocks * passes * len(pieces) * positions
        found["pieces"] += blocks * passes * (sum(pieces) - len(pieces)) * positions
        found["requantiser"] += blocks * passes * rounds * (positions - 1)
        for block in range(blocks):
            outputs = min(rows, layer.outputs - block * rows)
            if whole_beats and outputs == rows:
                continue
            for tile, cost in enumerate(pieces):
                load = outputs * min(columns, k - tile * columns)
                found["ragged tiles"] += max(0, load - passes * positions * cost)
    return found


def causes(
    layer: WorkloadLayer,
    strip_positions: Sequence[int],
    config: AcceleratorConfig,
    record: LayerRecord,
) -> dict[str, int]:
    """Why SCALE-Sim (``ws``, without stalls) and our accelerator differ in a layer's cycles.

    Parameters
    ----------
    record : LayerRecord
        What the cycle model counts for the layer, all strips together.

    Returns
    -------
    dict of str to int
        Cycles that SCALE-Sim counts and we do not; negative where it is the other way round. They
        sum to the difference, whatever the closed forms say: what they miss is ``REST``, and what
        they miss of the busy cycles is in ``mapping``.
    """
    theirs = folds(layer, config.rows, config.columns)
    ours = compute_causes(layer, strip_positions, config)
    stalls = record.stall_cycles
    busy = ours.pop("busy")
    found = {
        "weight load": theirs.load_cycles,
        "skew": theirs.skew_cycles,
        "numbering": -theirs.runs,
        "mapping": theirs.vectors - record.busy_cycles,
        **{name: -cycles for name, cycles in ours.items()},
        REST: sum(ours.values()) - stalls["compute"],
        **{name: -stalls[name] for name in ("memory", "codebook", "decoder", "writeback")},
    }
    assert busy == record.busy_cycles, f"{layer.name}: {busy} vectors, not {record.busy_cycles}"
    assert sum(found.values()) == theirs.cycles - record.cycles
    return found
