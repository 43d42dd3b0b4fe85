"""Legacy Pyth price accounts, of both sizes, compared with Pyth's own Python client."""

import base64
import importlib
import warnings
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest

from feeds.addresses import ASSETS, PYTH_LEGACY, PYTH_LEGACY_DEVNET
from feeds.layout import pubkey_bytes, pubkey_text
from feeds.pyth.legacy import PYTHNET_SIZE, SOLANA_SIZE, Component, PriceAccount, PriceInfo, PriceReader
from oracle_hub.core.source import Account, Condition, Malformed, PriceUpdate, Status
from oracle_hub.errors import DecodeError

SOL = ASSETS["SOL/USD"]
NOW = 1_790_000_001_000_000
ACCOUNT = PriceAccount(
    exponent=-8,
    timestamp=1_790_000_000,
    product=pubkey_bytes(SOL.custody),
    agg=PriceInfo(15_000_000_000, 7_000_000, pub_slot=450_000_000),
)
REAL = ["pyth_legacy_price_bch_usd_pythclient_test", "pyth_pythnet_price_aapl_usd_pythclient_test"]


def load(fixtures_dir: Path, name: str) -> tuple[bytes, dict[str, Any]]:
    loaded = orjson.loads((fixtures_dir / f"{name}.json").read_bytes())
    return base64.b64decode(loaded["data_base64"]), loaded["expected"]


def read(data: bytes, owner: str = PYTH_LEGACY) -> object:
    reader = PriceReader("pyth", {"SOL/USD": SOL.pyth_legacy})
    (event,) = reader.read(Account(SOL.pyth_legacy, owner, 3, data), "solana:a", NOW)
    return event


@pytest.mark.parametrize(("name", "size"), [(REAL[0], SOLANA_SIZE), (REAL[1], PYTHNET_SIZE)])
def test_real_accounts_of_both_sizes(fixtures_dir: Path, name: str, size: int) -> None:
    data, expected = load(fixtures_dir, name)
    account = PriceAccount.decode(data)
    assert len(data) == size
    assert account.encode() == data
    del expected["agg_price"]  # a float
    expected["prev_timestamp"] = account.fields()["prev_timestamp"]
    assert int(str(expected["prev_timestamp"])) == account.prev_timestamp
    fields = account.fields()
    assert {field: fields[field] for field in expected} == expected


def test_the_header_may_count_fewer_bytes_than_the_account_has(fixtures_dir: Path) -> None:
    data, _ = load(fixtures_dir, REAL[0])
    account = PriceAccount.decode(data)
    assert (account.size, len(data)) == (2832, 3312)
    assert PriceAccount.decode(data[:2832]).components == account.components
    with pytest.raises(DecodeError, match="expected at least 2832 bytes, found 2831"):
        PriceAccount.decode(data[:2831])


@pytest.mark.parametrize("name", REAL)
def test_pyths_own_client_reads_the_same(fixtures_dir: Path, name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        client = importlib.import_module("pythclient.pythaccounts")
        keys = importlib.import_module("pythclient.solana")
    data, _ = load(fixtures_dir, name)
    theirs = client.PythPriceAccount(keys.SolanaPublicKey("1" * 32), keys.SolanaClient.__new__(keys.SolanaClient))
    theirs.update_from(data[: int.from_bytes(data[12:16], "little")], version=2, offset=16)
    ours = PriceAccount.decode(data)
    info = theirs.aggregate_price_info
    assert (info.raw_price, info.raw_confidence_interval) == (ours.agg.price, ours.agg.conf)
    assert (info.price_status.value, info.pub_slot) == (ours.agg.status, ours.agg.pub_slot)
    assert (theirs.exponent, theirs.last_slot, theirs.valid_slot) == (ours.exponent, ours.last_slot, ours.valid_slot)
    assert (theirs.num_components, theirs.min_publishers) == (ours.num_components, ours.min_pub)
    assert theirs.timestamp == ours.timestamp
    assert theirs.product_account_key.key == pubkey_text(ours.product)
    listed = [
        (
            component.publisher_key.key,
            component.last_aggregate_price_info.raw_price,
            component.latest_price_info.pub_slot,
        )
        for component in theirs.price_components
    ]
    expected = [(pubkey_text(c.publisher), c.agg.price, c.latest.pub_slot) for c in ours.components]
    assert listed[: len(expected)] == expected


@pytest.mark.parametrize("tail", [3072, 12336])
def test_encoding_gives_the_live_sizes_and_comes_back(tail: int) -> None:
    account = msgspec.structs.replace(ACCOUNT, tail=bytes(tail))
    assert len(account.encode()) in (SOLANA_SIZE, PYTHNET_SIZE)
    assert PriceAccount.decode(account.encode()) == account


def test_components_are_counted_by_the_header() -> None:
    one = (
        bytes([7]) * 32
        + bytes.fromhex("05" + "00" * 7 + "02" + "00" * 7 + "01000000" + "00000000" + "09" + "00" * 7) * 2
    )
    account = msgspec.structs.replace(ACCOUNT, num_components=1, tail=one + bytes(3072 - 96))
    info = PriceInfo(5, 2, 1, 0, 9)
    assert account.components == (Component(bytes([7]) * 32, info, info),)
    with pytest.raises(DecodeError, match="expected at least 3408 for 33 publishers, found 3312"):
        PriceAccount.decode(msgspec.structs.replace(ACCOUNT, num_components=33).encode())


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("pyth_legacy_mapping_pythclient_test", "found 1: mapping account of 1 products"),
        (
            "pyth_legacy_product_pythclient_test",
            "found 2: product account of price 4EQrNZYk5KR1RnjyzbaaRbHsv8VqZWzSUtvx58wLsZbj",
        ),
    ],
)
def test_mapping_and_product_are_named(fixtures_dir: Path, name: str, words: str) -> None:
    data, _ = load(fixtures_dir, name)
    with pytest.raises(DecodeError, match=f"pyth.legacy_price: offset 8: expected type 3, {words}"):
        PriceAccount.decode(data)


def test_magic_and_version_are_checked() -> None:
    data = ACCOUNT.encode()
    with pytest.raises(DecodeError, match="offset 0: expected magic 0xa1b2c3d4, found 0x0"):
        PriceAccount.decode(bytes(3312))
    with pytest.raises(DecodeError, match="offset 4: expected version 2, found 1"):
        PriceAccount.decode(data[:4] + b"\x01" + data[5:])
    with pytest.raises(DecodeError, match="unknown account"):
        PriceAccount.decode(data[:8] + b"\x09" + data[9:])


@pytest.mark.parametrize("owner", [PYTH_LEGACY, PYTH_LEGACY_DEVNET])
def test_a_trading_aggregate_gives_an_update(owner: str) -> None:
    event = read(ACCOUNT.encode(), owner)
    assert isinstance(event, PriceUpdate)
    assert (event.mantissa, event.conf, event.publish_us) == (15_000_000_000, 7_000_000, 1_790_000_000_000_000)


@pytest.mark.parametrize(
    ("status", "word"), [(0, "unknown"), (2, "halted"), (3, "auction"), (4, "ignored"), (9, "status 9")]
)
def test_an_aggregate_that_does_not_trade_is_halted(status: int, word: str) -> None:
    event = read(msgspec.structs.replace(ACCOUNT, agg=PriceInfo(5, 1, status)).encode())
    assert isinstance(event, Status)
    assert event.condition is Condition.HALTED
    assert word in event.text


def test_what_is_no_price_is_refused() -> None:
    event = read(msgspec.structs.replace(ACCOUNT, agg=PriceInfo(-5, 1)).encode())
    assert isinstance(event, Status)
    assert event.condition is Condition.INVALID
    event = read(msgspec.structs.replace(ACCOUNT, price_type=0).encode())
    assert isinstance(event, Status)
    assert isinstance(read(ACCOUNT.encode(), "1" * 32), Malformed)
    assert isinstance(read(ACCOUNT.encode()[:200]), Malformed)


def test_describe_compares_with_the_feed_id() -> None:
    assert PriceReader("pyth", {"SOL/USD": SOL.pyth_legacy}).describe("SOL/USD")["matches_derived"] is True
    assert PriceReader("pyth", {"BTC/USD": SOL.pyth_legacy}).describe("BTC/USD")["matches_derived"] is False
