"""Every fusion on the forms that exporters write, and on the smallest change that must stop it."""

from __future__ import annotations

import pytest

from tests.engine.fusion.drawing import grouped, members

IMAGE = {"inputs": "float[1,8,16,16] x", "outputs": "float[1,8,16,16] y"}
ROWS = {"inputs": "float[2,8,96] x", "outputs": "float[2,8,96] y"}
HEADS = {
    "inputs": "float[2,4,8,24] q, float[2,4,8,24] k, float[2,4,8,24] v, float[2,1,8,8] mask",
    "outputs": "float[2,4,8,24] y",
}

# the formulas as a part of bigger drawings
LAYER_NORM_STATISTICS = """
    m = ReduceMean<axes=[-1]>(x)
    d = Sub(x, m)
    p = Pow(d, $2.0)
    s = ReduceMean<axes=[-1]>(p)
    e = Add(s, $1e-5)
    r = Sqrt(e)
"""
RMS_STATISTICS = """
    p = Pow(x, $2.0)
    s = ReduceMean<axes=[-1]>(p)
    e = Add(s, $1e-6)
    r = Sqrt(e)
"""

NORMS = {
    "layer_norm of torch": (f"{LAYER_NORM_STATISTICS} n = Div(d, r) g = Mul(n, %96) y = Add(g, %96)", "layer_norm", 9),
    "layer_norm without weights": (f"{LAYER_NORM_STATISTICS} y = Div(d, r)", "layer_norm", 7),
    "layer_norm that subtracts twice": (
        f"{LAYER_NORM_STATISTICS} d2 = Sub(x, m) n = Div(d2, r) g = Mul(n, %96) y = Add(g, %96)", "layer_norm", 10,
    ),
    "layer_norm of tf2onnx": (
        """m = ReduceMean<axes=[-1]>(x) d = Sub(x, m) p = Mul(d, d) s = ReduceMean<axes=[-1]>(p) e = Add(s, $0.001) q = Sqrt(e)
        r = Reciprocal(q) k = Mul(r, %96) mk = Mul(m, k) b = Sub(%96, mk) xk = Mul(x, k) y = Add(xk, b)""", "layer_norm", 12,
    ),
    "layer_norm of jax2tf": (
        """t = ReduceSum<keepdims=0>(x, $i[2]) x2 = Mul(x, x) t2 = ReduceSum<keepdims=0>(x2, $i[2]) m = Mul(t, $0.0104167)
        m2 = Mul(t2, $0.0104167) mm = Mul(m, m) v = Sub(m2, mm) c = Max($0.0, v) vr = Reshape(c, $i[2,8,1])
        ve = Expand(vr, $i[2,8,1]) e = Add(ve, $1e-6) q = Sqrt(e) r = Reciprocal(q) k = Mul(r, %1x1x96)
        mr = Reshape(m, $i[2,8,1]) me = Expand(mr, $i[2,8,1]) d = Sub(x, me) n = Mul(d, k) y = Add(n, %1x1x96)""", "layer_norm", 19,
    ),
    "layer_norm with pow -0.5": (
        """m = ReduceMean<axes=[-1]>(x) d = Sub(x, m) p = Mul(d, d) s = ReduceMean<axes=[-1]>(p) e = Add($1e-5, s)
        r = Pow(e, $-0.5) n = Mul(r, d) y = Mul(%96, n)""", "layer_norm", 8,
    ),
    "layer_norm as Keras' batch normalisation": (
        """m = ReduceMean<axes=[0,2]>(x) d = Sub(x, m) s = ReduceSumSquare<axes=[0,2],keepdims=0>(d) ms = Squeeze(m, $i[0,2])
        v = Div(s, n) b = BatchNormalization(x, one, zero, ms, v) g = Mul(b, %96) y = Add(g, %96)""", "layer_norm", 8,
    ),
    "rms_norm of torch": (f"{RMS_STATISTICS} i = Reciprocal(r) n = Mul(x, i) y = Mul(%96, n)", "rms_norm", 7),
    "rms_norm of T5": (f"{RMS_STATISTICS} i = Div($1.0, r) n = Mul(x, i) y = Mul(%96, n)", "rms_norm", 7),
    "rms_norm by division": (f"{RMS_STATISTICS} n = Div(x, r) y = Mul(n, %96)", "rms_norm", 6),
    "rms_norm without weights": (f"{RMS_STATISTICS} i = Reciprocal(r) y = Mul(x, i)", "rms_norm", 6),
    "group_norm of torch": (
        """rows = Reshape(x, $i[2,4,-1]) i = InstanceNormalization(rows, %4, %4) b = Reshape(i, $i[2,8,96]) g = Mul(b, %8x1)
        y = Add(g, %8x1)""", "group_norm", 5,
    ),
    "l2_norm of torch": ("l = ReduceL2<axes=[-1]>(x) c = Clip(l, $1e-12) e = Expand(c, $i[2,8,96]) y = Div(x, e)", "l2_norm", 4),
    "l2_norm of tf2onnx": (
        "p = ReduceSumSquare<axes=[-1]>(x) g = Max(p, $1e-12) q = Sqrt(g) r = Reciprocal(q) y = Mul(x, r)", "l2_norm", 5,
    ),
    "l2_norm in single nodes": (
        "p = Mul(x, x) s = ReduceSum(p, $i[-1]) q = Sqrt(s) e = Max(q, $1e-12) y = Div(x, e)", "l2_norm", 5,
    ),
    "cumulative_layer_norm": (
        """t = ReduceSum<keepdims=0>(x, $i[1]) c = CumSum(t, $i1) p = Pow(x, $2.0) t2 = ReduceSum<keepdims=0>(p, $i[1])
        c2 = CumSum(t2, $i1) m = Div(c, n) tw = Mul(m, $2.0) mc = Mul(tw, c) sp = Sub(c2, mc) vn = Div(sp, n) mm = Mul(m, m) v = Add(vn, mm)
        mu = Unsqueeze(m, $i[1]) d = Sub(x, mu) e = Add(v, $0.0001) q = Sqrt(e) qu = Unsqueeze(q, $i[1]) o = Div(d, qu) g = Mul(o, %1x8x1)
        y = Add(g, %1x8x1)""", "cumulative_layer_norm", 20,
    ),
}  # fmt: skip

SOFTMAXES = {
    "softmax by division": (
        "m = ReduceMax<axes=[-1]>(x) d = Sub(x, m) e = Exp(d) s = ReduceSum(e, $i[-1]) y = Div(e, s)", "softmax", 5,
    ),
    "softmax by reciprocal": (
        "m = ReduceMax<axes=[-1]>(x) d = Sub(x, m) e = Exp(d) s = ReduceSum(e, $i[-1]) r = Reciprocal(s) y = Mul(r, e)", "softmax", 6,
    ),
    "softmax of jax2tf": (
        """m = ReduceMax<axes=[2],keepdims=0>(x) g = Max($-inf, m) v = Reshape(g, $i[2,8,1]) b = Expand(v, $i[2,8,1]) d = Sub(x, b)
        e = Exp(d) s = ReduceSum<keepdims=0>(e, $i[2]) w = Reshape(s, $i[2,8,1]) z = Expand(w, $i[2,8,1]) y = Div(e, z)""", "softmax", 10,
    ),
    "log_softmax": (
        "m = ReduceMax<axes=[-1]>(x) d = Sub(x, m) e = Exp(d) s = ReduceSum(e, $i[-1]) l = Log(s) y = Sub(d, l)", "log_softmax", 6,
    ),
    "log_sum_exp": (
        "m = ReduceMax<axes=[-1]>(x) d = Sub(x, m) e = Exp(d) s = ReduceSum(e, $i[-1]) l = Log(s) t = Add(l, m) y = Expand(t, $i[2,8,96])",
        "log_sum_exp", 6,
    ),
    "l2_length": ("s = ReduceSumSquare<axes=[-1]>(x) l = Sqrt(s) y = Expand(l, $i[2,8,96])", "l2_length", 2),
    "sum_of_squares": ("p = Mul(x, x) l = ReduceSum(p, $i[-1]) y = Expand(l, $i[2,8,96])", "sum_of_squares", 2),
}  # fmt: skip

ACTIVATIONS = {
    "gelu_erf of torch": ("a = Div(x, $1.4142135) b = Erf(a) c = Add(b, $1.0) d = Mul(x, c) y = Mul(d, $0.5)", "gelu_erf", 5),
    "gelu_erf of tf2onnx": ("h = Mul($0.5, x) a = Mul(x, $0.70710677) b = Erf(a) c = Add($1.0, b) y = Mul(h, c)", "gelu_erf", 5),
    "gelu_erf, half inside": ("a = Div(x, $1.4142135) b = Erf(a) c = Add(b, $1.0) d = Mul(c, $0.5) y = Mul(x, d)", "gelu_erf", 5),
    "gelu_tanh of torch": (
        """h = Mul(x, $0.5) p = Pow(x, $3.0) q = Mul(p, $0.044715) s = Add(x, q) t = Mul(s, $0.7978846) u = Tanh(t) w = Add(u, $1.0)
        y = Mul(h, w)""", "gelu_tanh", 8,
    ),
    "gelu_tanh of jax2tf": (
        """a = Mul($0.044715, x) b = Mul(x, a) c = Mul(x, b) s = Add(x, c) t = Mul($0.7978846, s) u = Tanh(t) w = Add($[1.0], u)
        h = Mul($0.5, w) y = Mul(x, h)""", "gelu_tanh", 9,
    ),
    "gelu_tanh by squares": (
        """p = Mul(x, x) a = Mul(p, $0.044715) b = Add(a, $1.0) c = Mul(x, $0.7978846) t = Mul(c, b) u = Tanh(t) w = Add(u, $1.0)
        g = Mul(x, w) y = Mul(g, $0.5)""", "gelu_tanh", 9,
    ),
    "silu": ("s = Sigmoid(x) y = Mul(x, s)", "silu", 2),
    "quick gelu": ("a = Mul(x, $1.702) s = Sigmoid(a) y = Mul(s, x)", "silu", 3),
    "mish": ("p = Softplus(x) t = Tanh(p) y = Mul(x, t)", "mish", 3),
    "hard_swish": ("a = Add(x, $3.0) c = Clip(a, $0.0, $6.0) d = Div(c, $6.0) y = Mul(x, d)", "hard_swish", 4),
    "hard_swish, divided last": ("a = Add(x, $3.0) c = Clip(a, $0.0, $6.0) p = Mul(x, c) y = Div(p, $6.0)", "hard_swish", 4),
    "hard_sigmoid": ("a = Add(x, $3.0) c = Clip(a, $0.0, $6.0) y = Mul(c, $0.16666667)", "hard_sigmoid", 3),
}  # fmt: skip


@pytest.mark.parametrize("name", [*NORMS, *SOFTMAXES, *ACTIVATIONS])
def test_a_formula_is_one_group(name: str) -> None:
    nodes, pattern, count = {**NORMS, **SOFTMAXES, **ACTIVATIONS}[name]
    drawing = dict(ROWS)
    if "Keras" in name:
        drawing["inputs"] = "float[1,96,512] x, float n, float[96] one, float[96] zero"
        drawing["outputs"], nodes = "float[1,96,512] y", nodes.replace("%96", "%96x1")
    if "cumulative" in name:
        drawing["inputs"] += ", float[1,96] n"
    found = members(grouped(nodes, **drawing))
    assert list(found) == [pattern] and len(found[pattern]) == count


def _attention(
    between: str, last: str = "s5", softmax: str = "w = Softmax({})", keys: str = "kt = Transpose<perm=[0,1,3,2]>(k)"
) -> str:
    return f"{keys} s0 = MatMul(q, kt) {between} {softmax.format(last)} y = MatMul(w, v)"


ATTENTION = {
    "scale after": _attention("s5 = Div(s0, $4.898979)"),
    "mask": _attention("s1 = Mul(s0, $0.204) s5 = Add(mask, s1)"),
    "two masks": _attention("s1 = Mul(s0, $1.0) s2 = Add(s1, mask) s5 = Add(s2, mask)"),
    "filled": _attention("s1 = Mul(s0, $0.204) b = Cast<to=9>(mask) s5 = Where(b, s1, $-1e9)"),
    "no scale": _attention("", last="s0"),
    "soft cap": _attention("s1 = Div(s0, $50.0) s2 = Tanh(s1) s3 = Mul(s2, $50.0) s5 = Add(s3, mask)"),
    "scale on both sides": "qs = Mul(q, $0.45) kt = Transpose<perm=[0,1,3,2]>(k) ks = Mul(kt, $0.45) s = MatMul(qs, ks) w = Softmax(s) y = MatMul(w, v)",
    "scale before the transpose": "ks = Mul(k, $0.45) kt = Transpose<perm=[0,1,3,2]>(ks) s = MatMul(q, kt) w = Softmax(s) y = MatMul(w, v)",
    "single nodes": _attention(
        "s5 = Mul(s0, $0.204)", softmax="m = ReduceMax<axes=[-1]>({0}) d = Sub({0}, m) e = Exp(d) t = ReduceSum(e, $i[-1]) w = Div(e, t)"
    ),
    "rows without keys": _attention(
        "s5 = Add(s0, mask)", softmax="w0 = Softmax({}) nan = IsNaN(w0) w = Where(nan, $0.0, w0)"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ATTENTION)
def test_attention_is_one_group(name: str) -> None:
    found = members(grouped(ATTENTION[name], **HEADS))
    assert list(found) == ["attention"]
    left_out = {"b"} if "Cast" in ATTENTION[name] else set()  # what makes the mask
    assert len(found["attention"]) == ATTENTION[name].count(" = ") - len(left_out)


@pytest.mark.parametrize(
    ("behind", "taken"),
    [
        ("z = Transpose<perm=[0,2,1,3]>(y)", True),
        ("z = Transpose<perm=[0,1,3,2]>(y)", False),  # rows in pieces
        ("z = Transpose<perm=[0,2,1,3]>(y) r = Relu(y)", False),  # read before it is transposed, too
    ],
)
def test_attention_takes_the_transpose_of_its_result(behind: str, taken: bool) -> None:
    drawing = {**HEADS, "outputs": f"float {'z' if 'r =' not in behind else 'z, float r'}"}
    found = members(grouped(f"{_attention('')} {behind}".replace("Softmax(s5)", "Softmax(s0)"), **drawing))
    assert len(found["attention"]) == 4 + taken


CHAINS = {
    "conv + relu": "c = Conv<pads=[1,1,1,1]>(x, %8x8x3x3, %8) y = Relu(c)",
    "conv + bn + relu": "c = Conv<pads=[1,1,1,1]>(x, %8x8x3x3) b = BatchNormalization(c, %8, %8, %8, %8) y = Relu(b)",
    "conv + bias + leaky_relu": "c = Conv<pads=[1,1,1,1]>(x, %8x8x3x3) b = Add(%1x8x1x1, c) y = LeakyRelu(b)",
    "conv + scale + bias": "c = Conv<pads=[1,1,1,1]>(x, %8x8x3x3) s = Mul(c, %8x1x1) y = Add(s, %8x1x1)",
    "conv + clip": "c = Conv<pads=[1,1,1,1]>(x, %8x8x3x3) y = Clip(c, $0.0, $6.0)",
    "conv + prelu": "c = Conv<pads=[1,1,1,1]>(x, %8x8x3x3) y = PRelu(c, %8x1x1)",
    "conv + silu": "c = Conv<pads=[1,1,1,1]>(x, %8x8x3x3) s = Sigmoid(c) y = Mul(c, s)",
    "conv + hard_swish": "c = Conv<pads=[1,1,1,1]>(x, %8x8x3x3) a = Add(c, $3.0) l = Clip(a, $0.0, $6.0) d = Div(l, $6.0) y = Mul(c, d)",
    "conv + hard_sigmoid": "c = Conv<pads=[1,1,1,1]>(x, %8x8x3x3) a = Add(c, $3.0) l = Clip(a, $0.0, $6.0) y = Div(l, $6.0)",
    "conv + residual + relu": "c = Conv<pads=[1,1,1,1]>(x, %8x8x3x3) a = Add(x, c) y = Relu(a)",
    "conv + relu + residual": "c = Conv<pads=[1,1,1,1]>(x, %8x8x3x3) r = Relu(c) y = Add(r, x)",
    "pad + conv + relu": "p = Pad(x, $i[0,0,1,1,0,0,1,1]) c = Conv(p, %8x8x3x3) y = Relu(c)",
    "conv + tanh": "c = ConvTranspose<pads=[1,1,1,1]>(x, %8x8x3x3) y = Tanh(c)",
}


@pytest.mark.parametrize("pattern", CHAINS)
def test_a_convolution_takes_what_follows(pattern: str) -> None:
    found = members(grouped(CHAINS[pattern], **IMAGE))
    assert list(found) == [pattern] and len(found[pattern]) == CHAINS[pattern].count(" = ")


PRODUCTS = {
    "matmul + bias": "m = MatMul(x, %96x96) y = Add(m, %96)",
    "matmul + bias + gelu_erf": "m = MatMul(x, %96x96) n = Add(%96, m) a = Div(n, $1.4142135) b = Erf(a) c = Add(b, $1.0) d = Mul(n, c) y = Mul(d, $0.5)",
    "matmul + bias + residual": "m = MatMul(x, %96x96) n = Add(m, %96) y = Add(x, n)",
    "matmul + relu": "m = MatMul(x, %96x96) y = Relu(m)",
    "gemm + view + residual": "f = Reshape(x, $i[-1,96]) g = Gemm(f, %96x96, %96) u = Reshape(g, $i[2,8,96]) y = Add(u, x)",
    "gemm + view + rows + residual": """f = Reshape(x, $i[-1,96]) g = Gemm(f, %96x96, %96) u = Reshape(g, $i[8,2,96])
        t = Transpose<perm=[1,0,2]>(u) y = Add(t, x)""",
}


@pytest.mark.parametrize("pattern", PRODUCTS)
def test_a_matrix_product_takes_what_follows(pattern: str) -> None:
    found = members(grouped(PRODUCTS[pattern], **ROWS))
    assert list(found) == [pattern]
    assert len(found[pattern]) == PRODUCTS[pattern].count(" = ") - pattern.startswith("gemm")  # the Reshape before it


QDQ = {
    "dq + conv + q": """xd = DequantizeLinear(xq, $0.1, zp) wd = DequantizeLinear(wq, $0.1, zp) c = Conv<pads=[1,1,1,1]>(xd, wd)
        y = QuantizeLinear(c, $0.1, zp)""",
    "dq + conv + residual + relu + q": """xd = DequantizeLinear(xq, $0.1, zp) wd = DequantizeLinear(wq, $0.1, zp)
        rd = DequantizeLinear(rq, $0.2, zp) c = Conv<pads=[1,1,1,1]>(xd, wd) s = Add(c, rd) r = Relu(s) y = QuantizeLinear(r, $0.1, zp)""",
    "dq + add + q": "xd = DequantizeLinear(xq, $0.1, zp) rd = DequantizeLinear(rq, $0.2, zp) s = Add(xd, rd) y = QuantizeLinear(s, $0.1, zp)",
    "dq + maxpool + q": """xd = DequantizeLinear(xq, $0.1, zp) s = MaxPool<kernel_shape=[1,1]>(xd)
        y = QuantizeLinear(s, $0.1, zp)""",
}  # fmt: skip


@pytest.mark.parametrize("pattern", QDQ)
def test_q_and_dq_stay_with_their_operator(pattern: str) -> None:
    inputs = "int8[1,8,16,16] xq, int8[1,8,16,16] rq, int8[8,8,3,3] wq, int8 zp"
    found = members(grouped(QDQ[pattern], inputs=inputs, outputs="int8[1,8,16,16] y"))
    assert list(found) == [pattern] and len(found[pattern]) == QDQ[pattern].count(" = ")


FULL = {
    "conv + relu + pool": ("c = Conv(x, %8x8x1x1) r = Relu(c) y = MaxPool<kernel_shape=[2,2],strides=[2,2]>(r)", "float[1,8,8,8] y"),
    "reduce + scalar + unary": ("s = ReduceSum(x, $i[-1]) a = Add(s, $1.0) y = Log(a)", "float[1,8,16,1] y"),
    "softmax + topk": ("s = Softmax(x) y, i = TopK(s, $i[3])", "float[1,8,16,3] y"),
    "horizontal(conv + relu x3)": (
        """a = Conv(x, %4x8x1x1, %4) ar = Relu(a) b = Conv(x, %8x8x1x1, %8) br = Relu(b) c = Conv(x, %2x8x1x1, %2) cr = Relu(c)
        y = Concat<axis=1>(ar, br, cr)""", "float[1,14,16,16] y",
    ),
}  # fmt: skip


@pytest.mark.parametrize("pattern", FULL)
def test_full_fuses_more(pattern: str) -> None:
    nodes, outputs = FULL[pattern]
    drawing = {**IMAGE, "outputs": outputs}
    assert list(members(grouped(nodes, "full", **drawing))) == [pattern]
    assert pattern not in members(grouped(nodes, "safe", **drawing))
    assert not grouped(nodes, "none", **drawing).groups


def test_pointwise_nodes_join_over_a_diamond() -> None:
    found = members(grouped("a = Mul(x, %96) b = Exp(a) c = Neg(a) d = Add(b, c) y = Sqrt(d)", **ROWS))
    assert found == {"pointwise(mul, exp, ..., sqrt) [5]": ["a", "b", "c", "d", "y"]}


def test_mean_over_height_and_width_is_a_pooling() -> None:
    found = grouped("y = ReduceMean<axes=[2,3]>(x)", inputs=IMAGE["inputs"], outputs="float[1,8,1,1] y")
    assert [(one.pattern, one.kind) for one in found.groups] == [("mean_over_image", "pool")]
