"""What a hub must not believe: impostors at one endpoint cost nothing, everywhere they cost the source, by name.

Each fault doubles the prices that it touches, so that one of them that got through would be seen at once.
"""

import re
from collections.abc import Callable
from functools import partial
from typing import Literal

import aiohttp
import pytest

from feeds.addresses import ASSETS
from feeds.emulator.emulator import Emulator
from feeds.emulator.faults import Fault
from feeds.emulator.oracles import HERMES
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
from tests.system.test_endpoint_faults import carries_on, ready_until

BOTH = ("solana:a", "solana:b")


async def counted(hub: HubProcess, metric: str, **labels: str) -> int:
    """The value of a counter, 0 where it does not stand there."""
    async with aiohttp.ClientSession() as session, session.get(hub.url + "/metrics") as response:
        metrics = await response.text()
    pairs = ",".join(f'{name}="{labels[name]}"' for name in sorted(labels))
    found = re.search(rf"^oraclehub_{metric}_total\{{{re.escape(pairs)}\}} (\d+)", metrics, re.MULTILINE)
    return 0 if found is None else int(found[1])


async def both_told(hub: HubProcess, client: Subscriber) -> None:
    """Read until both endpoints have told a price: from then on each has a slot to be measured by."""
    async with aiohttp.ClientSession() as session:
        while True:
            async with session.get(hub.url + "/metrics") as response:
                metrics = await response.text()
            told = (f'oraclehub_way_age_seconds{{source="doves",transport="{way}"}}' for way in BOTH)
            if all(series in metrics for series in told):
                return
            await client.read()


async def until_ready(hub: HubProcess, client: Subscriber, wanted: Callable[[Message], bool], what: str) -> Message:
    """Ask for the evidence at every message of the stream until it holds what is wanted."""

    async def ask() -> Message:
        while True:
            evidence: Message = await hub.get("/readyz")
            if wanted(evidence):
                return evidence
            await client.read()

    answer: Message = await patiently(ask(), what)
    return answer


def within(client: Subscriber, chain: Emulator) -> None:
    """No price of all that was told is near a doubled one."""
    for message in client.messages:
        for entry in entries(message):
            held = chain.world.held(entry["feed"], "doves.aggregate")
            if entry["price"] is not None and held is not None:
                assert 2 * int(entry["price"]) < 3 * held.mantissa, entry


async def test_impostors_at_one_endpoint_and_at_both(launch: Launch, chain: Emulator) -> None:
    hub = await launch(config=hub_config(chain.urls))
    sol = ASSETS["SOL/USD"]
    async with subscriber(hub) as client:
        await client.all_in("live")
        for mode, words in (("owner", "found 11111111111111111111111111111111"), ("discriminator", "discriminator")):
            before = {way: await counted(hub, "malformed_frames", source="doves", transport=way) for way in BOTH}
            chain.inject(Fault(kind="impostor", endpoint="a", mode=mode))
            await carries_on(client, chain, f"accounts of another {mode} at a")
            await until_ready(
                hub,
                client,
                lambda evidence, words=words: words in str(evidence["refused"].get("solana:a")),  # type: ignore[misc]
                f"{words} is named",
            )
            after = {way: await counted(hub, "malformed_frames", source="doves", transport=way) for way in BOTH}
            assert after["solana:a"] > before["solana:a"] and after["solana:b"] == before["solana:b"]
            chain.inject(Fault(kind="impostor", account=sol.ag, mode=mode))
            chain.inject(Fault(kind="impostor", account=sol.chainlink_store, mode=mode))
            await client.feed("SOL/USD", lambda one: one["state"] == "none", "two sources of SOL/USD are impostors")
            inputs = (await hub.get("/v1/explain/SOL/USD"))["inputs"]
            assert {inputs["doves"]["status"], inputs["chainlink"]["status"]} <= {"stale", "invalid"}
            chain.clear()
            await client.all_in("live")
        within(client, chain)
        check_order(client)
        check_leases(client)


GENESIS, SLOTS = r"genesis hash is 4uhcVJyU", r"the websocket is at slot \d+, HTTP at \d+: not the same cluster"


@pytest.mark.parametrize(("by_genesis", "by_slots"), ["ab", "ba"])
async def test_an_endpoint_of_another_cluster(
    launch: Launch, chain: Emulator, by_genesis: Literal["a", "b"], by_slots: Literal["a", "b"]
) -> None:
    """Every connection stays while they change. Which address of an endpoint tells first is luck, so only one does."""
    hub = await launch(config=hub_config(chain.urls))
    async with subscriber(hub) as client:
        await client.all_in("live")
        await patiently(both_told(hub, client), "both endpoints told prices")
        mute = chain.inject(Fault(kind="silent", endpoint=by_genesis))
        chain.inject(Fault(kind="cluster", endpoint=by_genesis))  # its HTTP tells of a slot that it can't be at, …
        condition = await ready_until(hub, client, "wrong_cluster")
        assert condition["transport"] == f"solana:{by_genesis}"
        assert re.search(GENESIS, condition["text"])  # … so it is asked again
        chain.clear(mute)
        await carries_on(client, chain, f"{by_genesis} on another cluster")
        inputs = (await hub.get("/v1/explain/SOL/USD"))["inputs"]
        assert {inputs["doves"]["transport"], inputs["chainlink"]["transport"]} == {f"solana:{by_slots}"}
        chain.inject(Fault(kind="cluster", endpoint=by_slots, mode="websocket"))
        way = f"solana:{by_slots}"
        refused = (await until_ready(hub, client, lambda evidence: way in evidence["refused"], f"{way} is refused"))[
            "refused"
        ]
        assert re.match(SLOTS, refused[way]["reason"])
        chain.inject(Fault(kind="disconnect", endpoint=by_slots, duration_s=600))
        await client.all_have("reason", "too_few_sources", FEEDS)
        chain.clear()
        chain.inject(Fault(kind="disconnect", endpoint=by_genesis))
        await client.all_in("live")
        within(client, chain)
        check_order(client)


async def test_an_old_signed_message_told_again(launch: Launch, chain: Emulator) -> None:
    hub = await launch(config=hub_config(chain.urls))
    async with subscriber(hub) as client:
        await client.all_in("live")
        chain.inject(Fault(kind="forged", endpoint="hermes-1", mode="old"))
        await carries_on(client, chain, "old updates told again by one host", after_us=2_500_000)
        assert await counted(hub, "updates", source="pyth", applied="older") > 0
        assert (await hub.get("/v1/explain/SOL/USD"))["inputs"]["pyth"]["transport"] == "hermes:2"
        chain.inject(Fault(kind="forged", mode="old"))
        await client.all_in("none")  # signed as it should be, and too old by its own time
        assert (await hub.get("/v1/explain/SOL/USD"))["inputs"]["pyth"]["status"] == "stale"
        assert await counted(hub, "updates", source="pyth", applied="duplicate") > 0
        chain.clear()
        await client.all_in("live")
        check_order(client)
        check_leases(client)
    again = await launch(config=hub_config(chain.urls), state="again")
    chain.inject(Fault(kind="forged", mode="old"))
    async with subscriber(again) as client:
        await client.all_in("none")
        check_leases(client)


async def test_a_key_that_is_not_entitled_to_a_feed(launch: Launch, chain: Emulator) -> None:
    """One host after the other refuses the stream: the feeds that the key covers are told of all the time."""
    hub = await launch(config=hub_config(chain.urls))
    covered = sorted(set(FEEDS) - {"SOL/USD"})
    async with subscriber(hub) as client:
        await client.all_in("live")
        begun = len(client.messages)
        chain.inject(Fault(kind="not_entitled", feed="SOL/USD"))
        for number in (1, 2):  # a stream that stands goes on: only a new one is refused
            chain.inject(Fault(kind="disconnect", endpoint=f"hermes-{number}"))
            cut_us = {feed: published_us(chain, feed) for feed in FEEDS}
            await until_ready(hub, client, partial(streams_without, f"hermes:{number}"), "the stream without SOL/USD")
        entry = await client.feed("SOL/USD", lambda one: one["state"] == "none", "without its second verifier")
        assert entry["reason"] == "verifier_unusable"

        def told_since(_: Message) -> bool:
            seen = [(one["feed"], one["inputs"]["pyth"]) for message in client.messages for one in entries(message)]
            return {feed for feed, pyth in seen if (pyth["publish_time_us"] or 0) > cut_us[feed]}.issuperset(covered)

        await client.until(told_since, "what the key covers, by the streams that were let in")
        words = [entry for message in client.messages[begun:] for entry in entries(message)]
        assert {one["state"] for one in words if one["feed"] in covered} == {"live"}
        states = [one["state"] for one in words if one["feed"] == "SOL/USD"]
        assert set(states[states.index("none") :]) == {"none"}
        for one in words:
            assert one["feed"] in covered or one["inputs"]["pyth"]["publish_time_us"] <= cut_us["SOL/USD"]
        pyth = (await hub.get("/v1/explain/SOL/USD"))["inputs"]["pyth"]
        assert pyth["status"] == "stale" and pyth["publish_time_us"] <= cut_us["SOL/USD"]
        check_order(client)
        check_leases(client)
        assert await counted(hub, "source_conditions", source="pyth", condition="not_entitled") > 0


def published_us(chain: Emulator, feed: str) -> int:
    """Publish time of the price that Pyth told last."""
    held = chain.world.held(feed, HERMES)
    assert held is not None
    return held.publish_us


def streams_without(host: str, evidence: Message) -> bool:
    """Whether a host has refused a stream for SOL/USD by name, and tells one again."""
    named = [
        one["feed"]
        for one in evidence["conditions"]
        if (one["source"], one["condition"], one["transport"]) == ("pyth", "not_entitled", host)
    ]
    return named == ["SOL/USD"] and evidence["links"][host]["state"] == "open"
