"""Ports of 127.0.0.1 for programs that have to be told one, and for those that must find nobody."""

import itertools
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

_FIRST, _PER_PROCESS = 20_000, 1_000
"""Below what the kernel deals out by itself (from 32,768 on): there, a free port may go to anybody meanwhile."""
_dealt = itertools.count(os.getpid())


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, and that no other process of this run of tests is given."""
    runner = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    found: list[int] = []
    for number in itertools.islice(_dealt, _PER_PROCESS):
        port = _FIRST + runner % 12 * _PER_PROCESS + number % _PER_PROCESS
        with socket.socket() as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                one.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise AssertionError(f"no {count} free ports from {_FIRST} on")


@contextmanager
def deaf_port() -> Iterator[int]:
    """A port that refuses connections: it is taken, so that nobody else comes to listen there, and does not listen."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]
