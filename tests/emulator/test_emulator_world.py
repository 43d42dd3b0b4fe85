"""The world as a value: the same seed gives the same states, and each fault does what it says and no more."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from feeds.addresses import ASSETS, POOL
from feeds.doves import AgPriceFeed, PriceFeed
from feeds.emulator.catalogue import KNOWN, next_aggregate
from feeds.emulator.faults import Fault, FaultBook, load_script
from feeds.emulator.oracles import (
    AGGREGATE,
    CHAINLINK_LEG,
    EDGE,
    HERMES,
    LAZER,
    LEGACY,
    ORACLES,
    RECEIVER,
    STORE,
    select_oracles,
)
from feeds.emulator.walk import walk
from feeds.emulator.world import CLOSED, Change, World, slot_at
from feeds.jupiter import Custody, Pool
from feeds.layout import pubkey_text
from feeds.pyth.legacy import PriceAccount
from feeds.pyth.receiver import PriceUpdateV2
from oracle_hub.core.price import near
from oracle_hub.errors import ConfigError

START = 1_795_000_000_250_000
SECOND = 1_000_000
SOL = ASSETS["SOL/USD"]


def make_world(*faults: Fault, seed: int = 1, noise_bps: float | None = None) -> World:
    book = FaultBook(START)
    for fault in faults:
        book.add(fault, START)
    drivers = {(feed, oracle): walk(feed, oracle, seed, START, noise_bps) for feed in ASSETS for oracle in ORACLES}
    return World(START, drivers, book, derive_aggregate=True)


def mantissa(world: World, oracle: str, feed: str = "SOL/USD") -> int:
    held = world.held(feed, oracle)
    assert held is not None
    return held.mantissa


def publish_s(world: World, oracle: str, feed: str = "SOL/USD") -> int:
    held = world.held(feed, oracle)
    assert held is not None
    return held.publish_s


def of(changes: Sequence[Change], oracle: str, feed: str = "SOL/USD") -> list[Change]:
    return [change for change in changes if (change.oracle, change.feed) == (oracle, feed)]


def test_everything_stands_at_the_beginning() -> None:
    world = make_world()
    world.advance(START)
    absent = [address for address in KNOWN.places if world.account(address) is None]
    assert sorted(absent) == sorted(next_aggregate(feed) for feed in ASSETS)
    assert {key for key in world.keys if world.held(*key) is None} == set()
    assert all(-1 < age < 3_000 for ages in world.ages_ms().values() for age in ages.values())


def test_one_seed_one_world_however_it_is_stepped() -> None:
    whole, stepped, other = make_world(), make_world(), make_world(seed=2)
    for world in (whole, other):
        world.advance(START + 20 * SECOND)
    for quarter in range(1, 81):
        stepped.advance(START + quarter * SECOND // 4)
    states = [[world.held(*key) for key in world.keys] for world in (whole, stepped, other)]
    assert states[0] == states[1]
    assert states[0] != states[2]


def test_oracles_differ_by_basis_points_and_by_nothing_without_noise() -> None:
    noisy, exact = make_world(), make_world(noise_bps=0)
    for world in (noisy, exact):
        world.advance(START)
    assert len({mantissa(noisy, oracle) for oracle in (EDGE, LAZER, CHAINLINK_LEG, STORE, HERMES)}) > 1
    assert {mantissa(exact, oracle) for oracle in ORACLES} == {116_00000000}
    for _ in range(60):
        noisy.advance(noisy.now_us + SECOND)
        for feed in ASSETS:
            prices = [mantissa(noisy, oracle, feed) for oracle in (AGGREGATE, STORE, HERMES)]
            assert near(min(prices), max(prices), 50)


def test_cadences_and_strictly_growing_seconds() -> None:
    world = make_world()
    changes = world.advance(START + 60 * SECOND)
    assert 45 <= len(of(changes, EDGE)) <= 61
    assert 45 <= len(of(changes, AGGREGATE)) <= 61
    assert 140 <= len(of(changes, HERMES)) <= 155
    assert len(of(changes, RECEIVER)) == 4  # the first and one heartbeat, by two receivers
    for oracle in (EDGE, LAZER, CHAINLINK_LEG, AGGREGATE, STORE):
        seconds = [change.held.publish_s for change in of(changes, oracle) if change.held]
        assert seconds == sorted(set(seconds))
    slots = [change.held.price_slot for change in of(changes, HERMES) if change.held]
    assert slots == sorted(set(slots))
    assert all(change.held and change.held.publish_us <= change.at_us for change in changes)


def test_accounts_hold_what_the_oracle_holds() -> None:
    world = make_world()
    world.advance(START + 5 * SECOND)
    ag = world.account(SOL.ag)
    store = world.account(SOL.chainlink_store)
    new, old = world.account(SOL.pyth_new_push), world.account(SOL.pyth_old_push)
    legacy, edge, pool = world.account(SOL.pyth_legacy), world.account(SOL.edge), world.account(POOL)
    assert ag and store and new and old and legacy and edge and pool
    assert AgPriceFeed.decode(ag.data).price == mantissa(world, AGGREGATE)
    assert AgPriceFeed.decode(ag.data).timestamp == publish_s(world, AGGREGATE)
    assert PriceFeed.decode(edge.data).pair == SOL.edge_pair
    assert PriceUpdateV2.decode(new.data).price == PriceUpdateV2.decode(old.data).price == mantissa(world, RECEIVER)
    assert PriceUpdateV2.decode(new.data).write_authority != PriceUpdateV2.decode(old.data).write_authority
    assert PriceAccount.decode(legacy.data).agg.price == mantissa(world, LEGACY)
    assert [pubkey_text(key) for key in Pool.decode(pool.data).custodies] == [a.custody for a in ASSETS.values()]
    assert world.account("11111111111111111111111111111111") is None


def test_the_aggregate_follows_legs_that_confirm_each_other() -> None:
    world = make_world(Fault(kind="spike", source=EDGE, bps=400), noise_bps=0)
    world.advance(START + 10 * SECOND)
    assert mantissa(world, EDGE) > mantissa(world, LAZER) * 103 // 100
    assert near(mantissa(world, AGGREGATE), mantissa(world, LAZER), 5)
    alone = make_world(Fault(kind="kill", source=LAZER), Fault(kind="kill", source=CHAINLINK_LEG))
    alone.advance(START + 10 * SECOND)
    assert alone.held("SOL/USD", AGGREGATE) is None


@pytest.mark.parametrize("source", [None, "doves", AGGREGATE])
def test_an_aggregate_is_moved_once_though_its_leg_is_moved_too(source: str | None) -> None:
    plain, world = make_world(noise_bps=0), make_world(Fault(kind="spike", source=source, bps=140), noise_bps=0)
    for now in (plain, world):
        now.advance(START + 10 * SECOND)
    assert mantissa(world, AGGREGATE) == mantissa(plain, AGGREGATE) * 10_140 // 10_000


def test_stall_stops_one_source_of_one_feed_and_ends() -> None:
    world = make_world(Fault(kind="stall", source="chainlink", feed="SOL/USD", at_s=5, duration_s=10))
    world.advance(START + 14 * SECOND)
    assert publish_s(world, STORE) <= START // SECOND + 5
    assert publish_s(world, STORE, "BTC/USD") >= START // SECOND + 12
    assert publish_s(world, HERMES) >= START // SECOND + 12
    world.advance(START + 17 * SECOND)
    assert publish_s(world, STORE) >= START // SECOND + 15


def test_kill_lasts_until_cleared() -> None:
    world = make_world(Fault(kind="kill", source="doves"))
    world.advance(START + 600 * SECOND)
    assert [world.held("SOL/USD", oracle) for oracle in (EDGE, LAZER, AGGREGATE)] == [None] * 3
    assert world.faults.remove() == 1
    world.advance(START + 603 * SECOND)
    assert publish_s(world, AGGREGATE) >= START // SECOND + 601


def test_spike_multiplies_exactly_for_its_duration() -> None:
    plain = make_world(noise_bps=0)
    plain.advance(START + 3 * SECOND)
    expected = mantissa(plain, STORE)
    for fault, times in ((Fault(kind="spike", times="1.5"), (3, 2)), (Fault(kind="spike", bps=-250), (39, 40))):
        world = make_world(fault, noise_bps=0)
        world.advance(START + 3 * SECOND)
        assert mantissa(world, STORE) == expected * times[0] // times[1]
    brief = make_world(Fault(kind="spike", bps=5_000, duration_s=3), noise_bps=0)
    brief.advance(START + 8 * SECOND)
    plain.advance(START + 8 * SECOND)
    assert mantissa(brief, STORE) == mantissa(plain, STORE)


def test_a_carried_value_keeps_getting_new_times_and_a_wide_one_keeps_its_price() -> None:
    plain, world = make_world(), make_world(Fault(kind="carry", source=STORE, at_s=3), Fault(kind="wide", bps=250))
    plain.advance(START + 3 * SECOND - 1)
    carried = mantissa(plain, STORE)
    for now in (plain, world):
        now.advance(START + 12 * SECOND)
    assert mantissa(world, STORE) == carried != mantissa(plain, STORE)
    assert publish_s(world, STORE) == publish_s(plain, STORE)
    held = world.held("SOL/USD", HERMES)
    assert held is not None and held.mantissa == mantissa(plain, HERMES)
    assert held.conf == held.mantissa * 250 // 10_000


def test_one_future_stamp_and_then_honest_ones() -> None:
    world = make_world(Fault(kind="future", source=STORE, feed="SOL/USD", at_s=5, offset_s=7_200))
    changes = world.advance(START + 12 * SECOND)
    ahead = [change.held.publish_us - change.at_us for change in of(changes, STORE) if change.held]
    assert [lead for lead in ahead if lead > 0] == [7_200 * SECOND]
    assert ahead[-1] < 0
    other = [change.held.publish_us - change.at_us for change in of(changes, STORE, "BTC/USD") if change.held]
    assert max(other) < 0


@pytest.mark.parametrize("slots", [-2, 3])
def test_fork_tells_the_older_state_again(slots: int) -> None:
    world = make_world()
    before = world.advance(START + 10 * SECOND)
    told = [change for change in of(before, AGGREGATE) if change.held][-2]
    world.faults.add(Fault(kind="fork", source=AGGREGATE, feed="SOL/USD", slots=slots), world.now_us)
    held = world.held("SOL/USD", AGGREGATE)
    (fork,) = world.advance(world.now_us)
    assert fork.held == told.held
    assert (fork.address, fork.slot) == (SOL.ag, slot_at(world.now_us) + slots)
    assert world.held("SOL/USD", AGGREGATE) == held
    assert world.advance(world.now_us) == []


def test_custody_names_the_aggregate_or_not() -> None:
    world = make_world(Fault(kind="custody", feed="SOL/USD", mode="unset", at_s=2, duration_s=2))
    seen = []
    for second in (1, 3, 5):
        changes = world.advance(START + second * SECOND)
        account = world.account(SOL.custody)
        assert account
        seen.append((Custody.decode(account.data).doves_ag_oracle is None, [c.address for c in changes if not c.held]))
    assert seen == [(False, []), (True, [SOL.custody]), (False, [SOL.custody])]


def test_custody_without_the_field_and_with_another_aggregate() -> None:
    world = make_world(
        Fault(kind="custody", feed="SOL/USD", mode="short", at_s=2, duration_s=2),
        Fault(kind="custody", feed="SOL/USD", mode="next", at_s=6, duration_s=2),
    )
    second, named = next_aggregate("SOL/USD"), []
    assert world.account(second) is None
    for instant_s in (3, 5, 7, 9):
        world.advance(START + instant_s * SECOND)
        account = world.account(SOL.custody)
        assert account
        key = Custody.decode(account.data).doves_ag_oracle
        named.append((len(account.data), None if key is None else pubkey_text(key)))
    assert named == [(384, None), (2000, SOL.ag), (2000, second), (2000, SOL.ag)]
    account, first = world.account(second), world.account(SOL.ag)
    assert account and first and account.data == first.data  # it stays: whoever changed to it goes on reading it
    assert second in {change.address for change in world.advance(START + 12 * SECOND)}


def test_a_blank_account_exists_and_never_had_a_price() -> None:
    world = make_world(Fault(kind="wipe", mode="blank", account=SOL.ag, at_s=2, duration_s=2))
    world.advance(START + 3 * SECOND)
    account = world.account(SOL.ag)
    assert account
    blank = AgPriceFeed.decode(account.data)
    assert (blank.price, blank.timestamp, pubkey_text(blank.mint)) == (0, 0, SOL.mint)
    world.advance(START + 5 * SECOND)
    account = world.account(SOL.ag)
    assert account and AgPriceFeed.decode(account.data).price > 0


def test_a_frozen_account_stands_still_beside_its_oracle() -> None:
    world = make_world(
        Fault(kind="custody", feed="SOL/USD", mode="next"), Fault(kind="freeze", account=SOL.ag, at_s=2, duration_s=9)
    )
    second = next_aggregate("SOL/USD")
    stamps = []
    for instant_s in (3, 10, 12):
        changes = world.advance(START + instant_s * SECOND)
        first, other = world.account(SOL.ag), world.account(second)
        assert first and other
        stamps.append((AgPriceFeed.decode(first.data).timestamp, AgPriceFeed.decode(other.data).timestamp))
        if instant_s == 10:
            assert second in (told := {change.address for change in changes}) and SOL.ag not in told
    assert stamps[0][0] == stamps[1][0] < stamps[1][1] and stamps[2][0] == stamps[2][1]


def test_an_aggregate_publishes_the_limits_that_it_is_given() -> None:
    world = make_world(Fault(kind="limits", feed="SOL/USD", max_age_s=4, max_diff_bps=0, at_s=2, duration_s=2))
    seen = []
    for instant_s in (1, 3, 5):
        told = [change.address for change in world.advance(START + instant_s * SECOND) if change.held is None]
        account = world.account(SOL.ag)
        assert account
        one = AgPriceFeed.decode(account.data)
        seen.append((one.max_ag_price_age_sec, one.max_price_feed_age_sec, one.max_price_diff_bps, SOL.ag in told))
    assert seen == [(10, 60, 50, False), (4, 60, 0, True), (10, 60, 50, True)]


def test_the_shipped_drill_plays_the_migration() -> None:
    """What ``deploy/drills/migration.toml`` says of itself, at an instant within each of its steps."""
    world = make_world(*load_script(Path(__file__).parents[2] / "deploy" / "drills" / "migration.toml"))
    steps = []
    ages = {15: SOL.edge, 50: SOL.ag, 74: SOL.edge, 84: SOL.ag, 95: next_aggregate("SOL/USD")}
    for instant_s in (15, 25, 35, 50, 74, 84, 95):
        world.advance(START + instant_s * SECOND)
        custody, aggregate = world.account(SOL.custody), world.account(SOL.ag)
        assert custody
        named = Custody.decode(custody.data).doves_ag_oracle
        price = AgPriceFeed.decode(aggregate.data).price if aggregate else None
        steps.append((len(custody.data), named and pubkey_text(named), price and price > 0))
        if instant_s in ages:
            account = world.account(ages[instant_s])
            assert account
            layout = PriceFeed if ages[instant_s] == SOL.edge else AgPriceFeed
            ages[instant_s] = str(START // SECOND + instant_s - layout.decode(account.data).timestamp)
    second = next_aggregate("SOL/USD")
    assert steps == [
        (384, None, None),
        (2000, SOL.ag, None),
        (2000, SOL.ag, 0),
        (2000, SOL.ag, True),
        (2000, SOL.ag, True),
        (2000, SOL.ag, True),
        (2000, second, True),
    ]
    young = {instant_s: int(age) < 5 for instant_s, age in ages.items()}
    assert young == {15: True, 50: True, 74: False, 84: False, 95: True}


def test_wipe_removes_an_account_and_brings_it_back() -> None:
    world = make_world(Fault(kind="wipe", account=SOL.ag, at_s=2, duration_s=2))
    world.advance(START + SECOND)
    gone = [change for change in world.advance(START + 3 * SECOND) if change.held is None]
    assert [change.address for change in gone] == [SOL.ag]
    assert world.account(SOL.ag) is None
    assert world.told_account(gone[0]) == CLOSED
    world.advance(START + 5 * SECOND)
    assert world.account(SOL.ag) is not None
    assert world.account(SOL.edge) is not None


@pytest.mark.parametrize(
    "fault",
    [
        Fault(kind="stall", source="nobody"),
        Fault(kind="spike", times="many"),
        Fault(kind="spike", bps=-10_000),
        Fault(kind="custody", mode="sideways"),
    ],
)
def test_senseless_faults_are_refused(fault: Fault) -> None:
    with pytest.raises(ConfigError):
        FaultBook(START).add(fault, START)


def test_a_script_that_is_nested_without_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "faults.toml"
    path.write_text("fault = " + "[" * 5_000 + "]" * 5_000)
    with pytest.raises(ConfigError, match="not a script of faults: maximum recursion depth"):
        load_script(path)


def test_next_event_is_never_late() -> None:
    world = make_world(Fault(kind="custody", feed="SOL/USD", at_s=0.05))
    world.advance(START)
    assert world.next_event_us() == START + 50_000
    world.advance(START + 50_000)
    following = world.next_event_us()
    assert following is not None
    assert world.advance(following - 1) == []
    assert world.advance(following) != []


def test_groups_cover_every_oracle() -> None:
    assert select_oracles(None) == ORACLES
    assert {one for name in ("doves", "chainlink", "pyth", "redstone") for one in select_oracles(name)} == set(ORACLES)
