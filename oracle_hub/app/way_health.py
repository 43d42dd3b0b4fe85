"""How each way to each source does, for people and for Prometheus. Reckoned when somebody asks."""

from collections.abc import Iterator, Mapping

import msgspec

from oracle_hub.app.engine import Engine
from oracle_hub.core.catalog import Proof
from oracle_hub.core.price import decimal_text
from oracle_hub.core.source import PriceUpdate
from oracle_hub.core.table import Applied, InputStatus
from oracle_hub.core.ways import WayRecord, WaySpec, newest_of
from oracle_hub.ingest.driver import LinkHealth

_NOTHING = WayRecord()
_WITHHELD = "a withheld price"


class WayHealth(msgspec.Struct, frozen=True, kw_only=True):
    """One way to one source, all of its feeds together."""

    source: str
    transport: str
    link: str
    kind: str
    up: bool
    """Whether its link is connected."""
    silent: bool
    """Whether it is behind another way by more than the max age, for some feed."""
    last_update_ms_ago: int | None
    """Since its latest update was received; None before the first."""
    behind_ms: int
    """How far its newest publish time is behind that of the newest way, for the feed for which that is most."""
    behind_for: str | None
    """That feed."""
    updates: int
    firsts: int
    """Updates that were taken: no other way had told them before."""
    duplicates: int
    late: int
    """Updates whose publish time another way had told before."""
    mean_late_ms: float
    """How much later these came than by the first way."""
    most_late_ms: float
    disagreements: int
    """Other values than the one held for the same publish time."""
    last_disagreement: str | None


def way_health(engine: Engine, links: Mapping[str, LinkHealth], now_us: int) -> Iterator[WayHealth]:
    """Every way that is configured, in the order of the configuration; ``links`` is what drivers say of their links."""
    for source in dict.fromkeys(way.source for way in engine.lineup.ways):
        compared, limits_us = engine.compare_ways(source, now_us)
        behind = {way.transport: lag for way, lag in compared.lags(None)}
        silent = {way.transport for way, _ in compared.lags(limits_us)}
        for way in (way for way in engine.lineup.ways if way.source == source):
            record = engine.ways.get((source, way.transport), _NOTHING)
            received_us = max((one.received_us for one in record.last.values()), default=None)
            lag = behind.get(way.transport)
            link = links.get(way.link)
            yield WayHealth(
                source=source,
                transport=way.transport,
                link=way.link,
                kind=way.kind,
                up=link is not None and link.state == "open",
                silent=way.transport in silent,
                last_update_ms_ago=None if received_us is None else (now_us - received_us) // 1_000,
                behind_ms=0 if lag is None else lag.behind_us // 1_000,
                behind_for=None if lag is None else lag.feed,
                updates=sum(record.counts.values()),
                firsts=record.counts[Applied.TAKEN.value],
                duplicates=record.counts[Applied.DUPLICATE.value],
                late=record.late,
                mean_late_ms=record.late_us / record.late / 1_000 if record.late else 0.0,
                most_late_ms=record.latest_us / 1_000,
                disagreements=record.disagreements,
                last_disagreement=_disagreement(engine, source, record),
            )


def _disagreement(engine: Engine, source: str, record: WayRecord) -> str | None:
    one = record.disagreement
    if one is None:
        return None
    index = engine.hub.catalog.feed_index.get(one.feed)
    if index is None:
        return None
    spec = engine.hub.catalog.feeds[index]
    told, held = decimal_text(one.mantissa, spec.expo), decimal_text(one.held, spec.expo)
    if not spec.shows(source):
        told = held = _WITHHELD
    return f"{one.feed} at {one.publish_us}: {told}, and {held} by {one.held_by}"


def feed_ways(engine: Engine, feed: str, source: str, now_us: int) -> dict[str, object]:
    """What each way to a source told last of a feed, whether or not it was taken; None for one that told nothing."""
    ways = [way for way in engine.lineup.ways if way.source == source and feed in way.feeds]
    best = newest_of(feed, ways, engine.ways, now_us + engine.hub.catalog.max_future_us)
    shown = engine.hub.catalog.feeds[engine.hub.catalog.feed_index[feed]].shows(source)
    return {way.transport: _told(engine, way, feed, best, now_us, shown=shown) for way in ways}


def _told(
    engine: Engine, way: WaySpec, feed: str, best: PriceUpdate | None, now_us: int, *, shown: bool
) -> dict[str, object] | None:
    """``shown``: whether the source's licence lets its prices be shown."""
    record = engine.ways.get((way.source, way.transport), _NOTHING)
    update = record.last.get(feed)
    if update is None:
        return None
    return {
        "price": str(update.mantissa) if shown else None,
        "publish_time_us": update.publish_us,
        "received_us": update.received_us,
        "age_ms": (now_us - min(update.publish_us, update.received_us)) // 1_000,
        "slot": update.slot,
        "kind": way.kind,
        "link": way.link,
        "verified": update.verified,
        "behind_ms": 0 if best is None else max(0, best.publish_us - update.publish_us) // 1_000,
        "mean_late_ms": record.late_us / record.late / 1_000 if record.late else 0.0,
    }


def unproved(engine: Engine, feed: str, now_us: int) -> Iterator[str]:
    """In words: what is not ok, while a way without proof tells something newer that is not taken for want of it."""
    hub = engine.hub
    index = hub.catalog.feed_index[feed]
    for entry in hub.inputs(index, now_us):
        if entry.status is InputStatus.OK or hub.catalog.proof.get(entry.source) is Proof.EQUIVALENT:
            continue
        ways = [way for way in engine.lineup.ways if way.source == entry.source]
        told = [engine.ways.get((way.source, way.transport), _NOTHING).last.get(feed) for way in ways]
        bare = [update for update in told if update is not None and not update.verified]
        best = max(bare, key=lambda update: update.publish_us, default=None)
        if best is None or (entry.held is not None and best.publish_us <= entry.held.publish_us):
            continue
        newer = "" if entry.held is None else f", {(best.publish_us - entry.held.publish_us) / 1e6:.1f} s newer"
        price = decimal_text(best.mantissa, hub.catalog.feeds[index].expo)
        if not hub.catalog.feeds[index].shows(entry.source):
            price = _WITHHELD
        yield (
            f"{entry.source} is {entry.status.value}: {best.transport} tells {price} of {best.publish_us}{newer}, "
            f"which is not proved and not taken (sources.{entry.source}.equivalent)"
        )
