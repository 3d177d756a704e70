"""How every ONNX Runtime session of probe is set up: optimisation off, threads asleep between calls, memory given back."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from probe.errors import InputError
from probe.ort.errors import is_ort_error

if TYPE_CHECKING:
    import onnxruntime

CPU = "CPUExecutionProvider"
_MOST_THREADS = 4096
_SILENT = 4  # only fatal messages: refusals reach the user as exceptions


def session_options(threads: int = 0, libraries: Iterable[Path] = ()) -> onnxruntime.SessionOptions:
    """Settings every session shares: what is computed is what the graph says.

    Args:
        threads: of one operator; 0: as many as there are cores.
        libraries: of custom operators.

    Raises:
        InputError: a number of threads that no machine has; a custom-operator library is not there or cannot be loaded.
    """
    import onnxruntime

    if not 0 <= threads <= _MOST_THREADS:
        raise InputError(f"{threads} threads", where="--threads", hint=f"0, for one a core, to {_MOST_THREADS}")
    settings = onnxruntime.SessionOptions()
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    settings.log_severity_level = _SILENT
    settings.use_deterministic_compute = True
    settings.intra_op_num_threads = threads
    # Spinning threads gain nothing for one run (measured) and slow down whoever hashes and writes meanwhile.
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    settings.add_session_config_entry("session.inter_op.allow_spinning", "0")
    # Without arena and pattern each tensor is its own allocation: memory falls as tensors are consumed (with them it stays until the
    # session ends). No slower where every tensor is handed out.
    settings.enable_cpu_mem_arena = False
    settings.enable_mem_pattern = False
    for library in libraries:
        if not library.is_file():
            raise InputError(f"no such file: {library}", where="--custom-op-lib")
        try:
            settings.register_custom_ops_library(str(library.resolve()))
        except Exception as error:
            if not is_ort_error(error):
                raise
            said = " ".join(str(error).split())
            raise InputError(
                f"{library} cannot be loaded: {said[:400]}",
                where="--custom-op-lib",
                hint="it must be a shared library for this machine that exports RegisterCustomOps",
            ) from error
    return settings


def small_session(content: bytes) -> onnxruntime.InferenceSession:
    """A session on a model of probe's own."""
    import onnxruntime

    return onnxruntime.InferenceSession(content, session_options(threads=1), providers=[CPU])
