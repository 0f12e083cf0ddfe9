"""What runs on a GPU, in Triton: tiles decoded to weights, and multiplied as they are decoded.

Nothing of these runs without a device but under Triton's interpreter. Capitals are known when a
program is compiled: ``FORM``, ``BITS``, ``SIGNS``, ``D`` are those of :mod:`vq.inference.tiles`,
``TAKEN`` is how much a program takes at a time.
"""

import triton
import triton.language as tl

__all__ = ["decode", "finish", "multiply"]


@triton.jit
def _item(tiles, tile, lane, there, FORM: tl.constexpr, BITS: tl.constexpr, SIGNS: tl.constexpr,
          D: tl.constexpr):  # fmt: skip
    """Index or code of lanes of tiles, and their signs, bit by bit."""
    negative = tl.zeros_like(lane)
    second = tile % 2
    if FORM == "nibbles8":
        own = tiles + tile // 2 * 192 + lane
        byte = tl.load(own + 64 * second, mask=there, other=0).to(tl.int32)
        rest = tl.load(own + 128, mask=there, other=0).to(tl.int32)
        code = byte & 15
        negative = byte >> 4 | (rest >> 4 * second & 15) << 4
    elif FORM == "nibbles4":
        byte = tl.load(tiles + tile * 64 + lane, mask=there, other=0).to(tl.int32)
        code = byte & 15
        negative = byte >> 4
    elif FORM == "int4":
        byte = tl.load(tiles + tile // 2 * 64 + lane, mask=there, other=0).to(tl.int32)
        code = byte >> 4 * second & 15
    elif FORM == "int8":
        code = tl.load(tiles + tile * 64 + lane, mask=there, other=0).to(tl.int32) - 128
    else:
        own = tiles + tile * (8 * (BITS + SIGNS))
        if FORM == "bytes":
            code = tl.load(own + lane, mask=there, other=0).to(tl.int32)
        else:
            code = tl.zeros_like(lane)
            for b in tl.static_range(BITS):
                byte = tl.load(own + 8 * b + lane // 8, mask=there, other=0).to(tl.int32)
                code |= (byte >> lane % 8 & 1) << b
        odd = tl.zeros_like(lane)
        for e in tl.static_range(SIGNS):
            byte = tl.load(own + 8 * (BITS + e) + lane // 8, mask=there, other=0).to(tl.int32)
            bit = byte >> lane % 8 & 1
            negative |= bit << e
            odd ^= bit
        if SIGNS > 0 and SIGNS < D:
            negative |= odd << SIGNS
    return code, negative


@triton.jit
def _signed(w, negative, element, SIGNS: tl.constexpr, kind: tl.constexpr):
    """Elements of codewords, int8, with the signs that they have in ``negative``, as ``kind``."""
    if SIGNS == 0:
        w = w.to(kind)
    elif kind.is_int():
        minus = negative << 31 - element >> 31
        w = ((w.to(tl.int32) ^ minus) - minus).to(kind)
    elif kind.primitive_bitwidth == 32:
        flip = negative << 31 - element & -2147483648
        w = (w.to(kind).to(tl.int32, bitcast=True) ^ flip).to(kind, bitcast=True)
    else:
        flip = (negative << 15 - element & 0x8000).to(tl.int16)
        w = (w.to(kind).to(tl.int16, bitcast=True) ^ flip).to(kind, bitcast=True)
    return w


@triton.jit
def multiply(x, tiles, book, sums, rows, inputs, outputs, columns, block_bytes, span,
             FORM: tl.constexpr, BITS: tl.constexpr, SIGNS: tl.constexpr, D: tl.constexpr,
             WIDE: tl.constexpr, TAKEN: tl.constexpr, ROWS: tl.constexpr):  # fmt: skip
    """Sums of ``x`` [rows, inputs] times integer weights, [splits, rows, outputs].

    A program takes a block of 16 outputs, ``span`` of the columns of sub-vectors, and ROWS rows:
    one by one weight after the other, more of them by products of matrices. WIDE is D, filled up
    to a power of two.
    """
    block, split, part = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    tiles += block.to(tl.int64) * block_bytes
    output = tl.arange(0, 16)
    element = tl.arange(0, WIDE)
    row = part.to(tl.int64) * ROWS + tl.arange(0, ROWS)
    whole: tl.constexpr = x.dtype.element_ty == tl.int8
    kind: tl.constexpr = tl.int32 if whole else tl.float32
    if ROWS == 1:
        total = tl.zeros([16, TAKEN, WIDE], kind)
    else:
        total = tl.zeros([ROWS, 16], kind)
    for first in range(split * span, tl.minimum(split * span + span, columns), TAKEN):
        column = first + tl.arange(0, TAKEN)
        lane = 4 * output[:, None] + (column % 4)[None, :]
        code, negative = _item(tiles, (column // 4)[None, :], lane, (column < columns)[None, :],
                               FORM, BITS, SIGNS, D)  # fmt: skip
        place = column[:, None] * D + element[None, :]
        there = (element < D)[None, :] & (place < inputs)
        entry = code[:, :, None] * D + element[None, None, :]
        if D == WIDE:  # a codeword is whole, and read as one
            w = tl.load(book + entry)
        else:
            w = tl.load(book + entry, mask=(element < D)[None, None, :], other=0)
        if ROWS == 1:
            given = tl.load(x + place, mask=there, other=0)
            w = _signed(w, negative[:, :, None], element[None, None, :], SIGNS, kind)
            total += w * given.to(kind)[None, :, :]
        else:
            flat, known = tl.ravel(place), tl.ravel(there)
            given = tl.load(x + row[:, None] * inputs + flat[None, :],
                            mask=(row < rows)[:, None] & known[None, :], other=0)  # fmt: skip
            w = _signed(w, negative[:, :, None], element[None, None, :], SIGNS, given.dtype)
            matrix = tl.trans(tl.reshape(w, [16, TAKEN * WIDE]))
            total = tl.dot(given, matrix, total, input_precision="ieee", out_dtype=kind)
    if ROWS == 1:
        total = tl.sum(tl.sum(total, 2), 1)[None, :]
    output += block * 16
    to = sums + (split * rows + row)[:, None] * outputs + output[None, :]
    tl.store(to, total, mask=(row < rows)[:, None] & (output < outputs)[None, :])


@triton.jit
def finish(sums, scale, bias, y, splits, values, outputs, SCALES: tl.constexpr, BIAS: tl.constexpr,
           TAKEN: tl.constexpr):  # fmt: skip
    """Add up ``sums`` [splits, values]; times the scales, and the bias, they are ``y`` [values]."""
    at = tl.program_id(0) * TAKEN + tl.arange(0, TAKEN)
    there = at < values
    total = tl.zeros([TAKEN], tl.float32)
    for split in range(splits):
        total += tl.load(sums + split * values + at, mask=there, other=0)
    if SCALES == "one":
        total *= tl.load(scale)
    elif SCALES == "each":
        total *= tl.load(scale + at % outputs, mask=there, other=0)
    if BIAS:
        total += tl.load(bias + at % outputs, mask=there, other=0).to(tl.float32)
    tl.store(y + at, total.to(y.dtype.element_ty), mask=there)


@triton.jit
def decode(tiles, book, scale, zeros, chosen, out, inputs, width, ranges, range_tiles, block_bytes,
           FORM: tl.constexpr, BITS: tl.constexpr, SIGNS: tl.constexpr, D: tl.constexpr,
           BOOK: tl.constexpr, OUT: tl.constexpr, SCALES: tl.constexpr, ZEROS: tl.constexpr,
           TAKEN: tl.constexpr):  # fmt: skip
    """Outputs ``chosen`` of a layer, [chosen, inputs]: weights, or their integers and codes.

    A program takes TAKEN inputs of one output. ``SCALES`` is what weights are scaled by, "" where
    integers are meant.
    """
    row = tl.load(chosen + tl.program_id(0))
    at = tl.program_id(1) * TAKEN + tl.arange(0, TAKEN)
    there = at < inputs
    if OUT:
        line, column, element = row // D, at, (row % D).to(tl.int32)
    else:
        line, column, element = row, at // D, at % D
    block, lane = line // 16, 4 * (line % 16).to(tl.int32)
    of_range = column // width
    column -= of_range * width
    tile = of_range * range_tiles + column // 4
    w, negative = _item(tiles + block * block_bytes, tile, lane + column % 4, there, FORM, BITS,
                        SIGNS, D)  # fmt: skip
    if BOOK:
        w = tl.load(book + w * D + element, mask=there, other=0).to(tl.int32)
        if SIGNS > 0:
            w = tl.where((negative >> element & 1) != 0, -w, w)
    if SCALES == "groups":
        group = (block * ranges + of_range) * 16 + line % 16
        if ZEROS:
            w -= tl.load(zeros + group, mask=there, other=0).to(tl.int32)
        else:
            w -= 1 << (BITS - 1)
    value = w.to(tl.float32)
    if SCALES == "groups":
        value *= tl.load(scale + group, mask=there, other=0).to(tl.float32)
    elif SCALES == "each":
        value *= tl.load(scale + row)
    elif SCALES == "one":
        value *= tl.load(scale)
    to = out + tl.program_id(0).to(tl.int64) * inputs + at
    if SCALES == "":
        tl.store(to, w.to(tl.int8), mask=there)
    else:
        tl.store(to, value.to(out.dtype.element_ty), mask=there)
