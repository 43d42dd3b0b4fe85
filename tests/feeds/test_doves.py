"""Doves price accounts: layouts, and readers of one account per feed."""

import base64
from pathlib import Path

import msgspec
import orjson
import pytest

from feeds.addresses import ASSETS
from feeds.doves import PROGRAM, AgLegs, AgLimits, AgPriceFeed, AgPriceFeedReader, PriceFeed, PriceFeedReader
from feeds.layout import pad32, pubkey_bytes, pubkey_text
from oracle_hub.core.source import Account, Condition, Malformed, PriceUpdate, Status
from oracle_hub.errors import ConfigError, DecodeError

SOL = ASSETS["SOL/USD"]
BTC = ASSETS["BTC/USD"]
EDGE = PriceFeed(SOL.edge_pair, b"\x02" + bytes(32), 15_012_345_678, -8, 1_790_000_000, 254)
AG = AgPriceFeed(
    mint=pubkey_bytes(SOL.mint),
    edge_feed=pubkey_bytes(SOL.edge),
    cl_feed=pubkey_bytes(SOL.chainlink_doves),
    pyth_feed=pubkey_bytes(SOL.pyth_old_push),
    pyth_feed_id=bytes.fromhex(SOL.hermes_id),
    price=15_000_000_000,
    expo=-8,
    timestamp=1_790_000_000,
    bump=252,
    lazer_feed=pubkey_bytes(SOL.lazer),
    redstone_feed=pubkey_bytes(SOL.redstone),
)
NOW = 1_790_000_001_000_000


def account(pubkey: str, data: bytes, *, slot: int = 7, owner: str = PROGRAM) -> Account:
    return Account(pubkey, owner, slot, data)


def real(fixtures_dir: Path, name: str) -> tuple[bytes, dict[str, object]]:
    loaded = orjson.loads((fixtures_dir / name).read_bytes())
    return base64.b64decode(loaded["data_base64"]), loaded["expected"]


def test_the_price_feed_of_111_days_ago(fixtures_dir: Path) -> None:
    data, expected = real(fixtures_dir, "doves_pricefeed_sol_edge_2026-09-24.json")
    feed = PriceFeed.decode(data)
    assert feed.encode() == data
    assert feed.pair == pad32("SOLUSD")
    assert (feed.price, feed.expo, feed.timestamp, feed.bump) == (6_782_862_018, -8, 1_780_621_855, 254)
    fields = feed.fields()
    assert fields["signer"] == expected["signer_hex"]
    assert fields["pair"] == expected["pair"]


def test_the_aggregate_beside_it(fixtures_dir: Path) -> None:
    data, expected = real(fixtures_dir, "doves_agpricefeed_sol_2026-09-24.json")
    feed = AgPriceFeed.decode(data)
    assert feed.encode() == data
    fields = feed.fields()
    assert fields["price"] == expected["price_raw"]
    for name in ("mint", "edgeFeed", "clFeed", "pythFeed", "pythFeedId", "expo", "timestamp", "config", "bump"):
        assert fields[name] == expected[name], name
    assert fields["lazerFeed"] == SOL.lazer
    assert fields["redstoneFeed"] == SOL.redstone


def test_encoding_gives_the_live_size_and_comes_back() -> None:
    assert len(EDGE.encode()) == 283
    assert len(AG.encode()) == 394
    assert PriceFeed.decode(EDGE.encode()) == EDGE
    assert AgPriceFeed.decode(AG.encode()) == AG


def test_bytes_of_a_price_feed_lie_where_the_description_says() -> None:
    data = EDGE.encode()
    assert data[:8].hex() == "bd67fc179823f39c"
    assert data[8:14] == b"SOLUSD"
    assert int.from_bytes(data[73:81], "little") == 15_012_345_678
    assert int.from_bytes(data[81:82], "little", signed=True) == -8
    assert int.from_bytes(data[82:90], "little") == 1_790_000_000
    assert data[90] == 254
    assert not any(data[91:])


@pytest.mark.parametrize(
    ("size", "lazer", "redstone"), [(202, 0, 0), (233, 0, 0), (234, 1, 0), (265, 1, 0), (266, 1, 1)]
)
def test_the_undocumented_legs_are_optional(size: int, lazer: int, redstone: int) -> None:
    feed = AgPriceFeed.decode(AG.encode()[:size])
    assert (feed.lazer_feed is not None) == lazer
    assert (feed.redstone_feed is not None) == redstone
    assert feed.price == AG.price


def test_a_leg_of_zeros_is_not_configured() -> None:
    data = AG.encode()
    assert AgPriceFeed.decode(data[:202] + bytes(64) + data[266:]).lazer_feed is None


def test_errors_name_layout_offset_expected_and_found() -> None:
    with pytest.raises(DecodeError, match=r"^doves.ag_price_feed: offset 201: expected at least 202 bytes, found 201$"):
        AgPriceFeed.decode(AG.encode()[:201])
    with pytest.raises(DecodeError, match=r"^doves.price_feed: offset 0: expected discriminator bd67.*, found 70f9"):
        PriceFeed.decode(AG.encode())
    with pytest.raises(DecodeError, match="offset 90: expected at least 91 bytes, found 90"):
        PriceFeed.decode(EDGE.encode()[:90])
    with pytest.raises(DecodeError, match="expected at least 91 bytes, found 0"):
        PriceFeed.decode(b"")


def test_a_leg_becomes_an_update() -> None:
    reader = PriceFeedReader("edge", {"SOL/USD": SOL.edge})
    assert reader.accounts() == {SOL.edge}
    assert reader.read(account(SOL.edge, EDGE.encode()), "solana:a", NOW) == (
        PriceUpdate(
            "edge",
            "solana:a",
            "SOL/USD",
            15_012_345_678,
            1_790_000_000_000_000,
            NOW,
            conf=None,
            slot=7,
            account=SOL.edge,
        ),
    )


@pytest.mark.parametrize(
    ("price", "expo", "mantissa"), [(150, 0, 15_000_000_000), (150_000_000_005, -9, 15_000_000_000)]
)
def test_another_exponent_in_mid_stream_is_no_other_price(price: int, expo: int, mantissa: int) -> None:
    reader = PriceFeedReader("edge", {"SOL/USD": SOL.edge}, {"SOL/USD": -8})
    feed = PriceFeed(SOL.edge_pair, EDGE.signer, price, expo, 1_790_000_000)
    (event,) = reader.read(account(SOL.edge, feed.encode()), "solana:a", NOW)
    assert isinstance(event, PriceUpdate)
    assert event.mantissa == mantissa


@pytest.mark.parametrize(
    ("price", "timestamp", "words"),
    [
        (0, 1_790_000_000, "not positive"),
        (5, 0, "never updated"),
        (5, -3, "no unix time"),
        (5, 2**62, "no unix time"),
        (2**64 - 1, 1_790_000_000, "does not fit int64"),
    ],
)
def test_what_is_no_price_is_invalid(price: int, timestamp: int, words: str) -> None:
    reader = PriceFeedReader("edge", {"SOL/USD": SOL.edge})
    feed = PriceFeed(SOL.edge_pair, EDGE.signer, price, -8, timestamp)
    (event,) = reader.read(account(SOL.edge, feed.encode()), "solana:a", NOW)
    assert isinstance(event, Status)
    assert event.condition is Condition.INVALID
    assert event.feed == "SOL/USD"
    assert words in event.text


@pytest.mark.parametrize("address", [SOL.edge, SOL.lazer, SOL.chainlink_doves])
def test_a_leg_with_another_pair_than_its_address_derives_from_is_invalid(address: str) -> None:
    reader = PriceFeedReader("leg", {"SOL/USD": address})
    feed = PriceFeed(BTC.edge_pair, EDGE.signer, 5, -8, 1_790_000_000)
    (event,) = reader.read(account(address, feed.encode()), "solana:a", NOW)
    assert isinstance(event, Status)
    assert event.condition is Condition.INVALID
    assert "holds the pair BTCUSD" in event.text


def test_a_given_pair_is_demanded() -> None:
    address = pubkey_text(bytes([9]) * 32)
    reader = PriceFeedReader("leg", {"BONK/USD": address}, {"BONK/USD": -10}, {"BONK/USD": pad32("BONKUSD")})
    (event,) = reader.read(account(address, EDGE.encode()), "solana:a", NOW)
    assert isinstance(event, Status)
    assert "not BONKUSD" in event.text


def test_bytes_of_another_program_are_malformed() -> None:
    reader = PriceFeedReader("edge", {"SOL/USD": SOL.edge})
    (event,) = reader.read(account(SOL.edge, EDGE.encode(), owner="1" * 32), "solana:a", NOW)
    assert isinstance(event, Malformed)
    assert "owner: expected DoVEsk76" in event.reason
    (event,) = reader.read(account(SOL.edge, EDGE.encode()[:50]), "solana:a", NOW)
    assert isinstance(event, Malformed)
    assert event.reason.startswith(SOL.edge)


def test_a_stranger_is_nobodys_business_and_a_missing_account_is_said() -> None:
    reader = PriceFeedReader("edge", {"SOL/USD": SOL.edge})
    assert reader.read(account(BTC.edge, EDGE.encode()), "solana:a", NOW) == ()
    assert reader.missing(BTC.edge, 9, "solana:a", NOW) == ()
    (event,) = reader.missing(SOL.edge, 9, "solana:a", NOW)
    assert isinstance(event, Status)
    assert event.condition is Condition.MISSING_ACCOUNT
    assert "slot 9" in event.text


def test_two_feeds_can_not_share_an_account() -> None:
    with pytest.raises(ConfigError, match="SOL/USD and BTC/USD name the same account"):
        PriceFeedReader("edge", {"SOL/USD": SOL.edge, "BTC/USD": SOL.edge})


def test_the_aggregate_shows_its_limits_and_legs() -> None:
    reader = AgPriceFeedReader("aggregate", {"SOL/USD": SOL.ag})
    assert reader.limits_of("SOL/USD") is None and reader.legs_of("SOL/USD") is None
    (event,) = reader.read(account(SOL.ag, AG.encode()), "solana:a", NOW)
    assert isinstance(event, PriceUpdate)
    assert event.mantissa == 15_000_000_000
    assert reader.limits_of("SOL/USD") == AgLimits(10, 60, 50)
    assert reader.legs_of("SOL/USD") == AgLegs(
        SOL.edge, SOL.chainlink_doves, SOL.pyth_old_push, SOL.lazer, SOL.redstone
    )


def test_a_lagging_node_takes_no_limits_back() -> None:
    reader = AgPriceFeedReader("aggregate", {"SOL/USD": SOL.ag})
    reader.read(account(SOL.ag, AG.encode()), "solana:a", NOW)
    older = msgspec.structs.replace(AG, timestamp=1_789_999_999, max_ag_price_age_sec=99)
    reader.read(account(SOL.ag, older.encode()), "solana:b", NOW)
    assert reader.limits_of("SOL/USD") == AgLimits(10, 60, 50)


def test_a_time_that_can_not_be_pins_no_limits() -> None:
    reader = AgPriceFeedReader("aggregate", {"SOL/USD": SOL.ag})
    wrong = msgspec.structs.replace(AG, timestamp=2**40, max_price_diff_bps=10_000)
    (event,) = reader.read(account(SOL.ag, wrong.encode()), "solana:a", NOW)
    assert isinstance(event, PriceUpdate) and reader.limits_of("SOL/USD") is None  # the table calls it future
    reader.read(account(SOL.ag, AG.encode()), "solana:b", NOW)
    assert reader.limits_of("SOL/USD") == AgLimits(10, 60, 50)


def test_an_aggregate_of_another_token_is_invalid() -> None:
    reader = AgPriceFeedReader("aggregate", {"BTC/USD": BTC.ag})
    (event,) = reader.read(account(BTC.ag, AG.encode()), "solana:a", NOW)
    assert isinstance(event, Status)
    assert event.condition is Condition.INVALID
    assert reader.limits_of("BTC/USD") is None


def test_describe_compares_with_the_derived_address() -> None:
    assert AgPriceFeedReader("aggregate", {"SOL/USD": SOL.ag}).describe("SOL/USD")["matches_derived"] is True
    assert AgPriceFeedReader("aggregate", {"SOL/USD": BTC.ag}).describe("SOL/USD") == {
        "account": BTC.ag,
        "kind": "doves.ag_price_feed",
        "derived": [SOL.ag],
        "matches_derived": False,
    }
    assert PriceFeedReader("lazer", {"SOL/USD": SOL.lazer}).describe("SOL/USD")["matches_derived"] is True
    assert PriceFeedReader("lazer", {"SOL/USD": BTC.lazer}).describe("SOL/USD")["matches_derived"] is False
