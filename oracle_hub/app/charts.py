"""The charts process, by configuration."""

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import oracle_hub
from oracle_hub.charts import bars_http, bars_socket, description, hermes, sse, trends, udf
from oracle_hub.charts.app import Charts
from oracle_hub.charts.app import Door as ChartsDoor
from oracle_hub.charts.dashboard import hub_door, pages
from oracle_hub.charts.hermes_ids import pyth_ids
from oracle_hub.charts.resolutions import parse_resolution
from oracle_hub.charts.settings import Settings
from oracle_hub.charts.store import DEFAULT_RETENTION_DAYS, Retention
from oracle_hub.config import Config
from oracle_hub.errors import ChartsError, ConfigError
from oracle_hub.server.door import Door
from oracle_hub.server.inbound import FrameGuard

DOORS: tuple[ChartsDoor, ...] = (
    *(sse.routes, bars_http.routes, bars_socket.routes, trends.routes, description.routes),
    *(udf.routes, hermes.routes),
    *(pages.routes, hub_door.routes),
)
"""Everything that is served, beside health."""


HANDSHAKE_TIMEOUT_S = 5.0
"""A connection that has not sent a whole request head by then is cut."""
MAX_WAITING = 500
"""Connections that have not sent one yet; beyond this the oldest is cut."""
FORMER_S = 3.0
"""Charts of a hub that was killed may still have the port for so long."""
POLL_S = 0.1


def charts_of(config: Config, hubs: str | Sequence[str], headers: Mapping[str, str] | None = None) -> Charts:
    """The process that follows the stream at ``hubs`` (``ws://host:port/v1/stream``): one, or the first of several
    that is there. It does nothing yet."""
    section = config.charts
    settings = Settings(
        host=section.host,
        port=section.port,
        allowed_origins=section.allowed_origins,
        allowed_hosts=section.allowed_hosts,
        max_listeners=section.max_listeners,
        max_listeners_per_ip=section.max_listeners_per_ip,
        max_rows=section.max_rows,
        max_reads=section.max_reads,
        heartbeat_ms=section.heartbeat_ms,
        version=oracle_hub.__version__,
        pyth_ids=_pyth_ids(section.pyth_ids),
    )
    return Charts(
        hubs,
        Path(config.state.directory) / section.database,
        settings,
        retention=_retention(section.retention_days),
        headers=headers,
        gate=Door(timeout_s=HANDSHAKE_TIMEOUT_S, max_waiting=MAX_WAITING),
        make_guard=FrameGuard,
        doors=DOORS,
    )


def _pyth_ids(configured: Mapping[str, str]) -> Mapping[str, str]:
    """These ids. Raises ConfigError for one that is none, or that another feed has."""
    try:
        pyth_ids(configured)
    except ChartsError as error:
        raise ConfigError(f"charts.pyth_ids: {error}") from None
    return configured


def _retention(days: Mapping[str, int]) -> Retention:
    """The defaults, with these resolutions changed. Raises ConfigError for one that does not exist, or is too short."""
    try:
        changed = {parse_resolution(name): count for name, count in days.items()}
        retention = Retention(bars_days={**DEFAULT_RETENTION_DAYS, **changed})
        retention.check()
    except ChartsError as error:
        raise ConfigError(f"charts.retention_days: {error}") from None
    return retention


@asynccontextmanager
async def listening(charts: Charts, config: Config) -> AsyncIterator[Charts]:
    """Run it. Raises ConfigError when the port cannot be had."""
    try:
        await charts.__aenter__()
    except OSError as error:
        raise _cannot_listen(config, _words(error)) from None
    try:
        yield charts
    finally:
        await charts.__aexit__(None, None, None)


async def check_port(config: Config, patience_s: float = FORMER_S) -> None:
    """Look whether charts will be able to listen, beside a hub that listens already.

    Raises:
        ConfigError: somebody else listens there, and goes on for longer than charts of a hub that has just ended.
    """
    server, charts = config.server, config.charts
    if server.port and (charts.host, charts.port) == (server.host, server.port):
        raise _cannot_listen(config, "the hub itself does")
    loop = asyncio.get_running_loop()
    end_s = loop.time() + patience_s
    while True:
        try:
            port = await loop.create_server(asyncio.Protocol, charts.host, charts.port, start_serving=False)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or loop.time() > end_s:
                raise _cannot_listen(config, _words(error)) from None
            await asyncio.sleep(POLL_S)
        else:
            port.close()
            return


def _words(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)


def _cannot_listen(config: Config, why: str) -> ConfigError:
    where = f"{config.charts.host}:{config.charts.port}"
    return ConfigError(f"charts: cannot listen on {where} ({why}); see charts.port, --port, and --charts-port of run")
