"""AXI4 for cocotb: slaves with a memory behind them, a host, and checks of the protocol."""

from hwsim.axi.lite import LiteMaster
from hwsim.axi.reads import AxiReadSlave, PlayedReadSlave
from hwsim.axi.rules import ProtocolError
from hwsim.axi.writes import AxiWriteSlave

__all__ = ["AxiReadSlave", "AxiWriteSlave", "LiteMaster", "PlayedReadSlave", "ProtocolError"]
