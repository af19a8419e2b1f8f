"""A conversation in which the user interrupts: the newest request survives.

python examples/sdk/conversation.py

``supersede=True`` ends the session's older requests, wherever they run or wait;
``keepalive_ms`` ends a request whose reader died without saying so.
"""

from __future__ import annotations

import asyncio
import os

from bridge import Client, RequestCancelled

SESSION = f"call-{os.getpid()}"


async def main() -> None:
    url = os.environ.get("NATS_URL", "nats://127.0.0.1:4222")
    model = os.environ.get("MODEL", "llama3.2")
    history: list[dict[str, str]] = []
    async with Client(url, model=model) as client:

        async def ask(prompt: str) -> str:
            answer = await client.generate(
                prompt,
                context=history,
                session=SESSION,
                supersede=True,
                keepalive_ms=15_000,
                max_tokens=2000 if "all" in prompt else 60,
            )
            history.append({"role": "user", "content": prompt})
            history.append({"role": "assistant", "content": answer.text or ""})
            return answer.text or ""

        first = asyncio.create_task(ask("Tell me all about trains."))
        await asyncio.sleep(0.5)
        print("user:      (interrupts)")
        print("assistant:", await ask("Just the fastest one."))
        try:
            await first
        except RequestCancelled as error:
            print(f"the first answer ended as {error}, after {len(error.text)} letters")
        await client.cancel_session(SESSION, reason="hung up")


if __name__ == "__main__":
    asyncio.run(main())
