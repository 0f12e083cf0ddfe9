"""Operations of the vector unit with their rows in memory, as jobs."""

from dataclasses import dataclass, field

import numpy as np

from rtl.vector.job import JOB
from rtl.vector.layer import VectorOp
from tests.rtl.vector.rows import Operation, beats, number_beats

GRANULE = 64


@dataclass
class Jobs:
    """An image of memory, and where each operation's outputs are in it.

    Rows of operands lie a beat apart; outputs lie as columns, a beat of every row after another.
    """

    lanes: int
    first: int = 0  # free address
    image: bytearray = field(default_factory=bytearray)
    outputs: list = field(default_factory=list)

    @property
    def word(self):
        return 2 * self.lanes

    def take(self, nbytes):
        address = self.first
        self.first += -(-nbytes // GRANULE) * GRANULE
        self.image.extend(bytes(max(0, self.first - len(self.image))))
        return address

    def add(self, operation: Operation, record: int) -> dict:
        """Put an operation's data into memory; the fields of its job."""
        layer = operation.layer()
        rows, channels = operation.x.shape
        fields = {"operation": layer, "loads": 1, "record": record // GRANULE}
        if layer.get("same_channels"):
            fields["loads"] = -(-rows // layer["same_channels"])
        for name, values in (("values", operation.x), ("other", operation.y)):
            if values is not None:
                narrow = int(np.abs(values + 0.5).max() < 128)
                fields |= {f"{name}_narrow": narrow, name: self._rows(values, narrow)}
        numbers = number_beats(operation.numbers, self.lanes)
        if numbers:
            raw = np.array(numbers, "<i2").tobytes()
            address = self.take(len(raw))
            self.image[address : address + len(raw)] = raw
            fields["numbers"] = _pieces(address, len(numbers))
        out_rows = len(operation.want)
        narrow = layer.get("narrow", 0)
        words = self._words(channels, narrow) + bool(operation.factors)
        address = self.take(out_rows * words * self.word)
        loops = ((words, out_rows), (out_rows, 1))
        fields["outputs"] = _pieces(address, 1, *loops)
        self.outputs.append((operation, address, out_rows, words, narrow))
        return fields

    def check(self, image=None):
        """Require what the arithmetic of integer graphs gives."""
        image = self.image if image is None else image
        for operation, address, rows, words, narrow in self.outputs:
            raw = bytes(image[address : address + rows * words * self.word])
            by_row = np.frombuffer(raw, np.uint8).reshape(words, rows, self.word).swapaxes(0, 1)
            if operation.factors:
                last = np.ascontiguousarray(by_row[:, -1])
                found = [(int(one[0]) | int(one[1]) << 8, int(one[2])) for one in last]
                assert found == operation.factors
                by_row = by_row[:, :-1]
            flat = np.ascontiguousarray(by_row).reshape(rows, -1)
            values = flat.view(np.int8 if narrow else "<i2").astype(np.int64)
            channels = operation.want.shape[1]
            assert values[:, :channels].tolist() == operation.want.tolist(), operation.fields
            assert not values[:, channels:].any()

    def _words(self, channels, narrow):
        count = -(-channels // self.lanes)
        return -(-count // 2) if narrow else count

    def _rows(self, values, narrow):
        rows, channels = values.shape
        words = self._words(channels, narrow)
        pitch = words + 1
        address = self.take(rows * pitch * self.word)
        padded = np.array(beats(values, self.lanes)).reshape(rows, -1)
        if narrow:
            padded = np.pad(padded, ((0, 0), (0, words * self.word - padded.shape[1])))
        for i, row in enumerate(padded):
            raw = row.astype(np.uint8 if narrow else "<u2").tobytes()
            at = address + i * pitch * self.word
            self.image[at : at + len(raw)] = raw
        return _pieces(address, words, (rows, pitch))


def _pieces(address, run, *loops):
    """A run, and loops around it as (count, pitch), the innermost first."""
    names = ("inner", "middle", "outer")
    filled = [*loops, (1, 0), (1, 0), (1, 0)][:3]
    return {
        "address": address,
        "run": run,
        **{n: {"count": c, "pitch": p} for n, (c, p) in zip(names, filled, strict=True)},
    }


def packed(fields):
    """Bits of a job; a second operand and numbers that there are none of have counts of 1."""
    nothing = _pieces(0, 1)
    whole = {"other": nothing, "numbers": nothing} | fields
    whole["operation"] = {"epsilon": 1, "op": VectorOp.NARROW} | fields["operation"]
    return int(JOB.const(whole).as_value().value)
