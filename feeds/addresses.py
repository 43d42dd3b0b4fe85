"""Where the oracles live: programs, the known accounts of the five assets, and the rules that derive them.

Every address here follows from a rule, and the tests derive them all. A mistyped one circulates in public for SOL's
Pyth account: derive and compare before you believe an address.
"""

from functools import cache
from typing import Literal, TypeAlias

import msgspec
from solders.pubkey import Pubkey

from feeds.layout import pad32, pubkey_bytes, pubkey_text

DOVES = "DoVEsk76QybCEHQGzkvYPWLQu9gzNoZZZt3TPiL597e"
PERPS = "PERPHjGBqRHArX4DySjwM6UJHiR3sWAatqfdBS2qQJu"
CHAINLINK_STORE = "HEvSKofvBgfaexv23kMabbYqxasxU3mQ4ibBMEmJWHny"
PYTH_OLD_RECEIVER = "rec5EKMGg6MxZYaMdyBfgwp4d5rB9T1VQH5pJv5LtFJ"
PYTH_NEW_RECEIVER = "rec2HHDDnjLfj4kE7VyEtFA1HPGQLK33259532cRyHp"
PYTH_LEGACY = "FsJ3A3u2vn5cTVofAjvy6y5kwABJAqYWpe4975bi2epH"
"""On mainnet-beta and on Pythnet alike."""
PYTH_LEGACY_DEVNET = "gSbePebfvPy7tRqimPoVecS2UsBvYv46ynrzWocc92s"
REDSTONE = "REDSTBDUecGjwXd6YGPzHSvEUBHQqVRfCcjUVgPiHsr"
PYTH_OLD_PUSH = "pythWSnswVUd12oZpeFP8e9CVaEqJg25g1Vtc2biRsT"
"""Derives the push accounts that the old receiver owns."""
PYTH_NEW_PUSH = "pyt2F414BA6dPttK6RddPZUdHfapoBN24GL5wbrPCou"

PROGRAMS: dict[str, str] = {
    "doves": DOVES,
    "jupiter": PERPS,
    "chainlink_store": CHAINLINK_STORE,
    "pyth_old_receiver": PYTH_OLD_RECEIVER,
    "pyth_new_receiver": PYTH_NEW_RECEIVER,
    "pyth_old_push": PYTH_OLD_PUSH,
    "pyth_new_push": PYTH_NEW_PUSH,
    "pyth_legacy": PYTH_LEGACY,
    "pyth_legacy_devnet": PYTH_LEGACY_DEVNET,
    "redstone": REDSTONE,
}

Cluster: TypeAlias = Literal["mainnet-beta", "devnet", "testnet"]
GENESIS_HASHES: dict[Cluster, str] = {
    "mainnet-beta": "5eykt4UsFv8P8NJdTREpY1vzqKqZKvdpKuc147dw2N9d",
    "devnet": "EtWTRABZaYq6iMfeYKouRu166VU2xqa1wcaWoxPkrZBG",
    "testnet": "4uhcVJyU9pJkvQyS88uRDiswHXSCkY3zQawwpjk2NsNY",
}
"""What ``getGenesisHash`` answers. The same addresses exist on devnet, with other prices."""

POOL = "5BUwFW4nRbftYTDMbgxykoFWqWHPzahFSNAaaaJtVKsq"
PERPETUALS = "H4ND9aYttUVLFmNypZqLjZ52FYiGvdEB45GmwNoKEjTj"
DOVES_SIGNER = "0251babba97b9b511db353750e2c39e613422e853121a48ab520840c002734285c"
"""Compressed secp256k1 key that signs Edge's updates, in hex; the pool names it too."""


class Asset(msgspec.Struct, frozen=True, kw_only=True):
    """One of the exchange's assets: its mainnet accounts, and its ids at the oracles (hex)."""

    feed: str
    symbol: str
    mint: str
    decimals: int
    custody: str
    edge: str
    """Doves PriceFeed that Edge writes: the custody's ``dovesOracle``."""
    ag: str
    """Doves AgPriceFeed: the custody's ``dovesAgOracle``."""
    chainlink_doves: str
    """Doves PriceFeed that carries Chainlink Data Streams."""
    lazer: str
    """Doves PriceFeed that carries Pyth Lazer."""
    redstone: str
    chainlink_store: str
    """Transmissions of Chainlink's store program: another source than ``chainlink_doves``."""
    pyth_old_push: str
    pyth_new_push: str
    pyth_legacy: str
    """The 32 bytes of this address are ``hermes_id``."""
    hermes_id: str
    data_streams_id: str
    pro_id: int
    """Number of the feed at Pyth Pro. Those of BTC, ETH and SOL stand in real payloads, the two others in a public list
    of its symbols."""

    @property
    def edge_pair(self) -> bytes:
        """``pair`` of the Edge leg."""
        return pad32(f"{self.symbol}USD")

    @property
    def lazer_pair(self) -> bytes:
        """``pair`` of the Pyth Lazer leg."""
        return pad32(f"{self.symbol}USD-PYTH")

    @property
    def chainlink_pair(self) -> bytes:
        """``pair`` of the Chainlink leg: the raw Data Streams id."""
        return bytes.fromhex(self.data_streams_id)


def _derive(program: str, *seeds: bytes) -> str:
    return str(Pubkey.find_program_address(list(seeds), Pubkey.from_string(program))[0])


def doves_feed(pair: bytes) -> str:
    """Address of the Doves PriceFeed of a pair of 32 bytes."""
    return _derive(DOVES, b"feed", pair)


def doves_feed_bump(pair: bytes) -> int:
    """The bump that the account of :func:`doves_feed` stores."""
    return Pubkey.find_program_address([b"feed", pair], Pubkey.from_string(DOVES))[1]


def doves_ag_feed(mint: str) -> str:
    """Address of the Doves AgPriceFeed of a token."""
    return _derive(DOVES, b"ag_feed", pubkey_bytes(mint))


def doves_ag_feed_bump(mint: str) -> int:
    """The bump that the account of :func:`doves_ag_feed` stores."""
    return Pubkey.find_program_address([b"ag_feed", pubkey_bytes(mint)], Pubkey.from_string(DOVES))[1]


def redstone_price(symbol: str) -> str:
    """Address of RedStone's price account of a symbol (``SOL``)."""
    return _derive(REDSTONE, pad32("price"), pad32(symbol))


def jupiter_pool(name: str = "Pool") -> str:
    """Address of a Perpetuals pool."""
    return _derive(PERPS, b"pool", name.encode())


def jupiter_custody(pool: str, mint: str) -> str:
    """Address of a token's custody in a pool."""
    return _derive(PERPS, b"custody", pubkey_bytes(pool), pubkey_bytes(mint))


def jupiter_perpetuals() -> str:
    """Address of the Perpetuals program's root account."""
    return _derive(PERPS, b"perpetuals")


def pyth_push(feed_id: str, *, program: str = PYTH_NEW_PUSH, shard: int = 0) -> str:
    """Address of a sponsored PriceUpdateV2. The receiver owns it; the push program only derives it.

    Args:
        feed_id: 32 bytes in hex.
        program: :data:`PYTH_NEW_PUSH` or :data:`PYTH_OLD_PUSH`.
        shard: 0 for the sponsored ones.
    """
    return _derive(program, shard.to_bytes(2, "little"), bytes.fromhex(feed_id))


def pyth_legacy_price(feed_id: str) -> str:
    """Address of the legacy price account: the feed id itself, in base58."""
    return pubkey_text(bytes.fromhex(feed_id))


ASSETS: dict[str, Asset] = {
    "SOL/USD": Asset(
        feed="SOL/USD",
        symbol="SOL",
        mint="So11111111111111111111111111111111111111112",
        decimals=9,
        custody="7xS2gz2bTp3fwCC7knJvUWTEU9Tycczu6VhJYKgi1wdz",
        edge="39cWjvHrpHNz2SbXv6ME4NPhqBDBd4KsjUYv5JkHEAJU",
        ag="FYq2BWQ1V5P1WFBqr3qB2Kb5yHVvSv7upzKodgQE5zXh",
        chainlink_doves="FWLXDDgW2Qm2VuX8MdV99VYpo6X1HLEykUjfAsjz2G78",
        lazer="A5d4aY4K4BYEtXdAY7WNBHTKxRMeyAA6RYHWVYEW22Fe",
        redstone="9FboGHATJTgJA7fzG3fKeV1VuLqDsV5HtCGUR2PqZor3",
        chainlink_store="CH31Xns5z3M1cTAbKW34jcxPPciazARpijcHj9rxtemt",
        pyth_old_push="7UVimffxr9ow1uXYxsr4LHAcV58mLzhmwaeKvJ1pjLiE",
        pyth_new_push="7AviUf9nL62mcxNbQGKm4nKDQnPjswo6c5MX4D57HmyE",
        pyth_legacy="H6ARHf6YXhGYeQfUzQNGk6rDNnLBQKrenN712K4AQJEG",
        hermes_id="ef0d8b6fda2ceba41da15d4095d1da392a0d2f8ed0c6c7bc0f4cfac8c280b56d",
        data_streams_id="0003b778d3f6b2ac4991302b89cb313f99a42467d6c9c5f96f57c29c0d2bc24f",
        pro_id=6,
    ),
    "BTC/USD": Asset(
        feed="BTC/USD",
        symbol="BTC",
        mint="3NZ9JMVBmGAqocybic2c7LQCJScmgsAZ6vQqTDzcqmJh",
        decimals=8,
        custody="5Pv3gM9JrFFH883SWAhvJC9RPYmo8UNxuFtv5bMMALkm",
        edge="4HBbPx9QJdjJ7GUe6bsiJjGybvfpDhQMMPXP1UEa7VT5",
        ag="hUqAT1KQ7eW1i6Csp9CXYtpPfSAvi835V7wKi5fRfmC",
        chainlink_doves="A6F8mvoM8Qc9wTaKjrD1B5Fgpp6NhPQyJLWXeafWrbsV",
        lazer="FxSvTMvZS9S1jjjixHPh7QEn99WuVWaEHqvw8NqfWmB8",
        redstone="74o5fhuMC33HgfUqvv2TdpYiKvEWfcRTS1E8zxK6ESjN",
        chainlink_store="Cv4T27XbjVoKUYwP72NQQanvZeA7W4YF9L4EnYT9kx5o",
        pyth_old_push="4cSM2e6rvbGQUFiJbqytoVMi5GgghSMr8LwVrT9VPSPo",
        pyth_new_push="APgzQGGdv2qCgBkX6aHVkrGePtBVDDg68GiqaM7rmtf5",
        pyth_legacy="GVXRSBjFk6e6J3NbVPXohDJetcTjaeeuykUpbQF8UoMU",
        hermes_id="e62df6c8b4a85fe1a67db44dc12de5db330f7ac66b72dc658afedf0f4a415b43",
        data_streams_id="00039d9e45394f473ab1f050a1b963e6b05351e52d71e507509ada0c95ed75b8",
        pro_id=1,
    ),
    "ETH/USD": Asset(
        feed="ETH/USD",
        symbol="ETH",
        mint="7vfCXTUXx5WJV5JADk17DUJ4ksgau7utNKj4b963voxs",
        decimals=8,
        custody="AQCGyheWPLeo6Qp9WpYS9m3Qj479t7R636N9ey1rEjEn",
        edge="5URYohbPy32nxK1t3jAHVNfdWY2xTubHiFvLrE3VhXEp",
        ag="AFZnHPzy4mvVCffrVwhewHbFc93uTHvDSFrVH7GtfXF1",
        chainlink_doves="BNQzYvnidN8vVVn78xh6wgLo5ozmV8Dx8AE8rndqeLEe",
        lazer="9QEL8K51uZrqoqTp6Zfjmr65gYqvivVrd2Yg5bo6joGV",
        redstone="HPmPoq3eUTPePsDB5U4G6msu5RpeZHhMemc5VnqxQ9Lx",
        chainlink_store="716hFAECqotxcXcj8Hs8nr7AG6q9dBw2oX3k3M8V7uGq",
        pyth_old_push="42amVS4KgzR9rA28tkVYqVXjq9Qa8dcZQMbH5EYFX6XC",
        pyth_new_push="7odryi4WfoMFHtv2eubdMgP1pqQMmdiXSK1N2tqZ2nRH",
        pyth_legacy="JBu1AL4obBcCMqKBBxhpWCNUt136ijcuMZLFvTP7iWdB",
        hermes_id="ff61491a931112ddf1bd8147cd1b641375f79f5825126d665480874634fd0ace",
        data_streams_id="000362205e10b3a147d02792eccee483dca6c7b44ecce7012cb8c6e0b68b3ae9",
        pro_id=2,
    ),
    "USDC/USD": Asset(
        feed="USDC/USD",
        symbol="USDC",
        mint="EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v",
        decimals=6,
        custody="G18jKKXQwBbrHeiK3C9MRXhkHsLHf7XgCSisykV46EZa",
        edge="A28T5pKtscnhDo6C1Sz786Tup88aTjt8uyKewjVvPrGk",
        ag="6Jp2xZUTWdDD2ZyUPRzeMdc6AFQ5K3pFgZxk2EijfjnM",
        chainlink_doves="3Z4gQ5ujXZSYeVyPhkakVcrmyMxhAk6VT2NYSVV3RGGU",
        lazer="G4kGyw5c4mMv8PuPotHnBuqP82s2d54Hd8sfKfW4jpjA",
        redstone="6sX9HsaAPhAT1MCskQFTjreuNCqFgkJWKJ4hfdvTbJET",
        chainlink_store="GzGuoKXE8Unn7Vcg1DtomwD27tL4bVUpSK2M1yk6Xfz5",
        pyth_old_push="Dpw1EAVrSB1ibxiDQyTAW6Zip3J4Btk2x4SgApQCeFbX",
        pyth_new_push="6HAuqASbHEh4w4REJEUUUCginTLfj1kwCh215ZLtMkrT",
        pyth_legacy="Gnt27xtC473ZT2Mw5u8wZ68Z3gULkSTb5DuxJy7eJotD",
        hermes_id="eaa020c61cc479712813461ce153894a96a6c00b21ed0cfc2798d1f9a9e9c94a",
        data_streams_id="00038f83323b6b08116d1614cf33a9bd71ab5e0abf0c9f1b783a74a43e7bd992",
        pro_id=7,
    ),
    "USDT/USD": Asset(
        feed="USDT/USD",
        symbol="USDT",
        mint="Es9vMFrzaCERmJfrF4H2FYD4KCoNkY11McCe8BenwNYB",
        decimals=6,
        custody="4vkNeXiYEUizLdrpdPS1eC2mccyM4NUPRtERrk6ZETkk",
        edge="AGW7q2a3WxCzh5TB2Q6yNde1Nf41g3HLaaXdybz7cbBU",
        ag="Fgc93D641F8N2d1xLjQ4jmShuD3GE3BsCXA56KBQbF5u",
        chainlink_doves="5KQxzQ4xQGPUiJGYbujLjygm6Frin9zE5h996hxxfyqe",
        lazer="HYsH1BnnFotN7cbqTzUb8xGH2mJvK7FiX8JcPEEoXbug",
        redstone="BXyFDzF4ZTTuSA5dupsCK6RaRnTDumYvMY7AWMvrswzd",
        chainlink_store="8vAuuqC5wVZ9Z9oQUGGDSjYgudTfjmyqGU5VucQxTk5U",
        pyth_old_push="HT2PLQBcG5EiCcNSaMHAjSgd9F98ecpATbk4Sk5oYuM",
        pyth_new_push="3XBYLaF9wisQLaCxTgchH6xeNJGchwDauGpot1GcRMZV",
        pyth_legacy="3vxLXJqLqF3JG5TCbYycbKWRBbCJQLxQmBGCkyqEEefL",
        hermes_id="2b89b9dc8fdf9f34709a5b106b472f0f39bb6ca9ce04b0fd7f2e971688e2e53b",
        data_streams_id="0003a910a43485e0685ff5d6d366541f5c21150f0634c5b14254392d1a1c06db",
        pro_id=8,
    ),
}
"""The five assets by feed. The Lazer and RedStone accounts of USDT are derived; nobody has shown that they exist."""


def asset_of(address: str) -> tuple[Asset, str] | None:
    """The asset that an address belongs to, and under which of its names (``edge``, ``custody``); None if unknown.

    A configuration that names an old ``dovesOracle`` is mapped to its custody with this.
    """
    return _places().get(address)


@cache
def _places() -> dict[str, tuple[Asset, str]]:
    names = [field.name for field in msgspec.structs.fields(Asset)]
    named = ((getattr(asset, name), (asset, name)) for asset in ASSETS.values() for name in names)
    return dict(reversed([one for one in named if isinstance(one[0], str)]))


def known_feed_id(feed: str) -> bytes | None:
    """Pyth's id of a known feed, in 32 bytes."""
    asset = ASSETS.get(feed)
    return bytes.fromhex(asset.hermes_id) if asset else None


def known_pair(feed: str, address: str) -> bytes | None:
    """The pair that a Doves PriceFeed at this address must hold; None when the address follows from no known pair."""
    asset = ASSETS.get(feed)
    pairs = (asset.edge_pair, asset.lazer_pair, asset.chainlink_pair) if asset else ()
    return next((pair for pair in pairs if doves_feed(pair) == address), None)


def known_mint(feed: str) -> bytes | None:
    """The token of a known feed, in 32 bytes."""
    asset = ASSETS.get(feed)
    return pubkey_bytes(asset.mint) if asset else None
