"""Files stay short enough to be read in one go, and named after what they hold."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAX_LINES = 450
FILES = sorted(path for room in ("probe", "tests") for path in (ROOT / room).rglob("*.py"))
JUNK_DRAWERS = {"utils", "util", "helpers", "helper", "common", "misc", "tools"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_is_short_and_says_what_it_is(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_LINES, "cut it where a reader would"
    assert path.stem not in JUNK_DRAWERS and path.parent.name not in JUNK_DRAWERS, "name it after what it holds"
    assert not text.strip() or text.lstrip().startswith(('"""', 'r"""')), "the first line says what the module is for"
