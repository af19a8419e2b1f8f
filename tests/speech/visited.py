"""Counts the characters that code looks at, so that "linear" is a number and no time.

`Counted` is text that counts what is copied and searched of it. `counting` puts
patterns that count into modules: a match costs what it consumed, a search what it went
over, and one that fails whatever it may have looked at, which is its longest possible
match or the rest of the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from types import ModuleType
from typing import Any, SupportsIndex, TypeVar
from unittest import mock

T = TypeVar("T")


class Meter:
    """The characters visited so far."""

    visited = 0


def _cost(name: str) -> Any:
    plain = getattr(str, name)

    def counted(self: str, *args: Any) -> Any:
        Meter.visited += len(self)
        found = plain(self, *args)
        return Counted(found) if type(found) is str else found

    return counted


class Counted(str):
    """A text whose operations count the characters that they copy or look at."""

    __slots__ = ()

    def __getitem__(self, key: SupportsIndex | slice) -> str:
        found = str.__getitem__(self, key)
        Meter.visited += len(found)
        return Counted(found) if isinstance(key, slice) else found

    def __add__(self, other: str) -> str:
        Meter.visited += len(self) + len(other)
        return Counted(str.__add__(self, other))

    def __radd__(self, other: str) -> str:
        Meter.visited += len(self) + len(other)
        return Counted(str.__add__(other, self))

    def __iter__(self) -> Iterator[str]:
        Meter.visited += len(self)
        return str.__iter__(self)

    def find(self, sub: str, start: Any = 0, end: Any = None) -> int:
        end = len(self) if end is None else min(end, len(self))
        found = str.find(self, sub, start, end)
        Meter.visited += max(0, (found if found >= 0 else end) - start)
        return found

    def rfind(self, sub: str, start: Any = 0, end: Any = None) -> int:
        end = len(self) if end is None else min(end, len(self))
        found = str.rfind(self, sub, start, end)
        Meter.visited += max(0, end - (found if found >= 0 else start))
        return found

    strip = _cost("strip")
    lstrip = _cost("lstrip")
    rstrip = _cost("rstrip")
    count = _cost("count")
    replace = _cost("replace")
    partition = _cost("partition")
    split = _cost("split")
    translate = _cost("translate")
    lower = _cost("lower")
    __contains__ = _cost("__contains__")


@cache
def _width(pattern: re.Pattern[str]) -> int:
    """The longest text that the pattern can match, and the character behind it."""
    parser = re._parser  # type: ignore[attr-defined]
    return int(parser.parse(pattern.pattern, pattern.flags).getwidth()[1]) + 1


class Pattern:
    """A compiled pattern that counts; see the module."""

    def __init__(self, pattern: re.Pattern[str]) -> None:
        self._pattern = pattern
        self.pattern = pattern.pattern
        self._width = _width(pattern)

    def _count(self, found: Any, text: str, pos: int, end: int, most: int) -> Any:
        reached = found.end() if found else min(len(text), end, pos + most)
        Meter.visited += max(1, reached - pos)
        return found

    def match(self, text: str, pos: int = 0, end: int = 1 << 60) -> Any:
        found = self._pattern.match(text, pos, end)
        return self._count(found, text, pos, end, self._width)

    def fullmatch(self, text: str, pos: int = 0, end: int = 1 << 60) -> Any:
        found = self._pattern.fullmatch(text, pos, end)
        return self._count(found, text, pos, end, self._width)

    def search(self, text: str, pos: int = 0, end: int = 1 << 60) -> Any:
        found = self._pattern.search(text, pos, end)
        return self._count(found, text, pos, end, 1 << 60)

    def finditer(self, text: str, pos: int = 0, end: int = 1 << 60) -> Any:
        Meter.visited += min(len(text), end) - pos
        return self._pattern.finditer(text, pos, end)

    def findall(self, text: str) -> Any:
        Meter.visited += len(text)
        return self._pattern.findall(text)

    def sub(self, to: Any, text: str) -> str:
        Meter.visited += len(text)
        return self._pattern.sub(to, text)

    def split(self, text: str) -> Any:
        Meter.visited += len(text)
        return self._pattern.split(text)


def _counted(value: T, wrapped: dict[int, Pattern]) -> Any:
    if isinstance(value, re.Pattern):
        return wrapped.setdefault(id(value), Pattern(value))
    if isinstance(value, tuple):
        return tuple(_counted(one, wrapped) for one in value)
    if isinstance(value, dict):
        return {key: _counted(one, wrapped) for key, one in value.items()}
    return value


@contextmanager
def counting(*modules: ModuleType) -> Iterator[None]:
    """The patterns of these modules count: globals, and those of their objects."""
    wrapped: dict[int, Pattern] = {}
    with ExitStack() as stack:
        for module in modules:
            for name, value in list(vars(module).items()):
                own = type(value).__module__ == module.__name__
                if name == "special":
                    found = partial(_special, value)
                    stack.enter_context(mock.patch.object(module, name, found))
                elif isinstance(value, re.Pattern | tuple | dict) and name[:2] != "__":
                    found = _counted(value, wrapped)
                    stack.enter_context(mock.patch.object(module, name, found))
                elif own and hasattr(value, "__dict__"):
                    for field, inner in list(vars(value).items()):
                        if isinstance(inner, re.Pattern):
                            found = _counted(inner, wrapped)
                            stack.enter_context(mock.patch.object(value, field, found))
        yield


def _special(special: Any, **how: bool) -> Pattern:
    return Pattern(special(**how))
