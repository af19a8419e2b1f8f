"""The standard streams: there from the first line on, and their faults as one error.

What a shell closed (``<&-``) would be given to the first socket that is opened, which
would then be used as stdin. A stdout that is full, or whose reader has gone, is an
`OutputLost` wherever it is written to; a stderr like that is silent, for there is
nowhere to say so.
"""

from __future__ import annotations

import errno
import io
import os
import re
import select
import sys
from typing import Any, TextIO

from bridge.errors import BridgeError

STDIN, STDOUT, STDERR = range(3)

#: What a terminal would obey instead of showing: a model's text may hold anything.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class OutputLost(BridgeError):
    """What was written to stdout was not taken; ``reader_gone`` by a closed pipe."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"cannot write to stdout: {error.strerror or error}")
        self.reader_gone = error.errno == errno.EPIPE


def open_standard_streams() -> None:
    """Open what is closed on the null device, and watch what is written.

    To be called before anything else is opened.
    """
    for descriptor in (STDIN, STDOUT, STDERR):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest that is free, so this one.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    sys.stdout = _watched(STDOUT, sys.stdout)
    sys.stderr = _watched(STDERR, sys.stderr)


def discard_stdout() -> None:
    """Send to the null device what is still to be written, at exit too."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, STDOUT)
    os.close(null)
    sys.stdout.flush()


def stdout_is_abandoned() -> bool:
    """Whether whoever read stdout has gone: a write would be an `OutputLost`."""
    poll = select.poll()
    poll.register(STDOUT, 0)
    return bool(poll.poll(0))


def read_stdin(limit: int) -> bytes:
    """What stdin has, up to ``limit`` bytes. Raises `OSError`."""
    data = bytearray()
    while len(data) < limit and (part := os.read(STDIN, min(limit, 65536))):
        data += part
    return bytes(data)


def readable(text: str) -> str:
    """``text`` of the command line, bytes that are no UTF-8 replaced by U+FFFD."""
    if text.isprintable() or not _UNREADABLE.search(text):
        return text
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    except UnicodeEncodeError:
        return _UNREADABLE.sub("\ufffd", text)


_UNREADABLE = re.compile(r"[\ud800-\udfff]")


def _watched(descriptor: int, stream: TextIO | None) -> TextIO:
    raw = _Output(descriptor, "wb", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        # What the terminal's encoding lacks is replaced, instead of ending the program.
        encoding=getattr(stream, "encoding", None) or "utf-8",
        errors="replace",
        line_buffering=descriptor == STDERR or raw.isatty(),
        write_through=getattr(stream, "write_through", False),
    )


class _Output(io.FileIO):
    """A descriptor to write to; a fault of stdout is an `OutputLost`, else silent."""

    def write(self, data: Any, /) -> int:
        try:
            # A pipe that does not block says by None that it is full.
            while (count := super().write(data)) is None:
                select.select([], [self.fileno()], [])
        except OSError as error:
            if self.fileno() == STDOUT:
                raise OutputLost(error) from error
            return len(data)
        return count
