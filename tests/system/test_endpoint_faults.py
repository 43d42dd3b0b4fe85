"""Endpoints that refuse, close, hang, keep silent, lie or stammer: the hub carries on by the other one, or says so."""

from itertools import cycle

import aiohttp

from feeds.emulator.emulator import Emulator
from feeds.emulator.faults import Fault
from tests.system.conftest import Launch
from tests.system.process import (
    FEEDS,
    HubProcess,
    Message,
    Subscriber,
    check_leases,
    check_order,
    entries,
    hub_config,
    patiently,
    subscriber,
)

ONE_ENDPOINT: tuple[tuple[Fault, ...], ...] = (
    (Fault(kind="rate_limit", mode="rpc"),),
    (Fault(kind="half_open"),),
    (Fault(kind="disconnect", duration_s=600),),
    (Fault(kind="rate_limit", mode="http"),),
    (Fault(kind="silent"),),
    (Fault(kind="fork", count=20),),
    tuple(Fault(kind="malformed", mode=mode, count=10) for mode in ("json", "base64", "account")),
    (Fault(kind="slow", delay_ms=20_000),),
)


def of(fault: Fault, endpoint: str | None) -> Fault:
    """The same fault at one endpoint."""
    return Fault(**{**{name: getattr(fault, name) for name in fault.__struct_fields__}, "endpoint": endpoint})


async def carries_on(client: Subscriber, chain: Emulator, what: str, after_us: int = 300_000) -> None:
    """Read until every feed has news from its primary that was observed a while after now; all that time it is live."""
    since_us = chain.world.now_us + after_us
    begun = len(client.messages)
    fresh: set[str] = set()

    def told(message: Message) -> bool:
        for entry in entries(message):
            if entry["source"] == "doves" and entry["publish_time_us"] > since_us:
                fresh.add(entry["feed"])
        return len(fresh) == len(FEEDS)

    await client.until(told, f"news from every primary, with {what}")
    for message in client.messages[begun:]:
        assert {entry["state"] for entry in entries(message)} <= {"live"}, (what, message)


async def test_one_endpoint_at_a_time(launch: Launch, chain: Emulator) -> None:
    hub = await launch(config=hub_config(chain.urls))
    async with subscriber(hub) as client:
        await client.all_in("live")
        for faults, endpoint in zip(ONE_ENDPOINT, cycle("ab"), strict=False):
            for fault in faults:
                chain.inject(of(fault, endpoint))
            await carries_on(client, chain, f"{faults[0].kind} at {endpoint}")
            chain.clear()
        check_order(client)
        check_leases(client)
    links = (await hub.get("/readyz"))["links"]
    assert links["solana:a"]["reconnects"] > 0  # closed once
    assert not [line for line in hub.log if "Traceback" in line]


async def ready_until(hub: HubProcess, client: Subscriber, condition: str) -> Message:
    """Ask for the evidence at every message of the stream until a source reports this condition."""

    async def ask() -> Message:
        while True:
            await client.read()
            for one in (await hub.get("/readyz"))["conditions"]:
                if one["condition"] == condition:
                    found: Message = one
                    return found

    answer: Message = await patiently(ask(), f"condition {condition}")
    return answer


async def test_both_endpoints_gone(launch: Launch, chain: Emulator) -> None:
    hub = await launch(config=hub_config(chain.urls))
    async with subscriber(hub) as client:
        await client.all_in("live")
        for endpoint in ("a", "b"):
            chain.inject(Fault(kind="disconnect", endpoint=endpoint, duration_s=600))
        await client.all_have("reason", "too_few_sources", FEEDS)
        evidence = await hub.get("/readyz")
        assert evidence["ready"] is True  # none is the truth too
        assert {evidence["links"][f"solana:{name}"]["state"] for name in "ab"} <= {"connecting", "waiting"}
        assert all(evidence["links"][f"solana:{name}"]["last_error"] for name in "ab")
        chain.clear()
        await client.all_in("live")
        check_order(client)
        check_leases(client)


async def test_both_endpoints_at_fault(launch: Launch, chain: Emulator) -> None:
    """What leaves one of two ways open carries on; what closes both gives no price, and a word about it."""
    hub = await launch(config=hub_config(chain.urls))
    async with subscriber(hub) as client:
        await client.all_in("live")
        for endpoint in ("a", "b"):
            chain.inject(Fault(kind="silent", endpoint=endpoint))
        await carries_on(client, chain, "no notification from any endpoint")
        chain.clear()

        for endpoint in ("a", "b"):
            chain.inject(Fault(kind="rate_limit", mode="rpc", endpoint=endpoint))
        refused = await ready_until(hub, client, "rate_limited")
        assert "-32005" in refused["text"] or "Too many requests" in refused["text"]
        await carries_on(client, chain, "every request refused, subscriptions standing")
        chain.clear()

        for kind in ("fork", "malformed"):
            for endpoint in ("a", "b"):
                chain.inject(of(Fault(kind=kind, count=5), endpoint))
            await carries_on(client, chain, f"{kind} everywhere")
        async with aiohttp.ClientSession() as session, session.get(hub.url + "/metrics") as response:
            metrics = await response.text()
        assert "oraclehub_malformed_frames_total{" in metrics

        for endpoint in ("a", "b"):
            chain.inject(Fault(kind="half_open", endpoint=endpoint))
        await client.until(lambda message: message["type"] == "heartbeat", "a heartbeat")
        await carries_on(client, chain, "sockets that accept and say nothing, while snapshots are answered")
        chain.clear()
        check_order(client)
        check_leases(client)
    assert not [line for line in hub.log if "Traceback" in line]
