"""How fast account notifications become prices: from bytes to table, and what each step costs.

A validator's text goes through the real link, readers and table, as in a live run but without sockets: alone, with the
journal (a write for each burst of 50), with decisions, and with both. Beside it stand the JSON parse alone, and two
other programs on the same bytes: solana-py's decoding with our readers and table behind it, and pythclient.
"""

import asyncio
import gc
import json
import random
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import orjson

from benchmarks import chain
from benchmarks.report import Figure, Report, Table, Value, main, measure
from feeds.addresses import ASSETS
from feeds.pyth.legacy import PriceAccount, PriceReader
from oracle_hub.app.engine import Engine, Lineup
from oracle_hub.app.lineup import build_lineup, endpoints_of
from oracle_hub.app.pump import Pump
from oracle_hub.clock import AnchoredClock, ManualClock
from oracle_hub.config import Config, parse_config
from oracle_hub.core.source import Account, AccountReader, Effect, Fetch, Frame, PriceUpdate, Send
from oracle_hub.ingest.rpc_messages import decode_notification
from oracle_hub.journal.records import Step
from oracle_hub.journal.writer import JournalWriter
from oracle_hub.metrics import Latencies

TICKS = 1_000
"""A tick is one notification of each account: five feeds, four kinds."""
BURST = 50
START_S = 1_790_000_000
LINK = "solana:a"
SOURCES = {"edge": chain.EDGE, "aggregate": chain.AGGREGATE, "pyth": chain.RECEIVER, "chainlink": chain.STORE}
CONFIG = "\n".join(
    [
        '[roles]\nprimary = "edge"\nverifiers = ["chainlink", "pyth"]\nreferences = ["aggregate"]',
        *(f'[sources.{source}]\nkind = "{kind.name}"' for source, kind in SOURCES.items()),
        *(f'[feeds."{feed}"]' for feed in chain.FEEDS),
        f'[solana]\ncluster = "custom"\ngenesis_hash = "{chain.GENESIS_HASH}"',
        '[[solana.rpc]]\nname = "a"\nhttp_url = "http://benchmark.invalid"\nws_url = "ws://benchmark.invalid"',
    ]
)

Work: TypeAlias = Callable[[], object]
Case: TypeAlias = Callable[[ExitStack], Work]
"""Makes fresh state, cleaned up by the stack; what it returns is timed."""


class Traffic(msgspec.Struct, frozen=True):
    """The notifications of one run, in order."""

    data: list[bytes]
    texts: list[str]
    received_us: list[int]


def fresh_engine(config: Config, start_s: int = START_S) -> tuple[Engine, dict[str, int]]:
    """An engine whose link is connected and whose every feed is live; and the link's subscription by address."""
    lineup = build_lineup(config, endpoints_of(config))
    engine = Engine(lineup, epoch=1, started_us=start_s * 1_000_000, warmup_us=10_000_000)
    subscriptions: dict[str, int] = {}
    waiting: list[Effect] = list(engine.connect(LINK, start_s * 1_000_000))
    while waiting:
        frame = answer(waiting.pop(0), subscriptions, start_s)
        if frame is not None:
            waiting.extend(engine.frame(LINK, frame, start_s * 1_000_000))
    engine.step(start_s * 1_000_000)
    assert all(decision.mantissa for decision in engine.hub.decisions.values())
    engine.ways.clear()
    return engine, subscriptions


def answer(effect: Effect, subscriptions: dict[str, int], start_s: int) -> Frame | None:
    """What the chain says to a request, or to a message on the websocket."""
    if isinstance(effect, Fetch):
        request = orjson.loads(effect.body)
        result: object = chain.GENESIS_HASH
        if request["method"] == "getMultipleAccounts":
            states = accounts(0, dict.fromkeys(chain.FEEDS, 0), start_s)
            result = {"context": {"slot": 1}, "value": [states[address] for address in request["params"][0]]}
        return Frame("http", chain.reply(request["id"], result), effect.fetch_id, 200)
    if isinstance(effect, Send):
        request = orjson.loads(effect.text)
        if request["method"] == "accountSubscribe":
            subscriptions[request["params"][0]] = request["id"] + 20_000
        return Frame("websocket", chain.reply(request["id"], request["id"] + 20_000))
    return None


def accounts(tick: int, moved: dict[str, int], start_s: int = START_S) -> dict[str, dict[str, object]]:
    """Every account by its address, as of a tick; ``moved`` is how far each feed's price is from its start, in bps."""
    states: dict[str, dict[str, object]] = {}
    for feed, asset in ASSETS.items():
        price = chain.start_price(feed) // 10_000 * (10_000 + moved[feed]) + tick
        for offset, kind in enumerate(chain.KINDS):
            states[kind.address(asset)] = chain.value(kind, asset, price + offset, start_s + tick, tick + 1)
    return states


def traffic(subscriptions: dict[str, int], n_ticks: int) -> Traffic:
    """A walk of all feeds: every notification carries a later time and another price than the one before."""
    rng = random.Random(5)
    moved = dict.fromkeys(chain.FEEDS, 0)
    data: list[bytes] = []
    received_us: list[int] = []
    for tick in range(1, n_ticks + 1):
        moved = {feed: max(-900, min(900, bps + rng.randint(-9, 9))) for feed, bps in moved.items()}
        states = list(accounts(tick, moved).items())
        rng.shuffle(states)
        for position, (address, state) in enumerate(states):
            data.append(chain.notification(subscriptions[address], tick + 1, state))
            received_us.append((START_S + tick) * 1_000_000 + position)
    return Traffic(data, [one.decode() for one in data], received_us)


# Ours.


def engine_alone(config: Config, traffic: Traffic, stack: ExitStack) -> Work:
    engine, _ = fresh_engine(config)
    stack.callback(check_taken, engine, len(traffic.data))

    def work() -> None:
        take = engine.frame
        for data, received_us in zip(traffic.data, traffic.received_us, strict=True):
            take(LINK, Frame("websocket", data), received_us)

    return work


def check_taken(engine: Engine, count: int) -> None:
    """A benchmark that drops updates would be a fast one."""
    taken = sum(number for (_, applied), number in engine.applied.items() if applied == "taken")
    if taken != count:
        raise SystemExit(f"ingest: {taken} of {count} updates were taken: {dict(engine.applied)}")


def engine_journaled(config: Config, traffic: Traffic, stack: ExitStack) -> Work:
    engine, _ = fresh_engine(config)
    stack.callback(check_taken, engine, len(traffic.data))
    journal = open_journal(stack)

    def work() -> None:
        link_id = journal.link(LINK)
        for start in range(0, len(traffic.data), BURST):
            received_us = START_S * 1_000_000
            for at in range(start, min(start + BURST, len(traffic.data))):
                received_us = traffic.received_us[at]
                frame = Frame("websocket", traffic.data[at])
                journal.frame(link_id, received_us, frame, unique=True)
                engine.frame(LINK, frame, received_us)
            journal.append(Step(received_us))
            assert journal.commit()

    return work


def open_journal(stack: ExitStack) -> JournalWriter:
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    journal = JournalWriter(Path(folder), instance="benchmark", epoch=1)
    stack.callback(journal.close)
    return journal


def pumped(config: Config, traffic: Traffic, journaled: bool, stack: ExitStack) -> Work:
    """The program's own pump on its own event loop: a burst for each turn, decided at its end."""
    engine, _ = fresh_engine(config)
    stack.callback(check_taken, engine, len(traffic.data))
    manual = ManualClock(wall_us=START_S * 1_000_000)
    published: list[int] = []
    pump = Pump(
        engine,
        AnchoredClock(manual),
        journal=open_journal(stack) if journaled else None,
        journal_required=False,
        publish=lambda batch, journaled: published.append(batch.seq),
        latencies=Latencies(),
    )
    link = engine.lineup.links[LINK]

    async def bursts() -> None:
        for start in range(0, len(traffic.data), BURST):
            stop = min(start + BURST, len(traffic.data))
            manual.advance(traffic.received_us[stop - 1] - pump.clock.now_us())
            for at in range(start, stop):
                pump.on_frame(link, Frame("websocket", traffic.data[at]), traffic.received_us[at])
            await asyncio.sleep(0)
        pump.stop()
        assert len(published) == -(-len(traffic.data) // BURST)

    return lambda: asyncio.run(bursts())


# Others, on the same text.


def parse_only(parse: Callable[[Any], object], inputs: Sequence[bytes | str], stack: ExitStack) -> Work:
    def work() -> None:
        for one in inputs:
            parse(one)

    return work


def solana_py() -> Callable[[str], list[Any]]:
    """What solana-py's websocket client does with each text frame, in :mod:`solana.rpc.websocket_api`."""
    from solana.rpc import websocket_api

    parse: Callable[[str], list[Any]] = websocket_api._parse_frame
    return parse


def solders() -> Callable[[str], list[Any]]:
    """The part of it that is written in Rust."""
    from solders.rpc.responses import parse_websocket_message

    parse: Callable[[str], list[Any]] = parse_websocket_message
    return parse


def with_our_table(parse: Callable[[str], list[Any]], config: Config, traffic: Traffic, stack: ExitStack) -> Work:
    """Their decoding, then our readers and table; none of our watchdogs and counters."""
    engine, subscriptions = fresh_engine(config)
    readers = by_subscription(engine.lineup, subscriptions)
    owners: dict[object, str] = {}
    hub, taken = engine.hub, [0]

    def check() -> None:
        if taken[0] != len(traffic.texts):
            raise SystemExit(f"ingest: {taken[0]} of {len(traffic.texts)} updates were taken behind solana-py")

    stack.callback(check)

    def work() -> None:
        count = 0
        for text, received_us in zip(traffic.texts, traffic.received_us, strict=True):
            for message in parse(text):
                result = message.result
                value, slot = result.value, result.context.slot
                owner = owners.get(value.owner)  # base58 only once for each program
                if owner is None:
                    owner = owners[value.owner] = str(value.owner)
                address, reader = readers[message.subscription]
                for event in reader.read(Account(address, owner, slot, value.data), LINK, received_us):
                    count += hub.apply(event, received_us) == "taken"  # type: ignore[arg-type]
        taken[0] = count

    return work


def by_subscription(lineup: Lineup, subscriptions: dict[str, int]) -> dict[int, tuple[str, AccountReader]]:
    readers = lineup.readers.values()
    return {
        number: (address, next(reader for reader in readers if address in reader.accounts()))
        for address, number in subscriptions.items()
    }


def cases(config: Config, traffic: Traffic) -> dict[str, Case]:
    """Every case by its title, in the order of the table."""
    return {
        "JSON alone: orjson.loads": partial(parse_only, orjson.loads, traffic.data),
        "JSON alone: json.loads": partial(parse_only, json.loads, traffic.texts),
        "JSON alone: msgspec, the fields needed": partial(parse_only, decode_notification, traffic.data),
        BARE: partial(engine_alone, config, traffic),
        JOURNALED: partial(engine_journaled, config, traffic),
        "bytes to decisions": partial(pumped, config, traffic, False),
        PUMPED: partial(pumped, config, traffic, True),
        "solders decoding alone": partial(parse_only, solders(), traffic.texts),
        "solana-py decoding alone": partial(parse_only, solana_py(), traffic.texts),
        "solders decoding, our readers and table": partial(with_our_table, solders(), config, traffic),
        SOLANA_PY: partial(with_our_table, solana_py(), config, traffic),
    }


BARE = "bytes to table"
JOURNALED = "bytes to table, with the journal"
PUMPED = "bytes to decisions, with the journal"
SOLANA_PY = "solana-py decoding, our readers and table"


class Times(msgspec.Struct, frozen=True):
    """Seconds for one pass over the traffic, by repetition."""

    wall_s: list[float]
    cpu_s: list[float]


def time_cases(of: dict[str, Case], repetitions: int) -> dict[str, Times]:
    """Time all cases in turns, so that a disturbance of the machine falls on all alike. The first turn is dropped."""
    times = {name: Times([], []) for name in of}
    for repetition in range(repetitions + 1):
        for name, case in of.items():
            with ExitStack() as stack:
                work = case(stack)
                gc.collect()
                cpu_s, wall_s = time.process_time(), time.perf_counter()
                work()
                wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
            if repetition:
                times[name].wall_s.append(wall_s)
                times[name].cpu_s.append(cpu_s)
    return times


def times_faster(ours: Times, theirs: Times) -> float:
    """The median over repetitions, each compared with its own turn."""
    return statistics.median(b / a for a, b in zip(ours.wall_s, theirs.wall_s, strict=True))


# pythclient, on legacy accounts.


def pythclient_account() -> Any:
    """A price account of Pyth's own client, that needs no connection."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it imports what Python deprecates
        from pythclient.pythaccounts import PythPriceAccount
        from pythclient.solana import SolanaClient, SolanaPublicKey
    return PythPriceAccount(SolanaPublicKey("1" * 32), SolanaClient.__new__(SolanaClient))


def legacy_times(repetitions: int) -> list[tuple[str, float]]:
    """Microseconds for one legacy account of 24 publishers: reading the aggregate, and everything in it."""
    asset = ASSETS["SOL/USD"]
    data = chain.LEGACY.data(asset, 15_000_000_000, START_S, 5)
    reader = PriceReader("pyth", {asset.feed: asset.pyth_legacy})
    account = Account(asset.pyth_legacy, chain.LEGACY.owner, 5, data)
    used = int.from_bytes(data[12:16], "little")

    def read() -> None:
        (event,) = reader.read(account, LINK, START_S * 1_000_000)
        assert isinstance(event, PriceUpdate)

    def decode() -> None:
        assert len(PriceAccount.decode(data).components) == 24

    timed: list[tuple[str, Work]] = [("our reader: checks, aggregate, one update", read), (OURS_WHOLE, decode)]
    try:
        theirs = pythclient_account()
    except ImportError:
        return [(name, measure(work, repetitions=repetitions).us) for name, work in timed]

    def update() -> None:
        theirs.update_from(data[:used], version=2, offset=16)

    update()
    assert theirs.aggregate_price_info.raw_price == 15_000_000_000 and len(theirs.price_components) == 24
    timed.append((PYTHCLIENT, update))
    return [(name, measure(work, repetitions=repetitions).us) for name, work in timed]


OURS_WHOLE = "our decoder: every field and publisher"
PYTHCLIENT = "pythclient: every field and publisher, as floats"


def run(repetitions: int, n_ticks: int = TICKS) -> Report:
    config = parse_config(CONFIG, origin="benchmark")
    _, subscriptions = fresh_engine(config)
    sent = traffic(subscriptions, n_ticks)
    gc.collect()
    gc.freeze()
    times = time_cases(cases(config, sent), repetitions)
    gc.unfreeze()
    count = len(sent.data)
    rate = {name: count / statistics.median(of.wall_s) for name, of in times.items()}
    rows: list[tuple[Value, ...]] = [
        (name, rate[name], 1e6 / rate[name], min(of.wall_s) / count * 1e6, statistics.median(of.cpu_s) / count * 1e6)
        for name, of in times.items()
    ]
    legacy = legacy_times(repetitions)
    figures = [
        Figure("notifications_to_table", rate[BARE], "1/s", at_least=100_000),
        Figure("notifications_to_table_with_journal", rate[JOURNALED], "1/s", at_least=100_000),
        Figure("notifications_to_decisions_with_journal", rate[PUMPED], "1/s"),
        Figure("to_solana_py", times_faster(times[BARE], times[SOLANA_PY]), "x", at_least=2.5),
    ]
    us = dict(legacy)
    if PYTHCLIENT in us:
        figures.append(Figure("legacy_reader_to_pythclient", us[PYTHCLIENT] / legacy[0][1], "x"))
        figures.append(Figure("legacy_decoder_to_pythclient", us[PYTHCLIENT] / us[OURS_WHOLE], "x"))
    size = statistics.mean(map(len, sent.data))
    notes = [
        f"{count:,} notifications of {len(subscriptions)} accounts (134 to 394 bytes; {size:.0f} bytes of text each).",
        f"Medians of {repetitions} repetitions in turns, one thread. Every update is taken: newer, and another price.",
        f"Journal: a step mark and one write for a burst of {BURST} frames; syncing to disk is another thread's.",
        "solana-py: its client's parse of a frame, then our readers and table, but no watchdogs, counters or journal.",
    ]
    columns = ("path", "per second", "us each", "best us", "CPU us")
    tables = [
        Table("Account notifications", columns, tuple(rows)),
        Table("A legacy Pyth account (3,312 bytes)", ("path", "us each"), tuple(legacy)),
    ]
    return Report("ingest", tuple(figures), tuple(tables), tuple(notes))


if __name__ == "__main__":
    sys.exit(main("ingest", "Time account notifications from bytes to table.", run))
