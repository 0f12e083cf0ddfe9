"""Fast access to the ports of a simulated design.

cocotb's ``handle.value`` builds an object for each access, which takes most of the time of a
testbench that looks at a few ports in every cycle. These functions use the simulator interface
beneath it; with ``COCOTB_TRUST_INERTIAL_WRITES`` the result is the same.
"""

from collections.abc import Callable
from typing import Any

__all__ = ["reader", "writer"]

_DEPOSIT = 0
_LONG_BITS = 31  # the interface's integers are signed


def reader(handle: Any) -> Callable[[], int]:
    """Function that returns a port's present value as an unsigned integer."""
    port = handle._handle
    if len(handle) <= _LONG_BITS:
        get_long: Callable[[], int] = port.get_signal_val_long
        return get_long
    get_text: Callable[[], str] = port.get_signal_val_binstr
    return lambda: int(get_text(), 2)


def writer(handle: Any) -> Callable[[int], None]:
    """Function that sets a port from the next evaluation on; the value must fit its width."""
    port = handle._handle
    if len(handle) <= _LONG_BITS:
        set_long: Callable[[int, int], None] = port.set_signal_val_int
        return lambda value: set_long(_DEPOSIT, value)
    form = f"0{len(handle)}b"
    set_text: Callable[[int, str], None] = port.set_signal_val_binstr
    return lambda value: set_text(_DEPOSIT, format(value, form))
