"""Sections of ``signbook.simulate/2`` documents."""

from collections import Counter

from hwsim.measure.document import Measurement, Rest, Run, by_cause
from signbook import plots
from signbook.plots.style import BYTES, STALLS
from signbook.reporting.parts import (
    Card,
    Part,
    Section,
    Table,
    number,
    per_one,
    ratio,
    settings,
    share,
)
from signbook.reporting.places import PLACES, Place, places

__all__ = ["ENGINES", "bandwidths", "measured_section", "name_of"]

ENGINES = {"rtl": "RTL", "model": "cycle model"}
#: Runs whose table has room beside a plot.
_BESIDE = 3
_CAUSES = (
    "Numbers by {}. In every cycle either a vector enters the array (busy), or one cause is "
    "charged: weights or activations have not come (memory), a codebook has not (codebook), the "
    "decoder's output is the limit (decoder), the array or the requantiser takes none (compute), "
    "earlier outputs have to go first (writeback). They add up to all cycles."
)


def name_of(document: Measurement, file: str) -> str:
    """What was measured: the network's name, or else the file of the document."""
    return document.workload.name if document.workload else file.removesuffix(".json")


def bandwidths(document: Measurement) -> dict[str, float]:
    """Bytes per cycle that limit a read: the memory's, and the bus's if it is narrower."""
    bus = document.accelerator.bus_bits / 8
    memory = document.memory.bytes_per_cycle
    if memory is None:
        return {"bus": bus}
    return {"bus": bus, "memory": memory} if bus < memory else {"memory": memory}


def measured_section(number_: int, document: Measurement, file: str) -> Section:
    """One document: what ran, where cycles, bytes and energy went."""
    drawn = places(document.runs)
    layers = len(document.runs["compressed"].layers)
    parts = [
        Part("What ran", table=_facts(document)),
        Part("Totals", table=_totals(document), note=_CAUSES.format(ENGINES[document.engine])),
        _roofline(document, drawn),
        _stalls(document, drawn),
        _bytes(document),
        _energy(document),
        _split(document),
        _rest(document),
        _remaining(document),
    ]
    section = Section(
        f"{number_}. {name_of(document, file)}", [document.engine], file, _cards(document)
    )
    section.parts.extend(part for part in parts if part is not None)
    if len(drawn) < layers:
        section.parts.insert(1, Part("Layers", note=_rule(drawn, layers)))
    return section


def _rule(drawn: list[Place], layers: int) -> str:
    return (
        f"The {layers} layers are drawn at {len(drawn)} places. Of more than {PLACES} layers, "
        "those that repeat are drawn as one, summed: names equal but for numbers between dots, and "
        "in every run the same method, weights, rows and multiplications. If there still are more "
        "places, those with the fewest cycles are drawn as one, the last."
    )


def _cards(document: Measurement) -> list[Card]:
    ours = document.runs["compressed"]
    cards = []
    engine = ENGINES[document.engine]
    if document.speedup is not None:
        cards.append(Card(ratio(document.speedup), f"faster than int8 (cycles, {engine})"))
    if document.traffic_ratio is not None:
        cards.append(Card(ratio(document.traffic_ratio), "fewer bytes read than int8"))
    if document.speedup_with_rest is not None:
        cards.append(Card(ratio(document.speedup_with_rest), "with all that is not weight traffic"))
    use = share(ours.macs, ours.cycles * document.multipliers)
    cards.append(Card(use, "of all multiplier cycles used, compressed"))
    exact = [run.bit_exact for run in document.runs.values()]
    if None not in exact:
        cards.append(Card("bit-exact" if all(exact) else "DIFFERENT", "hardware against numpy"))
    return cards


def _facts(document: Measurement) -> Table:
    accelerator = document.accelerator.model_dump()
    array = f"{accelerator.pop('rows')}x{accelerator.pop('columns')}"
    rows = [
        ("engine", ENGINES[document.engine]),
        ("accelerator", settings({"array": array, **accelerator})),
        ("memory", settings(document.memory.model_dump())),
    ]
    ours = document.runs["compressed"]
    weights = sum(layer.weights for layer in ours.layers)
    text = f"{len(ours.layers)} layers, {weights:,} weights, {ours.macs:,} multiplications"
    text += f", M = {document.m:,}" if document.m else ""
    work = document.workload
    if work is not None:
        state = "a trained network" if work.trained else "shapes only, no trained weights"
        text = f"{work.name} ({work.parameters:,} parameters, {state}): {text}"
    rows.append(("workload", text))
    rows.append(("methods", ", ".join(document.methods) or "none"))
    if ours.reordered is not None:
        stored = ours.reordered.from_ or "several numbers of"
        rows.append(
            ("streams", f"re-ordered from {stored} to {ours.reordered.to} outputs per block")
        )
    if document.versions:
        rows.append(("versions", settings(document.versions)))
    return Table((), rows, texts=2)


def _totals(document: Measurement) -> Table:
    int8 = document.runs.get("int8")
    head = ["run", *STALLS, "cycles", "faster than int8"]
    rows = []
    for name, run in document.runs.items():
        causes = by_cause(run)
        rows.append([
            name,
            *(number(causes[cause]) for cause in STALLS),
            number(run.cycles),
            ratio(per_one(int8.cycles if int8 else None, run.cycles)),
        ])  # fmt: skip
        rows.append(["", *(share(causes[cause], run.cycles) for cause in STALLS), "100 %", ""])
    return Table(head, rows)


def _roofline(document: Measurement, drawn: list[Place]) -> Part | None:
    points, rows = [], []
    for index, place in enumerate(drawn, 1):
        spots = {
            run: (part.macs / part.bytes_read, part.macs / part.total)
            for run, part in place.runs.items()
            if part.macs and part.bytes_read and part.total
        }
        if spots:
            points.append(plots.Point(index, spots))
        rows.append(_layer_row(index, place))
    if not points:
        return None
    runs = list(document.runs)
    head = ["#", "layer", "method", "M", "multiplications"]
    for title in ("bytes read", "mult. per byte", "mult. per cycle"):
        head += [f"{title}, {run}" for run in runs]
    if "int8" in runs:
        head.append("speed-up")
    limits = bandwidths(document)
    plot = plots.roofline(points, multipliers=document.multipliers, bandwidths=limits)
    return Part(
        "Roofline",
        plot,
        Table(head, rows, texts=3, sorts=True),
        f"Numbers by {ENGINES[document.engine]}. Each line joins the runs of a layer, whose number "
        "is that of the table. Fewer bytes for the same multiplications move a layer to the right; "
        "what the memory allows then grows, up to what the array allows. A layer can lie above the "
        "memory's roof, because its first bytes are read in cycles that are charged to the layer "
        "before it, and below it, where it waits for something else. Layers that do not multiply "
        "are in the table only.",
        wide=True,
    )


def _layer_row(index: int, place: Place) -> list[str]:
    parts = place.runs
    ours = parts["compressed"]
    per_byte = [per_one(p.macs, p.bytes_read) for p in parts.values()]
    per_cycle = [per_one(p.macs, p.total) for p in parts.values()]
    row = [str(index), place.name, ", ".join(ours.methods), number(ours.m), number(ours.macs)]
    row += [number(p.bytes_read) for p in parts.values()]
    row += [number(value) for value in (*per_byte, *per_cycle)]
    if "int8" in parts:
        row.append(ratio(per_one(parts["int8"].total, ours.total)))
    return row


def _stalls(document: Measurement, drawn: list[Place]) -> Part:
    layers = {run: [place.runs[run].cycles for place in drawn] for run in document.runs}
    rows = []
    for i, place in enumerate(drawn):
        for run in document.runs:
            cycles = layers[run][i]
            rows.append([place.name, run, *(number(cycles[c]) for c in STALLS),
                         number(place.runs[run].total)])  # fmt: skip
    return Part(
        "Where cycles go",
        plots.cycles_per_layer([place.name for place in drawn], layers),
        Table(["layer", "run", *STALLS, "cycles"], rows, texts=2, sorts=True),
        f"Numbers by {ENGINES[document.engine]}. Every cycle belongs to the layer whose vector "
        "enters, or else to the next one to give a vector.",
        wide=True,
    )


def _bytes(document: Measurement) -> Part:
    by = {run: one.bytes_by.model_dump() for run, one in document.runs.items()}
    rows = [
        [cause, *(f"{number(by[run][cause])} ({share(by[run][cause], one.bytes_read)})"
                  for run, one in document.runs.items())]
        for cause in BYTES
    ]  # fmt: skip
    total = len(rows)
    for text, field in (("all", "bytes_read"), ("written", "bytes_written"), ("bursts", "bursts")):
        rows.append([text, *(number(getattr(run, field)) for run in document.runs.values())])
    return Part(
        "What is read",
        plots.split_bars(by, label="bytes read", colours=BYTES),
        Table(["bytes", *document.runs], rows, total=total),
        f"Numbers by {ENGINES[document.engine]}. Scales are all parameters of requantisation.",
        wide=len(by) > _BESIDE,
    )


def _energy(document: Measurement) -> Part | None:
    runs = {name: run for name, run in document.runs.items() if run.energy_pj}
    if not runs:
        return None
    split = {name: _spent(run) for name, run in runs.items()}
    causes = list(dict.fromkeys(cause for parts in split.values() for cause in parts))
    rows = [[cause, *(number(parts.get(cause)) for parts in split.values())] for cause in causes]
    if causes != ["all"]:
        rows.append(["all", *(number(run.energy_pj) for run in runs.values())])
    total = len(rows) - 1
    per = [
        ["per byte read", *(number(per_one(r.energy_pj, r.bytes_read)) for r in runs.values())],
        ["per multiplication", *(number(per_one(r.energy_pj, r.macs)) for r in runs.values())],
    ]
    return Part(
        "What the memory spends",
        plots.split_bars(split, label="energy, pJ"),
        Table(["pJ", *runs], [*rows, *per], total=total),
        "Energy of the DRAM by its supply currents, not that of the accelerator. Refresh and "
        "background grow with time, the others with bytes and rows.",
        wide=len(runs) > _BESIDE,
    )


def _spent(run: Run) -> dict[str, float]:
    if run.energy_by is not None:
        return dict(run.energy_by.model_dump())
    return {"all": run.energy_pj or 0.0}


def _split(document: Measurement) -> Part | None:
    """Energy of the memory beside that of each part of the logic."""
    runs = {name: run for name, run in document.runs.items() if run.logic_by is not None}
    if not runs:
        return None
    split = {name: _spent_by(run) for name, run in runs.items()}
    causes = list(dict.fromkeys(cause for parts in split.values() for cause in parts))
    sums = {name: sum(parts.values()) for name, parts in split.items()}
    rows = [
        [cause, *(f"{number(parts.get(cause))} ({share(parts.get(cause, 0), sums[name])})"
                  for name, parts in split.items())]
        for cause in causes
    ]  # fmt: skip
    total = len(rows)
    rows.append(["all", *map(number, sums.values())])
    per = [number(per_one(sums[name], run.macs)) for name, run in runs.items()]
    memory = "" if "memory" in causes else " An ideal memory knows no energy."
    return Part(
        "Where energy goes",
        plots.split_bars(split, label="energy, pJ"),
        Table(["pJ", *runs], [*rows, ["per multiplication", *per]], total=total),
        "Of the logic, operations of the data path are counted, each at a published energy of a "
        "45 nm process. Control, clock trees, wires and leakage are left out, so that its sum is a "
        f"lower bound.{memory}",
        wide=len(runs) > _BESIDE,
    )


def _spent_by(run: Run) -> dict[str, float]:
    memory = {} if run.energy_pj is None else {"memory": run.energy_pj}
    return memory | (run.logic_by.model_dump() if run.logic_by else {})


def _rest(document: Measurement) -> Part | None:
    rest = document.rest
    if rest is None or not rest.cycles:
        return None
    other = _kinds(rest)
    split = {
        name: {"weight streams": run.cycles, **{op: n for op, n in other.items()}}
        for name, run in document.runs.items()
    }
    rows = []
    for name, run in document.runs.items():
        total = run.cycles + rest.cycles
        rows.append([name, number(run.cycles), number(rest.cycles), number(total),
                     share(rest.cycles, total)])  # fmt: skip
    note = f"Assumed, not measured: {rest.assumed.rstrip('.')}."
    int8 = document.runs.get("int8")
    if int8 is not None:
        limit = (int8.cycles + rest.cycles) / rest.cycles
        note += (
            f" Without the rest the speed-up is {ratio(document.speedup)}, with it "
            f"{ratio(document.speedup_with_rest)}; were weights free, it would be {ratio(limit)}."
        )
    return Part(
        "Weight streams and the rest",
        plots.split_bars(split, label="cycles"),
        Table(["run", "weight streams", "rest", "all", "rest of all"], rows),
        note,
    )


def _remaining(document: Measurement) -> Part | None:
    if not document.runtime:
        return None
    rows = [
        [part.kind, number(len(part.layers)), number(part.bytes), number(part.macs_per_token)]
        for part in document.runtime
    ]
    return Part(
        "What remains at run time",
        table=Table(["part", "layers", "bytes", "multiplications per token"], rows),
        note="Not run by the accelerator, and in no figure above: the weights alone are not the "
        "model of this file.",
    )


def _kinds(rest: Rest) -> dict[str, int]:
    """Cycles of the rest by operation, the largest first."""
    cycles: Counter[str] = Counter()
    for layer in rest.layers:
        cycles[layer.op] += layer.cycles
    return dict(cycles.most_common())
