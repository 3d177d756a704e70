"""Other tools' element-wise rules, by name: ``--preset torch`` judges as ``torch.testing.assert_close`` would."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from probe.errors import InputError
from probe.precision import kind_of
from probe.results.diff import Criterion


@dataclass(frozen=True, slots=True)
class Rule:
    """When an element is mismatched, and what follows.

    Attributes:
        combine: ``sum``: |e| > atol + rtol |golden|. ``larger``: |e| > max(atol, rtol |golden|), that is, either tolerance suffices.
        equal_nan, equal_inf: whether NaN matches NaN, and Inf an Inf of its sign.
        criteria: the acceptance the preset stands for; empty: its tool leaves the threshold to the user.
    """

    name: str
    atol: float
    rtol: float
    combine: Literal["sum", "larger"] = "sum"
    equal_nan: bool = True
    equal_inf: bool = True
    criteria: tuple[Criterion, ...] = ()


# torch/testing/_comparison.py, _DTYPE_PRECISIONS: (rtol, atol); mixed types take the larger of each.
_TORCH = {"float16": (1e-3, 1e-5), "bfloat16": (1.6e-2, 1e-5), "float32": (1.3e-6, 1e-5), "float64": (1e-7, 1e-7),
          "complex64": (1.3e-6, 1e-5), "complex128": (1e-7, 1e-7)}  # fmt: skip

PRESETS = ("torch", "numpy", "trtexec", "polygraphy")


def rule_of(preset: str, dtype_actual: str, dtype_golden: str) -> Rule:
    """The rule a preset applies to a pair of types.

    - ``torch``: ``assert_close``, atol + rtol |golden| by type; other types exactly. NaN matches nothing (its ``equal_nan=False``).
    - ``numpy``: ``allclose``, rtol 1e-5, atol 1e-8.
    - ``polygraphy``: ``simple``, element-wise, atol = rtol = 1e-5, either suffices; NaN and Inf match nothing.
    - ``trtexec``: ``l0`` with rtol 1e-5 and atol 1e-8; its threshold is the user's, so nothing is judged without ``--accept``
      (``l0 l1 l2 linf cos`` are understood there; its l2 is the mean squared error, its cos is 1 - cosine).

    Raises:
        InputError: no such preset.
    """
    every = (Criterion("mismatch_fraction", "<=", 0.0, source=f"preset {preset}"),)
    match preset:
        case "torch":
            if "float" not in (kind_of(dtype_actual), kind_of(dtype_golden)) and not dtype_golden.startswith("complex"):
                return Rule(preset, 0.0, 0.0, equal_nan=False, criteria=every)
            pairs = [_TORCH.get(dtype, (0.0, 0.0)) for dtype in (dtype_actual, dtype_golden)]
            return Rule(preset, max(p[1] for p in pairs), max(p[0] for p in pairs), equal_nan=False, criteria=every)
        case "numpy":
            return Rule(preset, 1e-8, 1e-5, equal_nan=False, criteria=every)
        case "polygraphy":
            return Rule(preset, 1e-5, 1e-5, "larger", equal_nan=False, equal_inf=False, criteria=every)
        case "trtexec":
            return Rule(preset, 1e-8, 1e-5)
    raise InputError(f"unknown preset {preset!r}", hint=f"presets: {', '.join(PRESETS)}")


def default_rule(dtype_actual: str, dtype_golden: str) -> Rule:
    """Without a preset: torch's tolerances, probe's classes (NaN matches NaN). They count mismatches and judge nothing."""
    torch = rule_of("torch", dtype_actual, dtype_golden)
    return Rule("default", torch.atol, torch.rtol)
