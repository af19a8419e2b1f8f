"""One question, the whole answer.

python examples/sdk/ask.py "Why is the sky blue?"
"""

from __future__ import annotations

import asyncio
import os
import sys

from bridge import Client, RequestFailed


async def main() -> int:
    url = os.environ.get("NATS_URL", "nats://127.0.0.1:4222")
    model = os.environ.get("MODEL", "llama3.2")
    prompt = sys.argv[1] if len(sys.argv) > 1 else "Why is the sky blue?"
    async with Client(url, model=model) as client:
        try:
            answer = await client.generate(prompt, system="Be brief.", max_tokens=200)
        except RequestFailed as error:
            again = " (worth another try)" if error.retryable else ""
            print(f"{error}{again}", file=sys.stderr)
            return 1
    print(answer.text)
    print(f"{answer.finish_reason}, {answer.usage}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
