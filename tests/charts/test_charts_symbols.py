"""Feeds under the names of chart clients: which are understood, and which are refused as two could be meant."""

import pytest

from oracle_hub.charts.symbols import Symbols, UnknownSymbol, symbol

FIVE = Symbols((name, -8) for name in ("SOL/USD", "ETH/USD", "BTC/USD", "USDC/USD", "USDT/USD"))


@pytest.mark.parametrize(
    "name",
    [
        *("Crypto.SOL/USD", "SOL/USD", "SOLUSD", "SOL", "sol/usd", "CRYPTO.SOL/USD", "SOL-USD", "SOL_USD"),
        *("Crypto.SOLUSD", "ORACLEHUB:SOLUSD", "PYTH:Crypto.SOL/USD", "pyth:sol", " SOL "),
    ],
)
def test_every_form_means_the_feed(name: str) -> None:
    assert FIVE.resolve(name).feed == "SOL/USD"


@pytest.mark.parametrize(
    "name",
    [
        "DOGE/USD",
        "",
        "SO",
        "SOL/",
        "/USD",
        "USD",
        "Equity.US.SOL/USD",
        "FX.SOL/USD",
        "BINANCE:SOLUSD",
        "Crypto.",
        "SOLUSDT",
    ],
)
def test_any_other_name_is_refused_with_the_name_in_the_error(name: str) -> None:
    with pytest.raises(UnknownSymbol) as refused:
        FIVE.resolve(name)
    assert str(refused.value) == f"unknown_symbol: {name}"


def test_a_name_that_could_mean_two_feeds_means_none() -> None:
    symbols = Symbols([("A/BUSD", -8), ("AB/USD", -8), ("BTC/USD", -8), ("BTC/EUR", -8)])
    with pytest.raises(UnknownSymbol):
        symbols.resolve("ABUSD")
    assert symbols.resolve("A/BUSD").feed == "A/BUSD"
    assert symbols.resolve("Crypto.AB/USD").feed == "AB/USD"
    assert symbols.resolve("BTC").feed == "BTC/USD"
    assert symbols.resolve("BTCEUR").feed == "BTC/EUR"


def test_names_are_told_apart_by_case_where_only_that_differs() -> None:
    symbols = Symbols([("mSOL/USD", -8), ("MSOL/USD", -8)])
    assert [symbols.resolve(name).feed for name in ("mSOL/USD", "MSOL/USD")] == ["mSOL/USD", "MSOL/USD"]
    with pytest.raises(UnknownSymbol):
        symbols.resolve("Msol/USD")


def test_what_a_symbol_says_of_its_feed() -> None:
    sol = symbol("SOL/USD", -8)
    assert (sol.name, sol.ticker, sol.description) == ("SOLUSD", "Crypto.SOL/USD", "SOLANA / US DOLLAR")
    assert (sol.kind, sol.pricescale) == ("crypto", 100_000_000)
    assert (symbol("EUR/USD", -5).ticker, symbol("EUR/USD", -5).kind, symbol("EUR/USD", -5).pricescale) == (
        "FX.EUR/USD",
        "forex",
        100_000,
    )
    assert (symbol("XAU/USD", -3).ticker, symbol("XAU/USD", 0).pricescale) == ("Metal.XAU/USD", 1)
    assert (symbol("SOL/EUR", -8).asset_class, symbol("INDEX", -8).name) == ("Crypto", "INDEX")


def test_search_finds_the_nearest_first() -> None:
    def found(query: str, **options: object) -> list[str]:
        return [entry.feed for entry in FIVE.search(query, **options)]  # type: ignore[arg-type]

    assert found("SOL") == ["SOL/USD"]
    assert found("usd") == ["USDC/USD", "USDT/USD", "BTC/USD", "ETH/USD", "SOL/USD"]
    assert found("USD", limit=2) == ["USDC/USD", "USDT/USD"]
    assert found("CRYPTO.ETH/USD") == ["ETH/USD"]
    assert found("bitcoin") == ["BTC/USD"]
    assert found("") == ["BTC/USD", "ETH/USD", "SOL/USD", "USDC/USD", "USDT/USD"]
    assert found("SOL", kind="crypto", exchange="PYTH") == ["SOL/USD"]
    assert found("SOL", kind="forex") == []
    assert found("SOL", exchange="BINANCE") == []
    assert found("DOGE") == []
