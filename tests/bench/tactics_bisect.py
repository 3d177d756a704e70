"""``probe tactics bisect`` on planted bad tactics: found, confirmed, wrong accusations, evaluations against a full sweep.

    python tests/bench/tactics_bisect.py
    python tests/bench/tactics_bisect.py --layers 200 --seeds 2 --random 100 --models ../shared/models

Synthetic networks (tests/blame/planted.py) have acc16 and splitk2 in the bad build on all layers, of which the planted ones lose something; faults
in kernels are planted in real networks, where every layer with a product differs. ``--random`` adds small networks with 0 to 3 faults that
break the network alone and, in half of them, a pair that breaks it together. Exit 1 where a bar is missed: everything planted found and confirmed,
nobody else accused, fewer evaluations than a sweep on networks of 100 layers and more. A sweep switches each difference by itself: it is
blind to choices of which several break the network, and to pairs.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from probe.blame.bisect import Blamed, blame
from probe.blame.switching import measure_changes
from probe.metrics.acceptance import parse_criterion
from probe.store.feeds import read_input_sets
from tests.blame.planted import Chain, chain, engine_of, faulty, oracle_of, switched

ALONE, HALF = 0.2, 0.035
KINDS = {"one": (1, 0), "three": (3, 0), "a pair": (0, 2), "one and a pair": (1, 2), "none": (0, 0)}
REAL = {  # network -> (places among the layers with a product, size of the fault)
    "ultraface_slim_320": ((4,), 1.0),
    "fns_candy": ((3,), 1.0),
    "squeezenet_fp16": ((2, 9, 20), 1.0),
    "mnist": ((0, 2), 0.02),
}
LARGE = 100  # layers from which on a bisection must beat a sweep
HEAD = "| network | layers | differences | planted | found | wrong | confirmed | evaluations | full sweep | a run, ms | s |"


@dataclass
class Row:
    """All cases of a kind."""

    name: str
    layers: int
    differences: int
    planted: int
    found: list[bool] = field(default_factory=list)
    wrong: list[int] = field(default_factory=list)
    confirmed: list[bool] = field(default_factory=list)
    evaluations: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    per_run: list[float] = field(default_factory=list)

    def add(self, blamed: Blamed, planted: set[str], seconds: float, per_run: float) -> None:
        accused = {one.choice.layer for one in blamed.guilty} | {g.layer for one in blamed.guilty for g in one.group}
        self.found.append(planted <= accused)
        self.wrong.append(len(accused - planted))
        self.confirmed.append(blamed.confirmed or (not planted and blamed.search.status == "nothing_needed"))
        self.evaluations.append(sum(blamed.evaluations.values()))
        self.seconds.append(seconds)
        self.per_run.append(per_run)

    def __str__(self) -> str:
        count = len(self.found)
        most, least = max(self.evaluations), min(self.evaluations)
        spent = f"{most}" if most == least else f"{least} to {most}"
        cells = [
            self.name, self.layers, self.differences, self.planted, f"{sum(self.found)} of {count}", sum(self.wrong),
            f"{sum(self.confirmed)} of {count}", spent, self.differences + 2, f"{1e3 * sum(self.per_run) / count:.0f}",
            f"{sum(self.seconds) / count:.1f}",
        ]  # fmt: skip
        return "| " + " | ".join(map(str, cells)) + " |"

    def missed(self) -> Iterator[str]:
        """Bars that were not met."""
        if not all(self.found) or not all(self.confirmed):
            yield f"{self.name}, {self.layers} layers: not everything planted was found and confirmed"
        if sum(self.wrong):
            yield f"{self.name}, {self.layers} layers: {sum(self.wrong)} wrong accusations"
        if self.layers >= LARGE and max(self.evaluations) >= self.differences + 2:
            yield f"{self.name}, {self.layers} layers: {max(self.evaluations)} evaluations, a sweep takes {self.differences + 2}"


def bisect_chain(made: Chain, seed: int) -> tuple[Blamed, float, float]:
    """Against all exact; acc16 where it is planted and on half of the others, splitk2 on the rest."""
    engine = engine_of(made.path)
    rng = random.Random(seed)
    bad = {name: "acc16" if name in made.planted or rng.random() < 0.5 else "splitk2" for name in made.layers}
    begin = time.perf_counter()
    found = measure_changes(engine, switched(engine, bad), made.sets)
    oracle = oracle_of(engine, made.sets, found)
    blamed = blame(oracle, found)
    return blamed, time.perf_counter() - begin, oracle.seconds / oracle.evaluated


def planted_at(layers: int, alone: int, together: int, seed: int) -> dict[int, float]:
    places = random.Random(seed).sample(range(layers), alone + together)
    return dict.fromkeys(places[:alone], ALONE) | dict.fromkeys(places[alone:], HALF)


def synthetic(folder: Path, layers: int, seeds: int) -> Iterator[Row]:
    for kind, (alone, together) in KINDS.items():
        row = Row(f"chain, {kind}", layers, layers, alone + together)
        for seed in range(seeds):
            made = chain(folder / "chain.onnx", layers, planted_at(layers, alone, together, seed), seed)
            row.add(*_with(bisect_chain(made, seed), set(made.planted)))
        yield row


def seeded(folder: Path, count: int, layers: int) -> Iterator[Row]:
    rows: dict[int, Row] = {}
    for seed in range(count):
        alone, together = seed % 4, 2 if seed % 2 else 0
        made = chain(folder / "chain.onnx", layers, planted_at(layers, alone, together, seed), seed)
        row = rows.setdefault(alone + together, Row("random", layers, layers, alone + together))
        row.add(*_with(bisect_chain(made, seed), set(made.planted)))
    yield from (rows[key] for key in sorted(rows))


def real(models: Path) -> Iterator[Row]:
    """The limit stands between what faults do alone and together, or below what each does, as the case wants it."""
    for name, (places, size) in REAL.items():
        engine = engine_of(models / "models" / f"{name}.onnx")
        sets = read_input_sets(min((models / "data").glob(f"{name}__*.npz")))[:1]
        layers = [layer.name for layer in engine.layers if "splitk2" in engine.candidates(layer)]
        faulty(engine, {(layers[at], "splitk2"): size for at in places})
        begin = time.perf_counter()
        found = measure_changes(engine, switched(engine, dict.fromkeys(layers, "splitk2")), sets)
        measuring = time.perf_counter() - begin
        every = frozenset(layers)
        oracle = oracle_of(engine, sets, found)
        floor, together, *effects = (
            oracle.of(every - {layers[at] for at in bad}).worst or 0.0
            for bad in ((), places, *((at,) for at in places))
        )
        pair = len(places) == 2
        limit = (max(effects) + together) / 2 if pair else (floor + min(effects)) / 2
        judged = oracle_of(engine, sets, found, acceptance=(parse_criterion(f"range_rel<={limit!r}"),))
        row = Row(f"{name}, {'a pair' if pair else len(places)}", len(engine.layers), len(layers), len(places))
        begin = time.perf_counter()
        blamed = blame(judged, found)
        spent = time.perf_counter() - begin + measuring
        row.add(blamed, {layers[at] for at in places}, spent, judged.seconds / judged.evaluated)
        yield row


def _with(found: tuple[Blamed, float, float], planted: set[str]) -> tuple[Blamed, set[str], float, float]:
    return found[0], planted, found[1], found[2]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=200, help="products of the synthetic networks")
    parser.add_argument("--seeds", type=int, default=2, help="networks a row")
    parser.add_argument("--random", type=int, default=100, help="small networks with random faults")
    parser.add_argument("--random-layers", type=int, default=30)
    parser.add_argument("--models", type=Path, help="folder of public models")
    parser.add_argument("--out", type=Path, help="also write the page here")
    options = parser.parse_args()
    lines = [HEAD, "|---" * 11 + "|"]
    print(*lines, sep="\n", flush=True)
    missed: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        sources = [
            synthetic(Path(folder), options.layers, options.seeds), seeded(Path(folder), options.random, options.random_layers),
            real(options.models) if options.models else iter(()),
        ]  # fmt: skip
        for row in (row for source in sources for row in source):
            lines.append(str(row))
            print(row, flush=True)
            missed += row.missed()
    lines += ["", *(missed or ["every bar is met"])]
    print(*lines[-max(1, len(missed)) :], sep="\n")
    if options.out is not None:
        options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
