"""The part of a request's text that has come and is not lexed yet."""

from __future__ import annotations


class Source:
    """A window into the source: ``text`` begins at offset ``base``.

    What was lexed is dropped when more comes, not at every step: a copy of the rest for
    each mark in it would take time by the square of its length.
    """

    __slots__ = ("_before", "base", "text")

    def __init__(self) -> None:
        self.text = ""
        self.base = 0
        self._before = "\n\n"

    def __repr__(self) -> str:
        return f"<Source at={self.base} held={len(self.text)}>"

    def take(self, size: int) -> None:
        """Move on by ``size`` characters."""
        self._before = (self._before + self.text[max(0, size - 2) : size])[-2:]
        self.text = self.text[size:]
        self.base += size

    def skip(self, size: int) -> None:
        """Drop what there is and the next ``size`` characters; a line begins there."""
        self.base += len(self.text) + size
        self.text = ""
        self._before = "\n\n"

    def before(self, at: int) -> str:
        """The character before position ``at`` of ``text``, which may be -1 or 0."""
        return self.text[at - 1] if at > 0 else self._before[at - 1]

    def in_word(self, at: int) -> bool:
        """Whether ``at`` stands behind a Latin letter or digit."""
        before = self.before(at)
        return before.isascii() and before.isalnum()
