from __future__ import annotations

import asyncio

import httpx
import pytest

from bridge.backends.connection import Connection, Limits, Origin
from bridge.backends.pool import ConnectionPool

HERE = Origin("http", "here", 80)
THERE = Origin("http", "there", 80)


def opened(pool: ConnectionPool, origin: Origin = HERE) -> Connection:
    """A connection without a socket, which is all that a pool sees of one."""
    connection = Connection(origin, pool, Limits())
    pool.opened(connection)
    return connection


def forget(pool: ConnectionPool, *connections: Connection) -> None:
    for connection in connections:
        pool.gone(connection)


async def test_last_in_first_out() -> None:
    pool = ConnectionPool(60.0)
    first, second, other = opened(pool), opened(pool), opened(pool, THERE)
    assert pool.take(HERE) is None
    for connection in (first, second, other):
        pool.released(connection)
    assert repr(pool) == "<ConnectionPool open, 0 active, 3 idle>"
    assert pool.take(HERE) is second
    assert pool.take(HERE) is first
    assert pool.take(HERE) is None
    assert repr(pool) == "<ConnectionPool open, 2 active, 1 idle>"
    forget(pool, first, second, other)
    await pool.aclose()


async def test_a_closing_connection_is_not_offered() -> None:
    pool = ConnectionPool(60.0)
    first, second = opened(pool), opened(pool)
    pool.released(first)
    pool.released(second)
    second.abort()
    assert pool.take(HERE) is first
    assert pool.take(HERE) is None
    forget(pool, first, second)
    await pool.aclose()


async def test_an_expired_one_is_closed_instead_of_offered() -> None:
    pool = ConnectionPool(0.0)
    connection = opened(pool)
    pool.released(connection)
    assert pool.take(HERE) is None
    assert connection.closed
    forget(pool, connection)
    await pool.aclose()


async def test_each_expires_in_its_own_time() -> None:
    pool = ConnectionPool(0.05)
    early, late = opened(pool), opened(pool, THERE)
    pool.released(early)
    await asyncio.sleep(0.02)
    pool.released(late)
    async with asyncio.timeout(10):
        while not early.closed:
            await asyncio.sleep(0.001)
        while not late.closed:
            await asyncio.sleep(0.001)
    assert pool.idle == 0
    forget(pool, early, late)
    await pool.aclose()


async def test_closing_waits_until_all_are_gone() -> None:
    pool = ConnectionPool(60.0)
    idle, active = opened(pool), opened(pool)
    pool.released(idle)
    answer = active.begin("GET")
    closing = asyncio.create_task(pool.aclose())
    await asyncio.sleep(0)
    assert idle.closed
    assert active.closed
    assert isinstance(answer.result(), httpx.ReadError)
    forget(pool, idle)
    await asyncio.sleep(0)
    assert not closing.done()
    forget(pool, active)
    await closing
    assert repr(pool) == "<ConnectionPool closed, 0 active, 0 idle>"


@pytest.mark.parametrize("asked", [True, False])
async def test_a_connection_that_comes_too_late_is_closed(asked: bool) -> None:
    pool = ConnectionPool(60.0)
    await pool.aclose()
    connection = Connection(HERE, pool, Limits())
    answer = connection.begin("GET") if asked else None
    pool.opened(connection)
    assert connection.closed
    if answer is not None:
        assert isinstance(answer.result(), httpx.ConnectError)
    forget(pool, connection)
