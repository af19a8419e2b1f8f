"""The window into the source."""

from __future__ import annotations

from bridge.speech.source import Source


def test_what_stood_before_is_remembered() -> None:
    source = Source()
    assert source.before(0) == "\n"
    source.text = "ab!["
    source.take(3)
    assert (source.base, source.text) == (3, "[")
    assert (source.before(-1), source.before(0), source.before(1)) == ("b", "!", "[")
    source.take(1)
    assert (source.before(-1), source.before(0)) == ("!", "[")


def test_inside_a_latin_word() -> None:
    source = Source()
    source.text = "a你 b"
    assert [source.in_word(at) for at in range(5)] == [False, True, False, False, True]
