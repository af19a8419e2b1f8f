"""Whether a weak stop ends a sentence; ``|`` stands behind the stop in question."""

from __future__ import annotations

import pytest

from bridge.speech.sentences import abbreviates, base_language, ends_sentence

ENDS = [
    ("en", "It is late.| We go."),
    ("en", "Is it?| Yes."),
    ("en", "Stop!| Now."),
    ("en", "Then...| Nothing came."),
    ("en", "We met in 1999.| Then he left."),
    ("en", "It costs $3.50.| That is fine."),
    ("en", "you and I.| Did you see it?"),
    ("en", "in the U.S.| The army"),
    ("en", "It is late.|\nwe go"),
    ("en", "It is late.| (We go.)"),
    ("en", 'It is late.| "We go."'),
    ("de", "Es kostet 3,50 €.| Das ist gut."),
    ("de", "In der Berliner Str. 12.| Nr. 5 auch."),
    ("de", "Das war 1999.| Danach kam er."),
    ("fr", "Il arrive à 16 h.| Est-ce que ça va ?"),
    ("es", "Ya es tarde.| ¿Vamos?"),
    ("ru", "Уже поздно.| Идём."),
    ("ru", "Поздно.| — Правда?"),
    ("hi", "क्या?| हाँ।"),
    ("ar", "نعم.| هذا جيد"),
    ("zh", "好!|我来"),
]
GOES_ON = [
    ("en", "Dr.| Smith"),
    ("en", "at St.| James"),
    ("en", "e.g.| Foo"),
    ("en", "cats, etc.| and dogs"),
    ("en", "See No.| 5 there"),
    ("en", "J.| Smith"),
    ("en", "Albert I.| Jones"),
    ("en", "Albert I.| Douglas"),
    ("en", "3.|14"),
    ("en", "ex.|com"),
    ("en", "1.| First"),
    ("en", "Yahoo!| Finance"),
    ("en", "Why?| he asked"),
    ("en", "well...| maybe"),
    ("en", "approx.| 5"),
    ("de", "am 3.| Mai"),
    ("de", "der 2.| Weltkrieg"),
    ("de", "z.| B. Äpfel"),
    ("de", "z. B.| Äpfel"),
    ("de", "ca.| 5"),
    ("fr", "M.| Dupont"),
    ("fr", "Mme.| Martin"),
    ("es", "Sr.| García"),
    ("es", "p. ej.| Juan"),
    ("it", "Sig.| Rossi"),
    ("pt", "Dra.| Souza"),
    ("ru", "г.| Москва"),
    ("ru", "А.| С. Пушкин"),
    ("ru", "рис.| 3"),
    ("hi", "डॉ.| शर्मा"),
    ("hi", "फिर...| कुछ नहीं"),
    ("ar", "د.| أحمد"),
    ("en", "г.| Москва"),
]
DEPENDS = [
    ("en", "It is late.|"),
    ("en", "It is late.| "),
    ("en", "Albert I.| Do"),
    ("en", 'Stop.| "'),
    ("en", "Dr.|\n"),
]


def ends(language: str, marked: str, *, final: bool = False) -> bool | None:
    head, _, tail = marked.partition("|")
    start = len(head.rstrip(".!?…"))
    return ends_sentence(
        head + tail, start, len(head), len(head), language, final=final
    )


@pytest.mark.parametrize(("language", "marked"), ENDS)
def test_a_sentence_ends(language: str, marked: str) -> None:
    assert ends(language, marked + " x") is True


@pytest.mark.parametrize(("language", "marked"), GOES_ON)
def test_a_sentence_goes_on(language: str, marked: str) -> None:
    assert ends(language, marked + " x") is False


@pytest.mark.parametrize(("language", "marked"), DEPENDS)
def test_what_follows_decides_and_at_the_end_nothing_follows(
    language: str, marked: str
) -> None:
    assert ends(language, marked) is None
    if not marked.endswith(("Do", "\n")):
        assert ends(language, marked, final=True) is True


@pytest.mark.parametrize(("language", "marked"), ENDS + GOES_ON)
def test_what_was_decided_does_not_change(language: str, marked: str) -> None:
    whole = marked + " x"
    answers = {
        ends(language, whole[:size])
        for size in range(whole.index("|") + 1, len(whole) + 1)
    } - {None}
    assert len(answers) == 1


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("Dr.", "en", True),
        ("in 3.", "en", True),
        ("late.", "en", False),
        ("late", "en", False),
        ("bzw.", "de", True),
        ("", "en", False),
    ],
)
def test_abbreviations(text: str, language: str, expected: bool) -> None:
    assert abbreviates(text, len(text), language) is expected


def test_languages() -> None:
    assert [base_language(tag) for tag in ("auto", "de-AT", "PT_br")] == [
        "en",
        "de",
        "pt",
    ]
