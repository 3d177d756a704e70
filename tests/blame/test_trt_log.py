"""TensorRT's autotuning tables, out of logs as it writes them and as they get damaged."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from probe.blame.trt_log import parse_trt_log, read_trt_log
from probe.errors import InputError

KEYS = ("0x1814870c44ff0f8574df6e3dda04cbd7", "0xe5c222cd6b9e29cbe66c8bec07cb6a07")
HEAD = "tactic_id, cost(in ms), cost/fastest_cost, prediction_correlation, kernel_name, tactic_hash, tunable_parameter"

GOOD = f"""[07/21/2026-10:11:12] [I] [TRT] Global timing cache in use.
[07/21/2026-10:11:12] [V] [TRT] Autotuning op matMul1(key: {KEYS[0]}):
Sorted table of all evaluated tactics:
{HEAD}
   3, 0.0112640, 1.00000, 0.50673, sm80_xmma_gemm_f32f32_tf32f32_f32_nn_n_tilesize32x32x64_stage3_warpsize2x1x2_tensor16x8x8, 0x665ded9abbf88,
   5, 0.0118784, 1.05455, 0.51157, sm80_xmma_gemm_f32f32_tf32f32_f32_nn_n_tilesize64x32x64_stage4_warpsize2x1x2_tensor16x8x8, 0x393e4ef8ad243,
   6, 0.0123904, 1.10000, 0.50600, sm80_xmma_gemm_f32f32_tf32f32_f32_nn_n_tilesize64x32x64_stage5_warpsize2x2x1_tensor16x8x8, 0x2ad3a182fb05c, 7
The selected tactic is (tactic hash, cost(in ms)):0x665ded9abbf88,  0.011264
Writing the best tactic (0x665ded9abbf88) to cache
[07/21/2026-10:11:13] [V] [TRT] Autotuning op /head/Gemm(+bias)(key: {KEYS[1]}): [ONNX Layer: /head/Gemm]
[07/21/2026-10:11:13] [V] [TRT] Sorted table of all evaluated tactics:
[07/21/2026-10:11:13] [V] [TRT] {HEAD}
[07/21/2026-10:11:13] [V] [TRT]    0, 0.02, 1.0, nan, kernel<a, b>, 0xABC, split_k=2
[07/21/2026-10:11:13] [V] [TRT] The selected tactic is (tactic hash, cost(in ms)):0xABC, 0.02
"""
BAD = GOOD.replace(":0x665ded9abbf88,  0.011264", ":0x393e4ef8ad243,  0.0118784").replace(
    "op /head/Gemm(+bias)", "op /head/Gemm_1"
)


def test_candidates_times_hashes_and_the_choice_per_operator() -> None:
    (product, head), notes = parse_trt_log(GOOD.splitlines())
    assert (product.op, product.key, product.chosen, product.chosen_ms) == (
        "matMul1",
        KEYS[0],
        "0x665ded9abbf88",
        0.011264,
    )
    assert [(t.tactic_id, t.cost_ms, t.slowdown, t.tactic_hash) for t in product.tactics] == [
        (3, 0.011264, 1.0, "0x665ded9abbf88"), (5, 0.0118784, 1.05455, "0x393e4ef8ad243"), (6, 0.0123904, 1.1, "0x2ad3a182fb05c"),
    ]  # fmt: skip
    assert product.tactics[2].parameter == "7" and product.tactics[1].kernel.endswith(
        "_stage4_warpsize2x1x2_tensor16x8x8"
    )
    assert (head.op, head.layers) == ("/head/Gemm(+bias)", "[ONNX Layer: /head/Gemm]")
    (only,) = head.tactics
    assert (only.kernel, only.tactic_hash, only.correlation, only.parameter) == (
        "kernel<a, b>",
        "0xabc",
        None,
        "split_k=2",
    )
    assert product.taken == product.tactics[0] and notes == ()


def test_a_table_ends_with_its_choice() -> None:
    stray = "   9, 0.5, 1.0, 0.5, of_something_else, 0xffff,\n"
    text = GOOD.replace("Writing the best tactic", stray + "Writing the best tactic")
    assert parse_trt_log(text.splitlines()) == parse_trt_log(GOOD.splitlines())


def test_a_log_from_a_file_and_what_another_build_chose(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.log", tmp_path / "bad.log"
    good.write_text(GOOD)
    bad.write_text(BAD)
    alone = read_trt_log(good)
    assert alone and len(alone.ops) == 2 and not alone.differences
    result = read_trt_log(good, bad)
    assert not result and result.same == 0
    flip, left, new = result.differences
    assert (flip.op, flip.kind, flip.first, flip.second) == ("matMul1", "choice", "0x665ded9abbf88", "0x393e4ef8ad243")
    assert flip.cost_of_first == pytest.approx(0.0112640 / 0.0118784)
    assert "both were candidates" in flip.message and flip.first_kernel.endswith("stage3_warpsize2x1x2_tensor16x8x8")
    assert (left.op, left.kind, new.op, new.kind) == ("/head/Gemm(+bias)", "only_first", "/head/Gemm_1", "only_second")
    assert read_trt_log(good, good) and read_trt_log(good, good).same == 2


def test_the_same_choice_of_other_candidates(tmp_path: Path) -> None:
    good, fewer = tmp_path / "good.log", tmp_path / "fewer.log"
    good.write_text(GOOD)
    fewer.write_text("\n".join(line for line in GOOD.splitlines() if "0x2ad3a182fb05c" not in line))
    result = read_trt_log(good, fewer)
    assert result, "no choice differs"
    (one,) = result.differences
    assert one.kind == "candidates" and "out of 3 and 2 candidates" in one.message and result.same == 2


def test_a_tactic_that_was_no_candidate(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.log", tmp_path / "bad.log"
    good.write_text(GOOD)
    bad.write_text("\n".join(line for line in BAD.splitlines() if not line.startswith("   3,")))
    flip = read_trt_log(good, bad).differences[0]
    assert flip.cost_of_first is None and flip.message == "the first log's tactic was no candidate in the second"


ODD = [
    (GOOD[: GOOD.index("The selected tactic")], "matMul1 has no choice: the log ends before it"),
    (GOOD + GOOD, "matMul1 is autotuned more than once: the last time counts"),
    (GOOD.replace(":0x665ded9abbf88,  0.011264", ":0xdead, 0.01"), "matMul1: the tactic chosen, 0xdead, is not in its table"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "note"), ODD, ids=["cut", "twice", "foreign"])
def test_what_is_odd_is_said(text: str, note: str) -> None:
    ops, notes = parse_trt_log(text.splitlines())
    assert ops and note in notes


@pytest.mark.parametrize("text", ["", "nothing here\n" * 10, HEAD, "\x00\xff\xfe"])
def test_a_log_without_tables(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.log"
    path.write_text(text)
    with pytest.raises(InputError, match="no operator is autotuned in this log"):
        read_trt_log(path)


def test_a_log_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read the log"):
        read_trt_log(tmp_path / "none.log")


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_never_invents_a_choice(tmp_path: Path, data: st.DataObject) -> None:
    """Whatever bytes change: no crash, and no hash that the damaged text does not hold."""
    content = bytearray(GOOD.encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(1, 80))] = data.draw(st.binary(max_size=6))
    path = tmp_path / "a.log"
    path.write_bytes(content)
    try:
        result = read_trt_log(path)
    except InputError:
        return
    text = content.decode(errors="replace").lower()
    assert all(one.chosen in text and all(t.tactic_hash in text for t in one.tactics) for one in result.ops)
