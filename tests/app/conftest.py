"""A rig with two feeds whose accounts exist and were just written."""

from pathlib import Path

import pytest

from oracle_hub.config import Config, parse_config
from tests.app.rig import SIMULATION, Rig


@pytest.fixture
def simulation() -> Config:
    return parse_config(SIMULATION, origin="simulation")


@pytest.fixture
async def rig(tmp_path: Path, simulation: Config) -> Rig:
    rig = Rig(tmp_path / "journal", simulation)
    for feed in simulation.feeds:
        rig.chain.custody(feed)
        rig.chain.aggregate(feed, 100_00000000, rig.now_s)
        rig.chain.store(feed, 100_00000000, rig.now_s)
    return rig
