"""Tiny ONNX models, one a feature. Reused by tests of other rooms: ``from tests.model.builders import ...``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT, INT64, BOOL, STRING = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL, TensorProto.STRING
FLOAT16, BFLOAT16 = TensorProto.FLOAT16, TensorProto.BFLOAT16

node = helper.make_node


def value(name: str, shape: Sequence[int | str | None] | None = (2, 3), dtype: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def untyped(name: str) -> onnx.ValueInfoProto:
    return onnx.ValueInfoProto(name=name)


def weight(name: str, array: object) -> onnx.TensorProto:
    array = np.asarray(array)
    if array.dtype == ml_dtypes.bfloat16:  # older releases of onnx do not know the type
        return TensorProto(name=name, data_type=BFLOAT16, dims=array.shape, raw_data=array.tobytes())
    return numpy_helper.from_array(array, name)


def graph(nodes, inputs=(), outputs=(), weights=(), name="g") -> onnx.GraphProto:
    return helper.make_graph(list(nodes), name, list(inputs), list(outputs), list(weights))


def model(
    nodes, inputs, outputs, weights=(), *, opset: int = 17, ir: int = 8, domains=(), functions=()
) -> onnx.ModelProto:
    """A model; ``domains`` are further operator sets, imported at version 1."""
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(
        graph(nodes, inputs, outputs, weights), opset_imports=opsets, ir_version=ir, functions=list(functions)
    )


def save(proto: onnx.ModelProto, path: Path) -> Path:
    path.write_bytes(proto.SerializeToString())
    return path


def mlp(hidden: int = 64) -> onnx.ModelProto:
    """x[2, 3] -> Gemm -> Relu -> Gemm -> y[2, 4]; names with ':', '/' and spaces; two nodes unnamed, two of one name."""
    rng = np.random.default_rng(0)
    w1, w2 = rng.standard_normal((3, hidden), np.float32), rng.standard_normal((hidden, 4), np.float32)
    return model(
        [
            node("MatMul", ["x", "w1"], ["a:0"]),
            node("Add", ["a:0", "b1"], ["layer 1/add"], name="add"),
            node("Relu", ["layer 1/add"], ["hidden"], name="twice"),
            node("MatMul", ["hidden", "w2"], ["y"], name="twice"),
        ],
        [value("x")],
        [value("y", (2, 4))],
        [weight("w1", w1), weight("b1", np.ones(hidden, np.float32)), weight("w2", w2)],
    )


def old_ir() -> onnx.ModelProto:
    """IR version 3: every initialiser is listed as a graph input too. Opset 7."""
    return model(
        [node("Add", ["x", "w"], ["y"], name="add")], [value("x"), value("w")], [value("y")], [weight("w", np.ones((2, 3), np.float32))],
        opset=7, ir=3,
    )  # fmt: skip


def omitted_inputs() -> onnx.ModelProto:
    """Clip without its lower bound, Resize without roi: '' among the inputs."""
    return model(
        [
            node("Clip", ["x", "", "high"], ["c"], name="clip"),
            node("Resize", ["c", "", "scales"], ["y"], name="resize", mode="nearest"),
        ],
        [value("x", (1, 1, 2, 3))],
        [value("y", (1, 1, 4, 6))],
        [weight("high", np.float32(0.5)), weight("scales", np.array([1, 1, 2, 2], np.float32))],
    )


def sequence() -> onnx.ModelProto:
    """Tensors and a sequence between nodes; the sequence is a graph output too."""
    seq = helper.make_value_info("s", helper.make_sequence_type_proto(helper.make_tensor_type_proto(FLOAT, (2, 3))))
    return model(
        [
            node("SequenceConstruct", ["x", "x"], ["s"], name="construct"),
            node("ConcatFromSequence", ["s"], ["y"], name="concat", axis=0),
        ],
        [value("x")],
        [value("y", (4, 3)), seq],
    )


def optional_input() -> onnx.ModelProto:
    """A graph input of type optional(tensor(float))."""
    kind = helper.make_optional_type_proto(helper.make_tensor_type_proto(FLOAT, (2, 3)))
    return model(
        [node("OptionalGetElement", ["x"], ["y"], name="get")],
        [helper.make_value_info("x", kind)],
        [value("y")],
        opset=18,
    )


def map_output() -> onnx.ModelProto:
    """ZipMap of ai.onnx.ml: the output is a sequence of maps."""
    kind = helper.make_sequence_type_proto(
        helper.make_map_type_proto(INT64, helper.make_tensor_type_proto(FLOAT, None))
    )
    proto = model(
        [node("ZipMap", ["x"], ["y"], name="zip", domain="ai.onnx.ml", classlabels_int64s=[4, 5, 6])],
        [value("x")],
        [helper.make_value_info("y", kind)],
    )
    proto.opset_import.append(helper.make_opsetid("ai.onnx.ml", 2))
    return proto


def strings() -> onnx.ModelProto:
    """String tensors in and inside, numbers out."""
    return model(
        [
            node("Concat", ["x", "more"], ["both"], name="concat", axis=0),
            node("LabelEncoder", ["both"], ["y"], name="encode", domain="ai.onnx.ml", keys_strings=["a", "b"], values_int64s=[1, 2]),
        ],
        [value("x", (2,), STRING)],
        [value("y", (3,), INT64)],
        [weight("more", np.array(["b"], object))],
    )  # fmt: skip


def custom_domain() -> onnx.ModelProto:
    return model(
        [node("Mystery", ["x"], ["m"], name="mystery", domain="my.ops"), node("Relu", ["m"], ["y"], name="relu")],
        [value("x")],
        [value("y")],
        domains=("my.ops",),
    )


def local_function() -> onnx.ModelProto:
    """y = Twice(x) + Twice(x), Twice a function of the model."""
    twice = helper.make_function(
        "here", "Twice", ["a"], ["b"], [node("Add", ["a", "a"], ["b"], name="inner")], [helper.make_opsetid("", 17)]
    )
    nodes = [
        node("Twice", ["x"], ["t1"], name="t1", domain="here"),
        node("Twice", ["t1"], ["t2"], name="t2", domain="here"),
        node("Add", ["t1", "t2"], ["y"], name="sum"),
    ]
    return model(nodes, [value("x")], [value("y")], domains=("here",), functions=[twice])


def qdq() -> onnx.ModelProto:
    """x -> Q -> DQ -> MatMul(DQ(w), scale per axis) -> y. The scale of x comes from a Constant node."""
    rng = np.random.default_rng(1)
    constant = numpy_helper.from_array(np.float32(0.05), "")
    return model(
        [
            node("Constant", [], ["sx"], name="sx", value=constant),
            node("QuantizeLinear", ["x", "sx", "zx"], ["xq"], name="q"),
            node("DequantizeLinear", ["xq", "sx", "zx"], ["xd"], name="dq"),
            node("DequantizeLinear", ["wq", "sw"], ["wd"], name="dqw", axis=1),
            node("MatMul", ["xd", "wd"], ["y"], name="matmul"),
        ],
        [value("x")],
        [value("y", (2, 4))],
        [
            weight("zx", np.uint8(128)),
            weight("wq", rng.integers(-127, 127, (3, 4), np.int8)),
            weight("sw", np.array([0.01, 0.04, 0.02, 0.03], np.float32)),
        ],
    )


def if_else(*, share_names: bool = False) -> onnx.ModelProto:
    """y = c ? relu(-x) : exp(x) * 2. ``share_names``: both branches call their inner tensor 'inner'."""
    inner = ("inner", "inner") if share_names else ("negated", "exponential")
    then_branch = graph(
        [node("Neg", ["x"], [inner[0]], name="neg"), node("Relu", [inner[0]], ["then_y"], name="relu")],
        [],
        [value("then_y")],
    )
    else_branch = graph(
        [node("Exp", ["x"], [inner[1]], name="exp"), node("Mul", [inner[1], "two"], ["else_y"], name="double")],
        [],
        [value("else_y")],
        [weight("two", np.float32(2))],
    )
    return model(
        [node("If", ["c"], ["y"], name="choose", then_branch=then_branch, else_branch=else_branch)],
        [value("x"), value("c", (), BOOL)],
        [value("y")],
    )


def nested_if() -> onnx.ModelProto:
    """c: (d computed inside: sum(x) > 0 ? -x : x + x) else |x|. The inner condition exists only inside the outer branch."""
    inner_then = graph([node("Neg", ["x"], ["deep_then"], name="neg")], [], [value("deep_then")])
    inner_else = graph([node("Add", ["x", "x"], ["deep_else"], name="add")], [], [value("deep_else")])
    then_branch = graph(
        [
            node("ReduceSum", ["x"], ["total"], name="sum", keepdims=0),
            node("Greater", ["total", "zero"], ["positive"], name="greater"),
            node("If", ["positive"], ["mid"], name="inner_if", then_branch=inner_then, else_branch=inner_else),
            node("Sqrt", ["mid"], ["then_y"], name="sqrt"),
        ],
        [],
        [value("then_y")],
    )
    else_branch = graph([node("Abs", ["x"], ["else_y"], name="abs")], [], [value("else_y")])
    return model(
        [
            node("If", ["c"], ["chosen"], name="outer_if", then_branch=then_branch, else_branch=else_branch),
            node("Identity", ["chosen"], ["y"], name="last"),
        ],
        [value("x"), value("c", (), BOOL)],
        [value("y")],
        [weight("zero", np.float32(0))],
    )


def loop() -> onnx.ModelProto:
    """state <- state * state + x, n times. Final state, and every state stacked."""
    body = graph(
        [
            node("Mul", ["state", "state"], ["squared"], name="square"),
            node("Add", ["squared", "x"], ["next"], name="add"),
            node("Identity", ["next"], ["each"], name="each"),
            node("Identity", ["going"], ["go_on"], name="go_on"),
        ],
        [value("i", (), INT64), value("going", (), BOOL), value("state")],
        [value("go_on", (), BOOL), value("next"), value("each")],
    )
    return model(
        [node("Loop", ["n", "", "x"], ["y", "all"], name="loop", body=body)],
        [value("x"), value("n", (), INT64)],
        [value("y"), value("all", ("n", 2, 3))],
    )


def growing_loop() -> onnx.ModelProto:
    """The state doubles its first axis every iteration: its values cannot be stacked."""
    body = graph(
        [
            node("Concat", ["state", "state"], ["next"], name="double", axis=0),
            node("Identity", ["going"], ["go_on"], name="go_on"),
        ],
        [value("i", (), INT64), value("going", (), BOOL), value("state", None)],
        [value("go_on", (), BOOL), value("next", None)],
    )
    return model(
        [node("Loop", ["n", "", "x"], ["y"], name="loop", body=body)],
        [value("x"), value("n", (), INT64)],
        [value("y", None)],
    )


def if_in_loop() -> onnx.ModelProto:
    """Each iteration: even i adds x to the state, odd i negates it."""
    even = graph([node("Add", ["state", "x"], ["added"], name="add")], [], [value("added")])
    odd = graph([node("Neg", ["state"], ["negated"], name="neg")], [], [value("negated")])
    body = graph(
        [
            node("Mod", ["i", "two"], ["rest"], name="mod"),
            node("Equal", ["rest", "zero"], ["is_even"], name="equal"),
            node("If", ["is_even"], ["next"], name="if", then_branch=even, else_branch=odd),
            node("Identity", ["going"], ["go_on"], name="go_on"),
        ],
        [value("i", (), INT64), value("going", (), BOOL), value("state")],
        [value("go_on", (), BOOL), value("next")],
    )
    return model(
        [node("Loop", ["n", "", "x"], ["y"], name="loop", body=body)],
        [value("x"), value("n", (), INT64)],
        [value("y")],
        [weight("two", np.int64(2)), weight("zero", np.int64(0))],
    )


def loop_in_if() -> onnx.ModelProto:
    """c ? state * x, n times : x"""
    body = graph(
        [node("Mul", ["state", "x"], ["next"], name="mul"), node("Identity", ["going"], ["go_on"], name="go_on")],
        [value("i", (), INT64), value("going", (), BOOL), value("state")],
        [value("go_on", (), BOOL), value("next")],
    )
    then_branch = graph([node("Loop", ["n", "", "x"], ["looped"], name="loop", body=body)], [], [value("looped")])
    else_branch = graph([node("Identity", ["x"], ["copied"], name="copy")], [], [value("copied")])
    return model(
        [node("If", ["c"], ["y"], name="if", then_branch=then_branch, else_branch=else_branch)],
        [value("x"), value("n", (), INT64), value("c", (), BOOL)],
        [value("y")],
    )


def scan(**attributes) -> onnx.ModelProto:
    """Running sum over the rows of x[4, 3], doubled on the way out; ``attributes`` go to the Scan node."""
    body = graph(
        [
            node("Add", ["total", "row"], ["next"], name="add"),
            node("Mul", ["next", "next"], ["squared"], name="square"),
            node("Identity", ["squared"], ["out"], name="out"),
        ],
        [value("total", (3,)), value("row", (3,))],
        [value("next", (3,)), value("out", (3,))],
    )
    return model(
        [node("Scan", ["start", "x"], ["last", "rows"], name="scan", body=body, num_scan_inputs=1, **attributes)],
        [value("start", (3,)), value("x", (4, 3))],
        [value("last", (3,)), value("rows", None)],
    )


def half(kind: int = FLOAT16, *, opset: int = 17) -> onnx.ModelProto:
    """All in one half-precision type: sqrt(x * x) + w, and a Cast, an EyeLike, a ConstantOfShape, a Constant, an If on the way.

    x = 300 overflows FP16 at the product: 90000 > 65504.
    """
    numpy_type = {FLOAT16: np.float16, BFLOAT16: ml_dtypes.bfloat16}[kind]
    one = weight("", np.ones(1, numpy_type))
    then_branch = graph(
        [node("Cast", ["root"], ["r2"], name="cast_in_body", to=kind), node("Add", ["r2", "w"], ["then_y"], name="add")],
        [], [value("then_y", (2, 2), kind)], [weight("w", np.full((2, 2), 0.1, numpy_type))],
    )  # fmt: skip
    else_branch = graph([node("Identity", ["root"], ["else_y"], name="copy")], [], [value("else_y", (2, 2), kind)])
    proto = model(
        [
            node("Mul", ["x", "x"], ["square"], name="square"),
            node("Sqrt", ["square"], ["root"], name="root"),
            node("EyeLike", ["x"], ["eye"], name="eye", dtype=kind),
            node("ConstantOfShape", ["shape"], ["ones"], name="ones", value=one),
            node("Constant", [], ["k"], name="k", value=weight("", np.asarray(0.3, numpy_type))),
            node("If", ["c"], ["chosen"], name="if", then_branch=then_branch, else_branch=else_branch),
            node("Sum", ["chosen", "eye", "ones", "k"], ["y"], name="sum"),
        ],
        [value("x", (2, 2), kind), value("c", (), BOOL)],
        [value("y", (2, 2), kind)],
        [weight("shape", np.array([2, 2], np.int64))],
        opset=opset,
    )
    proto.graph.value_info.append(value("square", (2, 2), kind))
    return proto


def external(folder: Path, *, elements: int = 4096, location: str = "weights.bin", name: str = "model.onnx") -> Path:
    """y = x + w with w[elements] in a file of its own, 64 bytes in. Returns the model's path."""
    data = np.arange(elements, dtype=np.float32)
    (folder / location).parent.mkdir(parents=True, exist_ok=True)
    (folder / location).write_bytes(bytes(64) + data.tobytes())
    return save(
        external_model(elements, {"location": location, "offset": "64", "length": str(data.nbytes)}), folder / name
    )


def external_model(elements: int, entries: dict[str, str]) -> onnx.ModelProto:
    """y = x + w, w[elements] described by ``entries`` alone; writes no file."""
    tensor = onnx.TensorProto(name="w", data_type=FLOAT, dims=[elements], data_location=TensorProto.EXTERNAL)
    for key, text in entries.items():
        tensor.external_data.add(key=key, value=text)
    return model(
        [node("Add", ["x", "w"], ["y"], name="add")], [value("x", (elements,))], [value("y", (elements,))], [tensor]
    )


GOOD = {
    "mlp": mlp, "old_ir": old_ir, "omitted_inputs": omitted_inputs, "sequence": sequence, "optional_input": optional_input,
    "map_output": map_output, "strings": strings, "custom_domain": custom_domain, "local_function": local_function, "qdq": qdq,
    "if_else": if_else, "nested_if": nested_if, "loop": loop, "growing_loop": growing_loop, "if_in_loop": if_in_loop,
    "loop_in_if": loop_in_if, "scan": scan, "half": half,
}  # fmt: skip
