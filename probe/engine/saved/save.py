"""``save_engine``: a compiled network into one file, read back before it gets its name for good."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from probe.engine.assignment import Choice
from probe.engine.network import origin
from probe.engine.saved.container import Writer, is_saved_engine
from probe.engine.saved.graph import nodes_of, write_network
from probe.engine.saved.identity import layers_sha256
from probe.engine.saved.original import write_model
from probe.engine.saved.parts import PREFIX, KeepsParts
from probe.engine.tuning.fingerprint import fingerprint_of
from probe.errors import InputError
from probe.results.build import (
    SavedChange,
    SavedChoice,
    SavedEngine,
    SavedFate,
    SavedGroup,
    SavedRefusal,
    Section,
)

if TYPE_CHECKING:
    from probe.engine.engine import Engine


def save_engine(engine: Engine, path: str | Path, *, overwrite: bool = False) -> SavedEngine:
    """Write an engine with its model, network, weights, settings and assignment. The file appears whole or not at all.

    Returns:
        The header.

    Raises:
        InputError: the file is there, is the model's or cannot be written; the model's file was changed since it was loaded; the network
            cannot be written.
    """
    path = Path(path)
    check_place(path, engine.model.path, overwrite=overwrite)
    header = _header(engine)
    with Writer(path) as writer:
        write_model(engine.model, writer)
        write_network(engine.network, writer)
        if isinstance(engine.device, KeepsParts):
            for name, part in engine.device.saved_parts().items():
                writer.section(f"{PREFIX}{name}", part)

        def text(sections: tuple[Section, ...]) -> bytes:
            nonlocal header
            from probe.results.json import dumps

            header = replace(header, sections=sections)
            return dumps(header).encode("ascii")

        writer.finish(text, check=_check_readable)
    return header


def check_place(path: Path, model: Path, *, overwrite: bool) -> None:
    """Refuse a place that an engine could not be written to, before any work is done.

    Raises:
        InputError: says why.
    """
    from probe.results.json import check_target

    check_target(path, text=False)
    if path.exists() and path.resolve() == model.resolve():
        raise InputError(f"{str(path)!r} is the model", where="-o", hint="choose another -o")
    if path.exists() and not path.is_file():
        raise InputError(f"{str(path)!r} is not a file", where="-o", hint="choose another -o")
    if path.exists() and not overwrite:
        raise InputError(f"{str(path)!r} exists", where="-o", hint="choose another -o, or pass --overwrite")
    if path.exists() and path.stat().st_size and not is_saved_engine(path):
        raise InputError(
            f"{str(path)!r} is no saved engine; it will not be overwritten", where="-o", hint="choose another -o"
        )


def _header(engine: Engine) -> SavedEngine:
    from probe import __version__

    settings, assignment, network, report = engine.settings, engine.assignment, engine.network, engine.report
    nodes = nodes_of(network)
    number = {id(node): at for at, node in enumerate(nodes)}
    return SavedEngine(
        probe=__version__, model=engine.model.path.name, fingerprint=fingerprint_of(engine), precision=settings.precision,
        device=settings.device, passes=settings.passes, fusion=settings.fusion, interior=settings.interior,
        default=_choice(assignment.default), choices={name: _choice(one) for name, one in assignment.layers.items()},
        kept=tuple(sorted(assignment.kept)), origins=tuple(map(origin, nodes)),
        groups=tuple(
            SavedGroup(layer.pattern, layer.kind, tuple(number[id(node)] for node in layer.nodes))
            for layer in engine.layers
            if layer.pattern
        ),
        fates={name: SavedFate(fate.status, fate.by, fate.to) for name, fate in network.fates.items()},
        changes=tuple(SavedChange(one.by, one.what, one.nodes) for one in report.changes), stopped=report.stopped,
        pass_notes=report.notes,
        refusals=tuple(SavedRefusal(one.pattern, one.nodes, one.reason) for one in engine.refusals), layers=len(engine.layers),
        layers_sha256=layers_sha256(network, engine.top_layers), sections=(),
    )  # fmt: skip


def _choice(choice: Choice) -> SavedChoice:
    return SavedChoice(choice.precision, choice.tactic)


def _check_readable(partial: Path) -> None:
    """Read back what was written: its bytes, and the layers they make.

    Raises:
        InputError: something of the network is lost in the file.
    """
    from probe.engine.saved.load import read_saved

    read_saved(partial)
