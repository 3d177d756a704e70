"""The page of a saved engine: what is known is said, what is not is left out."""

from __future__ import annotations

from dataclasses import replace

from probe.report.terminal import render
from probe.results.build import SavedChoice, SavedEngine
from probe.results.example_build import example_build

RESULT = example_build("9f86d081" * 8, {})


def test_quiet_is_the_headline() -> None:
    assert render(RESULT, quiet=True) == "engine.probe: model.onnx in fp16, 36 layers, 4.3 MB\n"


def test_what_is_usual_takes_no_words() -> None:
    page = render(replace(RESULT, tactics={"exact": 27}, kept=(), tactic_file="", notes=(), fallbacks=0))
    assert "tactics     exact\n" in page
    assert not any(word in page for word in ("kept FP32", "fallbacks", "note"))


def test_lists_are_bounded_unless_all_is_asked_for() -> None:
    many = replace(RESULT, kept=tuple(f"tensor_{at}" for at in range(40)), fallbacks=2)
    assert "and 34 more (-v)" in " ".join(render(many).split())
    assert "tensor_39" in render(many, verbose=True) and "tensor_39" not in render(many)
    assert "2 layers without a kernel" in render(many)


def test_fp32_says_so() -> None:
    assert "all compute in FP32" in render(replace(RESULT, precision="fp32", low_layers=0))


def test_a_header_by_itself() -> None:
    header = SavedEngine(
        "0.1", "m.onnx", RESULT.fingerprint, "bf16", "cpu", "safe", "safe", "storage", SavedChoice("bf16", "exact"), {}, (), (), (), {}, (),
        False, (), (), 12, "", (),
    )  # fmt: skip
    assert render(header) == "the header of an engine: m.onnx in bf16, 12 layers, for cpu\n"
