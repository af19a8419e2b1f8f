"""What nats-py must have for its messages to be handled as they are read."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from nats.aio.client import Client
from nats.aio.subscription import Subscription

from bridge.bus.client import BusClient, check_fits
from bridge.errors import SetupError


def test_the_pinned_version_fits() -> None:
    client = BusClient()
    check_fits(client, Subscription(client))


def test_another_version_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    client = BusClient()
    with pytest.raises(SetupError, match="it has no _cb, _received; tokenbridge"):
        check_fits(client, cast("Any", SimpleNamespace()))
    monkeypatch.delattr(Client, "_process_headers")
    with pytest.raises(SetupError, match="it has no _process_headers; tokenbridge"):
        check_fits(client, Subscription(client))
