"""What a connection costs that only listens, and what connections that arrive cost those who are there.

Idle: ten thousand websockets with a subscription each, and nothing to tell but heartbeats. Memory is what the server's
resident size grew by, from ten connections on; a C program counts the heartbeats that came late. Peers hold as many
open websockets, without subscriptions and heartbeats, which they do not know.

Arriving: a thousand keepers are told a hundred prices a second, while 500 clients a second connect and subscribe to
another feed. Turns with and without arrivals follow each other on one server.
"""

import statistics
import sys
import tempfile
from pathlib import Path

import msgspec

from benchmarks import broadcasters, wire
from benchmarks.broadcasters import OURS, OURS_LIVE, PEER
from benchmarks.fanout import SUBSCRIBE, broadcaster, sink_of
from benchmarks.report import Figure, Report, Table, Value, main, progress

HEARTBEAT_MS = 500
LATE_MS = 750
"""Longer than this between two reads of one client: a heartbeat was half of its interval late."""
N_WARM = 10
SOL, OTHER = ('{"type":"subscribe","feeds":["SOL/USD"]}', '{"type":"subscribe","feeds":["F01/USD"]}')


class Sizes(msgspec.Struct, frozen=True):
    """How much of everything."""

    n_idle: int = 10_000
    idle_s: float = 5.0
    n_keepers: int = 1_000
    batches_per_second: int = 100
    arrivals_per_second: int = 500
    turn_s: float = 3.0


class Idle(msgspec.Struct, frozen=True):
    """One server with all its idle connections."""

    kib_each: float
    cpu_part: float
    """Of one core while it was idle, in percent."""
    heartbeats: int
    late: int
    longest_gap_ms: float


class Turn(msgspec.Struct, frozen=True):
    """One server for one turn."""

    p50_us: int
    p99_us: int
    arrived: int
    cpu_part: float
    """Of the sends, in percent of the time."""


def idle(programs: wire.Programs, name: str, sizes: Sizes) -> Idle:
    """Connect them all, and look on for a while."""
    ours = name == OURS_LIVE
    arguments = (5, 1, HEARTBEAT_MS) if ours else (5, None)
    with (
        broadcaster(name, *arguments) as (ask, port),
        sink_of(programs, name, port, N_WARM, acks=False, path="/idle"),
    ):
        ask((0, 0.1))
        before = ask((0, 0.1)).resident_bytes
        late_us = LATE_MS * 1_000 if ours else 0
        with sink_of(
            programs, name, port, sizes.n_idle - N_WARM, acks=False, path="/idle", late_us=late_us, pause_us=5_000
        ) as sink:
            ask((0, 2 * HEARTBEAT_MS / 1e3))
            sink.lap()
            told = ask((0, sizes.idle_s))
            counts = sink.lap()
            return Idle(
                kib_each=(told.resident_bytes - before) / 1024 / (sizes.n_idle - N_WARM),
                cpu_part=told.process_ns / 1e7 / sizes.idle_s,
                heartbeats=counts.frames,
                late=counts.late,
                longest_gap_ms=counts.longest_gap_us / 1e3,
            )


def arriving(programs: wire.Programs, name: str, repetitions: int, sizes: Sizes) -> tuple[list[Turn], list[Turn]]:
    """Turns without arrivals, and with."""
    arguments = (2, 1, HEARTBEAT_MS) if name == OURS_LIVE else (1, None)
    n_rounds = int(sizes.batches_per_second * sizes.turn_s)
    n_arrivals = int(sizes.arrivals_per_second * sizes.turn_s)
    quiet: list[Turn] = []
    busy: list[Turn] = []

    def turn(arrivals: wire.Sink | None) -> Turn:
        keepers.lap()
        if arrivals is not None:
            arrivals.begin()
        told = ask((n_rounds, 1 / sizes.batches_per_second))
        seen = keepers.lap()
        arrived = arrivals.lap().open if arrivals is not None else 0
        return Turn(seen.p50_us, seen.p99_us, arrived, told.cpu_ns / 1e7 / sizes.turn_s)

    with (
        broadcaster(name, *arguments) as (ask, port),
        sink_of(programs, name, port, sizes.n_keepers, acks=False, request=SOL) as keepers,
    ):
        ask((sizes.batches_per_second // 2, 1 / sizes.batches_per_second))  # caches warm, objects frozen
        for number in range(repetitions):
            quiet.append(turn(None))
            with sink_of(
                programs, name, port, n_arrivals, acks=False, request=OTHER, path="/idle",
                per_second=sizes.arrivals_per_second,
            ) as arrivals:  # fmt: skip
                busy.append(turn(arrivals))
            ask((0, 0.3))  # those who came have left again
            progress(f"connections: arrivals at {name}: turn {number + 1} of {repetitions}")
    return quiet, busy


def idle_rows(found: dict[str, list[Idle]]) -> tuple[tuple[Value, ...], ...]:
    rows: list[tuple[Value, ...]] = []
    for name, of in found.items():
        kib, cpu = (statistics.median(one.kib_each for one in of), statistics.median(one.cpu_part for one in of))
        if name == OURS_LIVE:
            beats = statistics.median(one.heartbeats for one in of)
            late, gap = sum(one.late for one in of), max(one.longest_gap_ms for one in of)
            rows.append((name, kib, cpu, beats, late, gap))
        else:
            rows.append((name, kib, cpu, None, None, None))
    return tuple(rows)


def ratio(quiet: list[Turn], busy: list[Turn]) -> float:
    """Of the 99th percentiles: the median over turns, each with the quiet one before it."""
    return statistics.median(b.p99_us / max(1, a.p99_us) for a, b in zip(quiet, busy, strict=True))


def arrival_row(name: str, quiet: list[Turn], busy: list[Turn], turn_s: float) -> tuple[Value, ...]:
    return (
        name,
        statistics.median(one.p50_us for one in quiet),
        statistics.median(one.p50_us for one in busy),
        statistics.median(one.p99_us for one in quiet),
        statistics.median(one.p99_us for one in busy),
        ratio(quiet, busy),
        statistics.median(one.arrived for one in busy) / turn_s,
    )


IDLE_COLUMNS = ("server", "KiB each", "cpu %", "heartbeats", "late", "longest gap ms")
ARRIVAL_COLUMNS = (
    "server", "p50 us", "p50 us, arrivals", "p99 us", "p99 us, arrivals", "p99 ratio", "arrived per s",
)  # fmt: skip


def run(repetitions: int, *, sizes: Sizes | None = None) -> Report:
    sizes = sizes or Sizes()
    wire.require_file_limit(sizes.n_idle + 200)
    names = [OURS_LIVE, *(name for name in broadcasters.SERVERS if name != OURS)]
    held: dict[str, list[Idle]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        programs = wire.build(Path(folder))
        for number in range(repetitions):
            for name in names:
                if name == OURS_LIVE or not number:  # memory of a peer is the same each time
                    held[name].append(idle(programs, name, sizes))
                    progress(f"connections: idle at {name}: {number + 1} of {repetitions}")
        turns = {name: arriving(programs, name, repetitions, sizes) for name in (OURS_LIVE, PEER)}
    ours = held[OURS_LIVE]
    figures = (
        Figure("kib_per_connection", max(one.kib_each for one in ours), "KiB", at_most=24.0),
        Figure("idle_heartbeats", statistics.median(one.heartbeats for one in ours) / sizes.idle_s, "per s"),
        Figure("idle_late", float(max(one.late for one in ours)), "gaps", at_most=0.0),
        Figure("idle_cpu", statistics.median(one.cpu_part for one in ours), "% of a core"),
        Figure("p99_ratio_with_arrivals", ratio(*turns[OURS_LIVE]), "times", at_most=2.0),
        Figure(
            "arrived_per_second",
            statistics.median(one.arrived for one in turns[OURS_LIVE][1]) / sizes.turn_s,
            "per s",
            at_least=0.95 * sizes.arrivals_per_second,
        ),
    )
    tables = (
        Table(f"{sizes.n_idle} idle connections", IDLE_COLUMNS, idle_rows(held)),
        Table(
            f"{sizes.n_keepers} keepers, {sizes.batches_per_second} batches a second",
            ARRIVAL_COLUMNS,
            tuple(arrival_row(name, *turns[name], sizes.turn_s) for name in turns),
        ),
    )
    notes = (
        f"{repetitions} repetitions: memory and late heartbeats the largest, else medians; peers idle once. Resident "
        "size of the server's process; the kernel's memory for sockets is not in it.",
        f"Late: a client read nothing for more than {LATE_MS} ms; a heartbeat is due each {HEARTBEAT_MS} ms.",
        f"Arrivals: {sizes.arrivals_per_second} a second for {sizes.turn_s:g} s, each with handshake and subscription "
        f"({SUBSCRIBE[:20]}…); then they leave. Arrived: those who had been answered within the turn.",
        broadcasters.version_note(),
    )
    return Report("connections", figures, tables, notes)


if __name__ == "__main__":
    sys.exit(main("connections", "What connections cost that are idle, or arrive.", run, repetitions=3))
