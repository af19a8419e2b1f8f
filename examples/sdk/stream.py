"""An answer as it comes, and what an application does when it is interrupted.

python examples/sdk/stream.py "Tell me a long story."

Ctrl-C leaves the stream, and leaving cancels the request: the backend stops at once.
"""

from __future__ import annotations

import asyncio
import os
import sys

from bridge import Cancelled, Client, Completed, Failed, Resumed, Token


async def main() -> None:
    url = os.environ.get("NATS_URL", "nats://127.0.0.1:4222")
    model = os.environ.get("MODEL", "llama3.2")
    prompt = sys.argv[1] if len(sys.argv) > 1 else "Tell me a long story."
    async with (
        Client(url, model=model) as client,
        client.stream(prompt, max_tokens=500) as stream,
    ):
        async for event in stream:
            match event:
                case Token(text=text):
                    print(text, end="", flush=True)
                case Resumed() if event.mode == "restart" or stream.truncated_to:
                    # Part of what is on the screen is void: show what stands.
                    print(f"\n\n{stream.text}", end="", flush=True)
                case Completed(finish_reason=reason):
                    print(f"\n({reason})")
                case Failed(error=error):
                    print(f"\n{error.code}: {error.message}")
                case Cancelled(reason=reason):
                    print(f"\n(cancelled: {reason})")


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        print("\n(left)")
