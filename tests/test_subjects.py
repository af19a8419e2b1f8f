"""The subject grammar: whatever a producer chose, it stays one token."""

from __future__ import annotations

import string
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.subjects import (
    CONTROL_KINDS,
    ControlAddress,
    InvalidToken,
    JobAddress,
    Subjects,
    check_tenant,
    check_token,
    is_token,
)

ALPHABET = string.ascii_letters + string.digits + "_-"

tokens = st.text(ALPHABET, min_size=1, max_size=64)
tenants = tokens.filter(lambda token: token != "_")
#: Mostly what is nearly a token.
anything = st.one_of(
    st.text(),
    st.text(ALPHABET + ".*> \r\n\t\0é", max_size=70),
    tokens.map(lambda token: token + "\n"),
)

WRONG = [
    "",
    ".",
    "a.b",
    "*",
    ">",
    "a b",
    "a\tb",
    "a\r\nPUB x 0",
    "a\n",
    "\n",
    "a\0",
    "é",
    "à",
    "１",  # a digit, but not one of ASCII
    "x" * 65,
    "$JS",
    "a/b",
]


@pytest.mark.parametrize("value", WRONG)
def test_what_is_no_token(value: str) -> None:
    assert not is_token(value)
    with pytest.raises(InvalidToken, match="lane"):
        check_token(value, "lane")


@pytest.mark.parametrize("value", [None, 7, b"a", ["a"]])
def test_what_is_no_text(value: object) -> None:
    assert not is_token(value)


@settings(deadline=None)
@given(anything)
def test_a_token_is_1_to_64_characters_of_the_alphabet(value: str) -> None:
    assert is_token(value) == (1 <= len(value) <= 64 and set(value) <= set(ALPHABET))


def test_an_error_is_short_and_names_what_it_was_for() -> None:
    with pytest.raises(InvalidToken) as caught:
        check_token("x" * 10_000, "session")
    assert len(str(caught.value)) < 200
    assert str(caught.value).startswith("session ")


def test_the_tenant_of_the_bridge_is_reserved() -> None:
    with pytest.raises(InvalidToken, match="reserved"):
        check_tenant("_")
    assert check_tenant("__") == "__"


@settings(deadline=None)
@given(tokens, tenants, tokens)
def test_a_job_comes_back_as_it_was_addressed(
    prefix: str, tenant: str, lane: str
) -> None:
    subjects = Subjects(prefix)
    subject = subjects.job(tenant, lane)
    assert subject == f"{prefix}.jobs.{tenant}.{lane}"
    assert subjects.parse_job(subject) == JobAddress(tenant, lane)
    assert subjects.lane(lane) == f"{prefix}.jobs.*.{lane}"


@settings(deadline=None)
@given(tokens, tenants, st.sampled_from(CONTROL_KINDS), tokens)
def test_a_control_message_comes_back_as_it_was_addressed(
    prefix: str, tenant: str, kind: str, name: str
) -> None:
    subjects = Subjects(prefix)
    subject = subjects.control(tenant, kind, name)
    assert subject == f"{prefix}.control.{tenant}.{kind}.{name}"
    assert subjects.parse_control(subject) == ControlAddress(tenant, kind, name)


@settings(deadline=None)
@given(anything, anything)
def test_builders_give_subjects_of_as_many_tokens_as_they_should_or_raise(
    tenant: str, name: str
) -> None:
    subjects = Subjects("llm")
    builders: list[tuple[Callable[[], str], int]] = [
        (lambda: subjects.job(tenant, name), 3),
        (lambda: subjects.tokens(tenant, name), 3),
        (lambda: subjects.speech(tenant, name), 3),
        (lambda: subjects.control(tenant, "request", name), 4),
        (lambda: subjects.control(tenant, "session", name), 4),
        (lambda: subjects.control(tenant, "lease", name), 4),
        (lambda: subjects.lane(name), 3),
    ]
    for build, dots in builders:
        try:
            subject = build()
        except InvalidToken:
            continue
        assert subject.count(".") == dots
        assert not set(subject) - set(ALPHABET + ".*")


@settings(deadline=None)
@given(anything)
def test_a_dead_letter_has_a_place_whatever_the_tenant(tenant: str) -> None:
    subject = Subjects("llm").dead(tenant)
    assert subject in (f"llm.dead.{tenant}", "llm.dead._")
    assert subject.count(".") == 2
    assert is_token(subject.rpartition(".")[2])


@settings(deadline=None)
@given(anything)
def test_parsers_take_anything(subject: str) -> None:
    subjects = Subjects("llm")
    for parse in (subjects.parse_job, subjects.parse_control):
        for text in (subject, f"llm.jobs.{subject}", f"llm.control.{subject}"):
            parse(text)


@pytest.mark.parametrize(
    "subject",
    [
        "",
        "llm.jobs",
        "llm.jobs.a",
        "llm.jobs.a.",
        "llm.jobs..b",
        "llm.jobs.a.b.c",
        "llm.jobs._.b",
        "llm.jobs.a b.c",
        "llm.tokens.a.b",
        "other.jobs.a.b",
        "llmx.jobs.a.b",
        "xllm.jobs.a.b",
    ],
)
def test_subjects_that_are_no_jobs(subject: str) -> None:
    assert Subjects("llm").parse_job(subject) is None


@pytest.mark.parametrize(
    "subject",
    [
        "",
        "llm.control.a.request",
        "llm.control.a.request.b.c",
        "llm.control.a.pause.b",
        "llm.control._.request.b",
        "llm.control.a.request.",
        "llm.control..request.b",
        "llm.jobs.a.request.b",
        "a.request.b",
    ],
)
def test_subjects_that_are_no_control_messages(subject: str) -> None:
    assert Subjects("llm").parse_control(subject) is None


def test_an_unknown_kind_of_control_message() -> None:
    with pytest.raises(InvalidToken, match="kind"):
        Subjects("llm").control("a", "pause", "b")


@pytest.mark.parametrize("prefix", ["", "a.b", "llm.>", "*"])
def test_a_prefix_is_a_token_too(prefix: str) -> None:
    with pytest.raises(InvalidToken, match="prefix"):
        Subjects(prefix)


def test_the_subjects_of_the_protocol() -> None:
    subjects = Subjects()
    assert subjects.tokens("acme", "r1") == "llm.tokens.acme.r1"
    assert subjects.speech("acme", "r1") == "llm.speech.acme.r1"
    assert subjects.dead("acme") == "llm.dead.acme"
    assert subjects.batch == "llm.tokens._.batch"
    assert subjects.all_tokens == "llm.tokens.*.*"
    assert subjects.all_control == "llm.control.*.*.*"
    assert subjects.kept_control == (
        "llm.control.*.request.*",
        "llm.control.*.session.*",
    )
    assert repr(subjects) == "Subjects('llm')"
