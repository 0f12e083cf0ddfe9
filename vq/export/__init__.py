"""A container in other forms: dense safetensors, ONNX, a memory image with its map."""

from vq.export.dense import DTYPES, export_dense
from vq.export.dram import export_dram
from vq.export.integer import export_integer
from vq.export.onnx import export_onnx

__all__ = ["DTYPES", "export_dense", "export_dram", "export_integer", "export_onnx"]
