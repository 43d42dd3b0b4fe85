"""Links and hub behind one door, driven by records: live run and replay call the same methods in the same order.

Nothing in here reads a clock, a socket or a file. What comes in is what the journal holds; what goes out are effects
(for a driver to carry out, or to be ignored in a replay) and batches.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Protocol

import msgspec
import numpy as np

from feeds.custody import CustodyReader
from oracle_hub.alerts.alert import Key, Kind, Transition
from oracle_hub.alerts.engine import AlertEngine
from oracle_hub.alerts.settings import AlertSettings
from oracle_hub.app.independence import Witnesses
from oracle_hub.app.onchain import limited, published
from oracle_hub.app.parity import ParityBook
from oracle_hub.config import Config
from oracle_hub.core.catalog import Catalog, Proof
from oracle_hub.core.hub import Batch, Hub
from oracle_hub.core.licence import told_text
from oracle_hub.core.limits import PublishedLimits
from oracle_hub.core.selector import Reason
from oracle_hub.core.source import (
    AccountReader,
    Condition,
    Effect,
    Event,
    Frame,
    Link,
    Malformed,
    Open,
    PriceUpdate,
    Rewatch,
    Status,
    Unchanged,
)
from oracle_hub.core.table import Applied, Table
from oracle_hub.core.ways import LOOK_INTERVAL_US, Comparison, Int64, Lag, WayRecord, WaySpec, by_source, unread
from oracle_hub.ingest.solana_rpc import SolanaRpc

LIMITS_WAY = "limits"
"""In place of a transport: what was said of the limits that an account publishes."""
EVERY_WAY = "*"
"""In place of a transport: what was said of a source whatever way it came."""
CHANGE_SHOWN_US = 600_000_000
"""For how long a change of the line-up is shown once it is complete."""
_WAYS = {
    Condition.CHANGED: EVERY_WAY,
    Condition.LIMITS_CHANGED: LIMITS_WAY,
    Condition.LIMITS_REFUSED: LIMITS_WAY,
}
_ENDED_BY_A_PRICE = (Condition.MISSING_ACCOUNT, Condition.INVALID, Condition.HALTED)


class DescribedReader(AccountReader, Protocol):
    """A reader that can say what it reads."""

    def describe(self, feed: str) -> dict[str, object]:
        """Account, kind, and whether the address is the one that rules derive. KeyError for a feed it has not."""
        ...


class Lineup(msgspec.Struct, frozen=True):
    """Everything that a configuration stands for, built: what is decided, and the links that bring it."""

    catalog: Catalog
    links: dict[str, Link]
    readers: dict[str, DescribedReader]
    """By way, for those that are read from accounts."""
    config: Config
    addresses: dict[str, dict[str, str]]
    """Where each source reads each feed, by way (the first one has the source's name) and feed."""
    config_text: str
    config_hash: str
    alerts: AlertSettings
    witnesses: Witnesses
    """Which roles are no independent witnesses for each other, as far as is known by now."""
    ways: tuple[WaySpec, ...] = ()
    """Every way to every source, by every link that carries it."""

    onchain: frozenset[str] = frozenset()
    """Sources whose published limits are followed."""
    publishers: Mapping[tuple[str, str], str] = {}
    """By source and transport: their ways that read accounts which publish limits."""
    legacy: Mapping[str, tuple[str, ...]] = {}
    """Per feed and in words: accounts that were replaced, and what is read in their place."""

    def describe(self, source: str, feed: str) -> dict[str, object] | None:
        """From which account a source's first way reads a feed; None for one that is no account."""
        reader = self.readers.get(source)
        return None if reader is None else reader.describe(feed)


class Engine:
    """The deterministic middle of the program."""

    CONFIGURED: ClassVar[frozenset[str]] = frozenset(
        {"lineup", "hub", "alerts", "received", "watching", "chain", "_ways_limits"}
    )
    FLAT: ClassVar[frozenset[str]] = frozenset({"statuses", "published"})
    """State that is dicts, with an entry for each feed, of what never changes."""

    def __init__(self, lineup: Lineup, *, epoch: int, started_us: int, warmup_us: int) -> None:
        self.lineup = lineup
        self.hub = Hub(
            lineup.catalog,
            epoch=epoch,
            config_hash=lineup.config_hash,
            started_us=started_us,
            warmup_us=warmup_us,
        )
        self.received: Callable[[str, int], None] | None = None
        """For metrics: called with the source of an update that was taken, and its delay from publication on."""
        self.ways: dict[tuple[str, str], WayRecord] = {}
        """What came by each way: by (source, transport)."""
        self._silent: set[tuple[str, str]] = set()
        """Ways that are too far behind another one of their source, while their links have streams."""
        self._ways_since_us = started_us
        """What a way never told is missing since then."""
        self._ways_limits: dict[str, tuple[Catalog, Int64]] = {}
        """Per source, the max ages of its ways' feeds, as of a catalog."""
        self._look_us = started_us
        """When ways are compared again."""
        self.malformed: Counter[tuple[str, str]] = Counter()
        """How many frames of each ``(source, transport)`` could not be used."""
        self.last_malformed: dict[str, Malformed] = {}
        """The latest one per transport, to be shown."""
        self.statuses: dict[tuple[str, str, str], Status] = {}
        """The latest condition per (source, transport, feed or ``*``) that is not OK."""
        self.conditions: Counter[tuple[str, str]] = Counter()
        """How often each source began to tell of each condition: ``(source, condition)``."""
        self.others: dict[str, list[Effect]] = {}
        """Effects for links other than the one that was called: to be carried out and cleared by the caller."""
        self.alerts = AlertEngine(lineup.alerts)
        self.chain = ParityBook(lineup.config, lineup.catalog, lineup.addresses, lineup.readers)
        """The exchange's own aggregates beside what is decided. For people: nothing is decided by it."""
        self.watching = True
        """Whether alerts are looked for. A replay that is asked for prices alone takes half the time without."""
        self.transitions: list[Transition] = []
        """Alerts to be told: to be taken and cleared by the caller."""
        self.published: dict[tuple[str, str], PublishedLimits] = {}
        """Limits in force that an account publishes, by (feed, source)."""
        self._conflicts: list[tuple[str, str]] = []
        """(source, feed) of the present step."""
        self._lost: set[str] = set()
        """Links without a stream."""

    @property
    def applied(self) -> Counter[tuple[str, str]]:
        """How many updates of each source became what: ``(source, applied)``."""
        found: Counter[tuple[str, str]] = Counter()
        for (source, _), record in self.ways.items():
            found.update({(source, fate): count for fate, count in record.counts.items() if count})
        return found

    def connect(self, link_name: str, now_us: int) -> Sequence[Effect]:
        """A link starts over."""
        link = self.lineup.links.get(link_name)
        effects = link.connect(now_us) if link is not None else ()
        if link_name in self._lost and not any(isinstance(effect, Open) for effect in effects):
            self._found(link_name, now_us)  # it only asks: there is no stream to wait for
        return effects

    def frame(self, link_name: str, frame: Frame, received_us: int) -> Sequence[Effect]:
        """A frame arrived."""
        link = self.lineup.links.get(link_name)
        if link is None:
            return ()
        if link_name in self._lost and frame.channel != "http" and not frame.status:
            # Answers to requests, failures among them, and refusals of a stream say nothing of a stream.
            self._found(link_name, received_us)
        return self._take(link.receive(frame, received_us), received_us)

    def timer(self, link_name: str, now_us: int) -> Sequence[Effect]:
        """A link's deadline came."""
        link = self.lineup.links.get(link_name)
        return self._take(link.on_timer(now_us), now_us) if link is not None else ()

    def disconnect(self, link_name: str, now_us: int, reason: str) -> None:
        """A link lost its stream. Prices hold until their leases end."""
        if link_name in self.lineup.links:
            self._lost.add(link_name)
            self._condition(now_us, Kind.REDUNDANCY_DEGRADED, link_name, True, f"{link_name} has no stream: {reason}")

    def _found(self, link_name: str, now_us: int) -> None:
        self._lost.discard(link_name)
        self._condition(now_us, Kind.REDUNDANCY_DEGRADED, link_name, False, "a stream again")

    def resume_alerts(self, state: Mapping[str, Any], now_us: int) -> None:
        """Take over what was open at the end of the run before.

        Feeds, links and clock are new ones. What was open for a feed that is no longer configured ends here; what was
        open for a link waits for its stream; of all else that is no feed's this run has seen nothing yet, so it ends
        unless it is seen again within its hold time.

        Raises:
            ValueError: not a state that :meth:`AlertEngine.state` gave.
        """
        self.alerts.restore(state)
        if not self.watching:
            return
        self.transitions += self.alerts.forget(now_us, self.hub.catalog.feed_index)
        for key in self.alerts.feedless:
            if key.kind is Kind.REDUNDANCY_DEGRADED and key.sources[0] in self.lineup.links:
                self._lost.add(key.sources[0])
            else:
                self.transitions += self.alerts.condition(now_us, key, False, "")

    def skew(self, skewed: bool, now_us: int) -> None:
        """Our clock and the wall clock parted, or met again."""
        if skewed:
            self.hub.block(Reason.CLOCK_SKEW)
        else:
            self.hub.unblock(Reason.CLOCK_SKEW)
        self._condition(now_us, Kind.CLOCK_SKEW, "", skewed, "wall clock and monotonic clock parted")

    def reanchor(self, now_us: int) -> None:
        """Our clock was set anew: what was held is forgotten, and warm-up begins again."""
        self.alerts.set_clock(now_us)
        self._await_ways(now_us)
        self._look_us = now_us
        self.skew(False, now_us)
        self.hub.restart_warmup(now_us)

    def reload(self, lineup: Lineup, now_us: int) -> None:
        """Go on with another line-up. If its links are others, the caller ends the old ones and connects these."""
        for name in sorted(self._lost - lineup.links.keys()):
            self._found(name, now_us)  # nobody waits for it any more
        if lineup.links is not self.lineup.links:
            # New links know nothing of troubles that the old ones told, and would never end them.
            self.statuses.clear()
            self.last_malformed.clear()
            self._forget_ways(lineup, now_us)
        forgotten = _unread(self.hub.table, self.lineup, lineup)
        self.alerts.change(lineup.alerts)
        self.lineup = lineup
        self.chain = ParityBook(lineup.config, lineup.catalog, lineup.addresses, lineup.readers, self.chain)
        self.hub.reload(lineup.catalog, lineup.config_hash, forgotten)
        kept = {(spec.feed, source) for spec in lineup.catalog.feeds for source in spec.sources}
        self.published = {
            key: limits for key, limits in self.published.items() if key in kept and key[1] in lineup.onchain
        }
        self.limit_again()

    def step(self, now_us: int) -> Batch | None:
        """Decide, and look for what is wrong: :meth:`decide` and :meth:`watch`, where nobody waits for the batch."""
        batch = self.decide(now_us)
        self.watch(now_us, batch)
        return batch

    def decide(self, now_us: int) -> Batch | None:
        """See :meth:`oracle_hub.core.hub.Hub.step`. :meth:`watch` must follow before anything else happens."""
        return self.hub.step(now_us)

    def watch(self, now_us: int, batch: Batch | None) -> None:
        """Look for what is wrong, or is by now, after ``decide(now_us)``, which gave ``batch``."""
        if not self.watching:
            return
        self.transitions += self.alerts.advance(now_us)
        if now_us >= self._look_us:
            self._look_at_ways(now_us)
        if self.hub.touched or self._conflicts:
            conflicts, self._conflicts = self._conflicts, []
            self.transitions += self.alerts.look(now_us, self.hub, conflicts)
            if batch is not None and any(decision.reason is Reason.REMOVED for decision in batch.decisions):
                self.transitions += self.alerts.forget(now_us, self.hub.catalog.feed_index)

    def compare_ways(self, source: str, now_us: int) -> tuple[Comparison, Int64]:
        """The ways to a source beside each other; and per feed of them, how far one may be behind without a word."""
        hub = self.hub
        ways = [spec for spec in self.lineup.ways if spec.source == source]
        found = Comparison(ways, self.ways, now_us + hub.catalog.max_future_us, self._ways_since_us)
        of, limits_us = self._ways_limits.get(source, (None, None))
        if limits_us is None or of is not hub.catalog:
            feeds, index = hub.catalog.feeds, hub.catalog.feed_index
            limits_us = np.array([feeds[index[feed]].max_age_us[source] for feed in found.feeds], np.int64)
            self._ways_limits[source] = (hub.catalog, limits_us)
        return found, limits_us

    def _look_at_ways(self, now_us: int) -> None:
        """Say which way is silent while another one to its source is not, and which is no longer."""
        self._look_us = now_us + LOOK_INTERVAL_US
        silent: set[tuple[str, str]] = set()
        for source, ways in by_source(self.lineup.ways).items():
            if len(ways) == 1:
                continue
            compared, limits_us = self.compare_ways(source, now_us)
            for way, behind in compared.lags(limits_us):
                if way.link in self._lost:
                    continue  # told as a link without a stream
                silent.add((source, way.transport))
                if (source, way.transport) not in self._silent:
                    self._way_condition(now_us, source, way.transport, True, _in_words(way, behind))
        for source, transport in sorted(self._silent - silent):
            self._way_condition(now_us, source, transport, False, "news again")
        self._silent = silent

    def _way_condition(self, now_us: int, source: str, transport: str, wrong: bool, text: str) -> None:
        key = Key(Kind.REDUNDANCY_DEGRADED, None, (source, transport))
        self.transitions += self.alerts.condition(now_us, key, wrong, text)

    def _forget_ways(self, lineup: Lineup, now_us: int) -> None:
        """Other links: what they have told is still to come, and what they count goes on where they are the same."""
        known = {(spec.source, spec.transport) for spec in lineup.ways}
        self.ways = {key: record for key, record in self.ways.items() if key in known}
        self._await_ways(now_us)

    def _await_ways(self, now_us: int) -> None:
        """What ways have told is still to come."""
        for record in self.ways.values():
            record.last.clear()
        self._ways_since_us = now_us

    def _condition(self, now_us: int, kind: Kind, about: str, wrong: bool, text: str) -> None:
        if not self.watching:
            return
        key = Key(kind, None, (about,) if about else ())
        self.transitions += self.alerts.condition(now_us, key, wrong, text)

    def _take(self, outputs: Iterable[Event | Effect], now_us: int) -> Sequence[Effect]:
        effects: list[Effect] = []
        for output in outputs:
            if isinstance(output, PriceUpdate):
                applied = self.hub.apply(output, now_us)
                if applied is not None:
                    record = self.ways.get((output.source, output.transport))
                    if record is None:
                        record = self.ways[output.source, output.transport] = WayRecord()
                    record.counts[applied._value_] += 1  # .value is slow, and this is every update
                    if applied is not Applied.TAKEN or output.verified:
                        self._note_way(record, output, applied)
                    record.last[output.feed] = output
                    if output.source in self.lineup.onchain and applied is not Applied.FUTURE:
                        self._follow(output)
                    if applied is Applied.TAKEN:
                        self._taken(output)
                    if self.statuses:
                        self._over(output)
            elif isinstance(output, Rewatch):
                self._rewatch(now_us)
            elif isinstance(output, Malformed):
                self.malformed[output.source, output.transport] += 1
                self.last_malformed[output.transport] = output
                self.hub.apply(output, now_us)
                if self.watching:
                    reason = self.tell(output.source, output.reason)
                    self.transitions += self.alerts.malformed(now_us, output.source, output.transport, reason)
            elif isinstance(output, Status):
                self._note(output)
                self.hub.apply(output, now_us)
            elif not isinstance(output, Unchanged):
                effects.append(output)
        return effects

    def _taken(self, update: PriceUpdate) -> None:
        """What is looked at beside the decision when an update became the one that is held."""
        self.chain.note(update)
        if self.received is not None:
            self.received(update.source, update.received_us - update.publish_us)

    def _follow(self, update: PriceUpdate) -> None:
        """Take over the limits that came with an update, if they are others. What a lagging node says is not news."""
        way = self.lineup.publishers.get((update.source, update.transport))
        if way is None:
            return
        news = published(self.lineup.readers[way], update)
        held = self.published.get((update.feed, update.source))
        if news is None or (held is not None and news.slot < held.slot):
            return
        refusal = (update.source, LIMITS_WAY, update.feed)
        fault = news.fault()
        if fault is not None:
            text = (
                f"{update.account} publishes limits that are none ({fault}): {held.text if held else 'configured'} stay"
            )
            if refusal not in self.statuses or self.statuses[refusal].text != text:
                self._say_limits(update, Condition.LIMITS_REFUSED, text)
            return
        if refusal in self.statuses and self.statuses[refusal].condition is Condition.LIMITS_REFUSED:
            del self.statuses[refusal]
        if held is None or (held.numbers, held.legs) != (news.numbers, news.legs):
            self.published[update.feed, update.source] = news
            self._limit(update.feed)
            if held is not None and held.numbers != news.numbers:
                text = f"{update.account} publishes {news.text} since slot {news.slot}; it was {held.text}"
                self._say_limits(update, Condition.LIMITS_CHANGED, text)

    def _say_limits(self, update: PriceUpdate, condition: Condition, text: str) -> None:
        self._note(Status(update.source, update.transport, update.feed, condition, text, update.received_us))

    def _limit(self, feed: str) -> None:
        lineup = self.lineup
        spec = lineup.catalog.feeds[lineup.catalog.feed_index[feed]]
        in_force = [self.published[feed, source] for source in spec.sources if (feed, source) in self.published]
        self.hub.limit(limited(lineup.config, spec, lineup.addresses, in_force))

    def limit_again(self) -> None:
        """Have the hub decide by the published limits: after it was given a catalog of configured ones."""
        for feed in dict.fromkeys(feed for feed, _ in self.published):
            self._limit(feed)

    def tell(self, source: str, text: str) -> str:
        """A text of a source, or about a message of it, as its licence lets it leave."""
        return told_text(text) if source in self.hub.catalog.withheld else text

    def _note_way(self, record: WayRecord, update: PriceUpdate, applied: Applied) -> None:
        """Note what an update says of its way: how late it is, and whether ways disagree."""
        disagree = applied is Applied.CONFLICT
        if disagree or applied is Applied.DUPLICATE:
            record.follow(update, self.hub.table, disagree)
        elif applied is Applied.TAKEN and self.hub.catalog.proof.get(update.source) is Proof.DEMANDED:
            disagree = self._compare(update)
        if disagree and self.watching:
            self._conflicts.append((update.source, update.feed))

    def _compare(self, taken: PriceUpdate) -> bool:
        """Whether a way without proof had told another value for the same time before, when it could not be held."""
        disagree = False
        for (source, _), record in self.ways.items():
            told = record.last.get(taken.feed) if source == taken.source else None
            if told is None or told.verified or told.publish_us != taken.publish_us:
                continue
            if told.mantissa != taken.mantissa:
                record.disagree(told, taken)
                disagree = True
        return disagree

    def _over(self, update: PriceUpdate) -> None:
        """A price ends what was said of its absence."""
        key = (update.source, update.transport, update.feed)
        held = self.statuses.get(key)
        if held is not None and held.condition in _ENDED_BY_A_PRICE:
            del self.statuses[key]

    def _note(self, status: Status) -> None:
        # A change is of the line-up or of limits, not of the way that told it: the latest one stands, whoever told it.
        way = _WAYS.get(status.condition)
        key = (status.source, way or status.transport, status.feed or "*")
        if status.condition in (Condition.OK, Condition.RESUMED):
            self.statuses.pop(key, None)
            return
        held = self.statuses.get(key)
        if way is not None or held is None or held.condition is not status.condition:
            self.conditions[status.source, status.condition.value] += 1
        self.statuses[key] = status

    def standing(self, now_us: int) -> list[Status]:
        """What sources say of themselves that is not ok; changes of a line-up while they are new or under way."""
        return [status for status in self.statuses.values() if not self._past(status, now_us)]

    def _past(self, status: Status, now_us: int) -> bool:
        changes = (Condition.CHANGED, Condition.LIMITS_CHANGED)
        if status.condition not in changes or now_us - status.received_us <= CHANGE_SHOWN_US:
            return False
        described = self.lineup.describe(status.source, status.feed) if status.feed is not None else None
        return described is None or described.get("pending") is None

    def _rewatch(self, now_us: int) -> None:
        """Readers are shared by all Solana links: when one learns of a new account, every link must watch it."""
        moved: set[str] = set()
        for reader in self.lineup.readers.values():
            if isinstance(reader, CustodyReader):  # no other reader's accounts change
                moved |= reader.drain_moved()
        for name, link in self.lineup.links.items():
            if isinstance(link, SolanaRpc):
                # An entry even where there is nothing to do: whoever carries it out looks at the link's deadline anew.
                self.others.setdefault(name, []).extend(link.reconcile(now_us, moved))

    def drain_others(self) -> Mapping[str, Sequence[Effect]]:
        """Hand over the effects for other links."""
        others, self.others = self.others, {}
        return others


def _unread(table: Table, before: Lineup, after: Lineup) -> set[tuple[str, str]]:
    """What is held and would not be read by the next line-up (:func:`oracle_hub.core.ways.unread`)."""
    if after.links is before.links:
        return set()
    moved = {
        way: [feed for feed, address in addresses.items() if after.addresses[way].get(feed) != address]
        for way, addresses in before.addresses.items()
        if way in after.addresses
    }
    return unread(table, before.ways, after.ways, moved)


def _in_words(way: WaySpec, behind: Lag) -> str:
    more = f" and {behind.feeds - 1} more feeds" if behind.feeds > 1 else ""
    return f"{way.transport} is {behind.behind_us / 1e6:.1f} s behind {behind.ahead} for {behind.feed}{more}"
