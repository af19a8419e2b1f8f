"""Lean imports leave everything as it was."""

from __future__ import annotations

import gc
import importlib
import sys

import pytest

from bridge.cli.imports import UNWANTED, lean


def test_what_is_unwanted_cannot_be_imported_inside_and_can_outside(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [n for n in sys.modules if n.partition(".")[0] == UNWANTED]:
        monkeypatch.delitem(sys.modules, name)
    with lean():
        assert not gc.isenabled()
        with pytest.raises(ImportError):
            importlib.import_module(UNWANTED)
    assert gc.isenabled()
    assert importlib.import_module(UNWANTED).__name__ == UNWANTED


def test_what_is_there_already_stays() -> None:
    module = importlib.import_module(UNWANTED)
    with lean():
        assert sys.modules[UNWANTED] is module
    assert sys.modules[UNWANTED] is module
    assert gc.isenabled()
