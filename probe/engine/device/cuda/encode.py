"""The 128 bytes in which the GPU's copy engine takes a ``TileMap``, made by the driver."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

from cuda.bindings import driver  # pyright: ignore[reportAttributeAccessIssue] - compiled, without stubs

from probe.engine.device.cuda.errors import CudaError
from probe.engine.device.cuda.graphs import call
from probe.engine.device.cuda.tensors.maps import TileMap

Encoded = ctypes.Array[ctypes.c_ubyte]
_SIZE, _ALIGNMENT = 128, 64  # bytes
_SINCE = 12000  # the version of CUDA that brought the two functions


@cache
def _function(name: str) -> Any:
    """A function of the driver. The bindings have it too, but hand it memory that is not aligned as it demands."""
    flags = driver.CUdriverProcAddress_flags.CU_GET_PROC_ADDRESS_DEFAULT
    address, _ = call(driver.cuGetProcAddress(name.encode(), _SINCE, int(flags)), f"looking for {name}")
    return ctypes.CFUNCTYPE(ctypes.c_int)(int(address))


def encoded(tile_map: TileMap) -> Encoded:
    """What a kernel gets by value.

    Raises:
        CudaError: the driver refuses the layout.
    """
    layout = tile_map.layout
    raw = (ctypes.c_ubyte * (_SIZE + _ALIGNMENT))()
    start = -ctypes.addressof(raw) % _ALIGNMENT
    kinds = driver.CUtensorMapDataType
    kind = {
        "f16": kinds.CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
        "bf16": kinds.CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
        "float": kinds.CU_TENSOR_MAP_DATA_TYPE_FLOAT32,
        "tf32": kinds.CU_TENSOR_MAP_DATA_TYPE_TFLOAT32,
    }["tf32" if layout.rounds else layout.format.name]
    swizzles = driver.CUtensorMapSwizzle
    swizzled = {32: swizzles.CU_TENSOR_MAP_SWIZZLE_32B, 64: swizzles.CU_TENSOR_MAP_SWIZZLE_64B}
    fixed = (
        int(driver.CUtensorMapInterleave.CU_TENSOR_MAP_INTERLEAVE_NONE),
        int(swizzled.get(layout.line, swizzles.CU_TENSOR_MAP_SWIZZLE_128B)),
        int(driver.CUtensorMapL2promotion.CU_TENSOR_MAP_L2_PROMOTION_L2_256B),
        int(driver.CUtensorMapFloatOOBfill.CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE),
    )
    rank = len(layout.extents)
    common = (
        ctypes.c_void_p(ctypes.addressof(raw) + start), ctypes.c_int(int(kind)), ctypes.c_uint(rank), ctypes.c_void_p(tile_map.value),
        (ctypes.c_uint64 * rank)(*layout.extents), (ctypes.c_uint64 * (rank - 1))(*layout.strides),
    )  # fmt: skip
    if layout.windows is None:
        name = "cuTensorMapEncodeTiled"
        own = ((ctypes.c_uint * rank)(*layout.box), (ctypes.c_uint * rank)(*(1,) * rank))
    else:
        name = "cuTensorMapEncodeIm2col"
        windows = layout.windows
        corner = ctypes.c_int * len(windows.lower)
        own = (
            corner(*windows.lower), corner(*windows.upper), ctypes.c_uint(layout.box[0]), ctypes.c_uint(layout.box[1]),
            (ctypes.c_uint * rank)(1, *windows.strides, 1),
        )  # fmt: skip
    status = driver.CUresult(_function(name)(*common, *own, *(ctypes.c_int(one) for one in fixed)))
    if status != driver.CUresult.CUDA_SUCCESS:
        raise CudaError(f"{status.name} {name}: {layout} at {tile_map.value or 0:#x}", hint="--device cpu")
    made = (ctypes.c_ubyte * _SIZE)()
    ctypes.memmove(made, ctypes.addressof(raw) + start, _SIZE)
    return made
