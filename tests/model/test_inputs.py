"""Made-up inputs: the role of each input is recognised, its data fits the role, and every public model runs on it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probe.errors import InputError
from probe.model import load
from probe.model.inputs import make_inputs, parse_ranges, parse_shapes
from tests.model.builders import (
    BOOL,
    FLOAT,
    FLOAT16,
    INT64,
    STRING,
    graph,
    model,
    node,
    optional_input,
    save,
    sequence,
    value,
    weight,
)

INT32, UINT8, INT8, BFLOAT16 = (getattr(onnx.TensorProto, name) for name in ("INT32", "UINT8", "INT8", "BFLOAT16"))


def made(tmp_path: Path, proto: onnx.ModelProto, **options):
    feeds, lines = make_inputs(load(save(proto, tmp_path / "m.onnx")), **options)
    return feeds, {line.split(" ")[0]: line for line in lines}


def one(tmp_path: Path, name: str, dtype: int, shape, nodes=None, weights=(), others=(), **options):
    """The data and the explanation for one input of a small model; without ``nodes`` it goes through Identity."""
    nodes = nodes or [node("Identity", [name], ["y"])]
    proto = model(nodes, [value(name, shape, dtype), *others], [onnx.ValueInfoProto(name="y")], weights, opset=17)
    feeds, lines = made(tmp_path, proto, **options)
    return feeds[name], lines[name]


def table(rows: int, columns: int = 4) -> np.ndarray:
    return np.ones((rows, columns), np.float32)


# --- roles -----------------------------------------------------------------------------------------------------------

GATHER = node("Gather", ["w", "ids"], ["y"])


@pytest.mark.parametrize(
    ("nodes", "weights", "high", "because"),
    [
        ([GATHER], [weight("w", table(10))], 9, "Gather on w"),
        ([node("Cast", ["ids"], ["c"], to=INT64), node("Gather", ["w", "c"], ["y"])], [weight("w", table(7))], 6, "Gather on w"),
        (
            [
                node("Unsqueeze", ["ids", "axis"], ["u"]),
                node("Transpose", ["u"], ["t"], perm=[2, 1, 0]),
                node("Reshape", ["t", "flat"], ["r"]),
                node("Identity", ["r"], ["i"]),
                node("Squeeze", ["i"], ["s"]),
                node("Gather", ["w", "s"], ["y"]),
            ],
            [weight("w", table(5)), weight("axis", np.array([0])), weight("flat", np.array([-1]))],
            4,
            "Gather on w",
        ),
        # Several tables: ids must fit the smallest.
        ([GATHER, node("Gather", ["v", "ids"], ["z"])], [weight("w", table(10)), weight("v", table(3))], 2, "Gather on v"),
        # The axis counts, not the first extent.
        ([node("Gather", ["w", "ids"], ["y"], axis=1)], [weight("w", table(50, 6))], 5, "Gather on w"),
        # A table stored narrow is still a table.
        (
            [node("DequantizeLinear", ["q", "s"], ["w"]), GATHER],
            [weight("q", np.ones((12, 4), np.int8)), weight("s", np.float32(0.1))],
            11,
            "Gather on q",
        ),
        ([node("OneHot", ["ids", "depth", "on"], ["y"])], [weight("depth", np.int64(8)), weight("on", np.float32([0, 1]))], 7, "OneHot"),
        ([node("Equal", ["ids", "classes"], ["y"])], [weight("classes", np.arange(9).reshape(9, 1, 1))], 8, "compared with 9"),
    ],
)  # fmt: skip
def test_ids_stay_within_what_they_index(tmp_path, nodes, weights, high, because):
    data, line = one(tmp_path, "ids", INT64, ("batch", "seq"), nodes, weights, seed=3, shapes={"ids": (4, 64)})
    assert (data.min(), data.max()) == (0, high)  # 256 draws reach both ends of these small ranges
    assert data.dtype == np.int64 and because in line and f"0..{high}" in line


def test_ids_inside_a_function_and_a_loop_body_are_recognised(tmp_path):
    held = node("Constant", [], ["w"], value=onnx.numpy_helper.from_array(table(6)))
    opsets = [onnx.helper.make_opsetid("", 17)]
    embed = onnx.helper.make_function("here", "Embed", ["i"], ["o"], [held, node("Gather", ["w", "i"], ["o"])], opsets)
    body = graph(
        [
            node("Gather", ["w", "mine"], ["g"]),
            node("Identity", ["go"], ["go_on"]),
            node("Identity", ["mine"], ["next"]),
        ],
        [value("i", (), INT64), value("go", (), BOOL), value("mine", None, INT64)],
        [value("go_on", (), BOOL), value("next", None, INT64), value("g", None)],
    )
    looped = model(
        [node("Loop", ["three", "", "ids"], ["last", "y"], body=body)],
        [value("ids", (1, 8), INT64)], [value("y", None)], [weight("w", table(6)), weight("three", np.int64(3))],
    )  # fmt: skip
    called = model(
        [node("Embed", ["ids"], ["y"], domain="here")], [value("ids", (1, 8), INT64)], [value("y", None)],
        domains=("here",), functions=[embed],
    )  # fmt: skip
    assert "token ids in 0..5" in made(tmp_path, looped)[1]["ids"]
    assert "token ids in 0..5" in made(tmp_path, called)[1]["ids"]


ROLES: list[tuple[str, int, tuple, Callable[[np.ndarray], bool], str]] = [
    ("attention_mask", INT64, ("batch", "seq"), lambda x: (x == 1).all() and x.shape == (1, 16), "mask of ones"),
    ("attentionMask", FLOAT, (1, 1, 8, 8), lambda x: (x == 1).all(), "mask of ones"),
    ("mask:0", BOOL, (4,), lambda x: x.all(), "mask of ones"),
    ("src_key_padding_mask", BOOL, (2, 8), lambda x: not x.any(), "padding mask of False"),
    ("token_type_ids", INT64, ("batch", "seq"), lambda x: not x.any(), "token types"),
    ("segment_ids", INT32, (1, 8), lambda x: not x.any(), "token types"),
    ("position_ids", INT64, ("batch", "seq"), lambda x: x[0].tolist() == list(range(16)), "positions 0..15"),
    ("sr", INT64, (), lambda x: x == 16000, "sample rate"),
    ("sample_rate", FLOAT, (1,), lambda x: x == 16000, "sample rate"),
    ("timestep", INT64, ("batch",), lambda x: 0 <= x[0] < 1000, "timesteps"),
    ("use_cache_branch", BOOL, (1,), lambda x: x.all(), "True"),
    ("score_threshold", FLOAT, (1,), lambda x: x == 0.5, "threshold"),
    ("image", FLOAT, ("batch", 3, "height", "width"), lambda x: x.shape == (1, 3, 224, 224) and x.min() == 0 and x.max() == 1, "smooth image"),
    ("x", FLOAT, (None, 3, None, None), lambda x: x.shape == (1, 3, 224, 224), "NCHW"),
    ("x", FLOAT, (1, 32, 48, 3), lambda x: x.min() == 0 and x.max() == 1, "NHWC"),
    ("x", FLOAT, (1, 1, 28, 28), lambda x: x.min() == 0 and x.max() == 1, "NCHW"),
    ("x", UINT8, (1, 64, 64, 3), lambda x: x.min() == 0 and x.max() == 255, "smooth image in 0..255"),
    ("pixel_values", FLOAT, (1, 3, 32, 32), lambda x: x.min() == -1 and x.max() == 1, "-1..1"),
    ("x", FLOAT, (1, 64, 32, 32), lambda x: x.min() < -2, "N(0, 1)"),  # features, not an image
    ("x", FLOAT, (1, 257, 1, 2), lambda x: x.min() < -2, "N(0, 1)"),
    ("audio", FLOAT, ("batch", "samples"), lambda x: x.shape == (1, 16000) and np.abs(x).max() < 0.5, "waveform"),
    ("x", FLOAT, (1, 1, 48000), lambda x: 0.01 < x.std() < 0.3, "waveform"),
    ("hidden_state", FLOAT, (2, None, 32), lambda x: x.shape == (2, 1, 32) and x.any() and np.abs(x).max() <= 1, "state"),
    ("past_key_values.0.key", FLOAT, ("batch", 4, "past_length", 8), lambda x: x.shape == (1, 4, 16, 8), "state"),
    ("encoder_hidden_states", FLOAT, ("batch", "seq", 8), lambda x: np.abs(x).max() > 1, "N(0, 1)"),
    ("features", FLOAT, ("batch", "seq", 40), lambda x: x.shape == (1, 16, 40), "N(0, 1)"),
    ("x", STRING, (2,), lambda x: all(isinstance(t, str) and t for t in x), "phrases"),
    ("period", INT64, (5,), lambda x: x.min() >= 1 and x.max() <= 4, "integers in 1..4"),
    ("x", INT8, (4, 4), lambda x: x.min() >= 0, "bytes"),
    ("x", FLOAT16, (4, 4), lambda x: x.dtype == np.float16, "N(0, 1)"),
    ("x", BFLOAT16, (4, 4), lambda x: x.dtype.name == "bfloat16", "N(0, 1)"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "dtype", "shape", "fits", "said"), ROLES, ids=[f"{r[0]}-{r[4]}" for r in ROLES])
def test_a_role_is_recognised_and_its_data_fits(tmp_path, name, dtype, shape, fits, said):
    data, line = one(tmp_path, name, dtype, shape)
    assert fits(data), (line, data.shape, data.reshape(-1)[:8])
    assert said in line


MEANS = weight("c", np.array([123.7, 116.8, 103.9], np.float32).reshape(1, 3, 1, 1))


@pytest.mark.parametrize(
    ("nodes", "weights"),
    [
        ([node("Sub", ["x", "c"], ["y"])], [MEANS]),
        ([node("Add", ["x", "c"], ["y"])], [weight("c", -np.float32(127.5))]),
        ([node("Div", ["x", "c"], ["y"])], [weight("c", np.float32(255))]),
        ([node("Mul", ["x", "c"], ["y"])], [weight("c", np.float32(1 / 255))]),
        (
            [node("Transpose", ["x"], ["t"], perm=[0, 1, 3, 2]), node("Div", ["t", "c"], ["y"])],
            [weight("c", np.float32(127.5))],
        ),
        ([node("Mul", ["x", "one"], ["m"]), node("Sub", ["m", "c"], ["y"])], [weight("one", np.float32(1)), MEANS]),
        (
            [node("BatchNormalization", ["x", "s", "s", "m", "s"], ["y"])],
            [weight("s", np.ones(3, np.float32)), weight("m", np.full(3, 110, np.float32))],
        ),
    ],
    ids=["mean", "negative mean", "255", "1/255", "behind a transpose", "behind a scale of one", "batch norm"],
)
def test_an_image_that_is_normalised_inside_reaches_255(tmp_path, nodes, weights):
    data, line = one(tmp_path, "x", FLOAT, (1, 3, 32, 32), nodes, weights)
    assert (data.min(), data.max()) == (0, 255) and "0 to 255" in line


@pytest.mark.parametrize("constant", [0.45, 2.0, 1.0, 0.225])
def test_an_image_normalised_with_unit_means_stays_in_0_to_1(tmp_path, constant):
    nodes = [node("Sub", ["x", "c"], ["s"]), node("Div", ["s", "c"], ["y"])]
    data, _ = one(tmp_path, "x", FLOAT, (1, 3, 32, 32), nodes, [weight("c", np.float32(constant))])
    assert (data.min(), data.max()) == (0, 1)


def test_a_quantised_network_gets_the_range_it_was_calibrated_for(tmp_path):
    nodes = [node("QuantizeLinear", ["x", "s", "z"], ["y"])]
    data, line = one(
        tmp_path, "x", FLOAT, (1, 3, 16, 16), nodes, [weight("s", np.float32(0.5)), weight("z", np.uint8(128))]
    )
    assert (data.min(), data.max()) == (-64, 63.5) and "QuantizeLinear" in line


def test_images_are_smooth(tmp_path):
    data, _ = one(tmp_path, "x", FLOAT, (2, 3, 96, 96))
    neighbours = np.abs(np.diff(data, axis=-1)).mean()
    shuffled = np.abs(np.diff(np.random.default_rng(0).permuted(data, axis=-1), axis=-1)).mean()
    assert neighbours < shuffled / 2
    assert not np.array_equal(data[0], data[1])


def test_logarithm_gets_positive_values(tmp_path):
    data, line = one(tmp_path, "x", FLOAT, (4, 40), [node("Log", ["x"], ["y"])])
    assert data.min() > 0 and "Log" in line


def test_recurrent_state_is_recognised_by_its_use(tmp_path):
    nodes = [node("GRU", ["x", "w", "r", "", "", "first"], ["y"], hidden_size=5)]
    weights = [weight("w", np.ones((1, 15, 3), np.float32)), weight("r", np.ones((1, 15, 5), np.float32))]
    proto = model(
        nodes, [value("x", (None, None, None)), value("first", (1, 1, 5))], [onnx.ValueInfoProto(name="y")], weights
    )
    feeds, lines = made(tmp_path, proto)
    assert "initial state of GRU" in lines["first"] and 0 < np.abs(feeds["first"]).max() <= 1
    assert feeds["x"].shape[2] == 3  # from W


def test_lengths_and_image_sizes_follow_the_other_inputs(tmp_path):
    nodes = [node("Identity", [n], [n + "_"]) for n in ("features", "lengths", "im", "im_shape")]
    inputs = [
        value("features", (1, 33, 40)),
        value("lengths", (1,), INT64),
        value("im", (1, 3, 20, 30)),
        value("im_shape", (1, 2)),
    ]
    feeds, lines = made(tmp_path, model(nodes, inputs, [onnx.ValueInfoProto(name="im_")]))
    assert feeds["im_shape"].tolist() == [[20, 30]] and "20 x 30" in lines["im_shape"]
    assert feeds["lengths"].tolist() == [33] and "33" in lines["lengths"]


def test_sequences_and_optionals_get_elements(tmp_path):
    seq = onnx.helper.make_value_info(
        "s", onnx.helper.make_sequence_type_proto(onnx.helper.make_tensor_type_proto(FLOAT, (2, 3)))
    )
    feeds, lines = made(
        tmp_path, model([node("ConcatFromSequence", ["s"], ["y"], axis=0)], [seq], [onnx.ValueInfoProto(name="y")])
    )
    assert set(feeds) == {"s[0]", "s[1]"} and "sequence of 2" in lines["s"]
    assert not np.array_equal(feeds["s[0]"], feeds["s[1]"])
    assert set(made(tmp_path, sequence())[0]) == {"x"}
    assert made(tmp_path, optional_input())[0]["x"].shape == (2, 3)


# --- dimensions ------------------------------------------------------------------------------------------------------


def pair(first, second, dtype=FLOAT) -> onnx.ModelProto:
    nodes = [node("Identity", ["a"], ["y"]), node("Identity", ["b"], ["z"])]
    return model(nodes, [value("a", first, dtype), value("b", second, dtype)], [onnx.ValueInfoProto(name="y")])


def shapes_of(tmp_path, proto, **options):
    return {name: array.shape for name, array in made(tmp_path, proto, **options)[0].items()}


@pytest.mark.parametrize(
    ("first", "second", "given", "expected"),
    [
        (("batch", "seq"), ("batch", "seq"), {}, ((1, 16), (1, 16))),
        (("batch", "seq"), ("batch", "seq"), {"a": (3, 7)}, ((3, 7), (3, 7))),  # a given symbol is fixed everywhere
        (("batch", "k", 8), ("k",), {"b": (5,)}, ((1, 5, 8), (5,))),
        ((None, None), (2, None), {}, ((1, 16), (2, 16))),
        (("past", 4), ("past + seq", 4), {}, ((16, 4), (32, 4))),  # exporters write sums
        (("n", "s"), ("n", "2*(s//4)"), {"a": (2, 20)}, ((2, 20), (2, 10))),
        (("total_length",), ("3 +", 2), {}, ((1,), (1, 2))),  # not arithmetic: a name like any other
        ((0, 4), (2,), {}, ((0, 4), (2,))),  # declared empty
    ],
)
def test_dynamic_dimensions(tmp_path, first, second, given, expected):
    found = shapes_of(tmp_path, pair(first, second), shapes=given)
    if first == ("total_length",):
        assert found["b"] == expected[1]
    else:
        assert (found["a"], found["b"]) == expected


def test_weights_tell_extents(tmp_path):
    nodes = [
        node("Conv", ["image", "k"], ["c"]), node("MatMul", ["rows", "m"], ["d"]),
        node("Gemm", ["flat", "g"], ["e"], transB=1), node("Conv", ["grouped", "k"], ["f"], group=2),
    ]  # fmt: skip
    weights = [weight("k", np.ones((8, 3, 3, 3), np.float32)), weight("m", table(7, 5)), weight("g", table(9, 11))]
    inputs = [value("image", (None, None, None, None)), value("rows", ("b", "t", None)), value("flat", ("b", None)),
              value("grouped", (1, "c", 16, 16))]  # fmt: skip
    feeds, lines = made(tmp_path, model(nodes, inputs, [onnx.ValueInfoProto(name="c")], weights))
    assert feeds["image"].shape == (1, 3, 224, 224) and "image" in lines["image"].split(": ")[1]
    assert (feeds["rows"].shape, feeds["flat"].shape, feeds["grouped"].shape) == ((1, 16, 7), (1, 11), (1, 6, 16, 16))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"x": (1, 2)}, "has no input 'x'"),
        ({"a": (1, 2, 3)}, "has 2 axes"),
        ({"a": (1, 5)}, "has 4 elements on axis 1"),
        ({"a": (1, 4), "b": (2, 3)}, "cannot be 1 in 'a' and 2 in 'b'"),
    ],
)
def test_shapes_that_contradict_the_model_are_refused(tmp_path, given, message):
    with pytest.raises(InputError, match=message):
        made(tmp_path, pair(("batch", 4), ("batch", None)), shapes=given)


def test_an_input_of_unknown_rank_needs_a_shape(tmp_path):
    proto = model([node("Identity", ["x"], ["y"])], [value("x", None)], [value("y", None)])
    with pytest.raises(InputError, match="declares no rank") as caught:
        made(tmp_path, proto)
    assert "--input-shapes" in caught.value.hint
    assert shapes_of(tmp_path, proto, shapes={"x": (2, 5)}) == {"x": (2, 5)}


# --- seeds and ranges ------------------------------------------------------------------------------------------------


def test_data_depends_on_seed_and_name_only(tmp_path):
    alone = model([node("Identity", ["a"], ["y"])], [value("a", (4, 4))], [value("y", (4, 4))])
    both = pair((4, 4), (4, 4))
    feeds = made(tmp_path, both, seed=5)[0]
    assert np.array_equal(made(tmp_path, alone, seed=5)[0]["a"], feeds["a"])
    assert not np.array_equal(feeds["a"], feeds["b"])
    assert not np.array_equal(made(tmp_path, both, seed=6)[0]["a"], feeds["a"])


def test_the_numbers_of_seed_0_never_change(tmp_path):
    """Recordings made months apart are compared: a new generator would make every one of them useless."""
    feeds, _ = made(tmp_path, pair((3,), (1, 3, 8, 8)))
    np.testing.assert_allclose(feeds["a"], [0.5465059, -0.338143, 0.0515682], rtol=1e-6)
    np.testing.assert_allclose(feeds["b"][0, :, 2, 3], [0.499372, 0.501133, 0.345435], rtol=1e-4)


@given(low=st.floats(-1e6, 1e6), span=st.floats(0, 1e6))
@settings(max_examples=40, deadline=None)
def test_val_range_bounds_are_kept(tmp_path_factory, low, span):
    high = low + span
    tmp_path = tmp_path_factory.mktemp("range")
    for shape in ((64,), (1, 3, 16, 16)):
        data, _ = one(tmp_path, "x", FLOAT, shape, ranges={"": (low, high)})
        assert np.float32(low) <= data.min() and data.max() <= np.float32(high)


def test_val_range_of_integers_is_inclusive_and_by_name(tmp_path):
    feeds, lines = made(tmp_path, pair((512,), (512,), INT64), ranges={"a": (2, 4), "": (7, 7)})
    assert set(feeds["a"].tolist()) == {2, 3, 4} and set(feeds["b"].tolist()) == {7}
    assert "as asked" in lines["a"]


@pytest.mark.parametrize(
    ("dtype", "pair_", "message"),
    [(UINT8, (0, 300), "uint8 holds 0 to 255"), (INT64, (0.2, 0.8), "no int64 value"), (STRING, (0, 1), "text")],
)
def test_ranges_that_do_not_fit_are_refused(tmp_path, dtype, pair_, message):
    with pytest.raises(InputError, match=message):
        one(tmp_path, "x", dtype, (4,), ranges={"x": pair_})


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["x:[1,3,224,224]"], {"x": (1, 3, 224, 224)}),
        (["a:0:[2]", "b/c:[ 1, 2 ]"], {"a:0": (2,), "b/c": (1, 2)}),
        (["scalar:[]"], {"scalar": ()}),
    ],
)
def test_parse_shapes(texts, expected):
    assert parse_shapes(texts) == expected


@pytest.mark.parametrize("text", ["x", "x:1,2", "[1,2]", ":[1]", "x:[1", "x:[-1]", "x:[1.5]", "x:[a]", "x[1]", "x:[1,,2]", "x:[99999999,99999999]", ""])  # fmt: skip
def test_parse_shapes_refuses(text):
    with pytest.raises(InputError) as caught:
        parse_shapes([text])
    assert caught.value.where == "--input-shapes"


def test_one_input_has_one_shape():
    with pytest.raises(InputError, match="two shapes"):
        parse_shapes(["x:[1]", "x:[1]"])


@pytest.mark.parametrize(
    ("texts", "expected"),
    [(["[-1,1]"], {"": (-1.0, 1.0)}), (["x:0:[0,255]", "[0, 1e3]"], {"x:0": (0.0, 255.0), "": (0.0, 1000.0)}), (["[2,2]"], {"": (2.0, 2.0)})],
)  # fmt: skip
def test_parse_ranges(texts, expected):
    assert parse_ranges(texts) == expected


@pytest.mark.parametrize("text", ["0,1", "[1,0]", "[0]", "[0,1,2]", "[nan,1]", "[0,inf]", "x[0,1]", "[a,b]", ""])
def test_parse_ranges_refuses(text):
    with pytest.raises(InputError) as caught:
        parse_ranges([text])
    assert caught.value.where == "--val-range"


# --- real models -----------------------------------------------------------------------------------------------------

EXPECTED = {
    "dnsmos_sig_bak_ovr": {"input_1": "voiced waveform"},
    "fns_candy": {"inputImage": "smooth image in 0..255"},
    "magika_fast_v2_1": {"bytes": "class ids in 0..256"},
    "magika_standard_v3_3": {"bytes": "class ids in 0..256"},
    "silero_vad": {"input": "one frame", "state": "state", "sr": "sample rate 16000"},
    "superres_core": {"_ppp5_expanded": "smooth image in 0..1"},
    "ultraface_slim_320_qdq": {"input": "range of its QuantizeLinear"},
    "bert_mini": {"input_ids": "token ids in 0..1199", "attention_mask": "mask of ones"},
    "gpt2_mini": {"input_ids": "token ids in 0..899"},
    "lstm_gru_tagger": {"tokens": "token ids in 0..999 (Gather on e.weight)"},
    "convtasnet_cln": {"wav": "voiced waveform"},
    "unet_attn_mini": {"timestep": "timesteps"},
}


@pytest.mark.parametrize("where", ["models", "exports"])
def test_every_public_model_runs_on_made_up_inputs(where, request):
    import onnxruntime

    folder = request.getfixturevalue(where) / "models"
    paths = sorted(folder.glob("*.onnx"))
    assert paths
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    for path in paths:
        feeds, lines = make_inputs(load(path))
        said = {line.split(" ")[0]: line for line in lines}
        for name, expected in EXPECTED.get(path.stem, {}).items():
            assert expected in said[name], path.stem
        outputs = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]).run(None, feeds)
        for output in outputs:
            assert output.size and np.isfinite(output).all(), path.stem
