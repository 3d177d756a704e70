"""What torch takes for the same work: a CUDA graph over inputs that together exceed the L2 cache, median of repeats."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import torch

COLD_BYTES = 256 << 20
REPEATS = 15


def graph_seconds(work: Callable[..., Any], inputs: Sequence[Any], written: int) -> float:
    """Seconds of ``work(*inputs)``.

    Args:
        written: bytes that it writes.
    """
    moved = sum(one.numel() * one.element_size() for one in inputs) + written
    count = max(1, min(64, math.ceil(COLD_BYTES / moved)))
    sets = [[one.clone(memory_format=torch.preserve_format) for one in inputs] for _ in range(count)]
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            work(*sets[0])
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        for one in sets:
            work(*one)
    times = []
    for _ in range(REPEATS + 3):
        events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
        events[0].record()
        graph.replay()
        events[1].record()
        torch.cuda.synchronize()
        times.append(events[0].elapsed_time(events[1]) * 1e-3 / count)
    return statistics.median(times[3:])
