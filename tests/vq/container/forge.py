"""Take a valid file apart, change it, and put it together again with every checksum right."""

import copy
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Forge:
    """A file in pieces.

    ``table`` is the header without its metadata, ``meta`` the metadata strings, ``geometry`` the
    parsed geometry and ``data`` the data section. ``seal`` recomputes both kinds of sha256, unless
    ``frozen`` names the metadata key.
    """

    def __init__(self, raw: bytes) -> None:
        length = int.from_bytes(raw[:8], "little")
        self.table = json.loads(raw[8 : 8 + length])
        self.meta: dict[str, Any] = self.table.pop("__metadata__")
        self.geometry = json.loads(self.meta["geometry"])
        self.data = bytearray(raw[8 + length :])
        self.frozen: set[str] = set()

    def copy(self) -> "Forge":
        return copy.deepcopy(self)

    def layer(self, name: str) -> dict[str, Any]:
        return next(fields for fields in self.geometry["layers"] if fields["name"] == name)

    def start(self, tensor: str) -> int:
        return self.table[tensor]["data_offsets"][0]

    def bytes(self) -> bytes:
        if "geometry" not in self.frozen:
            self.meta["geometry"] = json.dumps(self.geometry, sort_keys=True, separators=(",", ":"))
        if "geometry_sha256" not in self.frozen:
            text = str(self.meta["geometry"]).encode(errors="surrogatepass")
            self.meta["geometry_sha256"] = hashlib.sha256(text).hexdigest()
        if "sha256" not in self.frozen:
            self.meta["sha256"] = json.dumps(dict(self._digests()))
        return assemble(json.dumps({"__metadata__": self.meta, **self.table}), self.data)

    def _digests(self) -> Iterator[tuple[str, str]]:
        for name, row in self.table.items():
            try:
                start, end = row["data_offsets"]
                yield name, hashlib.sha256(self.data[start:end]).hexdigest()
            except (TypeError, ValueError, KeyError):
                yield name, 64 * "0"

    def write(self, folder: Path) -> Path:
        path = folder / "forged.vq.safetensors"
        path.write_bytes(self.bytes())
        return path


def assemble(header: str, data: bytes | bytearray) -> bytes:
    text = header.encode()
    length = -(-(8 + len(text)) // 4096) * 4096 - 8
    return length.to_bytes(8, "little") + text.ljust(length) + data


def snapshot(file: Any) -> tuple[Any, ...]:
    """Everything that an open container says about weights."""
    return (
        [(e.geometry, file.weight(e.geometry.name).tobytes()) for e in file.layers],
        [(name, file.kept(name)) for name in file.kept_names],
    )
