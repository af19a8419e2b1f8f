"""Whether a weak stop ends a sentence, from what stands around it.

`sentencex` (Wikimedia) knows the abbreviations, initials and sentence starters of many
languages; it is asked about one stop at a time, with a few words before it and the word
behind it, so that the cost does not grow with the text. What it cannot know is whether
the text goes on: ``None`` says that the next characters decide. The answer depends on
the text alone and never on how it was cut into deltas.
"""

from __future__ import annotations

import re

import sentencex  # type: ignore[import-untyped]

from bridge.speech.characters import ENCLOSURES, OPENERS, PARAGRAPH, WIDE

#: What sentencex sees before a stop: its rules look at a few words at most.
_CONTEXT = 60

#: No word that decides is longer; past it, the word counts as complete.
_MAX_WORD = 30

#: So much white space in a row ends whatever it follows.
_MAX_SPACE = 32


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: The languages that write ordinals with a full stop: "am 3. Mai", "den 2. juni".
_ORDINAL = _words("bs cs da de et fi fo hr hu is lb lt lv nb nn no pl sk sl sr sv tr")

#: What has a number behind it that is no ordinal: "in der Berliner Str. 12. Dann …".
_NUMBERED = _words("nr. str. art. abs. kap. s. bd. č. nr no. vol.")

#: A word this short, with a full stop and a number behind it, counts something:
#: "max. 5", "pág. 14", "рис. 3". Sentences that begin with a number are rare.
_MAX_COUNTED = 5

#: Abbreviations that come before a name and that some of sentencex's lists miss.
_TITLES = _words(
    "dr prof fa mr mrs ms mme mlle mm mgr me st ste dott sig av exa exma cf vs approx "
    "им др пр ср напр д ст тов डॉ श्री श्रीमती प्रो पं कु"
)

_SCRIPTS = (
    (re.compile(r"[\u0400-\u04ff]"), "ru"),
    (re.compile(r"[\u0600-\u06ff]"), "ar"),
    (re.compile(r"[\u0900-\u097f]"), "hi"),
    (re.compile(r"[\u0370-\u03ff]"), "el"),
    (re.compile(r"[\u0980-\u09ff]"), "bn"),
    (re.compile(r"[\u0530-\u058f]"), "hy"),
)
_CYRILLIC = _words("ru uk bg be sr mk kk ky mn tg")
_ARABIC = _words("ar fa ur ps ku ug sd")
_DEVANAGARI = _words("hi mr ne sa kok")
_OF_SCRIPT = {"ru": _CYRILLIC, "ar": _ARABIC, "hi": _DEVANAGARI}

_ITEM = re.compile(r"\d{1,3}[.)]\s")
_ITEM_BEGUN = re.compile(r"\d{1,3}[.)]?\Z")
_PARTS = re.compile(r"[./-]")
_WORD = re.compile(r"\w+")
_QUOTES = frozenset('"”’“»«')
_BEFORE_WORD = OPENERS | frozenset("—–-") - frozenset("¿¡")
_MARKS = str.maketrans("", "", "".join(ENCLOSURES) + "”」』》）)]‘‚")


def base_language(tag: str) -> str:
    """The code that sentencex takes for a BCP 47 tag; ``auto`` starts as English."""
    base = tag.replace("_", "-").partition("-")[0].lower()
    return "en" if base == "auto" else base


def ends_sentence(
    text: str, start: int, stop: int, after: int, language: str, *, final: bool
) -> bool | None:
    """Whether the weak stop ``text[start:stop]`` ends a sentence.

    ``after`` is where what follows begins, closing marks passed over. ``final`` says
    that no more text comes. ``None``: it depends on text that is not there yet.
    """
    follow = _following(text, after)
    if "\n" in text[after:follow] and not _abbreviates(text, start, stop, language):
        return True
    if follow == len(text):
        return True if final else None
    char = text[follow]
    if char == PARAGRAPH or follow - after > _MAX_SPACE:
        return True
    if follow == after:
        ellipsis = stop - start > 1 or text[start] == "…"
        return not ellipsis and WIDE.match(char) is not None and char.isalnum()
    return _continues(text, start, stop, follow, language, final=final)


def _following(text: str, after: int) -> int:
    """Where the next character that is no white space stands."""
    index = after
    while index < len(text) and text[index].isspace() and text[index] != PARAGRAPH:
        index += 1
    return index


def _continues(
    text: str, start: int, stop: int, follow: int, language: str, *, final: bool
) -> bool | None:
    """The stop is followed by white space and ``text[follow]``."""
    first = _first_letter(text, follow)
    if first == len(text):
        return True if final else None
    char = text[first]
    if char in "¿¡":
        return True
    if char.islower():
        return False
    if char.isdigit() and _ITEM.match(text):
        return _next_item(text, first, final=final)
    if _goes_on(text, start, stop, first, language):
        return False
    if text[stop : stop + 1] in _QUOTES and char.isalpha():
        return True
    return _asked(text, start, stop, first, language, final=final)


def _next_item(text: str, first: int, *, final: bool) -> bool | None:
    """In a list that is written in one line: whether the next item begins here."""
    if not final and _ITEM_BEGUN.match(text, first):
        return None
    return _ITEM.match(text, first) is not None


def _first_letter(text: str, follow: int) -> int:
    """Where the first word behind opening marks and dashes begins."""
    first = follow
    while first < len(text) and text[first] not in "¿¡":
        if text[first] not in _BEFORE_WORD and not text[first].isspace():
            break
        first += 1
    return first


def _goes_on(text: str, start: int, stop: int, first: int, language: str) -> bool:
    """Stops that sentencex would take for the end of a sentence."""
    char = text[first]
    if stop - start > 1 or text[start] == "…":
        # Where there is no upper case, an ellipsis is a pause more often than an end.
        return char.isalpha() and not char.isupper()
    return text[start] == "." and _never_ends(text, start, first, language)


def _asked(
    text: str, start: int, stop: int, first: int, language: str, *, final: bool
) -> bool | None:
    """Ask with the first letter of the next word, then with the word, once it is there.

    The first letter mostly suffices, and a word that is still growing could look like
    another one: "Albert I. Do" may become "Douglas".
    """
    if _boundary(text, start, stop, text[first], language):
        return True
    word = _WORD.match(text, first)
    if word is None:
        return False
    complete = final or word.end() < len(text) or len(word[0]) > _MAX_WORD
    if not complete:
        return None
    return _boundary(text, start, stop, word[0][:_MAX_WORD], language)


def _boundary(text: str, start: int, stop: int, word: str, language: str) -> bool:
    head = text[max(0, start - _CONTEXT) : start]
    if start > _CONTEXT:
        head = head.partition(" ")[2] or head
    head = head.replace(PARAGRAPH, " ").replace("\n", " ").translate(_MARKS)
    stops = text[start:stop]
    if len(stops) > 1 and ("?" in stops or "!" in stops):
        stops = stops[0] if stops[0] != "." else "?"
    context = f"{head}{stops} {word}"
    wanted = len(head) + len(stops)
    at = 0
    for part in sentencex.segment(_language_of(head, language), context):
        at += len(part)
        if at >= wanted:
            return at <= wanted + 1
    return False


def _abbreviates(text: str, start: int, stop: int, language: str) -> bool:
    """Whether the stop belongs to an abbreviation, whatever may follow it."""
    if text[start:stop] != ".":
        return False
    return _never_ends(text, start, stop, language) or not _boundary(
        text, start, stop, "Xx", language
    )


def abbreviates(text: str, stop: int, language: str) -> bool:
    """Whether ``text[:stop]`` ends with an abbreviation, an initial or a number's dot.

    Such a word is never the last one before a cut that a pause or a limit forces.
    """
    return text[stop - 1 : stop] == "." and (
        _abbreviates(text, stop - 1, stop, language)
        or text[stop - 2 : stop - 1].isdigit()
    )


def _never_ends(text: str, start: int, first: int, language: str) -> bool:
    """Full stops of numbers, initials, titles and what counts something."""
    words = text[max(0, start - _CONTEXT) : start].translate(_MARKS).split()[-2:]
    word = words[-1] if words else ""
    before = words[0] if len(words) == 2 else ""
    tail = _PARTS.split(word)[-1]
    if tail.isdigit():
        direct = word == tail and text[start - 1].isdigit()
        return not before or (direct and _ordinal(text, before, tail, first, language))
    if text[first : first + 1].isdigit() and len(tail) <= _MAX_COUNTED:
        return True
    if len(tail) == 1 and tail.isalpha():
        unit = before[-1:].isdigit()
        return (
            not before or not (unit or tail.isascii()) or (tail.islower() and not unit)
        )
    return word.lower() in _TITLES


def _ordinal(text: str, before: str, number: str, first: int, language: str) -> bool:
    if language not in _ORDINAL or len(number) > 2 or before.lower() in _NUMBERED:
        return False
    return text[first : first + 1].isalpha()


def _language_of(head: str, language: str) -> str:
    """The request's language, unless these words are in another script."""
    if head.isascii():
        return language
    for script, fallback in _SCRIPTS:
        if script.search(head):
            fits = _OF_SCRIPT.get(fallback, frozenset((fallback,)))
            return language if language in fits else fallback
    return language
