"""Searches on planted faults with a known minimum: ours, prefix bisection, ddmin. Pure Python, no network: what is measured is the search.

    python tests/bench/search.py --seeds 20 --peer-seeds 5

Prints a table a family: answers that really pass, false passes, size over the minimum, evaluations against 4 k log2 n, and the same
under small budgets. Exit 1 where a bar is missed: no false pass, 95 % of minimum size, the rest 1-minimal, evaluations within
4 k log2 n (where the oracle repeats itself), never larger than ddmin, answers under a budget pass.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from probe.search.find import Options, find
from tests.search.peers import Counted, ddmin, prefix_bisection
from tests.search.problems import FAMILIES, Problem

BUDGETS = (3, 5, 10, 20)


@dataclass
class Tally:
    """Answers of one search on the problems of one family."""

    name: str
    sizes: list[float] = field(default_factory=list)  # over the minimum, of those that really pass
    evaluations: list[int] = field(default_factory=list)
    false: int = 0
    none: int = 0
    not_minimal: int = 0
    over: int = 0
    seconds: float = 0.0

    def add(self, problem: Problem, keep: Sequence[str] | None, evaluations: int) -> None:
        self.evaluations.append(evaluations)
        self.over += problem.noise is None and evaluations > problem.bar
        if keep is None:
            self.none += 1
        elif not problem.passes(frozenset(keep)):
            self.false += 1
        else:
            self.sizes.append(len(keep) / problem.minimum)
            self.not_minimal += not problem.one_minimal(keep)

    def row(self, bar: str) -> str:
        smallest = sum(size == 1 for size in self.sizes)
        sizes = f"{median(self.sizes):.2f}, worst {max(self.sizes):.2f}" if self.sizes else "-"
        asked = f"{median(self.evaluations):.0f}, worst {max(self.evaluations)}"
        return (
            f"| {self.name} | {len(self.sizes)} of {len(self.evaluations)} | {self.false} | {smallest} | {self.not_minimal} | {sizes} "
            f"| {asked} | {bar} | {self.seconds / len(self.evaluations) * 1e3:.0f} |"
        )


def ours(problem: Problem, options: Options | None = None) -> tuple[Sequence[str] | None, int]:
    result = find(problem.units, problem, options)
    return result.keep, len(problem.asked)


def peer(search: Callable[..., list[str]]) -> Callable[[Problem], tuple[Sequence[str], int]]:
    def run(problem: Problem) -> tuple[Sequence[str], int]:
        passes = Counted(lambda kept: problem(kept).passed)
        return search(passes, [unit.id for unit in problem.units]), passes.evaluations

    return run


SEARCHES: dict[str, Callable[[Problem], tuple[Sequence[str] | None, int]]] = {
    "find": ours,
    "prefix bisection": peer(prefix_bisection),
    "ddmin": peer(ddmin),
}


def measure(family: str, seeds: int, peer_seeds: int) -> tuple[list[str], list[str]]:
    """Rows of the table, and the bars that were missed."""
    make, rows, missed = FAMILIES[family], [], []
    sizes: dict[str, dict[int, int]] = {}
    for name, search in SEARCHES.items():
        tally = Tally(name)
        for seed in range(seeds if name == "find" else peer_seeds):
            problem = make(family, seed)
            started = time.perf_counter()
            keep, evaluations = search(problem)
            tally.seconds += time.perf_counter() - started
            tally.add(problem, keep, evaluations)
            if keep is not None and problem.passes(frozenset(keep)):
                sizes.setdefault(name, {})[seed] = len(keep)
        bar = f"{problem.bar:.0f}" if problem.noise is None else "votes"
        rows.append(tally.row(bar))
        if name == "find":
            missed += [f"{tally.false} false passes"] * bool(tally.false)
            missed += [f"{tally.none} without an answer"] * bool(tally.none)
            missed += [f"{tally.not_minimal} not 1-minimal"] * bool(tally.not_minimal)
            missed += [f"{tally.over} over 4 k log2 n"] * bool(tally.over)
            missed += ["under 95 % of minimum size"] * (sum(one == 1 for one in tally.sizes) < 0.95 * seeds)
    larger = [s for s, size in sizes.get("ddmin", {}).items() if sizes["find"].get(s, size) > size]
    missed += [f"larger than ddmin for seeds {larger}"] * bool(larger)
    return rows, missed


def under_budgets(family: str, seeds: int) -> tuple[str, list[str]]:
    """Size of the answer over the minimum at each budget, and the answers that do not pass."""
    cells, wrong = [], 0
    for budget in BUDGETS:
        over = []
        for seed in range(seeds):
            problem = FAMILIES[family](family, seed)
            keep, evaluations = ours(problem, Options(max_evaluations=budget))
            assert evaluations <= budget
            # One evaluation of a flaky oracle is all a small budget has, so its word is taken.
            wrong += keep is not None and problem.noise is None and not problem.passes(frozenset(keep))
            over.append(len(keep) / problem.minimum if keep is not None else float("inf"))
        cells.append(f"{median(over):.1f}")
    return f"| {family} | {' | '.join(cells)} |", [f"{wrong} answers under a budget do not pass"] * bool(wrong)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20, help="problems a family")
    parser.add_argument("--peer-seeds", type=int, default=5, help="the same for the peers, which take longer")
    parser.add_argument("--only", help="families whose name contains this")
    parser.add_argument("--out", type=Path, help="also write the page here")
    options = parser.parse_args()
    families = [family for family in FAMILIES if (options.only or "") in family]
    head = (
        "| search | passes | false passes | minimum | not 1-minimal | size / minimum | evaluations | 4 k log2 n | ms |"
    )
    lines, missed = [], []
    for family in families:
        rows, lacks = measure(family, options.seeds, min(options.seeds, options.peer_seeds))
        lines += [f"### {family}", "", head, "|---" * 9 + "|", *rows, ""]
        missed += [f"{family}: {lack}" for lack in lacks]
    lines += ["### Size over the minimum when stopped after so many evaluations", ""]
    lines += [f"| family | {' | '.join(map(str, BUDGETS))} |", "|---" * (1 + len(BUDGETS)) + "|"]
    for family in families:
        row, lacks = under_budgets(family, options.seeds)
        lines.append(row)
        missed += [f"{family}: {lack}" for lack in lacks]
    lines += ["", *(f"MISSED {one}" for one in missed)] if missed else ["", "Every bar is met."]
    text = "\n".join(lines)
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
