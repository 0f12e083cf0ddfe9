"""AXI4 for cocotb: slaves with a memory behind them, a host, and checks of the protocol."""

from hwsim.simulator.axi.lite import LiteMaster
from hwsim.simulator.axi.reads import AxiReadSlave, PlayedReadSlave
from hwsim.simulator.axi.rules import ProtocolError
from hwsim.simulator.axi.writes import AxiWriteSlave

__all__ = ["AxiReadSlave", "AxiWriteSlave", "LiteMaster", "PlayedReadSlave", "ProtocolError"]
