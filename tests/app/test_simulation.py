"""What a configuration makes the emulator play, what is said when it can't keep up, and what each link carries."""

from pathlib import Path

import pytest

from feeds.addresses import ASSETS
from feeds.emulator.catalogue import Catalogue, made_id
from feeds.emulator.emulator import Emulator
from oracle_hub.app.adding import Wanted, added
from oracle_hub.app.lineup import build_lineup, journaled_endpoints
from oracle_hub.app.simulation import emulator_settings, pace_warning, read_at
from oracle_hub.config import Config, parse_config
from oracle_hub.core.source import Open

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
CATALOGUE = (DEPLOY / "simulate-catalogue.toml").read_text()


def configured(count: int, text: str = CATALOGUE) -> Config:
    """A simulation with so many further feeds, as ``oracle-hub feeds add --derived`` makes it."""
    before = parse_config(text, origin="hub.toml")
    wanted = [Wanted(feed=f"F{number:04}/USD", derived=True) for number in range(count)]
    after, _ = added(text, before, wanted, {}, origin="hub.toml")
    return parse_config(after, origin="hub.toml")


def test_a_simulation_takes_any_feed() -> None:
    config = configured(3)
    assert dict(config.feeds["F0002/USD"].accounts) == {
        "lazer": made_id("doves.lazer", "F0002/USD"),
        "chainlink": made_id("chainlink.store", "F0002/USD"),
        "pyth": made_id("pyth.hermes", "F0002/USD"),
    }
    played = {(one.feed, one.kind): (one.at, one.key) for one in read_at(config)}
    assert played["SOL/USD", "doves.lazer"] == (ASSETS["SOL/USD"].lazer, "feeds.SOL/USD.accounts.lazer")
    assert Catalogue(config.feeds, read_at(config)).further == ["F0000/USD", "F0001/USD", "F0002/USD"]


def test_a_further_way_is_played_too() -> None:
    text = CATALOGUE.replace('[feeds."SOL', '[sources.pyth.ways.account]\nkind = "pyth.receiver"\n[feeds."SOL')
    account = made_id("pyth.receiver", "F0000/USD")
    way = "[sources.pyth.ways.account]\n"
    given = configured(1, text)
    assert ("F0000/USD", "pyth.receiver") not in {(one.feed, one.kind) for one in read_at(given)}
    own = f'{way}accounts = {{"F0000/USD" = "{account}"}}\n'
    base, _ = added(text, parse_config(text, origin="x"), [Wanted(feed="F0000/USD", derived=True)], {}, origin="x")
    found = {
        one.kind: one for one in read_at(parse_config(base.replace(way, own), origin="x")) if one.feed != "SOL/USD"
    }
    receiver = found["pyth.receiver"]
    assert (receiver.at, receiver.key) == (account, "sources.pyth.ways.account.accounts.F0000/USD")


@pytest.mark.parametrize(("count", "slow"), [(10, False), (2_000, False), (6_000, True)])
def test_more_feeds_than_the_pace_bears_are_said(count: int, slow: bool) -> None:
    config = configured(1)
    line = pace_warning(config, count * 3 * 1_000_000 // 1_200)
    assert (line is not None) is slow
    if line is not None:
        assert line == (
            "emulator.updates_per_s: each feed is updated every 15.0 s at most, and lazer of F0000/USD is too old "
            "after 15 s: raise it, if the machine bears it, or sources.lazer.max_age_ms to 19000"
        )


def test_settings_follow_the_section() -> None:
    text = CATALOGUE + 'updates_per_s = 50\nprices = { "SOL/USD" = "7.5" }\n'
    settings = emulator_settings(configured(20, text))
    assert (settings.updates_per_s, dict(settings.prices)) == (50, {"SOL/USD": "7.5"})
    assert Emulator(settings=settings, now_us=lambda: 1_795_000_000_000_000).every_us == 1_200_000


def test_each_data_streams_link_asks_for_a_hundred_feeds_at_most() -> None:
    config = configured(110, (DEPLOY / "simulate-signed.toml").read_text())
    lineup = build_lineup(config, journaled_endpoints(config))
    parts = {way.link: len(way.feeds) for way in lineup.ways if way.source == "streams"}
    assert parts == {
        f"streams:{number}.{place}": size for number in (1, 2, 3, 4) for place, size in ((1, 100), (2, 15))
    }
    asked = [one for name in parts for one in lineup.links[name].connect(0) if isinstance(one, Open)]
    assert len(asked) == 8 and all(len(one.url) < 8_000 for one in asked)


def test_each_hermes_link_carries_its_own_hundred_feeds() -> None:
    config = configured(248)
    lineup = build_lineup(config, journaled_endpoints(config))
    parts = {way.link: way.feeds for way in lineup.ways if way.source == "pyth"}
    assert sorted(map(len, parts.values())) == [53, 53, 100, 100, 100, 100]
    for host in ("hermes:1", "hermes:2"):
        assert {feed for link, feeds in parts.items() if link.startswith(host) for feed in feeds} == set(config.feeds)
    assert all(len(way.feeds) == 253 for way in lineup.ways if way.source != "pyth")
    again = build_lineup(config, journaled_endpoints(config), lineup)
    assert again.ways == lineup.ways
