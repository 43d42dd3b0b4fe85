"""The evidence of readiness stays readable, however many feeds there are."""

import pytest

from oracle_hub.app import explain
from oracle_hub.app.explain import readiness
from tests.app.rig import Rig

SOL, BTC = "SOL/USD", "BTC/USD"


async def test_of_many_feeds_the_worst_are_shown_and_the_rest_is_counted(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.connect()
    rig.tick(SOL, 100_00000000)
    for _ in range(12):  # beyond warm-up: the other feed is silent
        rig.manual.advance(1_000_000)
        rig.tick(SOL, 100_00000000)
        rig.pump.step()
    ready, whole = readiness(rig.pump, {}, started=True, now_us=rig.pump.clock.now_us())
    assert ready
    assert whole["states"] == {"live": 1, "none": 1}
    assert whole["omitted"] == {}
    states = {SOL: "live", BTC: "none"}
    assert whole["feeds"] == {
        feed: {"state": states[feed], "reason": rig.pump.engine.hub.decisions[feed].reason} for feed in (SOL, BTC)
    }
    monkeypatch.setattr(explain, "READINESS_ENTRIES", 1)
    _, part = readiness(rig.pump, {}, started=True, now_us=rig.pump.clock.now_us())
    assert list(part["feeds"]) == [BTC]  # type: ignore[call-overload]
    assert part["omitted"] == {"feeds": 1}
    assert part["states"] == whole["states"]


def test_a_long_warm_up_names_some_feeds() -> None:
    names = [f"F{number}" for number in range(23)]
    assert explain._names(names[:20]) == ", ".join(names[:20])
    assert explain._names(names) == ", ".join(names[:20]) + " and 3 more"
