"""ONNX's own Attention and RotaryEmbedding on kernels, against the CPU device."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from probe import ir
from probe.engine.build import compile_model
from probe.engine.device.cuda.device import CudaDevice
from probe.engine.device.cuda.ops.attention import attention, attention_op
from probe.engine.device.cuda.ops.attention.attention_mma import Variant
from probe.engine.device.cuda.ops.attention.attention_simt import Warps
from probe.engine.device.cuda.ops.attention.attention_wgmma import Groups
from probe.engine.device.cuda.ops.call import Call
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors.formats import BF16, F16, F32
from probe.engine.device.cuda.tensors.tensor import host_tensor
from probe.model import load
from probe.precision import PRECISIONS
from tests.engine.cuda.attention_op_cases import ATTENTION, LONG, ROTARY
from tests.engine.cuda.cases import Case
from tests.engine.cuda.compared import check, table
from tests.engine.cuda.test_attention import near, tapped

ON_HOST = """
Attention_groups Attention_groups_in_rows Attention_step_in_rows Attention_floats Attention_scores_2 Attention_scores_3 Attention_few_queries
Attention_lengths_of_long_steps Attention_window RotaryEmbedding_rows RotaryEmbedding_a_part_of_neighbours RotaryEmbedding_odd RotaryEmbedding_without_places
""".split()


def placed(found: Sequence[tuple[Any, ...]], on_host: Container[int]) -> list[Any]:
    """All on a GPU; on the host, where compiling takes longest, some."""
    rows = [pytest.param("gpu", *one, marks=pytest.mark.gpu) for one in found]
    return rows + [pytest.param("host", *one) for at, one in enumerate(found) if at in on_host]


def rows(cases: Sequence[Case]) -> list[Any]:
    """As ``table``, fewer of them on the host: compiling a kernel takes half a second there."""
    return [one for one in table(*cases) if one.values[0] == "gpu" or str(one.values[1]) in ON_HOST]


@pytest.mark.parametrize(("place", "case", "precision"), rows(ATTENTION))
def test_attention_computes_what_the_cpu_does(request, tmp_path, place, case, precision):
    check(request.getfixturevalue(place), case, precision, tmp_path)


@pytest.mark.parametrize(("place", "case", "precision"), rows(ROTARY))
def test_heads_are_turned_as_the_cpu_does(request, tmp_path, place, case, precision):
    check(request.getfixturevalue(place), case, precision, tmp_path)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp16", "fp32", "bf16"])
@pytest.mark.parametrize("case", LONG, ids=str)
def test_long_rows(gpu, tmp_path, case, precision):
    check(gpu, case, precision, tmp_path)


BLOCK = """
<ir_version: 10, opset_import: ["" : 23]>
block (float[2,t,64] x, int64[2,t] places, float[2,2,p,16] past_k, float[2,2,p,16] past_v) => (float[2,t,64] y, float[2,2,a,16] k_all, float[2,2,a,16] v_all)
{
    n = RMSNormalization <axis = -1> (x, gain)
    q = MatMul (n, w_q)
    k = MatMul (n, w_k)
    v = MatMul (n, w_v)
    q_turned = RotaryEmbedding <num_heads = 4> (q, cosines, sines, places)
    k_turned = RotaryEmbedding <num_heads = 2> (k, cosines, sines, places)
    attended, k_all, v_all = Attention <q_num_heads = 4, kv_num_heads = 2, is_causal = 1> (q_turned, k_turned, v, , past_k, past_v)
    o = MatMul (attended, w_o)
    r = Add (x, o)
    m = RMSNormalization <axis = -1> (r, gain_2)
    g = MatMul (m, w_g)
    sigmoid = Sigmoid (g)
    silu = Mul (g, sigmoid)
    u = MatMul (m, w_u)
    gated = Mul (silu, u)
    d = MatMul (gated, w_d)
    y = Add (r, d)
}
"""


def block(folder, queries: int, past: int) -> tuple[Path, dict[str, np.ndarray]]:
    """A decoder's block, its queries behind a past."""
    random = np.random.default_rng(11)
    made = onnx.parser.parse_model(BLOCK)
    angles = np.outer(np.arange(256), 100.0 ** (-np.arange(8) / 8)).astype(np.float32)
    stored = {"gain": np.ones(64), "gain_2": np.ones(64), "cosines": np.cos(angles), "sines": np.sin(angles)}
    for name, shape in (
        ("q", (64, 64)),
        ("k", (64, 32)),
        ("v", (64, 32)),
        ("o", (64, 64)),
        ("g", (64, 96)),
        ("u", (64, 96)),
        ("d", (96, 64)),
    ):
        stored[f"w_{name}"] = random.standard_normal(shape) * shape[0] ** -0.5
    made.graph.initializer.extend(numpy_helper.from_array(one.astype(np.float32), name) for name, one in stored.items())
    onnx.save(made, folder / "block.onnx")
    drawn = {"x": (2, queries, 64), "past_k": (2, 2, past, 16), "past_v": (2, 2, past, 16)}
    feeds: dict[str, np.ndarray] = {
        name: random.standard_normal(shape, dtype=np.float32) for name, shape in drawn.items()
    }
    return folder / "block.onnx", {**feeds, "places": np.tile(np.arange(past, past + queries), (2, 1))}


BLOCKS = [(precision, *sizes) for sizes in ((18, 7), (1, 200)) for precision in ("fp32", "tf32", "fp16", "bf16")]


@pytest.mark.parametrize(("place", "precision", "queries", "past"), placed(BLOCKS, (2, 4)))
def test_a_decoder_block_runs_on_kernels(request, tmp_path, place, precision, queries, past):
    """Nothing falls back, nothing depends on who looks, and the numbers are the CPU device's."""
    backend = request.getfixturevalue(place)
    path, feeds = block(tmp_path, queries, past)
    engine = compile_model(load(path), precision=precision)
    golden = tapped(engine, feeds)
    engine.device = device = CudaDevice(engine.network, engine.top_layers, engine.rounding, backend)
    outputs, taps = engine(feeds), tapped(engine, feeds)
    assert not device.fallen and device.queue.launches["rotary"], device.fallen
    assert all(np.array_equal(taps[name], one) for name, one in outputs.items()), "looking changes bits"
    assert taps.keys() == golden.keys()
    for name, one in golden.items():
        near(taps[name], one, 8 * PRECISIONS[precision].roundoff if precision != "fp32" else 1e-5)


@pytest.mark.parametrize(
    "keep", [["q_turned", "k_all"], ["q_turned", "attended"], ["Attention(attended)", "q_turned"]], ids=str
)
def test_what_is_kept_is_not_rounded(backend, tmp_path, keep):
    """Then attention is computed in FP32, of what is stored low and what is not."""
    path, feeds = block(tmp_path, 18, 7)
    engine = compile_model(load(path), precision="fp16", keep=keep)
    golden = tapped(engine, feeds)
    engine.device = device = CudaDevice(engine.network, engine.top_layers, engine.rounding, backend)
    taps = tapped(engine, feeds)
    assert not device.fallen
    assert not np.array_equal(taps["q_turned"], taps["q_turned"].astype(np.float16))
    for name, one in golden.items():
        near(taps[name], one, 8 * PRECISIONS["fp16"].roundoff)


SKIPPING = (
    (F16, Variant(1, 1, 32, 2, 0)), (F16, Variant(1, 1, 32, 2, 0, 255, 2)), (BF16, Variant(2, 2, 32, 3, 0)), (F32, Warps(2)), (F16, Groups(2, 64)), (BF16, Groups(2, 64, holds=True)),
)  # fmt: skip


@pytest.mark.parametrize(("place", "stored", "variant"), placed(SKIPPING, (0, 3)))
def test_keys_that_no_query_of_a_block_looks_at_are_not_read(request, monkeypatch, place, stored, variant):
    """And no bit depends on it, but that 0 times an Inf among their values is not NaN."""
    backend = request.getfixturevalue(place)
    queue, random = Queue(backend, 23), np.random.default_rng(2)
    q, k, v = (random.standard_normal((1, 2, n, 64), dtype=np.float32) for n in (70, 260, 260))
    past = [random.standard_normal((1, 1, 30, 64), dtype=np.float32) for _ in range(2)]
    k, v = k[:, :1], v[:, :1]
    made = ir.node("Attention", [ir.Value(name=f"x{at}") for at in range(6)], {"is_causal": 1})

    def attended(value: np.ndarray, *, skips: bool) -> np.ndarray:
        def attend(queue, what, store, order=None):
            assert what.seen == 31
            return attention.attend(queue, what if skips else replace(what, seen=0), store, order, variant)

        monkeypatch.setattr(attention_op, "attend", attend)
        x = [queue.convert(host_tensor(one), stored) for one in (q, k, value, *past)]
        (found, *_) = attention_op.attention(queue, Call(made, [*x[:3], None, *x[3:]], [stored], 23))
        assert found is not None
        return found.array(backend)

    assert np.array_equal(attended(v, skips=True), attended(v, skips=False))
    v[..., -1, :] = np.inf
    assert np.isfinite(attended(v, skips=True)).all() and np.isnan(attended(v, skips=False)).all()
