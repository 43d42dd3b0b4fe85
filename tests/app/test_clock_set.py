"""A clock that is set while the program runs: whoever waits for an instant of the old one is told."""

from pathlib import Path

import pytest

from benchmarks.catalogue import made_config
from oracle_hub.alerts.alert import Kind
from oracle_hub.app.run import Application
from oracle_hub.clock import ManualClock
from oracle_hub.config import parse_config

S = 1_000_000


@pytest.mark.parametrize("by_s", [-3_600, 3_600])
async def test_links_start_over_and_the_alerts_of_the_process_keep_their_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_s: int
) -> None:
    text, clock = made_config(1, str(tmp_path), "127.0.0.1:9", hermes=False), ManualClock()
    async with Application(parse_config(text, origin="made"), clock=clock) as application:
        restarted: list[str] = []
        monkeypatch.setattr(application.supervisor, "restart", restarted.append)
        alerting = application.alerting
        for wrong in (True, False):
            alerting.condition(application.now_us(), Kind.JOURNAL_LAG, "write", wrong, "full")
        clock.step_wall(by_s * S)
        application.pump.check_clock()
        clock.advance(application.clock.reanchor_after_us)
        before_us = application.now_us()
        application.pump.check_clock()
        assert application.now_us() == before_us + by_s * S
        assert restarted == ["our clock was set anew"]

        def lagging() -> bool:
            return any(alert.kind is Kind.JOURNAL_LAG for alert in alerting.open)

        alerting.advance(application.now_us())
        assert lagging()
        alerting.advance(application.now_us() + 5 * S)
        assert not lagging()
