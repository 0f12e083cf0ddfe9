"""A player of read bursts beside the design, so that Python sleeps while beats flow.

The memory model decides when each beat of a burst is due; that is known when the burst is
requested. A testbench that drives every beat itself wakes up in every cycle, which takes longer
than simulating the cycle. Here it hands the burst over, and Verilog gives the beats, with data from
the file of the memory, which both map.
"""

from typing import Any

from hwsim.simulator.pins import writer

__all__ = ["DATA_SOURCE", "PLAYER_TOP", "Player", "player_verilog"]

PLAYER_TOP = "signbook_playback"
#: Bursts that the player keeps; no accelerator has more under way.
_DEPTH = 64

#: Reads beats of the memory, a file that ``SIGNBOOK_MEMORY`` names; zeros where it ends.
DATA_SOURCE = r"""
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include "svdpi.h"

extern "C" void memory_beat(long long address, int bytes, svBitVecVal* data) {
    static const unsigned char* memory = nullptr;
    static uint64_t size = 0;
    if (memory == nullptr) {
        struct stat facts;
        const char* path = std::getenv("SIGNBOOK_MEMORY");
        const int file = path ? open(path, O_RDONLY) : -1;
        if (file < 0 || fstat(file, &facts) != 0) std::abort();
        size = facts.st_size;
        memory = static_cast<const unsigned char*>(
            mmap(nullptr, size, PROT_READ, MAP_SHARED, file, 0));
        if (memory == MAP_FAILED) std::abort();
    }
    std::memset(data, 0, bytes);
    const uint64_t first = address;
    if (first < size) std::memcpy(data, memory + first, std::min<uint64_t>(bytes, size - first));
}
"""

_PLAYER = """
import "DPI-C" function void memory_beat(
    input longint address, input int bytes, output bit [{bits}-1:0] data);

module {top} (
{ports}
    input  wire        clk,
    input  wire        rst,
    input  wire        play_enable,   // the player gives the beats, not m_axi_r*
    input  wire        play_toggle,   // changes with each burst that is handed over
    input  wire [63:0] play_address,
    input  wire  [8:0] play_beats,
    input  wire  [1:0] play_response,
    input  wire [63:0] play_first,    // when the first beat has arrived, in parts of a cycle
    input  wire [63:0] play_step,     // time of a beat, in parts of a cycle
    input  wire [63:0] play_unit,     // parts of a cycle
    output reg  [31:0] play_count     // beats given since reset
);
    // A register between the port and the reset of every register: ports may change at any time,
    // so Verilator evaluates what hangs on them beside all clock edges.
    reg reset;
    always @(posedge clk) reset <= rst;

    reg [63:0] address [{depth}], first [{depth}];
    reg  [8:0] beats [{depth}];
    reg  [1:0] response [{depth}];
    reg [{index}:0] put, get;
    reg        toggle, rvalid, rlast;
    reg [63:0] horizon, at, due;      // at, due: of the next beat of a burst that has begun
    reg  [8:0] left;                  // its beats; 0 if the next burst has not begun
    reg  [1:0] rresp;
    reg [{bits}-1:0] rdata;
    bit [{bits}-1:0] data;

    wire [{index}-1:0] slot = get[{index}-1:0];
    wire [63:0] next_due = left != 0 ? due : first[slot];
    wire [63:0] next_at = left != 0 ? at : address[slot];
    wire  [8:0] next_left = left != 0 ? left : beats[slot];
    wire        taken = rvalid & m_axi_rready;
    wire        give = put != get & next_due <= horizon;

    always @(posedge clk)
        if (reset) begin
            put <= 0; get <= 0; left <= 0; rvalid <= 0; toggle <= play_toggle;
            horizon <= 3 * play_unit; play_count <= 0;
        end else begin
            horizon <= horizon + play_unit;
            if (play_toggle != toggle) begin
                toggle <= play_toggle;
                address[put[{index}-1:0]] <= play_address;
                first[put[{index}-1:0]] <= play_first;
                beats[put[{index}-1:0]] <= play_beats;
                response[put[{index}-1:0]] <= play_response;
                put <= put + 1;
            end
            if (taken) play_count <= play_count + 1;
            if (taken | ~rvalid) begin
                rvalid <= give;
                if (give) begin
                    memory_beat(next_at, {bits} / 8, data);
                    rdata <= data;
                    rlast <= next_left == 1;
                    rresp <= response[slot];
                    left <= next_left - 1;
                    at <= next_at + {bits} / 8;
                    due <= next_due + play_step;
                    if (next_left == 1) get <= get + 1;
                end
            end
        end

    {design} device (
{connections}
        .clk(clk), .rst(reset)
    );
endmodule
"""
_PLAYED = ("rvalid", "rlast", "rresp", "rdata")


def player_verilog(design: str, ports: dict[str, Any], bus_bits: int) -> str:
    """Text of a top module with a player and a design: its ports, and those of the player.

    While ``play_enable`` is low, the ports ``m_axi_r*`` go to the design.

    Parameters
    ----------
    design : str
        Module name.
    ports : dict
        Of a manifest (:func:`rtl.manifest`): direction and bits by name.
    bus_bits : int
        Width of the read data.
    """
    declarations, connections = [], []
    for name, port in ports.items():
        width = f"[{port['bits']}-1:0] " if port["bits"] > 1 else ""
        declarations.append(f"    {port['direction']} wire {width}{name},")
        source = name.removeprefix("m_axi_")
        value = f"play_enable ? {source} : {name}" if source in _PLAYED else name
        connections.append(f"        .{name}({value}),")
    return _PLAYER.format(
        top=PLAYER_TOP,
        design=design,
        bits=bus_bits,
        depth=_DEPTH,
        index=_DEPTH.bit_length() - 1,
        ports="\n".join(declarations),
        connections="\n".join(connections),
    )


class Player:
    """Hands bursts to the player beside a design.

    Parameters
    ----------
    dut : simulation handle
        A :func:`player_verilog` top.
    unit : int
        Parts of a cycle in which times are given.
    """

    #: Cycles from the handshake of a request to its first beat, at least.
    LATENCY_MIN = 3

    def __init__(self, dut: Any, unit: int) -> None:
        names = ("toggle", "address", "beats", "response", "first", "step")
        self._set = {name: writer(getattr(dut, f"play_{name}")) for name in names}
        self._toggle = 0
        for write in self._set.values():
            write(0)
        writer(dut.play_unit)(unit)
        writer(dut.play_enable)(1)

    def burst(self, address: int, beats: int, response: int, first: int, step: int) -> None:
        """Give a burst's beats: the first when ``first`` parts of a cycle since reset are over."""
        self._toggle ^= 1
        put = self._set
        put["address"](address)
        put["beats"](beats)
        put["response"](response)
        put["first"](first)
        put["step"](step)
        put["toggle"](self._toggle)
