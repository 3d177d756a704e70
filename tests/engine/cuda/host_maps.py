"""A ``TileMap`` as kernels on the host take it: the struct of host/tma.cuh."""

from __future__ import annotations

import ctypes

from probe.engine.device.cuda.tensors.maps import TileMap


class HostMap(ctypes.Structure):
    _fields_ = (
        ("at", ctypes.c_void_p), ("strides", ctypes.c_uint64 * 3), ("element", ctypes.c_int), ("windows", ctypes.c_int),
        ("extents", ctypes.c_int * 4), ("box", ctypes.c_int * 4), ("lower", ctypes.c_int * 2), ("upper", ctypes.c_int * 2),
        ("steps", ctypes.c_int * 2), ("rounds", ctypes.c_int),
    )  # fmt: skip


def host_map(tile_map: TileMap) -> HostMap:
    layout, windows, two = tile_map.layout, tile_map.layout.windows, ctypes.c_int * 2
    box = (*layout.box, *(1 for _ in range(4 - len(layout.box))))
    made = HostMap(
        tile_map.value, (ctypes.c_uint64 * 3)(*layout.strides), layout.format.bytes, int(windows is not None),
        (ctypes.c_int * 4)(*layout.extents), (ctypes.c_int * 4)(*box),
    )  # fmt: skip
    made.rounds = int(layout.rounds)
    if windows is not None:
        made.lower, made.upper, made.steps = two(*windows.lower), two(*windows.upper), two(*windows.strides)
    return made
