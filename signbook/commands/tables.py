"""Tables of a simulate document, ready to print."""

from typing import Any

__all__ = ["layer_rows", "rest_rows", "run_rows", "summary_rows"]

#: Layers that are shown at most, and how many of more.
_LAYERS_MAX, _LAYERS_SHOWN = 64, 24


def run_rows(document: dict[str, Any]) -> list[dict[str, str]]:
    """Totals of all runs: one row per quantity, one column per run."""
    runs: dict[str, dict[str, Any]] = document["runs"]
    first = next(iter(runs.values()))

    def row(what: str, values: dict[str, str]) -> dict[str, str]:
        return {"": what, **values}

    def each(what: str, key: str) -> dict[str, str]:
        return row(what, {name: f"{run[key]:,}" for name, run in runs.items()})

    def share(what: str, *keys: str) -> dict[str, str]:
        found = {}
        for name, run in runs.items():
            value: Any = run
            for key in keys:
                value = value[key]
            found[name] = f"{value / run['cycles']:.1%}"
        return row(what, found)

    rows = [each("cycles", "cycles"), share("busy", "busy_cycles")]
    rows += [share(f"waits for {cause}", "stall_cycles", cause) for cause in first["stall_cycles"]]
    rows.append(each("bytes read", "bytes_read"))
    rows += [
        row(f"  {cause}", {name: f"{run['bytes_by'][cause]:,}" for name, run in runs.items()})
        for cause in first["bytes_by"]
    ]
    rows += [each("bytes written", "bytes_written"), each("bursts", "bursts")]
    if first["energy_pj"] is not None:
        energies = {name: f"{run['energy_pj'] / 1e6:,.3f}" for name, run in runs.items()}
        rows.append(row("memory energy, µJ", energies))
        rows += [
            row(f"  {by}", {n: f"{run['energy_by'][by] / 1e6:,.3f}" for n, run in runs.items()})
            for by in first["energy_by"]
        ]
    if "logic_pj" in first:
        logic = {name: f"{run['logic_pj'] / 1e6:,.3f}" for name, run in runs.items()}
        rows.append(row("logic energy (45 nm), µJ", logic))
        rows += [
            row(f"  {by}", {n: f"{run['logic_by'][by] / 1e6:,.3f}" for n, run in runs.items()})
            for by in first["logic_by"]
        ]
    if first["bit_exact"] is not None:
        exact = {name: "yes" if run["bit_exact"] else "NO" for name, run in runs.items()}
        rows.append(row("bit-exact", exact))
    rows.append(row("seconds", {name: f"{run['wall_seconds']:.2f}" for name, run in runs.items()}))
    return rows


def layer_rows(document: dict[str, Any]) -> tuple[str, list[dict[str, Any]]]:
    """Layers of the compressed run, beside the cycles of the others; a title, and the rows.

    Of many layers, those with the most cycles.
    """
    runs = dict(document["runs"])
    layers = runs.pop("compressed")["layers"]
    others = {name: run["layers"] for name, run in runs.items()}
    rows = [
        {
            "name": layer["name"],
            "method": layer["method"],
            "weights": layer["weights"],
            "m": layer["m"],
            "bytes read": layer["bytes_read"],
            "cycles": layer["cycles"],
            "busy": f"{layer['busy_cycles'] / max(1, layer['cycles']):.1%}",
            **{f"{name} cycles": found[number]["cycles"] for name, found in others.items()},
        }
        for number, layer in enumerate(layers)
    ]
    if len(rows) <= _LAYERS_MAX:
        return "layers", rows
    longest = sorted(rows, key=lambda row: -row["cycles"])[:_LAYERS_SHOWN]
    title = f"the {len(longest)} longest of {len(rows)} layers (--json FILE has all)"
    return title, longest


def rest_rows(document: dict[str, Any]) -> list[dict[str, Any]]:
    """What the accelerator does not run, by operation; empty if it runs all."""
    rest = document.get("rest")
    sums: dict[str, dict[str, Any]] = {}
    for layer in rest["layers"] if rest else ():
        row = sums.setdefault(
            layer["op"], {"op": layer["op"], "macs": 0, "elements": 0, "cycles": 0}
        )
        for key in ("macs", "elements", "cycles"):
            row[key] += layer[key]
    return list(sums.values())


def summary_rows(document: dict[str, Any]) -> list[tuple[str, str]]:
    """Ratios against int8, and what they leave out."""
    rows = [
        (text, "no int8 run" if document[key] is None else f"{document[key]:.3f}x")
        for text, key in (
            ("speed-up over int8", "speedup"),
            ("int8 bytes read / compressed bytes read", "traffic_ratio"),
            ("speed-up with the rest on top of both", "speedup_with_rest"),
        )
        if key in document
    ]
    if document.get("rest"):
        rows.append(("the rest is assumed", document["rest"]["assumed"]))
    if found := document.get("sampling"):
        rows.append(("calls of the network", f"{found['calls']:,}"))
        rows.append(("programs in each", f"{found['turns']:,}"))
        crossing = (f"{found[f'bytes_{way}_device']:,} {way}" for way in ("to", "from"))
        rows.append(("bytes between host and device", ", ".join(crossing)))
    if document.get("workload"):
        known = "trained" if document["workload"]["trained"] else "shapes alone, not trained"
        rows.append(("weights", known))
    return rows
