"""Integer graphs by name: build one into a container, run one as a model."""

import math
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from signbook.naming import resolve_data, resolve_model
from vq.container import open_container
from vq.errors import ConfigError
from vq.integer import IntegerModel, add_integer, read_integer

__all__ = ["SCHEMA", "IntegerModule", "integer_named", "load_integer"]

SCHEMA = "signbook.integer/1"


class IntegerModule(nn.Module):
    """The golden model as a torch module: real inputs to real logits, int8 in between.

    It computes with numpy on the CPU; logits return to the device of the inputs.
    """

    def __init__(self, model: IntegerModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:  # [B, ...]
        codes = self.model.run(self.model.quantize(x.detach().cpu().float().numpy()))
        return torch.from_numpy(self.model.dequantize(codes)).to(x.device)


def load_integer(file: Path) -> IntegerModule:
    """Read the integer graph of a container as a module.

    Raises
    ------
    ContainerError
        If there is none or it is damaged.
    """
    with open_container(file) as container:
        return IntegerModule(read_integer(container))


def integer_named(
    model: str,
    file: Path,
    data: str,
    *,
    out: Path | None = None,
    choice: str = "mse",
    batches: int = 4,
) -> dict[str, Any]:
    """Give a container its integer graph, by the names of the command line.

    Parameters
    ----------
    model : str
        The architecture; its weights are those of ``file``.
    data : str
        A task; the inputs of its first ``batches`` batches calibrate the activations.
    out : path, optional
        Where to write; without it, ``file`` itself gets the graph.

    Returns
    -------
    dict
        The ``signbook.integer/1`` document.

    Raises
    ------
    ConfigError, ContainerError, OutputError
    """
    if batches < 1:
        raise ConfigError(f"batches must be at least 1, not {batches}")
    architecture = resolve_model(model, pretrained=False)
    inputs = list(islice(resolve_data(data).batches, batches))
    integer = add_integer(file, architecture, inputs, out=out, choice=choice)
    return _document(out or file, integer)


def _document(file: Path, integer: IntegerModel) -> dict[str, Any]:
    graph = integer.graph
    nodes = [
        {
            "name": node.name,
            "op": node.op,
            "inputs": list(node.inputs),
            "shape": list(node.shape),
            "relu": node.relu,
            "macs": _macs(integer, place),
            "step": float(integer.scales[place]),
        }
        for place, node in enumerate(graph.nodes)
    ]
    return {
        "schema": SCHEMA,
        "file": str(file),
        "choice": graph.choice,
        "calibration": graph.calibration,
        "macs": sum(_macs(integer, place) for place in range(len(graph.nodes))),
        "nodes": nodes,
    }


def _macs(integer: IntegerModel, place: int) -> int:
    """Multiplications of a node for one input, those with padding counted."""
    node = integer.graph.nodes[place]
    if not node.layer:
        return 0
    weight = integer.parameters[node.name].weight
    per_output: int = weight[0].size
    return per_output * math.prod(node.shape)
