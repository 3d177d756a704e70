"""The kernel choices of a tactic file, for a network that is timed or saved."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probe.engine.assignment import Assignment
from probe.engine.tuning.choose import choose
from probe.engine.tuning.replay import Replay
from probe.engine.tuning.tactic_file import base_of, read_unedited
from probe.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from probe.engine.engine import Engine
    from probe.results.tactics import TacticFile


def settings_with(
    tactics: str | Path | None, keep: Collection[object], asked: Mapping[str, str | None], *, usual_precision: str
) -> tuple[Recorded | None, dict[str, Any]]:
    """How to compile a network: as the tactic file says, or without one as the user asked, else as is usual; and the file.

    Args:
        keep: what the user wants kept in FP32, which a file says itself.
        asked: as for ``Recorded.read``.

    Raises:
        InputError: both a file and ``keep``; otherwise as ``Recorded.read``.
    """
    usual = {"precision": usual_precision, "passes": "safe", "fusion": "safe", "interior": "storage"}
    if tactics is None:
        return None, {name: asked[name] if asked[name] is not None else value for name, value in usual.items()}
    if keep:
        raise InputError("a tactic file says itself what is kept", where="--keep", hint="leave one of both out")
    recorded = Recorded.read(Path(tactics), **asked)
    return recorded, {name: getattr(recorded.file, name) for name in usual}


@dataclass(frozen=True, slots=True)
class Recorded:
    """A tactic file whose text is as it was written."""

    file: TacticFile
    path: Path

    @classmethod
    def read(cls, path: Path, **asked: str | None) -> Recorded:
        """Read a file, and hold it against what the user asked for.

        Args:
            asked: what the user said of the compiler beside it, by option: ``precision``, ``passes``, ``fusion``, ``interior``; None: nothing.

        Raises:
            InputError: it cannot be read, was edited, or contradicts what was asked.
        """
        file = read_unedited(path)
        for option, value in asked.items():
            recorded = getattr(file, option)
            if value not in (None, recorded):
                raise InputError(
                    f"the tactic file was recorded with --{option} {recorded}, not {value}", where=str(path),
                    hint=f"leave --{option} out",
                )  # fmt: skip
        return cls(file, path)

    def assignment(self, engine: Engine, inputs: Mapping[str, Any]) -> Assignment:
        """The choices of the file for a network, which must fit; kept tensors are those that the file names.

        The engine's own assignment becomes the file's precisions, every layer exact: what layers are tuned for.

        Raises:
            InputError: they do not fit; every miss is listed.
        """
        replay = Replay(self.file, strict=True, engine=engine, edited=False, source=str(self.path))
        engine.assignment = base_of(self.file, engine)
        return choose(engine, inputs, [replay]).assignment(engine.assignment)
