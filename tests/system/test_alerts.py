"""Alerts of a running hub: on the channel, over HTTP, over a restart, and out of the journal again."""

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from feeds.emulator.emulator import Emulator
from feeds.emulator.faults import Fault
from tests.system.conftest import Launch
from tests.system.process import HubProcess, Message, Subscriber, command, hub_config, subscriber

SOL = "SOL/USD"
FAST = """
[alerts]
hold_on_ms = { pair_diverged = 0, no_price = 0, primary_rejected = 0 }
hold_off_ms = { pair_diverged = 100, no_price = 100, primary_rejected = 100, fallback_active = 100 }
"""


@asynccontextmanager
async def watcher(hub: HubProcess) -> AsyncIterator[Subscriber]:
    """Prices of one feed, and all alerts, in one connection."""
    async with subscriber(hub, SOL) as client:
        await client.all_in("live", [SOL])
        await client.socket.send('{"type":"subscribe","id":2,"channel":"alerts","feeds":["*"]}')
        yield client


async def told(client: Subscriber, change: str, kind: str) -> Message:
    def wanted(message: Message) -> bool:
        if message["type"] != "alert" or message["change"] != change:
            return False
        return bool(message["alert"]["kind"] == kind)

    message = await client.until(wanted, f"{kind} {change}")
    alert: Message = message["alert"]
    return alert


def log_line(one: Message) -> tuple[str, int, Message]:
    """A change, however it was told. What was told before the subscriber came is in the logs too."""
    return one["change"], one["at_us"], one["alert"]


async def test_a_divergence_is_told_with_its_evidence_and_so_is_its_end(launch: Launch, chain: Emulator) -> None:
    hub = await launch(config=hub_config(chain.urls, feeds=[SOL]) + FAST)
    async with watcher(hub) as client:
        number = chain.inject(Fault(kind="spike", source="pyth", feed=SOL, bps=300))
        firing = await told(client, "firing", "pair_diverged")
        assert firing["feed"] == SOL
        assert "pyth" in firing["sources"]
        assert firing["evidence"]["value"] > 5_000
        assert {"doves", "chainlink", "pyth"} == set(firing["evidence"]["inputs"])
        shown = await hub.get("/v1/alerts")
        assert firing["id"] in [alert["id"] for alert in shown["open"]]
        chain.clear(number)
        resolved = await told(client, "resolved", "pair_diverged")
        assert (resolved["id"], resolved["started_us"]) == (firing["id"], firing["started_us"])
        assert resolved["ended_us"] > resolved["started_us"]
        seen = [log_line(message) for message in client.messages if message["type"] == "alert"]
    listed = await command("alerts", "history", "--url", hub.url, "--json")
    assert [one for one in map(log_line, listed.lines) if one in seen] == seen
    assert await hub.end() == 0
    again = await command("alerts", "history", "--journal", hub.state / "journal", "--json")
    assert [one for one in map(log_line, again.lines) if one in seen] == seen


async def test_a_restart_in_the_middle_fires_no_second_time_and_still_resolves(launch: Launch, chain: Emulator) -> None:
    config = hub_config(chain.urls, feeds=[SOL]) + FAST
    hub = await launch(config=config)
    async with watcher(hub) as client:
        number = chain.inject(Fault(kind="spike", source="pyth", feed=SOL, bps=300))
        firing = await told(client, "firing", "pair_diverged")
    await hub.end(signal.SIGKILL)
    hub = await launch(config=config)
    shown = await hub.get("/v1/alerts")
    assert firing["id"] in [alert["id"] for alert in shown["open"]]
    async with subscriber(hub, SOL) as client:
        await client.socket.send('{"type":"subscribe","id":2,"channel":"alerts","feeds":["*"]}')
        listed = await client.until(lambda message: message["type"] == "alerts", "what is open")
        assert firing["id"] in [alert["id"] for alert in listed["open"]]
        await client.feed(
            SOL,
            lambda entry: (
                entry["reason"] == "primary_diverged" or entry["reason"] == "diverged" or (entry["state"] == "degraded")
            ),
            "decided after the restart",
        )
        chain.clear(number)
        resolved = await told(client, "resolved", "pair_diverged")
        assert resolved["id"] == firing["id"]
        assert resolved["started_us"] == firing["started_us"]
        fired = [message for message in client.messages if message["type"] == "alert" and message["change"] == "firing"]
        assert firing["id"] not in [message["alert"]["id"] for message in fired]
    assert await hub.end() == 0


async def test_a_carried_value_and_a_wide_interval_are_seen_through(launch: Launch, chain: Emulator) -> None:
    fast = "".join(
        f"{hold}_ms = {{ source_stalled = 100, confidence_wide = 100 }}\n" for hold in ("hold_on", "hold_off")
    )
    limits = "stall_after_ms = 2_000\nstall_bps = 20\nmax_conf_bps = 150\n"
    text = hub_config(chain.urls, feeds=[SOL]).replace("[hub]\n", "[hub]\n" + limits)
    hub = await launch(config=f"{text}[alerts]\n{fast}")
    async with watcher(hub) as client:
        chain.inject(Fault(kind="carry", source="pyth", feed=SOL))
        for other in ("doves", "chainlink"):
            chain.inject(Fault(kind="spike", source=other, feed=SOL, bps=35))
        firing = await told(client, "firing", "source_stalled")
        assert firing["sources"] == ["pyth"]
        await client.feed(SOL, lambda one: one["state"] == "none", "no price with a stalled verifier")
        assert (await hub.get(f"/v1/explain/{SOL}"))["inputs"]["pyth"]["status"] == "stalled"
        chain.clear()
        assert (await told(client, "resolved", "source_stalled"))["id"] == firing["id"]
        await client.feed(SOL, lambda one: one["state"] == "live", "live again")
        chain.inject(Fault(kind="wide", source="pyth", feed=SOL, bps=200))
        firing = await told(client, "firing", "confidence_wide")
        assert (await hub.get(f"/v1/explain/{SOL}"))["inputs"]["pyth"]["status"] == "uncertain"
        chain.clear()
        assert (await told(client, "resolved", "confidence_wide"))["id"] == firing["id"]
