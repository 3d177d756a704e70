"""What other programs do, from two looks at the machine."""

from __future__ import annotations

import os

import pytest

from probe.timing.machine import Busy, _machine_seconds, cores, look, other_load

TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


@pytest.mark.parametrize(
    ("before", "after", "load"),
    [
        (
            Busy(0.0, 10.0, 5.0),
            Busy(2.0, 14.0, 7.0),
            1.0,
        ),  # four core-seconds of work, two of them ours, in two seconds
        (Busy(100.0, 10.0, 5.0), Busy(102.0, 14.0, 7.0), 1.0),  # since any moment
        (Busy(0.0, 10.0, 5.0), Busy(2.0, 12.0, 7.0), 0.0),
        (Busy(0.0, 10.0, 5.0), Busy(2.0, 11.9, 7.0), 0.0),  # ticks are coarse: never below zero
        (Busy(0.0, None, 5.0), Busy(2.0, None, 7.0), None),
        (Busy(0.0, 10.0, 5.0), Busy(2.0, 10.0, 7.0), None),  # a file that does not move knows nothing
        (Busy(0.0, 10.0, 5.0), Busy(0.1, 10.5, 5.0), None),  # too short to tell
    ],
)
def test_other_load(before: Busy, after: Busy, load: float | None) -> None:
    assert other_load(before, after) == (pytest.approx(load) if load is not None else None)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("cpu  100 10 50 9999 777 0 6 4 0 0\ncpu0 1 2 3", 170 / TICKS),  # idle and waiting for disks is not work
        ("cpu  100 0 0 5", 100 / TICKS),
        ("", None),
        ("cpu x y z w", None),
        ("intr 1 2 3 4 5", None),
        ("cpu 1 2", None),
    ],
)
def test_the_kernel_s_file(text: str, seconds: float | None) -> None:
    assert _machine_seconds(lambda: text) == (pytest.approx(seconds) if seconds is not None else None)


def test_a_system_without_the_file() -> None:
    def missing() -> str:
        raise FileNotFoundError

    assert _machine_seconds(missing) is None


def test_looking() -> None:
    first, second = look(), look()
    assert second.wall >= first.wall and second.own >= first.own and cores() >= 1
