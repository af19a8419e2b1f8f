"""The hash that any other client has to reproduce."""

from __future__ import annotations

from collections import Counter

import pytest

from bridge.client.cells import cell_of, request_id


@pytest.mark.parametrize(
    ("tenant", "id", "cells", "cell"),
    [
        # CRC-32 (IEEE) of "default/req-1" is 0x8f0b42fe.
        ("default", "req-1", 1, 0),
        ("default", "req-1", 4, 0x8F0B42FE % 4),
        ("default", "req-1", 7, 0x8F0B42FE % 7),
        ("acme", "123456789", 1000, 593),
    ],
)
def test_known_cells(tenant: str, id: str, cells: int, cell: int) -> None:
    assert cell_of(tenant, id, cells) == cell


def test_cells_are_used_alike() -> None:
    found = Counter(cell_of("default", f"req-{i}", 4) for i in range(4000))
    assert set(found) == {0, 1, 2, 3}
    assert min(found.values()) > 900


def test_there_is_at_least_one_cell() -> None:
    with pytest.raises(ValueError, match="at least one"):
        cell_of("default", "req-1", 0)


def test_the_requests_of_a_session_share_a_cell() -> None:
    cell = cell_of("default", "call", 3)
    for _ in range(20):
        id = request_id("default", None, "call", supersede=False, cells=3)
        assert cell_of("default", id, 3) == cell
