"""Attention on sm_90a's tensor cores: against the CPU device, tapped and not; on the host with copies, barriers and products emulated."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from probe.engine.device.cuda.ops.attention import attention
from probe.engine.device.cuda.ops.attention.attention_wgmma import ARCH, Groups, Held
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors.formats import BF16, F16, F32, Format
from probe.engine.device.cuda.tensors.tensor import host_tensor
from probe.engine.rounding import Interior
from probe.precision import PRECISIONS
from tests.engine.cuda.attention_cases import CASES
from tests.engine.cuda.attention_problem import AnyVariant, Problem, run, shapes
from tests.engine.cuda.null_backend import NullBackend
from tests.engine.cuda.test_attention import engine_of, near, tapped
from tests.engine.cuda.test_wgmma import HopperOnHost

TWO, THREE, WIDE_TILES, HOLDING = Groups(2, 64), Groups(3, 64), Groups(2, 128), Groups(2, 64, holds=True)
ONE_SET, ONE_WIDE_SET = Groups(3, 64, sets=1), Groups(2, 128, sets=1)
GROUPS = (TWO, THREE, WIDE_TILES, HOLDING, ONE_SET, ONE_WIDE_SET)
TAKEN = [name for name, case in CASES.items() if max(case.sizes) <= 128]
# case, precision, interior, variant
ON_HOST = (
    ("bert", "bf16", "storage", THREE), ("vit", "fp16", "storage", TWO), ("rows without keys made zero", "fp16", "storage", TWO),
    ("long", "fp16", "storage", WIDE_TILES), ("where", "fp16", "fp32", HOLDING), ("rows without keys", "bf16", "fp32", ONE_SET),
    ("long", "tf32", "storage", TWO), ("keys scaled first", "tf32", "storage", HOLDING),
)  # fmt: skip


# case, precision, interior
HELD_ON_HOST = (
    ("bert", "bf16", "storage"), ("vit", "fp16", "storage"), ("rows without keys made zero", "fp16", "storage"), ("where", "fp16", "fp32"),
    ("bert", "tf32", "storage"), ("vit", "tf32", "storage"), ("rows without keys made zero", "tf32", "storage"), ("ragged", "tf32", "storage"),
)  # fmt: skip


@pytest.fixture(scope="session")
def hopper(request):
    if shutil.which("g++") is None:
        pytest.skip("no g++ to compile kernels for the host")
    return HopperOnHost(request.config.cache.mkdir("kernels-hopper"))


def check(backend, folder, monkeypatch, name: str, precision: str, interior: Interior, variant: Groups | Held) -> None:
    entry = "attention_held" if isinstance(variant, Held) else "attention_wgmma"
    engine, device, feeds = engine_of(folder, name, precision, backend, interior)
    monkeypatch.setattr(attention, "choose_groups", lambda *_, **__: variant)
    golden = tapped(engine, feeds)
    engine.device = device
    one, taps = engine(feeds), tapped(engine, feeds)
    assert not device.queue.apart and device.queue.launches[entry], device.queue.apart
    assert all(np.array_equal(taps[key], array, equal_nan=True) for key, array in one.items()), "looking changes bits"
    assert taps.keys() == golden.keys()
    for key, array in golden.items():
        near(taps[key], array, 3 * PRECISIONS[precision].roundoff)


def held(name: str) -> Held:
    return Held(-(-CASES[name].keys // 16) * 16)


@pytest.mark.parametrize(("name", "precision", "interior", "variant"), ON_HOST, ids=str)
def test_groups_compute_what_nodes_do(hopper, tmp_path, monkeypatch, name, precision, interior, variant):
    check(hopper, tmp_path, monkeypatch, name, precision, interior, variant)


@pytest.mark.parametrize(("name", "precision", "interior"), HELD_ON_HOST)
def test_held_scores_give_what_nodes_do(hopper, tmp_path, monkeypatch, name, precision, interior):
    check(hopper, tmp_path, monkeypatch, name, precision, interior, held(name))


@pytest.mark.parametrize("variant", [Held(48), TWO], ids=str)
def test_a_result_that_is_kept_is_stored_in_fp32(hopper, tmp_path, monkeypatch, variant):
    engine, device, feeds = engine_of(tmp_path, "even mask", "fp16", hopper)
    monkeypatch.setattr(attention, "choose_groups", lambda *_, **__: variant)
    assignment = engine.assignment.keeping(tensors=["y"])
    golden = engine.run(feeds, assignment)["y"]
    engine.device = device
    found = engine.run(feeds, assignment)["y"]
    assert not device.queue.apart, device.queue.apart
    near(found, golden, 2 * PRECISIONS["fp16"].roundoff)
    assert np.any(found != found.astype(np.float16))


@pytest.mark.gpu
@pytest.mark.parametrize("name", [name for name in TAKEN if max(CASES[name].sizes) <= 64 and CASES[name].keys <= 256])
def test_held_scores_give_what_nodes_do_on_a_gpu(gpu, tmp_path, monkeypatch, name):
    precisions: tuple[tuple[Interior, str], ...] = (
        ("storage", "fp16"), ("storage", "bf16"), ("fp32", "fp16"), ("storage", "tf32"),
    )  # fmt: skip
    for interior, precision in precisions:
        check(gpu, tmp_path, monkeypatch, name, precision, interior, held(name))


@pytest.mark.gpu
@pytest.mark.parametrize(("keys", "turns"), [(128, 1), (197, 1), (197, 2), (150, 2), (256, 2)])
def test_many_heads_with_held_scores(gpu, keys, turns):
    for mask, (stored, rounds) in enumerate(((F16, True), (BF16, True), (F16, False), (F32, False))):
        allowed = (1.5e-3 if rounds else 3e-4) * (8 if stored is BF16 else 2 if stored is F32 else 1)
        problem, held = (7, 12, keys, keys, 64, mask % 2), Held(-(-keys // 16) * 16, 1 if stored is F32 else turns)
        assert error_of(gpu, problem, stored, held, rounds=rounds) < allowed


@pytest.mark.parametrize(("stored", "held"), [(F32, Held(208)), (F16, Held(208, 2))], ids=str)
def test_many_keys_on_the_host(hopper, stored, held):
    assert error_of(hopper, (1, 2, 150, 197, 64, 1), stored, held, rounds=True) < (6e-4 if stored is F32 else 1.5e-3)


@pytest.mark.gpu
@pytest.mark.parametrize("name", TAKEN)
def test_groups_compute_what_nodes_do_on_a_gpu(gpu, tmp_path, monkeypatch, name):
    at = TAKEN.index(name)
    precisions = ("fp16", "bf16") if at % 2 else ("bf16", "fp16")
    interiors: tuple[Interior, ...] = ("storage", "fp32")
    for interior, precision in zip(interiors, precisions, strict=True):
        check(gpu, tmp_path, monkeypatch, name, precision, interior, GROUPS[at % len(GROUPS)])
    check(gpu, tmp_path, monkeypatch, name, "tf32", "storage", TWO)


def error_of(backend, problem: Problem, stored: Format, variant: AnyVariant, *, rounds: bool) -> float:
    """Of the whole result against FP64, over its norm. ``Held`` and ``Groups`` multiply FP32 as TF32."""
    queue, random = Queue(backend, 18), np.random.default_rng(1)
    x = [queue.convert(host_tensor(random.standard_normal(one, dtype=np.float32)), stored) for one in shapes(problem)]
    y, again = (
        run(
            queue, x, problem, variant, rounds=rounds, tf32=stored is F32 and isinstance(variant, (Held, Groups))
        ).array(backend)
        for _ in range(2)
    )
    assert np.array_equal(y, again)
    q, k, v, *mask = (one.array(backend).astype(np.float64) for one in x)
    scores = np.einsum("bqhe,bkhe->bhqk", q, k, optimize=True) * problem[4] ** -0.5 + (mask[0] if mask else 0.0)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    exact = np.einsum("bhqk,bkhe->bqhe", weights / weights.sum(-1, keepdims=True), v, optimize=True)
    return float(np.linalg.norm(y - exact) / np.linalg.norm(exact))


@pytest.mark.parametrize(
    ("problem", "groups"),
    [((8, 16, 2048, 2048, 128, 0), 3), ((4, 16, 1024, 1024, 128, 0), 2), ((1, 16, 4096, 4096, 128, 0), 2), ((8, 16, 4096, 4096, 128, 0), 3)],
)  # fmt: skip
def test_groups_by_rounds_of_blocks(problem, groups):
    """Three of heads of 128 where blocks of 192 queries do not leave more of the last round empty than they save."""
    backend = NullBackend()
    backend.arch = ARCH
    queue = Queue(backend, 18)
    for rounds in (True, False):
        run(queue, [queue.empty(one, F16) for one in shapes(problem)], problem, rounds=rounds)
    assert [launched.block for _, launched in backend.launched] == [128 * (groups + 1)] * 2


@pytest.mark.gpu
@pytest.mark.parametrize("variant", GROUPS, ids=str)
@pytest.mark.parametrize("size", [64, 128])
def test_long_rows(gpu, size, variant):
    """Several rounds of blocks, and more tiles than are under way; twice, to the bit."""
    for stored, rounds in ((F16, True), (BF16, False)):
        allowed = (1.5e-3 if rounds else 3e-4) * (1 if stored is F16 else 8)
        assert error_of(gpu, (2, 9, 700, 1000, size, int(rounds)), stored, variant, rounds=rounds) < allowed


@pytest.mark.gpu
@pytest.mark.parametrize(("size", "variant"), [(64, TWO), (64, HOLDING), (72, TWO), (128, TWO)], ids=str)
def test_long_rows_in_tf32(gpu, size, variant):
    for at, (heads, queries, keys) in enumerate(((67, 300, 140), (2, 130, 4000))):
        assert error_of(gpu, (2, heads, queries, keys, size, at), F32, variant, rounds=True) < 6e-4


@pytest.mark.parametrize(("rounds", "variant"), [(True, TWO), (False, THREE), (False, ONE_WIDE_SET)], ids=str)
def test_a_long_row_on_the_host(hopper, rounds, variant):
    assert error_of(hopper, (1, 1, 40, 600, 64, 1), F16, variant, rounds=rounds) < (1.5e-3 if rounds else 3e-4)


def test_a_long_row_of_tf32_on_the_host(hopper):
    assert error_of(hopper, (1, 1, 70, 333, 128, 1), F32, TWO, rounds=True) < 6e-4


@pytest.mark.parametrize(
    ("problem", "stored", "arch", "entry"),
    [
        ((4, 16, 1024, 1024, 64, 0), F16, ARCH, "attention_wgmma"), ((4, 16, 1024, 1024, 128, 0), BF16, ARCH, "attention_wgmma"),
        ((4, 16, 1024, 1024, 64, 0), F16, "sm_100", "attention"), ((4, 16, 1024, 1024, 136, 0), F16, ARCH, "attention"),
        ((8, 12, 128, 128, 64, 1), F16, ARCH, "attention_held"), ((16, 12, 197, 197, 64, 0), BF16, ARCH, "attention_held"),
        ((1, 12, 128, 128, 64, 1), F16, ARCH, "attention"), ((8, 12, 128, 128, 128, 0), F16, ARCH, "attention"),
        ((16, 12, 197, 197, 64, 0), "tf32", ARCH, "attention_held"), ((16, 12, 197, 197, 64, 0), "tf32", "sm_80", "attention"),
        ((4, 16, 1024, 1024, 64, 0), "tf32", ARCH, "attention_wgmma"), ((4, 16, 1024, 1024, 128, 1), "tf32", ARCH, "attention_wgmma"),
        ((16, 12, 300, 300, 64, 0), "tf32", ARCH, "attention_wgmma"), ((1, 12, 512, 512, 64, 1), "tf32", ARCH, "attention_wgmma"),
        ((1, 12, 300, 300, 64, 0), "tf32", ARCH, "attention"), ((16, 12, 128, 128, 128, 0), "tf32", ARCH, "attention"), ((16, 12, 197, 197, 72, 0), "tf32", ARCH, "attention_wgmma"),
        ((8, 12, 1, 128, 64, 1), F16, ARCH, "attention"), ((1, 32, 1, 1024, 128, 0), F16, ARCH, "attention"), ((8, 12, 128, 128, 64, 1), F32, "sm_80", "attention_simt_split"), ((16, 12, 197, 197, 64, 0), F32, "sm_80", "attention_simt"),
    ],
)  # fmt: skip
def test_who_takes_a_layer(problem, stored, arch, entry):
    backend = NullBackend()
    backend.arch = arch
    queue = Queue(backend, 18)
    tf32 = stored == "tf32"
    run(queue, [queue.empty(one, F32 if tf32 else stored) for one in shapes(problem)], problem, tf32=tf32)
    assert [source.entry for source, _ in backend.launched] == [entry]


@pytest.mark.parametrize(
    ("problem", "stored", "rounds", "turns"),
    [
        ((16, 12, 197, 197, 64, 0), F16, True, 2), ((8, 12, 256, 256, 64, 1), BF16, True, 2), ((1, 12, 256, 256, 64, 1), F16, True, 1),
        ((16, 12, 197, 197, 64, 1), F16, True, 1), ((16, 12, 197, 197, 64, 0), F16, False, 1), ((16, 12, 197, 197, 64, 0), F32, False, 1),
        ((32, 12, 128, 128, 64, 1), F16, True, 1), ((32, 12, 180, 180, 64, 0), F16, True, 1),
    ],
)  # fmt: skip
def test_queries_in_turns(problem, stored, rounds, turns):
    """Where blocks of 64 queries come in several rounds, and registers suffice."""
    backend = NullBackend()
    backend.arch = ARCH
    queue = Queue(backend, 18)
    x = [queue.empty(one, stored) for one in shapes(problem)]
    run(queue, x, problem, rounds=rounds, tf32=stored is F32)
    ((source, launched),) = backend.launched
    assert dict(source.defines)["TURNS"] == turns
    assert launched.grid[0] == problem[0] * problem[1] * -(-problem[2] // (64 * turns))
