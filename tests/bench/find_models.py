"""``find`` on the public models: what it keeps, evaluations, seconds, and the FP32 operations of its answer beside a plain greedy's.

    python tests/bench/find_models.py [--models FOLDER] [--exports FOLDER] [--only NAME ...]

Plain greedy: tensors in the order of the same instrumented run, kept one after another until the network passes, none taken back: what
tools that rank once and add do. Both are judged by the same oracle, so that the ratio says what elimination is worth. *overhead* is the
search's own time over that of its evaluations. Exit 1 where an answer does not pass its proofs, or costs more than twice the greedy's.
"""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from probe.culprits.find import FindOptions, Found, Work
from probe.culprits.finish import finish
from probe.debug.record import collect_inputs
from probe.metrics.acceptance import parse_criterion
from probe.model.load import load
from probe.results.find import FindResult
from probe.search.ranking import rank

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Case:
    folder: str
    name: str
    tags: tuple[str, ...]
    precision: str = "fp16"
    tolerance: float | None = None


CASES = (
    Case("models", "magika_standard_v3_3", ("main",), tolerance=0.02),
    Case("models", "dnsmos_sig_bak_ovr", ("main", "muted"), tolerance=0.01),
    Case("exports", "llama_gqa_mini", ("main",), tolerance=0.02),
    Case("exports", "t5_encoder_mini", ("main",), tolerance=0.02),
    Case("exports", "unet_attn_mini", ("main",), tolerance=0.02),
    Case("exports", "bert_mini", ("main", "emptyrow"), tolerance=0.02),
    Case("exports", "convtasnet_cln", ("short", "long"), tolerance=0.02),
    Case("models", "gtcrn_simple", ("main",), "bf16"),
    Case("models", "magika_standard_v3_3", ("main",), "bf16"),
    Case("models", "mnist", ("main",)),
    Case("exports", "gpt2_mini", ("main",)),
)


def greedy(work: Work, found: Found) -> tuple[int, int | None, int]:
    """Tensors kept, their FP32 operations, evaluations."""
    units = {unit.id: unit for unit in found.space.units}
    kept: frozenset[str] = frozenset()
    for count, name in enumerate(rank(found.space.units), start=1):
        kept |= units[name].members
        if found.oracle(kept).passed:
            return len(kept), work.costs.of(kept).flops_fp32, count
    return len(kept), work.costs.of(kept).flops_fp32, len(units)


def measure(case: Case, folders: dict[str, Path]) -> tuple[FindResult, Work, Found, float]:
    folder = folders[case.folder]
    model = load(folder / "models" / f"{case.name}.onnx")
    sets, notes = collect_inputs(model, [folder / "data" / f"{case.name}__{tag}.npz" for tag in case.tags])
    accept = () if case.tolerance is None else (parse_criterion(f"range_rel<={case.tolerance}"),)
    options = FindOptions(precision=case.precision, acceptance=accept, lighter=False)
    begin = time.perf_counter()
    with ExitStack() as opened:
        work = Work(model, sets, options, lambda _phase, _name: None, opened)
        found = work.search()
        result = finish(work, found, (), tuple(notes))
        seconds = time.perf_counter() - begin
    return result, work, found, seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=ROOT.parent / "shared" / "models")
    parser.add_argument("--exports", type=Path, default=ROOT.parent / "shared" / "exports")
    parser.add_argument("--only", nargs="*", default=())
    options = parser.parse_args()
    folders = {"models": options.models, "exports": options.exports}
    print(
        "| model | precision | kept | search | probes | proof | s | overhead | FP32 FLOPs | greedy keeps | its FP32 FLOPs | ratio | proved |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|---|---|")
    wrong = 0
    for case in CASES:
        if options.only and case.name not in options.only:
            continue
        result, work, found, seconds = measure(case, folders)
        asked, cost = result.evaluations, result.cost
        overhead = work.seconds_searching / work.seconds_evaluating - 1 if work.seconds_evaluating else 0.0
        plain = greedy(work, replace(found)) if result.keep else (0, 0, 0)
        mine = cost.flops_fp32 if cost is not None else None
        ratio = mine / plain[1] if mine is not None and plain[1] else 0.0
        proved = (
            "yes"
            if result.exported is not None and result.exported.passed
            else "no ONNX type"
            if result.exported is None
            else "NO"
        )
        wrong += not result or ratio > 2
        print(
            f"| {case.name} | {case.precision} | {len(result.keep)} | {asked['search']} | {asked['probes']} | {asked['proof']} | {seconds:.1f} "
            f"| {overhead:.1%} | {mine} | {plain[0]} | {plain[1]} | {ratio:.3g} | {proved} |",
            flush=True,
        )
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
