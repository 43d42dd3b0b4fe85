"""What a client that stops reading costs the others, and what it reads when it wakes: ours beside a broadcast.

Each server sends at a fixed pace to many clients. Rounds in which everybody reads and rounds in which one more client
reads nothing until the round is over take turns on one server, so that a disturbance of the machine falls on both. The
stalled client has a receive buffer of 64 KiB, as our client library asks for, or in rounds of their own the kernel's
choice. The sink, a C program, reads for the others and notes how old each frame is.
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
from benchmarks.relay import PING
from benchmarks.report import Figure, Report, Table, Value, main, progress

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


SCENARIOS = (Scenario("1,000 clients, 100/s", 1_000, 100, 5.0), Scenario("50 clients, 1,000/s", 50, 1_000, 2.0))


class Woken(msgspec.Struct, frozen=True):
    """What a stalled client reads when it wakes."""

    stale_bytes: int
    """Before the last message."""
    messages: int
    after_stale: int
    """Messages in which changes were merged: one for all feeds, if the server merges."""
    last_seq: int


class Outcome(msgspec.Struct, frozen=True):
    """One round."""

    p50_us: int
    p99_us: int
    grown_kib: float
    """Of the server's resident memory while it sent."""
    cpu_part: float
    """Processor time of the sends by wall time, in percent."""
    woken: Woken | None


class Rounds(msgspec.Struct, frozen=True):
    """All rounds of one server in one scenario, in the order in which they took turns."""

    normal: list[Outcome]
    limited: list[Outcome]
    """One client stalled, its receive buffer limited."""
    plain: list[Outcome]
    """The same with the kernel's choice of a receive buffer; none for the peer."""


@contextmanager
def stalled(port: int, name: str, *, limited: bool) -> Iterator[socket.socket]:
    """A client that asks for all and reads nothing but the handshake."""
    ours = name == OURS
    path, request = ("/v1/stream", SUBSCRIBE.encode()) if ours else ("/", b"")
    with socket.socket() as sock:
        if limited:
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
        for ping in PING.finditer(data):  # a websocket client answers when it has read so far
            sock.sendall(bytes((0x8A, 0x88)) + bytes(4) + ping.group(1))
        received += data
    starts = [match.start() for match in re.finditer(rb'\{"type":"update"', received)]
    seqs = [int(SEQ.search(received, start).group(1)) for start in starts]  # type: ignore[union-attr]
    return Woken(
        stale_bytes=starts[-1] if starts else 0,
        messages=len(starts),
        after_stale=bytes(received).count(CONFLATED),
        last_seq=seqs[-1] if seqs else 0,
    )


def measure(programs: wire.Programs, name: str, scenario: Scenario, repetitions: int) -> Rounds:
    """One server, in all its rounds."""
    n_batches, interval_s = int(scenario.per_second * scenario.seconds), 1 / scenario.per_second
    found = Rounds([], [], [])
    with (
        broadcaster(name, N_FEEDS, None) as (ask, port),
        sink_of(programs, name, port, scenario.n_clients, acks=False) as sink,
    ):
        resident_bytes = ask((scenario.per_second // 4, interval_s)).resident_bytes  # caches warm, buffers grown

        def one(sock: socket.socket | None) -> Outcome:
            nonlocal resident_bytes
            sink.lap()
            told = ask((n_batches, interval_s))
            counts = sink.lap()
            grown_bytes, resident_bytes = told.resident_bytes - resident_bytes, told.resident_bytes
            return Outcome(
                p50_us=counts.p50_us,
                p99_us=counts.p99_us,
                grown_kib=grown_bytes / 1024,
                cpu_part=told.cpu_ns / 1e7 / scenario.seconds,
                woken=None if sock is None else wake(sock),
            )

        for number in range(repetitions):
            progress(f"stall: {scenario.name}: {name}: {number + 1} of {repetitions}")
            found.normal.append(one(None))
            with stalled(port, name, limited=True) as sock:
                found.limited.append(one(sock))
            if name == OURS:
                with stalled(port, name, limited=False) as sock:
                    found.plain.append(one(sock))
    return found


def ratio(over: list[Outcome], under: list[Outcome]) -> float:
    """Of the 99th percentiles: the median over rounds that followed each other."""
    return statistics.median(b.p99_us / max(1, a.p99_us) for b, a in zip(over, under, strict=True))


def row(scenario: Scenario, name: str, normal: list[Outcome], one_stalled: list[Outcome]) -> tuple[Value, ...]:
    woken = [outcome.woken for outcome in one_stalled if outcome.woken is not None]
    p99_us = sorted(one.p99_us for one in normal)
    return (
        scenario.name,
        name,
        statistics.median(one.p50_us for one in normal),
        statistics.median(one.p50_us for one in one_stalled),
        statistics.median(p99_us),
        f"{p99_us[0]:,} to {p99_us[-1]:,}",
        statistics.median(one.p99_us for one in one_stalled),
        statistics.median(one.grown_kib for one in normal),
        statistics.median(one.grown_kib for one in one_stalled),
        max(one.stale_bytes for one in woken) / 1024,
        max(one.messages for one in woken),
        max(one.after_stale for one in woken),
    )


COLUMNS = (
    "scenario", "server", "p50 us", "p50 us, one stalled", "p99 us", "p99 us of rounds", "p99 us, one stalled",
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
            ours = measure(programs, OURS, scenario, repetitions)
            peer = measure(programs, PEER, scenario, repetitions)
            rows += [
                row(scenario, OURS, ours.normal, ours.limited),
                row(scenario, f"{OURS}, client's buffer left alone", ours.normal, ours.plain),
                row(scenario, PEER, peer.normal, peer.limited),
            ]
            figures += figures_of(ours, f"_{number}")
    notes = [
        f"{repetitions} rounds of each kind, taking turns; medians, but for what is read on waking: the largest. "
        f"{N_FEEDS} feed a frame.",
        "p99_ratio: of a round with a stalled client to the one before without. p99_noise: of a round without to the "
        "last one without: what the ratio would be if nothing stalled (1 where there is one round).",
        "Memory: grown within a round; the figure is how much more with a stalled client. Ours also fills its "
        "ring of batches for resume, which is bounded by count, bytes and age.",
        "Stale: what is read before the newest message. Merged: messages in which the server merged changes.",
        "_0 and _1 are the scenarios of the table, in its order.",
        broadcasters.version_note(),
    ]
    return Report("stall", tuple(figures), (Table("One client stops reading", COLUMNS, tuple(rows)),), tuple(notes))


def stale_kib(outcomes: list[Outcome]) -> float:
    return max(outcome.woken.stale_bytes for outcome in outcomes if outcome.woken is not None) / 1024


def figures_of(ours: Rounds, suffix: str) -> list[Figure]:
    merged = max(one.woken.after_stale for one in ours.limited if one.woken is not None)
    more_kib = [b.grown_kib - a.grown_kib for a, b in zip(ours.normal, ours.limited, strict=True)]
    noise = ratio(ours.normal[1:], ours.normal[:-1]) if len(ours.normal) > 1 else 1.0
    return [
        Figure(f"p99_ratio{suffix}", ratio(ours.limited, ours.normal), "times", at_most=1.5),
        Figure(f"p99_noise{suffix}", noise, "times"),
        Figure(f"stale_kib{suffix}", stale_kib(ours.limited), "KiB", at_most=128.0),
        Figure(f"stale_kib_buffer_left_alone{suffix}", stale_kib(ours.plain), "KiB", at_most=128.0),
        Figure(f"merged_messages{suffix}", float(merged), "messages", at_most=2.0),
        Figure(f"memory_for_stalled_kib{suffix}", max(1.0, statistics.median(more_kib)), "KiB", at_most=1_024.0),
    ]


if __name__ == "__main__":
    sys.exit(main("stall", "One client stops reading: what it costs.", run, repetitions=5))
