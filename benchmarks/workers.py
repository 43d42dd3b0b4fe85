"""What the hop to a worker costs: from a source's send to a subscriber's read, with none and with two workers.

As in :mod:`benchmarks.latency`, with a source for each of two hubs. Rounds take turns, so that a disturbance of the
machine falls on both alike. On few cores this shows the cost only: what workers are for needs more.
"""

import asyncio
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks import relay
from benchmarks.latency import (
    CLIENTS,
    Child,
    Run,
    Sizes,
    Spread,
    children,
    hub_numbers,
    one_round,
    rows_of,
    subscribe,
    subscribers,
)
from benchmarks.report import Figure, Report, Table, main

N_WORKERS = 2


def config_with_workers(directory: str, address: str, n_workers: int) -> str:
    """The hub's configuration, with so many workers."""
    text = relay.hub_config(directory, address)
    return text.replace("[server]\n", f"[server]\nworkers = {n_workers}\n")


async def compare(repetitions: int, sizes: Sizes, n_clients: Sequence[int], directory: str) -> dict[int, list[Run]]:
    """All rounds with no worker and with some, by the number of subscribers."""
    runs: dict[int, list[Run]] = {count: [] for count in n_clients}
    async with children() as start:
        lines: list[tuple[Child, int]] = []
        for n_workers in (0, N_WORKERS):
            source, source_port = await start(relay.run_source)
            state = Path(directory) / str(n_workers)
            config = config_with_workers(str(state), f"127.0.0.1:{source_port}", n_workers)
            _, hub_port = await start(relay.run_hub, config)
            lines.append((source, hub_port))
        for count in n_clients:
            for _ in range(repetitions):
                spreads: list[Spread] = []
                for source, port in lines:
                    async with subscribers(port, count) as clients:
                        await subscribe(clients)
                        spreads.append(await one_round(source, "hub", clients, hub_numbers, sizes))
                runs[count].append(Run(*spreads))
    return runs


COLUMNS = ("clients", "run", "hub p50", "workers p50", "p50 ratio", "hub p99", "workers p99", "p99 ratio", "lost")


def figures_of(runs: dict[int, list[Run]]) -> list[Figure]:
    """Medians over runs; the ratio is the median of each run's own."""
    figures: list[Figure] = []
    for count, of in runs.items():
        suffix = "" if count == 1 else f"_{count}_clients"
        figures += [
            Figure(f"p50_ratio{suffix}", statistics.median(run.measured.p50 / run.beside.p50 for run in of), "x"),
            Figure(f"p99_ratio{suffix}", statistics.median(run.measured.p99 / run.beside.p99 for run in of), "x"),
            Figure(f"hub_p50{suffix}", statistics.median(run.beside.p50 for run in of), "us"),
            Figure(f"workers_p50{suffix}", statistics.median(run.measured.p50 for run in of), "us"),
        ]
    return figures


def run(repetitions: int, sizes: Sizes | None = None, n_clients: Sequence[int] = CLIENTS) -> Report:
    sizes = sizes or Sizes()
    with tempfile.TemporaryDirectory() as directory:
        runs = asyncio.run(compare(repetitions, sizes, n_clients, directory))
    notes = [
        f"A round: {sizes.n_messages} notifications, one each {sizes.interval_s * 1_000:g} ms; "
        f"the first {sizes.n_dropped} are not counted. Loopback, one clock (CLOCK_MONOTONIC).",
        "From the source's stamp just before its write to the subscriber's at the read. Figures: medians over runs.",
        f"The same program with server.workers = 0 and = {N_WORKERS}, each with a source of its own.",
    ]
    table = Table("Microseconds from socket to socket", COLUMNS, rows_of(runs))
    return Report("workers", tuple(figures_of(runs)), (table,), tuple(notes))


if __name__ == "__main__":
    sys.exit(main("workers", "Time a price through none and through two workers.", run, repetitions=5))
