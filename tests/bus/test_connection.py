"""The connection: limits, answers, coming back, and who may connect."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import logging
import os
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, ClassVar

import nats
import nkeys  # type: ignore[import-untyped]
import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from hypothesis import given, settings
from hypothesis import strategies as st
from nats.aio.msg import Msg

from bridge.bus.commands import TooLarge, headers_size
from bridge.bus.connection import Connection
from bridge.bus.options import server_urls, tls_context
from bridge.config import NatsSettings, Secret
from bridge.errors import ConnectionLost, SetupError, StreamUnavailable
from tests.cable import Cable
from tests.plain_client import barrier, eventually, quiet_port
from tests.servers import NatsServer


@contextlib.asynccontextmanager
async def connected(url: str, **settings: Any) -> AsyncIterator[Connection]:
    connection = Connection(NatsSettings(nats_url=url, **settings), name="test")
    async with asyncio.timeout(20):
        await connection.connect()
    try:
        yield connection
    finally:
        await connection.close()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path / "nats")
    server.port = quiet_port()
    yield server
    server.stop()


class Heard:
    """What arrives on a subject, at another client."""

    def __init__(self) -> None:
        self.messages: list[Msg] = []
        self._changed = asyncio.Event()

    def take(self, message: Msg) -> None:
        self.messages.append(message)
        self._changed.set()

    async def hear(self, message: Msg) -> None:
        self.take(message)

    async def count(self, count: int) -> list[Msg]:
        async with asyncio.timeout(20):
            while len(self.messages) < count:
                self._changed.clear()
                await self._changed.wait()
        return self.messages


# Publishing


@pytest.mark.parametrize("headers", [None, {"a": "b"}, {"Tokenbridge-Code": "ü😀"}])
async def test_exactly_max_payload_fits_and_a_byte_more_is_refused_here(
    connection: Connection, prefix: str, headers: dict[str, str] | None
) -> None:
    heard = Heard()
    await connection.subscribe(prefix, heard.take)
    room = connection.max_payload - headers_size(headers)
    with pytest.raises(TooLarge, match="max_payload"):
        connection.publish(prefix, b"x" * (room + 1), headers=headers)
    connection.publish(prefix, b"x" * room, headers=headers)
    [message] = await heard.count(1)
    assert len(message.data) == room
    assert dict(message.headers or {}) == (headers or {})
    await connection.flush()
    assert connection.state == "connected"


@settings(deadline=None)
@given(
    st.dictionaries(
        st.from_regex(r"[A-Za-z0-9-]{1,20}", fullmatch=True),
        st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"])),
        min_size=1,
    )
)
def test_headers_have_the_size_that_the_server_counts(headers: dict[str, str]) -> None:
    lines = "".join(f"{key}: {value}\r\n" for key, value in headers.items())
    assert headers_size(headers) == len(f"NATS/1.0\r\n{lines}\r\n".encode())


async def test_what_is_published_arrives_whole_and_in_order(
    connection: Connection, nats_server: NatsServer, prefix: str
) -> None:
    other = await nats.connect(nats_server.url)
    heard = Heard()
    await other.subscribe(f"{prefix}.>", cb=heard.hear)
    await barrier(other)
    sent = []
    for n in range(500):
        payload = b"\r\nPUB x 0\r\n" * (n % 7)
        headers = {"n": str(n)} if n % 3 == 0 else None
        reply = f"r.{n}" if n % 2 else ""
        connection.publish(f"{prefix}.{n}", payload, reply, headers)
        sent.append((f"{prefix}.{n}", payload, reply, headers))
        if n % 50 == 0:
            await asyncio.sleep(0)
    messages = await heard.count(500)
    assert [
        (m.subject, m.data, m.reply, dict(m.headers) if m.headers else None)
        for m in messages
    ] == sent
    await other.close()


async def test_after_a_flush_the_server_has_read_everything(
    connection: Connection, nats_server: NatsServer, prefix: str
) -> None:
    other = await nats.connect(nats_server.url)
    heard = Heard()
    await other.subscribe(prefix, cb=heard.hear)
    await barrier(other)
    for _ in range(2000):
        connection.publish(prefix, b"x" * 1000)
    await connection.flush()
    await barrier(other)
    assert len(await heard.count(2000)) == 2000
    await other.close()


async def test_a_message_published_right_before_the_close_is_sent(
    bus_settings: NatsSettings, nats_server: NatsServer, prefix: str
) -> None:
    other = await nats.connect(nats_server.url)
    heard = Heard()
    await other.subscribe(prefix, cb=heard.hear)
    await barrier(other)
    connection = Connection(bus_settings, name="test")
    await connection.connect()
    connection.publish(prefix, b"last words")
    await connection.close()
    await heard.count(1)
    await other.close()


async def test_a_closed_connection_says_so(bus_settings: NatsSettings) -> None:
    connection = Connection(bus_settings, name="test")
    assert connection.state == "new"
    with pytest.raises(ConnectionLost):
        await connection.request("a", b"")
    await connection.connect()
    assert connection.state == "connected"
    await connection.close()
    await connection.close()
    assert connection.state == "closed"
    assert connection.closed.is_set()
    with pytest.raises(ConnectionLost):
        connection.publish("a", b"")
    with pytest.raises(ConnectionLost):
        await connection.request("a", b"")
    with pytest.raises(ConnectionLost):
        await connection.subscribe("a", Heard().take)


async def test_exceeding_max_payload_closes_for_good(connection: Connection) -> None:
    client = connection._client
    headers = {"x": "y" * 1000}
    await client.publish("anything", b"x" * client.max_payload, headers=headers)
    async with asyncio.timeout(20):
        await connection.closed.wait()
    assert connection.state == "closed"
    with pytest.raises(ConnectionLost, match="closed"):
        connection.publish("a", b"")


async def test_what_may_wait_goes_along_with_the_next_message(
    connection: Connection, prefix: str
) -> None:
    heard = Heard()
    await connection.subscribe(f"{prefix}.*", heard.take)
    connection.publish_along(f"{prefix}.a", b"1")
    await asyncio.sleep(0.01)
    assert connection.pending_bytes
    connection.publish(f"{prefix}.b", b"2")
    assert [message.data for message in await heard.count(2)] == [b"1", b"2"]
    assert not connection.pending_bytes


async def test_what_may_wait_waits_no_longer_than_for_a_sweep(
    connection: Connection, prefix: str
) -> None:
    heard = Heard()
    await connection.subscribe(prefix, heard.take)
    connection.publish_along(prefix, b"1")
    connection.sweep()
    assert [message.data for message in await heard.count(1)] == [b"1"]


async def test_what_may_wait_is_lost_with_the_connection(
    nats_server: NatsServer, prefix: str
) -> None:
    """An acknowledgement that waits would meet another stream behind the next one."""
    heard = Heard()
    async with Cable(nats_server.port) as cable, connected(cable.url) as connection:
        await connection.subscribe(f"{prefix}.*", heard.take)
        connection.publish_along(f"{prefix}.a", b"1")
        await cable.pull()
        await cable.plug_in()

        async def back() -> bool:
            return connection.connected and connection.reconnects > 0

        await eventually(back)
        connection.publish(f"{prefix}.b", b"2")
        assert [message.data for message in await heard.count(1)] == [b"2"]


async def test_what_may_wait_is_written_at_the_end(
    nats_server: NatsServer, prefix: str
) -> None:
    other = await nats.connect(nats_server.url)
    heard = Heard()
    await other.subscribe(prefix, cb=heard.hear)
    await barrier(other)
    async with connected(nats_server.url) as connection:
        connection.publish_along(prefix, b"1")
    assert [message.data for message in await heard.count(1)] == [b"1"]
    await other.close()


# Asking


async def test_answers_find_their_question(
    connection: Connection, nats_server: NatsServer, prefix: str
) -> None:
    other = await nats.connect(nats_server.url)

    async def echo(message: Msg) -> None:
        await other.publish(message.reply, message.data)

    await other.subscribe(prefix, cb=echo)
    await barrier(other)
    questions = [str(n).encode() for n in range(100)]
    answers = await asyncio.gather(
        *(connection.request(prefix, question) for question in questions)
    )
    assert [answer.data for answer in answers] == questions
    await other.close()


async def test_nobody_listens(connection: Connection, prefix: str) -> None:
    with pytest.raises(StreamUnavailable, match=prefix):
        await connection.request(prefix, b"")


async def test_nobody_answers(connection: Connection, prefix: str) -> None:
    await connection.subscribe(prefix, Heard().take)
    with pytest.raises(ConnectionLost, match=r"0\.2 s"):
        await connection.request(prefix, b"", timeout_s=0.2)


async def test_a_cancelled_question_leaves_nothing_behind(
    connection: Connection, prefix: str
) -> None:
    await connection.subscribe(prefix, Heard().take)
    asking = asyncio.create_task(connection.request(prefix, b"", timeout_s=20))
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.wait([asking])
    assert asking.cancelled()
    assert not connection._questions.open


async def test_a_close_ends_the_questions_that_wait(
    bus_settings: NatsSettings, prefix: str
) -> None:
    connection = Connection(bus_settings, name="test")
    await connection.connect()
    await connection.subscribe(prefix, Heard().take)
    asking = asyncio.create_task(connection.request(prefix, b"", timeout_s=100))
    await connection.flush()
    await connection.close()
    async with asyncio.timeout(10):
        with pytest.raises(ConnectionLost):
            await asking


# Listening


async def test_subjects_that_are_no_utf8_do_no_harm(
    connection: Connection, nats_server: NatsServer, prefix: str
) -> None:
    heard = Heard()
    await connection.subscribe(f"{prefix}.*", heard.take)
    await connection.flush()
    reader, writer = await asyncio.open_connection("127.0.0.1", nats_server.port)
    await reader.readline()
    subject = f"{prefix}.".encode() + b"\xff\xc0"
    writer.write(b'CONNECT {"verbose":false}\r\n')
    writer.write(b"PUB %b \xfe.reply 2\r\nhi\r\nPING\r\n" % subject)
    while b"PONG" not in await reader.readline():
        pass
    writer.close()
    await writer.wait_closed()
    connection.publish(f"{prefix}.fine", b"still here")
    first, second = await heard.count(2)
    assert first.data == b"hi"
    assert first.subject.startswith(f"{prefix}.")
    assert first.subject.encode()
    assert second.data == b"still here"


async def test_a_handler_that_fails_does_not_end_the_connection(
    connection: Connection, prefix: str
) -> None:
    def broken(_: Msg) -> None:
        raise RuntimeError("a handler's defect")

    heard = Heard()
    await connection.subscribe(f"{prefix}.a", broken)
    await connection.subscribe(f"{prefix}.b", heard.take)
    connection.publish(f"{prefix}.a", b"1")
    connection.publish(f"{prefix}.b", b"2")
    await connection.flush()
    assert [message.data for message in heard.messages] == [b"2"]


async def test_messages_are_handled_in_the_order_of_the_wire(
    connection: Connection, prefix: str
) -> None:
    heard = Heard()
    for name in "abc":
        await connection.subscribe(f"{prefix}.{name}", heard.take)
    sent = [f"{prefix}.{'abc'[n * n % 3]}" for n in range(200)]
    for subject in sent:
        connection.publish(subject, b"")
    await connection.flush()
    assert [message.subject for message in heard.messages] == sent


async def test_drain_hands_on_what_was_on_its_way(
    connection: Connection, prefix: str
) -> None:
    heard = Heard()
    subscription = await connection.subscribe(prefix, heard.take)
    for _ in range(1000):
        connection.publish(prefix, b"")
    await connection.flush()
    await connection.drain(subscription)
    assert len(heard.messages) == 1000
    connection.publish(prefix, b"")
    await connection.flush()
    assert len(heard.messages) == 1000


# Coming and going


async def test_it_comes_back_and_tells(own_server: NatsServer, prefix: str) -> None:
    own_server.start()
    told: list[str] = []

    def broken() -> None:
        raise RuntimeError("a listener's defect")

    async with connected(own_server.url) as connection:
        connection.on_disconnected += [broken, lambda: told.append("gone")]
        connection.on_reconnected += [broken, lambda: told.append("back")]
        heard = Heard()
        await connection.subscribe(prefix, heard.take)
        own_server.stop()

        async def gone() -> bool:
            return told == ["gone"]

        await eventually(gone)
        assert connection.state == "reconnecting"
        assert not connection.connected
        with pytest.raises(ConnectionLost, match="not connected"):
            await connection.request("a", b"")
        connection.publish(prefix, b"kept")
        own_server.start()

        async def back() -> bool:
            return told == ["gone", "back"]

        await eventually(back)
        assert connection.state == "connected"
        [message] = await heard.count(1)
        assert message.data == b"kept"
        connection.publish(prefix, b"live")
        await heard.count(2)


async def test_it_waits_for_a_server_and_says_so(
    own_server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    connection = Connection(NatsSettings(nats_url=own_server.url), name="test")
    connecting = asyncio.create_task(connection.connect())

    async def said_so() -> bool:
        return "cannot be reached" in caplog.text

    await eventually(said_so)
    assert str(own_server.port) in caplog.text
    own_server.start()
    async with asyncio.timeout(20):
        await connecting
    assert connection.state == "connected"
    assert connection.server_version.startswith("2.")
    await connection.close()


async def test_waiting_can_be_cancelled() -> None:
    url = f"nats://127.0.0.1:{quiet_port()}"
    connection = Connection(NatsSettings(nats_url=url), name="test")
    connecting = asyncio.create_task(connection.connect())
    await asyncio.sleep(0.05)  # somewhere in the middle of it
    connecting.cancel()
    async with asyncio.timeout(10):
        await asyncio.wait([connecting])
    assert connecting.cancelled()
    await connection.close()


async def test_without_waiting_each_server_is_tried_once() -> None:
    ports = [quiet_port(), quiet_port()]
    url = ",".join(f"nats://u:secret@127.0.0.1:{port}" for port in ports)
    connection = Connection(NatsSettings(nats_url=url), name="test")
    async with asyncio.timeout(20):
        with pytest.raises(ConnectionLost) as caught:
            await connection.connect(wait=False)
    for port in ports:
        assert f"127.0.0.1:{port}" in str(caught.value)
    assert "secret" not in str(caught.value) + repr(connection)


async def test_the_second_server_will_do(nats_server: NatsServer) -> None:
    url = f"nats://127.0.0.1:{quiet_port()}, {nats_server.url}"
    async with connected(url) as connection:
        assert connection.connected


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("nats://127.0.0.1:4222", "nats://127.0.0.1:4222"),
        ("nats://user:pw@host:1", "nats://host:1"),
        ("nats://t0ken@host", "nats://host:4222"),
        ("tls://host", "tls://host:4222"),
    ],
)
def test_a_url_is_shown_without_its_secrets(url: str, shown: str) -> None:
    settings = NatsSettings(nats_url=url)
    assert server_urls(settings) == [shown]
    assert Connection(settings, name="test").servers == shown


# Who may connect


@pytest.mark.parametrize(
    ("authorization", "right", "wrong"),
    [
        (
            'user: "u", password: "right-pw"',
            {"nats_user": "u", "nats_password": Secret("right-pw")},
            {"nats_user": "u", "nats_password": Secret("wrong-pw")},
        ),
        (
            'token: "right-token"',
            {"nats_token": Secret("right-token")},
            {"nats_token": Secret("wrong-token")},
        ),
    ],
)
async def test_passwords_and_tokens(
    own_server: NatsServer,
    authorization: str,
    right: dict[str, Any],
    wrong: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    own_server.more = f"authorization {{ {authorization} }}"
    own_server.start()
    async with connected(own_server.url, **right) as connection:
        await connection.flush()
    for given_ in (wrong, {}):
        refused = Connection(
            NatsSettings(nats_url=own_server.url, **given_), name="test"
        )
        for wait in (True, False):
            async with asyncio.timeout(20):
                with pytest.raises(SetupError, match="refused") as caught:
                    await refused.connect(wait=wait)
            assert "wrong-" not in str(caught.value)
    assert "wrong-" not in caplog.text
    assert "right-" not in caplog.text


@pytest.mark.parametrize(
    ("authorization", "login"),
    [
        ('user: "me", password: "p@s/s:w#r d%"', "me:p%40s%2Fs%3Aw%23r%20d%25"),
        ('user: "m:e@", password: "pw"', "m%3Ae%40:pw"),
        ('user: "me", password: "p:w"', "me:p:w"),
        ('token: "t/o@ken"', "t%2Fo%40ken"),
        ('user: "me", password: "grüße"', "me:gr%C3%BC%C3%9Fe"),
    ],
)
async def test_a_login_in_a_url_is_percent_decoded(
    own_server: NatsServer,
    authorization: str,
    login: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    own_server.more = f"authorization {{ {authorization} }}"
    own_server.start()
    url = own_server.url.replace("://", f"://{login}@")
    # Behind a server that is down, and before a comma with nothing behind it.
    several = f" nats://{login}@127.0.0.1:{quiet_port()} ,{url},\n"
    for given_ in (url, several):
        async with connected(given_) as connection:
            await connection.flush()
            assert login not in repr(connection) + connection.servers
    assert login not in caplog.text


async def flushed(connection: Connection) -> None:
    """Wait until a server answers."""

    async def answered() -> bool:
        try:
            await connection.flush()
        except ConnectionLost:
            return False
        return True

    await eventually(answered)


async def test_each_server_may_have_a_login_of_its_own(
    own_server: NatsServer, tmp_path: Path
) -> None:
    own_server.more = 'authorization { token: "t@2" }'
    own_server.start()
    first = NatsServer(
        tmp_path / "first", more='authorization { user: "u", password: "p@1" }'
    )
    first.start()
    urls = (
        f"nats://u:p%401@127.0.0.1:{first.port}",
        f"nats://t%402@127.0.0.1:{own_server.port}",
    )
    try:
        async with connected(",".join(urls)) as connection:
            await connection.flush()
            for down in (first, own_server, first):
                down.stop()
                # The other one is the only one that is left.
                async with asyncio.timeout(20):
                    await flushed(connection)
                down.start()
    finally:
        first.stop()


async def test_settings_of_a_login_win_over_the_urls(own_server: NatsServer) -> None:
    own_server.more = 'authorization { user: "u", password: "right" }'
    own_server.start()
    url = own_server.url.replace("://", "://u:wrong@")
    login: dict[str, Any] = {"nats_user": "u", "nats_password": Secret("right")}
    async with connected(url, **login) as connection:
        await connection.flush()


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls_server(tmp_path: Path, authority: trustme.CA) -> Iterator[NatsServer]:
    """A server that demands TLS and a client's certificate."""
    cert = authority.issue_cert("127.0.0.1")
    cert.cert_chain_pems[0].write_to_path(tmp_path / "server.pem")
    cert.private_key_pem.write_to_path(tmp_path / "server.key")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    mine = authority.issue_cert("client@example.org")
    mine.cert_chain_pems[0].write_to_path(tmp_path / "client.pem")
    mine.private_key_pem.write_to_path(tmp_path / "client.key")
    server = NatsServer(
        tmp_path / "nats",
        more=f"""tls {{
            cert_file: "{tmp_path}/server.pem"
            key_file: "{tmp_path}/server.key"
            ca_file: "{tmp_path}/ca.pem"
            verify: true
        }}""",
    )
    server.start()
    yield server
    server.stop()


async def test_tls_with_a_clients_certificate(
    tls_server: NatsServer, tmp_path: Path
) -> None:
    files = {
        "nats_ca_file": str(tmp_path / "ca.pem"),
        "nats_cert_file": str(tmp_path / "client.pem"),
        "nats_key_file": str(tmp_path / "client.key"),
    }
    for scheme in ("nats", "tls"):
        url = f"{scheme}://127.0.0.1:{tls_server.port}"
        async with connected(url, **files) as connection:
            heard = Heard()
            await connection.subscribe("a", heard.take)
            for _ in range(100):
                connection.publish("a", b"x" * 100_000)
            await heard.count(100)


async def test_an_authority_that_is_not_ours_is_no_success(
    tls_server: NatsServer, tmp_path: Path
) -> None:
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    other: dict[str, Any] = {"nats_ca_file": str(tmp_path / "other.pem")}
    for files in (other, {}):
        url = f"tls://127.0.0.1:{tls_server.port}"
        connection = Connection(NatsSettings(nats_url=url, **files), name="test")
        async with asyncio.timeout(20):
            with pytest.raises((SetupError, ConnectionLost), match=r"(?i)certificate"):
                await connection.connect(wait=False)


@pytest.mark.parametrize("name", ["nats_ca_file", "nats_cert_file"])
async def test_tls_files_that_cannot_be_used(tmp_path: Path, name: str) -> None:
    (tmp_path / "junk.pem").write_text("no certificate")
    for path in (tmp_path / "junk.pem", tmp_path / "missing.pem"):
        files: dict[str, Any] = {name: str(path), "nats_key_file": str(path)}
        connection = Connection(
            NatsSettings(nats_url="nats://127.0.0.1:1", **files), name="test"
        )
        with pytest.raises(SetupError, match="TLS files"):
            await connection.connect(wait=False)


class Operator:
    """What ``nsc`` makes: an operator, an account, and a user's credentials."""

    PREFIXES: ClassVar[dict[str, int]] = {
        "operator": nkeys.PREFIX_BYTE_OPERATOR,
        "account": nkeys.PREFIX_BYTE_ACCOUNT,
        "user": nkeys.PREFIX_BYTE_USER,
    }
    LIMITS: ClassVar[dict[str, int]] = dict.fromkeys(
        ("subs", "data", "payload", "imports", "exports", "conn", "leaf"), -1
    )

    def __init__(self) -> None:
        self._operator = self._pair("operator")
        self._account = self._pair("account")
        self._system = self._pair("account")

    def _pair(self, kind: str) -> Any:
        return nkeys.from_seed(nkeys.encode_seed(os.urandom(32), self.PREFIXES[kind]))

    def _jwt(self, kind: str, subject: Any, issuer: Any, **more: Any) -> str:
        claims = {
            "iat": int(time.time()),
            "iss": issuer.public_key.decode(),
            "sub": subject.public_key.decode(),
            "nats": {"type": kind, "version": 2, **more},
        }
        digest = hashlib.sha256(json.dumps(claims).encode()).digest()
        claims["jti"] = base64.b32encode(digest).decode().rstrip("=")
        head = {"typ": "JWT", "alg": "ed25519-nkey"}
        body = f"{_base64(json.dumps(head))}.{_base64(json.dumps(claims))}"
        return f"{body}.{_base64(issuer.sign(body.encode()))}"

    @property
    def configuration(self) -> str:
        """The lines of a server that trusts this operator."""
        accounts = "\n".join(
            f"{account.public_key.decode()}: "
            + self._jwt("account", account, self._operator, limits=self.LIMITS)
            for account in (self._account, self._system)
        )
        return f"""
            operator: "{self._jwt("operator", self._operator, self._operator)}"
            system_account: {self._system.public_key.decode()}
            resolver: MEMORY
            resolver_preload {{ {accounts} }}
        """

    def credentials(self) -> str:
        """The text of a credentials file for a new user."""
        user = self._pair("user")
        jwt = self._jwt("user", user, self._account, subs=-1, data=-1, payload=-1)
        return (
            f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{user.seed.decode()}\n"
            "------END USER NKEY SEED------\n"
        )


def _base64(data: str | bytes) -> str:
    data = data.encode() if isinstance(data, str) else data
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


async def test_a_credentials_file(own_server: NatsServer, tmp_path: Path) -> None:
    operator = Operator()
    own_server.more = operator.configuration
    own_server.start()
    good, stranger = tmp_path / "good.creds", tmp_path / "stranger.creds"
    good.write_text(operator.credentials())
    stranger.write_text(Operator().credentials())
    async with connected(own_server.url, nats_credentials_file=str(good)) as connection:
        await connection.flush()
    for path in (stranger, tmp_path / "missing.creds"):
        settings = NatsSettings(
            nats_url=own_server.url, nats_credentials_file=str(path)
        )
        async with asyncio.timeout(20):
            with pytest.raises(SetupError) as caught:
                await Connection(settings, name="test").connect()
        assert "refused" in str(caught.value) or "missing.creds" in str(caught.value)


@pytest.mark.parametrize("around", ["\r\n", "\n\n", "\ufeff"])
async def test_a_credentials_file_of_any_editor_is_read(
    own_server: NatsServer, tmp_path: Path, around: str
) -> None:
    operator = Operator()
    own_server.more = operator.configuration
    own_server.start()
    path = tmp_path / "windows.creds"
    text = operator.credentials()
    if around == "\ufeff":
        path.write_text(around + text, "utf-8")
    else:
        path.write_bytes(text.replace("\n", around).encode())
    async with connected(own_server.url, nats_credentials_file=str(path)) as connection:
        await connection.flush()
        # The user is renewed, then the file is broken: the renewed one counts.
        path.write_text(operator.credentials(), "utf-8")
        own_server.stop()
        own_server.start()
        await flushed(connection)
        path.write_text("", "utf-8")
        own_server.stop()
        own_server.start()
        await flushed(connection)


@pytest.mark.parametrize("text", ["", "junk", "seed", "jwt", "\ud800"])
async def test_credentials_without_a_user_are_refused_at_once(
    tmp_path: Path, text: str
) -> None:
    whole = Operator().credentials()
    cut = {
        "seed": whole.replace("-----\nSU", "-----\nSX"),
        "jwt": whole.partition("\n\n")[2],
    }
    path = tmp_path / "bad.creds"
    path.write_bytes(cut.get(text, text).encode("utf-8", "surrogatepass"))
    settings = NatsSettings(nats_credentials_file=str(path))
    with pytest.raises(
        SetupError, match=r"nats_credentials_file: .*bad\.creds"
    ) as caught:
        await Connection(settings, name="test").connect()
    assert len(str(caught.value).splitlines()) == 1


async def test_a_key_with_a_password_asks_nobody(
    tmp_path: Path, authority: trustme.CA
) -> None:
    mine = authority.issue_cert("client@example.org")
    mine.cert_chain_pems[0].write_to_path(tmp_path / "client.pem")
    key = serialization.load_pem_private_key(mine.private_key_pem.bytes(), None)
    (tmp_path / "client.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"s3cret"),
        )
    )
    settings = NatsSettings(
        nats_cert_file=str(tmp_path / "client.pem"),
        nats_key_file=str(tmp_path / "client.key"),
    )
    with pytest.raises(SetupError, match="nats_cert_file or nats_key_file"):
        tls_context(settings)


def test_the_context_verifies() -> None:

    assert tls_context(NatsSettings()) is None
    context = tls_context(NatsSettings(nats_url="tls://host"))
    assert context is not None
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
