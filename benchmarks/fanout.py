"""How fast one frame reaches a thousand clients: our server, its peers, and a C loop of ``send()`` as the floor.

A burst is ten frames, one after the other, to every client. The next burst begins when the sink, a C program that
reads for all clients, has read the whole of the last one: where the sink lags, the kernel joins frames and flatters the
sender, so reads per frame are told, and sender and sink have a core each. Rates are frames per second of the sender's
own processor time, so a busy machine does not decide them. The servers take turns.
"""

import multiprocessing
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from benchmarks import broadcasters, wire
from benchmarks.broadcasters import OURS, OURS_LIVE, PEER
from benchmarks.report import Figure, Report, Table, Value, main, progress
from oracle_hub.server.frames import text_frame

N_CLIENTS = 1_000
N_BURSTS = 8
N_BURST = 10
N_DROPPED = 1
PATIENCE_S = 30.0
FLOOR = "C send()"
SUBSCRIBE = '{"type":"subscribe","feeds":["*"]}'


class Case(msgspec.Struct, frozen=True):
    """What is sent in each frame."""

    name: str
    n_feeds: int
    size: int | None
    """Size of the frame; None for the size that the message has."""


CASES = (  # the first is the one that bounds are set for
    Case("214 bytes", 1, 214),
    Case("one feed", 1, None),
    Case("ten feeds", 10, None),
)


class Server:
    """One server and the sink that reads from it."""

    def __init__(self, name: str, sink: wire.Sink) -> None:
        self.name = name
        self.sink = sink

    def send(self, n_frames: int) -> tuple[int, int]:
        """So many frames to every client. Processor and wall time in ns."""
        raise KeyError(self.name)

    def burst(self, n_frames: int) -> tuple[int, int]:
        """As :meth:`send`, and wait until all clients have read all of them."""
        times = self.send(n_frames)
        for _ in range(n_frames):
            self.sink.round()
        return times


class FloorServer(Server):
    """The C loop."""

    def __init__(self, stack: ExitStack, programs: wire.Programs, n_clients: int, frame: bytes) -> None:
        path = programs.floor.with_suffix(f".{len(frame)}")
        path.write_bytes(frame)
        self._program = wire.Program(programs.floor, (n_clients, path))
        stack.callback(self._program.end)
        port = int(self._program.line()[0])
        sink = wire.Sink(programs, port, n_clients, setup=0, path="/", request="")
        stack.callback(sink.end)
        super().__init__(FLOOR, sink)

    def send(self, n_frames: int) -> tuple[int, int]:
        times = [tuple(map(int, self._program.ask())) for _ in range(n_frames)]
        return sum(cpu_ns for cpu_ns, _ in times), sum(wall_ns for _, wall_ns in times)


class PythonServer(Server):
    """One of :mod:`benchmarks.broadcasters`."""

    def __init__(self, stack: ExitStack, programs: wire.Programs, n_clients: int, name: str, case: Case) -> None:
        self._ask, port = stack.enter_context(broadcaster(name, case.n_feeds, case.size))
        super().__init__(name, stack.enter_context(sink_of(programs, name, port, n_clients)))

    def send(self, n_frames: int) -> tuple[int, int]:
        told = self._ask((n_frames, 0.0))
        return told.cpu_ns, told.wall_ns


@contextmanager
def broadcaster(name: str, *arguments: object) -> Iterator[tuple[Any, int]]:
    """A process of :func:`benchmarks.broadcasters.serve_rounds`: a function that asks it, and its port."""
    context = multiprocessing.get_context("spawn")
    pipe, theirs = context.Pipe()
    process = context.Process(target=broadcasters.serve_rounds, args=(theirs, name, *arguments), daemon=True)
    process.start()
    theirs.close()

    def answer() -> Any:
        try:
            if pipe.poll(PATIENCE_S):
                return pipe.recv()
        except EOFError:
            pass
        raise SystemExit(f"{name} ended or hangs")

    def ask(command: object) -> Any:
        pipe.send(command)
        return answer()

    try:
        yield ask, answer()
    finally:
        process.terminate()
        process.join()
        pipe.close()


@contextmanager
def sink_of(
    programs: wire.Programs,
    name: str,
    port: int,
    n_clients: int,
    *,
    acks: bool = True,
    request: str = SUBSCRIBE,
    path: str = "/",
    late_us: int = 0,
    per_second: int = 0,
    pause_us: int = 0,
) -> Iterator[wire.Sink]:
    """A sink for one of the servers: ours takes requests, and sends hello, subscribed and snapshot at first.

    Peers send to those who come to the path ``/`` only.
    """
    ours = name in (OURS, OURS_LIVE)
    sink = wire.Sink(
        programs,
        port,
        n_clients,
        setup=3 if ours else 0,
        path="/v1/stream" if ours else path,
        request=request if ours else "",
        acks=acks,
        late_us=late_us,
        per_second=per_second,
        pause_us=pause_us,
    )
    try:
        yield sink
    finally:
        sink.end()


class Outcome(msgspec.Struct, frozen=True):
    """One server in one case: processor time per frame in each repetition, and how the sink read."""

    cpu_us: list[float]
    wall_us: list[float]
    reads_per_frame: float

    @property
    def us(self) -> float:
        return statistics.median(self.cpu_us)


def measure_case(
    programs: wire.Programs, case: Case, n_clients: int, n_bursts: int, repetitions: int
) -> dict[str, Outcome]:
    """Every server in one case, taking turns."""
    with ExitStack() as stack:
        frame = text_frame(broadcasters.message(case.n_feeds, case.size))
        servers: list[Server] = [FloorServer(stack, programs, n_clients, frame)]
        servers += [PythonServer(stack, programs, n_clients, name, case) for name in broadcasters.SERVERS]
        cpu_us: dict[str, list[float]] = {server.name: [] for server in servers}
        wall_us: dict[str, list[float]] = {server.name: [] for server in servers}
        for number in range(repetitions):
            progress(f"fanout: {case.name}: repetition {number + 1} of {repetitions}")
            for server in servers:
                times = [server.burst(N_BURST) for _ in range(N_DROPPED + n_bursts)][N_DROPPED:]
                cpu_us[server.name].append(statistics.median(cpu for cpu, _ in times) / 1e3 / N_BURST / n_clients)
                wall_us[server.name].append(statistics.median(wall for _, wall in times) / 1e3 / N_BURST / n_clients)
        outcomes = {}
        for server in servers:
            counts = server.sink.counts()
            outcomes[server.name] = Outcome(
                cpu_us[server.name], wall_us[server.name], counts.reads / max(1, counts.frames)
            )
        return outcomes


def table_of(case: Case, outcomes: dict[str, Outcome]) -> Table:
    floor_us = outcomes[FLOOR].us
    size = len(text_frame(broadcasters.message(case.n_feeds, case.size)))
    rows: list[tuple[Value, ...]] = [
        (
            name,
            outcome.us,
            statistics.median(outcome.wall_us),
            1e6 / outcome.us,
            case.n_feeds * 1e6 / outcome.us,
            100 * floor_us / outcome.us,
            outcome.reads_per_frame,
        )
        for name, outcome in outcomes.items()
    ]
    columns = ("server", "cpu us/frame", "wall us/frame", "frames/s", "feed updates/s", "% of floor", "reads/frame")
    return Table(f"{case.name}: frames of {size} bytes", columns, tuple(rows))


def ratio(over: Outcome, under: Outcome) -> float:
    """How many times faster ``under`` is: the median over repetitions, in each of which they took turns."""
    return statistics.median(a / b for a, b in zip(over.cpu_us, under.cpu_us, strict=True))


def run(repetitions: int, *, n_clients: int = N_CLIENTS, n_bursts: int = N_BURSTS) -> Report:
    wire.raise_file_limit(25_000)
    with tempfile.TemporaryDirectory() as folder:
        programs = wire.build(Path(folder))
        measure = partial(measure_case, programs, n_clients=n_clients, n_bursts=n_bursts, repetitions=repetitions)
        outcomes = {case.name: measure(case) for case in CASES}
    small, real, ten = (outcomes[case.name] for case in CASES)
    best_peer = min((small[name] for name in broadcasters.SERVERS if name != OURS), key=lambda outcome: outcome.us)
    figures = (
        Figure("part_of_floor", 100 * ratio(small[FLOOR], small[OURS]), "%", at_least=65.0),
        Figure("to_websockets_broadcast", ratio(small[PEER], small[OURS]), "times", at_least=1.5),
        Figure("to_best_peer", ratio(best_peer, small[OURS]), "times", at_least=1.0),
        Figure("frames_per_second", 1e6 / small[OURS].us, "frames/s"),
        Figure("part_of_floor_one_feed", 100 * ratio(real[FLOOR], real[OURS]), "%"),
        Figure("feed_updates_per_second_ten_feeds", 1e7 / ten[OURS].us, "updates/s", at_least=2e6),
        Figure("frames_per_second_ten_feeds", 1e6 / ten[OURS].us, "frames/s"),
    )
    notes = [
        f"{n_clients} clients; medians of {repetitions} repetitions of the median of {n_bursts} bursts of "
        f"{N_BURST} frames, servers taking turns; processor time of the sender; one frame per write.",
        "Ours makes the batch, encodes it and writes it; the others write a text that is ready but for its time stamp.",
        "214 bytes: the same path, the message cut to that size; the other cases send the message as it is.",
        broadcasters.version_note(),
    ]
    tables = tuple(table_of(case, outcomes[case.name]) for case in CASES)
    return Report("fanout", figures, tables, tuple(notes))


if __name__ == "__main__":
    sys.exit(main("fanout", "Time one frame to a thousand clients, beside peers and a C loop.", run, repetitions=5))
