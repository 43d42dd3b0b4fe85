"""Chainlink's store accounts: the ring, its cursor, and their reader."""

import base64
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest

from feeds.addresses import ASSETS
from feeds.chainlink.store import PROGRAM, Transmission, Transmissions, TransmissionsReader, description_feed
from feeds.layout import pad32
from oracle_hub.core.source import Account, Condition, Malformed, PriceUpdate, Status
from oracle_hub.errors import DecodeError

SOL = ASSETS["SOL/USD"]
NOW = 1_790_000_001_000_000


def feed(*entries: Transmission, live_length: int = 1, cursor: int = 0, **changes: Any) -> Transmissions:
    base = Transmissions(
        version=2,
        state=1,
        owner=bytes(32),
        proposed_owner=bytes(32),
        writer=bytes(32),
        description=pad32("SOL / USD"),
        decimals=8,
        flagging_threshold=0,
        latest_round_id=17,
        granularity=1,
        live_length=live_length,
        live_cursor=cursor,
        historical_cursor=0,
        ring=b"".join(entry.encode() for entry in entries),
    )
    return msgspec.structs.replace(base, **changes)


ONE = feed(Transmission(5, 1_790_000_000, 15_000_000_000))


def real(fixtures_dir: Path, name: str) -> tuple[bytes, dict[str, Any]]:
    loaded = orjson.loads((fixtures_dir / name).read_bytes())
    return base64.b64decode(loaded["data_base64"]), loaded["expected"]


@pytest.mark.parametrize(
    "name",
    ["chainlink_transmissions_sol_usd_mainnet_2024-07-14.json", "chainlink_transmissions_unit_vector_live3.json"],
)
def test_real_accounts(fixtures_dir: Path, name: str) -> None:
    data, expected = real(fixtures_dir, name)
    decoded = Transmissions.decode(data)
    assert decoded.encode() == data
    fields = decoded.fields()
    for derived in ("discriminator", "n_transmissions", "latest_price"):
        expected.pop(derived, None)
    assert {field: fields[field] for field in expected} == expected


def test_the_state_byte_of_live_feeds_is_no_objection(fixtures_dir: Path) -> None:
    data, _ = real(fixtures_dir, "chainlink_transmissions_sol_usd_mainnet_2024-07-14.json")
    assert data[9] == 1
    reader = TransmissionsReader("chainlink", {"SOL/USD": SOL.chainlink_store})
    (event,) = reader.read(Account(SOL.chainlink_store, PROGRAM, 3, data), "solana:a", NOW)
    assert isinstance(event, PriceUpdate)
    assert (event.mantissa, event.publish_us, event.conf) == (14_512_628_598, 1_720_938_297_000_000, None)


def test_encoding_gives_the_live_size_and_comes_back() -> None:
    assert len(ONE.encode()) == 248
    assert Transmissions.decode(ONE.encode()) == ONE


@pytest.mark.parametrize(("cursor", "answer"), [(0, 103), (1, 101), (2, 102)])
def test_the_latest_is_the_one_before_the_cursor(cursor: int, answer: int) -> None:
    entries = [Transmission(n, 1_790_000_000 + n, 100 + n) for n in (1, 2, 3)]
    decoded = Transmissions.decode(feed(*entries, live_length=3, cursor=cursor).encode())
    assert decoded.latest.answer == answer
    assert decoded.latest_index == (cursor + 2) % 3


def test_the_historical_ring_is_not_the_live_one() -> None:
    entries = [Transmission(n, 1_790_000_000 + n, 100 + n) for n in (1, 2, 3, 4)]
    decoded = Transmissions.decode(feed(*entries, live_length=2, cursor=0).encode())
    assert decoded.latest.answer == 102
    assert len(decoded.transmissions) == 4


@pytest.mark.parametrize("answer", [2**100, -(2**100), -1])
def test_answers_have_128_bits_and_a_sign(answer: int) -> None:
    decoded = Transmissions.decode(feed(Transmission(1, 2, answer)).encode())
    assert decoded.latest.answer == answer


def test_a_ring_that_is_not_there_is_refused() -> None:
    with pytest.raises(DecodeError, match="expected at least 344 bytes, found 248"):
        Transmissions.decode(feed(Transmission(1, 2, 3), live_length=3).encode())
    with pytest.raises(DecodeError, match=r"offset 148: expected a cursor within the ring, found 0 of 0"):
        Transmissions.decode(feed(live_length=0).encode())
    with pytest.raises(DecodeError, match=r"found 1 of 1"):
        Transmissions.decode(feed(Transmission(1, 2, 3), cursor=1).encode())
    with pytest.raises(DecodeError, match=r"chainlink.transmissions: offset 100: expected at least 248 bytes"):
        Transmissions.decode(ONE.encode()[:100])
    with pytest.raises(DecodeError, match="expected discriminator 60b3"):
        Transmissions.decode(bytes(248))
    with pytest.raises(DecodeError, match=r"offset 8: expected version 2, found 1$"):  # its entries were shorter
        Transmissions.decode(feed(Transmission(1, 2, 3), version=1).encode())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"latest_round_id": 0}, "nothing was written yet"),
        ({"description": pad32("BTC / USD")}, "the feed of BTC/USD, not of SOL/USD"),
        ({"ring": Transmission(5, 1_790_000_000, 0).encode()}, "not positive"),
        ({"ring": Transmission(5, 1_790_000_000, 2**80).encode()}, "does not fit"),
        ({"ring": Transmission(5, 0, 5).encode()}, "never updated"),
    ],
)
def test_what_is_no_price_is_invalid(changes: dict[str, Any], words: str) -> None:
    reader = TransmissionsReader("chainlink", {"SOL/USD": SOL.chainlink_store})
    data = msgspec.structs.replace(ONE, **changes).encode()
    (event,) = reader.read(Account(SOL.chainlink_store, PROGRAM, 3, data), "solana:a", NOW)
    assert isinstance(event, Status)
    assert event.condition is Condition.INVALID
    assert words in event.text


def test_eighteen_decimals_are_rounded_half_to_even() -> None:
    reader = TransmissionsReader("chainlink", {"SOL/USD": SOL.chainlink_store})
    answer = Transmission(5, 1_790_000_000, 150_000_000_005_000_000_000)
    data = msgspec.structs.replace(ONE, decimals=18, ring=answer.encode()).encode()
    (event,) = reader.read(Account(SOL.chainlink_store, PROGRAM, 3, data), "solana:a", NOW)
    assert isinstance(event, PriceUpdate)
    assert event.mantissa == 15_000_000_000


def test_a_foreign_owner_is_malformed() -> None:
    reader = TransmissionsReader("chainlink", {"SOL/USD": SOL.chainlink_store})
    (event,) = reader.read(Account(SOL.chainlink_store, "1" * 32, 3, ONE.encode()), "solana:a", NOW)
    assert isinstance(event, Malformed)
    assert "owner" in event.reason


def test_descriptions_name_feeds() -> None:
    assert description_feed(pad32("SOL / USD")) == "SOL/USD"
    assert description_feed(pad32("eth/btc")) == "ETH/BTC"
    assert description_feed(bytes(32)) is None


def test_describe_compares_with_the_table_of_known_feeds() -> None:
    reader = TransmissionsReader("chainlink", {"SOL/USD": SOL.chainlink_store, "BONK/USD": SOL.edge})
    assert reader.describe("SOL/USD")["matches_derived"] is True
    assert reader.describe("BONK/USD")["matches_derived"] is False
