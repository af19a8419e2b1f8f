"""What a job's ``speech`` field may ask for (``docs/voice.md``, Options)."""

from __future__ import annotations

import re
from typing import Any, Literal

import msgspec

from bridge.errors import InvalidJob

#: BCP 47, as far as it matters here: a language, then whatever narrows it down.
_LANGUAGE = re.compile(r"[A-Za-z]{2,8}([-_][A-Za-z0-9]{1,8}){0,6}", re.ASCII)

#: Bounds of the settings that count characters. The upper one bounds what a segmenter
#: buffers per request, and is more than any speech engine takes in one go.
MIN_CHARS = 1
MAX_CHARS = 4000

#: Below this a segment could not be cut between words any more.
LEAST_MAX_CHARS = 20

#: A longer pause than a minute is a stalled backend, not a pause.
MAX_FLUSH_MS = 60_000

#: Said in place of a code block; a sentence, not a text.
MAX_ANNOUNCEMENT_CHARS = 200


class SpeechOptions(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """How a request's text is cut and what of it is spoken.

    Characters are code points of the spoken text; an East Asian wide one counts as
    two, for it takes about as long to say as two Latin ones.

    ``language`` is a BCP 47 tag, or ``auto``: by script, Latin text as English.

    ``thinking``: whether thoughts that a model writes at the beginning of its text
    (``<think>…</think>`` and the like) are spoken. ``begins_in_thought``: the prompt
    ended with the opening mark, so that the text begins inside a thought.
    """

    language: str = "auto"
    first_min_chars: int = 24
    min_chars: int = 10
    max_chars: int = 240
    flush_after_ms: int = 500
    markdown: Literal["strip", "keep"] = "strip"
    code: Literal["skip", "announce", "read"] = "skip"
    code_announcement: str = "Code block."
    tables: Literal["read", "skip"] = "read"
    links: Literal["text", "url", "skip"] = "text"
    emoji: Literal["skip", "keep"] = "skip"
    citations: Literal["skip", "keep"] = "skip"
    thinking: Literal["skip", "read"] = "skip"
    begins_in_thought: bool = False


def speech_options(value: bool | dict[str, Any]) -> SpeechOptions:
    """Read ``job.speech``: ``true`` stands for the defaults.

    ``false`` gives the defaults too: whether segments are wanted is the caller's
    question. Raises `InvalidJob` naming the field.
    """
    if isinstance(value, bool):
        return SpeechOptions()
    try:
        options = msgspec.convert(value, SpeechOptions)
    except msgspec.ValidationError as error:
        raise InvalidJob(f"speech is not valid: {_named(str(error))}") from error
    if not _LANGUAGE.fullmatch(options.language):
        raise InvalidJob("speech.language must be a BCP 47 tag such as 'en', or 'auto'")
    _check_lengths(options)
    return options


def _named(message: str) -> str:
    """The job's field for a path of msgspec's, which starts at ``$``."""
    return message.replace("`$.", "`speech.").replace("`$`", "`speech`")


def _check_lengths(options: SpeechOptions) -> None:
    _check_range("first_min_chars", options.first_min_chars, MIN_CHARS, MAX_CHARS)
    _check_range("min_chars", options.min_chars, MIN_CHARS, MAX_CHARS)
    _check_range("max_chars", options.max_chars, LEAST_MAX_CHARS, MAX_CHARS)
    _check_range("flush_after_ms", options.flush_after_ms, 1, MAX_FLUSH_MS)
    for name in ("first_min_chars", "min_chars"):
        if getattr(options, name) > options.max_chars:
            raise InvalidJob(f"speech.{name} must not exceed speech.max_chars")
    if len(options.code_announcement) > MAX_ANNOUNCEMENT_CHARS:
        raise InvalidJob(
            f"speech.code_announcement is longer than {MAX_ANNOUNCEMENT_CHARS} "
            "characters"
        )


def _check_range(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise InvalidJob(f"speech.{name} must be between {low} and {high}")
