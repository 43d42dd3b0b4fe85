"""One Hermes host whose updates are forged costs nothing, two cost the source, by name; the truth brings it back."""

import re

import aiohttp

from feeds.emulator.emulator import Emulator
from feeds.emulator.faults import Fault
from tests.system.conftest import Launch
from tests.system.process import check_leases, check_order, hub_config, subscriber
from tests.system.test_endpoint_faults import carries_on, ready_until


async def test_forged_updates_are_refused_counted_and_named(launch: Launch, chain: Emulator) -> None:
    hub = await launch(config=hub_config(chain.urls))
    async with subscriber(hub) as client:
        await client.all_in("live")
        for mode in ("signers", "price", "unsigned"):
            fault = chain.inject(Fault(kind="forged", endpoint="hermes-1", mode=mode))
            await ready_until(hub, client, "unverified")
            await carries_on(client, chain, f"forged by {mode} at one host")
            assert (await hub.get("/v1/explain/SOL/USD"))["inputs"]["pyth"]["verified"] is True
            chain.clear(fault)
        async with aiohttp.ClientSession() as session, session.get(hub.url + "/metrics") as response:
            metrics = await response.text()
        counted = re.findall(r'^oraclehub_malformed_frames_total\{.*?"(hermes:\d)"\} (\d+)', metrics, re.MULTILINE)
        assert [name for name, count in counted if int(count) > 0] == ["hermes:1"]
        chain.inject(Fault(kind="forged"))
        await client.all_in("none")  # strict: a verifier that can't be proved is stale
        chain.clear()
        await client.all_in("live")
        check_order(client)
        check_leases(client)
