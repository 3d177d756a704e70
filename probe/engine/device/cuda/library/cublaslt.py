"""cuBLASLt: which of its algorithms compute a product, and calling one of them on a stream.

The library counts columns first: a result that lies row by row is, to it, the transposed one, so a and b change places.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from threading import Lock
from typing import Any

import numpy as np

from probe.engine.device.cuda.backend import Argument
from probe.engine.device.cuda.errors import CudaError
from probe.engine.device.cuda.library import installed
from probe.engine.device.cuda.library.product_problem import ProductProblem, Side
from probe.engine.device.cuda.library.routine import Enqueue, Routine
from probe.engine.tactics.library import IN_FP32, LtAlgorithm

WORKSPACE = 32 << 20  # bytes that an algorithm may ask for
_TYPES = {"float": 0, "f16": 2, "bf16": 14}  # cudaDataType
_COMPUTE = {"32f": 68, "32fpedantic": 69, "tf32": 77, "16f": 64}  # cublasComputeType_t
_CONFIG = (
    ("ID", ctypes.c_int32), ("TILE_ID", ctypes.c_uint32), ("STAGES_ID", ctypes.c_uint32), ("SPLITK_NUM", ctypes.c_int32),
    ("REDUCTION_SCHEME", ctypes.c_uint32), ("CTA_SWIZZLING", ctypes.c_uint32), ("CUSTOM_OPTION", ctypes.c_uint32),
    ("INNER_SHAPE_ID", ctypes.c_uint16), ("CLUSTER_SHAPE_ID", ctypes.c_uint16),
)  # fmt: skip
_DEFAULT, _RELU, _BIAS, _GELU = 1, 2, 4, 32  # cublasLtEpilogue_t
_ALGORITHM = ctypes.c_uint64 * 8  # cublasLtMatmulAlgo_t
_SOMEWHERE = 1 << 20  # an address for what is asked before there are any: aligned as all memory of a run is


class _Found(ctypes.Structure):
    """cublasLtMatmulHeuristicResult_t."""

    _fields_ = (
        ("algorithm", _ALGORITHM), ("workspace", ctypes.c_size_t), ("state", ctypes.c_int), ("waves", ctypes.c_float),
        ("reserved", ctypes.c_int * 4),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Offer:
    """An algorithm for a problem, and the memory it needs beside it."""

    algorithm: LtAlgorithm
    workspace: int


@cache
def _handle() -> int:
    """Of the library in the first GPU's context, which must be current."""
    return int(installed.find_cublaslt().module.create())


class _Described:
    """A problem in the library's descriptors."""

    def __init__(self, problem: ProductProblem, mode: str) -> None:
        self.lib = lib = installed.find_cublaslt().module
        self._made: list[tuple[Any, int]] = []
        wide = mode != "16f"
        self.types = (_COMPUTE[mode], _TYPES["float" if wide else "f16"])
        self.operation = self._keep(lib.matmul_desc_destroy, lib.matmul_desc_create(*self.types))
        epilogue = _RELU * problem.relu | _GELU * problem.gelu | _BIAS * (problem.c == "row")
        operation = lib.MatmulDescAttribute
        self._set("matmul_desc", self.operation, operation.TRANSA, ctypes.c_int32(problem.b.turned))
        self._set("matmul_desc", self.operation, operation.TRANSB, ctypes.c_int32(problem.a.turned))
        self._set("matmul_desc", self.operation, operation.EPILOGUE, ctypes.c_uint32(epilogue or _DEFAULT))
        if problem.c == "row":
            self._set("matmul_desc", self.operation, operation.BIAS_DATA_TYPE, ctypes.c_int32(_TYPES[problem.c_format]))
            self.bias(_SOMEWHERE)
        m, n, k, batch = problem.m, problem.n, problem.k, problem.batch
        self.left = self._layout(problem.b, (k, n) if problem.b.turned else (n, k), batch)
        self.right = self._layout(problem.a, (m, k) if problem.a.turned else (k, m), batch)
        self.result = self._layout(Side(problem.stored, turned=False, line=n, batch=m * n), (n, m), batch)
        self.layouts = (self.left, self.right, self.result, self.result)
        self.formats = tuple(
            _TYPES[one] for one in (problem.b.format, problem.a.format, problem.stored, problem.stored)
        )
        number = ctypes.c_float if wide else _Half
        self.alpha, self.beta = number(problem.alpha), number(problem.beta)

    def __del__(self) -> None:
        for destroy, made in reversed(self._made):
            destroy(made)

    def _keep(self, destroy: Any, made: int) -> int:
        self._made.append((destroy, made))
        return made

    def _set(self, what: str, descriptor: int, attribute: int, value: Any) -> None:
        setter = getattr(self.lib, f"{what}_set_attribute")
        setter(descriptor, int(attribute), ctypes.addressof(value), ctypes.sizeof(value))

    def _layout(self, side: Side, extents: tuple[int, int], batch: int) -> int:
        lib = self.lib
        made = self._keep(
            lib.matrix_layout_destroy,
            lib.matrix_layout_create(_TYPES[side.format], *extents, max(side.line, extents[0])),
        )
        if batch > 1:
            attribute = lib.MatrixLayoutAttribute
            self._set("matrix_layout", made, attribute.BATCH_COUNT, ctypes.c_int32(batch))
            self._set("matrix_layout", made, attribute.STRIDED_BATCH_OFFSET, ctypes.c_int64(side.batch))
        return made

    def bias(self, address: int) -> None:
        """Where the row that is added lies."""
        self._set("matmul_desc", self.operation, self.lib.MatmulDescAttribute.BIAS_POINTER, ctypes.c_uint64(address))

    def preference(self) -> int:
        """What algorithms are asked for: sums of ranges of k stay in FP32."""
        lib = self.lib
        made = self._keep(lib.matmul_preference_destroy, lib.matmul_preference_create())
        attribute = lib.MatmulPreferenceAttribute
        self._set("matmul_preference", made, attribute.MAX_WORKSPACE_BYTES, ctypes.c_uint64(WORKSPACE))
        self._set("matmul_preference", made, attribute.REDUCTION_SCHEME_MASK, ctypes.c_uint32(IN_FP32))
        return made

    def algorithm(self, wanted: LtAlgorithm) -> Any:
        """The algorithm of a name.

        Raises:
            cuBLASLtError: there is none for these types.
        """
        made = _ALGORITHM()
        self.lib.matmul_algo_init(_handle(), *self.types, *self.formats, wanted.config[0], ctypes.addressof(made))
        held = self.config(made)
        for (name, kind), value, before in zip(_CONFIG, wanted.config, held, strict=True):
            if value != before:
                attribute = getattr(self.lib.MatmulAlgoConfigAttribute, name)
                given = kind(value)
                self.lib.matmul_algo_config_set_attribute(
                    ctypes.addressof(made), int(attribute), ctypes.addressof(given), ctypes.sizeof(given)
                )
        return made

    def config(self, algorithm: Any) -> tuple[int, ...]:
        """What names an algorithm."""
        found = []
        for name, kind in _CONFIG:
            value, written = kind(), ctypes.c_size_t()
            attribute = getattr(self.lib.MatmulAlgoConfigAttribute, name)
            self.lib.matmul_algo_config_get_attribute(
                ctypes.addressof(algorithm), int(attribute), ctypes.addressof(value), ctypes.sizeof(value), ctypes.addressof(written),
            )  # fmt: skip
            found.append(int(value.value))
        return tuple(found)

    def checked(self, algorithm: Any) -> int:
        """Bytes of workspace that it needs.

        Raises:
            cuBLASLtError: it does not compute the problem.
        """
        result = _Found()
        self.lib.matmul_algo_check(
            _handle(), self.operation, *self.layouts, ctypes.addressof(algorithm), ctypes.addressof(result)
        )
        return int(result.workspace)


class _Half(ctypes.Structure):
    """A number in FP16."""

    _fields_ = (("bits", ctypes.c_uint16),)

    def __init__(self, value: float) -> None:
        super().__init__(int(np.float16(value).view(np.uint16)))


@cache
def offers(problem: ProductProblem, mode: str = "32f", most: int = 16) -> tuple[Offer, ...]:
    """Algorithms for a problem, those first that the library takes for the fastest; none when it knows none.

    Raises:
        InputError: the library is not there.
    """
    found = installed.find_cublaslt()
    lib, described = found.module, _Described(problem, mode)
    results, count = (_Found * most)(), ctypes.c_int()
    with suppress(lib.cuBLASLtError):
        lib.matmul_algo_get_heuristic(
            _handle(), described.operation, *described.layouts, described.preference(), most, ctypes.addressof(results), ctypes.addressof(count),
        )  # fmt: skip
    made = {}
    for one in results[: count.value]:
        if one.state == 0:
            algorithm = LtAlgorithm(found.version, mode, described.config(one.algorithm))
            made.setdefault(algorithm, Offer(algorithm, int(one.workspace)))
    return tuple(made.values())


@cache
def workspace_of(problem: ProductProblem, algorithm: LtAlgorithm) -> int | str:
    """Bytes that an algorithm needs for a problem, or why it does not compute it. Nothing is searched for."""
    found = installed.find_cublaslt()
    try:
        described = _Described(problem, algorithm.mode)
        made = described.algorithm(algorithm)
        return described.checked(made)
    except found.module.cuBLASLtError as error:
        return f"cuBLASLt does not compute {problem.m} x {problem.n} x {problem.k} so: {error}"


@dataclass(frozen=True, slots=True)
class ProductRoutine(Routine):
    """A product by one algorithm. Arguments: a, b, c, y, workspace; c may be null."""

    problem: ProductProblem
    algorithm: LtAlgorithm
    workspace: int

    @property
    def entry(self) -> str:
        return "cublaslt"

    def __str__(self) -> str:
        return str(self.algorithm)

    def ready(self) -> Enqueue:
        """As ``Routine.ready``."""
        found = installed.find_cublaslt()
        installed.same_version(found, str(self), self.algorithm.version)
        lib, problem, lock = found.module, self.problem, Lock()
        try:
            described = _Described(problem, self.algorithm.mode)
            algorithm = described.algorithm(self.algorithm)
            described.checked(algorithm)
        except lib.cuBLASLtError as error:
            raise CudaError(f"cuBLASLt refuses {self}: {error}", hint="tune again") from error

        def enqueue(arguments: Sequence[Argument], stream: int) -> None:
            a, b, c, y, workspace = (one.value or 0 for one in arguments)
            with lock:  # the row's address is part of the descriptor
                if problem.c == "row":
                    described.bias(c)
                try:
                    lib.matmul(
                        _handle(), described.operation, ctypes.addressof(described.alpha), b, described.left, a, described.right,
                        ctypes.addressof(described.beta), c if problem.c == "matrix" else y, described.result, y, described.result,
                        ctypes.addressof(algorithm), workspace, self.workspace, stream,
                    )  # fmt: skip
                except lib.cuBLASLtError as error:
                    raise CudaError(f"cuBLASLt fails in {self}: {error}", hint="--deny cublaslt") from error

        return enqueue
