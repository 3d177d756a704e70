"""``FakeLt``: what we call of nvmath.bindings.cublasLt, on memory of the host: descriptors, two algorithms, products in numpy."""

from __future__ import annotations

import ctypes
from enum import IntEnum

import ml_dtypes
import numpy as np

VERSION = 130100
TYPES = {0: np.dtype(np.float32), 2: np.dtype(np.float16), 14: np.dtype(ml_dtypes.bfloat16)}
ALGORITHMS = {66: (66, 20, 36, 1, 0, 0, 0, 0, 2), 21: (21, 15, 8, 4, 2, 0, 0, 0, 0)}  # the second in four ranges of k
RESULT_BYTES = 96


class cuBLASLtError(Exception):  # noqa: N801 - its name there
    pass


class Fake:
    """Counts descriptors that are alive."""

    cuBLASLtError = cuBLASLtError  # noqa: N815 - its name there
    MatmulDescAttribute = IntEnum(
        "MatmulDescAttribute", {"TRANSA": 3, "TRANSB": 4, "EPILOGUE": 7, "BIAS_POINTER": 8, "BIAS_DATA_TYPE": 26}
    )
    MatrixLayoutAttribute = IntEnum("MatrixLayoutAttribute", {"BATCH_COUNT": 5, "STRIDED_BATCH_OFFSET": 6})
    MatmulPreferenceAttribute = IntEnum(
        "MatmulPreferenceAttribute", {"MAX_WORKSPACE_BYTES": 1, "REDUCTION_SCHEME_MASK": 3}
    )
    MatmulAlgoConfigAttribute = IntEnum(
        "MatmulAlgoConfigAttribute",
        {"ID": 0, "TILE_ID": 1, "SPLITK_NUM": 2, "REDUCTION_SCHEME": 3, "CTA_SWIZZLING": 4, "CUSTOM_OPTION": 5, "STAGES_ID": 6, "INNER_SHAPE_ID": 7,
         "CLUSTER_SHAPE_ID": 8},
    )  # fmt: skip
    ORDER = (0, 1, 6, 2, 3, 4, 5, 7, 8)  # attribute of each number of ALGORITHMS

    def __init__(self) -> None:
        self.things: dict[int, dict] = {}
        self.calls: list[tuple[int, int]] = []  # algorithm, stream
        self.asked = 0  # searches

    def get_version(self) -> int:
        return VERSION

    def create(self) -> int:
        return 7

    def _new(self, **facts) -> int:
        made = 1000 + len(self.things) * 8
        while made in self.things:
            made += 8
        self.things[made] = facts
        return made

    def _destroy(self, made: int) -> None:
        del self.things[made]

    matmul_desc_destroy = matrix_layout_destroy = matmul_preference_destroy = _destroy

    def matmul_desc_create(self, compute: int, scale: int) -> int:
        return self._new(compute=compute, scale=scale)

    def matrix_layout_create(self, kind: int, rows: int, cols: int, line: int) -> int:
        assert line >= rows
        return self._new(type=TYPES[kind], rows=rows, cols=cols, line=line)

    def matmul_preference_create(self) -> int:
        return self._new()

    def _set(self, made: int, attribute: int, at: int, size: int) -> None:
        self.things[made][attribute] = int.from_bytes(ctypes.string_at(at, size), "little")

    matmul_desc_set_attribute = matrix_layout_set_attribute = matmul_preference_set_attribute = _set

    def matmul_algo_get_heuristic(self, handle, operation, a, b, c, d, preference, most, results, count) -> None:
        self.asked += 1
        assert handle == 7 and self.things[preference][1] > 0 and self.things[preference][3] == 2
        for at, config in enumerate(list(ALGORITHMS.values())[:most]):
            begin = results + at * RESULT_BYTES
            ctypes.memmove(begin, np.array(config, np.uint32)[np.argsort(self.ORDER)].tobytes(), 36)
            workspace = self._workspace(config, d)
            ctypes.memmove(begin + 64, workspace.to_bytes(8, "little") + bytes(8), 16)
        ctypes.c_int.from_address(count).value = min(most, len(ALGORITHMS))

    def _workspace(self, config, d: int) -> int:
        result = self.things[d]
        return 4 * config[3] * result["rows"] * result["cols"] if config[3] > 1 else 0

    def matmul_algo_init(self, handle, compute, scale, a, b, c, d, number, algorithm) -> None:
        if number not in ALGORITHMS:
            raise cuBLASLtError("NOT_SUPPORTED (15)")
        ctypes.memset(algorithm, 0, 64)
        ctypes.c_uint32.from_address(algorithm).value = number

    def matmul_algo_config_set_attribute(self, algorithm, attribute, at, size) -> None:
        ctypes.memmove(algorithm + 4 * attribute, at, size)

    def matmul_algo_config_get_attribute(self, algorithm, attribute, at, size, written) -> None:
        ctypes.memmove(at, algorithm + 4 * attribute, size)

    def _config(self, algorithm: int) -> tuple[int, ...]:
        held = np.frombuffer(ctypes.string_at(algorithm, 36), np.uint32)
        return tuple(int(held[attribute]) for attribute in self.ORDER)

    def matmul_algo_check(self, handle, operation, a, b, c, d, algorithm, result) -> None:
        config = self._config(algorithm)
        if config not in ALGORITHMS.values():
            raise cuBLASLtError("INVALID_VALUE (7)")
        ctypes.c_uint64.from_address(result + 64).value = self._workspace(config, d)

    def _matrices(self, at: int, layout: int) -> np.ndarray:
        """A view of memory, [batch, rows, columns]."""
        one = self.things[layout]
        size, batch, step = one["type"].itemsize, one.get(5, 1), one.get(6, 0)
        span = (batch - 1) * step + (one["cols"] - 1) * one["line"] + one["rows"]
        flat = np.frombuffer((ctypes.c_ubyte * (span * size)).from_address(at), one["type"])
        return np.lib.stride_tricks.as_strided(
            flat, (batch, one["rows"], one["cols"]), (step * size, size, one["line"] * size)
        )

    def matmul(
        self, handle, operation, alpha, a, a_l, b, b_l, beta, c, c_l, d, d_l, algorithm, workspace, nbytes, stream
    ) -> None:
        config, op = self._config(algorithm), self.things[operation]
        needed = self._workspace(config, d_l)
        assert nbytes >= needed
        ctypes.memset(workspace, 0x77, needed)  # whoever lies there shows
        half = op["scale"] == 2
        numbers = [
            np.frombuffer(ctypes.string_at(one, 2 if half else 4), np.float16 if half else np.float32)[0]
            for one in (alpha, beta)
        ]
        left, right = (self._matrices(*one).astype(np.float32) for one in ((a, a_l), (b, b_l)))
        left, right = (np.swapaxes(one, 1, 2) if op[key] else one for one, key in ((left, 3), (right, 4)))
        total: np.ndarray = np.zeros(1, np.float32)
        for part in np.array_split(np.arange(left.shape[2]), config[3]):
            total = total + left[:, :, part] @ right[:, part]
        total = np.float32(numbers[0]) * total
        if numbers[1]:
            total = total + np.float32(numbers[1]) * self._matrices(c, c_l).astype(np.float32)
        if op[7] & 4:
            kind = TYPES[op[26]]
            row = np.frombuffer(ctypes.string_at(op[8], total.shape[1] * kind.itemsize), kind).astype(np.float32)
            total = total + row[None, :, None]
        if op[7] & 2:
            total = np.maximum(total, 0)
        self._matrices(d, d_l)[...] = total
        self.calls.append((config[0], stream))
