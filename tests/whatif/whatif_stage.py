"""Histories to ask about, and the slow way to the answer: the whole program under each setting, one by one."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from random import Random
from typing import NamedTuple, TypeAlias

import msgspec

from oracle_hub.app.engine import Lineup
from oracle_hub.app.lineup import build_lineup, journaled_endpoints, lineup_from_text
from oracle_hub.app.replay import Replayer
from oracle_hub.config import Config, parse_config
from oracle_hub.core.catalog import Redistribute
from oracle_hub.core.hub import Batch, Hub
from oracle_hub.core.selector import Reason, Rule, State
from oracle_hub.core.source import Frame
from oracle_hub.journal.grid import Setting
from oracle_hub.journal.reader import read_journal
from oracle_hub.journal.records import Checkpoint, Record, RunStart, Step
from oracle_hub.journal.whatif import Transition
from tests.app.rig import SIMULATION, Rig, hermes_event

SOL, BTC = "SOL/USD", "BTC/USD"
BASE = 100_00000000


def hermes(price: int, conf: int, publish_time: int, feed: str) -> Frame:
    return hermes_event({feed: (price, publish_time)}, conf)


def write_history(directory: Path, *, seed: int = 1, turns: int = 200, max_segment_bytes: int = 64 * 2**20) -> None:
    """A run in which sources part, fall silent, come late, and one is unsure of itself. Needs a running loop."""
    config = parse_config(SIMULATION, origin="simulation")
    rig = Rig(directory, config, max_segment_bytes=max_segment_bytes)
    for feed in config.feeds:
        rig.chain.custody(feed)
        rig.chain.aggregate(feed, BASE, rig.now_s)
        rig.chain.store(feed, BASE, rig.now_s)
    rig.connect()
    random = Random(seed)
    price = BASE
    for turn in range(turns):
        _turn(rig, random, price, 40 < turn % 90 < 60)
        price += price * random.randrange(-12, 13) // 10_000
        if turn == turns // 2:
            reload(rig, config)
    rig.manual.advance(20_000_000)
    rig.close()


def _turn(rig: Rig, random: Random, price: int, apart: bool) -> None:
    feed = random.choice((SOL, BTC))
    oracle = random.randrange(3)

    def seen() -> int:
        return price + price * random.randrange(-60 if apart else -9, 61 if apart else 10) // 10_000

    stamp = rig.now_s - random.choice((0, 0, 0, 1, 7))
    if oracle < 2:
        address = (rig.chain.aggregate, rig.chain.store)[oracle](feed, seen(), stamp)
        for name in ("solana:a", "solana:b")[: random.randrange(1, 3)]:
            rig.deliver(name, rig.chain.notification(name, address))
    else:
        rig.deliver("hermes:1", hermes(seen(), random.choice((1_000, 10_000_000, 60_000_000)), stamp, feed))
    if random.random() < 0.1 and rig.pump.engine.hub.next_deadline() is not None:
        rig.run_out()
    rig.manual.advance(random.choice((1, 40_000, 150_000, 700_000, 1_400_000, 6_000_000)))
    rig.pump.step()


def reload(rig: Rig, config: Config) -> None:
    """Another threshold from here on, and a verifier that may not be chosen."""
    hub = msgspec.structs.replace(config.hub, max_divergence_bps=30)
    barred = msgspec.structs.replace(config.sources["chainlink"], redistribute=Redistribute.NO)
    changed = msgspec.structs.replace(config, hub=hub, sources={**config.sources, "chainlink": barred})
    rig.pump.reload(build_lineup(changed, journaled_endpoints(changed), rig.pump.engine.lineup))
    rig.pump.step()


class Said(NamedTuple):
    """What was chosen from an instant on."""

    at_us: int
    state: State
    rule: Rule
    reason: Reason
    source: str | None
    mantissa: int | None


After: TypeAlias = Callable[[Hub, int, Batch | None], None]


def walk(directory: Path, setting: Setting, after: After) -> None:
    """The journal through the whole program under another configuration, whose leases end when they end."""
    latest: list[Batch] = []

    def build(text: str, before: Lineup | None) -> Lineup:
        lineup = lineup_from_text(text, before)
        return msgspec.structs.replace(lineup, catalog=setting.changed(lineup.catalog))

    replayer = Replayer(build, latest.append)
    for group, now_us in _groups(read_journal(directory)):
        begins = any(isinstance(record, RunStart | Checkpoint) for record in group)
        if replayer.engine is not None and not begins:
            expire(replayer.engine.hub, now_us, after)
        for record in group:
            replayer.take(record)
        assert replayer.engine is not None
        after(replayer.engine.hub, now_us, latest.pop() if latest else None)


def replayed(directory: Path, setting: Setting) -> dict[str, list[Said]]:
    """What changed and when, by feed."""
    batches: list[Batch] = []
    walk(directory, setting, lambda hub, now_us, batch: batches.append(batch) if batch else None)
    return collapsed(batches)


def _groups(records: Iterator[Record]) -> Iterator[tuple[list[Record], int]]:
    group: list[Record] = []
    for record in records:
        group.append(record)
        if isinstance(record, Step):
            yield group, record.now_us
            group = []


def expire(hub: Hub, until_us: int, after: After) -> None:
    """Decide at every end of a lease before an instant, as the hub's timer would."""
    while (deadline_us := hub.next_deadline()) is not None and deadline_us < until_us:
        after(hub, deadline_us, hub.step(deadline_us))


def collapsed(batches: list[Batch]) -> dict[str, list[Said]]:
    """Per feed, what changed and when."""
    found: dict[str, list[Said]] = {}
    for batch in batches:
        for one in batch.decisions:
            if one.reason is Reason.REMOVED:
                continue
            said = Said(batch.now_us, one.state, one.rule, one.reason, one.source, one.mantissa)
            found.setdefault(one.feed, []).append(said)
    return {feed: without_repeats(series) for feed, series in found.items()}


def shown(series: Iterator[Transition]) -> list[Said]:
    """What the columnar form found, in the same words."""
    return without_repeats(
        Said(one.at_us, one.outcome.state, one.outcome.rule, one.outcome.reason, one.source, one.mantissa)
        for one in series
    )


def without_repeats(series: Iterable[Said]) -> list[Said]:
    kept: list[Said] = []
    for one in series:
        if not kept or kept[-1][1:] != one[1:]:
            kept.append(one)
    return kept
