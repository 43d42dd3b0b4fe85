"""What a client that stops reading costs the others, and what it reads when it wakes: ours beside a broadcast.

Each server sends at a fixed pace to many clients, of which one reads nothing until all has been sent. That one has a
receive buffer of 64 KiB; a kernel left to itself held up to 170 KiB. The sink, a C program, reads for the others and
notes how old each frame is. A run without a stalled client before it says what is normal.
"""

import re
import select
import socket
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from benchmarks import broadcasters, wire
from benchmarks.broadcasters import OURS, PEER
from benchmarks.fanout import SUBSCRIBE, broadcaster, sink_of
from benchmarks.report import Figure, Report, Table, Value, main

N_FEEDS = 1
RECEIVE_BUFFER_BYTES = 32_768
"""The kernel doubles it."""
QUIET_S = 0.5
PRICES = re.compile(rb'"price":"(\d+)"')
SEQ = re.compile(rb'"seq":(\d+)')
CONFLATED = b'"conflated":true'


class Scenario(msgspec.Struct, frozen=True):
    """So many clients, told so often, for so long."""

    name: str
    n_clients: int
    per_second: int
    seconds: float


SCENARIOS = (Scenario("1,000 clients, 100/s", 1_000, 100, 6.0), Scenario("50 clients, 1,000/s", 50, 1_000, 6.0))


class Woken(msgspec.Struct, frozen=True):
    """What a stalled client reads when it wakes."""

    stale_bytes: int
    """Before the last message."""
    messages: int
    after_stale: int
    """Messages in which changes were merged: one for all feeds, if the server merges."""
    last_seq: int


class Outcome(msgspec.Struct, frozen=True):
    """One server in one scenario."""

    p50_us: int
    p99_us: int
    grown_kib: float
    """Of the server's resident memory while it sent."""
    cpu_part: float
    """Processor time of the sends by wall time, in percent."""
    woken: Woken | None


@contextmanager
def stalled(port: int, name: str) -> Iterator[socket.socket]:
    """A client that asks for all and reads nothing but the handshake."""
    ours = name == OURS
    path, request = ("/v1/stream", SUBSCRIBE.encode()) if ours else ("/", b"")
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        sock.connect(("127.0.0.1", port))
        head = (
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        frame = bytes((0x81, 0x80 | len(request))) + bytes(4) + request if request else b""
        sock.sendall(head.encode() + frame)
        seen = b""
        while b"\r\n\r\n" not in seen or (ours and b'"type":"snapshot"' not in seen):
            seen += sock.recv(1 << 16)
        yield sock


def wake(sock: socket.socket) -> Woken:
    """Read until nothing has come for a while."""
    received = bytearray()
    while select.select([sock], [], [], QUIET_S)[0]:
        data = sock.recv(1 << 20)
        if not data:
            break
        received += data
    starts = [match.start() for match in re.finditer(rb'\{"type":"update"', received)]
    seqs = [int(SEQ.search(received, start).group(1)) for start in starts]  # type: ignore[union-attr]
    return Woken(
        stale_bytes=starts[-1] if starts else 0,
        messages=len(starts),
        after_stale=bytes(received).count(CONFLATED),
        last_seq=seqs[-1] if seqs else 0,
    )


def measure(programs: wire.Programs, name: str, scenario: Scenario, *, with_stalled: bool) -> Outcome:
    """One server, once."""
    n_rounds = int(scenario.per_second * scenario.seconds)
    with (
        broadcaster(name, N_FEEDS, None) as (ask, port),
        sink_of(programs, name, port, scenario.n_clients, acks=False) as sink,
    ):
        before = ask((scenario.per_second // 4, 1 / scenario.per_second))  # caches warm, buffers grown
        if not with_stalled:
            told = ask((n_rounds, 1 / scenario.per_second))
            return _outcome(sink, scenario, before, told, None)
        with stalled(port, name) as sock:
            told = ask((n_rounds, 1 / scenario.per_second))
            return _outcome(sink, scenario, before, told, wake(sock))


def _outcome(
    sink: wire.Sink, scenario: Scenario, before: broadcasters.Told, told: broadcasters.Told, woken: Woken | None
) -> Outcome:
    counts = sink.counts()
    return Outcome(
        p50_us=counts.p50_us,
        p99_us=counts.p99_us,
        grown_kib=(told.resident_bytes - before.resident_bytes) / 1024,
        cpu_part=told.cpu_ns / 1e7 / scenario.seconds,
        woken=woken,
    )


def row(scenario: Scenario, name: str, normal: Outcome, one_stalled: Outcome) -> tuple[Value, ...]:
    woken = one_stalled.woken
    assert woken is not None
    return (
        scenario.name,
        name,
        normal.p50_us,
        one_stalled.p50_us,
        normal.p99_us,
        one_stalled.p99_us,
        normal.grown_kib,
        one_stalled.grown_kib,
        woken.stale_bytes / 1024,
        woken.messages,
        woken.after_stale,
    )


COLUMNS = (
    "scenario", "server", "p50 us", "p50 us, one stalled", "p99 us", "p99 us, one stalled",
    "memory grown KiB", "grown KiB, one stalled",
    "stale KiB on waking", "messages on waking", "of them merged",
)  # fmt: skip


def run(repetitions: int, *, scenarios: tuple[Scenario, ...] = SCENARIOS) -> Report:
    wire.raise_file_limit(25_000)
    rows: list[tuple[Value, ...]] = []
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as folder:
        programs = wire.build(Path(folder))
        for number, scenario in enumerate(scenarios):
            for name in (OURS, PEER):
                runs = [
                    tuple(measure(programs, name, scenario, with_stalled=stall) for stall in (False, True))
                    for _ in range(repetitions)
                ]
                runs.sort(key=lambda pair: pair[1].p99_us / max(1, pair[0].p99_us))
                normal, one_stalled = runs[len(runs) // 2]
                rows.append(row(scenario, name, normal, one_stalled))
                if name == OURS:
                    figures += figures_of([pair[0] for pair in runs], [pair[1] for pair in runs], f"_{number}")
    notes = [
        f"{repetitions} repetitions; ratios are medians, stale bytes and memory the largest. {N_FEEDS} feed a frame.",
        "Memory: grown with a stalled client; the figure is how much more than without one. Ours also fills its "
        "ring of batches for resume, which is bounded by count, bytes and age.",
        "Stale: what is read before the newest message. Merged: messages in which the server merged changes.",
        "_0 and _1 are the scenarios of the table, in its order.",
        broadcasters.version_note(),
    ]
    return Report("stall", tuple(figures), (Table("One client stops reading", COLUMNS, tuple(rows)),), tuple(notes))


def figures_of(normal: list[Outcome], one_stalled: list[Outcome], suffix: str) -> list[Figure]:
    woken = [outcome.woken for outcome in one_stalled if outcome.woken is not None]
    ratio = statistics.median(b.p99_us / max(1, a.p99_us) for a, b in zip(normal, one_stalled, strict=True))
    more_kib = [b.grown_kib - a.grown_kib for a, b in zip(normal, one_stalled, strict=True)]
    return [
        Figure(f"p99_ratio{suffix}", ratio, "times", at_most=1.5),
        Figure(f"stale_kib{suffix}", max(one.stale_bytes for one in woken) / 1024, "KiB", at_most=128.0),
        Figure(f"merged_messages{suffix}", float(max(one.after_stale for one in woken)), "messages", at_most=2.0),
        Figure(f"memory_for_stalled_kib{suffix}", max(1.0, *more_kib), "KiB", at_most=1_024.0),
    ]


if __name__ == "__main__":
    sys.exit(main("stall", "One client stops reading: what it costs.", run, repetitions=1))
