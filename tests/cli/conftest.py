"""Small recordings to compare: one golden, and others that pass, warn, fail or cannot be judged against it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

RANGE = 4.0


@pytest.fixture(scope="session")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recordings")
    rng = np.random.default_rng(7)
    logits = rng.uniform(-1, 1, (2, 50)).astype(np.float32)
    logits[:, 0] = RANGE
    golden = {
        "in/x": np.ones((2, 3), np.float32),
        "out/logits": logits,
        "hidden": rng.normal(size=(2, 64)).astype(np.float32),
    }

    def save(name: str, error: float = 0.0, **changed: np.ndarray | None) -> None:
        moved = logits.copy()
        moved[1, 7] += np.float32(error * RANGE)
        arrays = golden | {"out/logits": moved} | changed
        np.savez(folder / name, **{k: v for k, v in arrays.items() if v is not None})  # type: ignore[arg-type]

    nan = logits.copy()
    nan[1, 3] = np.nan
    save("golden.npz")
    save("same.npz")
    save("warns.npz", 0.02)
    save("fails.npz", 0.3)
    save("nan.npz", **{"out/logits": nan})
    save("missing.npz", **{"out/logits": None, "out/other": logits})
    save("shape.npz", **{"out/logits": logits[:, :40]})
    save("ints.npz", **{"out/logits": logits.astype(np.int64)})
    (folder / "truncated.npz").write_bytes((folder / "golden.npz").read_bytes()[:300])
    (folder / "notes.txt").write_text("not a recording")
    (folder / "polygraphy.json").write_text('{"lst": [], "polygraphy_class": "RunResults"}')
    return folder
