"""Spoken text with the way back to the source that it came from."""

from __future__ import annotations

from bisect import bisect_right

from bridge.speech.characters import PARAGRAPH


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

    ``text`` never begins with white space: a cut takes along what follows it.
    """

    def __init__(self, start: int = 0) -> None:
        self.text = ""
        self._from = start
        self._pieces: list[Piece] = []
        self._has_atoms = False

    def __repr__(self) -> str:
        return f"<SpokenText {self.text!r} pieces={len(self._pieces)}>"

    def say(self, text: str, source: int) -> None:
        """Append ``text``, which stands at ``source`` in the source as it is."""
        if source < self._from:
            text = text[self._from - source :]
            source = self._from
        if not self.text:
            size = len(text)
            text = text.lstrip()
            source += size - len(text)
        if not text:
            return
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
        if source < self._from or not (text if self.text else text.strip()):
            return
        at = len(self.text)
        self.text += text
        self._pieces.append(Piece(at, at + len(text), source, source_end, atom=True))
        self._has_atoms = True

    def close_mark(self, source: int, source_end: int) -> None:
        """Count a closing mark that is not spoken to what stands before it."""
        if self._pieces:
            last = self._pieces[-1]
            if last.end == len(self.text) and last.source_end == source:
                last.source_end = source_end

    def break_line(self, source: int) -> None:
        """Append a line break, which may or may not end a sentence."""
        if source >= self._from and self.text and not self.text.endswith(PARAGRAPH):
            self.text += "\n"

    def break_block(self, source: int) -> None:
        """Append the end of a block, once."""
        if source >= self._from and self.text and not self.text.endswith(PARAGRAPH):
            self.text += PARAGRAPH

    def drop_last(self, char: str) -> None:
        """Take back the last character, where it is ``char``."""
        if self.text.endswith(char) and self._pieces and not self._pieces[-1].atom:
            self.text = self.text[:-1]
            self._pieces[-1].end -= 1
            self._pieces[-1].source_end -= 1

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
