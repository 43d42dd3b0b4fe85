"""A hub that ends before its charts serve does not wait for them, and has nothing to say of it."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from oracle_hub.app import companion
from oracle_hub.app.companion import Companion
from oracle_hub.config import load_config
from tests.patience import PATIENCE_S

CONFIG = load_config(Path(__file__).parents[2] / "deploy" / "simulate.toml")


async def started(charts: Companion) -> int:
    """The child's process id, once there is one."""
    while True:
        if charts.pid is not None:
            return charts.pid
        await asyncio.sleep(0)


async def test_charts_that_do_not_serve_yet_are_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    busy = "import signal; signal.pause()"  # as with its start: deaf to its input
    monkeypatch.setattr(companion, "PROGRAM", (sys.executable, "-c", busy))
    monkeypatch.setattr(companion, "STOP_S", 2 * PATIENCE_S)
    async with asyncio.timeout(PATIENCE_S):
        async with Companion(CONFIG, lambda url: None) as charts:
            charts.start("http://127.0.0.1:9")
            child = await started(charts)
            assert os.getsid(child) == child  # what Ctrl-C is sent to is not its group
        assert charts.pid is None
    assert caplog.messages == []
