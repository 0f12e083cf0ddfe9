"""Measure a container on the generated hardware, beside the same layers as int8."""

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from hwsim.image import ImageLayer, layers_of
from hwsim.job import Job, Result
from hwsim.memory import parse_memory
from hwsim.sim import run
from rtl import STALL_CAUSES, StreamerConfig
from vq.container import (
    ConfigError,
    Container,
    Layer,
    SimulationError,
    open_container,
    write_container,
)

__all__ = ["BASELINES", "DEFAULT_MEMORY", "simulate"]

#: Methods that a file can be compared with.
BASELINES = ("int8",)
DEFAULT_MEMORY = "ideal:bytes_per_cycle=16,latency=20"


def simulate(
    path: str | PathLike[str],
    *,
    config: StreamerConfig | None = None,
    memory: str = DEFAULT_MEMORY,
    methods: Sequence[str] = BASELINES,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """Stream a container through the RTL under Verilator and report what it cost.

    The file's own bytes are the memory. Every decoded weight is compared with the software
    decoder. With ``methods=("int8",)`` the same integer weights run once more as an int8
    container, on the same instance, bus and memory.

    The instance streams weights and has no multipliers: ``m`` and ``macs`` are 0, nothing is
    written, and ``energy_pj`` is None.

    Parameters
    ----------
    path : path
        A ``*.vq.safetensors`` file.
    config : StreamerConfig, optional
        The instance; default values if left out.
    memory : str
        Memory model, see :func:`hwsim.memory.parse_memory`.
    methods : sequence of str
        Baselines to run as well, of ``BASELINES``. Without int8, ``speedup`` and
        ``traffic_ratio`` are None.
    progress : callable, optional
        Called now and then with the run's name, its data beats so far, and all its beats.

    Returns
    -------
    dict
        The document ``signbook.simulate/1`` with engine "rtl".

    Raises
    ------
    ConfigError
        If the instance cannot run a layer (each is named with the limit), or a baseline or the
        memory is unknown. Nothing has been simulated then.
    ContainerError
        If the file is damaged.
    SimulationError
        If a tool is missing, or the hardware reports an error or breaks a rule.
    """
    config = config or StreamerConfig()
    described = parse_memory(memory).describe()
    for method in methods:
        if method not in BASELINES:
            raise ConfigError(f"methods must be of {', '.join(BASELINES)}, not {method!r}")
    one_run = partial(_run, config=config, memory=memory, progress=progress)
    with open_container(path) as container:
        layers_of(container, config)
        runs = {"compressed": one_run(container, "compressed")}
        for method in dict.fromkeys(methods):
            with tempfile.TemporaryDirectory(prefix="signbook-") as folder:
                baseline = Path(folder) / f"{method}.vq.safetensors"
                write_container(baseline, layers=_as_int8(container))
                with open_container(baseline) as other:
                    runs[method] = one_run(other, method)
    ours, int8 = runs["compressed"], runs.get("int8")
    return {
        "schema": "signbook.simulate/1",
        "engine": "rtl",
        "accelerator": config.to_mapping(),
        "memory": described,
        "runs": runs,
        "speedup": int8["cycles"] / ours["cycles"] if int8 else None,
        "traffic_ratio": int8["bytes_read"] / ours["bytes_read"] if int8 else None,
    }


def _as_int8(container: Container) -> list[Layer]:
    """The decoded integers of every layer, as int8 layers of the same names and shapes.

    Group scales have no place there; the hardware reads none.
    """
    return [
        Layer.int8(
            g.name,
            integers=container.integers(g.name),
            scale=np.ones(1, np.float32) if g.group else container.scale(g.name),
            shape=g.shape,
            op=g.op,
            tile_outputs=g.tile_outputs,
        )
        for g in (entry.geometry for entry in container.layers)
    ]


def _run(
    container: Container,
    name: str,
    *,
    config: StreamerConfig,
    memory: str,
    progress: Callable[[str, int, int], None] | None,
) -> dict[str, Any]:
    """One RUN of the document."""
    layers = layers_of(container, config)
    beats = sum(layer.read_bytes for layer in layers) // config.bus_bytes
    job = Job(container.path, [layer.descriptor for layer in layers], memory)
    result = run(config, job, progress=progress and (lambda done: progress(name, done, beats)))
    if progress is not None:
        progress(name, beats, beats)
    return _document(container, layers, result, config)


def _document(
    container: Container, layers: Sequence[ImageLayer], result: Result, config: StreamerConfig
) -> dict[str, Any]:
    rows, exact = [], True
    for layer, outcome in zip(layers, result.layers, strict=True):
        g, report = layer.entry.geometry, outcome.report
        _check(layer, report, config)
        expected = container.stream_order(g.name)
        exact &= len(outcome.weights) == layer.output_weights(result.lanes)
        exact &= np.array_equal(outcome.weights[: len(expected)], expected)
        rows.append(
            {
                "name": g.name,
                "method": g.method,
                "weights": g.weights,
                "macs": 0,
                "m": 0,
                "cycles": report["cycles"],
                "bytes_read": report["beats"] * config.bus_bytes,
                "busy_cycles": report["busy_cycles"],
                "stall_cycles": {cause: report[f"{cause}_cycles"] for cause in STALL_CAUSES},
            }
        )
    bus = result.bus
    charged = {
        "cycles": (sum(row["cycles"] for row in rows), result.cycles),
        "bytes": (sum(row["bytes_read"] for row in rows), bus.read_bytes),
        "bursts": (sum(outcome.report["bursts"] for outcome in result.layers), bus.bursts),
    }
    for quantity, (inside, outside) in charged.items():
        if inside != outside:
            raise SimulationError(
                f"{quantity} counted by the hardware must be those of the memory, "
                f"{outside}, not {inside}"
            )
    return {
        "cycles": result.cycles,
        "bytes_read": bus.read_bytes,
        "bytes_written": 0,
        "bursts": bus.bursts,
        "stall_cycles": {
            cause: sum(row["stall_cycles"][cause] for row in rows) for cause in STALL_CAUSES
        },
        "busy_cycles": sum(row["busy_cycles"] for row in rows),
        "bit_exact": bool(exact),
        "wall_seconds": result.wall_seconds,
        "energy_pj": None,
        "bytes_by": {
            "weights": sum(layer.entry.geometry.payload_bytes for layer in layers),
            "codebooks": sum(layer.codebook_bytes for layer in layers),
            "scales": sum(layer.zero_bytes for layer in layers),
            "activations": 0,
            "descriptors": 0,
            "padding": sum(layer.padding_bytes for layer in layers),
        },
        "layers": rows,
    }


def _check(layer: ImageLayer, report: dict[str, Any], config: StreamerConfig) -> None:
    """Require that the hardware ran a layer as asked and charged each of its cycles once."""
    name = layer.entry.geometry.name
    if report["status"] != "OK":
        raise SimulationError(f"layer {name!r}: status must be OK, not {report['status']}")
    if report["beats"] * config.bus_bytes != layer.read_bytes:
        raise SimulationError(
            f"layer {name!r}: bytes read must be {layer.read_bytes}, "
            f"not {report['beats'] * config.bus_bytes}"
        )
    charged = report["busy_cycles"] + sum(report[f"{cause}_cycles"] for cause in STALL_CAUSES)
    if charged != report["cycles"]:
        raise SimulationError(
            f"layer {name!r}: busy and stall cycles must sum to {report['cycles']}, not {charged}"
        )
