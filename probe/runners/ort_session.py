"""An ONNX Runtime session that computes what the graph says: optimisation off, only the providers asked for, memory given back."""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probe.errors import InputError
from probe.ort.errors import explain, is_ort_error, tidy
from probe.ort.session import CPU, session_options
from probe.runners.protocol import RunnerOptions

if TYPE_CHECKING:
    import onnxruntime

    from probe.model.model import Model

_SHORT = {
    "cpu": CPU,
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "rocm": "ROCMExecutionProvider",
}
# A golden is FP32: TF32, which CUDA's provider would use, keeps 10 bits of mantissa.
_PROVIDER_OPTIONS = {"CUDAExecutionProvider": {"use_tf32": "0"}}
_PROVIDER_FAILED = re.compile(
    r"Please install|EP Error|ExecutionProvider|no CUDA-capable device|CUDA failure|cudaError"
)
_MISSING = re.compile(r"with error: (.+?)(?:\x1b|\n|$)")


def resolve_providers(names: Sequence[str]) -> list[str]:
    """ONNX Runtime's names for ``cpu``, ``cuda``, ``CUDAExecutionProvider``...

    Raises:
        InputError: this onnxruntime was built without it.
    """
    import onnxruntime

    available = onnxruntime.get_available_providers()
    full = list(dict.fromkeys(_SHORT.get(name.lower(), name) for name in names)) or [CPU]
    for name in full:
        if name not in available:
            raise InputError(
                f"this onnxruntime has no provider {name!r}", where="--providers", hint=f"it has {', '.join(available)}"
            )
    return full


def build_session(
    model: Model, content: bytes, external_dir: Path | None, options: RunnerOptions, providers: Sequence[str]
) -> onnxruntime.InferenceSession:
    """A session on ``content``, a form of ``model``.

    Raises:
        InputError: ONNX Runtime refuses the model, a custom-operator library, or a provider does not start (never another one instead).
    """
    import onnxruntime

    settings = session_options(options.threads, options.custom_op_libs)
    if external_dir is not None:
        settings.add_session_config_entry("session.model_external_initializers_file_folder_path", str(external_dir))
    arguments: list[Any] = [
        (name, _PROVIDER_OPTIONS[name]) if name in _PROVIDER_OPTIONS else name for name in providers
    ]
    foreign = [name for name in providers if name != CPU]
    if foreign and hasattr(onnxruntime, "preload_dlls"):
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find; what matters is said below
            onnxruntime.preload_dlls()  # CUDA and cuDNN from NVIDIA's wheels, where the system has none
    with _captured_stderr() if foreign else contextlib.nullcontext([""]) as said:
        try:
            session = onnxruntime.InferenceSession(content, settings, providers=arguments, enable_fallback=0)
        except Exception as error:
            if not is_ort_error(error):
                raise
            if foreign and _PROVIDER_FAILED.search(str(error)):
                raise _does_not_start(foreign[0], str(error), [CPU]) from error
            raise explain(error, model, "load the model") from error
    # Kept for switching providers, which probe never does: a second copy of the weights for as long as the session lives.
    if hasattr(session, "_model_bytes"):
        session._model_bytes = b""  # noqa: SLF001 - no public way
    active = session.get_providers()
    silent = [name for name in providers if name not in active]
    if silent:
        reason = _MISSING.search(said[0])
        raise _does_not_start(silent[0], reason[1] if reason else "", active)
    return session


def _does_not_start(provider: str, reason: str, active: Sequence[str]) -> InputError:
    why = tidy(reason)
    return InputError(
        f"the provider {provider} does not start" + (f": {why}" if why else ""),
        where="--providers",
        hint=f"install what it needs, or run on {', '.join(active)}: probe does not switch by itself",
    )


@contextlib.contextmanager
def _captured_stderr() -> Iterator[list[str]]:
    """Catch what native code writes to stderr. A provider that does not start tells the reason there and nowhere else."""
    said = [""]
    try:
        sys.stderr.flush()
        saved = os.dup(2)
    except (OSError, AttributeError):
        yield said
        return
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield said
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            file.seek(0)
            said[0] = file.read().decode(errors="replace")
