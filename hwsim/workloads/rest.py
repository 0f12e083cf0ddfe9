"""What of a workload the accelerator does not run, and how long it is taken to be."""

from collections.abc import Collection
from typing import Any

from hwsim.workloads.network import Workload
from rtl import AcceleratorConfig

__all__ = ["ASSUMED", "rest_of"]

ASSUMED = (
    "a unit beside the accelerator gives rows * columns products per cycle of what multiplies, and "
    "columns elements of output per cycle of all else; it moves no bytes and nothing overlaps"
)


def rest_of(
    workload: Workload, left_out: Collection[str], config: AcceleratorConfig, *, once: bool = False
) -> dict[str, Any] | None:
    """Count what is left out of a plan, the same for all methods.

    Parameters
    ----------
    workload : Workload
    left_out : collection of str
        Names of single repetitions, see :class:`~hwsim.workloads.PlannedWorkload`.
    config : AcceleratorConfig
    once : bool
        Whether the plan knows the first repetition alone, which then speaks for all.

    Returns
    -------
    dict or None
        "layers", one for each of the workload's that is left out at least once, with name, op, and
        macs, elements and cycles of all its repetitions; their sums; and "assumed", :data:`ASSUMED`
        for readers. None if nothing is left out.
    """
    layers: list[dict[str, Any]] = []
    for layer in workload.layers:
        numbers = range(1 if once else layer.count)
        times = sum(layer.repetition(number).name in left_out for number in numbers)
        times *= layer.count // len(numbers)
        if not times:
            continue
        elements = layer.output_bytes  # one byte each
        if layer.macs:
            cycles = -(-layer.macs // (config.rows * config.columns))
        else:
            cycles = -(-elements // config.columns)
        layers.append(
            {
                "name": layer.name,
                "op": layer.op,
                "macs": times * layer.macs,
                "elements": times * elements,
                "cycles": times * cycles,
            }
        )
    if not layers:
        return None
    sums = {key: sum(layer[key] for layer in layers) for key in ("macs", "elements", "cycles")}
    return {"layers": layers, **sums, "assumed": ASSUMED}
