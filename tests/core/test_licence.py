"""The wall by value: what of a batch, an input, a distance and a text may leave, under each licence."""

from collections.abc import Mapping

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oracle_hub.core.catalog import Catalog, FeedSpec, Redistribute
from oracle_hub.core.hub import Batch, Decision, Hub, batch_digest
from oracle_hub.core.licence import (
    tightened,
    told_batch,
    told_decision,
    told_inputs,
    told_ratio,
    told_text,
    whole_bps,
)
from oracle_hub.core.price import divergence_bps
from oracle_hub.core.selector import BIT_A_BARRED, BIT_B_BARRED
from oracle_hub.core.source import PriceUpdate
from oracle_hub.errors import ConfigError
from oracle_hub.stream.messages import encode, feed_entry, recency_us, view

T = 1_790_000_000_000_000
P, A, B = "doves", "streams", "pyth"
NO, CHOSEN, FULL = Redistribute.NO, Redistribute.CHOSEN, Redistribute.FULL
PRICES = {P: 12_345_00000000, A: 12_345_67898765, B: 12_340_98989898}


def catalog(licences: Mapping[str, Redistribute], name: str = "X/USD") -> Catalog:
    ages = dict.fromkeys((P, A, B), 5_000_000)
    return Catalog(
        [FeedSpec(feed=name, primary=P, verifiers=(A, B), max_age_us=ages, redistribute=licences)],
    )


def update(source: str, mantissa: int, at_us: int = T) -> PriceUpdate:
    return PriceUpdate(source, f"{source}:1", "X/USD", mantissa, at_us - 1_000, at_us, 77, 3, True, "acc")


def batch_of(licences: Mapping[str, Redistribute], *sources: str, prices: Mapping[str, int] = PRICES) -> Batch:
    hub = Hub(catalog(licences), epoch=1, config_hash="x", started_us=T, warmup_us=0)
    for source in sources or (P, A, B):
        hub.apply(update(source, prices[source]), T)
    batch = hub.step(T)
    assert batch is not None
    return batch


def shown(licences: Mapping[str, Redistribute], *sources: str, prices: Mapping[str, int] = PRICES) -> str:
    """What a subscriber with detail full is told."""
    (decision,) = told_batch(batch_of(licences, *sources, prices=prices), catalog(licences)).decisions
    return encode(feed_entry(decision, view(decision, T), full=True)).decode()


@pytest.mark.parametrize("licence", [NO, CHOSEN])
def test_an_input_tells_everything_but_its_price(licence: Redistribute) -> None:
    text = shown({A: licence})
    entry = msgspec.json.decode(text)
    assert entry["inputs"][A] == {
        "role": "verifier",
        "status": "ok",
        "price": None,
        "publish_time_us": T - 1_000,
        "received_us": T,
        "age_ms": 1,
        "divergence_bps": 1,
        "account": "acc",
        "slot": 3,
        "transport": "streams:1",
        "verified": True,
        "withheld": "licence",
    }
    assert str(PRICES[A]) not in text
    assert entry["inputs"][B] == {**entry["inputs"][B], "price": str(PRICES[B]), "divergence_bps": 3.24}
    assert "withheld" not in entry["inputs"][B]


def test_who_is_chosen_has_its_price_once() -> None:
    """``chosen``: as the price, and not beside it."""
    text = shown({A: CHOSEN, B: CHOSEN}, A, B)
    entry = msgspec.json.decode(text)
    assert (entry["source"], entry["price"], entry["state"]) == (A, str(PRICES[A]), "degraded")
    assert entry["inputs"][A]["price"] is None and text.count(str(PRICES[A])) == 1
    assert str(PRICES[B]) not in text


def test_without_a_choice_distances_are_from_a_hidden_primary_and_tell_no_digit_of_it() -> None:
    prices = {P: 10_000_00000000, A: 10_100_12345678, B: 10_300_00000000}
    entry = msgspec.json.decode(shown({P: CHOSEN}, prices=prices))
    assert (entry["state"], entry["price"]) == ("none", None)
    assert [entry["inputs"][source]["divergence_bps"] for source in (P, A, B)] == [0, 100, 300]
    assert divergence_bps(prices[A], prices[P]) == 100.12, "which beside A's price would be P's"
    assert entry["inputs"][A]["price"] == str(prices[A])


def test_where_all_is_told_nothing_is_copied_and_digests_are_as_they_were() -> None:
    plain = batch_of({})
    assert told_batch(plain, catalog({})) is plain
    assert told_decision(plain.decisions[0], catalog({})) is plain.decisions[0]
    assert batch_digest(plain) == batch_digest(batch_of({A: NO})), "the digest is of what was decided"
    assert b"withheld" not in msgspec.json.encode(plain)
    assert told_inputs(plain.decisions[0].inputs, catalog({"other": NO}).feeds[0]) == plain.decisions[0].inputs


def test_what_left_stays_out_when_it_is_told_again() -> None:
    once = told_batch(batch_of({A: NO}), catalog({A: NO}))
    assert told_batch(once, catalog({A: NO})) == once
    assert recency_us(told_batch(batch_of({P: CHOSEN}), catalog({P: CHOSEN})).decisions[0]) == T - 1_000


def test_a_last_word_has_nothing_to_withhold() -> None:
    farewell: Decision = msgspec.structs.replace(batch_of({A: NO}).decisions[0], feed="GONE", inputs=())
    assert told_decision(farewell, catalog({A: NO})) is farewell


def test_the_fallback_passes_over_who_may_not_leave() -> None:
    said = {}
    for name, licences in (("none", {}), ("A", {A: NO}), ("B", {B: NO}), ("both", {A: NO, B: NO})):
        (decision,) = batch_of(licences, A, B).decisions
        said[name] = (decision.source, decision.reason.value)
    unusable = "primary_unusable"
    assert said == {
        "none": (A, unusable),
        "A": (B, unusable),
        "B": (A, unusable),
        "both": (None, "not_redistributable"),
    }
    assert [catalog(one).feeds[0].barred for one in ({A: NO}, {B: NO}, {A: CHOSEN, B: FULL})] == [
        BIT_A_BARRED,
        BIT_B_BARRED,
        0,
    ]
    with pytest.raises(ConfigError, match=r"feeds\.X/USD\.primary: the licence of doves forbids"):
        catalog({P: NO})


def test_a_reload_tells_a_feed_anew_under_its_new_licence() -> None:
    hub = Hub(catalog({}), epoch=1, config_hash="x", started_us=T, warmup_us=0)
    for source in (P, A, B):
        hub.apply(update(source, PRICES[source]), T)
    assert hub.step(T) is not None and hub.step(T) is None
    hub.reload(catalog({A: NO}), "y")
    batch = hub.step(T + 1)
    assert batch is not None and batch.decisions[0].mantissa == PRICES[P]
    hub.reload(catalog({A: NO}), "z")
    assert hub.step(T + 2) is None
    assert [tightened(catalog(one), catalog(other)) for one, other in LICENCE_CHANGES] == [
        True,
        True,
        True,
        False,
        False,
    ]
    assert not tightened(catalog({A: FULL}), Catalog([])), "who is gone is not told at all"


LICENCE_CHANGES: list[tuple[Mapping[str, Redistribute], Mapping[str, Redistribute]]] = [
    ({}, {A: CHOSEN}),
    ({A: CHOSEN}, {A: NO}),
    ({A: NO, B: FULL}, {A: FULL, B: CHOSEN}),
    ({A: NO}, {A: CHOSEN}),
    ({A: FULL}, {}),
]


@given(a=st.integers(1, 2**62), b=st.integers(1, 2**62))
def test_whole_basis_points_are_the_nearest(a: int, b: int) -> None:
    smaller = min(a, b)
    assert abs(whole_bps(a, b) * smaller - abs(a - b) * 10_000) * 2 <= smaller
    assert told_ratio(a, b, exact=True) == (a - b) / b
    assert round(told_ratio(a, b, exact=False) * 10_000) == (20_000 * (a - b) + b) // (2 * b) or a > 10**6 * b


def test_a_text_loses_its_numbers() -> None:
    assert told_text("price 12345.67898765e-8 is not positive") == "price …e-8 is not positive"
    assert told_text("HTTP 401 of wss://h: 3 of 4 signed, 1_234,567") == "HTTP 401 of wss://h: 3 of 4 signed, …"
