"""Running commands and measuring them: wall time, CPU time, largest resident memory. Repeats are interleaved between contestants."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Measurement:
    """One run of one command, its children included."""

    wall_s: float
    cpu_s: float  # user + system
    rss_mb: float  # largest resident set, 10**6 bytes
    exit_code: int  # negative: the signal that ended it


@dataclass(frozen=True, slots=True)
class Contestant:
    """A command under a name. ``prepare`` runs before each repeat and is not measured."""

    name: str
    command: tuple[str, ...]
    exit_codes: tuple[int, ...] = (0,)  # those that count as having done the work
    prepare: Callable[[], None] = lambda: None


@dataclass(frozen=True, slots=True)
class Best:
    """Minima over the repeats, each on its own: noise only ever adds."""

    wall_s: float
    cpu_s: float
    rss_mb: float
    runs: tuple[Measurement, ...]

    @classmethod
    def of(cls, runs: Sequence[Measurement]) -> Best:
        return cls(
            min(run.wall_s for run in runs),
            min(run.cpu_s for run in runs),
            min(run.rss_mb for run in runs),
            tuple(runs),
        )


def run(command: Sequence[str], log: Path) -> Measurement:
    """Run a command once, its output going to ``log``.

    A child starts with its parent's memory high-water mark (Linux keeps it over exec), so commands are started by a small process of their
    own, which is this file: what built a model of 100 MB must not be charged to what is measured. Memory below 15 MB cannot be seen.
    """
    starter = [sys.executable, "-I", "-S", __file__, str(log), *command]
    said = subprocess.run(starter, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True).stdout
    return Measurement(**json.loads(said))


def _start_and_measure(log: str, command: list[str]) -> dict[str, float]:
    with open(log, "wb") as output:
        begin = time.perf_counter()
        child = os.posix_spawnp(
            command[0], command, os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, output.fileno(), 1), (os.POSIX_SPAWN_DUP2, output.fileno(), 2)],
        )  # fmt: skip
        _, status, usage = os.wait4(child, 0)
        wall = time.perf_counter() - begin
    return {
        "wall_s": wall,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "rss_mb": usage.ru_maxrss * 1024 / 1e6,
        "exit_code": os.waitstatus_to_exitcode(status),
    }


def interleave(contestants: Sequence[Contestant], repeats: int, log: Path) -> dict[str, Best]:
    """A, B, A, B, ...: what slows the machine for a while slows both.

    Raises:
        RuntimeError: a command did not end as it should; its output's last lines are in the message.
    """
    runs: dict[str, list[Measurement]] = {contestant.name: [] for contestant in contestants}
    for repeat in range(repeats):
        for contestant in contestants:
            contestant.prepare()
            one = run(contestant.command, log)
            if one.exit_code not in contestant.exit_codes:
                tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
                raise RuntimeError(f"exit {one.exit_code}: {' '.join(contestant.command)}\n{tail}")
            runs[contestant.name].append(one)
            print(
                f"  {repeat + 1}/{repeats} {contestant.name:<32} {one.wall_s:7.2f} s wall {one.cpu_s:7.2f} s CPU"
                f" {one.rss_mb:7.0f} MB", flush=True,
            )  # fmt: skip
    return {name: Best.of(measured) for name, measured in runs.items()}


if __name__ == "__main__":
    print(json.dumps(_start_and_measure(sys.argv[1], sys.argv[2:])))
