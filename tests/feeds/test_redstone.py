"""RedStone's price accounts: the three traps of their layout, and their reader."""

from typing import Any

import msgspec
import pytest

from feeds.addresses import ASSETS
from feeds.emulator.accounts import Held, encode_price
from feeds.layout import pad32
from feeds.redstone import PROGRAM, PriceData, PriceDataReader, symbol_of
from feeds.registry import DECODERS
from oracle_hub.core.source import Account, Condition, Malformed, PriceUpdate, Status
from oracle_hub.errors import DecodeError

SOL = ASSETS["SOL/USD"]
NOW = 1_790_000_001_000_000
T_MS = 1_790_000_000_123
ONE = PriceData(pad32("SOL"), 11_500_840_348, T_MS, T_MS + 900, 448_000_000, 8)
GOLDEN = (
    "e871c1e785d1ce9a"
    + b"SOL".hex().ljust(64, "0")
    + "2ad80e59c".rjust(64, "0")
    + "7b6c50c4a0010000"
    + "01"
    + "ff6f50c4a0010000"
    + "00f0b31a00000000"
    + "08"
    + "00" * 64
)
"""Put together by hand: value big-endian, times in milliseconds and little-endian."""


def read(data: bytes, owner: str = PROGRAM, feed: str = "SOL/USD", expo: int = -8) -> Any:
    reader = PriceDataReader("redstone", {feed: SOL.redstone}, {feed: expo})
    (event,) = reader.read(Account(SOL.redstone, owner, 7, data), "solana:a", NOW)
    return event


def test_the_layout() -> None:
    assert ONE.encode().hex() == GOLDEN and len(GOLDEN) == 2 * 162
    assert PriceData.decode(bytes.fromhex(GOLDEN)) == ONE


def test_an_optional_time_moves_what_follows() -> None:
    unwritten = msgspec.structs.replace(ONE, write_timestamp=None)
    assert len(unwritten.encode()) == 154
    assert PriceData.decode(unwritten.encode()) == unwritten
    padded = unwritten.encode() + bytes(8)  # the account is allocated for the longer form
    assert PriceData.decode(padded) == unwritten


@pytest.mark.parametrize("written", [None, T_MS])
def test_accounts_of_the_older_program_have_eight_decimals(written: int | None) -> None:
    older = PriceData(pad32("BTC"), 5, T_MS, written)
    assert len(older.encode()) == (81 if written is None else 89)
    decoded = PriceData.decode(older.encode())
    assert decoded == older and decoded.expo == -8 and decoded.write_slot is None


def test_decimals_count_wherever_they_are_there() -> None:
    six = msgspec.structs.replace(ONE, decimals=6)
    assert PriceData.decode(six.encode()[:98]) == six  # without a byte of what is reserved
    cut = PriceData.decode(six.encode()[:97])
    assert (cut.write_slot, cut.decimals, cut.expo) == (None, None, -8)


def test_padding_behind_the_older_form_is_no_exponent_of_zero() -> None:
    older = PriceData(pad32("BTC"), 5, T_MS, T_MS)
    assert PriceData.decode(older.encode() + bytes(73)) == older


def test_decode_gives_the_common_keys_and_every_field() -> None:
    answer = DECODERS["redstone.price"](ONE.encode(), PROGRAM)
    assert answer == {
        "kind": "redstone.price",
        "price": "11500840348",
        "expo": -8,
        "publish_time_us": T_MS * 1_000,
        "feed_id": "SOL",
        "slot": 448_000_000,
        "value": 11_500_840_348,
        "timestamp": T_MS,
        "write_timestamp": T_MS + 900,
        "write_slot": 448_000_000,
        "decimals": 8,
    }
    large = msgspec.structs.replace(ONE, value=2**256 - 1)
    assert DECODERS["redstone.price"](large.encode(), None)["price"] == str(2**256 - 1)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (bytes(162), "offset 0: expected discriminator e871c1e785d1ce9a, found 0000000000000000"),
        (ONE.encode()[:80], "offset 80: expected at least 81 bytes, found 80"),
        (ONE.encode()[:88], "offset 88: expected at least 89 bytes, found 88"),
        (ONE.encode()[:80] + b"\2" + ONE.encode()[81:], "offset 80: expected 0 or 1"),
        (msgspec.structs.replace(ONE, value=0).encode(), "offset 40: value is 0"),
        (msgspec.structs.replace(ONE, timestamp=0).encode(), "offset 72: timestamp is 0"),
        (msgspec.structs.replace(ONE, timestamp=2**63).encode(), "offset 72: expected unix milliseconds"),
    ],
)
def test_refused_bytes(data: bytes, words: str) -> None:
    with pytest.raises(DecodeError, match=f"^redstone.price: {words}"):
        DECODERS["redstone.price"](data, None)


def test_the_reader_takes_milliseconds_and_the_packages_time() -> None:
    event = read(ONE.encode())
    assert isinstance(event, PriceUpdate)
    assert (event.mantissa, event.publish_us, event.conf) == (11_500_840_348, T_MS * 1_000, None)
    assert (event.slot, event.account, event.verified) == (7, SOL.redstone, False)


def test_decimals_of_the_account_count() -> None:
    data = msgspec.structs.replace(ONE, value=115_008_403_485 * 10**9, decimals=18).encode()
    assert read(data).mantissa == 11_500_840_348  # half to even
    assert read(data, expo=-10).mantissa == 1_150_084_034_850


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"feed_id": pad32("BTC")}, "holds RedStone's BTC, not SOL of SOL/USD"),
        ({"value": 0}, "is not positive"),
        ({"value": 2**63}, "does not fit int64"),
        ({"timestamp": 0}, "never updated"),
        ({"timestamp": 2**63}, "is no unix time in milliseconds"),
        ({"decimals": 255}, "too far"),
    ],
)
def test_what_is_no_price_is_invalid(changes: dict[str, Any], words: str) -> None:
    event = read(msgspec.structs.replace(ONE, **changes).encode())
    assert isinstance(event, Status) and event.condition is Condition.INVALID
    assert words in event.text


def test_a_foreign_owner_and_foreign_bytes_are_malformed() -> None:
    for event in (read(ONE.encode(), owner="1" * 32), read(bytes(162))):
        assert isinstance(event, Malformed)


def test_addresses_follow_from_the_symbol() -> None:
    accounts = {feed: asset.redstone for feed, asset in ASSETS.items()}
    reader = PriceDataReader("redstone", accounts)
    assert all(reader.describe(feed)["matches_derived"] is True for feed in ASSETS)
    other = PriceDataReader("redstone", {"SOL/EUR": SOL.redstone})
    assert other.describe("SOL/EUR")["derived"] == []
    assert (symbol_of("ETH/USD"), symbol_of("ETH/BTC"), symbol_of("SOL")) == ("ETH", None, None)


def test_the_emulator_writes_what_the_reader_reads() -> None:
    held = Held(5_000, 1, T_MS * 1_000, 0, T_MS * 1_000 + 900_000, 9, 9, 1, 1, 1)
    event = read(encode_price(SOL.redstone, held))
    assert (event.mantissa, event.publish_us) == (5_000, T_MS * 1_000)
