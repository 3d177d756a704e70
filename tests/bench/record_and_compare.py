"""probe against Polygraphy: recording and comparing every tensor of a network. Writes reports/DATE-record-and-compare.md.

    make bench                                  everything, about 20 minutes on two cores
    make bench BENCH='--only batch1 --repeats 3'
    python tests/bench/record_and_compare.py --peer-python ~/polygraphy/bin/python

Both sides read and write memory-backed storage. The recordings to compare come from different seeds, so every tensor differs and
no equal hash can shorten the work. Contestants take turns; a ratio is the peer's minimum over ours.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import large_model
import machine
import peer
import resnet50
from timing import Best, Contestant, Measurement, interleave, run

ROOT = Path(__file__).resolve().parents[2]
PROBE = str(Path(sys.executable).with_name("probe"))


@dataclass(frozen=True, slots=True)
class Bar:
    """What was promised: ``value`` at least, or at most, ``limit``."""

    what: str
    value: float
    limit: float
    at_least: bool
    unit: str = ""

    @property
    def met(self) -> bool:
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def row(self) -> str:
        sign = "at least" if self.at_least else "at most"
        verdict = "met" if self.met else "**missed**"
        return f"| {self.what} | {self.value:.3g}{self.unit} | {sign} {self.limit:g}{self.unit} | {verdict} |"


@dataclass
class Section:
    """A part of the report: what was run, what it took, what had been promised."""

    title: str
    text: list[str] = field(default_factory=list)
    commands: list[tuple[str, ...]] = field(default_factory=list)
    best: dict[str, Best] = field(default_factory=dict)
    bars: list[Bar] = field(default_factory=list)


def measure_resnet(scratch: Path, peer_python: Path, batch: int, repeats: int) -> Section:
    """Record and compare a ResNet-50 at one batch size, with both tools."""
    section = Section(f"ResNet-50, batch {batch}")
    model = resnet50.save(scratch / f"resnet50-b{batch}.onnx", batch)
    log = scratch / "log.txt"
    ours = [scratch / f"probe-{seed}" for seed in (1, 2)]
    theirs = [scratch / f"peer-{seed}.json" for seed in (1, 2)]
    inputs = scratch / "peer-inputs.json"

    def record(i: int) -> list[Contestant]:
        return [
            Contestant("probe dump", (PROBE, "dump", str(model), "-o", str(ours[i]), "--seed", str(i + 1)), prepare=partial(_remove, ours[i])),
            Contestant("polygraphy record", peer.record(peer_python, model, i + 1, inputs, theirs[i]), prepare=partial(_remove, theirs[i])),
        ]  # fmt: skip

    print(f"{section.title}: record", flush=True)
    interleave(record(1), 1, log)  # the other side of the comparison; also warms the page cache
    section.best |= interleave(record(0), repeats, log)
    print(f"{section.title}: compare", flush=True)
    compare = [
        Contestant("probe diff", (PROBE, "diff", str(ours[0]), str(ours[1])), exit_codes=(1,)),
        Contestant("polygraphy compare", peer.compare(peer_python, model, *theirs), exit_codes=(1,)),
    ]
    section.best |= interleave(compare, repeats, log)
    section.commands = [contestant.command for contestant in (*record(0), *compare)]

    raw = _recorded_bytes(ours[0])
    size, peer_size = _size(ours[0]), _size(theirs[0]) + _size(inputs)
    section.text.append(
        f"{resnet50.NODES} nodes, every tensor recorded with its inputs: {raw / 1e6:.1f} MB raw. Files: probe {size / 1e6:.1f} MB "
        f"({size / raw:.4f}x), polygraphy {peer_size / 1e6:.1f} MB ({peer_size / raw:.3f}x)."
    )
    section.bars = _bars(section.best, batch, size / raw)
    for path in (*ours, *theirs, inputs, model):
        _remove(path)
    return section


def _bars(best: dict[str, Best], batch: int, size_ratio: float) -> list[Bar]:
    dump, peer_dump, diff, peer_diff = (
        best[name] for name in ("probe dump", "polygraphy record", "probe diff", "polygraphy compare")
    )
    small = batch == 1
    bars = [
        Bar("record: peer's wall time over ours", peer_dump.wall_s / dump.wall_s, 1.5 if small else 4, True, "x"),
        Bar(
            "record: our memory over the peer's", 100 * dump.rss_mb / peer_dump.rss_mb, 65 if small else 30, False, " %"
        ),
        Bar("record: files over raw", size_ratio, 1.01, False, "x"),
        Bar("compare: peer's wall time over ours", peer_diff.wall_s / diff.wall_s, 8 if small else 10, True, "x"),
        Bar("compare: peer's CPU time over ours", peer_diff.cpu_s / diff.cpu_s, 8 if small else 10, True, "x"),
    ]
    if small:
        return [
            *bars,
            Bar("compare: our memory over the peer's", 100 * diff.rss_mb / peer_diff.rss_mb, 60, False, " %"),
        ]
    return [*bars, Bar("compare: our memory", diff.rss_mb, 600, False, " MB")]


def measure_large(scratch: Path, peer_python: Path) -> Section:
    """Record every tensor of a model over 2 GB. Once each: one of the two does not finish."""
    section = Section("A model over 2 GB, every tensor recorded")
    folder = scratch / "large"
    folder.mkdir()
    model = large_model.save(folder)
    out, log = scratch / "large-dump", scratch / "log.txt"
    commands: dict[str, tuple[str, ...]] = {
        "probe dump": (PROBE, "dump", str(model), "-o", str(out), "--seed", "1"),
        "polygraphy record": peer.record(peer_python, model, 1, folder / "inputs.json", folder / "outputs.json"),
    }
    print(section.title, flush=True)
    ended: dict[str, Measurement] = {}
    for name, command in commands.items():
        ended[name] = run(command, log)
        section.best[name] = Best.of([ended[name]])
        section.commands.append(command)
        if ended[name].exit_code:
            last = next(
                (line.strip() for line in reversed(log.read_text(errors="replace").splitlines()) if line.strip()), ""
            )
            section.text.append(f"`{name}` ended with exit code {ended[name].exit_code}: `{_anonymous(last)[:300]}`")
    rows = [json.loads(line) for line in (out / "manifest.jsonl").open()] if out.is_dir() else []
    recorded = sum(row.get("kind") == "tensor" and row.get("status", "recorded") == "recorded" for row in rows)
    section.text.insert(
        0, f"{_size(folder) / 1e9:.2f} GB of weights in an external file. probe recorded {recorded} tensors."
    )
    section.bars = [Bar("tensors recorded by probe, the input included", recorded, 2 * large_model.LAYERS + 1, True)]
    _remove(folder)
    _remove(out)
    return section


def measure_startup(scratch: Path, peer_python: Path, repeats: int) -> Section:
    """``--version`` and ``--help``: the fixed price of every call."""
    section = Section("Start-up")
    contestants = [
        Contestant("probe --version", (PROBE, "--version")),
        Contestant("probe --help", (PROBE, "--help")),
        Contestant("polygraphy --version", peer.command(peer_python, "--version")),
        Contestant("polygraphy --help", peer.command(peer_python, "--help")),
        Contestant("python -c pass", (sys.executable, "-c", "pass")),
    ]
    print(section.title, flush=True)
    section.best = interleave(contestants, max(repeats, 10), scratch / "log.txt")
    section.commands = [contestant.command for contestant in contestants]
    section.bars = [
        Bar(f"`{name}`: wall time", section.best[name].wall_s, 0.15, False, " s")
        for name in ("probe --version", "probe --help")
    ]
    return section


def page(sections: list[Section], command: str, peer_python: Path) -> str:
    """The report as Markdown."""
    packages = ("numpy", "onnx", "onnx-ir", "onnxruntime-gpu", "onnxruntime")
    bars = [bar for section in sections for bar in section.bars]
    missed = sum(not bar.met for bar in bars)
    lines = [
        "# Record and compare: probe against Polygraphy",
        "",
        f"{len(bars) - missed} of {len(bars)} bars met." if missed else f"All {len(bars)} bars met.",
        "",
        f"- date: {dt.datetime.now(dt.UTC).date()}; commit: {machine.commit()}; command: `{command}`",
        *(f"- {key}: {value}" for key, value in machine.describe().items()),
        f"- probe's environment: {machine.versions(sys.executable, ('probe-inference', *packages))}",
        f"- the peer's: {machine.versions(str(peer_python), ('polygraphy', *packages))}",
        "- contestants take turns, as often as the tables list; times and memory are minima, memory is the largest resident set",
        "- all files in memory-backed storage; the two recordings come from seeds 1 and 2, so that every tensor differs",
        "",
    ]
    for section in sections:
        lines += [f"## {section.title}", "", *section.text, "", "| bar | measured | promised | |", "|---|---|---|---|"]
        lines += [bar.row() for bar in section.bars]
        lines += ["", "| command | wall s | CPU s | memory MB | wall s, every run |", "|---|---|---|---|---|"]
        for name, best in section.best.items():
            runs = " ".join(f"{one.wall_s:.2f}" for one in best.runs)
            lines.append(f"| {name} | {best.wall_s:.2f} | {best.cpu_s:.2f} | {best.rss_mb:.0f} | {runs} |")
        lines += ["", "```", *(_anonymous(" ".join(command)) for command in section.commands), "```", ""]
    return "\n".join(lines)


def _anonymous(text: str) -> str:
    """A command or message without this machine's folders: only file names say something to others."""
    return " ".join(word if "/" not in word else word.rsplit("/", 1)[-1] for word in text.split(" "))


def _recorded_bytes(dump: Path) -> int:
    with (dump / "manifest.jsonl").open() as manifest:
        return sum(json.loads(line).get("bytes") or 0 for line in manifest)


def _size(path: Path) -> int:
    return (
        sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) if path.is_dir() else path.stat().st_size
    )


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def main() -> int:
    parser = argparse.ArgumentParser(description="probe against Polygraphy: record and compare every tensor")
    parser.add_argument("--repeats", type=int, default=5, help="interleaved runs of each command")
    parser.add_argument(
        "--repeats-batch8", type=int, help="the same for batch 8, where the peer takes over a minute a run"
    )
    parser.add_argument("--only", action="append", choices=("batch1", "batch8", "large", "startup"), help="repeatable")
    parser.add_argument(
        "--peer-python", type=Path, help=f"interpreter with {peer.REQUIREMENT}; default: .venv-peer, built when missing"
    )
    parser.add_argument("--scratch", type=Path, default=Path("/dev/shm"), help="memory-backed folder, 12 GB free")
    parser.add_argument("--out", type=Path, help="the report; default reports/DATE-record-and-compare.md")
    options = parser.parse_args()
    peer_python = options.peer_python or peer.build(ROOT / ".venv-peer")
    scratch = Path(tempfile.mkdtemp(prefix="probe-bench-", dir=options.scratch))
    parts: dict[str, Callable[[], Section]] = {
        "batch1": lambda: measure_resnet(scratch, peer_python, 1, options.repeats),
        "batch8": lambda: measure_resnet(scratch, peer_python, 8, options.repeats_batch8 or options.repeats),
        "large": lambda: measure_large(scratch, peer_python),
        "startup": lambda: measure_startup(scratch, peer_python, options.repeats),
    }
    try:
        sections = [part() for name, part in parts.items() if not options.only or name in options.only]
    finally:
        shutil.rmtree(scratch)
    command = " ".join(["python tests/bench/record_and_compare.py", *(_anonymous(word) for word in sys.argv[1:])])
    text = page(sections, command, peer_python)
    out = options.out or ROOT / "reports" / f"{dt.datetime.now(dt.UTC).date()}-record-and-compare.md"
    out.write_text(text)
    print(text)
    return 0 if all(bar.met for section in sections for bar in section.bars) else 1


if __name__ == "__main__":
    sys.exit(main())
