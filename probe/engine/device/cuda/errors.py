"""What the CUDA device says when a call fails: CUDA's name of the error, the launch, the limits, what to try."""

from __future__ import annotations

from probe.errors import EXIT_INPUT, ProbeError


class CudaError(ProbeError):
    """A call into CUDA failed: out of memory, a refused launch, a fault inside a kernel."""


class OutOfMemory(CudaError):  # noqa: N818 - what it is
    """The GPU has no room left for what a network needs: the user's input, and not our bug.

    Args:
        nbytes: that were asked for.
        free, total: bytes of the GPU.
        gpu: its name.
    """

    exit_code = EXIT_INPUT

    def __init__(self, nbytes: int, free: int, total: int, gpu: str, *, where: str = "") -> None:
        what = f"out of GPU memory: {_size(nbytes)} asked for, {_size(free)} of {_size(total)} are free on {gpu}"
        hint = "a smaller batch (--input-shapes), fp16 in place of fp32, nothing else on the GPU, or --device cpu"
        super().__init__(what, where=where, hint=hint)
        self.nbytes, self.free, self.total, self.gpu = nbytes, free, total, gpu

    def at(self, where: str) -> OutOfMemory:
        """The same, said of a place; of the innermost that knows itself."""
        return self if self.where else OutOfMemory(self.nbytes, self.free, self.total, self.gpu, where=where)


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


class Missing(Exception):  # noqa: N818 - an answer: nothing can be planned from here on
    """What would be launched depends on values that nobody has computed. Not ``Unsupported``: no other kernel is looked for."""
