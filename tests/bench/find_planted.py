"""``find`` on networks with planted faults of known minimum: evaluations by kind, size over the minimum, false passes, seconds.

    python tests/bench/find_planted.py --nodes 60 200 --seeds 3
    python tests/bench/find_planted.py --nodes 1000 --kinds overflow mixed --seeds 1

Every answer is exported and judged by the neutral evaluator (tests/bench/neutral.py), which shares no code with what searched: an answer that
it fails is a false pass. Exit 1 where a bar is missed: no false pass; of faults that break the outputs each by itself (OR) at 1000 nodes at
most 40, 120, 300 search evaluations for 3, 12, 40 faults; the minimum's size in at least 90 % of all but accumulated errors; accumulated errors
at most 1.25 times the minimum at the median. The generator (tests/culprits/planted) says how minima are known.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import onnx

import probe
from tests.bench import neutral
from tests.culprits.planted.build import KINDS, OR_KINDS, Planted, build

FAULTS = {60: (0, 1, 3), 200: (0, 1, 3, 12), 1000: (0, 3, 12, 40)}
MOST_SEARCH = {3: 40, 12: 120, 40: 300}  # at 1000 nodes, of OR kinds
LARGE = 1000
HEAD = (
    "| kind | nodes | faults | right | false passes | smallest | size / minimum | search | probes | proof | units | s |"
)


@dataclass(frozen=True, slots=True)
class Answer:
    """One search.

    Attributes:
        claimed: it says that its answer passes.
        passes: the neutral evaluator says so too.
        size, minimum: tensors kept; a constant that rides with the tensor it serves counts as that tensor.
    """

    claimed: bool
    passes: bool
    status: str
    size: int
    minimum: int
    evaluations: dict[str, int]
    units: int
    seconds: float

    @property
    def false(self) -> bool:
        return self.claimed and not self.passes

    @property
    def ratio(self) -> float:
        return self.size / self.minimum if self.minimum else 1.0 + self.size


@dataclass
class Row:
    """All seeds of one kind, size and number of faults."""

    kind: str
    nodes: int
    faults: int
    answers: list[Answer] = field(default_factory=list)

    def __str__(self) -> str:
        ratios = [one.ratio for one in self.answers]
        cells = [
            self.kind, self.nodes, self.faults,
            f"{sum(one.claimed and one.passes for one in self.answers)} of {len(self.answers)}",
            sum(one.false for one in self.answers), sum(one.size == one.minimum for one in self.answers),
            f"{median(ratios):.2f}, worst {max(ratios):.2f}", *map(self._evaluations, ("search", "probes", "proof")),
            f"{median(one.units for one in self.answers):.0f}", f"{median(one.seconds for one in self.answers):.1f}",
        ]  # fmt: skip
        return "| " + " | ".join(map(str, cells)) + " |"

    def most(self, kind: str) -> int:
        return max(one.evaluations[kind] for one in self.answers)

    def _evaluations(self, kind: str) -> str:
        middle, most = median(one.evaluations[kind] for one in self.answers), self.most(kind)
        return f"{middle:.0f}" if middle == most else f"{middle:.0f}, most {most}"


def search(planted: Planted, folder: Path) -> Answer:
    """Find, export, judge."""
    model, out = folder / "planted.onnx", folder / "mixed.onnx"
    model.write_bytes(planted.model.SerializeToString())
    begin = time.perf_counter()
    found = probe.find(model, out, inputs=planted.inputs, accept=planted.accept, lighter=False, overwrite=True)
    seconds = time.perf_counter() - begin
    passes = out.exists() and neutral.evaluate(onnx.load(out), planted.inputs, planted.golden, planted.accept).passed
    return Answer(
        bool(found), passes, found.status, len({one.unit for one in found.keep}), len(planted.minimum), dict(found.evaluations), found.units, seconds
    )  # fmt: skip


def missed(rows: list[Row]) -> list[str]:
    """Bars that were not met."""
    lacks = []
    for row in rows:
        where = f"{row.kind}, {row.nodes} nodes, {row.faults} faults"
        lacks += [f"{where}: {sum(one.false for one in row.answers)} false passes"] * any(
            one.false for one in row.answers
        )
        lacks += [f"{where}: no answer ({one.status})" for one in row.answers if not one.claimed]
        most = MOST_SEARCH.get(row.faults)
        if row.kind in OR_KINDS and row.nodes == LARGE and most is not None and row.most("search") > most:
            lacks.append(f"{where}: {row.most('search')} search evaluations, at most {most}")
    exact = [one for row in rows if row.kind != "accumulated" for one in row.answers]
    smallest = sum(one.size == one.minimum for one in exact)
    if smallest < 0.9 * len(exact):
        lacks.append(f"the minimum's size in {smallest} of {len(exact)}, at least 90 %")
    smooth = [one.ratio for row in rows if row.kind == "accumulated" and row.faults for one in row.answers]
    if smooth and median(smooth) > 1.25:
        lacks.append(f"accumulated: {median(smooth):.2f} times the minimum at the median, at most 1.25")
    return lacks


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=[*KINDS])
    parser.add_argument("--nodes", nargs="+", type=int, choices=FAULTS, default=[60, 200])
    parser.add_argument("--faults", nargs="+", type=int, help="only these numbers of faults")
    parser.add_argument("--seeds", type=int, default=3, help="networks a row; the seed also picks the base")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="also write the page here")
    options = parser.parse_args()
    lines, rows = [HEAD, "|---" * 12 + "|"], []
    print(*lines, sep="\n", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for nodes in options.nodes:
            for kind in options.kinds:
                for faults in options.faults or FAULTS[nodes]:
                    row = Row(kind, nodes, faults)
                    for seed in range(options.first_seed, options.first_seed + options.seeds):
                        row.answers.append(search(build(kind, nodes, faults, seed), Path(folder)))
                    rows.append(row)
                    lines.append(str(row))
                    print(row, flush=True)
    lacks = missed(rows)
    lines += ["", *(f"MISSED {one}" for one in lacks)] if lacks else ["", "Every bar is met."]
    print(*lines[-len(lacks) - 1 :], sep="\n")
    if options.out:
        options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 1 if lacks else 0


if __name__ == "__main__":
    sys.exit(main())
