"""The worked examples of reports/examples: commands run on public models, their pages, screenshots, and a text each.

    python tests/bench/examples.py --models ../shared/models
    python tests/bench/examples.py --models ../shared/models --only overflow picture

The commands run in a folder where ``models`` and ``data`` are links, so that pages name relative paths. Needs Playwright and a Chromium
($PROBE_CHROMIUM, or on PATH). Exit 1 where a page or a picture is too large, or names this machine.
"""

from __future__ import annotations

import argparse
import datetime as dt
import html
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from probe.report.text import command
from tests.bench import machine

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "reports" / "examples"
PAGE, PICTURE, RESULT = (
    500_000,
    200_000,
    100_000,
)  # bytes: of a page, of a screenshot, of a result that is kept beside them
CANDY, MAGIKA, FACES = "fns_candy", "magika_standard_v3_3", "ultraface_slim_320"
Setting = tuple[str, int, str]  # name of the screenshot, width, colours
WIDE, NARROW = ("wide", 1280, "light"), ("narrow", 390, "dark")


@dataclass(frozen=True)
class Example:
    """A question, the commands that answer it, and how to read the page.

    Attributes:
        commands: as typed; each may exit with 1, which is a verdict.
        results: of the last commands, what the page is made of.
        at: what the screenshots begin with, wide and narrow: an element, opened if it can be.
    """

    name: str
    model: str
    title: str
    question: str
    commands: tuple[str, ...]
    results: tuple[str, ...]
    read: tuple[str, ...]
    at: tuple[str, str] = ("body", "body")


def _of(model: str) -> str:
    return f"models/{model}.onnx --inputs data/{model}__main.npz"


EXAMPLES = (
    Example(
        "overflow", MAGIKA, "A classifier that FP16 breaks, without a NaN",
        "A file-type classifier passes every check for NaN in FP16, and answers at random. Where does that begin?",
        (f"probe run {_of(MAGIKA)} --precision fp16 --json overflow.json",),
        ("overflow.json",),
        (
            "The head says that it fails, by which output and by how much; *What to do next* names the one tensor that cures it, tried already.",
            ("*Why* has the numbers: the sum of squares of the second LayerNorm is four times too large for FP16 and becomes Inf; its reciprocal "
            "is 0, finite and wrong, which is why no NaN tells."),
            ("In the picture of the error two layers stand out: (1), where small differences of large numbers lose digits, which later layers "
            "average away, and (2), the overflow, which nothing repairs. The graph below shows the same on the network; from (2) on all is dark."),
            "*Tensors in detail* has the overflowing tensor on FP16's range: all six of its elements lie in the zone beyond 65504.",
        ),
        ("#why", "#graph"),
    ),
    Example(
        "kept", MAGIKA, "What must stay FP32, with proofs",
        "The same classifier: what is the least that must stay FP32, and which model is to be deployed?",
        (f"probe find {_of(MAGIKA)} --precision fp16 -o mixed.onnx --json kept.json",),
        ("kept.json",),
        (
            "One tensor. The page has the evaluation in which it alone, put back to FP16, breaks the output again: it is needed, not only enough.",
            "*Other cures, tried* says what else would do: a runtime that keeps the insides of fused layers in FP32, or TF32; BF16 would not.",
            "*How it was proved* is about the file that was written, not about the search; *For other tools* hands the choice to AutoCast and trtexec.",
        ),
        ("body", "#path"),
    ),
    Example(
        "picture", CANDY, "A picture, and the difference one cannot see",
        "A style transfer network was exported in FP16. Its pictures look right. Where are they not?",
        (
            f"probe convert {_of(CANDY)} -o candy_fp16.onnx",
            f"probe dump {_of(CANDY)} -o golden",
            "probe dump candy_fp16.onnx -o deployed --runner typed --inputs golden",
            "probe diff deployed golden --precision fp16 --select '^(outputImage|Tanh_72|ReLU_70)$' --json picture.json",
        ),
        ("picture.json",),
        (
            ("It passes: the largest error is 0.7 % of the range. Open the output under *Tensors in detail* for golden, actual and their difference, "
            "made a hundred times brighter: it is one spot in the background, not noise all over."),
            ("The error against magnitude says what kind it is: the median stays flat while one rounding to FP16 would grow with the value, so the "
            "error comes from before, not from storing the result."),
        ),
        ("#details .drill", "#details .drill"),
    ),
    Example(
        "before-after", FACES, "Before and after: from FP16 to BF16",
        "A face detector that runs well in FP16 was moved to BF16, whose range is larger. What did that cost?",
        (
            f"probe run {_of(FACES)} --precision fp16 --json before.json",
            f"probe run {_of(FACES)} --precision bf16 --json after.json",
        ),
        ("before.json", "after.json"),
        (
            "Each side passes or warns by itself, but both outputs are off by about eight times as much as before: a regression, and exit code 1.",
            ("The picture lays one run over the other: the distance is the same from the first layer to the last, which is what three bits "
            "fewer make everywhere, and no single layer to be mended."),
            "The table of parts says which layers add more error by themselves and which only pass it on, also where fusions differ.",
        ),
        ("#network", "body"),
    ),
    Example(
        "guilty-tactic", CANDY, "Which kernel choice broke the picture",
        "Two builds of the style transfer network; one fails. They differ in the kernels of twenty layers. Which of them is it?",
        (
            f"probe tactics record {_of(CANDY)} -o good.tactics --choose accurate",
            f"probe tactics record {_of(CANDY)} -o bad.tactics --choose random --choose-seed 1",
            f"probe tactics bisect good.tactics bad.tactics {_of(CANDY)} -o pinned.tactics --deny-list deny.txt --json guilty-tactic.json",
        ),
        ("guilty-tactic.json",),
        (
            ("One: an InstanceNormalization that adds up 7056 elements a channel in FP16. The good build fails with this one choice, the bad one passes without it: "
            "*Flipped both ways*."),
            "Ten evaluations found it, where trying each difference takes twenty-two. The other nineteen choices may stay.",
            "The two commands run the pinned build, and choose anew without that kernel.",
        ),
        ("body", "#path"),
    ),
    Example(
        "where-time-goes", FACES, "Where the time goes",
        "How fast is the face detector on this machine, and which layers would be worth someone's time?",
        (f"probe bench {_of(FACES)} --duration 6 --json where-time-goes.json",),
        ("where-time-goes.json",),
        (
            "Before the numbers stands whether one may use them: spread, drift, other programs.",
            ("The roofline says what this machine can do at best, measured in the same run; far below the roof and large is where time can be won. "
            "Here that is the first few layers: large pictures, few channels."),
            "The memory picture has what is alive behind each layer, and how near the plan is to the least possible.",
        ),
        ("#roofline", "#memory"),
    ),
)  # fmt: skip


def run(example: Example, folder: Path, out: Path) -> tuple[str, ...]:
    """Run the commands and the report; returns all of them as typed."""
    page = f"{example.name}.html"
    typed = (*example.commands, f"probe report {' '.join(example.results)} -o {page}")
    for line in typed:
        words = (sys.executable, "-m", "probe", *shlex.split(line)[1:])
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": str(ROOT)})  # fmt: skip
        if done.returncode not in (0, 1):
            raise SystemExit(f"{line}\n{done.stdout}{done.stderr}")
    shutil.copy(folder / page, out / page)
    for result in example.results:
        if (folder / result).stat().st_size <= RESULT:
            shutil.copy(folder / result, out / result)
    return typed


def photograph(browser: Any, example: Example, out: Path) -> None:
    """Two screenshots: wide and light, narrow and dark."""
    for (suffix, width, scheme), at in zip((WIDE, NARROW), example.at, strict=True):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page = context.new_page()
        page.goto((out / f"{example.name}.html").as_uri())
        found = page.locator(at).first
        found.evaluate("e => { if (e.tagName === 'DETAILS') e.open = true; e.scrollIntoView(); }")
        page.evaluate("Promise.all([...document.images].map(i => i.decode()))")
        page.screenshot(path=out / f"{example.name}-{suffix}.png")
        context.close()


def written(example: Example, typed: Sequence[str], known: dict[str, str]) -> str:
    """The text beside a page."""
    name = example.name
    kept = [one for one in example.results if (FOLDER / one).exists()]
    saved = f" The result itself: {', '.join(f'[{one}]({one})' for one in kept)}." if kept else ""
    facts = [f"- {what}: {said}" for what, said in known.items()]
    return "\n".join(
        (
            f"# {example.title}", "", example.question, "", "```", *(one for line in typed for one in command(shlex.split(line), 100, indent="")), "```", "",
            f"The page: [{name}.html]({name}.html).{saved}", "", "## How to read it", "", *(f"- {one}" for one in example.read), "",
            f"![a part of the page at 1280 pixels]({name}-wide.png)", "", f"![a part of it at 390 pixels, in dark colours]({name}-narrow.png)", "",
            "## Made from", "", *facts, "",
        )
    )  # fmt: skip


def origin(models: Path, name: str) -> dict[str, str]:
    """Where a model and its input come from, by the manifest beside them."""
    manifest = json.loads((models / "MANIFEST.json").read_text(encoding="utf-8"))
    one = next(entry for entry in manifest["models"] if entry["name"] == name)
    data = one["data"][0]["how"]
    return {
        "model": f"{name}.onnx from {one['source_repo']} at {one['commit'][:12]}, {one['path']} ({one['licence']}), SHA-256 {one['sha256'][:16]}",
        "input": f"{name}__main.npz: {data}",
    }


def faults(out: Path, examples: Sequence[Example], private: Iterable[str] = ()) -> Iterator[str]:
    """What must not be: files too large, words that name a machine."""
    for example in examples:
        for file in sorted(out.glob(f"{example.name}*")):
            limit = {".html": PAGE, ".png": PICTURE, ".json": RESULT}.get(file.suffix, 20_000)
            if file.stat().st_size > limit:
                yield f"{file.name}: {file.stat().st_size:,} bytes, more than {limit:,}"
            if file.suffix != ".png":
                text = _without_pictures(html.unescape(file.read_text(encoding="utf-8")))
                yield from (f"{file.name}: names {word}" for word in private if word in text)


def _without_pictures(text: str) -> str:
    """Pixels written in letters say nothing, and may spell anything."""
    return "".join(
        part.split('"', 1)[-1] if at else part for at, part in enumerate(text.split("data:image/png;base64,"))
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", type=Path, required=True, help="folder with models/, data/ and MANIFEST.json")
    parser.add_argument("--only", nargs="+", choices=[one.name for one in EXAMPLES], help="names of examples")
    parser.add_argument("--out", type=Path, default=FOLDER)
    given = parser.parse_args()
    from playwright.sync_api import sync_playwright

    models = given.models.resolve()
    chosen = [one for one in EXAMPLES if given.only is None or one.name in given.only]
    given.out.mkdir(parents=True, exist_ok=True)
    chromium = os.environ.get("PROBE_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    here = {
        "commit": machine.commit(), "machine": ", ".join(f"{what} {said}" for what, said in machine.describe().items()),
        "versions": machine.versions(sys.executable, ("numpy", "onnx", "onnxruntime", "onnxruntime-gpu")),
        "date": dt.datetime.now(dt.UTC).date().isoformat(), "again": "`python tests/bench/examples.py --models FOLDER --only ",
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as running:
        work = Path(folder)
        for link in ("models", "data"):
            (work / link).symlink_to(models / link)
        browser = running.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for example in chosen:
            typed = run(example, work, given.out)
            photograph(browser, example, given.out)
            known = origin(models, example.model) | here | {"again": f"{here['again']}{example.name}`"}
            (given.out / f"{example.name}.md").write_text(written(example, typed, known), encoding="utf-8")
            print(f"{example.name}: {(given.out / f'{example.name}.html').stat().st_size:,} bytes", flush=True)
        browser.close()
    private = {str(ROOT), str(Path.home()), tempfile.gettempdir(), platform.node()}
    found = list(faults(given.out, chosen, private))
    print(*found, sep="\n")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
