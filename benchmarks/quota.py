"""A limit on a process's CPU time: CFS bandwidth, as a container's CPU limit is.

Kernel documentation, "CFS Bandwidth Control" (cgroup v1) and "Control Group v2",
section "CPU". Needs a hierarchy that may be written, which mostly means root.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.contenders import Unavailable

#: The share is handed out anew so often, in µs: what is due waits less than that.
PERIOD_US = 10_000

_V1 = Path("/sys/fs/cgroup/cpu")
_V2 = Path("/sys/fs/cgroup")


@contextlib.contextmanager
def limited(pid: int, cpus: float) -> Iterator[None]:
    """Give a process, all its threads together, so many processors' time.

    Raises `Unavailable` where that cannot be set.
    """
    quota = str(round(cpus * PERIOD_US))
    if (_V1 / "cpu.cfs_quota_us").exists():
        root = _V1
        limits = {"cpu.cfs_period_us": str(PERIOD_US), "cpu.cfs_quota_us": quota}
    else:
        root = _V2
        limits = {"cpu.max": f"{quota} {PERIOD_US}"}
    group = root / f"bench-{os.getpid()}-{pid}"
    try:
        group.mkdir()
        for name, value in {**limits, "cgroup.procs": str(pid)}.items():
            (group / name).write_text(value)
    except OSError as error:
        _remove(group)
        raise Unavailable(f"no limit on CPU time can be set here: {error}") from error
    try:
        yield
    finally:
        _remove(group)


def _remove(group: Path) -> None:
    """Remove a group, as soon as its process has ended."""
    for _ in range(100):
        with contextlib.suppress(FileNotFoundError):
            try:
                group.rmdir()
            except OSError:
                time.sleep(0.01)
                continue
        return
