"""Where spoken text may be cut: sentences, early clauses, and what a limit forces.

Everything is decided by the text from the last cut on, in its order, each place once:
what was decided does not change when more text comes, and how the text was split into
deltas does not matter. A place that needs what is not there yet is waited for.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from bridge.speech.characters import (
    ENCLOSURES,
    PARAGRAPH,
    SPACED_CLAUSE,
    SPEAKABLE,
    STRONG,
    WEAK,
    WIDE_CLAUSE,
    weight,
    within_weight,
)
from bridge.speech.fallbacks import (
    anywhere,
    clause_before,
    space_before,
    stop_at_end,
)
from bridge.speech.options import SpeechOptions
from bridge.speech.places import UNDECIDED, Place, clause, is_inside, opens, thai_space
from bridge.speech.sentences import base_language, ends_sentence
from bridge.speech.spoken_text import SpokenText

#: What lies past ``max_chars`` while the last place before it is still being decided,
#: and what a space or clause mark at the limit itself is judged by.
_LOOKAHEAD = 64
_MARGIN = 8

_ENCLOSING = re.escape("".join([*ENCLOSURES, *ENCLOSURES.values()]))
_PLACES = re.compile(
    rf"[{WEAK}]+|[{STRONG}]|[\n{PARAGRAPH}]|[{_ENCLOSING}]"
    rf"|(?<=[\u0e01-\u0e5b\u0e81-\u0edf]) +"
)
_CLAUSES = f"{SPACED_CLAUSE}{WIDE_CLAUSE}"
_EARLY_PLACES = re.compile(rf"{_PLACES.pattern}|[{_CLAUSES}]")
#: A run of stops; an ellipsis may be written with spaces between its dots.
_RUN = re.compile(rf"[{WEAK}]+(?: \.(?![^\s.]))*")
_RUN_BEGUN = re.compile(r" \.?\Z")
_SPACE = re.compile(r"\s+")

#: What goes on after a quotation that ends with a full stop: Japanese particles, as in
#: 「…。」と言った, and Chinese verbs of saying, as in “…？”他问.
_SAYING = re.compile(
    r"[とっなはをにもがでの、，]|(?:[他她它我你您][们們]?)?[说說问問道答喊叫]"
)
_SAYING_BEGUN = re.compile(r"(?:[他她它我你您][们們]?)?\Z")

#: A Thai clause of so many characters is worth a cut at the space behind it.
_THAI_CLAUSE = 24


class _Enclosure(NamedTuple):
    """An enclosure that is open; ``outer`` is the one around it.

    Linked, for a stop looks what closes behind it before it is known to be one: the
    stack of before is still there then, and nothing was copied.
    """

    char: str
    at: int
    outer: _Enclosure | None
    #: Where the outermost one was opened.
    first: int


class Cuts:
    """Finds the next cut in a `SpokenText`. Not to be called concurrently.

    ``said``: how much of the source was said before. Nothing yet: a sentence of any
    length will do. Less than ``first_min_chars``: a clause is enough.
    """

    def __init__(self, options: SpeechOptions, *, said: int) -> None:
        self._options = options
        self._language = base_language(options.language)
        self._said = said
        #: Whether the next characters decide a place that has been found.
        self.waiting = False
        self._reset()

    def __repr__(self) -> str:
        state = "waiting" if self.waiting else "scanning"
        opened = self._open.char if self._open else ""
        return f"<Cuts {state} at={self._at} said={self._said} open={opened!r}>"

    @property
    def early(self) -> bool:
        """Whether a clause is enough."""
        return self._said < self._options.first_min_chars

    def _reset(self) -> None:
        self._at = 0
        self._open: _Enclosure | None = None
        #: How much of the text has nothing in it to be said.
        self._silent = 0
        self._speakable = False
        self._short = 0
        self._inner = 0

    def cut(self, *, said: int | None) -> None:
        """The text was cut where `find` or `release` said; positions start anew.

        ``said``: up to where the source has been said now, if something was.
        """
        self._said = self._said if said is None else said
        self.waiting = False
        self._reset()

    def find(self, spoken: SpokenText, *, at_once: bool, final: bool) -> int:
        """The end of the next segment, or 0 if there is none yet.

        ``at_once``: nothing can follow a strong stop at the end of the text that would
        belong to it. ``final``: no more text comes.
        """
        text = spoken.text
        limit = self._options.max_chars
        places = _EARLY_PLACES if self.early else _PLACES
        self.waiting = False
        while found := places.search(text, self._at):
            start = spoken.atom_end(found.start())
            if start > found.start():
                self._at = start
                continue
            if start > limit or (start * 2 > limit and weight(text[:start]) > limit):
                break
            place, end = self._judge(text, start, at_once=at_once, final=final)
            if place is Place.UNDECIDED:
                self.waiting = True
                return self._forced(spoken, limit + _LOOKAHEAD)
            end = spoken.atom_start(end)
            self._at = max(end, start + 1)
            if place is not Place.NOTHING and self._accepts(text, place, end):
                return end
        else:
            self._at = len(text)
        return self._forced(spoken, limit if final else limit + _MARGIN)

    def _judge(
        self, text: str, at: int, *, at_once: bool, final: bool
    ) -> tuple[Place, int]:
        char = text[at]
        if char in WEAK:
            return self._weak(text, at, final=final)
        if char in STRONG:
            return self._strong(text, at, at_once=at_once, final=final)
        if char == PARAGRAPH:
            self._open = None
            return Place.PARAGRAPH, at + 1
        if char == "\n":
            return self._line(text, at, final=final)
        if char == " ":
            return thai_space(text, at, final=final)
        if char in _CLAUSES:
            return clause(text, at, final=final)
        return self._enclosure(text, at, final=final)

    # Stops

    def _weak(self, text: str, start: int, *, final: bool) -> tuple[Place, int]:
        run = _RUN.match(text, start)
        stop = run.end() if run else start + 1
        closed = self._closers(text, stop)
        if not final and (closed is None or _RUN_BEGUN.match(text, stop)):
            return UNDECIDED
        after, still_open, aside = closed or (len(text), self._open, False)
        ends = ends_sentence(text, start, stop, after, self._language, final=final)
        if ends is None:
            return UNDECIDED
        self._open = still_open
        return (Place.SENTENCE if ends and not aside else Place.NOTHING), after

    def _strong(
        self, text: str, start: int, *, at_once: bool, final: bool
    ) -> tuple[Place, int]:
        stop = start + 1
        if not self._open and (at_once or stop < len(text)):
            return Place.SENTENCE, stop
        while stop < len(text) and text[stop] in STRONG:
            stop += 1
        closed = self._closers(text, stop)
        if closed is None and not final:
            return UNDECIDED
        after, still_open, aside = closed or (len(text), self._open, False)
        if not final and after > stop and _SAYING_BEGUN.match(text, after):
            return UNDECIDED
        self._open = still_open
        goes_on = after > stop and _SAYING.match(text, after) is not None
        ends = after == len(text) or not (aside or goes_on)
        return (Place.SENTENCE if ends else Place.NOTHING), after

    def _closers(
        self, text: str, stop: int
    ) -> tuple[int, _Enclosure | None, bool] | None:
        """Pass over the closing marks behind a stop.

        Returns where they end, what stays open, and whether they closed an aside (a
        bracket inside a sentence). ``None``: there may be more of them.
        """
        still_open = self._open
        aside = False
        at = stop
        while at < len(text):
            spaced = at + 1 if text[at : at + 2] in (" »", "\xa0»", "\u202f»") else at
            char = text[spaced]
            if char in "'’" and not text[at + 1 : at + 2].isalnum():
                at += 1
            elif still_open and char in ENCLOSURES[still_open.char]:
                aside = char in ")）]" and is_inside(text, still_open.at)
                still_open = still_open.outer
                at = spaced + 1
            else:
                break
        return None if at == len(text) else (at, still_open, aside)

    # Lines and enclosures

    def _line(self, text: str, at: int, *, final: bool) -> tuple[Place, int]:
        """A line break without a stop before it: the next line's first letter tells."""
        follow = _SPACE.match(text, at)
        end = follow.end() if follow else at + 1
        if PARAGRAPH in text[at:end]:
            return Place.NOTHING, at + 1
        if end == len(text) and not final:
            return UNDECIDED
        before = text[:at].rstrip()[-1:]
        goes_on = text[end : end + 1].islower() or before in ",;，、；،؛"
        return (Place.NOTHING if goes_on else Place.SENTENCE), end

    def _enclosure(self, text: str, at: int, *, final: bool) -> tuple[Place, int]:
        char = text[at]
        outer = self._open
        if outer and char in ENCLOSURES[outer.char]:
            self._open = outer.outer
        elif char in ENCLOSURES and (char != '"' or opens(text, at)):
            self._open = _Enclosure(char, at, outer, outer.first if outer else at)
        return Place.NOTHING, at + 1

    # What is taken

    def _accepts(self, text: str, place: Place, end: int) -> bool:
        if not self._speaks(text, end):
            return False
        options = self._options
        amount = weight(text[:end].rstrip())
        if amount > options.max_chars:
            return False
        if place is Place.SPACE or place is Place.CLAUSE:
            enough = _THAI_CLAUSE if place is Place.SPACE else options.first_min_chars
            return not self._open and amount >= enough
        if self._open:
            self._inner = end
            return amount * 2 >= options.max_chars
        self._short = end
        return self._said == 0 or amount >= options.min_chars

    def _speaks(self, text: str, end: int) -> bool:
        if not self._speakable and end > self._silent:
            found = SPEAKABLE.search(text, self._silent, end)
            self._speakable = found is not None
            self._silent = found.start() if found else end
        return self._speakable and end > self._silent

    def _forced(self, spoken: SpokenText, limit: int) -> int:
        text = spoken.text
        if len(text) * 2 <= limit or weight(text) <= limit:
            return 0
        most = within_weight(text, self._options.max_chars)
        least = max(self._options.min_chars, self._options.max_chars // 4)
        return (
            self._short
            or self._inner
            or clause_before(spoken, most, least)
            or space_before(spoken, most, self._language)
            or anywhere(spoken, most)
        )

    def release(self, spoken: SpokenText) -> int:
        """What a pause lets go: the end of the speakable part, or 0.

        Never inside a quotation or bracket, nor behind an abbreviation or a number that
        may go on.
        """
        text, options = spoken.text, self._options
        most = within_weight(text, options.max_chars)
        if self.waiting and not self._open:
            end = stop_at_end(text, self._language)
            if end:
                return end
        if self._short:
            return self._short
        if self._open:
            most = min(most, self._open.first)
        for end in (
            clause_before(spoken, most, options.first_min_chars),
            space_before(spoken, most, self._language),
        ):
            spoken_enough = weight(text[:end].rstrip()) >= options.first_min_chars
            if end and spoken_enough and SPEAKABLE.search(text, 0, end):
                return end
        return 0
