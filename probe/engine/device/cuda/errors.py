"""What the CUDA device says when a call fails: CUDA's name of the error, the launch, the limits, what to try."""

from __future__ import annotations

from probe.errors import ProbeError


class CudaError(ProbeError):
    """A call into CUDA failed: out of memory, a refused launch, a fault inside a kernel."""


class CompileError(ProbeError):
    """NVRTC refused a kernel. The log is in ``log``."""

    def __init__(self, what: str, *, where: str = "", hint: str = "", log: str = "") -> None:
        super().__init__(what, where=where, hint=hint)
        self.log = log


class Unsupported(Exception):  # noqa: N818 - an answer, not an error: the layer goes to the CPU device
    """A kernel does not take this call, for a reason that shows at run time only. Raised before anything is launched."""
