"""``probe report`` as a user meets it: files, streams, exit codes, what it loads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from probe.api.reports import report
from probe.errors import InputError
from probe.results.json import save
from probe.results.publish import example_diff, example_metrics, example_run, example_tensor, examples
from tests.cli.program import probe
from tests.cli.test_startup import HEAVY, modules_after


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``run.json``, ``find.json``, ...: what the commands save; ``good.json``, ``worse.json``: two diffs against one golden."""
    folder = tmp_path_factory.mktemp("saved")
    for name, result in examples().items():
        save(result, folder / f"{name}.json")
    for name, error in (("good", 0.001), ("worse", 0.04)):
        tensors = (example_tensor("logits", metrics=example_metrics(range_rel=error)),)
        save(replace(example_diff(), verdict="passed", reasons=(), tensors=tensors), folder / f"{name}.json")
    return folder


@pytest.mark.parametrize(
    "kind", ["run", "find", "diff", "check", "diff-results", "convert", "tactics-replay", "tactics-bisect", "builds"]
)
def test_a_page_is_written_and_named(kind: str, saved: Path, tmp_path: Path) -> None:
    done = probe("report", saved / f"{kind}.json", "-o", "page.html", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "wrote page.html\n", "")
    assert (tmp_path / "page.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>\n<html lang")


def test_without_a_name_html_goes_to_report_html_and_markdown_to_the_screen(saved: Path, tmp_path: Path) -> None:
    assert probe("report", saved / "run.json", cwd=tmp_path).stdout == "wrote report.html\n"
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    done = probe("report", saved / "run.json", "--format", "md", cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.startswith("### FAILED: fp16: logits")
    assert probe("report", saved / "run.json", "-o", "-", cwd=tmp_path).stdout.startswith("<!DOCTYPE html>")


def test_the_name_says_the_format(saved: Path, tmp_path: Path) -> None:
    assert probe("report", saved / "run.json", "-o", "comment.md", cwd=tmp_path).returncode == 0
    assert (tmp_path / "comment.md").read_text(encoding="utf-8").startswith("### FAILED")
    assert probe("report", saved / "run.json", "-o", "page.txt", "--format", "html", cwd=tmp_path).returncode == 0


def test_two_results_tell_what_changed_and_a_regression_fails(saved: Path, tmp_path: Path) -> None:
    good, worse = saved / "good.json", saved / "worse.json"
    done = probe("report", good, worse, "--format", "md", cwd=tmp_path)
    assert done.returncode == 1 and "range\\_rel" not in done.stdout
    assert "| `logits` | 0.001 | 0.04 | 40 | passed | worse |" in done.stdout
    assert probe("report", worse, good, cwd=tmp_path).returncode == 0
    assert probe("report", good, worse, "--worse-factor", "50", cwd=tmp_path).returncode == 0


def test_two_runs_are_compared_tensor_by_tensor(tmp_path: Path) -> None:
    failed = example_run()
    tensors = tuple(replace(t, verdict="passed", beyond=False, metrics=example_metrics()) for t in failed.tensors)
    passed = replace(failed, verdict="passed", reasons=(), tensors=tensors)
    assert "logits" in report([passed, failed], format="md")
    assert "FAILED" in report((passed, failed)) and "PASSED" in report((failed, passed))


def test_two_searches_are_compared_and_nothing_else_with_one(saved: Path, tmp_path: Path) -> None:
    done = probe("report", saved / "find.json", saved / "find.json", "--format", "md", cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.startswith("### PASSED: the same must stay FP32")
    mixed = probe("report", saved / "find.json", saved / "run.json", cwd=tmp_path)
    assert mixed.returncode == 2 and "holds a probe.find/1" in mixed.stderr


def test_diff_compares_saved_runs_as_report_does(saved: Path, tmp_path: Path) -> None:
    done = probe("diff", saved / "run.json", saved / "run.json", "--json", "pair.json", cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.startswith("PASSED  no output got worse")
    pages = [probe("report", *words, "-o", "-", "--format", "md", cwd=tmp_path).stdout
             for words in (("pair.json",), (saved / "run.json", saved / "run.json"))]  # fmt: skip
    assert pages[0] == pages[1] != ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("gone.json",), "cannot read the result: No such file or directory"),
        (("text.json",), "not a result of probe"),
        (("dump.json",), "there is no report of a probe.dump/1"),
        (("run.json", "-o", "page.pdf"), "a report is HTML or Markdown, not .pdf"),
        (("run.json", "-o", "nowhere/page.html"), "its folder does not exist"),
        (("run.json", "check.json"), "holds a probe.check/1"),
        (("run.json", "run.json", "run.json"), "3 results cannot be one report"),
        ((), "Missing argument"),
        (("run.json", "--format", "pdf"), "pdf"),
    ],
)
def test_bad_input_is_refused_and_leaves_nothing(
    words: tuple[str, ...], said: str, saved: Path, tmp_path: Path
) -> None:
    (saved / "text.json").write_text("{}")
    given = [saved / word if word.endswith(".json") else word for word in words]
    done = probe("report", *given, cwd=tmp_path)
    assert done.returncode == 2 and said in done.stderr and not done.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_library_writes_the_same(saved: Path, tmp_path: Path) -> None:
    text = report(saved / "run.json", tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == text == report(example_run())
    assert report(example_run(), tmp_path / "page.md") == report(example_run(), format="md")
    with pytest.raises(InputError, match="0 results"):
        report([])


def test_it_loads_no_onnx(saved: Path, tmp_path: Path) -> None:
    for words in (
        ("-o", f"{tmp_path}/x.html"),
        ("--format", "md"),
        (str(saved / "worse.json"), "-o", f"{tmp_path}/y.md"),
    ):
        code, modules = modules_after("report", str(saved / "good.json"), *words, cwd=saved)
        assert code in (0, 1)
        assert modules.isdisjoint((*HEAVY, "rich.console")), sorted(modules & {*HEAVY})
