"""Logs: fields, levels, and no secret in any of them."""

from __future__ import annotations

import base64
import io
import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge.cli.logging import CHATTY, Redacted, secrets_of, set_up
from bridge.config import BackendSettings, Secret, Settings
from bridge.errors import HIDDEN, ConfigurationError

log = logging.getLogger("bridge.test")


@pytest.fixture(autouse=True)
def _restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("_srcfile", "logThreads", "logProcesses", "logMultiprocessing"):
        monkeypatch.setattr(logging, name, getattr(logging, name))
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in CHATTY}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)
    logging.captureWarnings(False)


def logged(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_extra_comes_out_as_fields(capsys: pytest.CaptureFixture[str]) -> None:
    set_up("info")
    log.info("request %s", "completed", extra={"tenant": "acme", "events": 3})
    (record,) = logged(capsys)
    assert list(record)[:4] == ["timestamp", "level", "logger", "event"]
    assert record["event"] == "request completed"
    assert record["logger"] == "bridge.test"
    assert (record["tenant"], record["events"]) == ("acme", 3)


def test_what_is_no_json_is_shown_by_its_repr(
    capsys: pytest.CaptureFixture[str],
) -> None:
    set_up("info")
    log.info("x", extra={"path": Path("/a"), "key": Secret("hidden")})
    (record,) = logged(capsys)
    assert record["path"] == repr(Path("/a"))
    assert record["key"] == "Secret(***)"


def test_an_exception_is_a_field(capsys: pytest.CaptureFixture[str]) -> None:
    set_up("info")
    try:
        raise ValueError("broken")
    except ValueError:
        log.exception("it failed")
    (record,) = logged(capsys)
    assert record["event"] == "it failed"
    assert "ValueError: broken" in record["exception"]


def test_the_level_counts_and_libraries_chat_only_in_debug(
    capsys: pytest.CaptureFixture[str],
) -> None:
    set_up("info")
    log.debug("no")
    logging.getLogger("httpx").info("no")
    logging.getLogger("nats.aio").warning("yes")
    assert [record["event"] for record in logged(capsys)] == ["yes"]
    set_up("debug")
    logging.getLogger("httpx").info("yes")
    assert [record["event"] for record in logged(capsys)] == ["yes"]
    set_up("critical")
    logging.getLogger("httpx").error("no")
    assert logged(capsys) == []


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("format", "json_wanted"), [("auto", False), ("json", True)])
def test_a_terminal_gets_lines_for_people(
    monkeypatch: pytest.MonkeyPatch, format: str, json_wanted: bool
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    set_up("info", format)
    log.info("ready", extra={"slots": 3})
    assert terminal.getvalue().startswith("{") is json_wanted
    assert "slots" in terminal.getvalue()


def test_credentials_and_known_secrets_are_blanked(
    capsys: pytest.CaptureFixture[str],
) -> None:
    quoted = 'pa"ss\\word'
    set_up("info", secrets=["sk-12345", quoted, "abc"])
    log.info("key sk-12345 abc", extra={"also": f"<{quoted}>", "list": ["sk-12345"]})
    log.info("connect nats://joe:pw@h:1, tls://tok@h:2 and http://h/v1")
    log.info("Authorization: Bearer eyJhbGciOi.x-y_z")
    first, second, third = logged(capsys)
    assert first["event"] == f"key {HIDDEN} abc"
    assert first["also"] == f"<{HIDDEN}>"
    assert first["list"] == [HIDDEN]
    assert second["event"] == "connect nats://***@h:1, tls://***@h:2 and http://h/v1"
    assert third["event"] == "Authorization: Bearer ***"


def test_secrets_are_blanked_in_a_traceback() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(Redacted(logging.Formatter("%(message)s"), ["sk-12345"]))
    try:
        raise ValueError("refused sk-12345")
    except ValueError:
        record = log.makeRecord(
            "x", logging.ERROR, "f", 1, "failed", (), sys.exc_info()
        )
    handler.emit(record)
    assert "refused ***" in stream.getvalue()


def test_every_secret_of_the_settings_is_known(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("in-a-file\n", "utf-8")
    settings = Settings(
        nats_password=Secret("pass-word"),
        nats_token=Secret("the-token"),
        backend_url="http://a/v1",
        backend_api_key=Secret("bare-key"),
        backends=[
            BackendSettings(
                name="b",
                url="http://b/v1",
                api_key=Secret("other-key"),
                api_key_file=str(key),
            )
        ],
    )
    wanted = {"pass-word", "the-token", "bare-key", "other-key", "in-a-file"}
    assert secrets_of(settings) == wanted
    key.unlink()
    with pytest.raises(ConfigurationError, match="api_key_file of b: cannot read"):
        secrets_of(settings)


def test_what_is_secret_of_a_url_is_known_decoded_and_as_it_stands() -> None:
    settings = Settings(
        nats_url="nats://me:na%40ts@a, nats://t0ken@b",
        backend_url="https://me:back%20end@h/v1?api-version=2026&key=que%2Fry",
        backend_https_proxy="http://me:pro%40xy@p:3128",
    )
    basic = base64.b64encode(b"me:back end").decode()
    assert secrets_of(settings) == {
        *("na%40ts", "na@ts", "t0ken", "back%20end", "back end"),
        *("que%2Fry", "que/ry", "pro%40xy", "pro@xy", f"Basic {basic}"),
    }
