"""``load_engine``: a saved engine, ready to run. No pass, no fusion and no measurement runs again."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probe.engine.assignment import RUN_PRECISIONS, Assignment, Choice
from probe.engine.build import DEVICES, LEVELS, device_maker
from probe.engine.engine import Engine, Settings
from probe.engine.fusion import Group, Grouping, Refusal
from probe.engine.layers import Layer, form_layers
from probe.engine.network import Fate, Network, check
from probe.engine.passes import Change, PassReport
from probe.engine.rounding import Rounding
from probe.engine.saved.container import open_container
from probe.engine.saved.graph import nodes_of, read_graph
from probe.engine.saved.identity import layers_sha256
from probe.engine.saved.original import read_original, widened
from probe.engine.saved.parts import PREFIX, KeepsParts
from probe.engine.tuning.fingerprint import fingerprint_of
from probe.errors import InputError
from probe.results.build import SavedEngine

if TYPE_CHECKING:
    from collections.abc import Mapping

    from probe.model.model import Model

_AGAIN = "build it again: probe build MODEL -o FILE"


@dataclass(frozen=True, slots=True)
class Saved:
    """What a file holds, whole and fitting together."""

    header: SavedEngine
    model: Model
    network: Network
    layers: tuple[Layer, ...]  # top-level
    parts: Mapping[str, memoryview]  # of the device


def load_engine(path: str | Path, *, threads: int = 0, libraries: Sequence[Path] = ()) -> Engine:
    """The engine that ``save_engine`` wrote: the same layers, fates and assignment, and the same bits on the same device.

    Weights are mapped from the file, which may be replaced meanwhile, but not written to.

    Args:
        threads: of one operator; 0: as many as there are cores.
        libraries: of custom operators.

    Raises:
        InputError: no saved engine, another format or version of probe, a damaged file, another device; says what differs.
    """
    begin = time.perf_counter()
    saved = read_saved(Path(path))
    seconds = {"load": time.perf_counter() - begin}
    begin = time.perf_counter()
    header, network, layers = saved.header, saved.network, saved.layers
    settings: Any = Settings(header.precision, header.device, header.passes, header.fusion, header.interior)  # type: ignore[arg-type]
    rounding = Rounding(layers, settings.interior)
    try:
        device_for = device_maker(header.device, network, layers, header.precision, threads, libraries)
    except InputError as error:  # no such device here
        what = f"the engine was built for {header.fingerprint.processor or header.device}: {error.what}"
        raise InputError(what, where=str(path), hint="build one for this machine: probe build MODEL -o FILE") from error
    device = device_for(rounding)
    report = PassReport(
        header.passes,  # type: ignore[arg-type] - checked by read_saved
        tuple(Change(one.by, one.what, one.nodes) for one in header.changes),
        header.stopped,
        header.pass_notes,
    )
    engine = Engine(
        saved.model, network, layers, rounding, device, settings,
        report=report, refusals=tuple(Refusal(one.pattern, one.nodes, one.reason) for one in header.refusals),
        assignment=_assignment(header), seconds=seconds, device_for=device_for,
    )  # fmt: skip
    saved.model.notes += _compared(header, engine, str(path))
    if isinstance(device, KeepsParts):
        try:
            device.take_parts(saved.parts)
        except InputError as error:
            raise InputError(error.what, where=str(path), hint=error.hint) from error
    seconds["device"] = time.perf_counter() - begin
    return engine


def read_header(path: str | Path) -> SavedEngine:
    """The header of a saved engine, its sections not looked at.

    Raises:
        InputError: as ``load_engine``, as far as the header tells.
    """
    return _header_of(open_container(path).header, str(path))


def read_saved(path: Path) -> Saved:
    """Everything of a saved engine but what runs it.

    Raises:
        InputError: as ``load_engine``, the device apart.
    """
    container = open_container(path)
    header = _header_of(container.header, str(path))
    views = container.read(header.sections)
    try:
        model = read_original(
            path, views["model"], {one.name: one for one in header.sections}, sha256=header.fingerprint.model_sha256
        )
        fates = {name: Fate(one.status, one.by, one.to) for name, one in header.fates.items()}
        network = read_graph(views["network"], views, widened(model), header.origins, fates)
        check(network, "reading the saved network")
        layers = form_layers(network, Grouping(_groups(header, network), ()))
        made = layers_sha256(network, layers)
    except (InputError, MemoryError):
        raise
    except Exception as error:
        # Bytes are as they were written: what is wrong is what was written, and a parser may say so in any way.
        what = f"the engine's parts do not fit together: {type(error).__name__}: {error}"
        raise InputError(what, where=str(path), hint=_AGAIN) from error
    if made != header.layers_sha256:
        raise InputError("this program forms other layers than were saved", where=str(path), hint=_AGAIN)
    parts = {name.removeprefix(PREFIX): view for name, view in views.items() if name.startswith(PREFIX)}
    return Saved(header, model, network, layers, parts)


def _header_of(text: bytes, where: str) -> SavedEngine:
    from probe import __version__
    from probe.results.json import loads

    header = loads(text, where=where)
    if not isinstance(header, SavedEngine):
        raise InputError(f"no saved engine: its header is a {getattr(header, 'schema', 'result')}", where=where)
    if header.probe != __version__:
        raise InputError(
            f"the engine was built by probe {header.probe}; this is probe {__version__}, which may compute other bits",
            where=where,
            hint=_AGAIN,
        )
    known = {**LEVELS, "device": DEVICES, "precision": RUN_PRECISIONS}
    for name, values in known.items():
        if getattr(header, name) not in values:
            raise InputError(f"the engine has an unknown {name}: {getattr(header, name)!r}", where=where, hint=_AGAIN)
    return header


def _groups(header: SavedEngine, network: Network) -> tuple[Group, ...]:
    nodes = nodes_of(network)
    graphs = [graph for graph in network.graphs() for _ in graph]
    return tuple(
        Group(one.pattern, one.kind, tuple(nodes[at] for at in one.nodes), graphs[one.nodes[0]])  # type: ignore[arg-type]
        for one in header.groups
    )


def _assignment(header: SavedEngine) -> Assignment:
    layers = {name: Choice(one.precision, one.tactic) for name, one in header.choices.items()}
    return Assignment(Choice(header.default.precision, header.default.tactic), layers, frozenset(header.kept))


def _compared(header: SavedEngine, engine: Engine, where: str) -> tuple[str, ...]:
    """Notes about what is not as it was where the engine was built, and may change last bits.

    Raises:
        InputError: another device; on a GPU also another model of it, since kernels are chosen by what it has.
    """
    then, here = header.fingerprint, fingerprint_of(engine)
    if then.device != here.device:
        raise InputError(f"the engine was built for {then.device}; this is {here.device}", where=where, hint=_AGAIN)
    if header.device == "cuda" and then.processor != here.processor:
        raise InputError(
            f"the engine was built for {then.processor}; this is {here.processor}", where=where, hint=_AGAIN
        )
    notes = []
    for field, word in (("processor", "processor"), ("driver", "driver"), ("sources", "version of the tactics")):
        built, now = getattr(then, field), getattr(here, field)
        if built != now:
            told = f": {built}; here {now}" if field != "sources" else ""
            notes.append(f"the engine was built with another {word}{told}; outputs may differ in their last bits")
    return tuple(notes)
