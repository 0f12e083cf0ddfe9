"""``signbook report``: the page, and documents that are none."""

import json

from hwsim import estimate
from tests.hwsim.programs import SMALL
from tests.signbook.runner import refused, run


def test_command(file, tmp_path):
    document, page = tmp_path / "file.json", tmp_path / "page.html"
    document.write_text(json.dumps(estimate(file, config=SMALL)))
    done = run("report", document, document, "--out", page)
    assert (done.returncode, done.stdout) == (0, f"report: {page}\n")
    assert page.read_text().startswith("<!doctype html>")
    assert run("report", "--out", page).returncode == 2
    page.unlink()
    document.write_text("{}")
    assert f"error: ConfigError: {document}: schema must be there" in refused(
        "report", document, "--out", page
    )
    assert not page.exists()
