"""A host on AXI4-Lite."""

from typing import Any

from hwsim.simulator.pins import reader, writer

__all__ = ["LiteMaster"]


class LiteMaster:
    """A host's accesses by AXI4-Lite, one at a time.

    Parameters
    ----------
    dut : simulation handle
        Has the ports ``s_axi_*``.
    tick : callable
        Awaitable that passes one cycle.
    """

    def __init__(self, dut: Any, tick: Any) -> None:
        self._tick = tick
        self._set = {
            name: writer(getattr(dut, f"s_axi_{name}"))
            for name in (
                "awvalid", "awaddr", "awprot", "wvalid", "wdata", "wstrb", "bready",
                "arvalid", "araddr", "arprot", "rready",
            )
        }  # fmt: skip
        self._get = {
            name: reader(getattr(dut, f"s_axi_{name}"))
            for name in ("awready", "wready", "bvalid", "bresp", "arready", "rvalid", "rdata",
                         "rresp")
        }  # fmt: skip
        for write in self._set.values():
            write(0)

    async def write(self, address: int, value: int) -> int:
        """Write a register; return the response."""
        put, get = self._set, self._get
        put["awaddr"](address)
        put["wdata"](value)
        put["wstrb"](0b1111)
        put["bready"](1)
        waiting = {"awready": "awvalid", "wready": "wvalid"}
        for valid in waiting.values():
            put[valid](1)
        while waiting:
            await self._tick()
            for ready, valid in list(waiting.items()):
                if get[ready]():
                    put[valid](0)
                    del waiting[ready]
        while not get["bvalid"]():
            await self._tick()
        response = get["bresp"]()
        put["bready"](0)
        return response

    async def read(self, address: int) -> tuple[int, int]:
        """Read a register; return its value and the response."""
        put, get = self._set, self._get
        put["araddr"](address)
        put["arvalid"](1)
        put["rready"](1)
        while True:
            await self._tick()
            if get["arready"]():
                break
        put["arvalid"](0)
        while not get["rvalid"]():
            await self._tick()
        found = get["rdata"](), get["rresp"]()
        put["rready"](0)
        return found
