"""The folder of compiled kernels: bounded, what was used longest ago goes first, whoever else is at it."""

from __future__ import annotations

import os
import threading
import time

import pytest

from probe.engine.device.cuda.compiling import compile as compiling
from probe.engine.device.cuda.compiling.compile import Compiler, Program, Resources, Source
from probe.engine.device.cuda.compiling.pruning import prune

DAY = 24 * 3600.0


def fill(folder, ages: dict[str, float], size: int = 1000):
    """Files of ``size`` bytes, used so many days ago."""
    for name, days in ages.items():
        (folder / name).write_bytes(bytes(size))
        used(folder / name, days)
    return folder


def used(path, days: float) -> None:
    os.utime(path, (time.time() - days * DAY,) * 2)


def names(folder) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_what_was_used_longest_ago_goes_first(tmp_path):
    fill(tmp_path, {f"{days}.kernel": days for days in (3, 11, 0, 7, 5, 9, 1, 8, 10, 4)})
    assert prune(tmp_path, 9999) == 2  # of ten thousand bytes; nine tenths of the limit stay
    assert names(tmp_path) == {f"{days}.kernel" for days in (3, 0, 7, 5, 9, 1, 8, 4)}


def test_below_the_limit_nothing_goes(tmp_path):
    fill(tmp_path, {"a.kernel": 900, "b.kernel": 0})
    assert prune(tmp_path, 2000) == 0 and len(names(tmp_path)) == 2
    assert prune(tmp_path / "nowhere") == 0


def test_what_is_no_kernel_stays_but_for_what_nobody_finishes(tmp_path):
    fill(tmp_path, {"a.kernel": 2, "notes.txt": 2, "old.part": 2, "young.part": 0})
    (tmp_path / "folder.kernel").mkdir()
    assert prune(tmp_path, 10) == 1
    assert names(tmp_path) == {"notes.txt", "young.part", "folder.kernel"}


def test_a_link_is_removed_and_not_what_it_names(tmp_path):
    precious = tmp_path / "precious"
    precious.write_bytes(bytes(5000))
    folder = tmp_path / "kernels"
    folder.mkdir()
    (folder / "a.kernel").symlink_to(precious)
    fill(folder, {"b.kernel": 0})
    prune(folder, 10)
    assert names(folder) == set() and precious.stat().st_size == 5000


def test_several_at_once_remove_no_more_than_one(tmp_path):
    fill(tmp_path, {f"{at:03}.kernel": at for at in range(200)})
    gate, removed = threading.Barrier(4), []

    def one() -> None:
        gate.wait()
        removed.append(prune(tmp_path, 100_000))

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(removed) == 110 and names(tmp_path) == {f"{at:03}.kernel" for at in range(90)}


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    """Compilers that make a kernel of a thousand bytes of anything."""
    made = []

    def compiled(source, *_):
        made.append(source.entry)
        return Program(bytes(1000), Resources(1, 0, 0, 0))

    monkeypatch.setattr(compiling, "compile_source", compiled)
    monkeypatch.setattr(compiling, "nvrtc_version", lambda: (13, 0))
    return lambda: (Compiler("sm_90a", tmp_path), made)


def source(name: str) -> Source:
    return Source("any.cu", name, text=f"// {name}")


def test_a_kernel_that_is_used_is_used_lately(tmp_path, compiler):
    one, made = compiler()
    for name in "ab":
        one(source(name))
    for path in tmp_path.iterdir():
        used(path, 30)
    compiler()[0](source("a"))
    assert made == ["a", "b"]
    prune(tmp_path, 2000)
    later, _ = compiler()
    later(source("a"))
    later(source("b"))
    assert made == ["a", "b", "b"]


def test_a_use_is_noted_once_a_day(tmp_path, compiler):
    compiler()[0](source("a"))
    (path,) = tmp_path.iterdir()
    for days, noted in ((0.5, False), (2, True)):
        used(path, days)
        before = path.stat().st_mtime
        compiler()[0](source("a"))
        assert (path.stat().st_mtime > before) == noted


def test_what_a_process_writes_is_pruned_with_the_first_and_every_so_many(tmp_path, compiler, monkeypatch):
    monkeypatch.setattr(compiling, "prune", lambda folder: prune(folder, 10_000))
    monkeypatch.setattr(compiling, "_PRUNED_EVERY", 4)
    fill(tmp_path, {f"{at}.kernel": 1 + at for at in range(30)})
    one, _ = compiler()
    one(source("first"))
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 10_000
    for at in range(20):
        one(source(str(at)))
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 10_000 + 4 * 1200


def test_a_kernel_removed_while_it_is_wanted_is_compiled_again(tmp_path, compiler):
    one, made = compiler()
    one(source("a"))
    assert one.missing([source("a")]) == []
    (path,) = tmp_path.iterdir()
    path.unlink()
    assert one(source("a")).cubin == bytes(1000) and made == ["a", "a"]
