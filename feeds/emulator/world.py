"""The simulated world: what every oracle holds at an instant. Pure: driven by points and faults, asked with a time.

The same seed or tape, the same faults and the same instants give the same states. Nothing here knows of sockets.
"""

from collections.abc import Callable, Iterator, Mapping
from heapq import heapify, heappop, heappush
from typing import TypeAlias, TypeVar

import msgspec

from feeds.emulator.accounts import (
    LIVE_LIMITS,
    Held,
    Limits,
    encode_custody,
    encode_pool,
    encode_price,
)
from feeds.emulator.catalogue import CUSTODY, KNOWN, POOL_KIND, Catalogue, next_aggregate
from feeds.emulator.faults import ActiveFault, Fault, FaultBook, Kind, spike_factor
from feeds.emulator.oracles import AGGREGATE, CHAINLINK_LEG, EDGE, HERMES, LAZER, ORACLES, STRICT_SECONDS
from feeds.emulator.walk import Point
from oracle_hub.core.price import INT64_MAX, near

SLOT_US = 400_000
_GENESIS_US = 1_584_368_940_000_000
"""Start of the real chain: so that slots have the usual size, and grow over restarts."""
_PYTHNET_AHEAD = 100_000_000
_SECOND_US = 1_000_000
_LEG_MAX_AGE_US = 60_000_000
_LEG_MAX_BPS = 50
SYSTEM_PROGRAM = "11111111111111111111111111111111"

T = TypeVar("T")
Key: TypeAlias = tuple[str, str]
"""Feed and oracle."""


def slot_at(now_us: int) -> int:
    """The chain's slot at an instant: one every 400 ms."""
    return (now_us - _GENESIS_US) // SLOT_US


class AccountState(msgspec.Struct, frozen=True):
    """An account as a node would tell it."""

    owner: str
    data: bytes
    lamports: int


CLOSED = AccountState(SYSTEM_PROGRAM, b"", 0)
"""How a subscription tells that an account does not exist any more."""


class Change(msgspec.Struct, frozen=True):
    """Something new to tell: an account, or a price at Hermes (no address)."""

    at_us: int
    slot: int
    feed: str
    oracle: str
    address: str | None
    held: Held | None
    """The state to tell; None: the account as it stands (a custody, and what a fault changed)."""
    endpoint: str | None = None
    """Only this server tells it (a fork); None: all."""


class World:
    """All oracles of a run.

    Args:
        start_us: when it begins; faults are timed from here.
        drivers: what each oracle observes. An oracle that is not here has no account and no price.
        derive_aggregate: the aggregate's price comes from its legs; its driver only says when it is computed.
        catalogue: which feeds there are, and where; the five known assets when absent.
        faults: the faults of the run.
    """

    def __init__(
        self,
        start_us: int,
        drivers: Mapping[Key, Iterator[Point]],
        faults: FaultBook,
        *,
        derive_aggregate: bool,
        catalogue: Catalogue = KNOWN,
    ) -> None:
        self.catalogue = catalogue
        self.start_us = start_us
        self.now_us = start_us
        self.faults = faults
        self.refused = 0
        """Points that came too late: the program holds a later timestamp already."""
        self.shift_us = 0
        """How far the clock was stepped meanwhile: added to all times of the drivers."""
        self._derive_aggregate = derive_aggregate
        self._drivers = list(drivers.values())
        self._keys = list(drivers)
        self._queue: list[tuple[int, int, Point]] = []
        self._held: dict[Key, Held] = {}
        self._previous: dict[Key, Held] = {}
        self._honest_us: dict[Key, int] = {}
        self._wiped: dict[str, str] = {}
        """Mode of the wipe (``gone`` or ``blank``) by address."""
        self._frozen: dict[str, AccountState] = {}
        self._custodies: dict[str, str] = {}
        """Mode of the custody by feed, where it is not ``set``."""
        self._second: frozenset[str] = frozenset()
        """Feeds with a second aggregate: it begins when a custody names it, and stays."""
        self._limits: dict[str, Limits] = {}
        """By address of an aggregate, where they are not the live ones."""
        self._matched: dict[Kind, tuple[tuple[int, ...], dict[str, Fault]]] = {}
        """By kind, the active faults that were looked at last, and what each address is hit by."""
        self._told_last: dict[str, tuple[Held, AccountState]] = {}
        """By address: all RPCs tell the same state, which is encoded once."""
        for index in range(len(self._drivers)):
            self._pull(index)
        heapify(self._queue)

    # Time.

    def next_event_us(self) -> int | None:
        """When something happens next, a fault's begin or end included; None: never again."""
        instants = [edge for edge in self.faults.edges() if edge > self.now_us]
        if self._queue:
            instants.append(max(self._queue[0][0], self.now_us))
        return min(instants, default=None)

    def advance(self, now_us: int) -> list[Change]:
        """Let everything happen that is due at ``now_us``; what is new to tell, in its order."""
        changes: list[Change] = []
        for edge_us in sorted({edge for edge in self.faults.edges() if self.now_us < edge < now_us}):
            self._run(edge_us - 1, changes)
            self._settle(edge_us, changes)
        self._run(now_us, changes)
        self._settle(now_us, changes)
        self.now_us = max(self.now_us, now_us)
        return changes

    def _run(self, until_us: int, changes: list[Change]) -> None:
        while self._queue and self._queue[0][0] <= until_us:
            _, index, point = heappop(self._queue)
            self._pull(index)
            self._apply(self._keys[index], point, changes)

    def _pull(self, index: int) -> None:
        point = next(self._drivers[index], None)
        if point is not None:
            point = _shifted(point, self.shift_us)
            heappush(self._queue, (point.emit_us, index, point))

    def rebase(self, by_us: int) -> None:
        """Go on as if nothing had happened when the clock was stepped: prices continue where they were, in new time."""
        self.shift_us += by_us
        self.now_us += by_us
        self.start_us += by_us
        self._queue = [(emit_us + by_us, index, _shifted(point, by_us)) for emit_us, index, point in self._queue]
        self._honest_us = {key: publish_us + by_us for key, publish_us in self._honest_us.items()}
        for states in (self._held, self._previous):
            states.update({key: _restamped(held, by_us) for key, held in states.items()})
        self.faults.shift(by_us)

    # One update.

    def _apply(self, key: Key, point: Point, changes: list[Change]) -> None:
        feed, oracle = key
        at_us = point.emit_us
        leg_oracle: str | None = None
        derived = oracle == AGGREGATE and self._derive_aggregate and self.catalogue.has_legs(feed)
        if derived:
            leg_oracle = self._winning_leg(feed, at_us)
            if leg_oracle is None:
                return
            leg = self._held[feed, leg_oracle]
            point = Point(leg.mantissa, leg.conf, leg.publish_us, at_us)
        if any(fault.hits(oracle, feed) for fault in self.faults.active(at_us, "stall", "kill")):
            return
        if not self._is_newer(key, point.publish_us):
            self.refused += not derived
            return
        self._honest_us[key] = point.publish_us
        held = self._next_state(key, self._faulty(key, point, leg_oracle))
        if key in self._held:
            self._previous[key] = self._held[key]
        self._held[key] = held
        changes.extend(self._told(key, held, at_us))

    def _is_newer(self, key: Key, publish_us: int) -> bool:
        last_us = self._honest_us.get(key)
        if last_us is None:
            return True
        unit_us = _SECOND_US if key[1] in STRICT_SECONDS else 1
        return publish_us // unit_us > last_us // unit_us

    def _faulty(self, key: Key, point: Point, leg_oracle: str | None) -> Point:
        for fault in self._struck("spike", key, point):
            if leg_oracle is not None and fault.hits(leg_oracle, key[0]):
                continue  # the leg was moved, and the aggregate with it
            moved = min(max(1, int(point.mantissa * spike_factor(fault.fault))), INT64_MAX)
            point = msgspec.structs.replace(point, mantissa=moved)
        last = self._held.get(key)
        if last is not None and self._struck("carry", key, point):
            point = msgspec.structs.replace(point, mantissa=last.mantissa, conf=last.conf)
        for fault in self._struck("wide", key, point):
            point = msgspec.structs.replace(point, conf=point.mantissa * fault.fault.bps // 10_000)
        for fault in self._struck("future", key, point):
            if fault.strike(key):
                ahead_us = point.emit_us + fault.fault.offset_s * _SECOND_US
                point = msgspec.structs.replace(point, publish_us=ahead_us)
        return point

    def _struck(self, kind: Kind, key: Key, point: Point) -> list[ActiveFault]:
        feed, oracle = key
        return [fault for fault in self.faults.active(point.emit_us, kind) if fault.hits(oracle, feed)]

    def _next_state(self, key: Key, point: Point) -> Held:
        last = self._held.get(key)
        slot = slot_at(point.emit_us)
        if last is None:
            return Held(
                mantissa=point.mantissa,
                conf=point.conf,
                publish_us=point.publish_us,
                prev_publish_us=point.publish_us - _SECOND_US,
                emit_us=point.emit_us,
                slot=slot,
                price_slot=slot + _PYTHNET_AHEAD,
                ema=point.mantissa,
                ema_conf=point.conf,
                round_id=1,
            )
        return Held(
            mantissa=point.mantissa,
            conf=point.conf,
            publish_us=point.publish_us,
            prev_publish_us=last.publish_us,
            emit_us=point.emit_us,
            slot=slot,
            price_slot=max(last.price_slot + 1, slot + _PYTHNET_AHEAD),
            ema=last.ema + (point.mantissa - last.ema) // 1_000,
            ema_conf=last.ema_conf + (point.conf - last.ema_conf) // 1_000,
            round_id=last.round_id % (2**32 - 1) + 1,
        )

    def _winning_leg(self, feed: str, at_us: int) -> str | None:
        """The youngest leg that another one confirms, under the limits that the aggregate publishes (60 s, 50 bps).

        The program's own choice is not public: this is a stand-in with the same inputs and limits.
        """
        legs = {oracle: self._held.get((feed, oracle)) for oracle in (EDGE, LAZER, CHAINLINK_LEG)}
        fresh = {oracle: leg for oracle, leg in legs.items() if leg and 0 <= at_us - leg.publish_us <= _LEG_MAX_AGE_US}
        confirmed = [
            oracle
            for oracle, leg in fresh.items()
            if any(other is not leg and near(leg.mantissa, other.mantissa, _LEG_MAX_BPS) for other in fresh.values())
        ]
        return max(confirmed, key=lambda oracle: fresh[oracle].publish_us, default=None)

    def _told(self, key: Key, held: Held | None, at_us: int, slot: int | None = None) -> Iterator[Change]:
        feed, oracle = key
        told_slot = slot_at(at_us) if slot is None else slot
        if oracle == HERMES:
            yield Change(at_us, told_slot, feed, oracle, None, held)
        for address in self.catalogue.addresses(feed, oracle):
            if self._exists(address, feed) and address not in self._wiped and address not in self._frozen:
                yield Change(at_us, told_slot, feed, oracle, address, held)

    # Faults that change what is there, beside updates.

    def _settle(self, now_us: int, changes: list[Change]) -> None:
        """Let accounts be what the faults of this instant make of them, and tell of each that became another."""
        touched: dict[str, None] = {}
        wiped = self._matching("wipe", now_us, lambda fault: fault.mode or "gone")
        touched |= dict.fromkeys(sorted(_differing(self._wiped, wiped)))
        frozen = self._matching("freeze", now_us, lambda fault: "")
        thawed = self._frozen.keys() - frozen.keys()
        standing = {address: self.account(address) for address in frozen.keys() - self._frozen.keys()}
        self._wiped = wiped
        self._frozen = {address: held for address, held in self._frozen.items() if address in frozen}
        self._frozen |= {address: held for address, held in standing.items() if held is not None}
        touched |= dict.fromkeys(sorted(thawed))
        limits = self._matching("limits", now_us, _limits)
        limits = {address: one for address, one in limits.items() if self.catalogue.places[address].oracle == AGGREGATE}
        touched |= dict.fromkeys(sorted(_differing(self._limits, limits)))
        self._limits = limits
        assets = self.catalogue.assets
        custodies = {
            feed: fault.fault.mode or "unset"
            for fault in self.faults.active(now_us, "custody")
            for feed in (assets if fault.fault.feed is None else (fault.fault.feed,))
            if self.catalogue.has_custody(feed)
        }
        touched |= dict.fromkeys(assets[feed].custody for feed in sorted(_differing(self._custodies, custodies)))
        self._custodies = custodies
        second = self._second | {feed for feed, mode in custodies.items() if mode == "next"}
        touched |= dict.fromkeys(next_aggregate(feed) for feed in sorted(second - self._second))
        self._second = second
        for address in touched:
            place = self.catalogue.places[address]
            changes.append(Change(now_us, slot_at(now_us), place.feed or "", place.oracle, address, None))
        for fault in self.faults.active(now_us, "fork"):
            changes.extend(self._forked(fault, now_us))

    def _matching(self, kind: Kind, now_us: int, what: Callable[[Fault], T]) -> dict[str, T]:
        """What the latest fault of a kind says, for each address that one of them hits."""
        active = self.faults.active(now_us, kind)
        numbers = tuple(fault.number for fault in active)
        if self._matched.get(kind, ((), None))[0] != numbers:  # looks at every account: only when faults come and go
            hit = {
                address: fault.fault
                for fault in active
                for address, place in self.catalogue.places.items()
                if _hits_account(fault, address, place.oracle, place.feed)
            }
            self._matched[kind] = (numbers, hit)
        hit = self._matched[kind][1] if numbers else {}
        return {address: what(fault) for address, fault in hit.items()}

    def _forked(self, fault: ActiveFault, now_us: int) -> Iterator[Change]:
        for key in self._keys:
            if key in self._previous and fault.hits(key[1], key[0]) and fault.strike(key):
                slot = slot_at(now_us) + fault.fault.slots
                before = self._previous[key]
                if key[1] == HERMES:
                    before = msgspec.structs.replace(before, price_slot=self._held[key].price_slot + fault.fault.slots)
                for change in self._told(key, before, now_us, slot):
                    yield msgspec.structs.replace(change, endpoint=fault.fault.endpoint)

    # Questions.

    @property
    def keys(self) -> tuple[Key, ...]:
        """Feed and oracle of everything that is played."""
        return tuple(self._keys)

    def held(self, feed: str, oracle: str) -> Held | None:
        """What an oracle holds of a feed; None before its first update, and for one that is not played."""
        return self._held.get((feed, oracle))

    def account(self, address: str) -> AccountState | None:
        """An account as it stands; None if there is none."""
        place = self.catalogue.places.get(address)
        wiped = self._wiped.get(address)
        if place is None or wiped == "gone":
            return None
        if place.oracle == POOL_KIND:
            return _state(place.owner, encode_pool())
        assert place.feed is not None
        if not self._exists(address, place.feed):
            return None
        if place.oracle == CUSTODY:
            asset = self.catalogue.assets[place.feed]
            return _state(place.owner, encode_custody(asset, self._custodies.get(place.feed, "set")))
        if address in self._frozen and wiped is None:
            return self._frozen[address]
        held = self._held.get((place.feed, place.oracle))
        if held is not None and wiped is not None:
            held = msgspec.structs.replace(held, mantissa=0, publish_us=0)
        return None if held is None else _state(place.owner, self._encoded(address, held))

    def _exists(self, address: str, feed: str) -> bool:
        return feed in self._second or address != next_aggregate(feed)

    def _encoded(self, address: str, held: Held) -> bytes:
        return encode_price(address, held, self._limits.get(address, LIVE_LIMITS), self.catalogue)

    def told_account(self, change: Change) -> AccountState:
        """The account as a change tells it; :data:`CLOSED` for one that is gone."""
        assert change.address is not None
        if change.held is not None:
            held, state = self._told_last.get(change.address, (None, CLOSED))
            if held is not change.held or change.address in self._limits:
                state = _state(self.catalogue.places[change.address].owner, self._encoded(change.address, change.held))
                self._told_last[change.address] = (change.held, state)
            return state
        return self.account(change.address) or CLOSED

    def ages_ms(self) -> dict[str, dict[str, int]]:
        """Age of every held price by feed and oracle, for people to read."""
        out: dict[str, dict[str, int]] = {}
        order = {feed: place for place, feed in enumerate(self.catalogue.assets)}
        for feed, oracle in sorted(self._held, key=lambda key: (order[key[0]], ORACLES.index(key[1]))):
            out.setdefault(feed, {})[oracle] = (self.now_us - self._held[feed, oracle].publish_us) // 1_000
        return out


def _shifted(point: Point, by_us: int) -> Point:
    if not by_us:
        return point
    return Point(point.mantissa, point.conf, point.publish_us + by_us, point.emit_us + by_us)


def _restamped(held: Held, by_us: int) -> Held:
    return msgspec.structs.replace(
        held,
        publish_us=held.publish_us + by_us,
        prev_publish_us=held.prev_publish_us + by_us,
        emit_us=held.emit_us + by_us,
    )


def _limits(fault: Fault) -> Limits:
    return Limits(fault.max_age_s, fault.max_leg_age_s, fault.max_diff_bps)


def _differing(before: Mapping[str, object], after: Mapping[str, object]) -> set[str]:
    return {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}


def _hits_account(fault: ActiveFault, address: str, oracle: str, feed: str | None) -> bool:
    if oracle in (CUSTODY, POOL_KIND):
        return fault.fault.account == address  # these hold no price: hit only when named
    return fault.hits(oracle, feed, address)


def _state(owner: str, data: bytes) -> AccountState:
    return AccountState(owner, data, (len(data) + 128) * 6_960)
