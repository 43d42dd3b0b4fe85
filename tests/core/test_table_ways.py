"""One cell, several ways: the newest wins whatever way it came, and configuration says what a signature counts for."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oracle_hub.core.catalog import Catalog, FeedSpec, Proof
from oracle_hub.core.source import Condition, PriceUpdate, Status
from oracle_hub.core.table import Applied, InputStatus, Table
from oracle_hub.core.ways import WaySpec, unread

T = 1_790_000_000_000_000
S = 1_000_000
SPEC = FeedSpec(
    feed="SOL/USD",
    primary="doves",
    verifiers=("chainlink", "pyth"),
    max_age_us=dict.fromkeys(("doves", "chainlink", "pyth"), 5 * S),
)
STREAM, ACCOUNT = "streams:1", "solana/doves:a"


def table(proof: Proof) -> Table:
    return Table(Catalog([SPEC], proof={"chainlink": proof}))


def told(second: int, *, by: str = STREAM, verified: bool = True, mantissa: int | None = None) -> PriceUpdate:
    """An observation of a market that moves by one each second, received in the order of its telling."""
    price = 1_000 + second if mantissa is None else mantissa
    return PriceUpdate("chainlink", by, "SOL/USD", price, T + second * S, T + second * S, verified=verified)


def signed(second: int, mantissa: int | None = None) -> PriceUpdate:
    return told(second, mantissa=mantissa)


def bare(second: int, mantissa: int | None = None) -> PriceUpdate:
    return told(second, by=ACCOUNT, verified=False, mantissa=mantissa)


def held(of: Table) -> PriceUpdate | None:
    cell = of.cell_of("chainlink", "SOL/USD")
    assert cell is not None
    return of.held(cell)


def status(of: Table, now_us: int, *, warming: bool = False) -> InputStatus:
    cell = of.cell_of("chainlink", "SOL/USD")
    assert cell is not None
    return of.status(cell, SPEC, now_us, warming=warming)


@dataclass(frozen=True)
class Telling:
    second: int
    way: int
    """Two that prove, two that do not."""

    def update(self) -> PriceUpdate:
        by = ("streams:1", "streams:2", "solana/doves:a", "solana/doves:b")[self.way]
        return told(self.second, by=by, verified=self.way < 2)


TELLINGS = st.lists(st.builds(Telling, st.integers(0, 30), st.integers(0, 3)), max_size=40)


def fill(proof: Proof, tellings: list[Telling]) -> Table:
    of = table(proof)
    for telling in tellings:
        of.apply(telling.update(), T + 60 * S)
    return of


@given(TELLINGS, st.randoms(use_true_random=False), st.sampled_from([Proof.DEMANDED, Proof.EQUIVALENT]))
def test_the_newest_admissible_update_is_held_in_whatever_order_they_come(
    tellings: list[Telling], random: object, proof: Proof
) -> None:
    admissible = [one.second for one in tellings if proof is Proof.EQUIVALENT or one.way < 2]
    shuffled = list(tellings)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    for order in (tellings, shuffled, sorted(tellings, key=lambda one: one.way)):
        got = held(fill(proof, order))
        assert (None if got is None else got.publish_us) == (T + max(admissible) * S if admissible else None)
        if got is not None:
            proved = any(one.way < 2 and one.second == max(admissible) for one in tellings)
            assert got.verified is proved


@given(TELLINGS)
def test_a_verified_update_is_never_replaced_by_one_that_is_not(tellings: list[Telling]) -> None:
    """The default, of a source that takes what is not proved as long as it has nothing better."""
    of, newest, proved = table(Proof.PREFERRED), -1, False
    for telling in tellings:
        of.apply(telling.update(), T + 60 * S)
        got = held(of)
        assert got is not None and got.publish_us >= newest  # nothing goes back in time
        assert got.verified or not proved
        newest, proved = got.publish_us, got.verified
    verified = [one.second for one in tellings if one.way < 2]
    if verified and proved:
        assert newest == T + max(verified) * S


@given(TELLINGS, st.sampled_from(Proof), st.integers(0, 40))
def test_the_columns_see_what_one_cell_is_seen_as(tellings: list[Telling], proof: Proof, second: int) -> None:
    of = fill(proof, tellings)
    cells = np.array([[of.cell_of(source, "SOL/USD")] for source in SPEC.roles], np.int64)
    columns = of.input_columns(cells, np.zeros(1, np.int64))
    cell = of.cell_of("chainlink", "SOL/USD")
    assert cell is not None
    low, high, mantissa, _ = of.input(cell, SPEC)
    now_us = T + second * S
    seen = columns.usable_from_us[1, 0] <= now_us <= columns.usable_until_us[1, 0]
    assert bool(seen) is (low <= now_us <= high)
    if seen:
        assert columns.mantissa[1, 0] == mantissa


def test_where_proof_is_demanded_a_bare_update_is_not_even_the_first() -> None:
    of = table(Proof.DEMANDED)
    assert of.apply(bare(1), T) is Applied.UNVERIFIED
    assert held(of) is None
    assert status(of, T, warming=True) is InputStatus.WARMING  # the way that counts may still speak
    assert status(of, T) is InputStatus.UNVERIFIED
    assert of.apply(signed(0), T) is Applied.TAKEN  # though the bare one is newer
    assert status(of, T) is InputStatus.OK


def test_a_dead_verified_way_leaves_the_source_stale_however_new_the_bare_one_is() -> None:
    of = table(Proof.DEMANDED)
    of.apply(signed(0), T)
    for second in range(1, 20):
        assert of.apply(bare(second), T + second * S) is Applied.UNVERIFIED
    got = held(of)
    assert got is not None and got.publish_us == T
    assert status(of, T + 5 * S) is InputStatus.OK
    assert status(of, T + 5 * S + 1) is InputStatus.STALE


def test_where_both_count_alike_the_bare_one_goes_on() -> None:
    of = table(Proof.EQUIVALENT)
    of.apply(signed(0), T)
    assert of.apply(bare(1), T + S) is Applied.TAKEN
    assert of.apply(signed(2), T + 2 * S) is Applied.TAKEN
    assert of.apply(bare(2, 7), T + 2 * S) is Applied.CONFLICT


@pytest.mark.parametrize("proof", [Proof.DEMANDED, Proof.PREFERRED])
def test_what_could_not_be_taken_spoils_nothing(proof: Proof) -> None:
    of = table(proof)
    of.apply(signed(0), T)
    assert of.apply(bare(3_600), T) is Applied.FUTURE
    assert status(of, T) is InputStatus.OK
    assert of.apply(replace_time(signed(0), 3_600), T) is Applied.FUTURE
    assert status(of, T) is InputStatus.FUTURE
    of.apply(bare(1), T)
    assert status(of, T) is InputStatus.FUTURE  # and ends nothing
    of.apply(signed(1), T)
    assert status(of, T) is InputStatus.OK


def replace_time(update: PriceUpdate, seconds: int) -> PriceUpdate:
    return PriceUpdate(
        update.source, update.transport, update.feed, update.mantissa, T + seconds * S, T, verified=update.verified
    )


def test_an_account_that_halts_is_the_loss_of_a_way_and_not_of_what_the_stream_brought() -> None:
    of = table(Proof.DEMANDED)
    halted = Status("chainlink", ACCOUNT, "SOL/USD", Condition.HALTED, "as told", T)
    of.apply(signed(0), T)
    assert of.mark(halted) is False
    assert status(of, T) is InputStatus.OK
    assert of.mark(Status("chainlink", "streams:2", "SOL/USD", Condition.INVALID, "as told", T)) is True
    assert status(of, T) is InputStatus.INVALID


def test_what_counts_again_on_one_way_ends_no_word_against_another() -> None:
    of = table(Proof.EQUIVALENT)
    of.apply(bare(0), T)
    assert of.mark(Status("chainlink", ACCOUNT, "SOL/USD", Condition.INVALID, "as told", T)) is True
    assert of.mark(Status("chainlink", "evm:1", "SOL/USD", Condition.RESUMED, "the sequencer is up", T)) is False
    assert status(of, T) is InputStatus.INVALID
    assert of.mark(Status("chainlink", ACCOUNT, "SOL/USD", Condition.RESUMED, "as told", T)) is True
    assert status(of, T) is InputStatus.OK


def test_slots_of_two_ways_do_not_compare() -> None:
    of = table(Proof.EQUIVALENT)
    first = PriceUpdate("chainlink", "solana:a", "SOL/USD", 100, T, T, slot=7)
    assert of.apply(first, T) is Applied.TAKEN
    assert of.apply(PriceUpdate("chainlink", ACCOUNT, "SOL/USD", 101, T, T, slot=9), T) is Applied.CONFLICT
    assert of.apply(PriceUpdate("chainlink", "solana:b", "SOL/USD", 102, T, T, slot=9), T) is Applied.TAKEN


def test_a_reload_that_no_longer_verifies_goes_on_with_what_comes_then() -> None:
    before, after = table(Proof.PREFERRED), table(Proof.EQUIVALENT)
    before.apply(signed(0), T)
    after.carry_over(before)
    assert after.apply(bare(1), T + S) is Applied.TAKEN


def way(transport: str, name: str, *, kind: str = "chainlink.store", proves: bool = False) -> WaySpec:
    return WaySpec(
        source="chainlink",
        transport=transport,
        link=transport,
        way=name,
        kind=kind,
        proves=proves,
        feeds=("SOL/USD",),
        max_age_us=S,
    )


SIGNED, BARE = way(STREAM, "chainlink.streams"), way(ACCOUNT, "chainlink")


@pytest.mark.parametrize(
    ("by", "after", "moved", "found"),
    [
        (BARE, [SIGNED, BARE], {}, False),
        (BARE, [SIGNED, BARE], {"chainlink": ["SOL/USD"]}, True),
        (BARE, [SIGNED, BARE], {"chainlink": ["BTC/USD"], "chainlink.streams": ["SOL/USD"]}, False),
        (SIGNED, [SIGNED, BARE], {"chainlink": ["SOL/USD"]}, False),
        (BARE, [way("solana/doves:b", "chainlink")], {"chainlink": ["SOL/USD"]}, True),
        (BARE, [SIGNED], {"chainlink": ["SOL/USD"]}, False),
        (BARE, [way(ACCOUNT, "chainlink", kind="redstone")], {"chainlink": ["SOL/USD"]}, False),
        (BARE, [way(ACCOUNT, "chainlink", proves=True)], {}, True),
        (SIGNED, [way(STREAM, "chainlink.streams", proves=True)], {}, False),  # what is held is proved
    ],
)
def test_what_would_not_be_read_today(
    by: WaySpec, after: list[WaySpec], moved: dict[str, list[str]], found: bool
) -> None:
    of = table(Proof.PREFERRED)
    assert unread(of, [SIGNED, BARE], after, {"chainlink": ["SOL/USD"]}) == set()  # nothing is held
    of.apply(told(0, by=by.transport, verified=by is SIGNED), T)
    assert unread(of, [SIGNED, BARE], after, moved) == ({("chainlink", "SOL/USD")} if found else set())
