"""A hub whose clock is set by hand, and the charts process beside it, over real sockets."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from oracle_hub.app.charts import DOORS
from oracle_hub.charts.app import Charts, Door
from oracle_hub.charts.settings import Settings
from tests.client.client_stage import HubStage, turns_until

SETTINGS = Settings(port=0)


@asynccontextmanager
async def charts_beside(
    hub: HubStage, database: Path, *, doors: Sequence[Door] = DOORS, **settings: object
) -> AsyncIterator[Charts]:
    """The charts process, when it has heard all feeds of the hub."""
    async with Charts(hub.url, database, msgspec.structs.replace(SETTINGS, **settings), doors=doors) as charts:
        await turns_until(lambda: charts.live.heard_us is not None)
        yield charts
