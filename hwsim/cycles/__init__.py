"""The cycle model: every counter of the accelerator, for every layer, without a simulator.

Control in this design depends on no data, so a run is predicted from its descriptors alone.
``source/`` holds the control of every component in C, under the names of ``rtl/``, stepped cycle by
cycle, and two ways to skip what must happen again. It is compiled when it is first used.
``docs/cycle-model.md`` says how it works and how it is checked.
"""

from hwsim.cycles.machine import Ways
from hwsim.cycles.predict import Prediction, predict, predict_descriptors

__all__ = ["Prediction", "Ways", "predict", "predict_descriptors"]
