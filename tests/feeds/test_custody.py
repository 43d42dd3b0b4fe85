"""The migration: from what a custody names to one unbroken series of prices."""

from collections.abc import Sequence

import msgspec
import pytest

from feeds.addresses import ASSETS, POOL
from feeds.custody import CustodyReader, PoolReader
from feeds.doves import PROGRAM as DOVES
from feeds.doves import AgLimits, AgPriceFeed, PriceFeed
from feeds.jupiter import PROGRAM as PERPS
from feeds.jupiter import Custody, Pool
from feeds.layout import pubkey_bytes, pubkey_text
from oracle_hub.core.source import Account, Condition, Event, Malformed, PriceUpdate, Rewatch, Status
from oracle_hub.errors import ConfigError

SOL = ASSETS["SOL/USD"]
NOW = 1_790_000_100_000_000
OTHER = pubkey_text(bytes([9]) * 32)
REWATCH = Rewatch()


def custody(*, edge: str | None = SOL.edge, ag: str | None = SOL.ag, mint: str = SOL.mint) -> Custody:
    return Custody(
        pool=pubkey_bytes(POOL),
        mint=pubkey_bytes(mint),
        doves_oracle=pubkey_bytes(edge) if edge else None,
        doves_ag_oracle=pubkey_bytes(ag) if ag else None,
    )


def edge(price: int, timestamp: int = 1_790_000_000) -> bytes:
    return PriceFeed(SOL.edge_pair, bytes(33), price, -8, timestamp).encode()


def aggregate(price: int, timestamp: int = 1_790_000_001, mint: str = SOL.mint) -> bytes:
    key = bytes(32)
    return AgPriceFeed(pubkey_bytes(mint), key, key, key, key, price, -8, timestamp).encode()


class Run:
    """A reader, fed step by step."""

    def __init__(self, reader: CustodyReader | None = None) -> None:
        self.reader = reader or CustodyReader("doves", {"SOL/USD": SOL.custody})
        self.slot = 100

    def custody(self, state: Custody, slot: int | None = None, data: bytes | None = None) -> Sequence[Event | Rewatch]:
        self.slot += 1
        found = Account(SOL.custody, PERPS, slot or self.slot, data or state.encode())
        return self.reader.read(found, "solana:a", NOW)

    def oracle(self, address: str, data: bytes, owner: str = DOVES) -> Sequence[Event | Rewatch]:
        self.slot += 1
        return self.reader.read(Account(address, owner, self.slot, data), "solana:a", NOW)

    def missing(self, address: str) -> Sequence[Event | Rewatch]:
        return self.reader.missing(address, self.slot, "solana:a", NOW)


def prices(events: Sequence[Event | Rewatch]) -> list[tuple[str | None, int]]:
    return [(event.account, event.mantissa) for event in events if isinstance(event, PriceUpdate)]


def said(events: Sequence[Event | Rewatch]) -> list[tuple[Condition, str]]:
    return [(event.condition, event.text) for event in events if isinstance(event, Status)]


def test_the_aggregate_is_read_where_custody_names_one() -> None:
    run = Run()
    assert run.reader.accounts() == {SOL.custody}
    assert run.custody(custody()) == [REWATCH]
    assert run.reader.accounts() == {SOL.custody, SOL.ag}
    events = run.oracle(SOL.ag, aggregate(5))
    assert events == [
        PriceUpdate("doves", "solana:a", "SOL/USD", 5, 1_790_000_001_000_000, NOW, slot=102, account=SOL.ag)
    ]
    assert run.custody(custody()) == []
    assert run.reader.limits_of("SOL/USD") == AgLimits(10, 60, 50)
    legs = run.reader.legs_of("SOL/USD")
    assert legs is not None and legs.edge is None


@pytest.mark.parametrize("size", [384, 415, 2000])
def test_the_old_oracle_is_read_where_custody_names_no_aggregate(size: int) -> None:
    run = Run()
    state = custody(ag=None)
    assert run.custody(state, data=state.encode()[:size]) == [REWATCH]
    assert run.reader.accounts() == {SOL.custody, SOL.edge}
    assert prices(run.oracle(SOL.edge, edge(7))) == [(SOL.edge, 7)]


def test_a_change_at_run_time_moves_with_nothing_lost_repeated_or_backwards() -> None:
    run = Run()
    run.custody(custody(ag=None))
    assert prices(run.oracle(SOL.edge, edge(7))) == [(SOL.edge, 7)]
    changed = run.custody(custody())
    assert said(changed)[0][0] is Condition.CHANGED
    assert changed[-1] == REWATCH
    assert run.reader.accounts() == {SOL.custody, SOL.edge, SOL.ag}
    assert prices(run.oracle(SOL.edge, edge(8, 1_790_000_002))) == [(SOL.edge, 8)]

    first = run.oracle(SOL.ag, aggregate(0, 0))
    assert prices(first) == []
    ((condition, text),) = said(first)
    assert condition is Condition.CHANGED
    assert f"reading {SOL.edge}" in text and "never updated" in text
    assert run.oracle(SOL.ag, aggregate(0, 0)) == []  # said once
    assert prices(run.oracle(SOL.edge, edge(9, 1_790_000_003))) == [(SOL.edge, 9)]

    live = run.oracle(SOL.ag, aggregate(10, 1_790_000_003))
    assert prices(live) == [(SOL.ag, 10)]
    assert said(live)[0][1].startswith(f"now reading {SOL.ag}")
    assert live[-1] == REWATCH
    assert run.reader.accounts() == {SOL.custody, SOL.ag}
    assert run.oracle(SOL.edge, edge(11, 1_790_000_009)) == []


def test_a_new_account_with_an_older_price_waits() -> None:
    run = Run()
    run.custody(custody(ag=None))
    run.oracle(SOL.edge, edge(7, 1_790_000_050))
    run.custody(custody())
    events = run.oracle(SOL.ag, aggregate(10, 1_790_000_049))
    assert prices(events) == []
    assert "older than what" in said(events)[0][1]
    assert prices(run.oracle(SOL.ag, aggregate(10, 1_790_000_050))) == [(SOL.ag, 10)]


def test_a_future_stamp_of_the_old_account_does_not_hold_the_new_one_back() -> None:
    run = Run()
    run.custody(custody(ag=None))
    run.oracle(SOL.edge, edge(7, 1_790_009_999))
    run.custody(custody())
    assert prices(run.oracle(SOL.ag, aggregate(10, 1_790_000_100))) == [(SOL.ag, 10)]


def test_at_start_an_aggregate_without_a_price_gives_way_to_the_old_oracle() -> None:
    run = Run()
    run.custody(custody())
    events = run.missing(SOL.ag)
    assert REWATCH in events
    assert said(events)[-1][0] is Condition.CHANGED
    assert "it does not exist" in said(events)[-1][1]
    assert run.reader.accounts() == {SOL.custody, SOL.ag, SOL.edge}
    assert prices(run.oracle(SOL.edge, edge(7))) == [(SOL.edge, 7)]
    assert prices(run.oracle(SOL.ag, aggregate(8))) == [(SOL.ag, 8)]
    assert run.oracle(SOL.edge, edge(9, 1_790_000_005)) == []


@pytest.mark.parametrize("owner", [DOVES, "1" * 32])
def test_at_start_bytes_that_are_no_account_give_way_too_and_are_counted(owner: str) -> None:
    run = Run()
    run.custody(custody())
    events = run.oracle(SOL.ag, bytes(394), owner)
    assert [type(event) for event in events] == [Rewatch, Malformed, Status]
    assert run.reader.accounts() == {SOL.custody, SOL.ag, SOL.edge}


def test_once_the_aggregate_was_live_there_is_no_way_back() -> None:
    run = Run()
    run.custody(custody())
    run.oracle(SOL.ag, aggregate(10))
    ((condition, text),) = said(run.custody(custody(ag=None)))
    assert condition is Condition.CHANGED
    assert f"staying with {SOL.ag}" in text
    assert run.custody(custody(ag=None)) == []
    ((condition, _),) = said(run.missing(SOL.ag))
    assert condition is Condition.MISSING_ACCOUNT
    ((condition, _),) = said(run.oracle(SOL.ag, aggregate(0)))
    assert condition is Condition.INVALID
    assert run.reader.accounts() == {SOL.custody, SOL.ag}
    assert run.oracle(SOL.edge, edge(9, 1_790_000_050)) == []


def test_from_one_aggregate_to_another() -> None:
    run = Run()
    run.custody(custody())
    run.oracle(SOL.ag, aggregate(10))
    assert REWATCH in run.custody(custody(ag=OTHER))
    assert run.reader.accounts() == {SOL.custody, SOL.ag, OTHER}
    assert prices(run.oracle(SOL.ag, aggregate(11, 1_790_000_002))) == [(SOL.ag, 11)]
    assert prices(run.oracle(OTHER, aggregate(12, 1_790_000_003))) == [(OTHER, 12)]
    assert run.oracle(SOL.ag, aggregate(13, 1_790_000_004)) == []


def test_a_change_that_is_taken_back_before_it_took_effect() -> None:
    run = Run()
    run.custody(custody(ag=None))
    run.oracle(SOL.edge, edge(7))
    run.custody(custody())
    assert run.custody(custody(ag=None)) == [REWATCH]
    assert run.reader.accounts() == {SOL.custody, SOL.edge}
    assert run.oracle(SOL.ag, aggregate(8)) == []


def test_an_older_state_of_custody_from_a_lagging_node_changes_nothing() -> None:
    run = Run()
    run.custody(custody(), slot=500)
    assert run.custody(custody(ag=OTHER), slot=499) == []
    assert run.reader.accounts() == {SOL.custody, SOL.ag}


def at(reader: CustodyReader, transport: str, slot: int, state: Custody) -> Sequence[Event | Rewatch]:
    return reader.read(Account(SOL.custody, PERPS, slot, state.encode()), transport, NOW)


def test_an_absurd_slot_of_one_endpoint_stops_nobody() -> None:
    reader = Run().reader
    at(reader, "solana:a", 500, custody())
    (event,) = at(reader, "solana:a", 2**62, custody(ag=None))
    assert isinstance(event, Malformed)
    assert f"slot {2**62} is too far from slot 500" in event.reason
    assert reader.accounts() == {SOL.custody, SOL.ag}
    assert at(reader, "solana:a", 501, custody(ag=OTHER)) == [REWATCH]
    at(reader, "solana:b", 2**62, custody(ag=None))
    at(reader, "solana:b", 2**62, custody(ag=None))  # believed of that endpoint, and of no other
    assert at(reader, "solana:a", 502, custody()) == [REWATCH]
    assert reader.accounts() == {SOL.custody, SOL.ag}
    assert isinstance(at(reader, "solana:b", 503, custody(ag=OTHER))[0], Malformed)
    assert at(reader, "solana:b", 504, custody(ag=OTHER)) == [REWATCH]


def test_an_absurd_slot_at_the_start_is_left_behind() -> None:
    reader = Run().reader
    at(reader, "solana:a", 2**62, custody(ag=None))
    at(reader, "solana:b", 500, custody())
    assert at(reader, "solana:b", 501, custody()) == [REWATCH]
    assert reader.accounts() == {SOL.custody, SOL.ag}


def test_an_older_state_of_a_second_endpoint_changes_nothing() -> None:
    reader = Run().reader
    at(reader, "solana:a", 20_500, custody())
    assert at(reader, "solana:b", 10_500, custody(ag=OTHER)) == []
    assert at(reader, "solana:b", 20_499, custody(ag=OTHER)) == []
    assert at(reader, "solana:b", 20_500, custody(ag=OTHER)) == [REWATCH]


def test_after_a_long_outage_the_second_state_is_followed() -> None:
    reader = Run().reader
    at(reader, "solana:a", 500, custody())
    assert isinstance(at(reader, "solana:a", 10_501, custody(ag=OTHER))[0], Malformed)
    assert at(reader, "solana:a", 10_502, custody(ag=OTHER)) == [REWATCH]


def test_a_custody_of_another_token_or_program_is_not_followed() -> None:
    run = Run()
    ((condition, text),) = said(run.custody(custody(mint=ASSETS["BTC/USD"].mint)))
    assert condition is Condition.INVALID
    assert "holds the token" in text
    events = run.reader.read(Account(SOL.custody, DOVES, 1, custody().encode()), "solana:a", NOW)
    assert isinstance(events[0], Malformed)
    assert run.reader.accounts() == {SOL.custody}


def test_an_oracle_of_another_asset_is_refused() -> None:
    run = Run()
    run.custody(custody(edge=None))
    ((condition, text),) = said(run.oracle(SOL.ag, aggregate(5, mint=ASSETS["BTC/USD"].mint)))
    assert condition is Condition.INVALID
    assert "prices the token" in text
    run = Run()
    run.custody(custody(ag=None))
    wrong = PriceFeed(ASSETS["BTC/USD"].edge_pair, bytes(33), 5, -8, 1_790_000_000).encode()
    ((condition, _),) = said(run.oracle(SOL.edge, wrong))
    assert condition is Condition.INVALID


def test_a_custody_without_oracles_says_so() -> None:
    ((condition, text),) = said(Run().custody(custody(edge=None, ag=None)))
    assert condition is Condition.INVALID
    assert "names no oracle" in text
    ((condition, _),) = said(Run().missing(SOL.custody))
    assert condition is Condition.MISSING_ACCOUNT
    assert Run().missing(OTHER) == []


def test_describe_says_what_is_read_and_whether_it_is_derived() -> None:
    run = Run()
    assert run.reader.describe("SOL/USD") == {
        "account": None,
        "kind": None,
        "custody": SOL.custody,
        "pending": None,
        "derived": [],
        "matches_derived": False,
    }
    run.custody(custody(ag=None))
    run.oracle(SOL.edge, edge(7))
    run.custody(custody())
    assert run.reader.describe("SOL/USD") == {
        "account": SOL.edge,
        "kind": "doves.price_feed",
        "custody": SOL.custody,
        "pending": SOL.ag,
        "derived": [SOL.edge],
        "matches_derived": True,
    }
    run.oracle(SOL.ag, aggregate(8))
    described = run.reader.describe("SOL/USD")
    assert (described["account"], described["kind"], described["pending"]) == (SOL.ag, "doves.ag_price_feed", None)
    assert described["matches_derived"] is True


def test_two_feeds_can_not_share_a_custody() -> None:
    with pytest.raises(ConfigError, match="two feeds name the same custody"):
        CustodyReader("doves", {"SOL/USD": SOL.custody, "BTC/USD": SOL.custody})


def pool(*custodies: str) -> Account:
    state = Pool(custodies=tuple(pubkey_bytes(address) for address in custodies))
    return Account(POOL, PERPS, 50, state.encode())


def test_a_pool_leads_to_custodies_and_they_to_oracles() -> None:
    reader = PoolReader("doves", POOL, {"SOL/USD": SOL.mint})
    assert reader.accounts() == {POOL}
    assert reader.read(pool(SOL.custody, OTHER), "solana:a", NOW) == [REWATCH]
    assert reader.accounts() == {POOL, SOL.custody, OTHER}
    other = custody(mint=ASSETS["BTC/USD"].mint)
    assert reader.read(Account(OTHER, PERPS, 50, other.encode()), "solana:a", NOW) == [REWATCH]
    assert reader.accounts() == {POOL, SOL.custody}
    run = Run(reader)
    assert REWATCH in run.custody(custody())
    assert reader.accounts() == {POOL, SOL.custody, SOL.ag}
    assert prices(run.oracle(SOL.ag, aggregate(5))) == [(SOL.ag, 5)]
    assert reader.read(pool(SOL.custody, OTHER), "solana:b", NOW) == []


def test_a_pool_without_the_token_says_so() -> None:
    reader = PoolReader("doves", POOL, {"BTC/USD": ASSETS["BTC/USD"].mint})
    reader.read(pool(SOL.custody), "solana:a", NOW)
    ((condition, text),) = said(Run(reader).custody(custody()))
    assert condition is Condition.MISSING_ACCOUNT
    assert "no custody for the token of BTC/USD" in text


def test_a_pool_that_is_none_is_malformed_and_a_missing_one_is_said() -> None:
    reader = PoolReader("doves", POOL, {"SOL/USD": SOL.mint})
    whole = pool(SOL.custody)
    for account in (msgspec.structs.replace(whole, owner=DOVES), msgspec.structs.replace(whole, data=b"12")):
        (event,) = reader.read(account, "solana:a", NOW)
        assert isinstance(event, Malformed)
    ((condition, _),) = said(reader.missing(POOL, 9, "solana:a", NOW))
    assert condition is Condition.MISSING_ACCOUNT
    with pytest.raises(ConfigError, match="two feeds name the same token"):
        PoolReader("doves", POOL, {"SOL/USD": SOL.mint, "BTC/USD": SOL.mint})


def test_an_absurd_slot_of_a_pool_does_not_stop_it_from_being_followed() -> None:
    reader = PoolReader("doves", POOL, {"SOL/USD": SOL.mint})
    reader.read(pool(SOL.custody), "solana:a", NOW)
    (event,) = reader.read(msgspec.structs.replace(pool(), slot=2**62), "solana:a", NOW)
    assert isinstance(event, Malformed)
    later = msgspec.structs.replace(pool(SOL.custody, OTHER), slot=51)
    assert reader.read(later, "solana:a", NOW) == [REWATCH]
    older = msgspec.structs.replace(pool(SOL.custody), slot=50)
    assert reader.read(older, "solana:b", NOW) == []
