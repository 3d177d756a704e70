"""Operators on constants: each that folding evaluates, its edges, and where runtimes and the reference differ."""

from __future__ import annotations

import numpy as np

from tests.model.builders import BOOL, FLOAT16, weight

INT32, UINT8 = 6, 2
RNG = np.random.default_rng(3)


def f32(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def i64(*numbers):
    return np.array(numbers, np.int64)


CUBE = f32(2, 3, 4)
MATRIX = f32(3, 4)
UNARY = "Neg Abs Sqrt Reciprocal Exp Log Erf Tanh Sigmoid Sin Cos Tan Asin Acos Atan Sinh Cosh Asinh Acosh Atanh Softsign Relu LeakyRelu Floor Ceil Round Sign IsNaN IsInf Softmax LogSoftmax NonZero Identity Flatten Shape Size Transpose Squeeze".split()
REDUCE = (
    "ReduceMean ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceSumSquare ReduceLogSum ReduceLogSumExp".split()
)

# op, constants, attributes
PLAIN = [
    *((op, [np.abs(MATRIX) % 0.9 + (1 if op == "Acosh" else 0)], {}) for op in UNARY),
    *((op, [np.abs(MATRIX)], {"axes": [1], "keepdims": 0}) for op in REDUCE),
    *((op, [MATRIX, f32(4)], {}) for op in "Add Sub Mul Div Min Max Sum Mean Equal Greater Less GreaterOrEqual LessOrEqual".split()),
    ("Pow", [np.abs(MATRIX), f32(4)], {}),
    ("Div", [i64(-7, 7, -7, 7, 6, -6), i64(2, -2, -2, 2, 3, 3)], {}),
    ("Mod", [i64(-7, 7, -7), i64(3, -3, -3)], {}),
    ("Mod", [f32(4), np.float32([2, 2, 3, 3])], {"fmod": 1}),
    ("Clip", [MATRIX, np.float32(-0.5), np.float32(0.5)], {}),
    ("MatMul", [MATRIX, f32(4, 2)], {}),
    ("Gemm", [MATRIX, f32(2, 4), f32(2)], {"transB": 1, "alpha": 0.5}),
    ("ReduceSum", [MATRIX, i64(0)], {"keepdims": 0}),
    ("CumSum", [MATRIX, np.int64(1)], {}),
    ("Range", [np.float32(0), np.float32(1), np.float32(0.1)], {}),
    ("Range", [np.int64(3), np.int64(11), np.int64(3)], {}),
    ("ArgMax", [MATRIX], {"axis": 1}),
    ("ArgMin", [MATRIX], {"axis": 0, "keepdims": 0}),
    ("TopK", [MATRIX, i64(2)], {"axis": 1}),
    ("Reshape", [MATRIX, i64(2, -1)], {}),
    ("Unsqueeze", [MATRIX, i64(0, 3)], {}),
    ("Concat", [MATRIX, f32(2, 4)], {"axis": 0}),
    ("Split", [MATRIX, i64(1, 2)], {"axis": 0}),
    ("Slice", [MATRIX, i64(-1), i64(-9), i64(1), i64(-2)], {}),
    ("Gather", [MATRIX, i64(-1, 0)], {"axis": 1}),
    ("GatherElements", [MATRIX, np.array([[0, -1], [1, 1], [2, 0]])], {"axis": 1}),
    ("GatherND", [MATRIX, np.array([[0, 1], [2, 3]])], {}),
    ("ScatterND", [MATRIX, np.array([[1]]), f32(1, 4)], {}),
    ("ScatterElements", [MATRIX, np.array([[1, 0]]), f32(1, 2)], {"axis": 1}),
    ("Expand", [f32(4), i64(3, 1)], {}),
    ("Tile", [MATRIX, i64(1, 2)], {}),
    ("Pad", [MATRIX, i64(1, 0, 0, 2), np.float32(7)], {}),
    ("Pad", [MATRIX, i64(1, 0, 1, 0)], {"mode": "reflect"}),
    ("DepthToSpace", [f32(1, 4, 2, 2)], {"blocksize": 2}),
    ("SpaceToDepth", [f32(1, 1, 4, 2)], {"blocksize": 2}),
    ("ReverseSequence", [MATRIX, i64(1, 2, 3, 1)], {}),
    ("Trilu", [MATRIX, np.int64(1)], {"upper": 0}),
    ("Where", [MATRIX > 0, MATRIX, f32(4)], {}),
    ("Compress", [MATRIX, np.array([True, False, True])], {"axis": 0}),
    ("ConstantOfShape", [i64(2, 3)], {"value": weight("v", np.float32([4]))}),
    ("OneHot", [i64(0, 2), np.int64(3), f32(2)], {}),
    ("Not", [MATRIX > 0], {}),
    *((op, [MATRIX > 0, np.array([True, False, True, False])], {}) for op in ("And", "Or", "Xor")),
    ("BitShift", [np.uint8([1, 2, 200]), np.uint8([1, 2, 3])], {"direction": "LEFT"}),
    *((op, [i64(5, 6), i64(3, 12)], {}) for op in ("BitwiseAnd", "BitwiseOr", "BitwiseXor")),
    ("BitwiseNot", [i64(5, -6)], {}),
    ("Cast", [np.float32([1.5, -1.5, 2.9])], {"to": INT32}),
    ("Cast", [np.float32([1e-3, 70000, np.nan])], {"to": FLOAT16}),
    ("Cast", [np.float32([0, 0.1, np.nan])], {"to": BOOL}),
    ("CastLike", [i64(2**24 + 1), np.float32(0)], {}),
]  # fmt: skip


EDGES = [
    ("Softmax",[CUBE],{}),("Softmax",[CUBE],{"axis":1}),("LogSoftmax",[CUBE],{"axis":1}),("ArgMax",[CUBE],{"axis":-1}),("Flatten",[CUBE],{"axis":2}),("TopK",[CUBE],{"k":2,"axis":1}),
("Split",[CUBE],{"axis":2,"split":[1,3]}),("Split",[f32(2,4)],{"axis":1}),("ReduceMean",[CUBE],{}),("ReduceMax",[CUBE],{"axes":[-1]}),("ReduceL2",[CUBE],{"axes":[0,2]}),("ReduceLogSumExp",[CUBE*50],{"axes":[1]}),
("Clip",[CUBE],{"max":0.1,"min":-.2}),("Squeeze",[f32(1,3,1)],{"axes":[0,2]}),("Pad",[CUBE],{"pads":[0,1,0,0,0,2],"mode":"edge"}),("Pad",[CUBE],{"pads":[0,1,0,0,0,2],"value":3.0}),
("Slice",[CUBE],{"starts":[0,-2],"ends":[1,9],"axes":[0,2]}),("Gemm",[f32(2,3),f32(3,4),f32(4)],{}),("Cast",[CUBE],{"to":7}),
("Mod",[i64(5,-5),i64(3,3)],{"fmod":1}),("Gather",[CUBE,np.array([[0],[1]])],{"axis":2}),("Max",[CUBE,CUBE*2,f32(4)],{}),("Mean",[CUBE,f32(4),f32(1)],{}),("Sum",[CUBE,f32(4),f32(1)],{}),
("Shape",[CUBE],{"start":1}),("Shape",[CUBE],{"start":-2,"end":-1}),("DepthToSpace",[f32(1,8,2,2)],{"blocksize":2,"mode":"CRD"}),("ReduceSum",[CUBE],{}),("ReduceSum",[CUBE],{"keepdims":0}),("CumSum",[CUBE,np.int64(-1)],{"exclusive":1,"reverse":1}),
("Round",[np.float32([.5,1.5,-.5,2.5])],{}),("LeakyRelu",[CUBE],{"alpha":0.3}),("Range",[np.float32(0),np.float32(-1),np.float32(-.1)],{}),("Pow",[i64(2,3),i64(3,2)],{}),("Trilu",[CUBE],{}),("Where",[CUBE>0,CUBE,np.float32(0)],{}),
("OneHot",[i64(-1,2),np.int64(3),f32(2)],{"axis":0}),("Squeeze",[f32(1,3,1)],{}),("Reshape",[CUBE,i64(0,-1)],{}),("Reshape",[f32(0,3),i64(3,0)],{"allowzero":1}),("Transpose",[CUBE],{}),("Concat",[CUBE,CUBE],{"axis":2}),("MatMul",[f32(2,3,4),f32(4)],{}),("Tile",[f32(3),i64(0)],{}),("BitShift",[np.uint8([255]),np.uint8([3])],{"direction":"RIGHT"}),("Equal",[np.array([True]),np.array([False])],{}),("IsInf",[np.float32([np.inf,-np.inf])],{"detect_negative":0}),("ArgMax",[np.float32([[1,1]])],{"axis":1,"select_last_index":1}),
("TopK",[CUBE,i64(2)],{"axis":1,"largest":0,"sorted":1}),("Sign",[np.float32([-0.0,np.nan])],{}),("Min",[np.float32([np.nan,1]),np.float32([0,0])],{}),("Relu",[np.float32([np.nan,-np.inf,np.inf])],{}),("ReduceMax",[np.float32([[np.nan,1]])],{"axes":[1]}),("Sigmoid",[np.float32([1000,-1000])],{}),("Softmax",[np.float32([[1000,-3e38,-np.inf]])],{}),("Erf",[np.float32([30,-30,np.inf])],{}),("Abs",[np.int8([-128,5])],{}),("Neg",[np.int8([-128,5])],{}),("Mul",[np.int8([100]),np.int8([3])],{}),("Add",[np.uint8([200]),np.uint8([100])],{}),("ReduceMean",[i64(1,2)],{"axes":[0]}),("Mean",[np.float16([1,2]),np.float16([2,3])],{}),("CumSum",[i64(1,2,3),np.int64(0)],{}),("Pow",[f32(3),i64(2)],{}),("Sqrt",[np.float32([-1])],{}),("Clip",[i64(1,5,9),np.int64(2),np.int64(6)],{}),("MatMul",[np.int32([[1,2]]),np.int32([[3],[4]])],{}),("Cast",[i64(2**40)],{"to":6}),("Cast",[np.float32([2.5])],{"to":9}),("Floor",[np.float16([2.5])],{}),("ReduceProd",[i64(2,3),],{"axes":[0]}),("Gather",[np.array([[1.5,2]],np.float32),np.int64(0)],{}),

]  # fmt: skip

EVALUATED = [*PLAIN, *EDGES]

# op, constants, attributes, opset
DIFFERS = [
    ("Softmax", [CUBE], {"axis": 1}, 11),
    ("LogSoftmax", [CUBE], {}, 9),
    ("Cast", [np.float32([-1])], {"to": UINT8}, 17),
    ("NonZero", [np.float32(1)], {}, 17),
    ("Clip", [np.float32([np.inf, 1]), np.float32(0)], {}, 17),
    ("ReduceLogSumExp", [np.float32([[-np.inf, -np.inf]])], {"axes": [1]}, 17),
    ("ReduceSum", [np.int32([2**31 - 1, 1]), i64(0)], {}, 17),
    ("ReduceProd", [i64(2**40, 2**40)], {"axes": [0]}, 17),
]  # fmt: skip
