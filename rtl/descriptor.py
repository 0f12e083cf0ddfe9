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

#: Why no weight left, or no vector entered the array, in a cycle, in the order in which causes are
#: tested.
STALL_CAUSES = ("memory", "codebook", "decoder", "compute", "writeback")


class Method(enum.Enum, shape=8):  # type: ignore[call-arg]
    """How a layer is coded."""

    INT8 = 0
    #: ssvq with a sign for every weight.
    SSVQ = 1
    VQ = 2
    #: ssvq with parity signs: the last one of every sub-vector is not stored.
    SSVQ_PARITY = 3
    #: int4, int3 and int2: codes of ``index_bits`` bits.
    CODES = 4


class CodebookMode(enum.Enum, shape=8):  # type: ignore[call-arg]
    """Where a layer's codebook, or what it has in place of one, comes from."""

    #: The layer has none (int8, codes whose zero is the middle of their range).
    NONE = 0
    #: Read it before the layer's stream.
    LOAD = 1
    #: Use the one of the last layer that had one, or the one in ROM; d and b must be the same.
    KEEP = 2
    #: Not a codebook, but the zeros of a layer of codes: read along with its stream.
    ZEROS = 3


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
    #: b is zero or above this instance's limit, or codes are not of 2, 3 or 4 bits.
    INDEX_BITS = 4
    #: A length is zero, or the lengths contradict each other.
    LENGTH = 5
    #: An address is not a multiple of 64 or lies outside the address space.
    ADDRESS = 6
    #: Codebook mode, size, or a kept codebook that is not there or has another d or b. Also one
    #: to load, if this instance has its codebook in ROM.
    CODEBOOK = 7


#: A layer as the host describes it, 320 bits. Granules are units of 64 bytes.
#:
#: - ``log2_d``, ``index_bits``, ``chunks``, ``last_granules`` describe an ssvq or vq stream and
#:   are ignored for int8. Codes use ``index_bits`` and ``chunks`` alone.
#: - ``last_granules`` is the number of groups of 512 weights in the last chunk, 1 to d.
#: - ``last_sign_granules`` is the length of the last chunk's parity signs, 1 to d - 1, and equal to
#:   ``last_granules`` or one less; it is ignored for all other methods.
#: - ``codebook_granules`` and ``codebook_address`` are ignored unless the mode is LOAD or ZEROS.
#: - ``group_beats`` and ``block_beats`` are the output beats of a group of inputs and of a block of
#:   outputs, ``group * tile_outputs / W`` and ``I * tile_outputs / W``; a block ends its last
#:   group. They are ignored unless the mode is ZEROS. The zeros are one byte each, in stream order.
DESCRIPTOR = data.StructLayout(
    {
        "method": Method,
        "codebook_mode": CodebookMode,
        "log2_d": 8,
        "index_bits": 8,
        "codebook_granules": 16,
        "last_granules": 8,
        "last_sign_granules": 8,
        "stream_granules": 32,
        "chunks": 32,
        "codebook_address": 64,
        "stream_address": 64,
        "group_beats": 32,
        "block_beats": 32,
    }
)

#: A layer as the decoder sees it, after the checks.
LAYER = data.StructLayout(
    {
        "raw": 1,  # int8: beats pass as they are
        "signed": 1,  # ssvq: each output beat takes one beat of signs
        "parity": 1,  # ssvq whose d output beats take d - 1 beats of signs
        "codes": 1,  # int4, int3, int2: no codebook
        "load": 1,  # its codebook or its zeros come with the codebooks
        "zeros": 1,  # codes with a row of zeros for each group
        "log2_d": 3,
        "index_bits": 4,
        "last_granules": 5,
        "last_sign_granules": 5,
        "codebook_granules": 16,
        "stream_granules": 32,
        "chunks": 32,
        "group_beats": 32,
        "block_beats": 32,
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
