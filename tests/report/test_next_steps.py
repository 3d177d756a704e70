"""The commands that pages print do again what was done: nothing that was asked for is lost on the way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from probe.report import convert_page, find_page, find_steps, run_steps
from probe.report.find_facts import find_facts
from probe.report.markdown import markdown
from probe.report.run_facts import run_facts
from probe.report.steps import Step, fed_again, golden_option, judged_by, typed_again
from probe.report.terminal import render
from probe.results.diff import Criterion, SourceInfo
from probe.results.find import FindResult
from probe.results.publish import examples
from probe.results.run import AsWritten, GoldenInfo, RunFinding
from probe.results.tensors import InputInfo

SEEDED = (InputInfo("seed-3", "aa" * 32, "seed 3"),)
FILE = (InputInfo("a", "aa" * 32, "file a.npz"),)
TORCH = (Criterion("mismatch_fraction", "<=", 0.0, source="preset torch"),)
FP64 = SourceInfo("made now by fp64", "tape", runner="fp64")
ORT = SourceInfo("made now by ort", "tape", runner="ort")
TYPED = "--seed 3 --input-shapes 'x:[1,3,8,8]' --val-range 'x:[0,1]'"


def result_of(of: str, **changed: Any) -> Any:
    made = next(one for name, one in examples().items() if name == of)
    return replace(made, **changed)


def words(steps: list[Step]) -> str:
    return "\n".join(" ".join(step.words) for step in steps)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("probe find m.onnx --keep a --keep=b -o c", ("--keep", "a", "--keep=b")),
        ("probe find m.onnx --keep 'a b'", ("--keep", "a b")),
        ("probe find m.onnx", ()),
        ("", ()),
        ("probe find 'not closed --keep a", ()),
    ],
)
def test_typed_again(line: str, found: tuple[str, ...]) -> None:
    assert typed_again(line, ("--keep",)) == found


@pytest.mark.parametrize(
    ("inputs", "line", "found"),
    [
        (FILE, "", ("--inputs", "a.npz")),
        (FILE, "probe run m.onnx --inputs folder/", ("--inputs", "folder/")),
        (SEEDED, "", ("--seed", "3")),
        (
            SEEDED,
            f"probe run m.onnx {TYPED}",
            ("--seed", "3", "--input-shapes", "x:[1,3,8,8]", "--val-range", "x:[0,1]"),
        ),
    ],
)
def test_inputs_as_they_were_given(inputs: tuple[InputInfo, ...], line: str, found: tuple[str, ...]) -> None:
    assert fed_again(inputs, line) == found


def test_golden_and_acceptance() -> None:
    assert golden_option(None) == golden_option(ORT) == ()
    assert golden_option(FP64) == ("--golden", "fp64")
    assert golden_option(SourceInfo("gold", "dump", runner="fp64")) == ("--golden", "gold")
    own = Criterion("cosine", ">=", 0.999, source="user")
    assert judged_by((own, Criterion("range_rel", "<=", 0.05))) == ("--accept", "cosine>=0.999")
    assert judged_by((*TORCH, *TORCH)) == ("--preset", "torch")


def test_a_search_is_gone_on_with_as_it_was_asked_for() -> None:
    """A log belongs to one search: with another golden, preset, seed or keep-list it is refused."""
    line = (
        f"probe find m.onnx {TYPED} --keep p --golden fp64 --preset torch --held-out h.npz --max-evals 9 --log l.jsonl"
    )
    result = result_of(
        "find", status="budget", command=line, golden=FP64, acceptance=TORCH, inputs=SEEDED, log="l.jsonl", exported=None,
    )  # fmt: skip
    resume = next(one for one in find_steps.next_steps(result) if "Go on" in one.why)
    told = " ".join(resume.words)
    for part in ("--seed 3", "--input-shapes x:[1,3,8,8]", "--val-range x:[0,1]", "--golden fp64", "--preset torch", "--keep p",
                 "--held-out h.npz", "--log l.jsonl --resume"):  # fmt: skip
        assert part in told
    assert "--max-evals" not in told


def test_inputs_that_were_split_off_are_split_off_again() -> None:
    result = result_of("find", inputs=FILE, command="probe find m.onnx --inputs data/ --split 0.2", exported=None)
    told = words(find_steps.next_steps(result))
    assert "--inputs data/ " in told
    assert "--split 0.2 -o mixed.onnx" in told
    assert "a.npz" not in told


def test_the_search_is_shown_the_held_out_inputs_that_fail() -> None:
    found: FindResult = result_of("find", inputs=FILE, command="probe find m.onnx --inputs a.npz --held-out dog.npz")
    assert found.held_out is not None
    bad = replace(found.held_out, evaluated=replace(found.held_out.evaluated, passed=False))
    step = next(one for one in find_steps.next_steps(replace(found, held_out=bad)) if "Let the search see" in one.why)
    told = " ".join(step.words)
    assert "--inputs a.npz --inputs dog.npz" in told
    assert "--held-out" not in told
    assert "HELD_OUT" not in told


def test_an_answer_in_a_fused_engine_whose_export_fails_is_searched_as_written() -> None:
    found: FindResult = result_of("find", passes="safe", fusion="safe", interior="fp32")
    assert found.exported is not None
    failed = replace(found, exported=replace(found.exported, passed=False))
    step = next(one for one in find_steps.next_steps(failed) if "as it was written" in one.why)
    assert not {"--passes", "--fusion", "--interior"} & set(step.words)
    assert "as it was written" not in "".join(one.why for one in find_steps.next_steps(found))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, "passes with 1 tensor in FP32"),
        ({"granularity": "block"}, "passes with 1 block of 1 tensor in FP32"),
        ({"status": "budget", "reason": "the best passing set keeps 1 of 93 units"}, "keeps 1 of 93 units (1 tensor)"),
    ],
)
def test_what_was_decided_over_is_said(changed: dict[str, Any], said: str) -> None:
    assert said in find_page.find_sentence(result_of("find", **changed))


def test_a_block_of_many_tensors_is_needed_as_one() -> None:
    found: FindResult = result_of("find", granularity="block")
    (kept,) = found.keep
    two = replace(found, keep=(kept, replace(kept, tensor="other")))
    assert "1 block of 2 tensors in FP32" in find_page.find_sentence(two)
    assert "; it is needed;" in find_page.find_sentence(two)


def test_an_export_that_was_not_written_is_not_called_exported() -> None:
    found: FindResult = result_of("find")
    assert found.exported is not None
    kept_nowhere = replace(found.exported, path="")
    assert "an export, not written, is proved" in find_page.find_sentence(replace(found, exported=kept_nowhere))
    failed = replace(found, exported=replace(kept_nowhere, passed=False))
    assert "NOT PROVED" in find_page.find_sentence(failed)


def test_a_run_is_repeated_with_its_shapes_and_its_keep_list() -> None:
    line = f"probe run m.onnx {TYPED} --keep @names.txt"
    many = tuple(f"t{i}" for i in range(300))
    result = result_of("run", inputs=SEEDED, command=line, keep=many)
    for step in run_steps.next_steps(result):
        if "FILE.npz" in step.words:
            assert "--seed" not in step.words
            assert "--input-shapes" not in step.words
        elif step.words:
            assert "--seed 3 --input-shapes x:[1,3,8,8]" in " ".join(step.words)
        assert not step.words or "--keep @names.txt" in " ".join(step.words)
        assert "t299" not in " ".join(step.words)


def test_a_failed_run_leads_to_the_search_that_writes_a_model() -> None:
    line = f"probe run m.onnx {TYPED} --golden fp64 --preset torch --keep p"
    golden = GoldenInfo("fp64", FP64)
    result = result_of("run", model="m.onnx", command=line, golden=golden, acceptance=TORCH, inputs=SEEDED)
    (step,) = [one for one in run_steps.next_steps(result) if one.words[:2] == ("probe", "find")]
    assert " ".join(step.words) == (
        "probe find m.onnx --precision fp16 --seed 3 --input-shapes x:[1,3,8,8] --val-range x:[0,1] --golden fp64 "
        "--preset torch --keep p -o mixed.onnx"
    )


@pytest.mark.parametrize(
    "changed",
    [
        {"verdict": "passed"},
        {"verdict": "warned"},
        {"precision": "fp32"},
        {"strict_layers": True},
        {"findings": (RunFinding("differs_in_fp32", "it differs in FP32", fatal=True),)},
    ],
    ids=str,
)
def test_what_no_tensor_in_fp32_can_cure_is_not_searched(changed: dict[str, Any]) -> None:
    assert "probe find" not in words(run_steps.next_steps(result_of("run", **changed)))


def test_a_saved_engine_is_only_run_as_it_was_built() -> None:
    """Another precision or interior is compiled, and a search takes a model: from the ONNX file, not from the engine."""
    steps = run_steps.next_steps(result_of("run", model="engine.probe", command="probe run engine.probe"))
    models = [
        (step.words[1], step.words[2], "bf16" in step.words or "--interior" in step.words)
        for step in steps
        if step.words
    ]
    assert models == [
        ("run", "engine.probe", False), ("find", "MODEL.onnx", False), ("run", "MODEL.onnx", True), ("run", "MODEL.onnx", True),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("made", "why"),
    [("qdq kept", "a model with Q/DQ nodes has no default one"), ("as_is", "these outputs have no default one")],
)
def test_a_verdict_without_limits_says_why_there_are_none(made: str, why: str) -> None:
    golden = GoldenInfo("ort", replace(ORT, golden=made))
    unjudged = result_of("run", verdict="not_judged", acceptance=(), golden=golden)
    assert why in run_steps.next_steps(unjudged)[0].why
    assert dict(run_facts(unjudged))["golden"].endswith("Q/DQ nodes kept") == (made == "qdq kept")


def test_a_golden_without_numbers_needs_no_limits_but_a_look() -> None:
    result = result_of("run", verdict="not_judged", reasons=())
    output = next(t for t in result.tensors if t.role == "output")
    blank = replace(
        output,
        verdict="not_judged",
        metrics=replace(output.metrics, compared=0, nan_golden=output.metrics.count, sentinels=0),
    )
    first, *_ = run_steps.next_steps(replace(result, tensors=(blank,)))
    assert (
        first.words[:2] == ("probe", "inspect" if result.golden.kind == "recording" else "dump")
        and "--accept" not in first.words
    )
    assert "no number" in first.why


def test_what_depends_on_the_graph_names_what_rewrote_it() -> None:
    written = AsWritten("not_judged", differs=True, changes=11, by=("batch_norm",), range_rel=0.0157)
    result = result_of("run", as_written=written, findings=(), cure=None, other_interior=None)
    (step,) = [one for one in run_steps.next_steps(result) if "--passes" in one.words]
    assert step.why.endswith("rewrites the graph (batch norm): run as it is written, the verdict is not judged.")


@pytest.mark.parametrize("keep", ["@names.txt", ""])
def test_a_conversion_is_repeated_with_what_it_kept(keep: str) -> None:
    line = f"probe convert m.onnx -o out.onnx --keep {keep}" if keep else ""
    names = tuple(f"t{i}" for i in range(300 if keep else 3))
    result = result_of("convert", verdict="failed", keep=names, command=line, golden=FP64, acceptance=TORCH)
    told = words(convert_page.next_steps(result))
    assert ("--keep @names.txt" if keep else "--keep ^(t0|t1|t2)$") in told
    assert "--golden fp64 --preset torch" in told


def test_what_ran_and_was_not_judged_lacks_an_acceptance_and_what_did_not_run_a_proof() -> None:
    ran = result_of("convert", verdict="not_judged", reasons=("logits: no acceptance applies",))
    assert "--accept range_rel<=0.01" in words(convert_page.next_steps(ran))
    unproved = replace(ran, proofs=())
    steps: Callable[[Any], list[Step]] = convert_page.next_steps
    assert "--accept" not in words(steps(unproved))
    assert steps(unproved)[0].why.startswith("Prove it")


def test_a_search_says_what_its_export_and_its_golden_are_beside_it() -> None:
    """Nodes without a low type in the model's opset make the export another network than the one that was searched."""
    found: FindResult = result_of("find", golden=replace(ORT, golden="upcast from float16"))
    assert found.exported is not None
    told = "13 nodes are FP32: Conv has no bfloat16 in opset 21"
    conversion = replace(found.exported.conversion, notes=(told, *found.notes))
    facts = find_facts(replace(found, exported=replace(found.exported, conversion=conversion)))
    assert ("export", told) in facts
    assert [text for label, text in facts if label == "export"] == [told]
    assert ("golden", "made now by ort, upcast from float16") in facts


def test_one_cause_of_many_tensors_is_told_once() -> None:
    found: FindResult = result_of("find")
    (kept,) = found.keep
    rows = tuple(replace(kept, tensor=name, unit=name, why="a overflows: 90000 > 65504") for name in ("a", "b", "c"))
    page = " ".join(render(replace(found, keep=rows)).split())
    assert page.count("a overflows: 90000 > 65504") == 1
    assert "- a overflows: 90000 > 65504 the same for b, c" in page
    other = " ".join(render(replace(found, keep=rows[1:])).split())
    assert "- b: a overflows: 90000 > 65504 the same for c" in other


def on_a_gpu(result: Any) -> Any:
    """The same result, of a GPU."""
    told = {"device": "cuda: NVIDIA H200, FP16 storage, FP32 accumulation"}
    changed: dict[str, Any] = told if hasattr(result, "device") else {}
    if hasattr(result, "run"):
        changed = {"run": replace(result.run, **told)}
    if hasattr(result, "sides"):
        changed = {"sides": tuple(replace(side, **told) for side in result.sides)}
    return replace(result, **changed)


COMPUTE = (
    ("run",), ("find",), ("tactics", "record"), ("tactics", "replay"), ("tactics", "table"), ("tactics", "bisect"),
)  # fmt: skip


@pytest.mark.parametrize(
    "name", ["run", "find", "diff-results", "builds", *(one for one in examples() if one.startswith("tactics-"))]
)
def test_what_ran_on_a_gpu_is_followed_up_there(name: str) -> None:
    found = {}
    for device, result in (("cpu", result_of(name)), ("cuda", on_a_gpu(result_of(name)))):
        pages = (render(result), markdown(result))
        lines = [line.strip() for page in pages for line in page.replace("\\\n", " ").splitlines()]
        of = [line.split() for line in lines if line.startswith("probe ")]
        found[device] = [line for line in of if any(tuple(line[1 : 1 + len(one)]) == one for one in COMPUTE)]
    assert not any("--device" in line for line in found["cpu"])
    assert len(found["cuda"]) == len(found["cpu"])
    for line in found["cuda"]:
        assert "MODEL" in line or ["--device", "cuda"] in [line[i : i + 2] for i in range(len(line))], line
