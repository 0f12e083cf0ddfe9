"""Program of an accelerator: one descriptor of 256 bytes for each layer, as it lies in memory.

A layer is one of the array, or an operation of the vector unit, if the instance has one: the first
byte, the version, says which.
"""

from amaranth.lib import data, enum

from rtl.compute.outputs import OUTPUT_LAYER
from rtl.compute.tile import TILE_LAYER
from rtl.compute.walk import WALK_LAYER
from rtl.descriptor import DESCRIPTOR, STALL_CAUSES
from rtl.transfer.load import LOAD_LAYER
from rtl.transfer.store import STORE_LAYER
from rtl.vector.job import JOB
from vq.container import GRANULE_BYTES

__all__ = [
    "ADDRESSES",
    "PROGRAM_BYTES",
    "PROGRAM_LAYER",
    "PROGRAM_VERSION",
    "RECORD",
    "RUN_CAUSES",
    "VECTOR_ADDRESSES",
    "VECTOR_LAYER",
    "VECTOR_RECORD",
    "VECTOR_VERSION",
    "RunStatus",
]

PROGRAM_BYTES = 256
PROGRAM_VERSION = 1
#: Of an operation of the vector unit.
VECTOR_VERSION = 2

#: Why no vector entered the array in a cycle, in the order in which causes are tested: those of
#: the streamer, and the vector unit.
RUN_CAUSES = (*STALL_CAUSES[:3], "vector", *STALL_CAUSES[3:])


class RunStatus(enum.Enum, shape=8):  # type: ignore[call-arg]
    """How a run ended. Codes 1 to 7 are those of :class:`~rtl.descriptor.Status`."""

    OK = 0
    #: The memory answered a read with an error. Outputs of this layer and of later ones are wrong.
    READ_ERROR = 1
    METHOD = 2
    SUB_VECTOR = 3
    INDEX_BITS = 4
    LENGTH = 5
    ADDRESS = 6
    CODEBOOK = 7
    #: Not a descriptor of this version.
    VERSION = 8
    #: A count is zero, or counts of window, tile, stream and outputs contradict each other.
    SHAPE = 9
    #: More positions, words or bytes than the buffers hold.
    BUFFER = 10
    #: The memory answered a write with an error.
    WRITE_ERROR = 11
    #: Nothing moved for the number of cycles in the register TIMEOUT. Reset the instance.
    STALLED = 12


_FIELDS = data.StructLayout(
    {
        "version": 8,
        "weighted": 1,  # has a stream; without, every tile is the identity
        "frees_input": 1,  # no later layer uses the same activations
        "relu": 1,
        "groups": 16,  # of inputs that have a scale of their own; 0 if none
        "group_shift": 5,
        "parameters": 58,  # granule of the numbers of the requantiser and the groups
        "parameter_granules": 32,
        "weights": DESCRIPTOR,
        "tile": TILE_LAYER,
        "walk": WALK_LAYER,
        "load": LOAD_LAYER,
        "output": OUTPUT_LAYER,
        "store": STORE_LAYER,
    }
)

#: A layer as it lies in memory, lowest bit first.
PROGRAM_LAYER = data.StructLayout({**_FIELDS.members, "unused": 8 * PROGRAM_BYTES - _FIELDS.size})

#: Fields of a layer that hold addresses, each with the bytes of its unit.
ADDRESSES = {
    "parameters": GRANULE_BYTES,
    "weights.codebook_address": 1,
    "weights.stream_address": 1,
    "load.input.region.address": GRANULE_BYTES,
    "load.residual.region.address": GRANULE_BYTES,
    "store.region.address": GRANULE_BYTES,
    "store.record": GRANULE_BYTES,
}

#: An operation of the vector unit as it lies in memory, lowest bit first.
VECTOR_LAYER = data.StructLayout(
    {"version": 8, "job": JOB, "unused": 8 * PROGRAM_BYTES - 8 - JOB.size}
)

#: Its fields that hold addresses.
VECTOR_ADDRESSES = {
    **{f"job.{name}.address": 1 for name in ("values", "other", "numbers", "outputs")},
    "job.record": GRANULE_BYTES,
}

#: What the accelerator writes about a layer, one granule. ``busy_cycles`` and the stalls sum to
#: ``cycles``. What follows the last vector of the last layer is in no record.
RECORD = data.StructLayout(
    {
        "layer": 32,
        "cycles": 32,
        "busy_cycles": 32,
        **{f"{cause}_cycles": 32 for cause in STALL_CAUSES},
        "unused": 8 * GRANULE_BYTES - 32 * (3 + len(STALL_CAUSES)),
    }
)
#: The same of an instance with a vector unit; without, its bits are 0.
VECTOR_RECORD = data.StructLayout(
    {
        **{name: field.shape for name, field in RECORD if name != "unused"},
        "vector_cycles": 32,
        "unused": RECORD["unused"].width - 32,
    }
)
