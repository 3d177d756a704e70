"""``PROBE_SHARD=i/n`` splits the tests: every test runs in exactly one part."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tests.conftest import pytest_collection_modifyitems

ITEMS = [SimpleNamespace(nodeid=f"tests/room/test_{i % 7}.py::test_{i}") for i in range(200)]


def part(monkeypatch: pytest.MonkeyPatch, shard: str) -> list[str]:
    monkeypatch.setenv("PROBE_SHARD", shard)
    items = list(ITEMS)
    config = SimpleNamespace(hook=SimpleNamespace(pytest_deselected=lambda items: None))
    pytest_collection_modifyitems(config, items)  # pyright: ignore[reportArgumentType]
    return [item.nodeid for item in items]


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_every_test_is_in_exactly_one_part(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    parts = [part(monkeypatch, f"{i + 1}/{count}") for i in range(count)]
    assert sorted(one for names in parts for one in names) == sorted(item.nodeid for item in ITEMS)
    assert min(len(one) for one in parts) > len(ITEMS) / count / 2, "the parts are very unequal"


@pytest.mark.parametrize("shard", ["0/2", "3/2", "half", "1", "1/0"])
def test_a_wrong_shard_is_refused(monkeypatch: pytest.MonkeyPatch, shard: str) -> None:
    with pytest.raises(pytest.UsageError, match="i/n"):
        part(monkeypatch, shard)
