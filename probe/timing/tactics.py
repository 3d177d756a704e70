"""The kernel choices of a tactic file, for a network that is timed."""

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
    from collections.abc import Mapping

    from probe.engine.engine import Engine
    from probe.results.tactics import TacticFile


@dataclass(frozen=True, slots=True)
class Recorded:
    """A tactic file whose text is as it was written."""

    file: TacticFile
    path: Path

    @classmethod
    def read(cls, path: Path, **asked: str | None) -> Recorded:
        """
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
        """The network's choices, which must fit; kept tensors are those that the file names.

        Raises:
            InputError: they do not fit; every miss is listed.
        """
        replay = Replay(self.file, strict=True, engine=engine, edited=False, source=str(self.path))
        engine.assignment = base_of(self.file, engine)
        return choose(engine, inputs, [replay]).assignment(engine.assignment)
