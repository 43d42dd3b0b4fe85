"""What subscribers with ``max_hz`` cost while prices change much oftener: 100 batches a second, a thousand subscribers.

The cost is the processor time of the whole server less that of one with a single such subscriber. Most of what a batch
could cost is that somebody looks at each of them; most of what their own updates cost is merging and encoding, unless
they share them. So there are those who all want the same rate, and who came to wait at the same time as all do after a
change of state, and those of whom each wants a rate of its own and shares nothing.
"""

import statistics
import sys
import tempfile
from pathlib import Path

import msgspec

from benchmarks import wire
from benchmarks.broadcasters import OURS_LIVE
from benchmarks.fanout import broadcaster, sink_of
from benchmarks.report import Figure, Report, Table, Value, main, progress

N_FEEDS = 10
N_CLIENTS = 1_000
PER_SECOND = 100
SECONDS = 3.0


class Case(msgspec.Struct, frozen=True):
    name: str
    suffix: str
    least_hz: float
    greatest_hz: float

    def requests(self, n_clients: int) -> str:
        """A line for each client; their rates are spread evenly."""
        step = (self.greatest_hz - self.least_hz) / max(1, n_clients - 1)
        rates = (self.least_hz + number * step for number in range(n_clients))
        return "\n".join(f'{{"type":"subscribe","feeds":["*"],"max_hz":{rate:.6f}}}' for rate in rates)


CASES = (
    Case("2 a second, together", "_2_hz", 2.0, 2.0),
    Case("10 a second, together", "_10_hz", 10.0, 10.0),
    Case("8 to 12 a second, each apart", "_apart", 8.0, 12.0),
)


class Turn(msgspec.Struct, frozen=True):
    cpu_part: float
    """Of one core, in percent."""
    frames: int


def measure(programs: wire.Programs, case: Case, repetitions: int, n_clients: int, seconds: float) -> list[Turn]:
    """Turns of a server that has so many subscribers."""
    turns: list[Turn] = []
    with (
        broadcaster(OURS_LIVE, N_FEEDS, N_FEEDS, None) as (ask, port),
        sink_of(programs, OURS_LIVE, port, n_clients, acks=False, request=case.requests(n_clients)) as sink,
    ):
        for number in range(repetitions + 1):
            sink.lap()
            told = ask((int(PER_SECOND * seconds), 1 / PER_SECOND))
            if number:  # the first turn is dropped: caches are cold, and collected objects are frozen in it
                turns.append(Turn(told.process_ns / 1e7 / seconds, sink.lap().frames))
            progress(f"throttled: {case.name}: {n_clients} subscribers: turn {number} of {repetitions}")
    return turns


def run(repetitions: int, *, n_clients: int = N_CLIENTS, seconds: float = SECONDS) -> Report:
    """Every case, with all subscribers and with one."""
    wire.require_file_limit(n_clients + 100)
    rows: list[tuple[Value, ...]] = []
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as folder:
        programs = wire.build(Path(folder))
        for case in CASES:
            alone = statistics.median(turn.cpu_part for turn in measure(programs, case, repetitions, 1, seconds))
            turns = measure(programs, case, repetitions, n_clients, seconds)
            cost = statistics.median(turn.cpu_part for turn in turns) - alone
            per_second = statistics.median(turn.frames for turn in turns) / seconds
            us_each = cost * 1e4 / max(1.0, per_second)
            rows.append((case.name, alone, cost, cost * 1e4 / PER_SECOND / n_clients, per_second, us_each))
            figures += [
                Figure(f"throttled_cpu{case.suffix}", cost, "% of a core"),
                Figure(f"throttled_us_each{case.suffix}", us_each, "us"),
            ]
    columns = ("case", "cpu % of one", "cost %", "us per batch and subscriber", "updates/s", "us per update")
    notes = (
        f"{n_clients} subscribers to all of {N_FEEDS} feeds, {PER_SECOND} batches a second of one feed each; "
        f"{repetitions} turns of {seconds:g} s, medians. Processor time of the whole process, writes included.",
    )
    return Report("throttled", tuple(figures), (Table("Cost of subscribers with max_hz", columns, tuple(rows)),), notes)


if __name__ == "__main__":
    sys.exit(main("throttled", "What a thousand subscribers with max_hz cost.", run, repetitions=3))
