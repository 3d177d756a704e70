"""Processes that record and are killed, or compete: ``python -m tests.store.victims TASK ...``.

Children are forked from a process without threads that has everything imported: a recording then takes a tenth of the time that
starting Python would, and most of a random delay falls into the recording.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from probe.cli.main import guard
from probe.results.tensors import RunHeader, TensorInfo
from probe.store.dump import Dump
from probe.store.opening import open_sink, read_array

TENSORS, ELEMENTS = 250, 50_000  # 50 MB


def record(
    path: Path, *, overwrite: bool = False, tensors: int = TENSORS, mark: int = 0, progress: int | None = None
) -> int:
    """Record a known pattern; ``mark`` tells one recording from another. A byte a tensor goes to the file descriptor ``progress``."""
    with open_sink(path, RunHeader(command=str(mark)), overwrite=overwrite) as sink:
        base = np.arange(ELEMENTS, dtype=np.float32)
        for k in range(tensors):
            sink.add(TensorInfo(f"t{k}", "", ()), base + k + 1000 * mark)
            if progress is not None:
                os.write(progress, b".")
    return 0


def whole(path: Path, tensors: int = TENSORS) -> int:
    """The mark of a dump that is whole and right; anything else raises."""
    dump = Dump(path)
    mark = int(dump.header.command)
    base = np.arange(ELEMENTS, dtype=np.float32)
    assert len(dump.rows()) == tensors, len(dump.rows())
    for k, row in enumerate(dump.rows()):
        assert np.array_equal(read_array(dump, row), base + k + 1000 * mark), row.name
    return mark


def in_child(task: Callable[[], Any]) -> int:
    """Fork, run, leave with the result as exit code (3 for an exception); the child's process id."""
    pid = os.fork()
    if pid:
        return pid
    code = 3
    try:
        code = task()
    except BaseException as error:  # reported, and the code says it
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
    finally:
        os._exit(code)


def exit_code(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def hidden(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.parent.iterdir() if entry.name != path.name)


def kill_at_random(path: Path, kills: int, seed: int, overwrite: bool) -> dict[str, Any]:
    """Kill so many recordings, one at a moment in each part of their duration, the end included; what was there after each.

    ``states`` holds "absent", or the mark of the whole recording found; an incomplete one makes this fail.
    """
    rng = random.Random(seed)
    if overwrite:
        assert exit_code(in_child(lambda: record(path, mark=1))) == 0
    report: dict[str, Any] = {"killed": 0, "finished": 0, "states": [], "leftovers": 0, "after_tensors": []}
    for k in range(kills):
        mark = 2 + k % 60
        reader, writer = os.pipe()
        child = in_child(lambda mark=mark, writer=writer: record(path, overwrite=overwrite, mark=mark, progress=writer))
        os.close(writer)
        place = 1.15 * (k + rng.random()) / kills
        wanted, seen = int(TENSORS * min(1, place)), 0
        while seen < wanted and (got := os.read(reader, wanted - seen)):
            seen += len(got)
        time.sleep(rng.random() * (0.001 if place < 1 else 0.01))  # a tensor takes 0.001 s, publishing a few of them
        os.kill(child, signal.SIGKILL)
        os.close(reader)
        report["after_tensors"].append(seen)
        code = exit_code(child)
        assert code in (0, -signal.SIGKILL), code
        report["killed" if code else "finished"] += 1
        report["leftovers"] = max(report["leftovers"], len(hidden(path)))
        found = exit_code(in_child(lambda: whole(path))) if path.exists() else None
        assert found is None or found in (mark, *range(1, 63)), found
        report["states"].append("absent" if found is None else found)
        if not overwrite and path.exists():
            remove(path)
    assert exit_code(in_child(lambda: record(path, overwrite=overwrite, mark=99))) == 0
    assert exit_code(in_child(lambda: whole(path))) == 99
    report["left_at_the_end"] = hidden(path)
    return report


def remove(path: Path) -> None:
    for entry in path.iterdir():
        entry.unlink()
    path.rmdir()


STEPS = ["mkdir", "open", "write", "fsync", "unlink", "rename"]


def kill_at_step(path: Path, step: str, number: int, after: bool, overwrite: bool) -> str:
    """Record in a child that kills itself at the ``number``-th call of a step: "killed", or "finished" when there is none so late."""

    def task() -> int:
        home: Any = os if step in ("fsync", "rename") else Path
        if step == "write":
            from probe.store import writer

            home, name = writer, "_write_all"
        else:
            name = step
        plain = getattr(home, name)
        calls = 0

        def counted(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == number and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = plain(*args, **kwargs)
            if calls == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        setattr(home, name, counted)
        return record(path, overwrite=overwrite, tensors=3, mark=2)

    code = exit_code(in_child(task))
    assert code in (0, -signal.SIGKILL), code
    return "killed" if code else "finished"


def every_step(path: Path, overwrite: bool) -> dict[str, list[str]]:
    """Kill before and after every step there is; what was found at the target each time."""
    report: dict[str, list[str]] = {}
    for step in STEPS:
        for after in (False, True):
            number = 0
            while True:
                number += 1
                if path.exists():
                    remove(path)
                if overwrite:
                    assert exit_code(in_child(lambda: record(path, tensors=3, mark=1))) == 0
                if kill_at_step(path, step, number, after, overwrite) == "finished":
                    assert number > 1, step
                    break
                found = str(exit_code(in_child(lambda: whole(path, 3)))) if path.exists() else "absent"
                report.setdefault(step, []).append(found)
                # the next recording to the same place finds it tidy, and overwriting finds what was there before
                again = exit_code(in_child(lambda: record(path, overwrite=True, tensors=3, mark=5)))
                assert again == 0 and exit_code(in_child(lambda: whole(path, 3))) == 5
                assert hidden(path) == [], hidden(path)
    return report


def compete(path: Path, writers: int, overwrite: bool) -> list[int]:
    """Exit codes of writers that start at once and finish close together."""
    reader, gate = os.pipe()
    children = []
    for k in range(writers):

        def task(mark: int = k) -> int:
            os.close(gate)
            os.read(reader, 1)  # until the gate is closed
            return guard(lambda: record(path, overwrite=overwrite, tensors=20, mark=mark), [])

        children.append(in_child(task))
    os.close(gate)
    return [exit_code(child) for child in children]


def main() -> None:
    task, path, *rest = sys.argv[1:]
    match task:
        case "random":
            result: Any = kill_at_random(Path(path), int(rest[0]), int(rest[1]), rest[2] == "overwrite")
        case "steps":
            result = every_step(Path(path), rest[0] == "overwrite")
        case "compete":
            result = compete(Path(path), int(rest[0]), rest[1] == "overwrite")
        case "hold":  # begin a recording, say so, and go on when told
            with open_sink(path, RunHeader()) as sink:
                sink.add(TensorInfo("x", "", ()), np.zeros(1000))
                print("begun", flush=True)
                sys.stdin.readline()
            result = "published"
        case _:
            raise SystemExit(f"no task {task!r}")
    print(json.dumps(result))


if __name__ == "__main__":
    sys.exit(guard(lambda: main() or 0, sys.argv[1:], debug=True))
