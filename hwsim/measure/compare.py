"""What the RTL says of its end, and a prediction beside what it counted."""

from hwsim.cycles.predict import Prediction
from hwsim.memory import IdealMemory, MemoryModel
from hwsim.program import Program
from hwsim.program.records import LayerRecord
from hwsim.simulator.accelerator import Outcome
from rtl.program import RunStatus
from vq.container import SimulationError

__all__ = ["CYCLES_TOLERANCE", "require_ok", "require_prediction"]

#: Part of a run's cycles by which counts of cycles may differ if the memory is not ideal: its
#: answers depend on what comes in the same cycle, and on the order of questions.
CYCLES_TOLERANCE = 0.01
_LINES_MAX = 20


def require_prediction(
    program: Program, outcome: Outcome, prediction: Prediction, memory: MemoryModel
) -> None:
    """Require that the model counts what the RTL counted.

    With an ideal memory every counter of every layer must be equal. With any other one, beats and
    bursts must be, and cycles of any kind may differ by ``CYCLES_TOLERANCE`` of the run's.

    Raises
    ------
    SimulationError
        With a table of all differences.
    """
    ideal = isinstance(memory, IdealMemory)
    allowed = 0.0 if ideal else CYCLES_TOLERANCE * outcome.registers["CYCLES"]
    rows = [
        ("run", name.lower(), outcome.registers[name], given)
        for name, given in prediction.registers.items()
    ]
    pairs = zip(program.layers, outcome.records, prediction.records, strict=True)
    for number, (layer, counted, predicted) in enumerate(pairs):
        name = f"{number} {layer.step.name}"
        expected = _kinds(counted)
        rows += [(name, kind, expected[kind], given) for kind, given in _kinds(predicted).items()]
    wrong = [
        f"{where:24} {what:18} {want:12} {given:12}"
        for where, what, want, given in rows
        if abs(given - want) > (allowed if what.endswith("cycles") else 0)
    ]
    if wrong:
        more = len(wrong) - _LINES_MAX
        head = f"{'layer':24} {'counter':18} {'RTL':>12} {'model':>12}"
        lines = [head, *wrong[:_LINES_MAX], *([f"and {more} more"] if more > 0 else [])]
        raise SimulationError("cycle model must count what the RTL counts:\n" + "\n".join(lines))


def _kinds(record: LayerRecord) -> dict[str, int]:
    stalls = {f"{cause}_cycles": cycles for cause, cycles in record.stall_cycles.items()}
    return {"cycles": record.cycles, "busy_cycles": record.busy_cycles, **stalls}


def require_ok(program: Program, outcome: Outcome) -> None:
    """Require that a run has come to its end without an error.

    Raises
    ------
    SimulationError
        Names the layer and the status.
    """
    if outcome.status != RunStatus.OK:
        failed = program.layers[outcome.failed_layer].step.name
        raise SimulationError(f"layer {failed!r}: status must be OK, not {outcome.status.name}")
