"""What heartbeats cost: 2,000 feeds, and a thousand subscribers to three of them each, in nearly as many groups.

Heartbeats go out at their usual pace of one each half second; the cost is the processor time of the whole server, less
that of a server without heartbeats that is asked to do the same in turn. Once nothing changes; once some feeds get
another price all the time, so that digests must be made again. Every heartbeat is read by a C program on another core,
which also counts those that came late. In turn with the servers, a C loop of ``send()`` writes a frame of the same size
to as many sockets at the same pace: the floor. Beside it stands an event loop that wakes at that pace and does nothing:
an idle process can be dear to wake on a virtual machine, and whoever sends at a pace pays for that too.

On loopback the sender also walks a packet's way up to its reader. Where the system permits it (root), each case is
measured once more with that part on the reader's core (:mod:`benchmarks.elsewhere`): there it is in production.
"""

import contextlib
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import msgspec

from benchmarks import broadcasters, wire
from benchmarks.broadcasters import BARE_TIMER, OURS_LIVE
from benchmarks.elsewhere import Loopback
from benchmarks.fanout import broadcaster, sink_of
from benchmarks.report import Figure, Report, Table, Value, main, progress
from oracle_hub.server.frames import text_frame
from oracle_hub.stream.messages import Heartbeat, encode

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
    elsewhere: bool = False
    """Whether the receiving half of the network is on the reader's core."""

    @property
    def suffix(self) -> str:
        """Of the names of its figures."""
        changes = "_while_prices_change" if self.per_second else "" if self.reader_pause_us else "_with_wakes"
        return changes + "_elsewhere" * self.elsewhere


CASES = (
    Case("nothing changes", 0),
    Case("200 prices a second", 200),
    Case("nothing changes, readers woken by the server", 0, reader_pause_us=0),
    Case("nothing changes, received elsewhere", 0, elsewhere=True),
    Case("200 prices a second, received elsewhere", 200, elsewhere=True),
)


class Outcome(msgspec.Struct, frozen=True):
    """One turn of a server."""

    cpu_part: float
    """Of one core, in percent."""
    kernel_part: float
    """What of it was spent in the kernel."""
    frames: int
    late: int
    longest_gap_us: int


def requests(n_clients: int, n_feeds: int) -> str:
    """A line for each client: it subscribes to three feeds, nobody to the same three."""
    names = broadcasters.feeds(n_feeds)
    wanted = ([names[(number + stride) % n_feeds] for stride in STRIDES] for number in range(n_clients))
    return "\n".join(f'{{"type":"subscribe","feeds":{msgspec.json.encode(feeds).decode()}}}' for feeds in wanted)


class Found(msgspec.Struct, frozen=True):
    """All turns of one case."""

    silent: list[Outcome]
    """Without heartbeats."""
    beating: list[Outcome]
    """With them."""
    floors: list[float]
    """Percent of a core that sweeps in C took."""
    timers: list[float]
    """Percent of a core that waking took, for an event loop with nothing to do."""


class Floor:
    """A C program that sends a frame as large as a heartbeat to every client, in sweeps, when it is told to."""

    def __init__(self, stack: contextlib.ExitStack, programs: wire.Programs, n_clients: int, pause_us: int) -> None:
        beat = Heartbeat(sub=1, epoch=2**31, seq=1, server_time_us=2**50, not_live=[], digest="0" * 16)
        path = programs.floor.with_suffix(".beat")
        path.write_bytes(text_frame(encode(beat)))
        self._program = wire.Program(programs.floor, (n_clients, path))
        stack.callback(self._program.end)
        port = int(self._program.line()[0])
        sink = wire.Sink(programs, port, n_clients, setup=0, path="/", request="", acks=False, pause_us=pause_us)
        stack.callback(sink.end)

    def cpu_part(self, seconds: float) -> float:
        """Percent of a core that sweeps at the pace of heartbeats took, over so long."""
        n_sweeps = max(1, int(seconds * 1_000 / HEARTBEAT_MS))
        spent_ns = 0
        for _ in range(n_sweeps):
            time.sleep(HEARTBEAT_MS / 1_000)  # the sockets are as cold as they are between heartbeats
            spent_ns += int(self._program.ask()[0])
        return spent_ns / n_sweeps / HEARTBEAT_MS / 1e4


def compare(
    programs: wire.Programs, case: Case, repetitions: int, n_clients: int, n_feeds: int, seconds: float
) -> Found:
    """Turns of both servers and of both floors, in turn."""
    asked = requests(n_clients, n_feeds)
    n_rounds = int(case.per_second * seconds)
    command = (n_rounds, 1 / case.per_second if n_rounds else seconds)
    found: dict[int | None, list[Outcome]] = {None: [], HEARTBEAT_MS: []}
    floors, timers = list[float](), list[float]()
    with (
        contextlib.ExitStack() as stack,
        broadcaster(OURS_LIVE, n_feeds, n_feeds, None) as (ask_silent, silent_port),
        broadcaster(OURS_LIVE, n_feeds, n_feeds, HEARTBEAT_MS) as (ask_beating, beating_port),
        broadcaster(BARE_TIMER, HEARTBEAT_MS) as (ask_timer, _),
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
        floor = Floor(stack, programs, n_clients, case.reader_pause_us)
        servers = ((None, ask_silent, silent), (HEARTBEAT_MS, ask_beating, beating))
        for number in range(repetitions + 1):
            for heartbeat_ms, ask, sink in servers:
                sink.lap()
                told = ask(command)
                counts = sink.lap()
                if number:  # the first turn is dropped: caches are cold, and collected objects are frozen in it
                    cpu, kernel = told.process_ns / 1e7 / seconds, told.kernel_ns / 1e7 / seconds
                    outcome = Outcome(cpu, kernel, counts.frames, counts.late, counts.longest_gap_us)
                    found[heartbeat_ms].append(outcome)
            parts = floor.cpu_part(seconds), ask_timer((0, seconds)).process_ns / 1e7 / seconds
            if number:
                floors.append(parts[0])
                timers.append(parts[1])
            progress(f"heartbeats: {case.name}: turn {number} of {repetitions}")
    return Found(found[None], found[HEARTBEAT_MS], floors, timers)


def cost(found: Found) -> float:
    """Percent of a core: the median over turns."""
    return statistics.median(b.cpu_part - a.cpu_part for a, b in zip(found.silent, found.beating, strict=True))


def kernel_cost(found: Found) -> float:
    """What of the cost is the kernel's: percent of a core, the median over turns."""
    return statistics.median(b.kernel_part - a.kernel_part for a, b in zip(found.silent, found.beating, strict=True))


COLUMNS = (
    "case", "cpu % without", "cpu % with", "cost %", "us each", "kernel us", "user us", "floor %", "floor us",
    "timer %", "frames/s", "late", "longest gap ms",
)  # fmt: skip


def told(case: Case, found: Found, n_clients: int, seconds: float) -> tuple[tuple[Value, ...], list[Figure]]:
    """What was found in one case, as a row of the table and as figures."""
    part, kernel = cost(found), kernel_cost(found)
    floor, timer = statistics.median(found.floors), statistics.median(found.timers)
    us_each = 1e4 * HEARTBEAT_MS / 1_000 / n_clients  # microseconds of a heartbeat, by percent of a core
    late = sum(one.late for one in found.beating)
    row = (
        case.name,
        statistics.median(one.cpu_part for one in found.silent),
        statistics.median(one.cpu_part for one in found.beating),
        part,
        part * us_each,
        kernel * us_each,
        (part - kernel) * us_each,
        floor,
        floor * us_each,
        timer,
        statistics.median(one.frames for one in found.beating) / seconds,
        late,
        max(one.longest_gap_us for one in found.beating) / 1e3,
    )
    suffix, bound = case.suffix, 1.0 if case.reader_pause_us else None
    return row, [
        Figure(f"heartbeats_cpu{suffix}", part, "% of a core", at_most=bound),
        Figure(f"heartbeats_floor_cpu{suffix}", floor, "% of a core"),
        Figure(f"heartbeats_to_floor{suffix}", part / floor, "times"),
        Figure(f"heartbeats_timer_cpu{suffix}", timer, "% of a core"),
        Figure(f"late{suffix}", float(late), "gaps", at_most=0.0),
    ]


def run(
    repetitions: int,
    *,
    n_clients: int = N_CLIENTS,
    n_feeds: int = N_FEEDS,
    seconds: float = SECONDS,
    loopback: Loopback | None = None,
) -> Report:
    """``loopback``: where cases that receive elsewhere are to run; without one they are left out."""
    wire.require_file_limit(n_clients + 100)
    table, figures = list[tuple[Value, ...]](), list[Figure]()
    with tempfile.TemporaryDirectory() as folder:
        programs = wire.build(Path(folder))
        for case in CASES:
            if loopback is not None:
                loopback.receive_elsewhere(case.elsewhere)
            elif case.elsewhere:
                continue
            found = compare(programs, case, repetitions, n_clients, n_feeds, seconds)
            row, of_case = told(case, found, n_clients, seconds)
            table.append(row)
            figures += of_case
    notes = (
        f"{n_clients} subscribers to three of {n_feeds} feeds each, a heartbeat each {HEARTBEAT_MS} ms; "
        f"{repetitions} turns of {seconds:g} s with and without, medians. Processor time of the whole process.",
        "Floor: send() in C of a frame as large, to as many sockets, once each heartbeat; only the sweep is measured. "
        "Kernel and user as the system tells them apart, which is by samples where it has nothing better.",
        "Timer: an event loop that wakes at the pace of heartbeats and does nothing; the whole process is measured.",
        "Received elsewhere: the way up to the reader's socket is walked on the reader's core, as with a subscriber on "
        "another machine; else by the sender." + ("" if loopback else " Not measured: it takes root and two cores."),
        f"Late: a client read nothing for more than {LATE_MS} ms, over all turns.",
    )
    return Report("heartbeats", tuple(figures), (Table("Cost of heartbeats", COLUMNS, tuple(table)),), notes)


if __name__ == "__main__":
    try:
        run = partial(run, loopback=Loopback())
    except OSError as error:
        progress(f"heartbeats: without the cases that receive elsewhere: {error}")
    sys.exit(main("heartbeats", "What heartbeats to a thousand subscribers cost.", run, repetitions=3))
