"""Charts beside a hub: they come with it, go with it whatever ends it, and harm it in no way."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import orjson

from oracle_hub.cli.run import simulation_text
from tests.ports import free_ports
from tests.system.conftest import Launch
from tests.system.process import FEEDS, PROGRAM, ROOT, HubProcess, Message, command, environment, patiently, subscriber


async def charts_url(hub: HubProcess) -> str:
    """What the hub prints once its charts serve."""
    assert hub.process.stdout is not None
    line = await patiently(hub.process.stdout.readline(), "the charts' address")
    return str(orjson.loads(line)["charts"])


async def get(url: str) -> Message:
    async with aiohttp.ClientSession() as http, http.get(url) as response:
        answer: Message = await response.json()
    return answer


@asynccontextmanager
async def events(url: str) -> AsyncIterator[aiohttp.StreamReader]:
    """An event stream that is open, after its first event."""
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as http,
        http.get(f"{url}/v1/sse") as response,
    ):
        await patiently(response.content.readuntil(b"event: snapshot"), "the first event")
        yield response.content


async def until_it_is_gone(stream: aiohttp.StreamReader) -> None:
    """Read until the other process has ended, however that looks."""
    try:
        while await stream.readany():
            pass
    except aiohttp.ClientError:
        pass


def child_of(hub: HubProcess) -> int:
    """The process id of a hub's only child."""
    with open(f"/proc/{hub.process.pid}/task/{hub.process.pid}/children", encoding="ascii") as file:
        (child,) = file.read().split()
    return int(child)


async def test_they_come_with_a_simulation_and_show_what_it_shows(launch: Launch) -> None:
    hub = await launch(charts=True)
    url = await charts_url(hub)
    assert (await get(f"{url}/livez")) == {"status": "ok"}
    async with subscriber(hub) as client:
        await client.all_in("live")
        while not (await get(f"{url}/readyz"))["ready"]:  # charts may hear of the hub later than we
            await client.read()
        async with events(url) as stream:
            event = await patiently(stream.readuntil(b'"state":"live"'), "a live price")
            assert b'"simulated":{' in event
    ready = await get(f"{url}/readyz")
    assert (ready["ready"], ready["feeds"], ready["store"]["ok"]) == (True, len(FEEDS), True)
    assert ready["hub"]["instance"] == hub.hello["instance"]
    marks = await get(f"{url}/v1/marks/SOL-USD")
    assert marks["simulated"] is True and {mark["state"] for mark in marks["marks"]} <= {"none", "degraded", "live"}
    async with events(url) as stream:
        assert await hub.end() == 0
        await patiently(until_it_is_gone(stream), "the charts' end")
    assert not [line for line in hub.log if "Traceback" in line or "CRITICAL" in line]


async def test_they_end_with_a_hub_that_was_killed(launch: Launch) -> None:
    hub = await launch(charts=True)
    async with events(await charts_url(hub)) as stream:
        hub.send_signal(signal.SIGKILL)
        await patiently(until_it_is_gone(stream), "the charts' end")
    assert await hub.ended() == -signal.SIGKILL


async def test_their_end_is_told_and_they_are_started_again(launch: Launch) -> None:
    hub = await launch(charts=True)
    await charts_url(hub)
    async with subscriber(hub) as client:
        os.kill(child_of(hub), signal.SIGKILL)
        line = await hub.logged("charts were killed by signal 9")
        assert "the hub goes on" in line
        again = await charts_url(hub)
        await client.all_in("live")
    assert (await get(f"{again}/readyz"))["store"]["ok"] is True
    assert await hub.end() == 0


async def test_without_a_hub_they_say_so_and_serve(launch: Launch) -> None:
    hub = await launch(charts=True)
    async with events(await charts_url(hub)) as stream:
        await patiently(stream.readuntil(b'"state":"live"'), "a live price")
    assert await hub.end() == 0
    process = await asyncio.create_subprocess_exec(
        *PROGRAM,
        *("charts", "--hub", hub.url, "--port", "0", "--state", str(hub.state), "--json"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env=environment(),
    )
    try:
        assert process.stdout is not None and process.stderr is not None
        url = orjson.loads(await patiently(process.stdout.readline(), "the first line"))["url"]
        line = (await patiently(process.stderr.readline(), "a word on the hub")).decode()
        assert "no hub at" in line and "serving history" in line
        assert (await get(f"{url}/readyz"))["missing"] == ["the hub is not heard"]
        assert (await get(f"{url}/v1/marks/SOL-USD"))["feed"] == "SOL/USD"
        second = await command("charts", "--hub", hub.url, "--port", "0", "--state", hub.state)
        assert second.status == 1 and "another process records into it" in second.err
        process.send_signal(signal.SIGTERM)
        assert await patiently(process.wait(), "its end") == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_a_start_whose_charts_cannot_listen_ends_in_one_line(launch: Launch) -> None:
    hub = await launch()
    port = hub.url.rsplit(":", 1)[1]
    quiet = ("--log-level", "error", "--state", hub.state.parent / "other")
    refused = await command("run", "--port", "0", "--charts-port", port, *quiet)
    assert (refused.status, refused.out) == (1, b"")
    (line,) = refused.err.splitlines()
    assert f"charts: cannot listen on 127.0.0.1:{port}" in line and "--charts-port of run" in line


async def test_a_simulation_goes_on_without_charts_that_nobody_asked_for(launch: Launch) -> None:
    (port,) = free_ports(1)
    hub = await launch("--port", port, config=f"{simulation_text()}\n[charts]\nport = {port}\n", charts=True)
    line = await hub.logged("cannot listen")
    assert f"charts: cannot listen on 127.0.0.1:{port} (the hub itself does)" in line
    assert (await hub.get("/livez")) == {"status": "ok"}
    assert await hub.end() == 0
