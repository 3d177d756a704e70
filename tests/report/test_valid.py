"""Every kind of page passes the Nu HTML checker (validator.w3.org/nu). Skipped without Java and the checker: $PROBE_VNU names its vnu.jar."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from probe.report.html.page import html_page
from probe.results.publish import examples
from tests.report.test_detail import RESULT as JUDGED
from tests.report.test_html import KINDS

ALLOWED = (
    "“paint-order”",  # a property of SVG 2, which the checker's list of CSS lacks
    "Resource violates Content Security Policy",  # it takes img-src data: for a host
)


def test_pages_are_valid_html(tmp_path: Path) -> None:
    jar, java = os.environ.get("PROBE_VNU"), shutil.which("java")
    if jar is None or java is None:
        pytest.skip("no Nu HTML checker: `npm pack vnu-jar`, and name the vnu.jar in PROBE_VNU")
    for kind, result in {**{one: examples()[one] for one in KINDS}, "pictures": JUDGED}.items():
        (tmp_path / f"{kind}.html").write_text(html_page(result), encoding="utf-8")
    done = subprocess.run(
        [java, "-jar", jar, "--format", "json", *map(str, tmp_path.glob("*.html"))],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    said = json.loads(done.stderr)["messages"]
    wrong = [one for one in said if not any(allowed in one["message"] for allowed in ALLOWED)]
    assert [f"{Path(one['url']).name}: {one['message']}" for one in wrong] == []
