"""A made catalogue of thousands of feeds: real account layouts, at addresses and ids that nobody has.

Feed *n* is ``F0001/USD``. Its three sources are a leg of Pyth Lazer (a Doves PriceFeed), Chainlink's store, and Pyth: a
PriceUpdateV2 account, or a Hermes stream without proofs.
"""

from functools import cache
from hashlib import sha256

from benchmarks import chain
from feeds.addresses import DOVES, Asset
from feeds.layout import pubkey_text

LAZER = chain.Kind("doves.lazer", DOVES, lambda asset: asset.lazer, chain.edge)
SOURCES = {"lazer": LAZER, "chainlink": chain.STORE, "pyth": chain.RECEIVER}
"""By their names in the configuration."""
START_PRICE = 100_000_000
CONFIG = """
[roles]
primary = "lazer"
verifiers = ["chainlink", "pyth"]
{sources}
{feeds}
[hub]
warmup_ms = 60_000
[server]
port = 0
[state]
directory = "{directory}"
[solana]
cluster = "custom"
genesis_hash = "{genesis_hash}"
[[solana.rpc]]
name = "a"
http_url = "http://{address}/"
ws_url = "ws://{address}/pubsub"
"""


def made_key(name: str) -> bytes:
    """32 bytes that follow from a name."""
    return sha256(name.encode()).digest()


@cache
def made_asset(number: int) -> Asset:
    """An asset of no exchange: every address and id follows from its number."""
    symbol = f"F{number:04}"

    def key(field: str) -> str:
        return pubkey_text(made_key(f"{symbol} {field}"))

    return Asset(
        feed=f"{symbol}/USD",
        symbol=symbol,
        mint=key("mint"),
        decimals=9,
        custody=key("custody"),
        edge=key("edge"),
        ag=key("ag"),
        chainlink_doves=key("chainlink_doves"),
        lazer=key("lazer"),
        redstone=key("redstone"),
        chainlink_store=key("chainlink_store"),
        pyth_old_push=key("pyth_old_push"),
        pyth_new_push=key("pyth_new_push"),
        pyth_legacy=key("pyth_legacy"),
        hermes_id=made_key(f"{symbol} hermes").hex(),
        data_streams_id=made_key(f"{symbol} streams").hex(),
        pro_id=1_000_000 + number,
    )


def made_config(n_feeds: int, directory: str, address: str, *, hermes: bool) -> str:
    """A hub's configuration for the first so many feeds, read at ``address`` (host:port); ``hermes``: Pyth from there.

    Nothing is too old for a minute, so that no pause of a source's process costs a price.
    """
    pyth = 'kind = "pyth.receiver"'
    if hermes:
        pyth = f'kind = "pyth.hermes"\nhosts = ["http://{address}"]\nverify = "off"'
    sections = {"lazer": 'kind = "doves.lazer"', "chainlink": 'kind = "chainlink.store"', "pyth": pyth}
    names = {"lazer": "lazer", "chainlink": "chainlink_store", "pyth": "hermes_id" if hermes else "pyth_new_push"}
    feeds = []
    for number in range(n_feeds):
        asset = made_asset(number)
        accounts = ", ".join(f'{source} = "{getattr(asset, name)}"' for source, name in names.items())
        feeds.append(f'[feeds."{asset.feed}"]\naccounts = {{ {accounts} }}')
    return CONFIG.format(
        sources="\n".join(f"[sources.{name}]\nmax_age_ms = 60_000\n{text}" for name, text in sections.items()),
        feeds="\n".join(feeds),
        directory=directory,
        genesis_hash=chain.GENESIS_HASH,
        address=address,
    )


def price_at(turn: int) -> int:
    """The mantissa at -8 that every source tells in a turn: another in each, within half a basis point."""
    return START_PRICE + turn % 5_000


def account_value(source: str, number: int, turn: int, timestamp_s: int, slot: int) -> dict[str, object]:
    """A source's account of a feed, as a validator writes it."""
    return chain.value(SOURCES[source], made_asset(number), price_at(turn), timestamp_s, slot)


def hermes_entry(number: int, turn: int, timestamp_s: int, slot: int) -> dict[str, object]:
    """An entry of ``parsed``, as Hermes writes it."""
    price = {"price": str(price_at(turn)), "conf": "25000", "expo": -8, "publish_time": timestamp_s}
    metadata = {"slot": slot, "proof_available_time": timestamp_s, "prev_publish_time": timestamp_s - 1}
    return {"id": made_asset(number).hermes_id, "price": price, "ema_price": price, "metadata": metadata}
