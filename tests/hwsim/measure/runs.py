"""What every run of a document must be."""

from rtl import RUN_CAUSES


def require_run(run: dict) -> None:
    assert run["bit_exact"] is True
    assert run["busy_cycles"] + sum(run["stall_cycles"].values()) == run["cycles"]
    assert sum(run["bytes_by"].values()) == run["bytes_read"]
    assert list(run["stall_cycles"]) == list(RUN_CAUSES)
    for field in ("cycles", "bytes_read", "busy_cycles"):
        assert sum(row[field] for row in run["layers"]) == run[field]
    for row in run["layers"]:
        assert row["busy_cycles"] + sum(row["stall_cycles"].values()) == row["cycles"]
