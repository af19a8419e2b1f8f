"""Fixtures: one nats-server for the whole run, a prefix of its own for each test."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.servers import NatsServer

# How long an example takes says how busy the machine is, and nothing else.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """A nats-server that nobody stops; tests that do start their own."""
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def prefix() -> str:
    """A subject prefix, and so streams, that no other test uses."""
    return f"t{next(_numbers)}"
