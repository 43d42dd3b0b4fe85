"""Who may import whom. import-linter proves the chains; this file holds the exact list of each room."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# What each room may import of ours, besides itself. A name allows everything below it.
ROOMS: dict[str, tuple[str, ...]] = {
    "oracle_hub.errors": (),
    "oracle_hub.hosts": (),
    "oracle_hub.core": ("oracle_hub.errors",),
    "oracle_hub.stream": ("oracle_hub.errors", "oracle_hub.core"),
    "oracle_hub.ingest": ("oracle_hub.errors", "oracle_hub.core", "oracle_hub.stream"),
    "oracle_hub.journal": ("oracle_hub.errors", "oracle_hub.core", "oracle_hub.stream"),
    "oracle_hub.alerts": ("oracle_hub.errors", "oracle_hub.core", "oracle_hub.stream"),
    "oracle_hub.incidents": ("oracle_hub.errors", "oracle_hub.core", "oracle_hub.alerts"),
    "oracle_hub.server": ("oracle_hub.errors", "oracle_hub.hosts", "oracle_hub.core", "oracle_hub.stream"),
    "oracle_hub.client": ("oracle_hub.errors", "oracle_hub.stream.messages", "oracle_hub.stream.binary"),
    "oracle_hub.charts": (
        "oracle_hub.errors",
        "oracle_hub.hosts",
        "oracle_hub.client",
        "oracle_hub.stream.messages",
        "oracle_hub.core.price",
    ),
    "oracle_hub.clock": ("oracle_hub.errors", "oracle_hub.core"),
    "oracle_hub.config": (
        "oracle_hub.errors",
        "oracle_hub.hosts",
        "oracle_hub.core",
        "oracle_hub.config_checks",
        "oracle_hub.config_errors",
        "oracle_hub.config_secrets",
        "oracle_hub.config_sections",
    ),
    "oracle_hub.config_checks": ("oracle_hub.errors", "oracle_hub.config_secrets", "oracle_hub.config_sections"),
    "oracle_hub.config_errors": ("oracle_hub.errors",),
    "oracle_hub.config_secrets": ("oracle_hub.errors",),
    "oracle_hub.config_sections": (),
    "oracle_hub.metrics": ("oracle_hub.errors", "oracle_hub.core"),
    "oracle_hub.state": ("oracle_hub.errors", "oracle_hub.core"),
    "oracle_hub.app": ("oracle_hub", "feeds"),
    "oracle_hub.cli": ("oracle_hub", "feeds"),
    "feeds": ("oracle_hub.errors", "oracle_hub.core"),
}

# Modules that read a clock, draw a random number, or touch the world outside the process.
IMPURE = frozenset(
    {"aiohttp", "asyncio", "concurrent", "datetime", "io", "logging", "multiprocessing", "os", "pathlib", "random"}
    | {"secrets", "selectors", "shutil", "signal", "socket", "sqlite3", "ssl", "subprocess", "tempfile", "threading"}
    | {"time", "urllib", "uuid", "web3", "websockets"}
)
IMPURE_CALLS = frozenset({"open", "print", "input", "__import__", "exec", "eval"})


def sources(room: str) -> list[Path]:
    """All modules of a room: one file, or a folder of them; none when the room is not built."""
    base = ROOT.joinpath(*room.split("."))
    return [base.with_suffix(".py")] if base.with_suffix(".py").is_file() else sorted(base.rglob("*.py"))


def imported(tree: ast.AST) -> Iterator[str]:
    """Dotted names that a module imports; ``from a import b`` gives ``a.b``. A relative import gives a leading dot."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from (f"{module}.{alias.name}" for alias in node.names)


def within(name: str, room: str) -> bool:
    return name == room or name.startswith(room + ".")


def strays(room: str, allowed: tuple[str, ...], source: str) -> list[str]:
    """Imports of ours in ``source`` that its room may not have; a relative import hides its target and counts."""
    ours = [name for name in imported(ast.parse(source)) if name.split(".")[0] in ("oracle_hub", "feeds", "")]
    return [name for name in ours if not any(within(name, target) for target in (room, *allowed))]


def impurities(source: str) -> list[str]:
    """Names in ``source`` by which a clock, a file, a socket, a task or a log would come in."""
    tree = ast.parse(source)
    found = [name for name in imported(tree) if name.split(".")[0] in IMPURE]
    calls = (node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name))
    return found + [f"{name}()" for name in calls if name in IMPURE_CALLS]


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_room_imports_only_what_its_list_allows(room: str) -> None:
    found = {
        str(path.relative_to(ROOT)): bad
        for path in sources(room)
        if (bad := strays(room, ROOMS[room], path.read_text("utf-8")))
    }
    assert found == {}


@pytest.mark.parametrize("room", ["oracle_hub.errors", "oracle_hub.core", "oracle_hub.stream"])
def test_pure_room_has_no_clock_file_socket_task_or_log(room: str) -> None:
    assert sources(room)
    found = {str(path.relative_to(ROOT)): bad for path in sources(room) if (bad := impurities(path.read_text("utf-8")))}
    assert found == {}


def test_every_part_of_the_package_is_a_listed_room() -> None:
    parts = {
        f"oracle_hub.{path.stem}"
        for path in (ROOT / "oracle_hub").iterdir()
        if (path.suffix == ".py" and path.stem != "__init__") or (path.is_dir() and any(path.rglob("*.py")))
    }
    assert parts - set(ROOMS) == set()


def test_the_check_sees_a_stray_import() -> None:
    allowed = ROOMS["oracle_hub.charts"]
    source = "from oracle_hub.core import hub\nfrom oracle_hub.core.price import near\nfrom ..app import engine\n"
    source += "import feeds\n"
    assert strays("oracle_hub.charts", allowed, source) == ["oracle_hub.core.hub", "..app.engine", "feeds"]


def test_the_check_sees_an_impurity() -> None:
    source = "import numpy, time\nfrom os.path import join\ndef f():\n    from asyncio import sleep\n    open('x')\n"
    assert impurities(source) == ["time", "os.path.join", "asyncio.sleep", "open()"]


def test_import_contracts_hold() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 broken" in done.stdout
