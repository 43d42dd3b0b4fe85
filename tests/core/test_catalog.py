"""The catalog: order, indices, and what it refuses."""

from typing import Any

import msgspec
import pytest

from oracle_hub.core.catalog import Catalog, FeedSpec
from oracle_hub.core.selector import Policy
from oracle_hub.errors import ConfigError

AGES = {"doves": 10_000_000, "chainlink": 60_000_000, "pyth": 5_000_000}


def spec(feed: str = "SOL/USD", **changes: Any) -> FeedSpec:
    values = {"primary": "doves", "verifiers": ("chainlink", "pyth"), "max_age_us": AGES} | changes
    return FeedSpec(feed=feed, **values)


def test_defaults_fail_safe() -> None:
    sol = spec()
    assert (sol.expo, sol.policy, sol.max_divergence_bps, sol.max_conf_bps) == (-8, Policy.STRICT, 50, 0)
    assert Catalog([sol]).max_future_us == 2_000_000


def test_roles_then_references() -> None:
    sol = spec(references=("lazer", "redstone"), max_age_us=AGES | {"lazer": 1, "redstone": 1})
    assert sol.roles == ("doves", "chainlink", "pyth")
    assert sol.sources == ("doves", "chainlink", "pyth", "lazer", "redstone")


def test_feeds_and_sources_keep_the_order_of_the_config() -> None:
    catalog = Catalog(
        [
            spec("SOL/USD"),
            spec("BTC/USD", primary="pyth", verifiers=("lazer", "doves"), max_age_us=AGES | {"lazer": 1}),
        ],
        max_future_us=7,
    )
    assert [feed.feed for feed in catalog.feeds] == ["SOL/USD", "BTC/USD"]
    assert catalog.feed_index == {"SOL/USD": 0, "BTC/USD": 1}
    assert catalog.sources == ("doves", "chainlink", "pyth", "lazer")
    assert catalog.source_index == {"doves": 0, "chainlink": 1, "pyth": 2, "lazer": 3}
    assert catalog.max_future_us == 7


def test_no_feeds_is_a_catalog() -> None:
    empty = Catalog([])
    assert (empty.feeds, empty.sources) == ((), ())


def test_a_feed_cannot_change() -> None:
    with pytest.raises(AttributeError):
        spec().max_divergence_bps = 60  # type: ignore[misc]
    assert msgspec.structs.replace(spec(), max_divergence_bps=60).max_divergence_bps == 60


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"primary": "pyth"}, "feeds.SOL/USD: a source stands in two roles"),
        ({"verifiers": ("pyth", "pyth")}, "a source stands in two roles"),
        ({"references": ("doves",)}, "a source stands in two roles"),
        ({"max_divergence_bps": -1}, r"feeds.SOL/USD.max_divergence_bps: -1 is not within 0 to 10000"),
        ({"max_divergence_bps": 10_001}, "max_divergence_bps: 10001"),
        ({"max_conf_bps": -1}, "max_conf_bps: -1"),
        ({"max_conf_bps": 10_001}, "max_conf_bps: 10001"),
        ({"expo": 1}, "expo: 1 is not within -18 to 0"),
        ({"expo": -19}, "expo: -19"),
        ({"max_age_us": {"doves": 1, "chainlink": 1}}, "source pyth has no positive max_age"),
        ({"max_age_us": AGES | {"pyth": 0}}, "source pyth has no positive max_age"),
        ({"references": ("lazer",)}, "source lazer has no positive max_age"),
    ],
)
def test_a_feed_that_cannot_be_decided_is_refused_by_name(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Catalog([spec(**changes)])


@pytest.mark.parametrize(
    "changes", [{"max_divergence_bps": 0}, {"max_divergence_bps": 10_000}, {"expo": -18}, {"expo": 0}]
)
def test_limits_are_inclusive(changes: dict[str, Any]) -> None:
    assert Catalog([spec(**changes)]).feeds[0] == spec(**changes)


def test_a_feed_named_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="feeds: a feed is named twice"):
        Catalog([spec(), spec()])


def test_a_layout_is_shared_until_limits_change() -> None:
    catalog = Catalog([spec(), spec(feed="BTC/USD", references=("lazer",), max_age_us=AGES | {"lazer": 9})])
    layout = catalog.layout
    assert catalog.layout is layout
    assert layout.by_feed == [(0, 1, 2), (4, 5, 6, 7)]
    assert layout.inputs[1] == (
        ("doves", "primary", 4), ("chainlink", "verifier", 5), ("pyth", "verifier", 6), ("lazer", "reference", 7),
    )  # fmt: skip
    assert layout.cells["pyth", "BTC/USD"] == 6 and ("lazer", "SOL/USD") not in layout.cells
    assert layout.peers == [(1, 2), (0, 2), (0, 1), None, (5, 6), (4, 6), (4, 5), None]
    assert layout.role_cells.tolist() == [[0, 4], [1, 5], [2, 6]]
    limited = catalog.with_limits(spec(max_age_us=AGES | {"doves": 77}))
    assert limited.layout.max_age_us[0] == 77 != layout.max_age_us[0]
    assert layout.max_age_us.tolist() == [*AGES.values(), 0, *AGES.values(), 9]


def test_a_catalog_without_feeds_has_a_layout() -> None:
    assert Catalog([]).layout.role_cells.shape == (3, 0)
