"""Feeds that are no known assets: where a configuration reads them, with a path, a pace and faults of their own."""

from base64 import b64decode
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import orjson
import pytest

from feeds.addresses import ASSETS, CHAINLINK_STORE, DOVES
from feeds.emulator.accounts import EXPO
from feeds.emulator.catalogue import Catalogue, ReadAt, made_asset, made_id
from feeds.emulator.emulator import Emulator, EmulatorSettings
from feeds.emulator.faults import Fault
from feeds.emulator.oracles import AGGREGATE, EDGE, HERMES, LAZER, ORACLES, STORE
from feeds.emulator.pyth_signing import simulated_signer
from feeds.emulator.world import Change
from feeds.evm_addresses import PROXIES
from feeds.pyth.accumulator import Accumulator, check
from feeds.registry import DECODERS
from oracle_hub.errors import ConfigError
from tests.emulator.conftest import START_US, MakeStage, Stage
from tests.emulator.test_emulator_servers import call, hermes_url, rpc_urls, subscribe

FEEDS = ("WIF/USD", "EUR/JPY")
KINDS = (
    *("doves.custody", "doves.aggregate", "doves.edge", "doves.lazer", "doves.chainlink", "chainlink.store"),
    *("pyth.receiver", "pyth.legacy", "pyth.hermes", "pyth.pro", "edge.rest", "chainlink.streams", "redstone"),
)
CHAIN = 42_161


def read(feed: str, kind: str, at: str | None = None, chain_id: int | None = None) -> ReadAt:
    found = made_id(kind, feed) if at is None else at
    assert found is not None
    return ReadAt(feed=feed, kind=kind, at=found, key=f"feeds.{feed}.accounts.x", chain_id=chain_id)


def settings(*places: ReadAt, **others: Any) -> EmulatorSettings:
    feeds = tuple(dict.fromkeys(("SOL/USD", *(one.feed for one in places))))
    return EmulatorSettings(feeds=feeds, read=places, **others)


def many(count: int, **others: Any) -> EmulatorSettings:
    kinds = ("doves.lazer", "chainlink.store", "pyth.hermes")
    return settings(*(read(f"F{number:04}/USD", kind) for number in range(count) for kind in kinds), **others)


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
async def all_kinds(make_stage: MakeStage) -> Stage:
    """Two feeds, each read in every way."""
    evm = [read(feed, "chainlink.evm", chain_id=CHAIN) for feed in FEEDS]
    return await make_stage(settings(*(read(feed, kind) for feed in FEEDS for kind in KINDS), *evm))


def mantissa(stage: Stage, feed: str, oracle: str) -> int:
    state = stage.world.held(feed, oracle)
    assert state is not None
    return state.mantissa


# Over sockets.


@pytest.mark.parametrize("feed", FEEDS)
async def test_every_account_is_told_in_its_layout(all_kinds: Stage, http: aiohttp.ClientSession, feed: str) -> None:
    asset = made_asset(feed)
    places = {
        "doves.price_feed": (asset.lazer, LAZER, DOVES),
        "chainlink.transmissions": (asset.chainlink_store, STORE, CHAINLINK_STORE),
        "doves.ag_price_feed": (asset.ag, AGGREGATE, DOVES),
    }
    url, _ = rpc_urls(all_kinds)
    answer = await call(http, url, "getMultipleAccounts", [at for at, _, _ in places.values()])
    for value, (kind, (_, oracle, owner)) in zip(answer["value"], places.items(), strict=True):
        decoded = DECODERS[kind](b64decode(value["data"][0]), value["owner"])
        assert (decoded["price"], value["owner"]) == (str(mantissa(all_kinds, feed, oracle)), owner)


async def test_a_subscription_hears_of_a_further_feed_alone(all_kinds: Stage, http: aiohttp.ClientSession) -> None:
    _, ws = rpc_urls(all_kinds)
    async with http.ws_connect(ws) as socket:
        number = await subscribe(socket, made_asset("WIF/USD").lazer)
        all_kinds.advance(3)
        told = await socket.receive_json()
    assert told["params"]["subscription"] == number


async def test_hermes_tells_and_proves_them(all_kinds: Stage, http: aiohttp.ClientSession) -> None:
    ids = {made_asset(feed).hermes_id: feed for feed in FEEDS}
    query = "&".join(f"ids[]={one}" for one in ids)
    async with http.get(f"{hermes_url(all_kinds)}/v2/updates/price/latest?{query}&encoding=hex") as response:
        body = await response.json()
    assert {ids[one["id"]]: one["price"]["price"] for one in body["parsed"]} == {
        feed: str(mantissa(all_kinds, feed, HERMES)) for feed in FEEDS
    }
    for blob in body["binary"]["data"]:
        assert check(Accumulator.decode(bytes.fromhex(blob)), simulated_signer().sets).verified
    async with http.get(f"{hermes_url(all_kinds)}/v2/price_feeds?query=wif") as response:
        listed = await response.json()
    assert [(one["id"], one["attributes"]["symbol"]) for one in listed] == [
        (made_asset("WIF/USD").hermes_id, "Crypto.WIF/USD")
    ]


async def test_edge_answers_by_the_configured_id(make_stage: MakeStage, http: aiohttp.ClientSession) -> None:
    stage = await make_stage(settings(read("WIF/USD", "edge.rest", "wifusd2")))
    assert stage.emulator.urls is not None
    async with http.get(f"{stage.emulator.urls.edge[0].url}/prices?feedIds=WIFUSD2,SOLUSD") as response:
        body = (await response.read()).decode()
    assert str(mantissa(stage, "WIF/USD", EDGE)) in body and str(mantissa(stage, "SOL/USD", EDGE)) in body


async def test_an_evm_node_has_their_proxies_on_their_chain(all_kinds: Stage) -> None:
    for feed in FEEDS:
        proxy = made_id("chainlink.evm", feed)
        assert proxy is not None
        assert proxy.lower() in all_kinds.emulator.evm[0].nodes[CHAIN].feeds
        assert proxy.lower() not in all_kinds.emulator.evm[0].nodes[1].feeds


# What is played.


def test_an_unread_oracle_of_a_further_feed_is_not_played() -> None:
    catalogue = Catalogue(("WIF/USD",), (read("WIF/USD", "doves.aggregate"), read("WIF/USD", "pyth.hermes")))
    assert catalogue.oracles["WIF/USD"] == (AGGREGATE, HERMES)
    assert catalogue.oracles["SOL/USD"] == ORACLES
    assert made_asset("WIF/USD").lazer not in catalogue.places


def test_what_is_made_follows_from_the_name() -> None:
    assert made_asset("WIF/USD") == made_asset("WIF/USD")
    others = made_asset("WIG/USD")
    assert not {made_asset("WIF/USD").lazer, made_asset("WIF/USD").hermes_id} & {others.lazer, others.hermes_id}
    assert made_id("doves.pool", "WIF/USD") is None
    assert all(made_id("chainlink.evm", "WIF/USD") != at for feeds in PROXIES.values() for at in feeds.values())


async def test_the_known_assets_are_as_they_were(make_stage: MakeStage) -> None:
    alone = await make_stage(EmulatorSettings(seed=3))
    beside = await make_stage(many(40, seed=3))
    for stage in (alone, beside):
        stage.advance(20)
    for oracle in ORACLES:
        assert alone.world.held("SOL/USD", oracle) == beside.world.held("SOL/USD", oracle)


async def test_the_same_seed_plays_the_same(make_stage: MakeStage) -> None:
    stages = [await make_stage(many(5, seed=seed)) for seed in (3, 3, 4)]
    for stage in stages:
        stage.advance(30)
    first, second, other = ([stage.world.held(f"F000{n}/USD", LAZER) for n in range(5)] for stage in stages)
    assert first == second != other


async def test_a_start_price_is_taken_from_the_configuration(make_stage: MakeStage) -> None:
    places = [read("WIF/USD", kind) for kind in ("doves.lazer", "pyth.hermes", "chainlink.store")]
    stage = await make_stage(settings(*places, prices={"WIF/USD": "0.4321", "SOL/USD": "200"}, noise_bps=0))
    assert mantissa(stage, "WIF/USD", LAZER) == 43_210_000
    assert mantissa(stage, "SOL/USD", LAZER) == 200_00000000


async def test_oracles_of_a_further_feed_agree(make_stage: MakeStage) -> None:
    stage = await make_stage(many(20))
    stage.advance(120)
    for number in range(20):
        prices = [mantissa(stage, f"F{number:04}/USD", oracle) for oracle in (LAZER, STORE, HERMES)]
        assert (max(prices) - min(prices)) * 10_000 <= 50 * min(prices), prices
        assert min(prices) > 10 ** (-EXPO - 1)


async def test_thousands_share_the_updates(make_stage: MakeStage) -> None:
    stage = await make_stage(many(1_000, updates_per_s=600))
    assert stage.emulator.every_us == 5_000_000
    told: Counter[int] = Counter()
    for second in range(20):
        stage.now_us += 1_000_000
        told[second] = sum(change.feed != "SOL/USD" for change in stage.world.advance(stage.now_us))
    assert all(400 <= count <= 900 for second, count in told.items() if second >= 5), told
    assert 9_500 <= sum(told.values()) <= 13_500


async def test_a_clock_that_was_held_up_tells_the_newest_only(make_stage: MakeStage) -> None:
    stage = await make_stage(many(50))
    known = len([change for change in stage.world.advance(stage.now_us) if change.feed == "SOL/USD"])
    assert known == 0
    heard: list[Change] = []
    stage.emulator.rpc[0].tell = heard.extend  # type: ignore[method-assign, assignment]
    stage.advance(10)
    counts = Counter((change.feed, change.oracle) for change in heard)
    assert {counts[f"F{number:04}/USD", LAZER] for number in range(50)} == {1}
    assert counts["SOL/USD", EDGE] > 5


# Faults.


async def test_faults_by_feed(make_stage: MakeStage) -> None:
    stage = await make_stage(many(3))
    stage.emulator.inject(Fault(kind="stall", source="doves", feed="F0001/USD"))
    stage.emulator.inject(Fault(kind="wipe", account=made_asset("F0002/USD").lazer))
    before = {number: stage.world.held(f"F000{number}/USD", LAZER) for number in range(3)}
    stage.advance(30)
    after = {number: stage.world.held(f"F000{number}/USD", LAZER) for number in range(3)}
    assert (after[0] == before[0], after[1] == before[1]) == (False, True)
    assert stage.world.account(made_asset("F0002/USD").lazer) is None
    stage.emulator.clear()
    assert stage.world.account(made_asset("F0002/USD").lazer) is not None
    with pytest.raises(ConfigError, match="no feed 'F0003/USD' is simulated"):
        stage.emulator.inject(Fault(kind="stall", feed="F0003/USD"))


async def test_the_custody_of_a_further_feed_moves_too(make_stage: MakeStage) -> None:
    stage = await make_stage(settings(read("WIF/USD", "doves.custody"), read("ABC/USD", "doves.lazer")))
    asset = made_asset("WIF/USD")
    told = stage.world.account(asset.custody)
    assert told is not None
    assert DECODERS["jupiter.custody"](told.data, told.owner)["dovesAgOracle"] == asset.ag
    stage.emulator.inject(Fault(kind="custody", mode="unset"))  # ABC/USD has none
    told = stage.world.account(asset.custody)
    assert told is not None
    assert DECODERS["jupiter.custody"](told.data, told.owner)["dovesAgOracle"] is None


# Refusals.


@pytest.mark.parametrize(
    ("places", "line"),
    [
        ((read("WIF/USD", "doves.pool", "x"),), "feeds.WIF/USD.accounts.x: the emulator's pool has no WIF/USD"),
        (
            (read("WIF/USD", "chainlink.streams", "0008" + "ab" * 30),),
            "feeds.WIF/USD.accounts.x: the emulator signs reports of schema 3 only",
        ),
        (
            (read("WIF/USD", "doves.lazer", ASSETS["SOL/USD"].lazer),),
            f"WIF/USD: account {ASSETS['SOL/USD'].lazer} is that of doves.lazer of SOL/USD; give every feed its own",
        ),
        (
            (read("WIF/USD", "pyth.hermes"), read("ABC/USD", "pyth.hermes", made_asset("WIF/USD").hermes_id)),
            "ABC/USD: Pyth id .* is that of WIF/USD",
        ),
        (
            (read("WIF/USD", "pyth.hermes"), read("WIF/USD", "pyth.hermes", "ab" * 32)),
            "plays WIF/USD under another id for pyth.hermes already",
        ),
        ((read("WIF/USD", "edge.rest", "SOLUSD"),), "WIF/USD: Edge id SOLUSD is that of SOL/USD"),
        (
            (read("WIF/USD", "chainlink.evm", PROXIES[1]["ETH/USD"], 1),),
            "feeds.WIF/USD.accounts.x: the emulator plays ETH/USD there",
        ),
    ],
)
def test_what_cannot_be_played_is_named(places: tuple[ReadAt, ...], line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        Emulator(settings=settings(*places), now_us=lambda: START_US)


def test_a_feed_that_nothing_reads_is_unknown() -> None:
    with pytest.raises(ConfigError, match="unknown feed 'WIF/USD'; known: SOL/USD"):
        Emulator(settings=EmulatorSettings(feeds=("WIF/USD",)), now_us=lambda: START_US)


@pytest.mark.parametrize("text", ["", "x", "0", "-1", "nan", "inf", "1e30"])
def test_a_start_price_that_is_none(text: str) -> None:
    with pytest.raises(ConfigError, match=r"emulator\.prices\.SOL/USD: .* is no price"):
        Emulator(settings=EmulatorSettings(prices={"SOL/USD": text}), now_us=lambda: START_US)
    with pytest.raises(ConfigError, match=r"emulator\.prices: names WIF/USD, which is no feed"):
        Emulator(settings=EmulatorSettings(prices={"WIF/USD": "1"}), now_us=lambda: START_US)


def test_a_tape_plays_a_further_feed_of_the_configuration(tmp_path: Any) -> None:
    tape = tmp_path / "t.csv"
    tape.write_text("ts_ms,price\n1000,5.5\n2000,5.6\n")
    series = '[[series]]\nfeed = "WIF/USD"\nsources = ["doves.lazer"]\nprice = "price"\ntime = "ts_ms"\n'
    (tmp_path / "t.csv.toml").write_text(f'title = "one"\n{series}')
    played = Emulator(
        settings=settings(read("WIF/USD", "doves.lazer"), tape=str(tape), noise_bps=0), now_us=lambda: START_US
    )
    assert played.world.keys == (("WIF/USD", LAZER),)
    played.tick()
    state = played.world.held("WIF/USD", LAZER)
    assert state is not None and state.mantissa == 5_50000000
    with pytest.raises(ConfigError, match=r"unknown feed 'WIF/USD'; known: SOL/USD, .*, and the feeds of the config"):
        Emulator(settings=EmulatorSettings(tape=str(tape)), now_us=lambda: START_US)


def test_the_page_of_thousands_is_made_at_once() -> None:
    emulator = Emulator(settings=many(2_000), now_us=lambda: START_US)
    emulator.tick()
    assert len(orjson.dumps(emulator.world.ages_ms())) > 100_000
    said = emulator.describe()
    assert said["further_feeds_every_ms"] == 5_000
    names = said["feeds"]
    assert (
        isinstance(names, list) and names == emulator.feeds[:64] and said["feeds_omitted"] == len(emulator.feeds) - 64
    )
    assert len(orjson.dumps(said)) < 2_000
