"""Costs against networks counted by hand, and Casts against what conversion really adds."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from probe.culprits.costs import Costs
from probe.engine.engine import Engine
from probe.model.load import load
from probe.model.mixed import convert_mixed
from tests.culprits.spaces import engine_of, members_of, parsed, space_of

# x [4, 8] -> a = x w [4, 8] -> b = a + bias -> c = sigmoid(b) -> y = c v [4, 2]; c is read a second time, by z = exp(c)
BODY = "a = MatMul(x, w) b = Add(a, bias) c = Sigmoid(b) y = MatMul(c, v) z = Exp(c)"
SIGNATURE = "float[4,8] x -> float[4,2] y, float[4,8] z"
SIZES = {"w": 64, "v": 16, "bias": 8, "x": 32, "a": 32, "b": 32, "c": 32, "y": 8, "z": 32}
FLOPS = {"a": 2 * 4 * 8 * 8, "b": 32, "c": 3 * 32, "y": 2 * 4 * 2 * 8, "z": 32}
LAUNCH, BANDWIDTH = 2e-6, 500e9


def weights() -> str:
    def listed(count: int) -> str:
        return ", ".join(["1.1"] * count)

    return f"float[8,8] w = {{{listed(64)}}}, float[8,2] v = {{{listed(16)}}}, float[8] bias = {{{listed(8)}}}"


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return engine_of(parsed(BODY, SIGNATURE, weights()), tmp_path)


@pytest.fixture
def costs(engine: Engine) -> Costs:
    return Costs(engine, {}, "fp16")


# kept -> nodes in FP32, tensors stored wider, Casts as (tensor, direction)
TENSORS = {
    # b and its reader run in FP32: they read a, and make c
    "b": ("bc", "b", ["a up", "c down"]),
    "a": ("ab", "a", ["x up", "b down"]),
    # both readers of c; b is read, y and z are graph outputs, stored low and cast up as in all-low
    "c": ("cyz", "c", ["b up", "y down", "z down"]),
    "b c": ("bcyz", "bc", ["a up", "y down", "z down"]),
    "a c": ("abcyz", "ac", ["x up", "b down", "b up", "y down", "z down"]),
    "w": ("a", "w", ["x up", "a down"]),
    "x w a": ("ab", "xwa", ["b down"]),
    "y": ("y", "y", ["c up"]),
    "x w bias a b c v y z": ("abcyz", "x w bias a b c v y z", []),
    "": ("", "", []),
}


def names_of(text: str) -> list[str]:
    return text.split() if " " in text or text in SIZES else list(text)


@pytest.mark.parametrize("kept", TENSORS)
def test_a_set_of_tensors(costs: Costs, kept: str) -> None:
    nodes, wide, casts = TENSORS[kept]
    cost = costs.of(kept.split())
    assert cost.flops == sum(FLOPS.values())
    assert cost.flops_fp32 == sum(FLOPS[name] for name in nodes)
    assert cost.bytes_fp32 == 2 * sum(SIZES[name] for name in names_of(wide))
    assert cost.casts == len(casts)
    assert cost.cast_bytes == 6 * sum(SIZES[cast.split()[0]] for cast in casts)


# kept layers (by what they make) -> Casts
LAYERS = {
    "b": ["a up", "b down"],
    "c": ["b up", "c down"],  # for both readers
    "b c": ["a up", "c down"],
    "c y": ["b up", "c down"],
    "c y z": ["b up"],
    "a b c y z": ["x up"],
}


@pytest.mark.parametrize("kept", LAYERS)
def test_a_set_of_layers(engine: Engine, costs: Costs, kept: str) -> None:
    made = [layer for name in kept.split() if (layer := engine.layer_of(name)) is not None]
    cost = costs.of([layer.name for layer in made], by_layer=True)
    assert cost.flops_fp32 == sum(FLOPS[name] for name in kept.split())
    assert cost.bytes_fp32 == 2 * sum(SIZES[name] for name in kept.split())
    assert cost.casts == len(LAYERS[kept])
    assert cost.cast_bytes == 6 * sum(SIZES[cast.split()[0]] for cast in LAYERS[kept])


def test_latency_is_launches_and_the_slower_of_work_and_traffic(costs: Costs) -> None:
    """Nothing here is bound by operations. All low: five nodes; Casts of x, y and z."""
    moved = [("x", "w", "a"), ("a", "bias", "b"), ("b", "c"), ("c", "v", "y"), ("c", "z")]

    def seconds(width: dict[int, int], casts: list[str]) -> float:
        nodes = sum(
            LAUNCH + width.get(at, 2) * sum(SIZES[name] for name in one) / BANDWIDTH for at, one in enumerate(moved)
        )
        return nodes + sum(LAUNCH + 6 * SIZES[name] / BANDWIDTH for name in casts)

    low = seconds({}, ["x", "y", "z"])
    kept = seconds({1: 4, 2: 4}, ["x", "y", "z", "a", "c"])
    cost = costs.of(["b"])
    assert cost.latency == pytest.approx(kept / low, rel=1e-12)
    assert cost.latency_fp32 == pytest.approx(seconds(dict.fromkeys(range(5), 4), []) / low, rel=1e-12)
    assert costs.of([]).latency == 1.0
    assert costs.of(SIZES).latency == pytest.approx(cost.latency_fp32, rel=1e-12)
    assert costs.unit(["b"], "latency") == pytest.approx(1e6 * (kept - low), rel=1e-9)
    assert costs.unit(["b"], "bytes") == 64
    assert costs.unit(["b"]) == 1.0


def test_products_are_bound_by_the_rate(tmp_path: Path) -> None:
    side = 4096
    model = parsed("y = MatMul(x, z)", f"float[{side},{side}] x, float[{side},{side}] z -> float[{side},{side}] y")
    cost = Costs(engine_of(model, tmp_path), {}, "fp16").of(["x", "z", "y"])
    work, tensor = 2 * side**3, side * side
    low = LAUNCH + work / 40e12 + 3 * (LAUNCH + 6 * tensor / BANDWIDTH)
    assert cost.latency == pytest.approx((LAUNCH + work / 20e12) / low)


def test_views_are_wide_with_what_they_show_and_take_nothing(tmp_path: Path) -> None:
    body = "a = Exp(x) v = Reshape(a, s) t = Transpose(v) y = Sigmoid(t) z = Log(v)"
    model = parsed(body, "float[2,3] x -> float[2,3] y, float[3,2] z", "int64[2] s = {3, 2}")
    cost = Costs(engine_of(model, tmp_path), {}, "fp16").of(["a"])
    assert cost.bytes_fp32 == 2 * (6 + 6)  # a and its transposition
    assert cost.casts == 3  # x up, y and z down
    assert cost.flops_fp32 == 6 + 3 * 6 + 6


def test_what_is_joined_with_a_kept_tensor_is_cast_for_it(tmp_path: Path) -> None:
    body = "a = Exp(x) b = Sqrt(x) v = Concat<axis=0>(a, b) y = Sigmoid(v)"
    cost = Costs(engine_of(parsed(body, "float[4] x -> float[8] y"), tmp_path), {}, "fp16").of(["a"])
    assert cost.casts == 3  # x up, b up, y down
    assert cost.bytes_fp32 == 2 * (4 + 8)


def test_shapes_that_are_not_known_are_said_so(tmp_path: Path) -> None:
    model = parsed("a = Exp(x) y = Sqrt(a)", "float[n] x -> float[n] y")
    engine = engine_of(model, tmp_path)
    cost = Costs(engine, {}, "fp16").of(["a"])
    assert (cost.flops, cost.flops_fp32, cost.bytes_fp32, cost.cast_bytes, cost.latency) == (None,) * 5
    assert cost.casts == 2
    assert Costs(engine, {}, "fp16").unit(["a"], "bytes") == 1.0
    seen = Costs(engine, {"x": (7,), "a": (7,), "y": (7,)}, "fp16")
    assert (seen.of(["a"]).flops, seen.of(["a"]).bytes_fp32, seen.unit(["a"], "bytes")) == (14, 14, 14.0)


def test_tf32_takes_no_more_bytes(engine: Engine) -> None:
    costs = Costs(engine, {}, "tf32")
    assert costs.of(["c"]).bytes_fp32 == 0
    assert costs.unit(["c"], "bytes") == 1.0


@pytest.mark.parametrize("objective", ["latency", "bytes"])
def test_a_unit_is_never_free(models: Path, objective: str) -> None:
    """Else any error at all would make it the first suspect."""
    engine = engine_of(models / "models" / "mnist.onnx")
    space = space_of(engine, objective=objective)  # pyright: ignore[reportArgumentType]
    assert all(unit.cost > 0 for unit in space.units)
    assert len({unit.cost for unit in space.units}) > 1


@pytest.mark.parametrize("by_layer", [False, True])
def test_more_kept_is_more_work_and_more_bytes(models: Path, by_layer: bool) -> None:
    engine = engine_of(models / "models" / "squeezenet_fp16.onnx")
    costs = Costs(engine, {}, "fp16")
    members = sorted(members_of(space_of(engine, "layer" if by_layer else "tensor")))
    order = random.Random(1).sample(members, len(members))
    before = costs.of([], by_layer=by_layer)
    for count in range(0, len(order) + 1, 7):
        now = costs.of(order[:count], by_layer=by_layer)
        assert now.flops_fp32 is not None
        assert before.flops_fp32 is not None
        assert now.flops_fp32 >= before.flops_fp32
        assert (now.bytes_fp32 or 0) >= (before.bytes_fp32 or 0)
        before = now
    whole = costs.of(members, by_layer=by_layer)
    assert whole.flops_fp32 == whole.flops


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("models", "mnist"),
        ("models", "squeezenet_fp16"),
        ("models", "dtln_1"),
        ("models", "osf_landmarks"),
        ("exports", "gpt2_mini"),
    ],
)
def test_casts_are_those_that_conversion_adds(request: pytest.FixtureRequest, folder: str, name: str) -> None:
    """A random few tensors kept: Casts of the converted model beyond those of the all-low one."""
    path: Path = request.getfixturevalue(folder) / "models" / f"{name}.onnx"
    engine, model = engine_of(path), load(path)
    costs = Costs(engine, {}, "fp16")
    made = sorted(
        {value.name or "" for layer in engine.layers for value in layer.tensors} & members_of(space_of(engine))
    )
    rng = random.Random(name)
    edges = set(convert_mixed(model, "fp16").casts)
    for _ in range(4):
        kept = rng.sample(made, 3)
        casts = set(convert_mixed(model, "fp16", keep_tensors=kept).casts)
        assert costs.of(kept).casts == len(casts - edges), (kept, casts - edges)


# body, signature -> kept, Casts
SMALL = {
    "a Cast in the graph makes what is stored": (
        "f = Cast<to=1>(n) y = Mul(x, f)", "float[4] x, int64[4] n -> float[4] y", "f", 2),  # x up, y down
    "and reads what is stored": ("a = Exp(x) c = Cast<to=1>(a) y = Sqrt(c)", "float[4] x -> float[4] y", "a", 1),  # x up
    "an output's Cast serves readers, too": ("a = Exp(x) y = Sqrt(a)", "float[4] x -> float[4] a, float[4] y", "y", 0),
    "an input is joined with what is wide as it comes": (
        "a = Sqrt(z) v = Concat<axis=0>(a, x) y = Exp(v)", "float[4] x, float[4] z -> float[8] y", "a", 2),  # z up, y down
    "an input that is kept needs none": ("y = Exp(x)", "float[4] x -> float[4] y", "x", 1),  # y down
}  # fmt: skip


@pytest.mark.parametrize("case", SMALL)
def test_casts_at_the_edges(tmp_path: Path, case: str) -> None:
    body, signature, kept, casts = SMALL[case]
    engine = engine_of(parsed(body, signature), tmp_path)
    assert Costs(engine, {}, "fp16").of([kept]).casts == casts
    model = load(tmp_path / "model.onnx")
    edges = set(convert_mixed(model, "fp16").casts)
    assert len(set(convert_mixed(model, "fp16", keep_tensors=[kept]).casts) - edges) == casts


def test_an_input_that_is_not_rounded_saves_its_cast(tmp_path: Path) -> None:
    body, signature, kept, _ = SMALL["an input is joined with what is wide as it comes"]
    costs = Costs(engine_of(parsed(body, signature), tmp_path), {}, "fp16")
    moved = [(4, 4), (4, 4, 8), (8, 8)]  # elements that Sqrt, Concat and Exp move

    def seconds(width: int, casts: list[int]) -> float:
        nodes = sum(LAUNCH + width * sum(sizes) / BANDWIDTH for sizes in moved)
        return nodes + sum(LAUNCH + 6 * size / BANDWIDTH for size in casts)

    wide, low = seconds(4, [4, 4, 8, 8]), seconds(2, [4, 4, 8])  # z down and up, y down and up; x and z down, y up
    assert costs.of([kept]).latency == pytest.approx(wide / low, rel=1e-12)
