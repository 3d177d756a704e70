"""The file format: what is written is read, and whatever else a file holds is refused with a reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probe.engine.saved.container import MAGIC, PAGE, Writer, is_saved_engine, open_container
from probe.errors import InputError
from probe.results.build import Section

HEADER = b'{"of": "nothing"}'
ZEROS = "0e5acb6dfe745bb3aac4fe5526a9766684008bc934d83335760da59ed5ddd4ff"  # SHA-256 of 9 << 28 of them, which takes seconds


def written(path: Path, *parts: bytes) -> list[Section]:
    with Writer(path) as writer:
        for at, part in enumerate(parts):
            writer.section(f"part/{at}", part)
        writer.finish(lambda _: HEADER)
        return writer.sections


def test_sections_are_read_as_they_were_written(tmp_path: Path) -> None:
    parts = (b"", b"one", bytes(range(256)) * 100, b"x" * PAGE)
    sections = written(tmp_path / "e.probe", *parts)
    container = open_container(tmp_path / "e.probe")
    assert container.header == HEADER
    assert [bytes(view) for view in container.read(sections).values()] == list(parts)
    assert all(one.offset % PAGE == 0 for one in sections)
    assert [one.name for one in tmp_path.iterdir()] == ["e.probe"]


def test_equal_weights_are_stored_once(tmp_path: Path) -> None:
    with Writer(tmp_path / "e.probe") as writer:
        names = [writer.weight(data) for data in (b"a" * 9000, b"b" * 9000, b"a" * 9000)]
        writer.finish(lambda _: HEADER)
    assert names[0] == names[2] != names[1]
    assert len(writer.sections) == 2


def test_what_is_not_finished_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "e.probe").write_bytes(b"before")

    def refuse(_: object) -> Any:
        raise RuntimeError("half way")

    for header, check in ((refuse, None), (lambda _: HEADER, refuse)):
        with pytest.raises(RuntimeError, match="half way"), Writer(tmp_path / "e.probe") as writer:
            writer.finish(header, check=check)
    assert [one.name for one in tmp_path.iterdir()] == ["e.probe"]
    assert (tmp_path / "e.probe").read_bytes() == b"before"


def test_a_mapped_file_may_be_replaced(tmp_path: Path) -> None:
    sections = written(tmp_path / "e.probe", b"old" * 5000)
    container = open_container(tmp_path / "e.probe")
    written(tmp_path / "e.probe", b"new" * 5000)
    assert bytes(container.read(sections)["part/0"]) == b"old" * 5000


def test_through_a_link_the_link_stays(tmp_path: Path) -> None:
    (tmp_path / "link.probe").symlink_to("real.probe")
    written(tmp_path / "link.probe", b"1")
    assert (tmp_path / "link.probe").is_symlink()
    assert is_saved_engine(tmp_path / "real.probe")


REFUSED = {
    "nothing": (lambda data: b"", "not a saved engine"),
    "text": (lambda data: b"hello", "not a saved engine"),
    "magic alone": (lambda data: MAGIC, "truncated: 8 bytes"),
    "one byte short": (lambda data: data[:-1], "truncated"),
    "half": (lambda data: data[: len(data) // 2], "truncated"),
    "appended to": (lambda data: data + b"x", "damaged"),
    "inserted into": (lambda data: data[:5000] + b"x" + data[5000:], "damaged"),
    "next format": (lambda data: data[:8] + b"\x02" + data[9:], "of format 2; this version of probe reads format 1"),
    "header changed": (lambda data: data[:-2] + b"?" + data[-1:], "its header is not as it was written"),
    "header hash changed": (lambda data: data[:40] + b"\0" + data[41:], "its header is not as it was written"),
    "line ends changed": (lambda data: data.replace(b"\r\n", b"\n"), "not a saved engine"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_container_is_refused(case: str, tmp_path: Path) -> None:
    change, said = REFUSED[case]
    written(tmp_path / "e.probe", b"data" * 3000)
    (tmp_path / "e.probe").write_bytes(change((tmp_path / "e.probe").read_bytes()))
    with pytest.raises(InputError, match=said) as caught:
        open_container(tmp_path / "e.probe")
    assert caught.value.hint


@pytest.mark.parametrize("missing", ["gone.probe", "."])
def test_what_cannot_be_read_is_said(missing: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read the engine"):
        open_container(tmp_path / missing)
    assert not is_saved_engine(tmp_path / missing)


@pytest.mark.parametrize(
    "changed",
    [{"offset": 0}, {"offset": 1 << 40}, {"bytes": 1 << 63}, {"bytes": -1}, {"sha256": "0" * 64}, {"offset": -PAGE}],
    ids=str,
)
def test_sections_that_lie_elsewhere_are_refused(changed: dict[str, int | str], tmp_path: Path) -> None:
    (section,) = written(tmp_path / "e.probe", b"data" * 3000)
    wrong = Section(**{**{n: getattr(section, n) for n in ("name", "offset", "bytes", "sha256")}, **changed})
    with pytest.raises(InputError, match="damaged"):
        open_container(tmp_path / "e.probe").read([wrong])


def test_no_section_twice(tmp_path: Path) -> None:
    (section,) = written(tmp_path / "e.probe", b"data")
    with pytest.raises(InputError, match="damaged"):
        open_container(tmp_path / "e.probe").read([section, section])


@given(st.data())
@settings(max_examples=60)
def test_a_changed_byte_is_refused_or_was_never_read(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("changed") / "e.probe"
    parts = (b"weights" * 1000, b"graph" * 10)
    sections = written(path, *parts)
    content = bytearray(path.read_bytes())
    at = data.draw(st.one_of(st.integers(0, 63), st.integers(0, len(content) - 1)))
    content[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        container = open_container(path)
        found = [bytes(view) for view in container.read(sections).values()]
    except InputError:
        return
    assert found == list(parts)
    assert container.header == HEADER
    assert at >= 64  # what lies before is read whole


@pytest.mark.slow
def test_offsets_beyond_4_gib(tmp_path: Path) -> None:
    """A sparse file: the hole is one section, what lies behind it another."""
    path, hole, tail = tmp_path / "e.probe", 5 << 30, b"behind"
    with Writer(path) as writer:
        writer._end = PAGE + hole
        writer.section("behind", tail)
        writer.finish(lambda _: HEADER)
    (section,) = writer.sections
    assert section.offset == PAGE + hole
    assert path.stat().st_size > hole
    assert path.stat().st_blocks * 512 < 1 << 20, "the file system holds no sparse files"
    assert bytes(open_container(path).read([section])["behind"]) == tail
    whole = Section("hole", PAGE, 9 << 28, ZEROS)
    assert len(open_container(path).read([whole])["hole"]) == 9 << 28
