"""Feeds under the ids that clients of Pyth know them by: 32 bytes in hex, with or without ``0x``, in any case. Pure."""

import re
from collections.abc import Collection, Mapping
from types import MappingProxyType

from oracle_hub.errors import ChartsError

PYTH_IDS: Mapping[str, str] = MappingProxyType(
    {
        "BTC/USD": "e62df6c8b4a85fe1a67db44dc12de5db330f7ac66b72dc658afedf0f4a415b43",
        "ETH/USD": "ff61491a931112ddf1bd8147cd1b641375f79f5825126d665480874634fd0ace",
        "SOL/USD": "ef0d8b6fda2ceba41da15d4095d1da392a0d2f8ed0c6c7bc0f4cfac8c280b56d",
        "USDC/USD": "eaa020c61cc479712813461ce153894a96a6c00b21ed0cfc2798d1f9a9e9c94a",
        "USDT/USD": "2b89b9dc8fdf9f34709a5b106b472f0f39bb6ca9ce04b0fd7f2e971688e2e53b",
    }
)
"""Ids of the feeds that are known by name. ``charts.pyth_ids`` adds others, and wins over these."""

_ID = re.compile(r"(?:0[xX])?([0-9a-fA-F]{64})")


class BadId(ChartsError):
    """Not an id of 32 bytes."""

    def __init__(self, text: str) -> None:
        super().__init__(f"invalid price feed id {text[:80]!r}: expected 64 hex digits, with or without 0x")


def parse_id(text: str) -> str:
    """An id in any accepted form, as 64 lower-case hex digits.

    Raises:
        BadId: it is none.
    """
    match = _ID.fullmatch(text)
    if match is None:
        raise BadId(text)
    return match[1].lower()


def pyth_ids(configured: Mapping[str, str]) -> dict[str, str]:
    """Ids by feed: those that are known, and the configured ones.

    Raises:
        ChartsError: one is no id, or two feeds have the same. The message names the feeds.
    """
    ids = dict(PYTH_IDS)
    for feed, text in configured.items():
        try:
            ids[feed] = parse_id(text)
        except BadId as error:
            raise ChartsError(f"{feed}: {error}") from None
    owners: dict[str, str] = {}
    for feed, price_id in ids.items():
        other = owners.setdefault(price_id, feed)
        if other != feed:
            raise ChartsError(f"{other} and {feed} have the same id {price_id}; a known feed may be given another one")
    return ids


class Ids:
    """Which id is which feed."""

    def __init__(self, configured: Mapping[str, str]) -> None:
        """``configured``: ids by feed, beside those that are known. Raises ChartsError as :func:`pyth_ids`."""
        self._id_of = pyth_ids(configured)
        self._feed_of = {price_id: feed for feed, price_id in self._id_of.items()}

    def feed_of(self, price_id: str, served: Collection[str]) -> str | None:
        """The feed of an id in its plain form, where it is one of those that are ``served``."""
        feed = self._feed_of.get(price_id)
        return feed if feed in served else None

    def served(self, feeds: Collection[str]) -> dict[str, str]:
        """Ids of these feeds, by feed, without those that have none."""
        return {feed: self._id_of[feed] for feed in feeds if feed in self._id_of}
