"""``oracle-hub charts``: bars, and doors for chart and price clients, from the stream of a hub."""

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import orjson

from oracle_hub.app.charts import charts_of, listening
from oracle_hub.app.run import with_overrides
from oracle_hub.charts.app import Charts
from oracle_hub.cli.asking import hub_address, token_headers
from oracle_hub.cli.console import console
from oracle_hub.cli.run import simulation_text
from oracle_hub.cli.tail import stream_url
from oracle_hub.config import Config, load_config, parse_canonical, parse_config
from oracle_hub.errors import SourceError


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "config", type=Path, nargs="?", metavar="CONFIG", help="[charts]: a file of its own, or the hub's"
    )
    parser.add_argument(
        "--hub",
        metavar="URL",
        action="append",
        help="where the hub is (default: charts.hubs, else by [server]: http://127.0.0.1:8080); again for another hub, "
        "which is followed while the first is away",
    )
    parser.add_argument("--host", help="address to listen on (default 127.0.0.1)")
    parser.add_argument(
        "--allowed-host", metavar="NAME", action="append", help="a name to answer to (also *.NAME, *); repeatable"
    )
    parser.add_argument("--port", type=int, metavar="N", help="port to listen on (default 8081; 0 takes a free one)")
    parser.add_argument("--state", metavar="DIR", help="directory of the store (default var)")
    parser.add_argument(
        "--database", type=Path, metavar="FILE", help="the store itself (default: charts.database in that directory)"
    )
    parser.add_argument("--log-level", default="info", choices=("debug", "info", "warning", "error"))
    parser.add_argument("--json", action="store_true", help="print what was started as one JSON line")
    parser.add_argument(
        "--companion",
        action="store_true",
        help="for oracle-hub run: the configuration is a line on standard input, and its end is the end",
    )


COMPANION_NICENESS = 10
"""A companion shares the machine with the hub, and keepers come before charts."""


def run(options: argparse.Namespace) -> int:
    if options.companion:
        os.nice(COMPANION_NICENESS)
    logging.basicConfig(
        level=options.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    for chatty in ("websockets", "aiohttp", "asyncio"):
        logging.getLogger(chatty).setLevel(max(logging.INFO, logging.getLogger().level))
    logging.getLogger("oracle_hub.client").setLevel(logging.ERROR)  # the recorder says once what matters
    asyncio.run(_serve(_config(options), options))
    return 0


def _config(options: argparse.Namespace) -> Config:
    if options.companion:
        return parse_canonical(sys.stdin.readline())
    if options.config is not None:
        config = load_config(options.config, base=simulation_text())  # charts read no source
    else:
        config = parse_config(simulation_text(), origin="simulation")
    database = None if options.database is None else str(options.database.absolute())  # from here, not from --state
    charts = {
        "host": options.host,
        "port": options.port,
        "allowed_hosts": options.allowed_host,
        "database": database,
    }
    return with_overrides(config, charts=charts, state={"directory": options.state})


async def _serve(config: Config, options: argparse.Namespace) -> None:
    """Until SIGINT or SIGTERM; as a companion until standard input ends, whatever ends it."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    if options.companion:
        loop.add_signal_handler(signal.SIGINT, lambda: None)  # Ctrl-C is the hub's to act on
        loop.add_reader(sys.stdin.fileno(), ended.set)  # nothing more is ever written: readable is closed
    else:
        loop.add_signal_handler(signal.SIGINT, ended.set)
    host = f"[{config.server.host}]" if ":" in config.server.host else config.server.host
    given = options.hub or config.charts.hubs or (f"http://{host}:{config.server.port}",)
    name = "charts.hubs" if config.charts.hubs and not options.hub else "--hub"
    hubs = [hub_address(hub, name) for hub in given]
    async with listening(charts_of(config, [stream_url(hub) for hub in hubs], token_headers()), config) as charts:
        charts.on_failure = ended.set
        _announce(charts, hubs, as_json=options.json or options.companion)
        await ended.wait()
        if charts.failed:
            raise SourceError("the recorder failed; the log has the reason")


def _announce(charts: Charts, hubs: Sequence[str], *, as_json: bool) -> None:
    if as_json:
        sys.stdout.buffer.write(orjson.dumps({"url": charts.url, "hub": hubs[0], "hubs": hubs}) + b"\n")
        sys.stdout.buffer.flush()
        return
    out = console()
    out.print(f"charts     {charts.url}/")
    out.print(f"bars       {charts.url}/v1/bars/SOL-USD?resolution=1")
    out.print(f"hermes     {charts.url}/hermes")
    out.print(f"readiness  {charts.url}/readyz")
    out.print(f"hub        {', '.join(hubs)}")
    out.print("Ctrl-C ends it.")
