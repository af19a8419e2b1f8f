"""The house has floors, and imports only ever go down.

``FLOORS`` is the plan. Each rule yields one sentence per breach, with file and line,
and is shown to see a breach before it is believed about the package.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "bridge"

FLOORS: dict[str, int] = {
    "errors": 0,
    "events": 0,
    "intake": 0,
    "subjects": 0,
    "job": 1,
    "sequence": 1,
    "history": 1,
    "transcript": 1,
    "retry": 1,
    "slots": 1,
    "decoders": 1,
    "dialects": 1,
    "speech": 1,
    "thoughts": 1,
    "backends": 2,
    "bus": 2,
    "config": 2,
    "generation": 3,
    "worker": 3,
    "service": 3,
    "health": 3,
    "metrics": 3,
    "exposition": 3,
    "client": 4,
    "simulator": 4,
    "embedded": 4,
    "cli": 4,
    "__main__": 4,
}

#: What the package's front door may show; a facade over anything else would let every
#: import of ``bridge`` drag the whole house in.
SHOWN_BY_THE_PACKAGE = {"client", "errors", "events", "__version__"}

#: I/O, clocks and event loops: what the sans-IO floors (0 and 1) are free of.
IMPURE = {
    "aiohttp", "anyio", "asyncio", "concurrent", "http.client", "http.server",
    "httpcore", "httpx", "logging", "multiprocessing", "nats", "os", "pathlib",
    "queue", "select", "selectors", "signal", "socket", "ssl", "structlog",
    "subprocess", "tempfile", "threading", "time", "urllib.request", "uvloop",
}  # fmt: skip

#: The clock behind types that are pure otherwise: ``datetime.now()``.
CLOCKS = {"now", "today", "utcnow"}

ASYNC_NODES = (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)

#: The process's own: (module, attribute) pairs that only the command line may read.
PROCESS = {("os", "environ"), ("os", "getenv"), ("sys", "argv")}


@dataclass
class Module:
    """One source file: its dotted name, its place, and what it imports where."""

    name: str
    path: Path
    tree: ast.Module
    imports: list[tuple[str, int]] = field(default_factory=list)

    @property
    def part(self) -> str:
        """The name that has a floor: ``sse`` of ``decoders`` is ``decoders``."""
        _, _, below = self.name.partition(".")
        return below.partition(".")[0]

    @property
    def floor(self) -> int | None:
        return FLOORS.get(self.part)

    def at(self, line: int) -> str:
        return f"{self.path}:{line}"


def load(package: Path) -> dict[str, Module]:
    """Parse every module of ``package``; imports are resolved to full names."""
    modules = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        shown = path.relative_to(package.parent)
        modules[name] = Module(name, shown, ast.parse(path.read_text("utf-8")))
    for module in modules.values():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Import):
                found = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                found = list(imported_from(module, node, modules))
            else:
                continue
            module.imports += [(name, node.lineno) for name in found]
    return modules


def imported_from(
    module: Module, node: ast.ImportFrom, modules: dict[str, Module]
) -> Iterator[str]:
    """Name the modules behind a ``from`` import; submodules by their own names."""
    source = node.module or ""
    if node.level:
        above = module.name.split(".")
        if module.path.name != "__init__.py":
            above = above[:-1]
        above = above[: len(above) - node.level + 1]
        source = ".".join([*above, *([source] if source else [])])
    for alias in node.names:
        submodule = f"{source}.{alias.name}"
        yield submodule if submodule in modules or submodule in IMPURE else source


def homeless(modules: dict[str, Module]) -> Iterator[str]:
    for module in modules.values():
        if module.part and module.floor is None:
            yield f"{module.at(1)} is on no floor: give `{module.part}` one in FLOORS"


def upward(modules: dict[str, Module]) -> Iterator[str]:
    for module in modules.values():
        for name, line in module.imports:
            target = modules.get(name)
            if target is None or module.floor is None:
                continue
            if not target.part:
                yield (
                    f"{module.at(line)}: {module.name} imports from the package itself;"
                    " import from the module that defines it"
                )
            elif target.floor is not None and target.floor > module.floor:
                yield (
                    f"{module.at(line)}: {module.name} (floor {module.floor}) imports"
                    f" {name} (floor {target.floor}); imports go down"
                )


def front_door(modules: dict[str, Module]) -> Iterator[str]:
    package = modules["bridge"]
    for name, line in package.imports:
        part = name.partition(".")[2].partition(".")[0]
        if name.partition(".")[0] == "bridge" and part not in SHOWN_BY_THE_PACKAGE:
            yield f"{package.at(line)}: the package shows no {name}"


def loops(modules: dict[str, Module]) -> Iterator[str]:
    """Yield each loop once, from its alphabetically first module."""
    graph = {
        module.name: sorted({name for name, _ in module.imports if name in modules})
        for module in modules.values()
        if module.part
    }

    def walk(path: list[str]) -> Iterator[list[str]]:
        for name in graph.get(path[-1], []):
            if name == path[0]:
                yield path
            elif name > path[0] and name not in path:
                yield from walk([*path, name])

    for start in graph:
        for path in walk([start]):
            yield "a loop of imports: " + " -> ".join([*path, start])


def impure(modules: dict[str, Module]) -> Iterator[str]:
    for module in modules.values():
        if module.floor not in (0, 1):
            continue
        for name, line in module.imports:
            if any(f"{name}.".startswith(f"{banned}.") for banned in IMPURE):
                yield f"{module.at(line)}: floor {module.floor} is sans-IO, no {name}"
        for node in ast.walk(module.tree):
            if isinstance(node, ASYNC_NODES):
                yield f"{module.at(node.lineno)}: floor {module.floor} awaits nothing"
            elif isinstance(node, ast.Attribute) and node.attr in CLOCKS:
                yield f"{module.at(node.lineno)}: floor {module.floor} has no clock"


def nats_elsewhere(modules: dict[str, Module]) -> Iterator[str]:
    for module in modules.values():
        for name, line in module.imports:
            if name.partition(".")[0] == "nats" and module.part != "bus":
                yield f"{module.at(line)}: only bridge.bus imports {name}"


def process_read(node: ast.AST) -> Iterator[str]:
    """Name what ``node`` takes from the process's environment or arguments."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        if (node.value.id, node.attr) in PROCESS:
            yield f"{node.value.id}.{node.attr}"
    elif isinstance(node, ast.ImportFrom):
        for alias in node.names:
            if (node.module, alias.name) in PROCESS:
                yield f"{node.module}.{alias.name}"


def environment(modules: dict[str, Module]) -> Iterator[str]:
    for module in modules.values():
        if module.part == "cli":
            continue
        for node in ast.walk(module.tree):
            for name in process_read(node):
                line = getattr(node, "lineno", 0)
                yield f"{module.at(line)}: only bridge.cli reads {name}"


Rule = Callable[[dict[str, Module]], Iterator[str]]
RULES: list[Rule] = [
    homeless,
    upward,
    front_door,
    loops,
    impure,
    nats_elsewhere,
    environment,
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_package_keeps_its_floors(rule: Rule) -> None:
    breaches = list(rule(load(PACKAGE)))
    assert not breaches, "\n" + "\n".join(breaches)


def test_every_floor_has_what_the_plan_names() -> None:
    modules = load(PACKAGE)
    assert {"bridge.errors", "bridge.events", "bridge.subjects"} <= modules.keys()
    assert len({module.floor for module in modules.values() if module.part}) > 1


BREACHES: list[tuple[Rule, dict[str, str], str]] = [
    (homeless, {"misc.py": ""}, "bridge/misc.py:1 is on no floor"),
    (homeless, {"misc/deep.py": ""}, "bridge/misc/deep.py:1 is on no floor"),
    (
        upward,
        {"job.py": "from bridge.worker import Worker", "worker.py": ""},
        "bridge/job.py:1: bridge.job (floor 1) imports bridge.worker (floor 3)",
    ),
    (
        upward,
        {"bus/log.py": "import os\n\nfrom ..client import x", "client.py": ""},
        "bridge/bus/log.py:3: bridge.bus.log (floor 2) imports bridge.client (floor 4)",
    ),
    (
        upward,
        {"bus/__init__.py": "from .. import cli", "cli.py": ""},
        "bridge/bus/__init__.py:1: bridge.bus (floor 2) imports bridge.cli (floor 4)",
    ),
    (
        upward,
        {"errors.py": "def f():\n    import bridge.events, bridge.bus", "bus.py": ""},
        "bridge/errors.py:2: bridge.errors (floor 0) imports bridge.bus (floor 2)",
    ),
    (upward, {"worker.py": "from bridge import Client"}, "from the package itself"),
    (
        front_door,
        {"__init__.py": "from bridge.worker import Worker", "worker.py": ""},
        "bridge/__init__.py:1: the package shows no bridge.worker",
    ),
    (
        loops,
        {"decoders/a.py": "from . import b", "decoders/b.py": "from .a import x"},
        "bridge.decoders.a -> bridge.decoders.b -> bridge.decoders.a",
    ),
    (
        loops,
        {"bus/__init__.py": "from .log import x", "bus/log.py": "from . import y"},
        "bridge.bus -> bridge.bus.log -> bridge.bus",
    ),
    (impure, {"job.py": "import time"}, "bridge/job.py:1: floor 1 is sans-IO"),
    (impure, {"events.py": "from asyncio import sleep"}, "no asyncio"),
    (impure, {"job.py": "from http import client"}, "no http.client"),
    (impure, {"job.py": "async def f(): ..."}, "floor 1 awaits nothing"),
    (impure, {"job.py": "datetime.now(UTC)"}, "floor 1 has no clock"),
    (nats_elsewhere, {"client.py": "import nats.errors"}, "only bridge.bus imports"),
    (environment, {"config.py": "import os\nos.environ['A']"}, "config.py:2: only"),
    (environment, {"config.py": "from os import getenv"}, "reads os.getenv"),
    (environment, {"worker.py": "import sys\nprint(sys.argv)"}, "reads sys.argv"),
]  # fmt: skip


def write(package: Path, files: dict[str, str]) -> dict[str, Module]:
    for name, text in {"__init__.py": "", **files}.items():
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return load(package)


@pytest.mark.parametrize(
    ("rule", "files", "sentence"),
    BREACHES,
    ids=[f"{rule.__name__}-{'-'.join(files)}" for rule, files, _ in BREACHES],
)
def test_a_breach_is_seen(
    rule: Rule, files: dict[str, str], sentence: str, tmp_path: Path
) -> None:
    breaches = list(rule(write(tmp_path / "bridge", files)))
    assert len(breaches) == 1
    assert sentence in breaches[0]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_sound_house_has_no_breach(rule: Rule, tmp_path: Path) -> None:
    modules = write(
        tmp_path / "bridge",
        {
            "__init__.py": "from bridge.client import Client",
            "errors.py": "",
            "decoders/__init__.py": "from bridge.errors import BridgeError",
            "decoders/lines.py": "from .. import errors\nfrom . import Record",
            "bus/__init__.py": "import nats\nimport asyncio",
            "client.py": "from bridge.bus import Bus\nfrom .decoders import lines",
            "cli/__init__.py": "import os\nos.environ\nfrom ..client import Client",
        },
    )
    assert list(rule(modules)) == []
