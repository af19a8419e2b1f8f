"""An LLM stand-in: OpenAI's chat completions over HTTP, deterministic, with faults.

It ships with the package: the demo, the tests and the chaos run use it, and so may
anyone whose program talks to LLMs.
"""

from bridge.simulator.behaviour import Behaviour, InvalidBehaviour
from bridge.simulator.completion import InvalidRequest, text_for, tokens_for
from bridge.simulator.records import RequestRecord
from bridge.simulator.server import Simulator, run

__all__ = [
    "Behaviour",
    "InvalidBehaviour",
    "InvalidRequest",
    "RequestRecord",
    "Simulator",
    "run",
    "text_for",
    "tokens_for",
]
