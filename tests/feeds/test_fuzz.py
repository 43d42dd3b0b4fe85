"""100,000 damaged accounts: each is refused cleanly or decodes; a reader never raises at all."""

import random
from collections.abc import Callable
from itertools import cycle, islice
from typing import TypeAlias

import msgspec
import orjson
import pytest

from feeds.addresses import ASSETS, POOL, PROGRAMS
from feeds.chainlink.store import Transmission, Transmissions
from feeds.custody import CustodyReader, PoolReader
from feeds.doves import AgPriceFeed, PriceFeed
from feeds.jupiter import Custody, Pool
from feeds.layout import pad32, pubkey_bytes
from feeds.pyth.legacy import PriceAccount, PriceInfo
from feeds.pyth.receiver import PriceUpdateV2
from feeds.redstone import PriceData
from feeds.registry import DECODERS, SOURCES, default_account, make_reader
from oracle_hub.core.source import Account, Malformed, PriceUpdate, Rewatch, Status
from oracle_hub.errors import DecodeError

SOL = ASSETS["SOL/USD"]
NOW = 1_790_000_001_000_000
SEED = 20_261_121
KEY = bytes(32)
_UPDATE = PriceUpdateV2(bytes(32), bytes.fromhex(SOL.hermes_id), 5, 1, -8, 1_790_000_000, 1, 5, 1, 9)
_RING = b"".join(Transmission(n, 1_790_000_000, 10**10).encode() for n in range(3))
WHOLE: dict[str, list[bytes]] = {
    "doves.price_feed": [PriceFeed(SOL.edge_pair, bytes(33), 10**10, -8, 1_790_000_000).encode()],
    "doves.ag_price_feed": [
        AgPriceFeed(pubkey_bytes(SOL.mint), KEY, KEY, KEY, KEY, 10**10, -8, 1_790_000_000).encode()
    ],
    "jupiter.custody": [
        Custody(
            pool=bytes(32),
            mint=pubkey_bytes(SOL.mint),
            doves_oracle=pubkey_bytes(SOL.edge),
            doves_ag_oracle=pubkey_bytes(SOL.ag),
        ).encode()
    ],
    "jupiter.pool": [Pool(custodies=tuple(pubkey_bytes(asset.custody) for asset in ASSETS.values())).encode()],
    "chainlink.transmissions": [
        Transmissions(2, 1, KEY, KEY, KEY, pad32("SOL / USD"), 8, 0, 9, 1, length, 0, 0, _RING[: 48 * length]).encode()
        for length in (1, 3)
    ],
    "pyth.price_update_v2": [_UPDATE.encode(), msgspec.structs.replace(_UPDATE, num_signatures=5).encode()],
    "pyth.legacy_price": [
        PriceAccount(exponent=-8, timestamp=1_790_000_000, num_components=2, agg=PriceInfo(10**10, 5)).encode()
    ],
    "redstone.price": [
        PriceData(pad32("SOL"), 10**10, 1_790_000_000_123, written, 5, decimals).encode()
        for written, decimals in ((None, 8), (1_790_000_000_900, 8), (1_790_000_000_900, None))
    ],
}
Layout: TypeAlias = PriceFeed | AgPriceFeed | Custody | Pool | Transmissions | PriceUpdateV2 | PriceAccount | PriceData
OWNERS = tuple(PROGRAMS.values())


def damaged(chance: random.Random, data: bytes) -> bytes:
    """Some bytes changed, mostly near the front where layouts live; now and then cut, grown, or nonsense."""
    match chance.randrange(8):
        case 0:
            return data[: chance.randrange(len(data) + 1)]
        case 1:
            return data + chance.randbytes(chance.randrange(64))
        case 2:
            return data[:8] + chance.randbytes(min(len(data) - 8, 400)) + data[408:]
        case 3:
            return chance.randbytes(chance.randrange(300))
    mutable = bytearray(data)
    for _ in range(chance.randrange(1, 5)):
        mutable[chance.randrange(min(len(data), 420))] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
    return bytes(mutable)


def test_decoders_refuse_cleanly_or_decode() -> None:
    chance = random.Random(SEED)
    refused = 0
    for kind in islice(cycle(DECODERS), 70_000):
        data, text = damaged(chance, chance.choice(WHOLE[kind])), ""
        answer: dict[str, object] | None
        try:
            answer = DECODERS[kind](data, None)
        except DecodeError as error:
            answer = None
            text = str(error)
        if answer is None:
            refused += 1
            assert text.startswith(kind) and "\n" not in text
        else:
            assert answer["kind"] == kind
            if chance.randrange(8) == 0:
                orjson.dumps(answer)
    assert 10_000 < refused < 60_000


@pytest.mark.parametrize("kind", DECODERS)
def test_what_decodes_encodes_to_the_same_state(kind: str) -> None:
    chance = random.Random(SEED + 1)
    layouts: tuple[type[Layout], ...]
    layouts = (PriceFeed, AgPriceFeed, Custody, Pool, Transmissions, PriceUpdateV2, PriceAccount, PriceData)
    layout = next(layout for layout in layouts if kind == layout.KIND)
    for _ in range(500):
        try:
            state = layout.decode(damaged(chance, chance.choice(WHOLE[kind])))
        except DecodeError:
            continue
        assert repr(layout.decode(state.encode())) == repr(state)  # repr: a damaged float may be NaN


def test_readers_never_raise() -> None:
    chance = random.Random(SEED + 2)
    everything = [data for variants in WHOLE.values() for data in variants]
    readers = []
    for kind in SOURCES:
        known = {feed: default_account(kind, feed) or "" for feed in ASSETS}
        readers.append(make_reader(kind, kind, known, dict.fromkeys(ASSETS, -8)))
    events = 0
    for reader in islice(cycle(readers), 30_000):
        pubkey = chance.choice(sorted(reader.accounts()))
        owner = chance.choice(OWNERS)
        data = damaged(chance, chance.choice(everything))
        if chance.randrange(20) == 0:
            out = reader.missing(pubkey, 9, "solana:a", NOW)
        else:
            out = reader.read(Account(pubkey, owner, chance.randrange(5), data), "solana:a", NOW)
        for event in out:
            events += 1
            assert isinstance(event, PriceUpdate | Malformed | Status | Rewatch)
            if isinstance(event, PriceUpdate):
                assert 0 < event.mantissa < 2**63
                assert 0 < event.publish_us < 2**63
    assert events > 25_000


@pytest.mark.parametrize(
    "make",
    [
        lambda: CustodyReader("doves", {"SOL/USD": SOL.custody}),
        lambda: PoolReader("doves", POOL, {"SOL/USD": SOL.mint}),
    ],
    ids=["custody", "pool"],
)
def test_followers_watch_a_bounded_set_whatever_they_are_told(make: Callable[[], CustodyReader]) -> None:
    """Damaged custodies and pools may name any account; each feed still watches three at most, a pool what it lists."""
    chance = random.Random(SEED + 3)
    reader = make()
    programs = (PROGRAMS["jupiter"], PROGRAMS["doves"])
    choices = WHOLE["jupiter.custody"] + WHOLE["jupiter.pool"] + WHOLE["doves.ag_price_feed"]
    for slot in range(3_000):
        pubkey = chance.choice(sorted(reader.accounts()))
        before = reader.accounts()
        account = Account(pubkey, chance.choice(programs), slot, damaged(chance, chance.choice(choices)))
        out = reader.read(account, "solana:a", NOW)
        assert (reader.accounts() != before) == any(isinstance(event, Rewatch) for event in out)
        assert len(reader.accounts()) <= 70
