"""Child processes: started in groups of their own, measured, and always ended."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1
#: Looked up before any fork: between fork and exec nothing may be imported.
_libc = ctypes.CDLL(None, use_errno=True)


def _before_exec() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class ProcessDied(Exception):
    """A process of the rig ended while it was needed; the message has its output."""


class Process:
    """One child, with its CPU time and memory as the operating system counts them.

    Its output goes to ``log``. The child is killed when this process dies, however
    that happens; `stop` ends its whole group.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.command = tuple(command)
        self._log = log
        self.started_at = time.monotonic()
        with log.open("ab") as output:
            self._child = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
                preexec_fn=_before_exec,
            )

    def __repr__(self) -> str:
        state = "running" if self._child.poll() is None else "ended"
        return f"<Process {self.command[0]} pid={self.pid} {state}>"

    @property
    def pid(self) -> int:
        return self._child.pid

    def check(self) -> None:
        """Raise `ProcessDied`, with the end of the output, if it is not running."""
        code = self._child.poll()
        if code is not None:
            raise ProcessDied(f"{self.command[0]} ended with {code}:\n{self.tail()}")

    def tail(self, limit: int = 2000) -> str:
        """The last ``limit`` characters of what the process wrote."""
        return self._log.read_text(errors="replace")[-limit:]

    def cpu_ns(self) -> int:
        """CPU time of all threads since the start, in nanoseconds.

        The process's own CPU clock (clock_getcpuclockid(3)): the scheduler's account,
        where ``/proc/PID/stat`` has ticks of 10 ms.
        """
        self.check()
        return time.clock_gettime_ns((~self.pid << 3) | 2)

    def rss_bytes(self) -> int:
        """Resident memory, in bytes."""
        self.check()
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise ProcessDied(f"{self.command[0]} has no resident memory")

    def stop(self, grace_s: float = 0.0) -> None:
        """End the process and its group: SIGTERM and ``grace_s``, then SIGKILL."""
        if grace_s and self._child.poll() is None:
            self._child.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(grace_s)
        # Only while it is not reaped: afterwards its id may be somebody else's.
        if self._child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self._child.wait()


def machine_cpu_ns() -> int:
    """CPU time that the machine has spent on anything, stolen time included."""
    with open("/proc/stat") as stat:
        names = stat.readline().split()[1:]
    user, nice, system, _idle, _wait, *interrupts = map(int, names[:8])
    ticks = user + nice + system + sum(interrupts)
    return ticks * 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def wait_for_calm(timeout_s: float, *, cpus: float = 0.1) -> bool:
    """Wait for a second in which the machine is idle but for ``cpus`` processors.

    Blocks; returns whether there was one within ``timeout_s``.
    """
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        at, spent = time.monotonic_ns(), machine_cpu_ns()
        time.sleep(1.0)
        if machine_cpu_ns() - spent < cpus * (time.monotonic_ns() - at):
            return True
    return False


def raise_file_limit() -> int:
    """Raise the soft limit on open files to the hard one, and return it.

    Two thousand streams are four thousand sockets, and children inherit the limit.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
