"""What the host tells the streamer about a layer, and what the streamer tells the host."""

from amaranth import unsigned
from amaranth.lib import data, enum

__all__ = [
    "DESCRIPTOR",
    "LAYER",
    "REPORT",
    "STALL_CAUSES",
    "CodebookMode",
    "Method",
    "Status",
]

#: Why no weight left in a cycle, in the order in which causes are tested.
STALL_CAUSES = ("memory", "codebook", "decoder", "compute", "writeback")


class Method(enum.Enum, shape=8):  # type: ignore[call-arg]
    """How a layer is coded. Names are those of the container, in capitals."""

    INT8 = 0
    SSVQ = 1
    VQ = 2


class CodebookMode(enum.Enum, shape=8):  # type: ignore[call-arg]
    """Where a layer's codebook comes from."""

    #: The layer has none (int8).
    NONE = 0
    #: Read it before the layer's stream.
    LOAD = 1
    #: Use the one of the last layer that had one; d and b must be the same.
    KEEP = 2


class Status(enum.Enum, shape=8):  # type: ignore[call-arg]
    """How a layer ended. Every status but OK and READ_ERROR means: refused, no weight left."""

    OK = 0
    #: The memory answered with an error, or ended a burst in the wrong place. The layer's
    #: weights left (their number is right), but they must not be used.
    READ_ERROR = 1
    #: Not a method of this instance.
    METHOD = 2
    #: d is outside this instance's range.
    SUB_VECTOR = 3
    #: b is zero or above this instance's limit.
    INDEX_BITS = 4
    #: A length is zero, or the lengths contradict each other.
    LENGTH = 5
    #: An address is not a multiple of 64 or lies outside the address space.
    ADDRESS = 6
    #: Codebook mode, size, or a kept codebook that is not there or has another d or b.
    CODEBOOK = 7


#: A layer as the host describes it, 256 bits. Granules are units of 64 bytes.
#:
#: - ``log2_d``, ``index_bits``, ``chunks``, ``last_granules`` describe an ssvq or vq stream and
#:   are ignored for int8.
#: - ``last_granules`` is the number of groups of 512 weights in the last chunk, 1 to d.
#: - ``codebook_granules`` and ``codebook_address`` are ignored unless the mode is LOAD.
DESCRIPTOR = data.StructLayout(
    {
        "method": Method,
        "codebook_mode": CodebookMode,
        "log2_d": 8,
        "index_bits": 8,
        "codebook_granules": 16,
        "last_granules": 8,
        "reserved": 8,
        "stream_granules": 32,
        "chunks": 32,
        "codebook_address": 64,
        "stream_address": 64,
    }
)

#: A layer as the decoder sees it, after the checks.
LAYER = data.StructLayout(
    {
        "raw": 1,  # int8: beats pass as they are
        "signed": 1,  # ssvq: each output beat takes one beat of signs
        "load": 1,  # its codebook is loaded, not kept
        "log2_d": 3,
        "index_bits": 4,
        "last_granules": 5,
        "codebook_granules": 16,
        "stream_granules": 32,
        "chunks": 32,
    }
)

#: A layer's result, 352 bits. ``busy_cycles`` and the stalls sum to ``cycles``.
REPORT = data.StructLayout(
    {
        "status": Status,
        "reserved": 24,
        "cycles": unsigned(32),
        "busy_cycles": unsigned(32),
        **{f"{cause}_cycles": unsigned(32) for cause in STALL_CAUSES},
        "beats": unsigned(32),
        "bursts": unsigned(32),
    }
)
