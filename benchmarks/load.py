"""Thousands of feeds at once: from the receipt of an update to its decision, on one core, over real sockets.

A source in a process of its own writes account notifications (and Hermes events) at instants that it planned before;
the hub is the whole program, journal on, pinned to one core. Notifications are told apart by their order, so it is
also known how long each had been due when it was decided: a hub that reads late cannot hide it.
"""

import asyncio
import statistics
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack

import msgspec

from benchmarks import catalogue, load_processes
from benchmarks.latency import Child, quantile
from benchmarks.load_processes import Measured, Plan, Sent
from benchmarks.report import Figure, Report, Table, Value, main, progress

N_FEEDS = 2_000
HERTZ = 4
SECONDS = 5.0
START_S = 60.0
PROMISED_MS = 25.0


class Round(msgspec.Struct, frozen=True):
    """One round of one arrangement."""

    plan: Plan
    sent: Sent
    hub: Measured
    due_to_decided_us: list[int]
    """Per notification, ascending; empty when some are missing: then nobody knows which."""


async def one_round(plan: Plan, *, reader: bool, profile: str | None = None) -> Round:
    """Start the processes, wait until every feed is live, send, and collect."""
    with ExitStack() as stack:
        source = Child(load_processes.run_source, plan)
        stack.callback(source.end)
        port = await source.receive()
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        config = catalogue.made_config(plan.n_feeds, directory, f"127.0.0.1:{port}", hermes=plan.hermes)
        hub = Child(load_processes.run_hub, config, profile)
        stack.callback(hub.end)
        hub_port = await hub.receive()
        if reader:
            subscriber = Child(load_processes.run_reader, hub_port)
            stack.callback(subscriber.end)
            await subscriber.receive()
        await until(source, "ready", True)
        await until(hub, "live", plan.n_feeds)
        await source.ask("make")
        await hub.ask("begin")
        sent = msgspec.convert(await source.ask("go"), Sent)
        await drained(hub)
        measured = msgspec.convert(await hub.ask("end"), Measured)
    return Round(plan, sent, measured, due_to_decided(plan, sent, measured))


async def drained(hub: Child) -> None:
    """Wait for what is still under way: a hub that is behind may finish, and is told by how late it was."""
    before = -1
    while (count := await hub.ask("count")) != before:
        before = count
        await asyncio.sleep(0.5)


async def until(process: Child, question: str, wanted: object) -> None:
    """Ask until it answers so."""
    try:
        async with asyncio.timeout(START_S):
            while (found := await process.ask(question)) != wanted:  # noqa: ASYNC110 - it is another process
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise SystemExit(f"load: {question}: {found}, not {wanted}") from None


def due_to_decided(plan: Plan, sent: Sent, hub: Measured) -> list[int]:
    """Microseconds per notification, ascending: from the instant at which it was to be written to the decision."""
    if len(sent.due_us) != len(hub.decided_us):
        return []
    return sorted(decided_us - due_us for due_us, decided_us in zip(sent.due_us, hub.decided_us, strict=True))


async def rounds(plans: Sequence[tuple[str, Plan, bool]], repetitions: int) -> dict[str, list[Round]]:
    """All arrangements in turns."""
    found: dict[str, list[Round]] = {name: [] for name, *_ in plans}
    for number in range(repetitions):
        for name, plan, reader in plans:
            found[name].append(await one_round(plan, reader=reader))
            progress(f"load: {name}: run {number + 1} of {repetitions}")
    return found


PARTS = ("frames", "decide", "alerts", "journal", "publish")
"""*frames*: journal's buffer, decoding, table. *decide*: the rule, and the batch. *journal*: digest, step mark, write.
*publish*: encoding and sockets of subscribers. What is left of the loop is reading from sockets."""


class Summary(msgspec.Struct, frozen=True):
    """Medians over runs of one arrangement; what went wrong at its worst."""

    updates_per_s: float
    wait_p50_ms: float
    """From ``received_us`` to the decision."""
    wait_p99_ms: float
    wait_max_ms: float
    due_p99_ms: float | None
    """Of account notifications, from the instant at which they were to be written. None: some were lost."""
    core_percent: float
    """All threads of the hub."""
    decisions_per_s: float
    per_batch: float
    lost: int
    source_late_ms: float
    rss_mib: float
    pause_max_ms: float
    """Longest pause of the garbage collector."""


def summary(runs: Sequence[Round]) -> Summary:
    median, plan, hubs = statistics.median, runs[0].plan, [one.hub for one in runs]
    lost = max(plan.updates - len(one.waits_us) for one in hubs)
    return Summary(
        updates_per_s=plan.updates / plan.seconds,
        wait_p50_ms=median(quantile(one.waits_us, 0.5) for one in hubs) / 1e3,
        wait_p99_ms=median(quantile(one.waits_us, 0.99) for one in hubs) / 1e3,
        wait_max_ms=max(one.waits_us[-1] for one in hubs) / 1e3,
        due_p99_ms=None if lost else median(quantile(one.due_to_decided_us, 0.99) for one in runs) / 1e3,
        core_percent=median(one.core_share * one.seconds for one in hubs) / plan.seconds * 100,
        decisions_per_s=median(one.decisions for one in hubs) / plan.seconds,
        per_batch=median(one.decisions / max(1, one.batches) for one in hubs),
        lost=lost,
        source_late_ms=max(one.sent.late_us for one in runs) / 1e3,
        rss_mib=max(one.peak_rss_mib for one in hubs),
        pause_max_ms=max(max(one.pauses_us, default=0) for one in hubs) / 1e3,
    )


def parts(name: str, runs: Sequence[Round]) -> tuple[Value, ...]:
    """Microseconds of the loop for each update, by part."""
    n_updates = runs[0].plan.updates
    shares = [statistics.median(one.hub.parts_s.get(part, 0.0) for one in runs) for part in PARTS]
    whole = statistics.median(one.hub.loop_share * one.hub.seconds for one in runs)
    return (name, *(share * 1e6 / n_updates for share in (*shares, whole - sum(shares), whole)))


def run(repetitions: int, *, n_feeds: int = N_FEEDS, seconds: float = SECONDS) -> Report:
    accounts, hermes = (Plan(n_feeds, HERTZ, seconds, one) for one in (False, True))
    plans = (("accounts", accounts, False), ("hermes", hermes, False), ("subscriber", hermes, True))
    found = asyncio.run(rounds(plans, repetitions))
    summaries = {name: summary(runs) for name, runs in found.items()}
    figures = [
        figure
        for name, one in summaries.items()
        for figure in (
            Figure(f"load_wait_p99_{name}", one.wait_p99_ms, "ms", at_most=PROMISED_MS),
            Figure(f"load_lost_{name}", one.lost, "updates", at_most=0),
            Figure(f"load_core_{name}", one.core_percent, "%"),
        )
    ]
    columns = ("what", *(field.replace("_", " ") for field in Summary.__struct_fields__))
    rows = tuple((name, *msgspec.structs.astuple(one)) for name, one in summaries.items())
    tables = (
        Table("Load", columns, rows),
        Table(
            "Microseconds for each update",
            ("what", *PARTS, "sockets and loop", "whole"),
            tuple(parts(name, runs) for name, runs in found.items()),
        ),
    )
    notes = (
        f"{n_feeds:,} feeds x 3 sources x {HERTZ} updates a second, for {seconds:g} s; {repetitions} runs in turns.",
        "accounts: all three by account notifications over one websocket. hermes: the third by Hermes events, without "
        "proofs. subscriber: the same, with one subscriber of everything.",
        "The hub is the whole program with its journal, pinned to one core; source and subscriber are on another.",
    )
    return Report("load", tuple(figures), tables, notes)


if __name__ == "__main__":
    sys.exit(main("load", "Thousands of feeds at once, on one core.", run, repetitions=3))
