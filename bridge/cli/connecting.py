"""The client of the commands that talk to a running bridge."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from bridge.client import Client
from bridge.config import ClientSettings
from bridge.errors import ConnectionLost


@contextlib.asynccontextmanager
async def connected(settings: ClientSettings) -> AsyncIterator[Client]:
    """The client that the settings describe, connected inside the block.

    Raises `ConnectionLost`, which says what to do, and `SetupError`.
    """
    client = Client(
        settings.nats_url,
        tenant=settings.tenant,
        lane=settings.lane,
        prefixes=settings.prefixes,
        settings=settings,
    )
    async with contextlib.AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(client)
        except ConnectionLost as error:
            raise ConnectionLost(
                f"{error}; start it (tokenbridge dev brings one), or set "
                "TOKENBRIDGE_NATS_URL"
            ) from error
        yield client
