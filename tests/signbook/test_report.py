"""The page: complete, self-contained, and safe whatever the names are."""

import base64
import copy
import hashlib
import html.parser
import itertools
import json
import re
from importlib.resources import files
from typing import Any

import pytest

from hwsim import estimate
from hwsim.measure.document import Measurement
from hwsim.sweep.document import Sweep
from signbook.report import render_report, write_report
from signbook.reporting.documents import Document
from signbook.reporting.evaluated import Evaluated
from tests.hwsim.containers import Maker, write
from tests.signbook.documents import TOPOLOGY, front, measured, swept
from vq.errors import ConfigError, OutputError


class Page(html.parser.HTMLParser):
    """Elements, attributes and texts of a page; fails on what is not nested."""

    VOID = ("meta", "br", "hr", "img", "link", "input")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.scripts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "style":
            assert not re.search(r"url\((?!#)|@import", data)
        elif self.open and self.open[-1] == "script":
            self.scripts.append(data)
        else:
            self.text += data

    def headings(self) -> list[str]:
        return [tag for tag, _ in self.elements if tag in ("h1", "h2", "h3")]


def require_self_contained(text: str) -> Page:
    page = Page(text)
    tags = {tag for tag, _ in page.elements}
    (script,) = page.scripts
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = [a["content"] for t, a in page.elements if t == "meta" and "http-equiv" in a]
    assert policy == (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    )
    assert not re.search(r"fetch|XMLHttp|import|eval|innerHTML|https?:", script)
    assert not tags & {"link", "img", "image", "iframe", "object", "base"}
    identifiers = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(identifiers) == len(set(identifiers))
    for tag, attributes in page.elements:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            assert not re.search(r"url\((?!#)", value or ""), (tag, value)
            if name in ("href", "xlink:href", "src"):
                assert value and value[0] == "#" and value[1:] in identifiers, (tag, value)
    assert "NaN" not in text and "nan" not in re.findall(r">([^<]*)<", text)
    return page


def as_measurement(document: dict[str, Any]) -> Measurement:
    return Measurement.model_validate_json(json.dumps(document))


def as_sweep(document: dict[str, Any]) -> Sweep:
    return Sweep.model_validate_json(json.dumps(document))


@pytest.fixture(scope="module")
def topologies(tmp_path_factory: pytest.TempPathFactory) -> dict[int | None, str]:
    folder = tmp_path_factory.mktemp("topologies")
    for m in (1, 64):
        (folder / f"{m}.csv").write_text(TOPOLOGY.format(m=m))
    return {m: str(folder / f"{m}.csv") for m in (1, 64)}


@pytest.fixture(scope="module")
def network(topologies: dict[int | None, str]) -> dict[str, Any]:
    return measured(topologies[64], memory="lpddr4-3200:clock_mhz=500")


@pytest.fixture(scope="module")
def sweep(topologies: dict[int | None, str]) -> dict[str, Any]:
    return swept(topologies, arrays=(16, 32), bandwidths=(0.5, 2, 16), rtl=[(16, 2)])


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A document of a file, as estimate writes it today: no workload, no rest, no energy."""
    make = Maker(2)
    layers = [make.ssvq("a", (32, 64), 8, 16), make.vq("b", (64, 32), 4, 64)]
    path = write(tmp_path_factory.mktemp("file") / "two.vq.safetensors", layers)
    return estimate(path, rows=1)


def test_all_of_it(network, sweep, file):
    documents: list[tuple[str, Document]] = [
        ("net.json", as_measurement(network)),
        ("space.json", as_sweep(sweep)),
        ("file.json", as_measurement(file)),
    ]
    text = render_report(documents)
    page = require_self_contained(text)
    for title in ("Side by side", "Totals", "Roofline", "Where cycles go", "What is read",
                  "What the memory spends", "Where energy goes", "Speed-up surface",
                  "Pareto front", "Not measured"):  # fmt: skip
        assert title in page.text, title
    for run in network["runs"].values():
        assert f"{run['cycles']:,}" in page.text
        for cause, cycles in run["stall_cycles"].items():
            assert f"{cycles:,}" in page.text and cause in page.text
        assert f"{run['bytes_by']['weights']:,}" in page.text
        assert f"{run['energy_pj']:,.0f}" in page.text
        spent = run["energy_pj"] + run["logic_pj"]
        assert f"{run['logic_by']['array']:,.0f} ({run['logic_by']['array'] / spent:.1%}" in (
            page.text.replace("\u00a0%", "%")
        )
        assert f"{spent:,.0f}" in page.text
    for row in sweep["rows"]:
        if row["status"] == "done":
            assert f"{row['speedup']:.2f}x" in page.text
    assert "accelerator configuration has 1 problem: - rows must be 8, 16, 32 or 64" in page.text


def test_tables_of_layers_sort_and_say_what_they_sort_by(network, sweep):
    documents = [("net.json", as_measurement(network)), ("space.json", as_sweep(sweep))]
    text = render_report(documents)
    tables = dict(re.findall(r"<h3>([^<]*)</h3>.*?<table class=\"([^\"]*)\"", text, re.S))
    sorting = {title for title, kind in tables.items() if "sorts" in kind.split()}
    assert {"Roofline", "Where cycles go", "Pareto front"} <= sorting
    # Rows that belong to the one above them, or have no head to click on, stay where they are.
    assert sorting.isdisjoint({"What ran", "Totals", "What is read", "The space"})
    for kind, head in re.findall(r"<table class=\"([^\"]*)\">\s*(<thead>)?", text):
        assert head or "sorts" not in kind.split()


def test_the_engine_is_named_beside_its_numbers(network, file):
    rtl = file | {"engine": "rtl"}
    text = render_report([("a.json", as_measurement(network)), ("b.json", as_measurement(rtl))])
    first, second = text.split('id="document-1"')[1].split('id="document-2"')
    assert 'class="engine model"' in first and 'class="engine rtl"' not in first
    assert "Numbers by cycle model" in first and "Numbers by RTL" not in first
    assert 'class="engine rtl"' in second and "Numbers by cycle model" not in second


def test_energy_of_an_ideal_memory_is_that_of_logic(file, network):
    """Of documents that know none of it, as older ones do, there is no such part."""
    text = require_self_contained(render_report([("file.json", as_measurement(file))])).text
    assert "Where energy goes" in text and "An ideal memory knows no energy" in text
    assert f"{file['runs']['int8']['logic_pj']:,.0f}" in text
    runs = {
        name: {key: value for key, value in run.items() if not key.startswith("logic_")}
        for name, run in network["runs"].items()
    }
    older = require_self_contained(
        render_report([("net.json", as_measurement(network | {"runs": runs}))])
    )
    assert "Where energy goes" not in older.text and "What the memory spends" in older.text


def test_an_order_of_its_own_is_a_fact(file):
    text = render_report([("a.json", as_measurement(file))])
    assert "re-ordered" not in text
    for stored, said in ((16, "16"), (None, "several numbers of")):
        run = file["runs"]["compressed"] | {"reordered": {"from": stored, "to": 8}}
        other = file | {"runs": file["runs"] | {"compressed": run}}
        text = render_report([("a.json", as_measurement(other))])
        assert f"re-ordered from {said} to 8 outputs per block" in text


def test_sections_without_data_are_left_out(file):
    alone = file | {"runs": {"compressed": file["runs"]["compressed"]}, "speedup": None,
                    "traffic_ratio": None}  # fmt: skip
    text = render_report([("file.json", as_measurement(alone))])
    assert text == render_report([("file.json", as_measurement(alone))])
    page = require_self_contained(text)
    for title in ("What the memory spends", "the rest", "Side by side", "Contents", "int8."):
        assert title not in page.text
    assert "Roofline" in page.text and "h3" in page.headings()


def test_a_sweep_of_one_point_has_no_surface(sweep):
    rows = sweep["rows"][:1]
    one = sweep | {"rows": rows, "pareto": [0]}
    page = require_self_contained(render_report([("one.json", as_sweep(one))]))
    assert "Speed-up surface" not in page.text and "Pareto front" in page.text
    none = sweep | {"rows": [sweep["rows"][-1]], "pareto": []}
    page = require_self_contained(render_report([("none.json", as_sweep(none))]))
    assert "nothing was measured" in page.text and "Pareto front" not in page.text


def test_objectives_that_some_points_lack(sweep):
    rows = [row | {"energy_pj": 5.0 if i % 2 else None} for i, row in enumerate(sweep["rows"])]
    best = front([row for row in rows if row["energy_pj"]], "cycles", "energy_pj")
    document = sweep | {"rows": rows, "objectives": ["energy_pj", "cycles"], "pareto": [0, *best]}
    page = require_self_contained(render_report([("sweep.json", as_sweep(document))]))
    assert "energy of the memory, pJ" in page.text


def test_the_rest_of_a_network(network):
    rest = {
        "layers": [
            {"name": "scores", "op": "matmul", "macs": 10**6, "elements": 0, "cycles": 5_000},
            {"name": "softmax", "op": "softmax", "macs": 0, "elements": 8_000, "cycles": 500},
        ],
        "macs": 10**6, "elements": 8_000, "cycles": 5_500, "assumed": "nothing overlaps.",
    }  # fmt: skip
    ours, int8 = (network["runs"][run]["cycles"] for run in ("compressed", "int8"))
    document = network | {"rest": rest, "speedup_with_rest": (int8 + 5_500) / (ours + 5_500)}
    page = require_self_contained(render_report([("net.json", as_measurement(document))]))
    assert "Assumed, not measured: nothing overlaps." in page.text
    assert f"{ours + 5_500:,}" in page.text and "softmax" in page.text
    assert f"{(int8 + 5_500) / 5_500:.2f}x" in page.text


def test_rtl_documents_are_marked_on_surfaces(sweep, network):
    point = network | {"engine": "rtl"}
    other = copy.deepcopy(point)
    for layer in other["runs"]["compressed"]["layers"]:
        layer["method"] = "vq"  # which is not ssvq
    documents: list[tuple[str, Document]] = [("space.json", as_sweep(sweep))]
    documents += [("one.json", as_measurement(one)) for one in (network, point, other)]
    text = render_report(documents)
    assert re.findall(r"RTL [\d.]+ \((\d)\)", text) == ["3"]
    assert f"RTL {network['speedup']:.2f} (3)" in text
    assert f"RTL {sweep['rows'][1]['speedup']:.2f}<" in text


HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</text></svg><script>1</script>",
    "$\\frac{$ & {{ 7 * 7 }} {% raw %}",
    "url(http://example.org) <!-- ]]>",
    "x" * 5_000,
    "line\nbreak\x00\u202e層",
]


@pytest.mark.parametrize("some", [HOSTILE[:3], HOSTILE[3:]])
def test_hostile_names(network, sweep, some):
    names = itertools.cycle(some)
    document, space = copy.deepcopy((network, sweep))
    for number in range(len(document["runs"]["int8"]["layers"])):
        name = next(names)
        for run in document["runs"].values():
            run["layers"][number] |= {"name": name, "method": name}
    document["workload"]["name"] = next(names)
    document["memory"]["name"] = next(names)
    for name in some:
        document["runs"][name] = document["runs"]["int8"]
    for row in space["rows"]:
        name = next(names)
        row["point"] |= {"target": name, "recipe": name, "accelerator": {name: name}}
        row["error"] = name
    text = render_report([(some[0], as_measurement(document)), (some[1], as_sweep(space))])
    text = text.replace("url(http://example.org)", "").replace(
        "\x00", ""
    )  # as texts they may stand
    page = require_self_contained(text)
    for name in some:
        shown = name.replace("url(http://example.org)", "").replace("\x00", "")
        assert shown[:40] in page.text


@pytest.mark.parametrize("name", HOSTILE)
def test_evaluations_stand_below_each_other(name):
    document = {
        "metrics": {name: 1.5, "frechet": 2.0},
        "protocol": {"tokenizer": name},
        "samples": {"model": [[[0, 255]]], "reference": [[[255, 0]]]},
    }
    read = Evaluated.model_validate_json(json.dumps(document))
    text = render_report([(name, read), ("b.json", read)])
    text = text.replace("url(http://example.org)", "").replace("\x00", "")
    page = require_self_contained(text)
    shown = name.replace("url(http://example.org)", "").replace("\x00", "")
    assert page.text.count(f"1. Evaluation: {shown}") == 2  # in the contents, too
    assert page.text.count("2. Evaluation: b") == 2
    assert page.text.count(shown) >= 5 and text.count("<svg") == 2
    assert f"tokenizer={shown[:40]}" in page.text


def test_engines_are_explained_where_there_are_any(file):
    read = Evaluated.model_validate_json('{"metrics": {"top1": 0.5}}')
    alone = render_report([("a.json", read)])
    assert "Verilator" not in alone.partition("This page")[0] and "0.5" in alone
    both = render_report([("a.json", read), ("b.json", as_measurement(file))])
    assert "hardware under Verilator" in both


def test_writing(tmp_path, file):
    source, out = tmp_path / "a.json", tmp_path / "page.html"
    source.write_text(json.dumps(file))
    write_report([source], out)
    assert out.read_text().startswith("<!doctype html>")
    with pytest.raises(ConfigError, match=r"^--out must be a new page, not the document "):
        write_report([source], tmp_path / "." / "a.json")
    with pytest.raises(OutputError):
        write_report([source], tmp_path / "absent" / "page.html")
    (tmp_path / "circle").symlink_to("circle")
    write_report([source], tmp_path / "circle")
    assert json.loads(source.read_text()) == file


def test_facts_of_the_demo_fold():
    """A cell that is no text is one line, whatever its length, and hides the cells beside it."""
    template = (files("signbook") / "templates" / "demo.html.j2").read_text()
    facts = (
        template.split("<h2>What ran</h2>")[1]
        + re.findall(r"<h2>Summary.*?</section>", template, re.S)[0]
    )
    assert facts.count("<td") == facts.count('<td class="text">') > 0
