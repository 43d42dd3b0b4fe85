"""Every kind of source that a configuration knows is read from accounts or has links of its own, never both."""

import pytest

from feeds.addresses import ASSETS
from feeds.registry import SOURCES
from oracle_hub.app.hosted import HOSTED, Host
from oracle_hub.app.independence import ORACLES
from oracle_hub.config import AGGREGATES, KINDS


def test_every_kind_has_its_readers_or_its_links() -> None:
    assert set(KINDS) == set(SOURCES) | set(HOSTED)
    assert not set(SOURCES) & set(HOSTED)
    assert set(KINDS) == set(ORACLES) | set(AGGREGATES)


@pytest.mark.parametrize("kind", HOSTED)
def test_known_ids_are_accepted_by_their_kind(kind: str) -> None:
    hosted = HOSTED[kind]
    for feed in ASSETS:
        known = hosted.known_id(feed)
        assert known is not None and hosted.accepts.fullmatch(known)
    assert hosted.known_id("NO/FEED") is None
    assert not hosted.accepts.fullmatch("no id/")


def test_hosts_hide_what_authorises_them() -> None:
    assert "top" not in repr(Host("https://top", "top", "top", "https://top"))
