"""A hub on a stage, charts beside it, and somebody who asks them. A module may have a stage of its own."""

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from oracle_hub.charts.app import Charts
from tests.charts.charts_stage import ChartsStage


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[ChartsStage]:
    stage = await ChartsStage(tmp_path / "charts.sqlite").start_hub()
    yield stage
    await stage.stop()


@pytest.fixture
async def charts(stage: ChartsStage) -> AsyncIterator[Charts]:
    async with stage.charts() as charts:
        yield charts


@pytest.fixture
async def http(charts: Charts) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(charts.url) as http:
        yield http
