"""probe: find where, why and by how much a compiled network differs from its golden.

>>> import probe
>>> result = probe.diff({"y": [1.0, 2.0, 3.0]}, {"y": [1.0, 2.0, 3.5]}, accept=["max_abs<=0.1"])
>>> result.verdict, bool(result)
('failed', False)
>>> result.tensors[0].metrics.max_abs
0.5

Everything here is loaded when it is first used: ``import probe`` itself imports nothing but the standard library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from probe.api import check as check
    from probe.api import compile as compile  # noqa: A004 - users write probe.compile
    from probe.api import convert as convert
    from probe.api import diff as diff
    from probe.api import dump as dump
    from probe.api import find as find
    from probe.api import load as load
    from probe.api import load_result as load_result
    from probe.api import open_recording as open_recording
    from probe.api import run as run
    from probe.api import tactics as tactics
    from probe.errors import InputError as InputError
    from probe.errors import ProbeError as ProbeError
    from probe.results.diff import Criterion as Criterion

__version__ = "0.1.0.dev0"

_HOMES = {
    "Criterion": "probe.results.diff",
    "InputError": "probe.errors",
    "ProbeError": "probe.errors",
    "check": "probe.api",
    "compile": "probe.api",
    "convert": "probe.api",
    "diff": "probe.api",
    "dump": "probe.api",
    "find": "probe.api",
    "load": "probe.api",
    "load_result": "probe.api",
    "open_recording": "probe.api",
    "run": "probe.api",
    "tactics": "probe.api",
}

__all__ = [
    "Criterion", "InputError", "ProbeError", "__version__",
    "check", "compile", "convert", "diff", "dump", "find", "load", "load_result", "open_recording", "run", "tactics",
]  # fmt: skip


if not TYPE_CHECKING:  # a type checker would take any name for granted

    def __getattr__(name: str) -> Any:
        try:
            home = _HOMES[name]
        except KeyError:
            raise AttributeError(f"module 'probe' has no attribute {name!r}") from None
        import importlib

        value = getattr(importlib.import_module(home), name)
        globals()[name] = value  # the next access does not come here
        return value


def __dir__() -> list[str]:
    return sorted(__all__)
