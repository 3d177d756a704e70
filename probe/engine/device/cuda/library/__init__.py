"""Vendors' libraries beside our kernels, as tactics: cuBLASLt for products, cuDNN for convolutions. An optional extra, imported when asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from probe.engine.device.cuda.ops.products.family import Family

PREFIXES = ("cublaslt_", "cudnn_")  # of their tactics' names


def families() -> tuple[Family, ...]:
    """Those of the libraries that are installed; none without a GPU. They are loaded, which takes seconds, when a family is first asked."""
    from probe.engine.device.cuda.library import installed
    from probe.engine.device.cuda.library.convolutions import CudnnFamily
    from probe.engine.device.cuda.library.products import CublasLtFamily

    found: list[Family] = []
    if installed.is_installed("nvmath"):
        found.append(CublasLtFamily())
    if installed.is_installed("cudnn"):
        found.append(CudnnFamily())
    return tuple(found)


def absence(name: str) -> str:
    """Why nobody here computes what a name says; "" when it is no library's name, or the library is there."""
    from probe.engine.device.cuda.library import installed

    if name.startswith(PREFIXES[0]):
        return installed.find_cublaslt().reason
    return installed.find_cudnn().reason if name.startswith(PREFIXES[1]) else ""
