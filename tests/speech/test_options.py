"""What a job's ``speech`` may say, and how a wrong one is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bridge.errors import InvalidJob
from bridge.speech import SpeechOptions, speech_options


def test_true_stands_for_the_defaults() -> None:
    assert speech_options(True) == SpeechOptions() == speech_options({})


def test_what_is_given_is_taken_and_the_rest_has_defaults() -> None:
    options = speech_options(
        {"language": "de-AT", "max_chars": 100, "code": "announce"}
    )
    assert options == SpeechOptions(language="de-AT", max_chars=100, code="announce")


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ({"langauge": "en"}, "langauge"),
        ({"language": 7}, "speech.language"),
        ({"language": ""}, "speech.language"),
        ({"language": "en; rm"}, "speech.language"),
        ({"language": "e" * 200}, "speech.language"),
        ({"code": "sing"}, "speech.code"),
        ({"markdown": True}, "speech.markdown"),
        ({"min_chars": "10"}, "speech.min_chars"),
        ({"min_chars": 0}, "speech.min_chars"),
        ({"min_chars": 300}, "speech.min_chars"),
        ({"first_min_chars": 300}, "speech.first_min_chars"),
        ({"max_chars": 3}, "speech.max_chars"),
        ({"max_chars": 10**9}, "speech.max_chars"),
        ({"flush_after_ms": -1}, "speech.flush_after_ms"),
        ({"flush_after_ms": 10**9}, "speech.flush_after_ms"),
        ({"code_announcement": "x" * 500}, "speech.code_announcement"),
    ],
)
def test_the_refusal_names_the_field(value: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidJob) as caught:
        speech_options(value)
    assert field in caught.value.message
    assert caught.value.code == "invalid_job"


@pytest.mark.parametrize("tag", ["en", "auto", "pt-BR", "zh_Hans_CN", "de-CH-1996"])
def test_language_tags(tag: str) -> None:
    assert speech_options({"language": tag}).language == tag


def test_every_option_is_documented_with_its_default() -> None:
    page = Path(__file__).parents[2] / "docs" / "voice.md"
    text = page.read_text(encoding="utf-8")
    for field in msgspec.structs.fields(SpeechOptions):
        shown = re.search(
            rf"^\| `{field.name}` \| `?([^|`]+?)`? \|", text, re.MULTILINE
        )
        assert shown is not None, field.name
        assert shown[1] == str(field.default)
