"""The built-in demonstration: a network that FP16 breaks without a single NaN, from a wrong answer to a proved model that keeps one tensor.

The network and its one overflow are ``probe.demo_model``. A chapter is a command of probe, run through the library, and what it must find:
the demonstration checks itself.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probe.demo_model import (
    CLASSES,
    FAULTY_NODE,
    FAULTY_TENSOR,
    OVERFLOWING_NODE,
    OVERFLOWING_TENSOR,
    PRODUCER,
    build_demo_model,
    build_faulty_model,
)
from probe.errors import InputError

if TYPE_CHECKING:
    from probe.results.run import RunResult

__all__ = [
    "CHAPTERS",
    "ENGINE_FILE",
    "FAULTY_NODE",
    "FAULTY_TENSOR",
    "MIXED_FILE",
    "MODEL_FILE",
    "OVERFLOWING_NODE",
    "OVERFLOWING_TENSOR",
    "Chapter",
    "Demo",
    "Step",
    "build_demo_model",
    "build_faulty_model",
    "prepare",
    "record_and_compare",
    "run_demo",
]

MODEL_FILE = "model.onnx"
MIXED_FILE = "mixed.onnx"
ENGINE_FILE = "engine.onnx"  # the faulty model: something to record and compare, no part of the story

Progress = Callable[[str, str], None]  # phase, what is worked on


@dataclass(frozen=True, slots=True)
class Step:
    """A chapter told.

    Attributes:
        noticed: what to look at in the result, in sentences.
        found: whether the result is what was planted.
    """

    command: str
    result: Any
    noticed: tuple[str, ...]
    found: bool


@dataclass(frozen=True, slots=True)
class Chapter:
    """A command of the story, and the question it answers."""

    about: str
    words: str  # of the command, with {model} and {mixed} for the files
    play: Callable[[Path, str, Progress], Step]

    def command(self, folder: Path) -> str:
        """As a user would type it to do the same."""
        files = {"model": folder / MODEL_FILE, "mixed": folder / MIXED_FILE}
        return self.words.format(**{name: shlex.quote(str(path)) for name, path in files.items()})

    def tell(self, folder: Path, progress: Progress | None = None) -> Step:
        """Run it in a prepared folder."""
        return self.play(folder, self.command(folder), progress or (lambda _phase, _name: None))


@dataclass(frozen=True, slots=True)
class Demo:
    """The whole story, told in ``folder``. True when every chapter found what was planted."""

    folder: Path
    steps: tuple[Step, ...]

    def __bool__(self) -> bool:
        return all(step.found for step in self.steps)


def run_demo(folder: str | Path) -> Demo:
    """Write the demo's models into ``folder`` and tell the story there, every chapter of it.

    Raises:
        InputError: as ``prepare``.
    """
    prepared = prepare(folder)
    return Demo(prepared, tuple(chapter.tell(prepared) for chapter in CHAPTERS))


def prepare(folder: str | Path) -> Path:
    """Write the demo's models into ``folder``, which is returned.

    Done again, it replaces what it wrote; anything else in the folder is refused rather than touched.

    Raises:
        InputError: the folder cannot be written, or holds something that is not the demo's.
    """
    folder = Path(folder)
    model = folder / MODEL_FILE
    try:
        if (
            folder.is_dir()
            and any(folder.iterdir())
            and not (model.is_file() and PRODUCER.encode() in model.read_bytes())
        ):
            raise InputError(f"{folder} holds something that is not the demo's", hint="choose another folder with -o")
        folder.mkdir(parents=True, exist_ok=True)
        model.write_bytes(build_demo_model())
        (folder / ENGINE_FILE).write_bytes(build_faulty_model())
    except OSError as error:
        raise InputError(
            f"cannot write the demo's models: {error.strerror}", where=str(folder), hint="choose another folder"
        ) from error
    return folder


def record_and_compare(folder: Path) -> tuple[str, ...]:
    """Commands that find the bad kernel of ``ENGINE_FILE`` by recording both models and comparing the recordings."""
    model, engine = (shlex.quote(str(folder / name)) for name in (MODEL_FILE, ENGINE_FILE))
    golden, actual = (shlex.quote(str(folder / name)) for name in ("golden", "engine"))
    return (
        f"probe dump {model} -o {golden}",
        f"probe dump {engine} -o {actual} --inputs {golden}",
        f"probe diff {actual} {golden} --precision fp16",
    )


# --- the chapters


def _run(folder: Path, command: str, progress: Progress) -> Step:
    from probe import api

    result = api.run(folder / MODEL_FILE, worst=CLASSES, command=command, progress=progress)
    causes = [finding for finding in result.findings if finding.fatal]
    finite = all(one.metrics is not None and not one.metrics.nonfinite_mismatch for one in result.outputs.values())
    found = result.verdict == "failed" and [cause.tensor for cause in causes] == [OVERFLOWING_TENSOR]
    noticed = (*(f"Why: {cause.message}." for cause in causes), *((_answers(result),) if finite else ()))
    return Step(command, result, noticed, found and finite)


def _answers(result: RunResult) -> str:
    """What one sees without a golden: nothing suspicious. ``result`` holds the worst elements of its output, here all of them."""
    (logits,) = (tensor.worst for tensor in result.tensors if tensor.role == "output")
    actual, golden = [one.actual for one in logits], [one.golden for one in logits]
    said, right = (logits[side.index(max(side))].index[-1] for side in (actual, golden))
    return (
        f"The output does not look wrong: no NaN, no Inf, logits from {min(actual):.1f} to {max(actual):.1f}, in FP32 from {min(golden):.1f} "
        f"to {max(golden):.1f}. But they say class {said}, and FP32 says class {right}."
    )


def _check(folder: Path, command: str, progress: Progress) -> Step:
    from probe import api

    result = api.check(folder / MODEL_FILE, precision="fp16", command=command, progress=progress)
    errors = result.of("error")
    noticed = [
        f"{one.tensor} alone, with all else in FP32: {one.output} is off by {one.output_error:.2g} of its range. Cure: {one.cure}."
        for one in errors
        if one.output_error is not None
    ]
    return Step(command, result, tuple(noticed), [one.tensor for one in errors] == [OVERFLOWING_TENSOR])


def _find(folder: Path, command: str, progress: Progress) -> Step:
    from probe import api

    result = api.find(folder / MODEL_FILE, folder / MIXED_FILE, overwrite=True, command=command, progress=progress)
    exported = result.exported is not None and result.exported.passed
    found = result.status == "found" and result.tensors == (OVERFLOWING_TENSOR,) and exported
    return Step(command, result, (), bool(result) and found)


CHAPTERS = (
    Chapter("Does it survive FP16?", "probe run {model} --precision fp16", _run),
    Chapter(
        "What would have told beforehand? One pass in FP32, nothing run in FP16:",
        "probe check {model} --precision fp16",
        _check,
    ),
    Chapter(
        "What is the least that must stay FP32? Found by running it, proved, and written as a model to deploy:",
        "probe find {model} --precision fp16 -o {mixed} --overwrite",
        _find,
    ),
)
