"""Work, counted instead of timed: the same on every run, however busy the machine."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


class Work:
    """Instructions and calls, of Python functions and of built-in ones."""

    def __init__(self) -> None:
        self.instructions = 0
        self.calls = 0

    def trace(self, frame: FrameType, event: str, arg: Any) -> Any:
        frame.f_trace_lines = False
        frame.f_trace_opcodes = True
        self.instructions += event == "opcode"
        return self.trace

    def profile(self, frame: FrameType, event: str, arg: Any) -> None:
        self.calls += event in ("call", "c_call")

    def count(self, read: Callable[[], None]) -> Work:
        """Run ``read`` twice, each time under one of the two counters."""
        tracer, profiler = sys.gettrace(), sys.getprofile()
        try:
            sys.settrace(self.trace)
            read()
            sys.settrace(tracer)
            sys.setprofile(self.profile)
            read()
        finally:
            sys.settrace(tracer)
            sys.setprofile(profiler)
        return self
