"""Engines into files: ``build`` compiles a model and saves what came of it, ``inspect_engine`` says what is in such a file."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from probe.api.arguments import Inputs, input_sets, loaded_model, patterns
from probe.api.signatures import as_annotated
from probe.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from probe.engine.engine import Engine
    from probe.model import Model
    from probe.results.build import BuildResult


@as_annotated
def build(
    model: str | Path | Model,
    out: str | Path,
    *,
    precision: Literal["fp32", "tf32", "fp16", "bf16"] | None = None,
    keep: Iterable[str | re.Pattern[str]] = (),
    tactics: str | Path | None = None,
    inputs: Inputs | None = None,
    seed: int = 0,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    val_range: Mapping[str, tuple[float, float]] | None = None,
    device: str = "cpu",
    passes: Literal["none", "safe", "all"] | None = None,
    fusion: Literal["none", "safe", "full"] | None = None,
    interior: Literal["storage", "fp32"] | None = None,
    passes_limit: int | None = None,
    threads: int = 0,
    custom_op_libs: Sequence[str | Path] = (),
    overwrite: bool = False,
    command: str = "",
    progress: Callable[[str, str], None] | None = None,
) -> BuildResult:
    """Compile a model, and write the engine into one file that runs without compiling again.

    Args:
        precision: what tensors are stored in; None: fp16, or that of the tactic file. Likewise ``passes`` and ``fusion``, else safe, and
            ``interior``, else storage.
        keep: regular expressions; tensors, layers and nodes whose name one is found in stay FP32.
        tactics: a tactic file, whose choices, precision, passes, fusion, interior and kept tensors hold.
        inputs, seed, input_shapes, val_range: as for ``run``; a tactic file is checked against the shapes they make, and a GPU's kernels are
            compiled for them. Of no use otherwise.

    Raises:
        InputError: the model cannot be compiled, an option names nothing, the tactic file does not fit, the file exists or cannot be
            written. Nothing is left behind.
    """
    from probe.debug.phases import timed_phase
    from probe.debug.run import kept_names
    from probe.engine.build import compile_model, resolve_keep
    from probe.engine.device.protocol import Learns
    from probe.engine.saved.load import load_engine
    from probe.engine.saved.save import check_place, save_engine
    from probe.engine.tuning.menu import prepare_menu
    from probe.timing.tactics import settings_with

    seconds: dict[str, float] = {}
    told = progress or (lambda _phase, _name: None)

    def phase(name: str) -> AbstractContextManager[Any]:
        return timed_phase(seconds, told, name)

    kept = patterns(keep)
    if tactics is None and device == "cpu" and (inputs is not None or input_shapes or val_range):
        raise InputError(
            "inputs are used to check a tactic file, and there is none", where="--inputs", hint="add --tactics"
        )
    loaded = loaded_model(model)
    check_place(Path(out), loaded.path, overwrite=overwrite)
    asked = {"precision": precision, "passes": passes, "fusion": fusion, "interior": interior}
    recorded, settings = settings_with(tactics, kept, asked, usual_precision="fp16")
    libraries = [Path(one) for one in custom_op_libs]
    with phase("compile"):
        engine = compile_model(
            loaded, device=device, passes_limit=passes_limit, threads=threads, libraries=libraries, **settings
        )
        engine.assignment = resolve_keep(engine.assignment, kept_names(engine, kept), engine.layers, engine.network)
    with phase("sessions"):
        fallbacks = len(engine.fallbacks)  # also finds out whether the device takes the network at all
    if recorded is not None:
        with phase("tactics"):
            sets, _ = input_sets(loaded, inputs, seed, input_shapes, val_range)
            engine.assignment = recorded.assignment(engine, sets[0].feeds)
    if isinstance(engine.device, Learns):
        with phase("kernels") as tell:
            sets, _ = input_sets(loaded, inputs, seed, input_shapes, val_range)
            prepare_menu(engine, sets[0].feeds, tell=tell)
        with phase("run"):
            engine.run(sets[0].feeds)
    with phase("save"):
        save_engine(engine, out, overwrite=overwrite)
    begin = time.perf_counter()
    load_engine(out, threads=threads, libraries=libraries)
    return _result(
        engine, Path(out), loaded.path.name, tactic_file=str(tactics or ""), fallbacks=fallbacks, notes=(*loaded.notes, *engine.notes), command=command,
        seconds=seconds, load_seconds=time.perf_counter() - begin,
    )  # fmt: skip


@as_annotated
def inspect_engine(path: str | Path, *, command: str = "") -> BuildResult:
    """What is in a saved engine. It is loaded, which checks every byte of it, and not run.

    Raises:
        InputError: it cannot be loaded here; says why.
    """
    from probe.engine.saved.load import load_engine, read_header

    begin = time.perf_counter()
    engine = load_engine(path)
    spent = time.perf_counter() - begin
    return _result(
        engine, Path(path), read_header(path).model, notes=engine.model.notes, command=command, load_seconds=spent
    )


def _result(engine: Engine, path: Path, model: str, **further: Any) -> BuildResult:
    from probe import __version__
    from probe.compare.diff import environment
    from probe.debug.run import device_in_words
    from probe.engine.assignment import EXACT
    from probe.engine.tuning.fingerprint import fingerprint_of
    from probe.results.build import BuildResult

    settings, assignment = engine.settings, engine.assignment
    plans = engine.rounding.plan(assignment)
    computing = [layer for layer in engine.layers if not layer.moves and layer.kind != "if"]
    tactics = Counter(assignment.of(layer.name).tactic for layer in computing)
    weights = [
        value.const_value for value in engine.network.graph.initializers.values() if value.const_value is not None
    ]
    kept = (*sorted(assignment.kept), *(name for name, one in assignment.layers.items() if one.precision == "fp32"))
    return BuildResult(
        path=str(path), bytes=path.stat().st_size, probe=__version__, model=model, fingerprint=fingerprint_of(engine),
        precision=settings.precision,
        device=device_in_words(settings.device, settings.precision, tactics=set(tactics) - {EXACT} != set()),
        passes=settings.passes, fusion=settings.fusion, interior=settings.interior, layers=len(engine.layers),
        low_layers=sum(plans[layer.name].form not in ("plain", "wide") for layer in computing),
        kept=kept if settings.precision != "fp32" else (), tactics=dict(tactics), changes=len(engine.report.changes),
        weights=len(weights), weight_bytes=sum(one.nbytes for one in weights), kernels=getattr(engine.device, "kernels", 0), environment=environment(), **further,
    )  # fmt: skip
