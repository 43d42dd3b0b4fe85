"""Every kind of source that a configuration knows is read from accounts or has links of its own, never both."""

import re

import pytest

from benchmarks.catalogue import made_asset, made_config
from feeds.addresses import ASSETS
from feeds.registry import SOURCES
from oracle_hub.app.hosted import HOSTED, Host
from oracle_hub.app.independence import ORACLES
from oracle_hub.app.lineup import build_lineup, endpoints_of
from oracle_hub.config import AGGREGATES, KINDS, SourceSection, parse_config
from oracle_hub.core.source import Open
from oracle_hub.errors import ConfigError


def test_every_kind_has_its_readers_or_its_links() -> None:
    assert set(KINDS) == set(SOURCES) | set(HOSTED)
    assert not set(SOURCES) & set(HOSTED)
    assert set(KINDS) == set(ORACLES) | set(AGGREGATES)


@pytest.mark.parametrize("kind", HOSTED)
def test_known_ids_are_accepted_by_their_kind(kind: str) -> None:
    hosted, section = HOSTED[kind], SourceSection(kind=kind, chain_id=42_161)
    for feed in ASSETS:
        known = hosted.known_id(section, feed)
        assert known is not None and hosted.accepts.fullmatch(known)
        hosted.proves(known)
    assert hosted.known_id(section, "NO/FEED") is None
    assert not hosted.accepts.fullmatch("no id/")


def test_hosts_hide_what_authorises_them() -> None:
    assert "top" not in repr(Host("https://top", "top", "top", "https://top"))


def made_lineup(n_feeds: int, *, twice: bool = False) -> dict[str, str]:
    """URL of each Hermes stream of a made catalogue, by its link."""
    text = made_config(n_feeds, "var", "127.0.0.1:1", hermes=True)
    if twice:
        text = text.replace(made_asset(n_feeds - 1).hermes_id, "0x" + made_asset(0).hermes_id.upper())
    config = parse_config(text, origin="made")
    links = build_lineup(config, endpoints_of(config)).links
    return {
        name: effect.url
        for name, link in links.items()
        for effect in link.connect(1)
        if name.startswith("hermes:") and isinstance(effect, Open)
    }


def test_a_large_catalogue_has_a_hermes_stream_for_each_hundred_feeds() -> None:
    """One URL with all ids would be refused by servers, and one event with all prices hold up everything else."""
    assert list(made_lineup(100)) == ["hermes:1"]
    streams = made_lineup(250)
    assert list(streams) == ["hermes:1.1", "hermes:1.2", "hermes:1.3"]
    ids = [re.findall(r"ids\[\]=([0-9a-f]{64})", url) for url in streams.values()]
    assert [len(one) for one in ids] == [100, 100, 50]
    assert [one for part in ids for one in part] == [made_asset(number).hermes_id for number in range(250)]
    assert all(len(url) < 8_000 for url in streams.values())


def test_one_id_for_two_feeds_is_refused_whatever_stream_they_are_in() -> None:
    with pytest.raises(ConfigError, match="source pyth: feeds F0000/USD and F0149/USD have one price id"):
        made_lineup(150, twice=True)
