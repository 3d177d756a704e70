"""Numbers and sizes as a table column wants them: three significant digits, at most nine characters."""

from __future__ import annotations

import math


def number(value: float | None) -> str:
    """Three significant digits: ``0.0123``, ``1.2e-05``, ``12345``, ``nan``, ``-inf``; ``-`` for None ("not defined here")."""
    if value is None:
        return "-"
    if isinstance(value, int) or (math.isfinite(value) and 1000 <= abs(value) < 99999.5):
        return f"{value:.0f}" if abs(value) < 1e8 else f"{value:.2e}"
    return f"{value:.3g}"


def cosine(value: float | None) -> str:
    """Six decimals; above 0.999999 the distance from 1 instead (``1-2e-09``), which six decimals would hide."""
    if value is None or not abs(value) < 1.5:  # NaN, or damaged data that no column was made for
        return number(value)
    if 0.999999 <= value < 1.0:
        return f"1-{1.0 - value:.1g}"
    return f"{value:.6f}"


def size(count: int) -> str:
    """Bytes in decimal units: ``812 B``, ``4.1 kB``, ``150.2 MB``, ``2.3 GB``."""
    power = 0
    while count >= 999.95 * 1000**power and power < 4:  # 999.95 kB would round to "1000.0 kB"
        power += 1
    if power == 0:
        return f"{count} B"
    return f"{count / 1000**power:.1f} {('kB', 'MB', 'GB', 'TB')[power - 1]}"


def count(value: int, noun: str = "", plural: str = "") -> str:
    """``1,234`` or, with a noun, ``1 tensor`` and ``1,234 tensors``."""
    if not noun:
        return f"{value:,}"
    return f"{value:,} {noun if value == 1 else plural or noun + 's'}"


def seconds(value: float) -> str:
    """``0.21 s``, ``3.4 s``, ``95 s``."""
    return f"{value:.2f} s" if value < 1 else f"{value:.1f} s" if value < 10 else f"{value:.0f} s"


def shape(extents: tuple[int | str | None, ...] | None) -> str:
    """``[1,3,224,224]``; a symbolic extent is its name, an unknown one ``?``."""
    if extents is None:
        return "[...]"
    return "[" + ",".join("?" if e is None else str(e) for e in extents) + "]"
