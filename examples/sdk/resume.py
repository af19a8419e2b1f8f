"""Submit here, read there: a request outlives whoever reads it.

python examples/sdk/resume.py

A web server would do the same when a browser reloads: it keeps the id and the number
of the last event that the browser has, and joins from the next.
"""

from __future__ import annotations

import asyncio
import os

from bridge import Client, NothingInLog, Token


async def main() -> None:
    url = os.environ.get("NATS_URL", "nats://127.0.0.1:4222")
    model = os.environ.get("MODEL", "llama3.2")
    async with Client(url, model=model) as client:
        id = await client.submit("Count to fifty in words.", max_tokens=200)
        print(f"request {id}")

        seen = 0
        async for event in client.join(id, wait_s=60):
            if isinstance(event, Token):
                print(event.text, end="", flush=True)
            seen = event.seq
            if seen == 10:
                break  # the first reader goes away; the request goes on
        print(f"\n… gone after event {seen}, back again …")

        stream = client.join(id, from_seq=seen + 1)
        async for event in stream:
            if isinstance(event, Token):
                print(event.text, end="", flush=True)
        print(f"\n{stream.end}")

        try:
            await anext(client.join("never-submitted", wait_s=0.2))
        except NothingInLog as error:
            print(error)


if __name__ == "__main__":
    asyncio.run(main())
