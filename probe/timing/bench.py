"""``bench_network``: how fast a network runs here, where the time goes, and what the machine would allow.

Three passes that do not disturb each other: inferences as a whole (latency), layers one by one (time by layer), and one look at the shapes.
"""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from probe.compare.diff import environment
from probe.debug.phases import Progress, timed_phase
from probe.debug.run import device_in_words, kept_in, kept_names
from probe.engine.build import compile_model, resolve_keep
from probe.engine.device.protocol import Warms
from probe.errors import InputError
from probe.results.bench import BenchResult, InferenceTimes, Spread
from probe.store.feeds import input_infos
from probe.timing.layers import ports_of, rows_of, time_layers
from probe.timing.loop import Amount, Measured, measure
from probe.timing.machine import Busy, cores, look, other_load
from probe.timing.memory import plan_of
from probe.timing.spread import few_runs, spread_of, unsteady
from probe.timing.tactics import settings_with

if TYPE_CHECKING:
    from probe.engine.assignment import Assignment
    from probe.engine.device.timeline import Clock, Context, Moments, Timeline
    from probe.engine.engine import Engine
    from probe.model.model import Model
    from probe.store.feeds import InputSet

MOST_TIMES = 10_000  # inferences whose times are saved one by one: 1 MB of JSON


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """What the user asked of a measurement.

    Attributes:
        precision: None: FP32, or that of the tactic file. Likewise ``passes``, ``fusion`` (both else safe) and ``interior`` (else storage).
        amount: how much is measured.
        layers: passes and seconds that layers are timed for, one by one.
        streams: of inferences side by side.
        graphs: CUDA graphs where the device has them; False launches kernel by kernel.
        ranges: NVTX ranges for profilers, on a GPU.
        by_layer: also time layers, against ceilings measured here.
        keep: patterns; tensors, layers and ONNX nodes whose name one is found in stay FP32.
        tactics: a tactic file to replay.
        engine: the network compiled before, with its own assignment; then nothing above is said but ``keep``.
    """

    precision: str | None = None
    device: str = "cpu"
    amount: Amount = field(default_factory=Amount)
    layers: Amount = field(default_factory=lambda: Amount(10, 1.0, 0.0))
    streams: int = 1
    graphs: bool = True
    ranges: bool = False
    by_layer: bool = True
    keep: tuple[re.Pattern[str], ...] = ()
    tactics: Path | None = None
    passes: Literal["none", "safe", "all"] | None = None
    fusion: Literal["none", "safe", "full"] | None = None
    interior: Literal["storage", "fp32"] | None = None
    passes_limit: int | None = None
    threads: int = 0
    custom_op_libs: tuple[Path, ...] = ()
    engine: Engine | None = None
    command: str = ""


@dataclass(slots=True)
class _Bench:
    """What the phases of one measurement share."""

    sets: Sequence[InputSet]
    options: BenchOptions
    tell: Progress
    clock: Clock
    seconds: dict[str, float] = field(default_factory=dict)

    def phase(self, name: str) -> AbstractContextManager[Callable[[str], None]]:
        """Time a phase, and tell of it."""
        return timed_phase(self.seconds, self.tell, name)

    @property
    def feeds(self) -> list[Mapping[str, Any]]:
        return [one.feeds for one in self.sets]


def bench_network(
    model: Model,
    sets: Sequence[InputSet],
    options: BenchOptions | None = None,
    *,
    load_seconds: float = 0.0,
    notes: Sequence[str] = (),
    progress: Progress | None = None,
    clock: Clock = time.perf_counter,
    looks: Callable[[], Busy] = look,
) -> BenchResult:
    """Measure a network.

    Args:
        sets: the inputs, which take turns.
        load_seconds: that reading the model took.
        notes: what was noticed while the inputs were made.
        clock: that everything is measured with.
        looks: at what the machine does.

    Raises:
        InputError: the model cannot be compiled or run, an option names nothing, a tactic file does not fit, streams that the device cannot
            run side by side.
    """
    options = options or BenchOptions()
    if options.streams < 1:
        raise InputError(f"{options.streams} streams", where="--streams", hint="one or more")
    bench = _Bench(sets, options, progress or (lambda _phase, _name: None), clock)
    with bench.phase("compile") as tell:
        engine, assignment, kept = _compiled(bench, model)
        timeline = timeline_of(
            engine, assignment, clock, threads=options.threads, libraries=options.custom_op_libs, graphs=options.graphs,
            ranges=options.ranges,
        )  # fmt: skip
        if isinstance(engine.device, Warms):
            plans = [engine.rounding.plan(assignment)]
            engine.device.warm(bench.feeds[0], plans, lambda done, of: tell(f"{done} of {of} kernels"))
        contexts = _contexts(timeline, options.streams)
        build = {**engine.seconds, **getattr(engine.device, "seconds", {})}
    with bench.phase("latency") as tell:
        before = looks()
        measured = measure(contexts, bench.feeds, options.amount, clock, tell)
        load = other_load(before, looks())
    detail = _by_layer(bench, engine, assignment, timeline) if options.by_layer else {}
    return BenchResult(
        **_of_times(measured, load),
        **detail,
        model=str(model.path),
        model_sha256=model.sha256,
        precision=engine.settings.precision,
        device=_in_words(engine),
        executor=timeline.executor,
        layerwise=timeline.layerwise,
        emulated=_is_emulated(engine, assignment),
        streams=options.streams,
        batch=batch_of(sets),
        load_seconds=load_seconds,
        compile_seconds=build,
        passes=engine.settings.passes,
        fusion=engine.settings.fusion,
        interior=engine.settings.interior,
        keep=kept,
        tactics=str(options.tactics or ""),
        threads=options.threads,
        graph_inputs=tuple(port.name for port in model.inputs),
        graph_outputs=tuple(port.name for port in model.outputs),
        inputs=input_infos(sets),
        notes=(*notes, *engine.notes),
        environment=environment(),
        command=options.command,
        seconds=bench.seconds,
    )


# --- phases


def _compiled(bench: _Bench, model: Model) -> tuple[Engine, Assignment, tuple[str, ...]]:
    options = bench.options
    if options.engine is not None:
        engine, kept = options.engine, kept_names(options.engine, options.keep)
        return engine, resolve_keep(engine.assignment, kept, engine.layers), (*kept_in(engine), *kept)
    asked = {name: getattr(options, name) for name in ("precision", "passes", "fusion", "interior")}
    recorded, settings = settings_with(options.tactics, options.keep, asked, usual_precision="fp32")
    engine = compile_model(
        model, device=options.device, passes_limit=options.passes_limit, threads=options.threads, libraries=options.custom_op_libs,
        **settings,
    )  # fmt: skip
    if recorded is not None:
        return engine, recorded.assignment(engine, bench.sets[0].feeds), tuple(sorted(recorded.file.kept))
    kept = kept_names(engine, options.keep)
    return engine, resolve_keep(engine.assignment, kept, engine.layers), kept


def timeline_of(
    engine: Engine,
    assignment: Assignment,
    clock: Clock,
    *,
    threads: int = 0,
    libraries: Sequence[Path] = (),
    graphs: bool = True,
    ranges: bool = False,
) -> Timeline:
    """What the engine's device tells of time.

    Args:
        threads, libraries: that the engine was compiled with.
        graphs: CUDA graphs, on a GPU; False launches kernel by kernel.
        ranges: NVTX ranges, on a GPU.

    Raises:
        InputError: what is asked for is a GPU's.
    """
    if engine.device.name == "cuda":
        from probe.engine.device.cuda.device import CudaDevice
        from probe.engine.device.cuda.timeline import CudaTimeline

        assert isinstance(engine.device, CudaDevice)
        return CudaTimeline(engine.device, engine.rounding.plan(assignment), clock, graphs=graphs, ranges=ranges)
    if ranges or not graphs:
        option = "--nvtx" if ranges else "--no-graph"
        raise InputError(
            "the CPU has neither CUDA graphs nor NVTX ranges",
            where=option,
            hint=f"leave {option} out, or --device cuda",
        )
    from probe.engine.device.cpu.device import CpuDevice
    from probe.engine.device.cpu.program import Program
    from probe.engine.device.cpu.timeline import CpuTimeline

    assert isinstance(engine.device, CpuDevice)
    program = Program(
        engine.network, engine.top_layers, engine.rounding, engine.device.weights, threads, tuple(libraries)
    )
    return CpuTimeline(engine.device, program, engine.rounding.plan(assignment), clock)


def _in_words(engine: Engine) -> str:
    if engine.device.name == "cpu":
        return device_in_words("cpu", engine.settings.precision)
    from probe.engine.tuning.fingerprint import fingerprint_of

    found = fingerprint_of(engine)
    return ", ".join(one for one in (f"{found.device.replace(' ', ': ', 1)}", found.processor, found.driver) if one)


def _contexts(timeline: Timeline, streams: int) -> list[Context]:
    if streams > 1 and timeline.one_at_a_time:
        raise InputError(f"{streams} streams: {timeline.one_at_a_time}", where="--streams", hint="--streams 1")
    return [timeline.context() for _ in range(streams)]


def _by_layer(bench: _Bench, engine: Engine, assignment: Assignment, timeline: Timeline) -> dict[str, Any]:
    """Fields of the result about layers, ceilings and memory; measured after latency."""
    with bench.phase("layers") as tell:
        first = bench.feeds[0]
        times = time_layers(timeline, bench.feeds, bench.options.layers, bench.clock, tell)
        shapes = {name: tuple(array.shape) for name, array in first.items()} | timeline.shapes(first)
        call_seconds = timeline.call_seconds()
    with bench.phase("ceilings"):
        ceilings = timeline.ceilings()
    memory, live = plan_of(engine, assignment, shapes, frozenset(times.layers), timeline.held())
    comparable = None if _is_emulated(engine, assignment) else ceilings
    medians = [statistics.median(one) for one in times.layers.values()]
    return {
        "layers": rows_of(engine, assignment, times.layers, shapes, live=live, ceilings=comparable),
        "layers_sum": sum(medians) if medians else None,
        "layers_whole": statistics.median(times.whole),
        "call_seconds": call_seconds,
        "ceilings": ceilings,
        "memory": memory,
        "tensors": ports_of(engine, assignment, shapes),
    }


def _is_emulated(engine: Engine, assignment: Assignment) -> bool:
    """Whether times hold the work of emulating a precision: the CPU computes in FP32 alone."""
    return engine.device.name == "cpu" and bool(assignment.low)


def batch_of(sets: Sequence[InputSet]) -> int | None:
    """The extent that the first axis of all inputs, of all sets, has in common; None where they differ or an input is a scalar."""
    extents = {array.shape[:1] for one in sets for array in one.feeds.values()}
    return extents.pop()[0] if len(extents) == 1 and () not in extents else None


# --- times


def _of_times(measured: Measured, load: float | None) -> dict[str, Any]:
    """Fields of the result that follow from the moments of all inferences.

    Args:
        load: cores that other programs kept busy meanwhile.
    """
    moments = [one for _, one in measured.moments]
    latencies = [one.end - one.begin for one in moments]
    found, few = unsteady(latencies, load, cores()), few_runs(len(moments))
    return {
        "status": "unstable" if found else "stable",
        "warnings": (*found, *((few,) if few else ())),
        "latency": spread_of(latencies),
        "compute": spread_of([one.computed - one.fed for one in moments]),
        "input_copy": spread_of([one.fed - (one.begin if one.sent is None else one.sent) for one in moments]),
        "output_copy": spread_of([(one.end if one.back is None else one.back) - one.computed for one in moments]),
        "enqueue": _enqueue(moments),
        "throughput": measured.throughput,
        "times": _times(measured),
        "inferences": len(moments),
        "warmup_inferences": measured.warmup,
        "measured_seconds": measured.seconds,
        "other_load": load,
    }


def _enqueue(moments: Sequence[Moments]) -> Spread | None:
    """Host time of issuing the work; None where the host computes itself."""
    spent = [
        one.enqueued - (one.fed if one.issuing is None else one.issuing) for one in moments if one.enqueued is not None
    ]
    return spread_of(spent) if spent else None


def _times(measured: Measured) -> tuple[InferenceTimes, ...]:
    """At most ``MOST_TIMES``, every n-th."""
    start = measured.moments[0][1].begin
    every = -(-len(measured.moments) // MOST_TIMES)

    def since(moment: float | None) -> float | None:
        return None if moment is None else moment - start

    return tuple(
        InferenceTimes(
            stream, one.begin - start, one.fed - start, one.computed - start, one.end - start,
            since(one.enqueued), since(one.issuing), since(one.sent), since(one.back),
        )
        for stream, one in measured.moments[::every]
    )  # fmt: skip
