"""How fast a network runs: ``bench``."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from probe.api.arguments import Inputs, input_sets, loaded_model, optional_path, patterns
from probe.api.saved import saved_engine
from probe.api.signatures import as_annotated

if TYPE_CHECKING:
    from collections.abc import Callable

    from probe.model import Model
    from probe.results.bench import BenchResult


@as_annotated
def bench(
    model: str | Path | Model,
    *,
    precision: Literal["fp32", "tf32", "fp16", "bf16"] | None = None,
    iterations: int | None = None,
    duration: float | None = None,
    warmup: float = 0.5,
    streams: int = 1,
    graphs: bool = True,
    nvtx: bool = False,
    by_layer: bool = True,
    inputs: Inputs | None = None,
    seed: int = 0,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    val_range: Mapping[str, tuple[float, float]] | None = None,
    keep: Iterable[str | re.Pattern[str]] = (),
    tactics: str | Path | None = None,
    device: str = "cpu",
    passes: Literal["none", "safe", "all"] | None = None,
    fusion: Literal["none", "safe", "full"] | None = None,
    interior: Literal["storage", "fp32"] | None = None,
    passes_limit: int | None = None,
    threads: int = 0,
    custom_op_libs: Sequence[str | Path] = (),
    command: str = "",
    progress: Callable[[str, str], None] | None = None,
) -> BenchResult:
    """Measure a model's latency and throughput, then its layers one by one against what this machine can do.

    Args:
        model: an ONNX model; or a saved engine, which is measured as it was built.
        precision: None: FP32, which is what the CPU computes in; lower ones are emulated there, and their times are those of the emulation.
        iterations: inferences to measure, at least two; alone: just so many. Without either: ten, and for three seconds.
        duration: seconds to measure for, at least.
        warmup: seconds before that.
        streams: of inferences side by side, a thread and tensors of its own each.
        graphs: repeat runs as CUDA graphs; False launches kernel by kernel. Of a GPU, like ``nvtx``.
        nvtx: ranges for profilers: of each inference and, without graphs, of each layer.
        by_layer: also time layers, in a pass of their own.
        inputs, seed, input_shapes, val_range, keep, passes, fusion, interior, passes_limit, progress: as for ``run``; several input sets take turns.
        tactics: a tactic file, whose precision, passes, fusion, interior and kept tensors hold.

    Raises:
        InputError: the model, inputs or options cannot be used, or a single iteration is asked for.
    """
    from probe.model.inputs import RANDOM_INPUTS_WARNING
    from probe.timing.bench import BenchOptions, bench_network
    from probe.timing.loop import Amount

    amount = Amount.asked(iterations, duration, warmup)
    begin = time.perf_counter()
    saved = saved_engine(
        model, threads=threads, libraries=custom_op_libs,
        precision=(precision, None), device=(device, "cpu"), passes=(passes, None), fusion=(fusion, None), interior=(interior, None),
        passes_limit=(passes_limit, None), tactics=(tactics, None),
    )  # fmt: skip
    loaded = saved.model if saved is not None else loaded_model(model)
    load_seconds = time.perf_counter() - begin - (sum(saved.seconds.values()) if saved is not None else 0.0)
    options = BenchOptions(
        precision=precision, engine=saved, device=device, amount=amount, streams=streams, graphs=graphs, ranges=nvtx, by_layer=by_layer,
        keep=patterns(keep), tactics=optional_path(tactics), passes=passes, fusion=fusion, interior=interior,
        passes_limit=passes_limit, threads=threads, custom_op_libs=tuple(Path(one) for one in custom_op_libs), command=command,
    )  # fmt: skip
    sets, notes = input_sets(loaded, inputs, seed, input_shapes, val_range)
    verdicts = RANDOM_INPUTS_WARNING.format(seed=seed)  # speaks of what a pass may hide, and nothing is judged here
    return bench_network(
        loaded,
        sets,
        options,
        load_seconds=load_seconds,
        notes=[note for note in notes if note != verdicts],
        progress=progress,
    )
