"""Rows of the table for ONNX's own Attention and RotaryEmbedding. As cases.py."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.engine.cuda.cases import Case

_BOUNDS: dict[str, Any] = {"ulps": 64.0, "sum_ulps": 64.0, "scale": 0.7}


def _random(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def _bools(*shape: int) -> np.ndarray:
    """A mask; its fourth row hides every key."""
    found = _random(*shape) > -0.6
    found[..., 3, :] = False
    return found


def _floats(*shape: int) -> np.ndarray:
    """A mask that is added; its fourth row hides every key."""
    found = _random(*shape)
    found[..., ::5] = -np.inf
    found[..., 3, :] = -np.inf
    return found


def _attention(
    name: str, q: Any, k: Any, v: Any = None, outputs: int = 1, opset: int = 23, *, more: Any = None, **attributes: Any
) -> Case:
    given = {"q": q, "k": k, "v": v or k}
    named = dict.fromkeys(("-mask", "-past_k", "-past_v", "-lengths"), ())
    for key, one in (more or {}).items():
        named = {
            key if f"-{key}" == before else before: one if f"-{key}" == before else had for before, had in named.items()
        }
    while named and next(reversed(named)).startswith("-"):
        named.popitem()
    return Case("Attention", {**given, **named}, attributes, outputs, opset=opset, name=f"Attention_{name}", **_BOUNDS)


_THREE = {"q_num_heads": 6, "kv_num_heads": 2}

ATTENTION = (
    _attention("plain", (2, 3, 20, 16), (2, 3, 37, 16), (2, 3, 37, 24)),
    _attention("causal", (1, 2, 33, 16), (1, 2, 33, 16), is_causal=1),
    _attention("heads_of_10", (1, 3, 7, 10), (1, 3, 9, 10), (1, 3, 9, 6), is_causal=1),
    _attention("groups", (2, 6, 19, 16), (2, 2, 33, 16), is_causal=1, scale=0.11),
    _attention("groups_in_rows", (2, 19, 96), (2, 33, 32), more={"mask": _bools(2, 1, 19, 33)}, **_THREE),
    _attention("one_batch_in_rows", (1, 40, 96), (1, 40, 32), is_causal=1, **_THREE),
    _attention("step", (2, 8, 1, 16), (2, 2, 1, 16), outputs=3, more={"past_k": (2, 2, 40, 16), "past_v": (2, 2, 40, 16)}, is_causal=1),
    _attention("step_in_rows", (2, 1, 96), (2, 1, 32), outputs=3, more={"mask": _random(2, 6, 1, 30), "past_k": (2, 2, 29, 16), "past_v": (2, 2, 29, 16)}, **_THREE),
    _attention("behind_a_past", (1, 2, 17, 16), (1, 2, 17, 16), outputs=3, more={"past_k": (1, 2, 9, 16), "past_v": (1, 2, 9, 16)}, is_causal=1),
    _attention("bools", (1, 2, 18, 16), (1, 2, 20, 16), more={"mask": _bools(18, 20)}),
    _attention("floats", (1, 4, 18, 16), (1, 4, 21, 16), more={"mask": _floats(1, 4, 18, 21)}),
    _attention("bools_and_causal", (1, 2, 18, 16), (1, 2, 20, 16), more={"mask": _bools(1, 1, 18, 20)}, is_causal=1),
    _attention("cap", (1, 2, 17, 16), (1, 2, 17, 16), is_causal=1, softcap=1.5),
    *(
        _attention(f"scores_{mode}", (1, 2, 18, 16), (1, 2, 20, 16), outputs=4, more={"mask": _floats(18, 20)}, softcap=2.0, qk_matmul_output_mode=mode)
        for mode in range(4)
    ),
    _attention("weights", (1, 2, 20, 16), (1, 2, 300, 16), outputs=4, qk_matmul_output_mode=3),
    _attention("lengths", (3, 4, 5, 16), (3, 2, 24, 16), opset=24, more={"lengths": np.array([24, 9, 3])}, is_causal=1),
    _attention("lengths_of_steps", (2, 4, 1, 16), (2, 2, 24, 16), opset=24, more={"lengths": np.array([24, 9])}),
    _attention("long_step", (2, 8, 1, 16), (2, 2, 1, 16), outputs=3, more={"past_k": (2, 2, 299, 16), "past_v": (2, 2, 299, 16)}, is_causal=1),
    _attention("few_queries", (1, 2, 5, 24), (1, 2, 5, 24), (1, 2, 5, 40), outputs=3, more={"mask": _floats(5, 205), "past_k": (1, 2, 200, 24), "past_v": (1, 2, 200, 40)}, is_causal=1),
    _attention("few_of_many_heads", (2, 6, 4, 128), (2, 2, 150, 128), more={"mask": _bools(2, 6, 4, 150)}, softcap=3.0),
    _attention("few_in_rows", (2, 2, 96), (2, 140, 32), more={"mask": _bools(2, 1, 4, 140)[:, :, 2:]}, **_THREE),
    _attention("lengths_of_long_steps", (3, 4, 1, 64), (3, 2, 400, 64), opset=24, more={"lengths": np.array([400, 129, 3])}),
    _attention("large", (1, 1, 20, 16), (1, 1, 20, 16), more={"mask": np.float32(1e5) * _random(20, 20)}),
    _attention("window", (1, 2, 21, 16), (1, 2, 16, 16), opset=25, left_window_size=2, right_window_size=1),
    _attention("causal_window", (1, 2, 6, 16), (1, 2, 6, 16), outputs=3, opset=25, more={"past_k": (1, 2, 20, 16), "past_v": (1, 2, 20, 16)}, is_causal=1, left_window_size=5),
)  # fmt: skip


def _rotary(name: str, x: tuple[int, ...], tables: tuple[int, ...], places: Any = None, **attributes: int) -> Case:
    angles = _random(*tables)
    inputs: dict[str, Any] = {"x": x, "cos": ("w", np.cos(angles)), "sin": ("w", np.sin(angles))}
    if places is not None:
        inputs["places"] = places
    return Case("RotaryEmbedding", inputs, attributes, opset=23, ulps=4, sum_ulps=4, name=f"RotaryEmbedding_{name}")


_PLACES = np.array([[3, 0, 7, 7, 49], [1, 2, 3, 4, 5]])
ROTARY = (
    _rotary("halves", (2, 3, 5, 16), (50, 8), _PLACES), _rotary("neighbours", (2, 3, 5, 16), (50, 8), _PLACES, interleaved=1),
    _rotary("rows", (2, 5, 48), (50, 8), _PLACES, num_heads=3), _rotary("rows_of_neighbours", (2, 5, 48), (50, 8), _PLACES, num_heads=3, interleaved=1),
    _rotary("a_part", (2, 3, 5, 20), (50, 6), _PLACES, rotary_embedding_dim=12), _rotary("a_part_of_neighbours", (2, 3, 5, 24), (50, 8), _PLACES, rotary_embedding_dim=16, interleaved=1),
    _rotary("without_places", (2, 3, 5, 16), (2, 5, 8)), _rotary("odd", (2, 3, 5, 15), (2, 5, 3), rotary_embedding_dim=6),
    _rotary("odd_neighbours", (2, 3, 5, 15), (2, 5, 3), rotary_embedding_dim=6, interleaved=1), _rotary("pairs", (1, 2, 3, 6), (1, 3, 3)),
)  # fmt: skip
# on a GPU: long rows
LONG = (
    _attention("long_causal", (1, 12, 1024, 64), (1, 12, 1024, 64), is_causal=1),
    _attention("long_groups", (1, 32, 700, 128), (1, 8, 700, 128), is_causal=1),
    _attention("long_mask", (2, 8, 640, 64), (2, 8, 640, 64), more={"mask": _bools(2, 1, 640, 640)}),
    _attention("long_in_rows", (2, 600, 12 * 64), (2, 600, 4 * 64), is_causal=1, q_num_heads=12, kv_num_heads=4),
    _attention("short_causal", (8, 12, 200, 64), (8, 12, 200, 64), is_causal=1),
    _attention("long_step", (4, 32, 1, 128), (4, 8, 1, 128), outputs=3, more={"past_k": (4, 8, 2047, 128), "past_v": (4, 8, 2047, 128)}, is_causal=1),
)  # fmt: skip
