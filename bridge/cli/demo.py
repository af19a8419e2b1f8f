"""``tokenbridge demo``: NATS, the simulator, the bridge and some requests, live."""

from __future__ import annotations

import asyncio
import os

import click
from rich import box
from rich.console import Console, JustifyMethod
from rich.table import Table

from bridge.cli import exit_codes
from bridge.cli.board import Answer, Board, make_board
from bridge.cli.event_loop import run
from bridge.cli.in_process import bridge_running
from bridge.cli.logging import set_up
from bridge.client import Client
from bridge.config import Settings
from bridge.embedded import EmbeddedServer
from bridge.errors import BridgeError
from bridge.events import Completed, Failed
from bridge.simulator import Behaviour, Simulator

PROMPTS = (
    "Why is the sky blue?",
    "Tell of the harbour.",
    "Do trains dream?",
    "Greet a lighthouse.",
    "Can clocks get lost?",
    "Who lives there?",
)

#: About as fast as one reads: the answers take some four seconds.
PACE = Behaviour(first_token_ms=250, tokens_per_second=30, jitter=0.6)

#: All is local and paced: what takes longer than this, in seconds, hangs.
TIMEOUT_S = 60.0

EPILOG = """\b
Examples:
  tokenbridge demo
  tokenbridge demo | cat                 # lines instead of panels"""

REAL_ONE = """\
The text came from a simulator. The rest was real: jobs in JetStream, numbered events
on NATS, and for each request a log, read again and compared: proven means that it has
every event from the first to the last once, and the text that was seen live.

For a real LLM, set TOKENBRIDGE_BACKEND_URL to its base (this is Ollama's), and run two
commands, each in a terminal of its own:

  TOKENBRIDGE_BACKEND_URL=http://127.0.0.1:11434/v1 tokenbridge dev
  tokenbridge ask --model llama3.2 "Why is the sky blue?"

dev brings its own NATS; with --use-nats it takes yours, of TOKENBRIDGE_NATS_URL.
"""


@click.command("demo", epilog=EPILOG)
def command() -> int:
    """Show requests streaming over NATS, all on this machine.

    Starts a nats-server on a free port, a simulated LLM and a bridge, sends some
    requests and shows the answers while they come. Ends by itself, in seconds, and
    leaves nothing behind. Needs no settings and reads none.
    """
    set_up("warning")
    return run(demo(Console(highlight=False)))


async def demo(console: Console) -> int:
    """Show it all; the exit code. Cancelling ends every process that was started."""
    run_id = os.urandom(3).hex()
    answers = [
        Answer(number, prompt, f"demo-{run_id}-{number}")
        for number, prompt in enumerate(PROMPTS, start=1)
    ]
    try:
        async with asyncio.timeout(TIMEOUT_S):
            await _play(console, answers)
    except TimeoutError as error:
        raise BridgeError(f"the demo did not end within {TIMEOUT_S:g} s") from error
    console.print(_summary(answers))
    for answer in answers:
        end = answer.figures.end
        if isinstance(end, Failed):
            why = f"{answer.prompt} {end.error.code}: {end.error.message}"
            console.print(why, markup=False, soft_wrap=True)
    console.print(REAL_ONE, end="", soft_wrap=True, markup=False)
    good = all(answer.good and answer.proven for answer in answers)
    return exit_codes.COMPLETED if good else exit_codes.FAILED


async def _play(console: Console, answers: list[Answer]) -> None:
    async with EmbeddedServer() as server, Simulator(behaviour=PACE) as simulator:
        settings = Settings(
            nats_url=server.url,
            backend_url=simulator.url,
            backend_continue="final_message",
            http_host="127.0.0.1",
            http_port=0,
        )
        async with (
            bridge_running(settings) as bridge,
            Client(server.url) as client,
        ):
            console.print(
                f"nats-server {server.url}, simulated LLM {simulator.url},\n"
                f"bridge http://127.0.0.1:{bridge.service.http_port}/metrics\n",
                soft_wrap=True,
            )
            with make_board(console, answers) as board:
                await _follow_all(client, answers, board)
            for answer in answers:
                answer.proven = await _is_proven(client, answer)


async def _follow_all(client: Client, answers: list[Answer], board: Board) -> None:
    try:
        async with asyncio.TaskGroup() as group:
            for answer in answers:
                group.create_task(_follow(client, answer, board))
    except* BridgeError as several:
        raise several.exceptions[0] from several


async def _follow(client: Client, answer: Answer, board: Board) -> None:
    stream = client.stream(answer.prompt, model="simulator", id=answer.id)
    async for event in stream:
        answer.take(event, stream.text)
        board.changed(answer)


async def _is_proven(client: Client, answer: Answer) -> bool:
    """Whether the log has 1…N without a hole, and the text that was seen live."""
    stream = client.join(answer.id)
    seqs = [event.seq async for event in stream]
    end = answer.figures.end
    return (
        isinstance(end, Completed)
        and seqs == list(range(1, answer.events + 1))
        and stream.text == answer.text == (end.text or "")
    )


def _summary(answers: list[Answer]) -> Table:
    table = Table(box=box.SIMPLE, show_footer=True, pad_edge=False, padding=(0, 1))
    good = sum(answer.good for answer in answers)
    tokens = sum(answer.figures.tokens for answer in answers)
    proven = sum(bool(answer.proven) for answer in answers)
    columns: tuple[tuple[str, str, JustifyMethod], ...] = (
        ("request", f"{len(answers)} requests", "left"),
        ("ended", f"{good} good", "left"),
        ("tokens", str(tokens), "right"),
        ("first", "", "right"),
        ("tokens/s", "", "right"),
        ("log", f"{proven} proven", "right"),
    )
    for header, footer, justify in columns:
        table.add_column(header, footer, justify=justify, no_wrap=True)
    for answer in answers:
        table.add_row(*_row(answer))
    return table


def _row(answer: Answer) -> tuple[str, ...]:
    figures = answer.figures
    first, pace = figures.first_token_ms, figures.tokens_per_second
    return (
        answer.prompt,
        answer.state,
        str(figures.tokens),
        "-" if first is None else f"{first:.0f} ms",
        "-" if pace is None else f"{pace:.1f}",
        f"1…{answer.events} proven" if answer.proven else "NOT PROVEN",
    )
