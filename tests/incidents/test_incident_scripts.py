"""What a script must say, and how it becomes events."""

from decimal import Decimal

import pytest

from oracle_hub.core.catalog import FeedSpec, Proof
from oracle_hub.core.source import PriceUpdate, Status
from oracle_hub.errors import IncidentError
from oracle_hub.incidents.library import incident, library
from oracle_hub.incidents.player import Conditions
from oracle_hub.incidents.script import Point, Script, parse
from oracle_hub.incidents.timeline import arrivals, proofs, value_at

TEXT = """
id = "some-case"
title = "t"
date = "2026-01-02"
start = 2026-01-02T00:00:00Z
asset = "A/USD"
what = "w"
constructed = "c"
teaches = "x"
sources = ["https://example.org/"]
duration_s = 10
calm_after_s = 5
[sees]
strict = "s"
quorum = "q"
[feeds."A/USD"]
truth = [{ at_s = 0, price = "100", label = "published", source = 0 }]
[[feeds."A/USD".series]]
role = "primary"
played_by = "role played by a"
wobble_bps = 0
cadence_ms = 1000
faults = [{ kind = "FAULT", windows = [[2, 4]], label = "constructed" }]
[[feeds."A/USD".series]]
role = "verifier_1"
played_by = "role played by b"
[[feeds."A/USD".series]]
role = "verifier_2"
played_by = "role played by c"
""".replace("FAULT", "silent")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('price = "100", label = "published", source = 0', 'price = "100"', "label"),
        ('label = "published", source = 0', 'label = "published"', r"feeds.A/USD.truth\[0\].source: which of the 1"),
        ('label = "published", source = 0', 'label = "published", source = 1', "which of the 1 sources"),
        ('label = "published", source = 0', 'label = "constructed", source = 0', "what is constructed has none"),
        ('label = "published", source = 0', 'label = "constructed"', "that would be a drill"),
        ('"role played by a"', '"Chainlink"', 'begins with "role played by"'),
        ('"role played by a"', '"role played by Edge, which published it"', "only lend their role"),
        ("windows = [[2, 4]]", "windows = [[4, 2]]", "from and until"),
        ('windows = [[2, 4]], label = "constructed"', "windows = [[2, 4]]", "label"),
        ('role = "verifier_2"', 'role = "verifier_1"', "one for each of"),
        ('"https://example.org/"', '"a friend"', "each is a URL"),
        ('sources = ["https://example.org/"]', "sources = []", "names who published it"),
        ("calm_after_s = 5", "calm_after_s = 10", "calm_after_s"),
        ('price = "100"', 'price = "NaN"', "no finite number"),
        ('price = "100"', 'price = "a"', "no decimal number"),
        ("at_s = 0", "at_s = 1", "the first point is at 0"),
        ('date = "2026-01-02"', 'date = "2026-01-03"', "the script's date"),
        ("duration_s", "durations", "durations"),
        ("id =", "deep = " + "[" * 5_000 + "]" * 5_000 + "\nid =", "maximum recursion depth"),
        ("id =", "id", "some.toml"),
    ],
)
def test_a_script_that_says_too_little_or_too_much_is_refused(old: str, new: str, says: str) -> None:
    assert old in TEXT
    with pytest.raises(IncidentError, match=says) as refused:
        parse(TEXT.replace(old, new), origin="some.toml")
    assert str(refused.value).startswith("some.toml: ") and "\n" not in str(refused.value)


def spec() -> FeedSpec:
    return FeedSpec(
        feed="A/USD", primary="p", verifiers=("a", "b"), max_age_us=dict.fromkeys(("p", "a", "b"), 5_000_000)
    )


def told(script: Script) -> list[tuple[float, float, int | str]]:
    """What the primary says: when it comes, its own time, and its value."""
    events: list[tuple[float, float, int | str]] = []
    for one in arrivals(script, {"A/USD": spec()}):
        at = (one.at_us - script.start_us) / 1e6
        if isinstance(one.event, PriceUpdate) and one.event.source == "p":
            events.append((at, (one.event.publish_us - script.start_us) / 1e6, one.event.mantissa))
        elif isinstance(one.event, Status) and one.event.source == "p":
            events.append((at, at, one.event.condition.value))
    return events


@pytest.mark.parametrize(
    ("fault", "more", "third"),
    [
        ("scale", 'factor = "2"', (2.12, 2.0, 200_00000000)),
        ("cap", 'value = "90"', (2.12, 2.0, 90_00000000)),
        ("floor", 'value = "110"', (2.12, 2.0, 110_00000000)),
        ("zero", 'value = "0"', (2.12, 2.12, "invalid")),
        ("ahead", "by_s = 60", (2.12, 62.0, 100_00000000)),
        ("carry", 'value = "0"', (2.12, 2.0, 100_00000000)),
        ("silent", 'value = "0"', (4.12, 4.0, 100_00000000)),
        ("delay", "by_s = 0.5", (2.62, 2.0, 100_00000000)),
    ],
)
def test_what_a_fault_does(fault: str, more: str, third: tuple[float, float, int | str]) -> None:
    script = parse(TEXT.replace('kind = "silent"', f'kind = "{fault}", {more}'), origin="x")
    assert told(script)[2] == third
    assert told(script)[0] == (0.12, 0.0, 100_00000000)
    assert len(told(script)) == (8 if fault == "silent" else 10)


def test_a_further_way_says_the_same_of_the_same_times_and_what_is_proved_is_demanded() -> None:
    further = """
[[feeds."A/USD".series]]
role = "verifier_1"
played_by = "role played by the same oracle, later"
way = "later"
lag_ms = 900
proves = true
"""
    script = parse(TEXT + further, origin="x")
    specs = {feed: Conditions().spec(feed) for feed in script.feeds}
    source = specs["A/USD"].roles[1]
    said = [one.event for one in arrivals(script, specs) if isinstance(one.event, PriceUpdate)]
    by_way = {
        way: {one.publish_us: one.mantissa for one in said if one.transport == way}
        for way in (f"{source}:1", f"{source}/later:1")
    }
    first, later = by_way.values()
    assert later and set(later) & set(first)
    assert all(first[at_us] == later[at_us] for at_us in set(first) & set(later))
    assert {one.verified for one in said if one.transport == f"{source}/later:1"} == {True}
    assert proofs(script, specs) == {source: Proof.DEMANDED}
    with pytest.raises(IncidentError, match=r"feeds.A/USD.series: a way is there twice"):
        parse(TEXT + further + further, origin="x")


def test_values_between_points() -> None:
    points = (
        Point(at_s=0, price="1", label="constructed"),
        Point(at_s=10, price="2", conf="0.5", label="constructed"),
    )
    assert value_at(points, "linear", Decimal(5)) == (Decimal("1.5"), None)
    assert value_at(points, "step", Decimal("9.999")) == (Decimal(1), None)
    assert value_at(points, "linear", Decimal(99)) == (Decimal(2), Decimal("0.5"))


def test_a_byte_order_mark_before_a_script_is_passed_over() -> None:
    assert parse("\ufeff" + TEXT, origin="some-case.toml") == parse(TEXT, origin="some-case.toml")


def test_an_incident_by_name() -> None:
    assert incident("pyth-2021").asset == "BTC/USD"
    with pytest.raises(IncidentError, match="no incident pyth-2012; did you mean pyth-2021"):
        incident("pyth-2012")
    assert next(iter(library())) == "snx-krw"
