"""``oracle-hub run``: start the hub; without a configuration, the emulator and the hub together."""

import argparse
import asyncio
import logging
import shutil
import signal
import sys
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import orjson

from oracle_hub.app.charts import check_port
from oracle_hub.app.companion import Companion, wanted
from oracle_hub.app.run import Application, serve, with_overrides
from oracle_hub.cli.console import console
from oracle_hub.config import Config, load_config, parse_config
from oracle_hub.errors import ConfigError

log = logging.getLogger(__name__)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, metavar="FILE", help="configuration (default: a simulation)")
    parser.add_argument("--host", help="address to listen on (default 127.0.0.1)")
    parser.add_argument(
        "--allowed-host", metavar="NAME", action="append", help="a name to answer to (also *.NAME, *); repeatable"
    )
    parser.add_argument("--port", type=int, metavar="N", help="port to listen on (default 8080; 0 takes a free one)")
    parser.add_argument("--workers", type=int, metavar="N", help="processes that serve (default 0: the hub itself)")
    parser.add_argument("--state", metavar="DIR", help="directory of identity and journal (default var)")
    parser.add_argument("--log-level", default="info", choices=("debug", "info", "warning", "error"))
    parser.add_argument("--json", action="store_true", help="print what was started as one JSON line")
    parser.add_argument("--no-charts", action="store_true", help="start no charts beside the hub")
    parser.add_argument("--charts-port", type=int, metavar="N", help="port of the charts (default 8081; 0: a free one)")
    simulation = parser.add_argument_group("simulations")
    simulation.add_argument("--tape", metavar="FILE", help="play a price series instead of a random walk")
    simulation.add_argument("--manifest", metavar="FILE", help="what the tape's columns are (docs/emulator.md)")
    simulation.add_argument("--noise", type=float, metavar="BPS", help="noise per oracle; 0 plays a tape exactly")
    simulation.add_argument("--speed", type=float, metavar="X", help="times real time (default 1)")
    simulation.add_argument("--seed", type=int, metavar="N", help="seed of the walk and the noise")
    simulation.add_argument("--start", metavar="WHEN", help="seconds, or UTC time, into the tape")
    simulation.add_argument("--loop", action="store_true", default=None, help="start the tape over at its end")
    simulation.add_argument("--faults", metavar="FILE", help="script of faults to play (docs/emulator.md)")
    simulation.add_argument("--emulator-port", type=int, metavar="N", help="first port of the emulator's servers")


def run(options: argparse.Namespace) -> int:
    # Until there is a hub that reads its configuration anew, a wish to do so must not end the program.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    logging.basicConfig(
        level=options.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    for chatty in ("websockets", "aiohttp", "asyncio"):
        logging.getLogger(chatty).setLevel(max(logging.INFO, logging.getLogger().level))  # they log URLs and headers
    load = _loader(options)
    config = load()
    insists = config.charts.enabled is True or options.charts_port is not None
    asyncio.run(_serve(config, load, as_json=options.json, insists=insists))
    return 0


async def _serve(config: Config, load: Callable[[], Config], *, as_json: bool, insists: bool) -> None:
    """The hub, with charts beside it where they are wanted. ``insists``: it does not go on without them."""

    async def announce_alone(application: Application) -> None:
        _announce(application, as_json=as_json)

    if not wanted(config):
        await serve(config, load, announce_alone)
        return
    async with Companion(config, lambda url: _announce_charts(url, as_json=as_json)) as charts:

        async def announce(application: Application) -> None:
            if insists:
                await check_port(config)
            _announce(application, as_json=as_json)
            if insists or await _can_listen(config):
                charts.start(application.url)

        await serve(config, load, announce, charts.end)


async def _can_listen(config: Config) -> bool:
    try:
        await check_port(config)
    except ConfigError as error:
        log.error("%s. The hub goes on without charts", error)
        return False
    return True


def _loader(options: argparse.Namespace) -> Callable[[], Config]:
    """Reads the configuration anew at each call, with the command line's overrides on top."""

    def load() -> Config:
        config = load_config(options.config) if options.config else parse_config(simulation_text(), origin="simulation")
        return with_overrides(
            config,
            server={
                "host": options.host,
                "port": options.port,
                "workers": options.workers,
                "allowed_hosts": options.allowed_host,
            },
            state={"directory": options.state},
            charts={
                "enabled": False if options.no_charts else None,
                "port": 0 if options.charts_port is None and options.port == 0 else options.charts_port,
            },
            emulator={
                "tape": options.tape,
                "manifest": options.manifest,
                "noise_bps": options.noise,
                "speed": options.speed,
                "seed": options.seed,
                "start": options.start,
                "loop": options.loop,
                "port": options.emulator_port,
                "faults": options.faults,
            },
        )

    return load


def simulation_text() -> str:
    """The configuration that is used without ``--config``: ``deploy/simulate.toml``, in the wheel and in a checkout.

    Raises:
        ConfigError: this installation has lost it.
    """
    packaged = resources.files("oracle_hub") / "presets" / "simulate.toml"
    checkout = Path(__file__).parents[2] / "deploy" / "simulate.toml"
    for place in (packaged, checkout):
        if place.is_file():
            return place.read_text(encoding="utf-8")
    raise ConfigError("simulate.toml is missing from this installation; give --config")


def _announce_charts(url: str, *, as_json: bool) -> None:
    if as_json:
        sys.stdout.buffer.write(orjson.dumps({"charts": url}) + b"\n")
        sys.stdout.buffer.flush()
        return
    console().print(f"dashboard  {url}/")


def _announce(application: Application, *, as_json: bool) -> None:
    simulated = application.simulated
    if as_json:
        line = {
            "url": application.url,
            "instance": application.instance,
            "epoch": application.epoch,
            "config_hash": application.config_hash,
            "simulated": simulated,
            "emulator": application.emulator_url,
        }
        sys.stdout.buffer.write(orjson.dumps(line) + b"\n")
        sys.stdout.buffer.flush()
        return
    out = console()
    if simulated is not None:
        out.print("SIMULATED: these prices are made by the emulator. They are not the market.", style="bold magenta")
        out.print(f"emulator   {application.emulator_url}")
    out.print(f"prices     {application.url}/v1/prices")
    out.print(f"stream     {application.url.replace('http', 'ws', 1)}/v1/stream")
    out.print(f"readiness  {application.url}/readyz")
    out.print(f"watch      {_program()} tail --url {application.url}")
    out.print("Ctrl-C ends it.")


def _program() -> str:
    """How this program is called in the shell that it was called from: by its path where PATH does not lead to it."""
    called = sys.argv[0]
    return "oracle-hub" if Path(called).name != "oracle-hub" or shutil.which("oracle-hub") else called
