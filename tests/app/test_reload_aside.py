"""A reload of a large configuration is read and built beside the prices."""

import asyncio
import threading
from pathlib import Path

import pytest

from benchmarks.catalogue import made_config
from oracle_hub.app import run
from oracle_hub.app.engine import Lineup
from oracle_hub.app.lineup import Endpoints, build_lineup
from oracle_hub.app.run import Application
from oracle_hub.config import Config, parse_config
from oracle_hub.core.catalog import Catalog, Layout

PATIENCE_S = 60


async def test_the_loop_goes_on_while_a_configuration_is_read_and_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = made_config(3, str(tmp_path), "127.0.0.1:9", hermes=False)
    loop, turns = asyncio.get_running_loop(), []

    def turned() -> bool:
        """Whether the loop does something before this returns."""
        went_on = threading.Event()
        loop.call_soon_threadsafe(went_on.set)
        return went_on.wait(PATIENCE_S)

    def load() -> Config:
        turns.append(turned())
        return parse_config(text.replace("[hub]", "[hub]\nmax_divergence_bps = 40"), origin="made")

    def build(config: Config, endpoints: Endpoints, before: Lineup | None = None) -> Lineup:
        if before is not None:
            turns.append(turned())
        return build_lineup(config, endpoints, before)

    monkeypatch.setattr(run, "build_lineup", build)
    make_layout, of_loop, aside = Layout.__init__, threading.get_ident(), list[bool]()

    def lay_out(self: Layout, catalog: Catalog) -> None:
        aside.append(threading.get_ident() != of_loop)
        make_layout(self, catalog)

    monkeypatch.setattr(Layout, "__init__", lay_out)
    async with Application(parse_config(text, origin="made"), load=load) as application:
        before = application.config_hash
        aside.clear()
        await application.reload()
        assert turns == [True, True]
        assert aside == [True]  # the hub finds it made
        assert application.config_hash != before
        assert application.pump.engine.hub.catalog.feeds[0].max_divergence_bps == 40
