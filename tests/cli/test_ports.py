"""Ports: free or taken, and by what."""

from __future__ import annotations

import socket

import pytest

from bridge.cli.ports import check_free, greets_as_nats
from bridge.errors import ConfigurationError


def test_a_free_port_is_free() -> None:
    check_free(0, "the bridge", "advice")


def test_a_taken_port_names_itself_its_owner_and_the_advice(nats_url: str) -> None:
    port = int(nats_url.rpartition(":")[2])
    with pytest.raises(ConfigurationError) as caught:
        check_free(port, "nats-server", "choose another")
    assert str(caught.value) == (
        f"nats-server cannot listen on 127.0.0.1:{port}: the port is taken (a NATS "
        "server listens there); choose another"
    )
    assert greets_as_nats(port)


def test_whoever_says_nothing_is_no_nats_server() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert not greets_as_nats(port)
        with pytest.raises(ConfigurationError, match=r"the port is taken; advice"):
            check_free(port, "the bridge", "advice", "0.0.0.0")
    assert not greets_as_nats(port)


def test_an_address_of_another_machine_is_explained() -> None:
    with pytest.raises(ConfigurationError, match=r"cannot listen on 192\.0\.2\.1:0"):
        check_free(0, "the bridge", "advice", "192.0.2.1")


@pytest.mark.parametrize("host", ["a..b", "no.such.invalid", "[::1", "x" * 300])
def test_a_host_that_is_none_is_explained(host: str) -> None:
    with pytest.raises(ConfigurationError, match="the bridge cannot listen on"):
        check_free(0, "the bridge", "advice", host)


@pytest.mark.parametrize("host", ["localhost", "::", "[::1]"])
def test_a_name_and_both_families_may_be_listened_on(host: str) -> None:
    check_free(0, "the bridge", "advice", host)
