"""What the CUDA device says when a call fails: CUDA's name of the error, the launch, the limits, what to try."""

from __future__ import annotations

from probe.errors import EXIT_INPUT, ProbeError


class CudaError(ProbeError):
    """A call into CUDA failed: out of memory, a refused launch, a fault inside a kernel."""


class CompileError(ProbeError):
    """NVRTC refused a kernel. The log is in ``log``."""

    def __init__(self, what: str, *, where: str = "", hint: str = "", log: str = "") -> None:
        super().__init__(what, where=where, hint=hint)
        self.log = log


class Unsupported(Exception):  # noqa: N818 - an answer, not an error: the layer goes to the CPU device
    """A kernel does not take this call, for a reason that shows at run time only. Raised before anything is launched."""


def _size(nbytes: int) -> str:
    """``123 bytes``, ``1.50 GiB (1,610,612,736 bytes)``."""
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB")):
        if nbytes >= unit:
            return f"{nbytes / unit:.2f} {name} ({nbytes:,} bytes)"
    return f"{nbytes} bytes"


class Refused(Exception):  # noqa: N818 - an answer: the device says of which layer
    """A tactic that was asked for by name does not compute this problem. Raised before anything is launched; nothing else takes its place."""
