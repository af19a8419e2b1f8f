"""Fixtures: a prefix's streams, and a client of them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from bridge.client import Client
from tests.client.bridge_side import Bus, running_bus
from tests.servers import NatsServer


@pytest.fixture
async def bus(nats_server: NatsServer, prefix: str) -> AsyncIterator[Bus]:
    async with running_bus(nats_server, prefix) as bus:
        yield bus


@pytest.fixture
async def client(nats_server: NatsServer, bus: Bus) -> AsyncIterator[Client]:
    async with Client(nats_server.url, model="m", prefixes=[bus.prefix]) as client:
        yield client
