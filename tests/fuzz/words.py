"""The words of the fuzzer's answers, and JSON that knows where they stand.

Each word is unlike every other, so that a missing, doubled or invented one is seen.
They are what models say that readers stumble over: several scripts, control
characters, quotes, and text that looks like JSON, like an event stream or its end.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import Any

_FORMS = [
    " {}", " {}", " {}", "{},", "{}.", "{}", "the {} ", "词{}語", "ΔЖ {}",
    "العربية {}", "हिन्दी{}", "é\u0301{}", "😀{}", "👩‍👩‍👧{}🏽", "{}𝕏",
    '"{}"', '\\{}\\n', "'{}'", '{{"a": "{}"}}', "[{}]", '{{"choices":[{{"delta":'
    '{{"content":"{}"}}}}]}}', "data: {}", "\n\ndata: [DONE] {}\n\n", "[DONE]{}",
    "data: {{{}}}\n", "event: error\n{}", ": {}\n", '{{"error":"{}"}}', "Error: {}",
    "\n{}\n", "{}\r\n", "\t{}", "\x01{}\x1f", "\0{}", "\x7f{}\x85", "\u2028{}",
    "\ufeff{}", "\ufffd{}", "<think>{}", "</think>{}", "}}{}{{", "]{}", "null{}",
    "  {}  ", "{}\u00a0", "<|im_end|>{}", "```json\n{}", "\u202e{}", "\U0010ffff{}",
]  # fmt: skip

_WHITE = [" ", "\n", "\n\n", "\t", "  "]


class Word(str):
    """A string that the answer says: its bytes are not damaged."""

    __slots__ = ()


@dataclass
class Bits:
    """Bytes that stand for a JSON value as they are."""

    data: bytes


class Speaker:
    """Makes words, one unlike the other."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._count = 0

    def word(self) -> str:
        """The next word; never empty, with a number that no other one has."""
        self._count += 1
        return self._rng.choice(_FORMS).format(f"«{self._count}»")

    def name(self) -> str:
        """A name of letters and figures, unlike every other."""
        self._count += 1
        return f"name{self._count}x"

    def white(self) -> str:
        """White space, which is like any other."""
        return self._rng.choice(_WHITE)


@dataclass
class Look:
    """How a server prints JSON."""

    ascii: bool = True
    item: str = ","
    colon: str = ":"
    indent: int | None = None
    raw_controls: bool = False

    @classmethod
    def any(cls, rng: random.Random) -> Look:
        spaced = rng.random() < 0.4
        return cls(
            ascii=rng.random() < 0.5,
            item=", " if spaced else ",",
            colon=": " if spaced else ":",
            raw_controls=rng.random() < 0.15,
        )


#: Bytes, and whether they are a word's.
Part = tuple[bytes, bool]


def encode(value: Any, look: Look) -> list[Part]:
    """The JSON of a value; infinities as Python, JavaScript and C++ print them."""
    parts: list[Part] = []
    _encode(value, look, 0, parts)
    return parts


def _encode(value: Any, look: Look, depth: int, parts: list[Part]) -> None:
    if isinstance(value, Bits):
        parts.append((value.data, False))
    elif isinstance(value, str):
        inside = _string(value, look)
        if isinstance(value, Word):
            parts += [(b'"', False), (inside, True), (b'"', False)]
        else:
            parts.append((b'"%b"' % inside, False))
    elif isinstance(value, dict):
        _container(b"{}", list(value.items()), look, depth, parts)
    elif isinstance(value, list):
        _container(b"[]", [(None, item) for item in value], look, depth, parts)
    else:
        parts.append((json.dumps(value).encode(), False))


def _container(
    brackets: bytes,
    items: list[tuple[str | None, Any]],
    look: Look,
    depth: int,
    parts: list[Part],
) -> None:
    before, between = b"", look.item.encode()
    after = b""
    if look.indent is not None and items:
        line = "\n" + " " * look.indent * (depth + 1)
        before, between = line.encode(), ("," + line).encode()
        after = ("\n" + " " * look.indent * depth).encode()
    parts.append((brackets[:1] + before, False))
    for number, (name, item) in enumerate(items):
        if number:
            parts.append((between, False))
        if name is not None:
            key = b'"%b"%b' % (_string(name, look), look.colon.encode())
            parts.append((key, False))
        _encode(item, look, depth + 1, parts)
    parts.append((after + brackets[1:], False))


def _string(text: str, look: Look) -> bytes:
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(text)[1:-1].encode()
    if look.raw_controls and not look.ascii:
        kept = "".join(
            c
            if c < " " and c not in "\n\r"
            else json.dumps(c, ensure_ascii=False)[1:-1]
            for c in text
        )
        return kept.encode()
    return json.dumps(text, ensure_ascii=look.ascii)[1:-1].encode()


def well_formed(text: str) -> str:
    """``text`` with halves of surrogate pairs joined, and U+FFFD for lone ones."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def joined(parts: list[Part]) -> bytes:
    """The bytes of some parts."""
    return b"".join(data for data, _ in parts)
