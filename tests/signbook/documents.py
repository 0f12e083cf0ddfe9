"""Real documents for reports: networks by the cycle model, small files by either engine."""

from collections.abc import Sequence
from typing import Any

from hwsim import estimate_workload
from hwsim.workloads import workload
from rtl import AcceleratorConfig
from vq import SSVQ, Recipe

#: Shapes of a small encoder: blocks that repeat, and layers that do not.
TOPOLOGY = """name, M, N, K,
stem, {m}, 64, 48,
blocks.0.qkv, {m}, 192, 64,
blocks.0.fc, {m}, 64, 128,
blocks.1.qkv, {m}, 192, 64,
blocks.1.fc, {m}, 64, 128,
head, {m}, 16, 64,
"""


def measured(
    text: str, *, memory: str, config: AcceleratorConfig | None = None, recipe: Recipe | None = None
) -> dict[str, Any]:
    """A ``signbook.simulate/1`` document of a workload, with what the accelerator does not run."""
    recipe = recipe or Recipe({"*": SSVQ(d=8, k=16)})
    return estimate_workload(workload(text), recipe, config=config, memory=memory)


def swept(
    targets: dict[int | None, str],
    *,
    arrays: Sequence[int],
    bandwidths: Sequence[float],
    rtl: Sequence[tuple[int, float]] = (),
) -> dict[str, Any]:
    """A ``signbook.sweep/1`` document of a network at several M; ``rtl`` are arrays, memories."""
    rows = []
    for m, text in targets.items():
        for size in arrays:
            for bandwidth in bandwidths:
                memory = f"ideal:bytes_per_cycle={bandwidth:g},latency=20"
                config = AcceleratorConfig(rows=size, columns=size, d_max=min(16, size))
                found = measured(text, memory=memory, config=config)
                row = _row(found, m, size, bandwidth, memory)
                rows.append(row)
                if (size, bandwidth) in rtl:
                    rows.append(row | {"engine": "rtl"})
    rows.append(
        {
            "point": {"target": "network", "recipe": "ssvq:d=8,k=16", "memory": "ideal", "rows": 1,
                      "accelerator": {"array": "4x4"}},
            "status": "refused",
            "error": "accelerator configuration has 1 problem:\n- rows must be 8, 16, 32 or 64",
            "engine": None,
        }
    )  # fmt: skip
    return {
        "schema": "signbook.sweep/1",
        "space": {},
        "objectives": ["cycles", "area_macs"],
        "rows": rows,
        "pareto": front(rows, "cycles", "multipliers"),
    }


def _row(
    found: dict[str, Any], m: int | None, size: int, bandwidth: float, memory: str
) -> dict[str, Any]:
    ours, int8 = found["runs"]["compressed"], found["runs"]["int8"]
    macs = sum(layer["macs"] for layer in ours["layers"])
    return {
        "point": {
            "target": "network",
            "recipe": "ssvq:d=8,k=16",
            "memory": memory,
            "rows": m,
            "accelerator": {"array": f"{size}x{size}"},
        },
        "status": "done",
        "error": None,
        "engine": "model",
        "cycles": ours["cycles"],
        "int8_cycles": int8["cycles"],
        "speedup": found["speedup"],
        "traffic_ratio": found["traffic_ratio"],
        "bytes_read": ours["bytes_read"],
        "int8_bytes_read": int8["bytes_read"],
        "bursts": ours["bursts"],
        "energy_pj": None,
        "busy_share": macs / (ours["cycles"] * size**2),
        "macs": macs,
        "multipliers": size**2,
        "bytes_per_cycle": bandwidth,
        "rows": m,
        "bits_per_weight": 1.56,
        "speedup_with_rest": found["speedup_with_rest"],
        "seconds": 0.1,
    }


def front(rows: list[dict[str, Any]], *fields: str) -> list[int]:
    """Indices of rows that no other one beats; less is better."""
    costs = {i: [row[f] for f in fields] for i, row in enumerate(rows) if row["status"] == "done"}
    return [
        i
        for i, cost in costs.items()
        if not any(
            other != cost and all(a <= b for a, b in zip(other, cost, strict=True))
            for other in costs.values()
        )
    ]
