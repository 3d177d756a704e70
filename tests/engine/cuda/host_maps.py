"""A ``TileMap`` as kernels on the host take it: the struct of host/tma.cuh."""

from __future__ import annotations

import ctypes

from probe.engine.device.cuda.tensors.maps import TileMap


class HostMap(ctypes.Structure):
    _fields_ = (
        ("at", ctypes.c_void_p), ("strides", ctypes.c_uint64 * 4), ("element", ctypes.c_int), ("windows", ctypes.c_int),
        ("extents", ctypes.c_int * 5), ("box", ctypes.c_int * 5), ("lower", ctypes.c_int * 3), ("upper", ctypes.c_int * 3),
        ("steps", ctypes.c_int * 3), ("rounds", ctypes.c_int),
    )  # fmt: skip


def host_map(tile_map: TileMap) -> HostMap:
    layout, windows, three = tile_map.layout, tile_map.layout.windows, ctypes.c_int * 3
    box, extents = ((*own, *(1 for _ in range(5 - len(own)))) for own in (layout.box, layout.extents))
    made = HostMap(
        tile_map.value, (ctypes.c_uint64 * 4)(*layout.strides), layout.format.bytes, int(windows is not None),
        (ctypes.c_int * 5)(*extents), (ctypes.c_int * 5)(*box),
    )  # fmt: skip
    made.rounds = int(layout.rounds)
    if windows is not None:
        made.lower, made.upper, made.steps = three(*windows.lower), three(*windows.upper), three(*windows.strides)
    return made
