"""Make the golden containers; run ``python -m tests.golden.make`` only when the layout changes.

Every value comes from SHAKE-256 of a label, so no library's random numbers can change the file.
"""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from vq.container import Container, Kept, Layer, Provenance, open_container, write_container
from vq.container.runtime import PARTS, RuntimePart, describe, tensor_name
from vq.integer import Node
from vq.integer.golden import Parameters
from vq.integer.steps import HostNode, LayerNumbers, StepGraph, StepModel, store_steps
from vq.integer.store import weight_of_layer
from vq.integer.tokens import TokenGraph, TokenModel, TokenNode, store_tokens
from vq.integer.tokens.graph import tensors_of

HERE = Path(__file__).parent
FILE = HERE / "every_method.vq.safetensors"
WEIGHTS = HERE / "every_method.npz"
REMAINING = HERE / "every_part.vq.safetensors"
TIMED = HERE / "every_step.vq.safetensors"
TURNS = HERE / "every_turn.vq.safetensors"
TOKENS = HERE / "every_token.vq.safetensors"


def noise(label: str, shape: tuple[int, ...], below: int) -> np.ndarray:
    """Integers in [0, below), int64, that depend on ``label`` alone."""
    count = int(np.prod(shape))
    data = hashlib.shake_256(label.encode()).digest(4 * count)
    return (np.frombuffer(data, "<u4").astype(np.int64) % below).reshape(shape)


def book(label: str, k: int, d: int, lowest: int = 0) -> np.ndarray:
    return (noise(label, (k, d), 128 - lowest) + lowest).astype(np.int8)


def scale(label: str, count: int) -> np.ndarray:
    return (noise(label, (count,), 2**20) / 2**26 + 2**-12).astype(np.float32)


def rom() -> dict[str, np.ndarray]:
    codebook = book("rom", 16, 4)
    return {f"rom:{hashlib.sha256(codebook.tobytes()).hexdigest()}": codebook}


def signs(label: str, count: int, d: int, *, parity: bool = False) -> np.ndarray:
    negative = noise(label, (count, d), 2).astype(bool)
    if parity:
        negative[:, -1] = negative[:, :-1].sum(axis=1) % 2
    return negative


def layers() -> list[Layer]:
    """Every method; two chunks, ragged edges, a shared codebook, one in ROM, convolutions."""
    shared = book("shared", 5, 4)
    ((rom_name, rom_book),) = rom().items()
    return [
        Layer.int8(
            "stem", op="conv2d", shape=(5, 3, 2, 2), tile_outputs=2, scale=scale("stem", 5),
            integers=(noise("stem", (5, 12), 256) - 128).astype(np.int8),
        ),
        Layer.ssvq(
            "block.q", shape=(20, 106), codebook=shared, codebook_name="block.codebook",
            indices=noise("q", (540,), 5), signs=signs("q", 540, 4), scale=scale("q", 1),
        ),
        Layer.ssvq(
            "block.k", shape=(7, 3, 3), op="conv1d", codebook=shared, axis="out", tile_outputs=4,
            codebook_name="block.codebook", parity=True, indices=noise("k", (18,), 5),
            signs=signs("k", 18, 4, parity=True), scale=scale("k", 7),
        ),
        Layer.vq(
            "block.v", shape=(6, 8), codebook=book("v", 300, 2, -128), tile_outputs=4,
            indices=noise("v", (24,), 300), scale=scale("v", 6),
        ),
        Layer.ssvq(
            "block.rom", shape=(3, 8), codebook=rom_book, codebook_name=rom_name,
            indices=noise("r", (6,), 16), signs=signs("r", 6, 4), scale=scale("r", 1),
        ),
        *(
            Layer.grouped(
                f"head.{method}", method=method, group=4,
                codes=noise(method, (5, 6), 1 << bits).astype(np.uint8),
                group_scales=(noise(method + "s", (5, 2), 999) / 4096).astype(np.float16),
                group_zeros=noise(method + "z", (5, 2), 1 << bits).astype(np.uint8)
                if method == "int4" else None,
            )
            for method, bits in (("int4", 4), ("int3", 3), ("int2", 2))
        ),
    ]  # fmt: skip


def kept() -> dict[str, Kept]:
    return {
        "norm.weight": Kept.from_numpy(np.linspace(0, 1, 5, dtype=np.float32)),
        "norm.bias": Kept("BF16", (3,), bytes.fromhex("803f0040c0bf")),  # 1, 2, -1.5
        "steps": Kept.from_numpy(np.array(1234, np.int64)),
    }


def write(path: Path) -> None:
    calibration = hashlib.sha256(b"golden").hexdigest()
    provenance = Provenance("golden 1", '{"*":"every"}', 7, calibration)
    write_container(path, layers(), kept(), provenance)


def linears() -> list[Layer]:
    """Two that read one tensor."""
    return [
        Layer.int8(
            name, scale=scale(name, 4), integers=(noise(name, (4, 8), 255) - 127).astype(np.int8)
        )
        for name in ("q", "k")
    ]


def described(
    kinds: list[tuple[str, tuple[str, ...], dict[str, int]]], fields: list[dict[str, np.ndarray]]
) -> tuple[list[RuntimePart], dict[str, Kept]]:
    """Parts, and the kept tensors that describe and hold them."""
    kept = [{f: Kept.from_numpy(array) for f, array in each.items()} for each in fields]
    parts = [
        RuntimePart(*kind, {f: (one.dtype, one.shape) for f, one in each.items()})
        for kind, each in zip(kinds, kept, strict=True)
    ]
    text = describe(parts)
    tensors = {tensor_name(i, f): one for i, each in enumerate(kept) for f, one in each.items()}
    return parts, {PARTS: Kept("U8", (len(text),), text), **tensors}


def remaining() -> tuple[list[RuntimePart], dict[str, Kept]]:
    """One part of every kind that goes by no time step, and both roundings."""
    signs4 = [[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]
    half = np.array(signs4) / 2
    numbers = {name: scale(name, 24).reshape(1, 2, 3, 4) for name in ("keys", "values")}
    fields: list[dict[str, np.ndarray]] = [
        {
            "first": half[None].astype(np.float32), "scale": scale("smooth", 8),
            "order": np.argsort(noise("order", (8,), 999), kind="stable").astype(np.int32),
            "second": np.stack([half, -half]).astype(np.float32),
        },
        {"clip": np.array([0.9], np.float32)},
        {"scale": np.array([0.125], np.float32)},
        {"tokens": np.array([5, 7, 1], np.int32), **numbers},
    ]  # fmt: skip
    kinds = [
        ("transform", ("q", "k"), {}),
        ("rounding", ("q",), {"bits": 4, "symmetric": False}),
        ("rounding", ("k",), {"bits": 8, "symmetric": True}),
        ("prefix", ("attention",), {"heads": 4}),
    ]
    return described(kinds, fields)


def timed() -> tuple[list[RuntimePart], dict[str, Kept]]:
    """A clock, both roundings and both tables that go by its steps."""
    zero = noise("zero", (3,), 256).astype(np.uint8)
    fields: list[dict[str, np.ndarray]] = [
        {"times": np.array([900, 600, 300, 50], np.int32)},
        {"scale": scale("steps", 4)},
        {"scale": scale("groups", 3), "zero": zero},
        {"table": scale("table", 4 * 5).reshape(4, 5)},
        {"table": scale("classes", 4 * 2 * 5).reshape(4, 2, 5)},
        {"table": np.zeros((1, 5), np.float32)},
    ]
    kinds = [
        ("clock", ("",), {}),
        ("timed_rounding", ("q",), {"bits": 8, "symmetric": True}),
        ("timed_rounding", ("k",), {"bits": 6, "symmetric": False}),
        ("time_table", ("project",), {"classes": 0}),
        ("time_table", ("modulate",), {"classes": 2}),
        ("time_table", ("time",), {"classes": 0}),
    ]
    return described(kinds, fields)


def write_remaining(path: Path, tool: str = "golden 2") -> None:
    write_container(path, linears(), remaining()[1], Provenance(tool))


def write_timed(path: Path, tool: str = "golden 2") -> None:
    write_container(path, linears(), timed()[1], Provenance(tool))


def turns(container: Container) -> StepModel:
    """A graph of time steps of layers on both sides of a host that only does what is exact."""

    def host(name: str, op: str, *inputs: str, shape: int = 8, **settings: Any) -> HostNode:
        return HostNode(name, op, inputs, (shape,), settings)

    def linear(name: str, source: str) -> Node:
        return Node(name, "linear", (source,), (4,), name)

    nodes = (
        host("x", "input"),
        host("x.rounded", "quantize", "x"),
        linear("q", "x.rounded"),
        linear("head", "x.rounded"),
        Node("both", "add", ("q", "head"), (4,)),
        host("when", "table", shape=4, steps=True, classes=True),
        host("moved", "product", "both", "when", shape=4),
        host("wide", "concat", "moved", "both", axis=0),
        host("wide.rounded", "quantize", "wide"),
        linear("k", "wide.rounded"),
        host("half", "table", shape=4, steps=False, classes=False),
        host("out", "product", "k", "half", shape=4),
    )
    graph = StepGraph(nodes, (900, 600, 300, 50), 2, "mse", hashlib.sha256(b"golden").hexdigest())
    names = ("q", "head", "k")
    layers = {n: LayerNumbers.of(container, n, scale(n + "bias", 4)) for n in names}
    tensors = {
        "when": {"rows": scale("when", 4 * 2 * 4).reshape(4, 2, 4) * np.float32(64)},
        "half": {"rows": np.full((1, 1, 4), 0.5, np.float32)},
    }
    scales = scale("scales", 4 * len(nodes)).reshape(4, len(nodes)) * np.float32(8)
    return StepModel(graph, layers, tensors, scales)


def write_turns(path: Path, tool: str = "golden 2") -> None:
    head = Layer.grouped(
        "head", method="int4", group=8, codes=noise("int4", (4, 8), 16).astype(np.uint8),
        group_scales=(noise("int4s", (4, 1), 999) / 4096).astype(np.float16), group_zeros=None,
    )  # fmt: skip
    write_container(path, [*linears(), head], {}, Provenance(tool))
    with open_container(path) as container:
        store_steps(container, turns(container), path)


def tokens(container: Container) -> TokenModel:
    """A causal block on six words and five places: every form, and every operation of texts."""

    def node(name: str, op: str, *inputs: str, form: str = "int16", shape: int = 8,
             layer: str = "", **settings: Any) -> TokenNode:  # fmt: skip
        return TokenNode(name, op, inputs, (shape,), form, layer, settings)

    def linear(name: str, source: str, form: str = "int16") -> TokenNode:
        return node(name, "linear", source, form=form, layer=name, table="")

    attention = {"heads": 2, "kv_heads": 2, "causal": True}
    nodes = (
        node("tokens", "tokens", shape=1, vocabulary=6),
        node("words", "embedding", "tokens"),
        node("place", "constant", rows=5),
        node("sum", "add", "words", "place", form="int32"),
        node("norm", "layer_norm", "sum"),
        node("norm.rows", "to_rows", "norm", form="rows"),
        node("norm.narrow", "narrow", "norm", form="int8"),
        linear("q", "norm.rows"),
        linear("k", "norm.narrow"),
        linear("v", "norm", "int8"),
        node("angles", "angles", shape=4, rows=5),
        node("q.turned", "rotary", "q", "angles", heads=2, pairs="adjacent"),
        node("k.turned", "rotary", "k", "angles", form="int8", heads=2, pairs="halves"),
        node("mixed", "attention", "q.turned", "k.turned", "v", form="int8", shares="rows",
             **attention),
        node("again", "attention", "q.turned", "k.turned", "v", shares="int16", **attention),
        node("both", "product", "mixed", "again"),
        node("bent", "function", "both", function="tanh"),
        node("small", "function", "mixed", form="int8", function="gelu"),
        linear("o", "small"),
        node("on", "add", "sum", "o", form="int32"),
        node("more", "add", "bent", "o"),
        node("out", "add", "on", "more", form="int32"),
        node("last", "rms_norm", "out", form="int8"),
        node("head", "linear", "last", shape=6, table="words"),
    )  # fmt: skip
    graph = TokenGraph(nodes, 5, "mse", hashlib.sha256(b"golden").hexdigest())
    known = {one.name: one for one in nodes}
    numbers = {}
    for one in nodes:
        given = [known[name] for name in one.inputs]
        fields = tensors_of(one, given, container.geometry(one.layer) if one.layer else None)
        numbers[one.name] = {f: number(one.name, f, *fields[f]) for f in fields}
    weights = {}
    for one in nodes:
        if one.op == "linear":
            own = numbers.pop(one.name)
            weight = weight_of_layer(container, one.layer) if one.layer else None
            table = numbers["words"]["weight"].astype(np.int8)
            weights[one.name] = Parameters(**own, weight=table if weight is None else weight)
    left = {name: own for name, own in numbers.items() if own}
    return TokenModel(graph, weights, left, scale("tokens", len(nodes)))


def number(name: str, field: str, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers of a node that are in range, and leave most of what flows in range, too."""
    label, wide = f"{name}.{field}", 2**14
    if field == "multiplier":
        return (noise(label, shape, wide) + wide).astype(np.int16)
    if field == "shift":
        shifts = {"words": 10, "norm": 19, "last": 27, "o": 20, "on": 14, "out": 14, "more": 15,
                  "head": 20, "v": 29, "q": 17, "k": 17, "sum": 12, "both": 20,
                  "q.turned": 28, "k.turned": 33, "norm.narrow": 22}  # fmt: skip
        if name in ("mixed", "again"):
            return np.array([20, 12, 21 if name == "mixed" else 22], np.uint8)
        return np.full(shape, shifts.get(name, 16), np.uint8)
    if field == "epsilon":
        return np.array([2**20], np.int64)
    kind = {"I8": np.int8, "I16": np.int16, "I32": np.int32}[dtype]
    most = {"I8": 127, "I16": 2**14, "I32": 2**12}[dtype]
    return (noise(label, shape, 2 * most) - most).astype(kind)


def write_tokens(path: Path, tool: str = "golden 2") -> None:
    own = [
        Layer.int8(name, shape=(8, 8), scale=scale(name, 8),
                   integers=(noise(name, (8, 8), 256) - 128).astype(np.int8))
        for name in ("q", "k", "v", "o")
    ]  # fmt: skip
    write_container(path, own, {}, Provenance(tool))
    with open_container(path) as container:
        store_tokens(container, tokens(container), path)


def main() -> None:
    write_remaining(REMAINING)
    write_timed(TIMED)
    write_turns(TURNS)
    write_tokens(TOKENS)
    write(FILE)
    with open_container(FILE, rom=rom()) as file:
        file.verify()
        np.savez_compressed(
            WEIGHTS, **{e.geometry.name: file.weight(e.geometry.name) for e in file.layers}
        )


if __name__ == "__main__":
    main()
