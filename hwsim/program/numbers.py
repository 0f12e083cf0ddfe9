"""Parameters of a step as they lie in memory: slots in the order of use."""

import numpy as np

from hwsim.program.step import Step
from rtl import AcceleratorConfig
from rtl.transfer.parameters import GROUPS_PER_SLOT, PARAMETER_BYTES

__all__ = ["parameter_slots"]


def parameter_slots(step: Step, config: AcceleratorConfig) -> bytes:
    """For each block of outputs: its requantisation, then the scales of its groups.

    An output has 8 bytes in each slot: bias (int32), multiplier (int16), shift and one byte that is
    0; or four int16 scales.
    """
    numbers, rows = step.numbers, config.rows
    outputs = step.target.channels
    blocks = -(-outputs // rows)
    dtype = np.dtype([("bias", "<i4"), ("multiplier", "<i2"), ("shift", "u1"), ("unused", "u1")])
    last = np.zeros(blocks * rows, dtype)
    last["shift"] = 1
    last["bias"][:outputs] = numbers.bias
    last["multiplier"][:outputs] = numbers.multiplier
    last["shift"][:outputs] = numbers.shift
    slots = [last.view(np.uint8).reshape(blocks, 1, rows, PARAMETER_BYTES)]
    if numbers.group_scale.size:
        groups = numbers.group_scale.shape[1]
        of_groups = -(-groups // GROUPS_PER_SLOT)
        scales = np.zeros((blocks * rows, of_groups * GROUPS_PER_SLOT), "<i2")
        scales[:outputs, :groups] = numbers.group_scale
        by_slot = scales.reshape(blocks, rows, of_groups, GROUPS_PER_SLOT).transpose(0, 2, 1, 3)
        as_bytes = np.ascontiguousarray(by_slot).view(np.uint8)
        slots.append(as_bytes.reshape(blocks, of_groups, rows, PARAMETER_BYTES))
    return np.concatenate(slots, axis=1).tobytes()
