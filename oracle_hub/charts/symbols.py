"""Feeds under the names that chart clients give them: ``Crypto.SOL/USD``, ``SOL/USD``, ``SOLUSD``, ``SOL``. Pure.

The long form is that of the chart endpoint which clients of Pyth used until August 2026. A name that could mean two
feeds means none of them: it is better to ask for the long form than to draw another asset's prices.
"""

from collections.abc import Iterable

import msgspec

from oracle_hub.errors import OracleHubError

EXCHANGE = "ORACLEHUB"
EXCHANGES = frozenset({"", EXCHANGE, "PYTH"})
"""Exchanges that mean us: clients of the retired endpoint ask for ``PYTH``, and an empty one means every exchange."""
MAX_NAME_LENGTH = 100

_ASSETS = {
    "BTC": "BITCOIN",
    "ETH": "ETHEREUM",
    "SOL": "SOLANA",
    "USDC": "USD COIN",
    "USDT": "TETHER",
    "USD": "US DOLLAR",
    "EUR": "EURO",
    "GBP": "BRITISH POUND",
    "JPY": "JAPANESE YEN",
    "XAU": "GOLD",
    "XAG": "SILVER",
}
_FIAT = frozenset(
    {"AUD", "BRL", "CAD", "CHF", "CNH", "CNY", "EUR", "GBP", "HKD", "INR", "JPY", "KRW", "MXN", "NOK", "NZD"}
)
_FIAT |= {"PLN", "SEK", "SGD", "TRY", "USD", "ZAR"}
_METALS = frozenset({"XAU", "XAG", "XPD", "XPT"})
_KINDS = {"Crypto": "crypto", "FX": "forex", "Metal": "cfd"}


class UnknownSymbol(OracleHubError):
    """No feed has this name, or more than one could be meant."""

    def __init__(self, name: str) -> None:
        super().__init__(f"unknown_symbol: {name[:MAX_NAME_LENGTH]}")


class Symbol(msgspec.Struct, frozen=True, kw_only=True):
    """One feed as charts call it."""

    feed: str
    """Name at the hub, as in ``SOL/USD``."""
    expo: int
    base: str
    quote: str | None
    asset_class: str
    """``Crypto``, ``FX`` or ``Metal``: what stands before the dot of the ticker."""

    @property
    def name(self) -> str:
        """The short form, ``SOLUSD``."""
        return self.base + (self.quote or "")

    @property
    def ticker(self) -> str:
        """The long form, ``Crypto.SOL/USD``: unique, and what clients send back."""
        return f"{self.asset_class}.{self.feed}"

    @property
    def kind(self) -> str:
        """The class in the words of charting libraries: ``crypto``, ``forex`` or ``cfd``."""
        return _KINDS[self.asset_class]

    @property
    def description(self) -> str:
        """For people, ``SOLANA / US DOLLAR``."""
        return " / ".join(_ASSETS.get(part, part) for part in (self.base, self.quote) if part)

    @property
    def pricescale(self) -> int:
        """Steps of the smallest price movement in 1: ``10**-expo``."""
        return int(10 ** max(0, -self.expo))


def symbol(feed: str, expo: int) -> Symbol:
    """What charts call a feed. Its class follows from its assets: metals, two currencies, else crypto."""
    base, _, quote = feed.upper().partition("/")
    asset_class = "Metal" if base in _METALS else "FX" if base in _FIAT and quote in _FIAT else "Crypto"
    return Symbol(feed=feed, expo=expo, base=base, quote=quote or None, asset_class=asset_class)


class Symbols:
    """The symbols of a set of feeds, by every name that they answer to."""

    def __init__(self, feeds: Iterable[tuple[str, int]]) -> None:
        """``feeds``: name and exponent of each."""
        self.all: tuple[Symbol, ...] = tuple(symbol(feed, expo) for feed, expo in sorted(feeds))
        self._exact = {name: entry for entry in self.all for name in (entry.feed, entry.ticker)}
        claims: dict[str, list[Symbol]] = {}
        for entry in self.all:
            for name in dict.fromkeys(_forms(entry)):
                claims.setdefault(name, []).append(entry)
        self._by_form = {name: entries[0] for name, entries in claims.items() if len(entries) == 1}

    def resolve(self, name: str) -> Symbol:
        """The feed that is meant, whatever the case; ``EXCHANGE:`` before the name may be ours or left out.

        Raises:
            UnknownSymbol: none, or more than one could be.
        """
        exchange, _, rest = name.strip().rpartition(":")
        found = self._exact.get(rest) or self._by_form.get(rest.upper())
        if found is None or exchange.upper() not in EXCHANGES:
            raise UnknownSymbol(name)
        return found

    def search(self, query: str, *, kind: str = "", exchange: str = "", limit: int = 15) -> list[Symbol]:
        """At most ``limit`` symbols in which ``query`` occurs, the nearest first; an empty query is in all of them."""
        if exchange.upper() not in EXCHANGES:
            return []
        wanted = query.strip().upper().rpartition(":")[2]
        ranked = [
            (rank, entry.feed, entry)
            for entry in self.all
            if kind.lower() in ("", entry.kind) and (rank := _rank(entry, wanted)) is not None
        ]
        return [entry for _, _, entry in sorted(ranked, key=lambda found: found[:2])[:limit]]


def _forms(entry: Symbol) -> list[str]:
    """Every name of a feed, in capitals. Its base alone is enough where it is quoted in US dollars."""
    names = [entry.feed.upper(), entry.name]
    if entry.quote is not None:
        names += (f"{entry.base}-{entry.quote}", f"{entry.base}_{entry.quote}")
    long_names = [f"{entry.asset_class.upper()}.{name}" for name in names]
    return [*names, *long_names, *([entry.base] if entry.quote == "USD" else [])]


def _rank(entry: Symbol, wanted: str) -> int | None:
    squeezed = wanted.replace("/", "").replace("-", "").replace("_", "")
    names = (entry.base, entry.name, entry.ticker.upper().replace("/", ""))
    if squeezed in names:
        return 0
    if any(name.startswith(squeezed) for name in names):
        return 1
    return 2 if squeezed in names[2] or wanted in entry.description else None
