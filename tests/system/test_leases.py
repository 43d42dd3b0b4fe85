"""A price ends when its lease ends, whatever arrives or does not: sources die while the hub runs."""

import signal
from itertools import pairwise

from feeds.addresses import ASSETS
from feeds.emulator.emulator import Emulator
from feeds.emulator.faults import Fault
from tests.system.conftest import Launch
from tests.system.process import Message, Subscriber, check_leases, check_order, hub_config, subscriber

SOL, BTC, ETH = "SOL/USD", "BTC/USD", "ETH/USD"


def states(client: Subscriber, feed: str) -> list[tuple[str, str, str]]:
    """What a feed went through: (state, rule, reason), each change once."""
    found: list[tuple[str, str, str]] = []
    for _, entry in client.words:
        state = (entry["state"], entry["rule"], entry["reason"])
        if entry["feed"] == feed and found[-1:] != [state]:
            found.append(state)
    return found


def before(client: Subscriber, feed: str, entry: Message) -> Message:
    """The word on a feed just before this one."""
    words = [one for _, one in client.words if one["feed"] == feed]
    return words[words.index(entry) - 1]


async def test_killing_one_two_and_three_sources(launch: Launch, chain: Emulator) -> None:
    hub = await launch(config=hub_config(chain.urls))
    async with subscriber(hub) as client:
        await client.all_in("live")
        for feed, sources in ((SOL, ("doves",)), (BTC, ("doves", "chainlink")), (ETH, ("doves", "chainlink", "pyth"))):
            for source in sources:
                chain.inject(Fault(kind="kill", source=source, feed=feed))
        degraded = await client.feed(SOL, lambda entry: entry["state"] != "live", "no longer live")
        await client.all_have("reason", "too_few_sources", (BTC, ETH))

        last = before(client, SOL, degraded)
        assert (degraded["state"], degraded["rule"], degraded["reason"]) == ("degraded", "R2", "primary_unusable")
        assert degraded["source"] in ("chainlink", "pyth") and degraded["inputs"]["doves"]["status"] == "stale"
        assert last["state"] == "live" and degraded["decided_us"] >= last["valid_until_us"]
        for feed in (BTC, ETH):
            words = [one for _, one in client.words if one["feed"] == feed]
            last, ended = next(pair for pair in pairwise(words) if pair[0]["price"] and not pair[1]["price"])
            assert ended["source"] is None and ended["decided_us"] >= last["valid_until_us"]
        for feed in ("USDC/USD", "USDT/USD"):
            assert states(client, feed)[-1] == ("live", "R1", "agreed")
            assert [state for state, _, _ in states(client, feed)].count("live") == 1
        told = {entry["feed"]: entry for entry in (await hub.get("/v1/prices"))["feeds"]}
        assert (told[BTC]["reason"], told[ETH]["reason"]) == ("too_few_sources", "too_few_sources")
        assert told[BTC]["price"] is None and told[ETH]["price"] is None
        client.messages.clear()

        chain.clear()
        await client.all_in("live", (SOL, BTC, ETH))
        live = ("live", "R1", "agreed")
        r2 = ("degraded", "R2", "primary_unusable")
        assert next(one for one in states(client, SOL) if one != r2) == live  # in one message, with nothing between
        for feed in (BTC, ETH):
            told_until_live = states(client, feed)[: states(client, feed).index(live)]
            assert {reason for _, _, reason in told_until_live} <= {
                "too_few_sources",
                "verifier_unusable",
                "primary_unusable",
            }
        check_leases(client)


async def test_a_restart_while_the_primary_stands_still(launch: Launch, chain: Emulator) -> None:
    hub = await launch(config=hub_config(chain.urls))
    async with subscriber(hub) as client:
        await client.all_in("live")
        chain.inject(Fault(kind="kill", source="doves"))
        await client.all_in("degraded")
    assert await hub.end() == 0
    hub = await launch(config=hub_config(chain.urls))
    async with subscriber(hub) as client:
        await client.all_in("degraded")
        for feed in ASSETS:
            assert set(states(client, feed)) <= {
                ("none", "R3", "warming"),
                ("none", "R3", "lease_over"),
                ("degraded", "R2", "primary_unusable"),
            }
        check_order(client)
    ready = await hub.get("/readyz")
    assert ready["ready"] is True


async def test_a_restart_while_the_primary_has_no_account(launch: Launch, chain: Emulator) -> None:
    chain.inject(Fault(kind="wipe", source="doves"))
    hub = await launch(config=hub_config(chain.urls))
    async with subscriber(hub) as client:
        await client.all_in("degraded")
        warm_until_us = {}
        for _, entry in client.words:
            if entry["reason"] == "warming":
                warm_until_us[entry["feed"]] = entry["valid_until_us"]
            assert entry["state"] != "live"
            if entry["state"] == "degraded":
                assert entry["decided_us"] >= warm_until_us[entry["feed"]]
                assert entry["inputs"]["doves"]["status"] == "missing"
        assert warm_until_us.keys() == ASSETS.keys()
        conditions = (await hub.get("/readyz"))["conditions"]
        assert {one["feed"] for one in conditions if one["condition"] == "missing_account"} >= ASSETS.keys()

        client.messages.clear()
        chain.clear()
        await client.all_in("live")
        for feed in ASSETS:
            assert [state for state, _, _ in states(client, feed)][-2:] in (["live"], ["degraded", "live"])
        assert not [one for one in (await hub.get("/readyz"))["conditions"] if one["condition"] == "missing_account"]
    assert await hub.end(signal.SIGINT) == 0


async def test_a_future_stamp_locks_nothing(launch: Launch, chain: Emulator) -> None:
    hub = await launch(config=hub_config(chain.urls))
    async with subscriber(hub, SOL) as client:
        await client.all_in("live", (SOL,))
        for source in ("doves", "chainlink", "pyth"):
            before_us = chain.world.now_us
            chain.inject(Fault(kind="future", source=source, feed=SOL, offset_s=3_600))
            await client.feed(SOL, lambda entry: entry["inputs"][source]["status"] == "future", f"{source} from ahead")  # noqa: B023 - awaited in its own turn
            honest = await client.feed(
                SOL,
                lambda entry: (
                    entry["state"] == "live" and entry["inputs"][source]["publish_time_us"] > before_us  # noqa: B023 - awaited in its own turn
                ),
                f"{source} honest again",
            )
            assert honest["inputs"][source]["publish_time_us"] < chain.world.now_us + 1_000_000
            chain.clear()
        check_leases(client)
        check_order(client)
