"""What pages of a measurement say in words: the sentence, the caveats, what to do, the foot. On any medium."""

from __future__ import annotations

import math
import shlex

from probe.report.numbers import count, seconds, size
from probe.report.steps import Step
from probe.report.text import elide, escape
from probe.report.words import first_few, sentence
from probe.results.bench import BenchResult, LayerTime, Spread

WORDS = {"stable": "STABLE", "unstable": "UNSTABLE"}
STYLES = {"stable": ("green", "bold"), "unstable": ("yellow", "bold")}
MARKS = {"stable": "passed", "unstable": "warned"}  # how a page marks them
STATISTICS = ("min", "median", "mean", "p90", "p95", "p99", "max")
_ABOVE = 1.05  # of the ceiling: what products differ by from run to run
_WRITTEN = (
    "--json",
    "--table",
    "--export-profile",
    "--export-layers",
    "--export-times",
)  # options that name a file to write
_UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"))


def duration(value: float | None) -> str:
    """Three significant digits with a unit: ``7.48 ms``, ``95.2 us``, ``1.02 s``; ``-`` for None."""
    if value is None:
        return "-"
    for scale, unit in _UNITS:
        if value >= 0.9995 * scale:
            return f"{three_digits(value / scale)} {unit}"
    return f"{value * 1e6:.3g} us"


def three_digits(value: float) -> str:
    """``7.48``, ``33.9``, ``134``, ``1230``: three significant digits and never an exponent."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    value = float(f"{value:.3g}")  # first, so that 0.9996 has the digits of 1.00
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(digits, 6)}f}" if abs(value) >= 1e-6 else f"{value:g}"


def percent(share: float | None) -> str:
    """``53 %``, ``4.2 %``; ``-`` for None."""
    if share is None:
        return "-"
    return f"{100 * share:.0f} %" if share >= 0.0995 else f"{100 * share:.1f} %"


def rate(per_second: float | None) -> str:
    """In 10^9 a second, with at most three decimals."""
    if per_second is None:
        return "-"
    value = per_second / 1e9
    return three_digits(value) if value >= 0.1 else f"{value:.3f}"


def bench_sentence(result: BenchResult) -> str:
    """The numbers one asks for first."""
    streams = f" on {count(result.streams, 'stream')}" if result.streams > 1 else ""
    batch = f" of batch {count(result.batch)}" if result.batch is not None and result.batch > 1 else ""
    said = (
        f"{result.precision}: median {duration(result.latency.median)}, p99 {duration(result.latency.p99)}; "
        f"{three_digits(result.throughput)} inferences{batch} a second{streams}"
    )
    return f"{said} (EMULATED, see below)" if result.emulated else said


def caveats(result: BenchResult) -> list[str]:
    """What must be known before these numbers are used; the gravest first."""
    found = []
    if result.emulated:
        found.append(
            f"{result.precision.upper()} is EMULATED on this device: it computes in FP32 and rounds what is stored. These times hold that work "
            f"and say nothing of how fast a GPU, or any device that computes in {result.precision}, would be"
        )
    if result.layerwise:
        found.append(
            f"latency is of the network run {result.executor}, which is slower than the whole network as one program"
        )
    above = [layer for layer in result.layers if layer.bound == "compute" and (layer.roofline or 0.0) > _ABOVE]
    if above:
        found.append(
            f"{count(len(above), 'layer')} computed faster than the product that the ceiling was measured with, up to "
            f"{percent(max(layer.roofline or 0.0 for layer in above))} of it: the ceiling is too low, as on a busy machine"
        )
    return [*found, *result.warnings]


def phases(result: BenchResult) -> list[tuple[str, Spread | None, str]]:
    """Label, times, and why there are none."""
    return [
        ("latency", result.latency, ""),
        ("compute", result.compute, ""),
        ("input copy", result.input_copy, ""),
        ("output copy", result.output_copy, ""),
        ("enqueue", result.enqueue, "n/a: the host computes itself, there is no queue"),
    ]


def slowest(result: BenchResult) -> list[LayerTime]:
    """Layers that ran, the slowest first."""
    return sorted((layer for layer in result.layers if layer.runs), key=lambda layer: -(layer.median or 0.0))


def sum_against_whole(result: BenchResult) -> str:
    """How far the layers' sum is from the whole, and what that comes from; "" without layers."""
    total, whole = result.layers_sum, result.layers_whole
    if total is None or not whole:
        return ""
    apart = total / whole - 1
    much = f"{percent(abs(apart))} {'more' if apart > 0 else 'less'} than" if abs(apart) >= 0.005 else "the same as"
    said = f"layers one by one: {duration(total)} in sum, {much} the {duration(whole)} of the whole network, which took turns with them"
    ran = sum(layer.runs > 0 for layer in result.layers)
    if result.call_seconds is not None:
        said += f"; calling a layer takes {duration(result.call_seconds)}, for {count(ran, 'layer')} {duration(ran * result.call_seconds)}"
    return said


def under_the_roof(result: BenchResult) -> str:
    """The ceilings, and what the whole network reaches of them; "" where they were not measured."""
    roofs = result.ceilings
    if roofs is None:
        return ""
    said = f"{rate(roofs.flops_per_second)} GFLOP/s and {rate(roofs.bytes_per_second)} GB/s were reached here ({escape(roofs.method)})"
    if result.emulated:
        return f"{said}; an emulated precision is not held against them"
    floor = result.floor
    if floor is None:
        lacking = sum(layer.runs > 0 and layer.floor is None for layer in result.layers)
        return f"{said}; the cost of {count(lacking, 'layer')} is not known, so there is no floor of the whole"
    reached = percent(floor / result.latency.median) if result.latency.median > 0 else "-"
    return f"{said}: no less than {duration(floor)} for all layers, of which the median is {reached}"


def memory_in_words(result: BenchResult) -> str:
    """Peak, plan and weights; "" where they were not looked at."""
    memory = result.memory
    if memory is None:
        return ""
    over = memory.arena / memory.peak_live - 1 if memory.peak_live else 0.0
    plan = (
        "which is the least possible"
        if over < 0.0005
        else f"{percent(over)} above the least possible, {size(memory.peak_live)}"
    )
    said = (
        f"one block of {size(memory.arena)} for {count(memory.tensors, 'tensor')}, {plan}; fullest at {elide(memory.peak_layer, 48)}; weights "
        f"{size(memory.weights)}"
    )
    if memory.unknown:
        said += f"; {count(memory.unknown, 'tensor')} of unknown size left out"
    return f"{said}. {memory.note}" if memory.note else said


def next_steps(result: BenchResult) -> list[Step]:
    """At most two commands; none for a measurement that stands."""
    steps = []
    if result.emulated:
        words = (*_command(result, "--precision", "--tactics"), "--precision", "fp32")
        steps.append(Step("Times that mean something on this device are those in FP32.", words))
    if result.status == "unstable":
        longer = max(10, math.ceil(2 * result.measured_seconds))
        words = (*_command(result, "--duration", "--iterations"), "--duration", str(longer))
        steps.append(Step("Measure again while nothing else runs, and longer.", words))
    return steps


def _command(result: BenchResult, *options: str) -> tuple[str, ...]:
    """The command that was typed, without these options and without the files it wrote."""
    try:
        words = shlex.split(result.command) or ["probe", "bench", result.model]
    except ValueError:  # a command of a file that someone else wrote
        words = ["probe", "bench", result.model]
    left: list[str] = []
    dropped = False
    for word in words:
        option = word.partition("=")[0]
        if dropped:
            dropped = False
        elif option in (*options, *_WRITTEN):
            dropped = "=" not in word  # its value is a word of its own
        else:
            left.append(word)
    return tuple(left)


def bench_facts(result: BenchResult) -> list[tuple[str, str]]:
    """Label and sentence of each fact at the foot; what is not known is left out. Texts are escaped."""
    sources = list(dict.fromkeys(one.source for one in result.inputs))
    build = ", ".join(f"{escape(phase)} {duration(spent)}" for phase, spent in result.compile_seconds.items())
    load = f"; other programs kept {result.other_load:.1f} cores busy" if result.other_load is not None else ""
    measured = (
        f"{count(result.inferences, 'inference')} in {seconds(result.measured_seconds)} on {count(result.streams, 'stream')}, after "
        f"{count(result.warmup_inferences)} to warm up; times vary by {percent(result.latency.cv)}{load}"
    )
    facts = [
        ("model", f"{escape(result.model)} ({result.model_sha256[:8]})"),
        ("device", f"{escape(result.device)}; {escape(result.executor)}{_threads(result)}; passes {result.passes}, fusion {result.fusion}"),
        ("measured", measured),
        ("layers", sum_against_whole(result)),
        ("ceilings", under_the_roof(result)),
        ("memory", memory_in_words(result)),
        ("build", f"model read in {duration(result.load_seconds)}; compiled in {duration(sum(result.compile_seconds.values()))}: {build}"
                  if build else ""),
        ("kept FP32", first_few(result.keep, 4)),
        ("tactics", f"as in {escape(result.tactics)}" if result.tactics else ""),
        ("inputs", f"{count(len(result.inputs), 'input set')}: {first_few(sources)}" if sources else ""),
    ]  # fmt: skip
    facts += [("note", sentence(note)) for note in result.notes]
    return [(label, text) for label, text in facts if text]


def _threads(result: BenchResult) -> str:
    if not result.device.startswith("cpu"):
        return ""
    return f"; {count(result.threads, 'thread') if result.threads else 'a thread a core'}"
