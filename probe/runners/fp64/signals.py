"""Fourier transforms and windows."""

from __future__ import annotations

import numpy as np

from probe.runners.fp64.calls import Call, Kernel, numpy_type
from probe.runners.protocol import Array


def _complex(x: Array) -> Array:
    """The last axis holds real parts, or real and imaginary ones."""
    return x[..., 0] + 1j * x[..., 1] if x.shape[-1] == 2 else x[..., 0]


def _parts(x: Array) -> Array:
    return np.stack([x.real, x.imag], -1)


def _dft(call: Call, x: Array, length: Array | None = None, axis: Array | None = None) -> Array:
    along = call.get("axis", 1) if axis is None else int(axis.reshape(-1)[0])
    along = along % x.ndim
    inverse, onesided = bool(call["inverse"]), bool(call["onesided"])
    count = None if length is None else int(length.reshape(-1)[0])
    values = _complex(x)
    if inverse and onesided:
        return np.fft.irfft(values, count, axis=along)[..., None]
    made = np.fft.ifft(values, count, axis=along) if inverse else np.fft.fft(values, count, axis=along)
    return _parts(np.take(made, np.arange(made.shape[along] // 2 + 1), along) if onesided else made)


def _stft(
    call: Call, x: Array, frame_step: Array, window: Array | None = None, frame_length: Array | None = None
) -> Array:
    """``x[N, time, 1 or 2]`` -> ``[N, frames, bins, 2]``."""
    step = int(frame_step.reshape(-1)[0])
    values = _complex(x)
    length = (
        window.size
        if window is not None
        else values.shape[1]
        if frame_length is None
        else int(frame_length.reshape(-1)[0])
    )
    starts = np.arange((values.shape[1] - length) // step + 1) * step
    frames = values[:, starts[:, None] + np.arange(length)]
    made = np.fft.fft(frames if window is None else frames * window, axis=-1)
    return _parts(made[..., : length // 2 + 1] if call["onesided"] else made)


def _window(*coefficients: float) -> Kernel:
    """A sum of cosines: sum((-1)^k a_k cos(2 pi k n / N))."""

    def kernel(call: Call, size: Array) -> Array:
        count = int(size.reshape(-1)[0])
        period = count if call["periodic"] else count - 1
        angle = 2 * np.pi * np.arange(count) / period
        made = sum(((-1) ** k * a * np.cos(k * angle) for k, a in enumerate(coefficients)), np.zeros(count))
        return made.astype(numpy_type(call["output_datatype"]))

    return kernel


KERNELS: dict[str, Kernel] = {
    "DFT": _dft,
    "STFT": _stft,
    "HannWindow": _window(0.5, 0.5),
    "HammingWindow": _window(25 / 46, 21 / 46),
    "BlackmanWindow": _window(0.42, 0.5, 0.08),
}
