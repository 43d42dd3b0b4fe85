"""What heartbeats cost: 2,000 feeds, and a thousand subscribers to three of them each, in nearly as many groups.

Heartbeats go out at their usual pace of one each half second; the cost is the processor time of the whole server, less
that of a server without heartbeats that is asked to do the same in turn. Once nothing changes; once some feeds get
another price all the time, so that digests must be made again. Every heartbeat is read by a C program on another core,
which also counts those that came late.
"""

import statistics
import sys
import tempfile
from pathlib import Path

import msgspec

from benchmarks import broadcasters, wire
from benchmarks.broadcasters import OURS_LIVE
from benchmarks.fanout import broadcaster, sink_of
from benchmarks.report import Figure, Report, Table, Value, main, progress

N_FEEDS = 2_000
N_CLIENTS = 1_000
SECONDS = 4.0
HEARTBEAT_MS = 500
LATE_MS = 600
"""Longer than this between two reads of one client: at least one heartbeat was a fifth of its interval late."""
STRIDES = (0, 517, 911)


class Case(msgspec.Struct, frozen=True):
    name: str
    per_second: int
    """Prices that change."""
    reader_pause_us: int = 5_000
    """The reader sleeps for so long between reads, so that the server does not pay for waking it with every frame: a
    subscriber on another machine is woken at its own cost. 0: it does."""


CASES = (
    Case("nothing changes", 0),
    Case("200 prices a second", 200),
    Case("nothing changes, readers woken by the server", 0, reader_pause_us=0),
)


class Outcome(msgspec.Struct, frozen=True):
    """One turn of a server."""

    cpu_part: float
    """Of one core, in percent."""
    frames: int
    late: int
    longest_gap_us: int


def requests(n_clients: int, n_feeds: int) -> str:
    """A line for each client: it subscribes to three feeds, nobody to the same three."""
    names = broadcasters.feeds(n_feeds)
    wanted = ([names[(number + stride) % n_feeds] for stride in STRIDES] for number in range(n_clients))
    return "\n".join(f'{{"type":"subscribe","feeds":{msgspec.json.encode(feeds).decode()}}}' for feeds in wanted)


def compare(
    programs: wire.Programs, case: Case, repetitions: int, n_clients: int, n_feeds: int, seconds: float
) -> tuple[list[Outcome], list[Outcome]]:
    """Turns without heartbeats, and with."""
    asked = requests(n_clients, n_feeds)
    n_rounds = int(case.per_second * seconds)
    command = (n_rounds, 1 / case.per_second if n_rounds else seconds)
    found: dict[int | None, list[Outcome]] = {None: [], HEARTBEAT_MS: []}
    with (
        broadcaster(OURS_LIVE, n_feeds, n_feeds, None) as (ask_silent, silent_port),
        broadcaster(OURS_LIVE, n_feeds, n_feeds, HEARTBEAT_MS) as (ask_beating, beating_port),
        sink_of(programs, OURS_LIVE, silent_port, n_clients, acks=False, request=asked) as silent,
        sink_of(
            programs,
            OURS_LIVE,
            beating_port,
            n_clients,
            acks=False,
            request=asked,
            late_us=LATE_MS * 1_000,
            pause_us=case.reader_pause_us,
        ) as beating,
    ):
        servers = ((None, ask_silent, silent), (HEARTBEAT_MS, ask_beating, beating))
        for number in range(repetitions + 1):
            for heartbeat_ms, ask, sink in servers:
                sink.lap()
                told = ask(command)
                counts = sink.lap()
                if number:  # the first turn is dropped: caches are cold, and collected objects are frozen in it
                    part = told.process_ns / 1e7 / seconds
                    found[heartbeat_ms].append(Outcome(part, counts.frames, counts.late, counts.longest_gap_us))
            progress(f"heartbeats: {case.name}: turn {number} of {repetitions}")
    return found[None], found[HEARTBEAT_MS]


def cost(silent: list[Outcome], beating: list[Outcome]) -> float:
    """Percent of a core: the median over turns."""
    return statistics.median(b.cpu_part - a.cpu_part for a, b in zip(silent, beating, strict=True))


def run(repetitions: int, *, n_clients: int = N_CLIENTS, n_feeds: int = N_FEEDS, seconds: float = SECONDS) -> Report:
    wire.require_file_limit(n_clients + 100)
    rows: list[tuple[Value, ...]] = []
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as folder:
        programs = wire.build(Path(folder))
        for case in CASES:
            silent, beating = compare(programs, case, repetitions, n_clients, n_feeds, seconds)
            part = cost(silent, beating)
            expected = n_clients * seconds * 1_000 / HEARTBEAT_MS
            late = sum(one.late for one in beating)
            rows.append(
                (
                    case.name,
                    statistics.median(one.cpu_part for one in silent),
                    statistics.median(one.cpu_part for one in beating),
                    part,
                    part * seconds * 1e4 / expected,
                    statistics.median(one.frames for one in beating) / seconds,
                    late,
                    max(one.longest_gap_us for one in beating) / 1e3,
                )
            )
            suffix = "_while_prices_change" if case.per_second else "" if case.reader_pause_us else "_with_wakes"
            bound = 1.0 if case.reader_pause_us else None
            figures += [
                Figure(f"heartbeats_cpu{suffix}", part, "% of a core", at_most=bound),
                Figure(f"late{suffix}", float(late), "gaps", at_most=0.0),
            ]
    columns = (
        "case", "cpu % without", "cpu % with", "cost %", "us each", "frames/s", "late", "longest gap ms",
    )  # fmt: skip
    notes = (
        f"{n_clients} subscribers to three of {n_feeds} feeds each, a heartbeat each {HEARTBEAT_MS} ms; "
        f"{repetitions} turns of {seconds:g} s with and without, medians. Processor time of the whole process.",
        f"Late: a client read nothing for more than {LATE_MS} ms, over all turns.",
    )
    return Report("heartbeats", tuple(figures), (Table("Cost of heartbeats", columns, tuple(rows)),), notes)


if __name__ == "__main__":
    sys.exit(main("heartbeats", "What heartbeats to a thousand subscribers cost.", run, repetitions=3))
