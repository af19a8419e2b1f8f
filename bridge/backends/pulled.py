"""A body of httpx's own transports, which only know iteration, pushed all the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx

from bridge.backends.body import Receiver


class PulledBody:
    """The body of ``response``, as a `bridge.backends.body.Body`.

    A task reads it, and is cancelled by `abort`; httpx closes the connection then.
    """

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self._receiver: Receiver | None = None
        self._pull: asyncio.Task[None] | None = None
        self._flowing = asyncio.Event()
        self._flowing.set()

    def __repr__(self) -> str:
        return f"<PulledBody of {self._response!r}>"

    def attach(self, receiver: Receiver) -> None:
        """Push the body into ``receiver`` from now on."""
        self._receiver = receiver
        self._pull = asyncio.get_running_loop().create_task(self._read(receiver))

    async def _read(self, receiver: Receiver) -> None:
        error: Exception | None = None
        try:
            async for data in self._response.aiter_raw():
                receiver.body_received(data)
                await self._flowing.wait()
        except Exception as caught:
            # Whatever it is, the receiver has to hear of it.
            error = caught
        finally:
            await self._response.aclose()
        receiver.body_ended(error)

    def pause(self) -> None:
        """Stop reading; what was read already may still be pushed."""
        self._flowing.clear()

    def resume(self) -> None:
        """Read again."""
        self._flowing.set()

    def abort(self) -> None:
        """Close the connection, as soon as the loop turns."""
        if self._pull is not None:
            self._pull.cancel()
        else:
            closing = self._response.aclose()
            self._pull = asyncio.get_running_loop().create_task(closing)

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Iterate over what comes, instead of `attach`."""
        return self._response.aiter_raw()

    async def aclose(self) -> None:
        """Give the body back, read or not."""
        await self._response.aclose()
