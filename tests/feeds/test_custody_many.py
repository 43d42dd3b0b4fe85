"""Custodies of many feeds: a change of one concerns that one."""

from random import Random
from typing import Any

import pytest

from feeds.custody import CustodyReader
from feeds.doves import PROGRAM as DOVES
from feeds.doves import PriceFeed
from feeds.jupiter import PROGRAM as PERPS
from feeds.jupiter import Custody
from feeds.layout import UNSET_KEY, pubkey_text
from oracle_hub.core.source import Account, Condition, Rewatch, Status
from oracle_hub.ingest.solana_rpc import SolanaRpc

NOW = 1_790_000_100_000_000
MINT = bytes([7]) * 32


def key(number: int) -> bytes:
    return number.to_bytes(2, "big") + bytes([5]) * 30


def address(number: int) -> str:
    return pubkey_text(key(number))


class Lines(dict[str, Any]):
    """Counts how often all of them are gone through."""

    gone_through = 0

    def values(self) -> Any:
        self.gone_through += 1
        return super().values()


def reader_of(n_feeds: int) -> CustodyReader:
    return CustodyReader("doves", {f"F{number}/USD": address(number) for number in range(n_feeds)})


def custody(number: int, oracle: int, slot: int) -> Account:
    state = Custody(pool=UNSET_KEY, mint=MINT, doves_oracle=key(oracle), doves_ag_oracle=None)
    return Account(address(number), PERPS, slot, state.encode())


def price(oracle: int, timestamp: int, slot: int) -> Account:
    return Account(address(oracle), DOVES, slot, PriceFeed(bytes(32), bytes(33), 5, -8, timestamp).encode())


def test_a_change_of_one_goes_through_no_other() -> None:
    reader = reader_of(500)
    reader._lines = lines = Lines(reader._lines)
    assert reader.read(custody(3, 1_003, 5), "solana:a", NOW) == [Rewatch()]
    assert reader.drain_moved() == {address(1_003)}
    assert reader.read(custody(3, 1_003, 6), "solana:a", NOW) == []
    assert [type(one).__name__ for one in reader.read(price(1_003, 1_790_000_000, 6), "solana:a", NOW)] == [
        "PriceUpdate"
    ]
    assert Rewatch() in reader.read(custody(3, 1_004, 7), "solana:a", NOW)
    assert Rewatch() in reader.read(price(1_004, 1_790_000_001, 8), "solana:a", NOW)
    assert reader.drain_moved() == {address(1_003), address(1_004)}
    assert reader.drain_moved() == set()
    assert lines.gone_through == 0
    assert len(reader.accounts()) == 501 and address(1_004) in reader.accounts()


@pytest.mark.parametrize("seed", range(12))
def test_one_by_one_gives_what_working_it_all_out_gives(seed: int) -> None:
    """Few oracles for many custodies, so that they are shared, left and come back to."""
    rng, reader = Random(seed), reader_of(6)
    known, rewatched = reader.accounts(), 0
    for slot in range(10, 200):
        if rng.random() < 0.5:
            account = custody(rng.randrange(6), 1_000 + rng.randrange(4), slot)
        else:
            account = price(1_000 + rng.randrange(4), 1_790_000_000 + slot // rng.choice((1, 3)), slot)
        if rng.random() < 0.2:
            told = reader.missing(account.pubkey, slot, "solana:a", NOW)
        else:
            told = reader.read(account, "solana:a", NOW)
        assert not [one for one in told if isinstance(one, Status) and one.condition is Condition.INVALID]
        # Several feeds of one account may tell of a change each; those that watch take all of them at the first.
        moved, now = reader.drain_moved(), reader.accounts()
        assert known ^ now <= moved <= known | now
        assert (Rewatch() in told) is bool(moved)
        by_address = dict(reader._by_address)
        reader._index()
        assert reader._by_address == by_address and reader.accounts() == now
        assert reader.drain_moved() == set()
        known, rewatched = now, rewatched + bool(moved)
    assert rewatched > 2


class Accounts(frozenset[str]):
    """Counts how often all of them are gone through."""

    gone_through = 0

    def __iter__(self) -> Any:
        Accounts.gone_through += 1
        return super().__iter__()


def test_a_link_looks_at_what_moved_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = reader_of(50)
    link, other = (SolanaRpc(name, "http://x.example", "ws://x.example", [reader]) for name in ("a", "b"))
    for one in (link, other):
        one.connect(NOW)
    reader.read(custody(3, 1_003, 5), "solana:a", NOW)
    reader.read(custody(4, 1_004, 5), "solana:a", NOW)
    moved, everything = reader.drain_moved(), Accounts(reader.accounts())
    monkeypatch.setattr(reader, "accounts", lambda: everything)
    Accounts.gone_through = 0
    effects = link.reconcile(NOW, moved)
    assert Accounts.gone_through == 0
    assert effects == other.reconcile(NOW)  # the very same requests, under the same numbers
    assert Accounts.gone_through == 1
    assert list(link._watches) == list(other._watches) and len(link._watches) == 52
    assert link.reconcile(NOW, set()) == []
    deadline_us, exact_us = link.next_deadline(), other.next_deadline()
    assert deadline_us is not None and exact_us is not None and deadline_us <= exact_us


def test_what_is_left_is_left_in_the_order_in_which_it_came(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = reader_of(9)
    links = [SolanaRpc(name, "http://x.example", "ws://x.example", [reader]) for name in ("a", "b")]
    for link in links:
        link.connect(NOW)
    left = {address(number) for number in (2, 5, 7)}
    monkeypatch.setattr(reader, "accounts", lambda: frozenset(map(address, range(9))) - left)
    for link in links:
        for number, pubkey in enumerate(sorted(link._watches, reverse=True)):
            link._watches[pubkey].subscription = number
            link._by_subscription[number] = link._watches[pubkey]
    assert links[0].reconcile(NOW, left) == links[1].reconcile(NOW) != []


def test_a_link_that_watches_nothing_yet_takes_all() -> None:
    reader = reader_of(4)
    link = SolanaRpc("a", "http://x.example", "ws://x.example", [reader])
    assert len(link.reconcile(NOW, {address(1)})) == 5
