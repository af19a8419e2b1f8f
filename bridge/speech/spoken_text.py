"""Spoken text with the way back to the source that it came from."""

from __future__ import annotations

import re
from bisect import bisect_right

from bridge.speech.characters import CLOSING, ENCLOSURES, OPENING, PARAGRAPH

#: White space that is kept back until it is known what follows it.
_BLANK = " \t\r\xa0\u202f"

_QUOTES = re.compile('["“”„«»]')

#: A longer run of it is text at once: so much in a row ends whatever it follows.
_MAX_BLANK = 32


class Piece:
    """A run of spoken text: the source itself, or an atom that stands for some of it.

    An atom (a link, an address, an announcement) is never cut.
    """

    __slots__ = ("atom", "end", "source", "source_end", "start")

    def __init__(
        self, start: int, end: int, source: int, source_end: int, *, atom: bool
    ) -> None:
        self.start = start
        self.end = end
        self.source = source
        self.source_end = source_end
        self.atom = atom

    def __repr__(self) -> str:
        kind = "atom" if self.atom else "text"
        return (
            f"<Piece {kind} {self.start}:{self.end} of {self.source}:{self.source_end}>"
        )


class SpokenText:
    """What was lexed and not yet cut off; positions in ``text`` start at 0.

    ``text`` never begins with white space: a cut takes along what follows it. Nor does
    it end with any: ``blank`` keeps that back, for what comes next may be left out, and
    a closing mark behind that wants no space before it ("Good job 🎉." is "Good job.").
    """

    def __init__(self, start: int = 0) -> None:
        self.text = ""
        #: White space at the end that is not in ``text`` yet.
        self.blank = ""
        self._blank_at = 0
        self._from = start
        self._pieces: list[Piece] = []
        self._has_atoms = False
        #: Something was left out here: see `leave_out`.
        self._gap = False
        self._apart = False
        self._opens = False
        #: Nothing was said since the last break.
        self._fresh = True
        #: The quotation mark that is open, if one is.
        self._quote = ""

    def __repr__(self) -> str:
        return f"<SpokenText {self.text!r} pieces={len(self._pieces)}>"

    def say(self, text: str, source: int) -> None:
        """Append ``text``, which stands at ``source`` in the source as it is."""
        if self._gap or self._fresh:
            text, source = self._resume(text, source)
        if '"' in text or not text.isascii():
            self._note_quotes(text)
        if source < self._from:
            text = text[self._from - source :]
            source = self._from
        if not self.text:
            size = len(text)
            text = text.lstrip()
            source += size - len(text)
        if not text:
            return
        said = text.rstrip(_BLANK)
        if said:
            if self.blank:
                self._flush_blank()
            self._append(said, source)
            if len(said) == len(text):
                return
            source += len(said)
            text = text[len(said) :]
        self._add_blank(text, source)

    def _add_blank(self, text: str, source: int) -> None:
        if not self.blank:
            self._blank_at = source
        elif self._blank_at + len(self.blank) != source:
            self._flush_blank()
            self._blank_at = source
        self.blank += text
        if len(self.blank) > _MAX_BLANK or self.text[-1:] in _BLANK:
            self._flush_blank()

    def _flush_blank(self) -> None:
        blank, self.blank = self.blank, ""
        self._append(blank, self._blank_at)

    def _append(self, text: str, source: int) -> None:
        at = len(self.text)
        self.text += text
        if self._pieces:
            last = self._pieces[-1]
            same = not last.atom and last.end == at and last.source_end == source
            if same and last.end - last.start == source - last.source:
                last.end += len(text)
                last.source_end += len(text)
                return
        self._pieces.append(
            Piece(at, at + len(text), source, source + len(text), atom=False)
        )

    def say_instead(self, text: str, source: int, source_end: int) -> None:
        """Append ``text`` as an atom in place of ``source:source_end``."""
        if self._gap or self._fresh:
            text, _ = self._resume(text, source)
        if source < self._from or not (text if self.text else text.strip()):
            return
        if self.blank:
            self._flush_blank()
        self._append_atom(text, source, source_end)

    def _append_atom(self, text: str, source: int, source_end: int) -> None:
        at = len(self.text)
        self.text += text
        self._pieces.append(Piece(at, at + len(text), source, source_end, atom=True))
        self._has_atoms = True

    def leave_out(self, *, apart: bool = False, opens: bool = False) -> None:
        """Something is not spoken here.

        White space is not doubled by it, and none is left before a closing mark.
        ``apart``: it was separate, so that the words on both sides do not become
        one, and a closing mark behind it at the beginning of a line goes too.
        ``opens``: it belongs to what follows, which may be ".NET".
        """
        self._opens = opens and (self._opens or not self._gap)
        self._gap = True
        self._apart = self._apart or apart

    def _resume(self, text: str, source: int) -> tuple[str, int]:
        """What of ``text`` is said behind something left out, or behind a break."""
        said = text.lstrip(_BLANK)
        if not self._gap:
            self._fresh = self._fresh and not said
            return text, source
        if said and self._fresh and self._apart and said[0] in CLOSING:
            said = said.lstrip(CLOSING + _BLANK)
        at = source + len(text) - len(said)
        spaced = self.blank or self._fresh or self.text[-1:] in _BLANK
        if at > source and not spaced and self.text[-1:] not in OPENING:
            # One space for all the spaces around the gap.
            self.blank, self._blank_at = text[0], source
        if not said:
            return "", source
        if self._closes(said[0]):
            self.blank = ""
        elif at == source and self._apart and not spaced:
            self._append_atom(" ", source, source)
        self._gap = self._apart = self._opens = self._fresh = False
        return said, at

    def _closes(self, char: str) -> bool:
        if self._opens:
            return False
        return char in CLOSING or char in ENCLOSURES.get(self._quote, "")

    def _note_quotes(self, text: str) -> None:
        for char in _QUOTES.findall(text):
            closes = char in ENCLOSURES.get(self._quote, "")
            self._quote = "" if closes or char not in ENCLOSURES else char

    def close_mark(self, source: int, source_end: int) -> None:
        """Count a closing mark that is not spoken to what stands before it."""
        if self._pieces and not self.blank:
            last = self._pieces[-1]
            if last.end == len(self.text) and last.source_end == source:
                last.source_end = source_end

    def break_line(self, source: int) -> None:
        """Append a line break, which may or may not end a sentence."""
        self._break("\n", source)

    def break_block(self, source: int) -> None:
        """Append the end of a block, once."""
        self._break(PARAGRAPH, source)
        self._quote = ""

    def _break(self, char: str, source: int) -> None:
        self._gap = self._apart = self._opens = False
        self._fresh = True
        if source >= self._from and self.text and not self.text.endswith(PARAGRAPH):
            if self.blank:
                self._flush_blank()
            self.text += char
        self.blank = ""

    def atom_end(self, at: int) -> int:
        """The end of the atom that ``at`` stands in, not at whose end; or ``at``."""
        if self._has_atoms:
            piece = self._piece(at)
            if piece is not None and piece.atom and piece.start <= at < piece.end - 1:
                return piece.end
        return at

    def atom_start(self, at: int) -> int:
        """The start of the atom that a cut at ``at`` would go through; or ``at``."""
        if self._has_atoms:
            piece = self._piece(at)
            if piece is not None and piece.atom and piece.start < at < piece.end:
                return piece.start
        return at

    def source_of(self, at: int) -> int:
        """Where the spoken character at ``at`` begins in the source."""
        piece = self._piece(at)
        if piece is None or piece.atom or at >= piece.end:
            return piece.source if piece else self._from
        return piece.source + at - piece.start

    def source_after(self, at: int) -> int:
        """Where the spoken character at ``at`` ends in the source."""
        piece = self._piece(at)
        if piece is None:
            return self._from
        if piece.atom or at + 1 >= piece.end:
            return piece.source_end
        return piece.source + at + 1 - piece.start

    def cut(self, at: int) -> None:
        """Forget the first ``at`` characters, and the white space behind them."""
        rest = self.text[at:].lstrip()
        at = len(self.text) - len(rest)
        self.text = rest
        if not rest:
            self.blank = ""
        kept = [piece for piece in self._pieces if piece.end > at]
        self._has_atoms = False
        for piece in kept:
            if piece.start < at and not piece.atom:
                piece.source += at - piece.start
            piece.start = max(0, piece.start - at)
            piece.end -= at
            self._has_atoms = self._has_atoms or piece.atom
        self._pieces = kept

    def _piece(self, at: int) -> Piece | None:
        index = bisect_right(self._pieces, at, key=_start_of) - 1
        return self._pieces[index] if index >= 0 else None


def _start_of(piece: Piece) -> int:
    return piece.start
