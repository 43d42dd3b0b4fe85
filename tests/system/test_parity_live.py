"""A hub over the aggregate's own legs: which leg the exchange used, live, and over the journal that is left."""

from collections.abc import Callable
from typing import Any

from feeds.emulator.emulator import Emulator
from feeds.emulator.faults import Fault
from tests.system.conftest import Launch
from tests.system.process import command, patiently, subscriber

FEED = "SOL/USD"
LINEUP = """
[hub]
warmup_ms = 10_000
[alerts]
chain_max_age_ms = 9_000
[roles]
primary = "lazer"
verifiers = ["chainlink", "pyth"]
references = ["aggregate", "edge"]
[sources.lazer]
kind = "doves.lazer"
max_age_ms = 12_000
[sources.chainlink]
kind = "doves.chainlink"
max_age_ms = 12_000
[sources.edge]
kind = "doves.edge"
max_age_ms = 12_000
[sources.aggregate]
kind = "doves.aggregate"
max_age_ms = 12_000
[sources.pyth]
kind = "pyth.hermes"
signers = "simulated"
"""


async def test_the_leg_is_seen_live_and_the_journal_adds_up(launch: Launch, chain: Emulator) -> None:
    assert chain.urls is not None
    config = LINEUP + f'hosts = ["{chain.urls.hermes[0].url}"]\n[feeds."{FEED}"]\n'
    for rpc in chain.urls.solana:
        config += f'[[solana.rpc]]\nname = "{rpc.name}"\nhttp_url = "{rpc.http}"\nws_url = "{rpc.ws}"\n'
    hub = await launch(config=config)
    async with subscriber(hub, FEED) as client:
        await client.feed(FEED, lambda one: one["state"] == "live", "live")
        seen: dict[str, Any] = {}

        async def until(wanted: Callable[[], bool]) -> None:
            while not seen or not wanted():
                await client.read()
                seen.update((await hub.get(f"/v1/explain/{FEED}"))["parity"][0])

        legs = {"lazer", "chainlink", "edge"}
        await patiently(until(lambda: seen["parity_bps"] is not None and bool(set(seen["legs"]) & legs)), "a leg")
        (listed,) = (await hub.get("/v1/parity"))["feeds"]
        assert listed.keys() == seen.keys() and listed["role"] == "reference"
        assert seen.items() >= {"role": "reference", "executable": True, "max_age_ms": 9_000}.items()
        assert seen["parity_bps"] < 50 and "price" not in seen
        chain.inject(Fault(kind="freeze", source="doves.aggregate"))
        await patiently(until(lambda: not seen["executable"]), "an aggregate that is too old")
        assert seen["age_ms"] > seen["max_age_ms"] == 9_000
        async with hub.http.get(hub.url + "/metrics") as response:
            metrics = await response.text()
        assert f'oraclehub_chain_executable{{feed="{FEED}",source="aggregate"}} 0.0' in metrics
    assert await hub.end() == 0
    found = await command("parity", "--journal", hub.state / "journal", "--json")
    assert found.status == 0 and found.lines[-1]["proved"] is True
    (row,) = found.lines[-1]["feeds"]
    assert 0 < row["executable_share"] < 1 and row["max_parity_bps"] < 50
    assert set(row["legs"]) & {"lazer", "chainlink", "edge"} and abs(sum(row["legs"].values()) - 1) < 1e-9
