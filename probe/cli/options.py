"""Options that several commands share: same name, same meaning, same help everywhere."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from probe.errors import InputError

Select = Annotated[
    str | None,
    typer.Option(
        "--select",
        "--layers",
        metavar="REGEX|@FILE",
        help="Only tensors whose name the regular expression is found in, or that are listed in FILE, one a line.",
    ),
]
Json = Annotated[
    str | None,
    typer.Option("--json", metavar="FILE", help="Also write the whole result as JSON; - for standard output."),
]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Say everything: no bound on tables, all notes.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Say only the verdict; no progress.")]
Model = Annotated[str, typer.Argument(metavar="MODEL", help="An ONNX model.", show_default=False)]
Runnable = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="An ONNX model, or an engine that probe build saved.", show_default=False),
]
Inputs = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FILE|DIR", help="Network inputs: .npz, a folder of them, a dump, Polygraphy JSON. Repeatable."
    ),
]
InputShapes = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME:[N,...]", help='Extents of dynamic inputs: "x:[1,3,224,224]". Repeatable.'),
]
Seed = Annotated[int, typer.Option(metavar="N", min=0, help="Of the made-up inputs, without --inputs.")]
ValRange = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME:[LO,HI]", help='Their values: "x:[0,1]", or "[0,1]" for all. Repeatable.'),
]
Golden = Annotated[
    str,
    typer.Option(
        metavar="ort|fp64|FILE", help="The reference: ONNX Runtime in FP32, float64, or a recording that is there."
    ),
]
Accept = Annotated[
    list[str] | None,
    typer.Option(
        metavar="CRITERION", help='What is good enough: "cosine>=0.999", "range_rel<=0.01 @ OUTPUT". Repeatable.'
    ),
]
Preset = Annotated[
    Literal["torch", "numpy", "trtexec", "polygraphy"] | None,
    typer.Option(metavar="NAME", help="Judge as that tool does: torch, numpy, trtexec or polygraphy."),
]
StrictLayers = Annotated[
    bool, typer.Option("--strict-layers", help="Tensors inside the network count in the verdict as outputs do.")
]
Worst = Annotated[
    int, typer.Option(metavar="N", min=1, help="Rows a table shows, and worst elements kept of a tensor.")
]
Threads = Annotated[int, typer.Option(metavar="N", min=0, help="0: as many as there are cores.")]
CustomOpLib = Annotated[
    list[Path] | None, typer.Option(metavar="FILE", help="Shared library of custom operators. Repeatable.")
]
Precision = Annotated[
    Literal["fp16", "bf16", "tf32", "fp32"],
    typer.Option(metavar="NAME", help="What tensors are stored in: fp16, bf16, tf32 or fp32."),
]
Keep = Annotated[
    list[str] | None,
    typer.Option(metavar="REGEX|@FILE", help="Tensors, layers and nodes that stay FP32. Repeatable."),
]
Device = Annotated[
    Literal["auto", "cpu", "cuda"],
    typer.Option(
        metavar="auto|cpu|cuda",
        help="What runs it: the CPU, which emulates low-precision storage, or the first GPU. auto: the CPU.",
    ),
]
Passes = Annotated[
    Literal["none", "safe", "all"],
    typer.Option(metavar="none|safe|all", help="Clean-up of the graph before it runs."),
]
Fusion = Annotated[
    Literal["none", "safe", "full"],
    typer.Option(metavar="none|safe|full", help="Which nodes are computed together."),
]
Interior = Annotated[
    Literal["storage", "fp32"],
    typer.Option(metavar="storage|fp32", help="Tensors inside fused layers: rounded, or FP32."),
]
# Where a tactic file may decide, what is not typed is None.
PassesOrFile = Annotated[
    Literal["none", "safe", "all"] | None,
    typer.Option(metavar="none|safe|all", help="Clean-up of the graph before it runs; safe by default."),
]
PassesLimit = Annotated[int | None, typer.Option(metavar="N", min=0, help="Stop after N changes to the graph.")]
FusionOrFile = Annotated[
    Literal["none", "safe", "full"] | None,
    typer.Option(metavar="none|safe|full", help="Which nodes are computed together; safe by default."),
]
InteriorOrFile = Annotated[
    Literal["storage", "fp32"] | None,
    typer.Option(metavar="storage|fp32", help="Tensors inside fused layers: rounded, the default, or FP32."),
]
TimingCache = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Measured times: reused where they are, added where they are not.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")]


def parse_select(text: str | None, option: str = "--select") -> re.Pattern[str] | None:
    """The pattern of ``--select``, or of another ``option`` that takes names so; ``@FILE`` becomes one that matches exactly the names listed (a line each, or a JSON array).

    Raises:
        InputError: not a regular expression, or the file cannot be read or is empty.
    """
    if text is None:
        return None
    if not text.startswith("@"):
        try:
            return re.compile(text)
        except re.error as error:
            raise InputError(
                f"{option} {text!r} is not a regular expression: {error}",
                hint=f"put names with special characters in a file, one a line, and pass {option} @FILE",
            ) from None
    names = _names_in(Path(text[1:]), option)
    if not names:
        raise InputError(f"no names in {text[1:]}", where=option, hint="one tensor name a line")
    return re.compile("^(?:" + "|".join(re.escape(n) for n in names) + r")\Z")


def parse_keep(texts: list[str] | None) -> list[re.Pattern[str]]:
    """The patterns of a repeatable ``--keep``.

    Raises:
        InputError: see ``parse_select``.
    """
    return [pattern for one in texts or () if (pattern := parse_select(one, "--keep")) is not None]


def _names_in(path: Path, option: str) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
        if text.lstrip().startswith("["):
            listed = json.loads(text)
            if all(isinstance(n, str) for n in listed):
                return listed
            raise InputError(f"{path} is a JSON array of something else than names", where=option)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}", where=option) from error
    return [line for line in text.splitlines() if line.strip()]


def parse_bytes(text: str | None) -> int | None:
    """``2G``, ``512M``, ``1.5GB``, ``2GiB``, ``800000``: bytes; K, M, G, T are powers of 1000, Ki... of 1024.

    Raises:
        InputError: not a size.
    """
    if text is None:
        return None
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?\s*", text, re.IGNORECASE)
    if match is None or float(match[1]) <= 0 or (match[3] and not match[2]):
        raise InputError(f"{text!r} is not a size in bytes", where="--memory-limit", hint="write 2G, 512M or 2GiB")
    power = " kmgt".index(match[2].lower() or " ")
    return int(float(match[1]) * (1024 if match[3] else 1000) ** power)


def chosen_device(device: str) -> str:
    """What ``--device`` stands for: ``auto`` is the CPU."""
    return "cpu" if device == "auto" else device


def typed_command() -> str:
    """The command line as it was typed, for the result's ``command``."""
    return shlex.join(["probe", *sys.argv[1:]])
