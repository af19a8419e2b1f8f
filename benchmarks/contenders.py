"""Who is measured: a name, a command line, an environment.

Every contender gets the bridge's own settings in its environment (NATS, backend,
slots, HTTP port) and answers ``/readyz`` with 200 once it takes jobs.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "benchmarks"
GO_SOURCE = ROOT / "benchmarks" / "peers" / "go" / "main.go"
#: Where Debian's golang-*-dev packages put their sources.
GO_PATH = "/usr/share/gocode"

BRIDGE, OBVIOUS, GO, GO_ONE = "bridge", "python", "go", "go-1"


@dataclass(frozen=True)
class Contender:
    """A program that does the job; ``title`` is what the tables say."""

    name: str
    title: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    #: Makes JetStream's streams and consumers itself; for the others the rig does.
    makes_streams: bool = False
    #: Its events are to be stored, though it makes no stream for them.
    stores_events: bool = False
    #: Listens for ``cancel`` on control subjects.
    cancels: bool = False


class Unavailable(Exception):
    """A contender cannot run here; the message says what is missing."""


def beside_python(program: str) -> str:
    """The path of a program of this virtual environment, or of ``PATH``.

    Raises `Unavailable` where there is none.
    """
    path = Path(sys.executable).parent / program
    found = str(path) if path.exists() else shutil.which(program)
    if found is None:
        raise Unavailable(f"{program} is not installed")
    return found


def bridge() -> Contender:
    """The finished bridge: log, lease, metrics, everything on."""
    return Contender(
        BRIDGE,
        "tokenbridge serve",
        (beside_python("tokenbridge"), "serve"),
        makes_streams=True,
        cancels=True,
    )


def _obvious(name: str, loop: str) -> Contender:
    module = "benchmarks.peers.obvious"
    return Contender(
        name,
        f"obvious Python, {loop}",
        (sys.executable, "-m", module, "--loop", loop),
        {"PYTHONPATH": str(ROOT)},
    )


@functools.cache
def build_go() -> str:
    """Build the Go peer from Debian's packages, without modules; return its path.

    Raises `Unavailable` where Go or nats.go is missing, or the build fails.
    """
    go = shutil.which("go")
    if go is None:
        raise Unavailable("Go is not installed (Debian: golang-go)")
    if not Path(GO_PATH, "src/github.com/nats-io/nats.go").is_dir():
        package = "golang-github-nats-io-go-nats-dev"
        raise Unavailable(f"nats.go is not installed (Debian: {package})")
    BUILD.mkdir(parents=True, exist_ok=True)
    binary = BUILD / "go-peer"
    build = subprocess.run(
        [go, "build", "-o", str(binary), GO_SOURCE.name],
        cwd=GO_SOURCE.parent,
        env={**os.environ, "GO111MODULE": "off", "GOPATH": GO_PATH},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if build.returncode:
        raise Unavailable(f"the Go peer does not build: {build.stderr.strip()}")
    return str(binary)


def _go() -> Contender:
    return Contender(GO, "Go, nats.go", (build_go(),))


def _go_one() -> Contender:
    """Go kept to one processor, as Python always is.

    At a few thousand small writes a second most of Go's CPU time is threads waking
    each other; this is what is left without that.
    """
    return Contender(GO_ONE, "Go, GOMAXPROCS=1", (build_go(),), {"GOMAXPROCS": "1"})


def _go_jetstream() -> Contender:
    return Contender(
        "go-jetstream",
        "Go, JetStream publish",
        (build_go(),),
        {"PEER_PUBLISH": "jetstream"},
        stores_events=True,
    )


CONTENDERS: dict[str, Callable[[], Contender]] = {
    BRIDGE: bridge,
    GO: _go,
    GO_ONE: _go_one,
    OBVIOUS: lambda: _obvious(OBVIOUS, "uvloop"),
    "python-asyncio": lambda: _obvious("python-asyncio", "asyncio"),
    "go-jetstream": _go_jetstream,
}
DEFAULT = (BRIDGE, GO, GO_ONE, OBVIOUS)
