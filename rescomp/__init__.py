"""Quantisers that compensate: RTN, GPTQ, GPTAQ, ResComp, QEP, to scalars and to codebooks.

:func:`quantize_` does a whole model on calibration data, :func:`quantize_matrix` one weight, and
:func:`quantize_codebook` those that share a codebook. One recursion (:mod:`rescomp.recursion`)
serves them all; a method is how it corrects the columns that are still free. What is stored are
the container's int8, int4, int3, int2, ssvq and vq layers. The names below
are imported when they are first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rescomp.calibrate import QuantizeResult, default_recipe, quantize_
    from rescomp.codebooks.quantize import Coded, quantize_codebook
    from rescomp.codebooks.settings import Fitting
    from rescomp.methods import FOEM, GPTAQ, GPTAQR, GPTQ, GPTQR, QEP, RTN
    from rescomp.quantize import Quantized, Report, quantize_matrix
    from rescomp.settings import Settings
    from rescomp.tuning import Tuning
    from rescomp.worker import LayerReport
    from vq.activations.tokens import ActivationQuantizer
    from vq.calibration.rotation import rotate_
    from vq.calibration.statistics import Statistics
    from vq.formats.clip import Clip

_HOME = {
    "ActivationQuantizer": "vq.activations.tokens",
    "Clip": "vq.formats.clip",
    "Coded": "rescomp.codebooks.quantize",
    "FOEM": "rescomp.methods",
    "Fitting": "rescomp.codebooks.settings",
    "GPTAQ": "rescomp.methods",
    "GPTAQR": "rescomp.methods",
    "GPTQ": "rescomp.methods",
    "GPTQR": "rescomp.methods",
    "LayerReport": "rescomp.worker",
    "QEP": "rescomp.methods",
    "QuantizeResult": "rescomp.calibrate",
    "Quantized": "rescomp.quantize",
    "RTN": "rescomp.methods",
    "Report": "rescomp.quantize",
    "Settings": "rescomp.settings",
    "Statistics": "vq.calibration.statistics",
    "Tuning": "rescomp.tuning",
    "default_recipe": "rescomp.calibrate",
    "quantize_": "rescomp.calibrate",
    "quantize_codebook": "rescomp.codebooks.quantize",
    "quantize_matrix": "rescomp.quantize",
    "rotate_": "vq.calibration.rotation",
}

__all__ = [
    "FOEM",
    "GPTAQ",
    "GPTAQR",
    "GPTQ",
    "GPTQR",
    "QEP",
    "RTN",
    "ActivationQuantizer",
    "Clip",
    "Coded",
    "Fitting",
    "LayerReport",
    "QuantizeResult",
    "Quantized",
    "Report",
    "Settings",
    "Statistics",
    "Tuning",
    "default_recipe",
    "quantize_",
    "quantize_codebook",
    "quantize_matrix",
    "rotate_",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'rescomp' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
