"""Prometheus and Alertmanager as real processes, with what is shipped: other addresses and shorter waits, no more."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import yaml
from aiohttp import web

from tests.conftest import require
from tests.deploy.shipped import DEPLOY, RULES, Tree, tree
from tests.patience import PATIENCE_S
from tests.ports import free_ports
from tests.system.process import Message, patiently

PROMETHEUS, ALERTMANAGER = "prometheus", "prometheus-alertmanager"


def prometheus_config(folder: Path, hubs: Sequence[str], alertmanager: int) -> Path:
    """The shipped configuration and rules for these hubs, every second; a hold outlasts two late answers."""
    config, rules = tree(DEPLOY / "prometheus" / "prometheus.yml"), tree(RULES)
    config["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "250ms"}
    config["alerting"]["alertmanagers"][0]["static_configs"] = [{"targets": [f"127.0.0.1:{alertmanager}"]}]
    config["scrape_configs"] = [job for job in config["scrape_configs"] if job["job_name"] == "oracle-hub"]
    config["scrape_configs"][0]["static_configs"] = [{"targets": list(hubs)}]
    for rule in (rule for group in rules["groups"] for rule in group["rules"]):
        rule |= {key: "3s" for key in ("for", "keep_firing_for") if key in rule}
    (folder / "rules").mkdir(parents=True)
    (folder / "rules" / RULES.name).write_text(yaml.safe_dump(rules))
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    return folder / "prometheus.yml"


def alertmanager_config(folder: Path, webhook: str) -> Path:
    """The shipped routes and inhibitions; whoever is told, it is this webhook."""
    config = tree(DEPLOY / "alertmanager" / "alertmanager.yml")
    for receiver in config["receivers"]:
        name = receiver["name"]
        receiver.clear()
        receiver |= {"name": name, "webhook_configs": [{"url": f"{webhook}/{name}", "send_resolved": True}]}
    for route in (config["route"], *config["route"]["routes"]):
        route |= {"group_wait": "0s", "group_interval": "250ms"}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "alertmanager.yml").write_text(yaml.safe_dump(config))
    return folder / "alertmanager.yml"


@asynccontextmanager
async def program(ready: str, *command: object) -> AsyncIterator[None]:
    """Run a program from the line that says it is ready until the end of the block."""
    require(shutil.which(str(command[0])) is not None, str(command[0]))
    process = await asyncio.create_subprocess_exec(
        *map(str, command), stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    log: list[str] = []
    assert process.stderr is not None

    async def until_ready(lines: asyncio.StreamReader) -> None:
        async for line in lines:
            log.append(line.decode())
            if ready in log[-1]:
                return
        raise AssertionError(f"{command[0]} ended:\n{''.join(log[-20:])}")

    async def read_on(lines: asyncio.StreamReader) -> None:
        async for _ in lines:
            pass

    reading: asyncio.Task[None] | None = None
    try:
        await patiently(until_ready(process.stderr), f"{ready!r} of {command[0]}")
        reading = asyncio.create_task(read_on(process.stderr))
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        try:
            async with asyncio.timeout(PATIENCE_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
        if reading is not None:
            await reading


class Webhook:
    """Takes what Alertmanager posts."""

    def __init__(self) -> None:
        self.alerts: list[Tree] = []
        """Every alert of every request, in the order of arrival, with its receiver."""
        self._news = asyncio.Condition()

    async def handle(self, request: web.Request) -> web.Response:
        body: Message = await request.json()
        async with self._news:
            self.alerts += [{**alert, "receiver": body["receiver"]} for alert in body["alerts"]]
            self._news.notify_all()
        return web.Response()

    async def until(self, wanted: Callable[[Tree], bool], what: str) -> Tree:
        """The first alert that is wanted."""

        def found() -> list[Tree]:
            return [alert for alert in self.alerts if wanted(alert)]

        async with self._news:
            await patiently(self._news.wait_for(found), what)
        return found()[0]


@asynccontextmanager
async def monitored(folder: Path, hubs: Sequence[str]) -> AsyncIterator[Webhook]:
    """Prometheus over these hubs (host:port), Alertmanager behind it, and the webhook that is told."""
    webhook = Webhook()
    app = web.Application()
    app.router.add_post("/{receiver}", webhook.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.2)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        prometheus, alertmanager = free_ports(2)
        async with (
            program(
                "Listening",
                *(ALERTMANAGER, "--cluster.listen-address=", f"--web.listen-address=127.0.0.1:{alertmanager}"),
                f"--config.file={alertmanager_config(folder / 'alertmanager', f'http://{host}:{port}')}",
                f"--storage.path={folder / 'alertmanager' / 'data'}",
            ),
            program(
                "Server is ready to receive web requests",
                *(PROMETHEUS, f"--web.listen-address=127.0.0.1:{prometheus}", "--rules.alert.resend-delay=1s"),
                f"--config.file={prometheus_config(folder / 'prometheus', hubs, alertmanager)}",
                f"--storage.tsdb.path={folder / 'prometheus' / 'data'}",
            ),
        ):
            yield webhook
    finally:
        await runner.cleanup()
