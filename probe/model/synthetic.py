"""Seeded data that looks like what networks see: smooth images, voiced waveforms, text. Every generator takes its own random state."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]

_WORDS = "the quick brown fox reads a small network where every layer keeps its own rounding error in sight".split()


def generator(seed: int, name: str) -> np.random.Generator:
    """A random state for one input: depends on (seed, name) only, so adding an input leaves the others' data alone."""
    digest = hashlib.sha256(f"{seed}\0{name}".encode("utf-8", "surrogatepass")).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))


def image(rng: np.random.Generator, shape: Shape, low: float, high: float, *, channels_last: bool) -> Array:
    """Smooth fields with a little grain, scaled to ``[low, high]`` per image; float32.

    Args:
        shape: ``[..., C, H, W]``, or ``[..., H, W, C]`` with ``channels_last``.
    """
    *items, channels, height, width = (*shape[:-3], shape[-1], *shape[-3:-1]) if channels_last else shape
    count = int(np.prod(items, dtype=np.int64)) if items else 1
    pixels = np.empty((count, channels, height, width), np.float32)
    y, x = np.linspace(0, 1, max(height, 1), dtype=np.float32), np.linspace(0, 1, max(width, 1), dtype=np.float32)
    for item in range(count):
        # Natural images: energy falls with frequency, channels are strongly correlated, sensors add grain.
        waves = np.arange(1, 13)
        fy, fx = rng.normal(0, waves).astype(np.float32), rng.normal(0, waves).astype(np.float32)
        py, px = rng.uniform(0, 2 * np.pi, (2, 12)).astype(np.float32)
        rows = np.cos(2 * np.pi * fy[:, None] * y + py[:, None]) / waves[:, None]
        columns = np.cos(2 * np.pi * fx[:, None] * x + px[:, None])
        shared = (rows.T @ columns).astype(np.float32)[:height, :width]
        for channel in range(channels):
            tint = rng.uniform(0.7, 1.3) * shared + rng.normal(0, 0.3)
            pixels[item, channel] = tint + rng.normal(0, 0.05, (height, width))
        if pixels[item].size:
            least, most = pixels[item].min(), pixels[item].max()
            unit = (pixels[item] - least) / np.float32(max(most - least, 1e-12))
            # The last clip keeps rounding from stepping over the bounds that the caller asked for.
            pixels[item] = np.clip(unit * np.float32(high - low) + np.float32(low), low, high)
    if channels_last:
        pixels = np.moveaxis(pixels, 1, -1)
    return np.ascontiguousarray(pixels).reshape(shape)


def waveform(rng: np.random.Generator, shape: Shape, rate: int = 16000) -> Array:
    """Voiced sound: a gliding fundamental with harmonics under a slow envelope, and noise; |x| < 0.5, float32 of ``shape``."""
    samples = shape[-1] if shape else 1
    count = int(np.prod(shape[:-1], dtype=np.int64)) if len(shape) > 1 else 1
    time = np.arange(samples) / rate
    signal = np.empty((count, samples), np.float32)
    for row in range(count):
        pitch = rng.uniform(90, 220) * (1 + 0.1 * np.sin(2 * np.pi * rng.uniform(0.5, 2) * time))
        phase = 2 * np.pi * np.cumsum(pitch) / rate
        voice = sum(np.sin(k * phase + rng.uniform(0, 6)) / k for k in range(1, 9))
        envelope = 0.55 + 0.45 * np.sin(2 * np.pi * rng.uniform(1, 4) * time + rng.uniform(0, 6))
        signal[row] = 0.12 * envelope * voice + 0.005 * rng.standard_normal(samples)
    return np.clip(signal, -0.5, 0.5).reshape(shape)


def text(rng: np.random.Generator, shape: Shape) -> Array:
    """Short English phrases; an object array of ``str``."""
    flat = [" ".join(rng.choice(_WORDS, 6)) for _ in range(int(np.prod(shape, dtype=np.int64)))]
    array = np.empty(len(flat), object)
    array[:] = flat
    return array.reshape(shape)
