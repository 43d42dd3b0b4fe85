"""A line-up of signed sources only, each proved: Edge's REST, Data Streams and Hermes; and what strangers do to it."""

from feeds.emulator.emulator import Emulator
from feeds.emulator.faults import Fault
from tests.system.conftest import Launch
from tests.system.process import asked, command, subscriber

LINEUP = """
[hub]
warmup_ms = 3_000
[roles]
primary = "edge"
verifiers = ["streams", "pyth"]
references = ["redstone"]
[sources.edge]
kind = "edge.rest"
[sources.streams]
kind = "chainlink.streams"
redistribute = "full"
origins = ["001", "002"]
[sources.pyth]
kind = "pyth.hermes"
[sources.redstone]
kind = "redstone"
[feeds."SOL/USD"]
[feeds."BTC/USD"]
"""


async def test_a_lineup_of_signed_sources_is_proved_and_replays(launch: Launch) -> None:
    hub = await launch(config=LINEUP + "[emulator]\n")
    async with subscriber(hub) as client:
        feed = await client.feed("SOL/USD", lambda one: one["state"] == "live", "live by signed sources")
    assert feed["source"] == "edge"
    verified = {name: one["verified"] for name, one in feed["inputs"].items() if name != "redstone"}
    assert verified == {"edge": True, "streams": True, "pyth": True}
    ready = await hub.get("/readyz")
    assert ready["conditions"] == [] and {"edge:1", "streams:1", "streams:2"} <= ready["links"].keys()
    assert await hub.end() == 0
    replayed = await command("replay", hub.state / "journal", "--json")
    assert replayed.status == 0 and replayed.lines[-1]["proved"] is True
    journal = b"".join(path.read_bytes() for path in (hub.state / "journal").iterdir())
    assert b"simulated-secret" not in journal


async def test_a_source_that_is_gone_or_signed_by_strangers_is_stood_in_for(launch: Launch, chain: Emulator) -> None:
    assert chain.urls is not None
    edge, streams, hermes = chain.urls.edge[0], chain.urls.streams[0], chain.urls.hermes
    config = LINEUP.replace('"edge.rest"', f'"edge.rest"\nsigners = "simulated"\nhosts = ["{edge.url}"]')
    places = f'hosts = ["{streams.ws}"]\nrest_url = "{streams.http}"\nsigners = "simulated"\n'
    config = config.replace("origins =", places + 'api_key = "env:DS_KEY"\napi_secret = "env:DS_SECRET"\norigins =')
    config = config.replace('"pyth.hermes"', f'"pyth.hermes"\nsigners = "simulated"\nhosts = ["{hermes[0].url}"]')
    for rpc in chain.urls.solana:
        config += f'[[solana.rpc]]\nname = "{rpc.name}"\nhttp_url = "{rpc.http}"\nws_url = "{rpc.ws}"\n'
    secrets = {"DS_KEY": chain.settings.streams_key, "DS_SECRET": chain.settings.streams_secret}
    hub = await launch(config=config, env=secrets)
    async with subscriber(hub) as client:
        await client.feed("SOL/USD", lambda one: one["state"] == "live", "live")
        chain.inject(Fault(kind="unauthorized", endpoint="edge"))
        entry = await client.feed("SOL/USD", lambda one: one["state"] == "degraded", "degraded without Edge")
        assert (entry["rule"], entry["reason"]) == ("R2", "primary_unusable")
        assert entry["source"] in ("streams", "pyth")
        await asked(
            *(hub, client, "/readyz"),
            lambda ready: (
                [(one["source"], one["condition"]) for one in ready["conditions"]] == [("edge", "not_entitled")]
            ),
            "the refusal",
        )
    assert await hub.end() == 0

    stranger = config.replace('"edge.rest"\nsigners = "simulated"', '"edge.rest"\nsigners = "production"')
    chain.clear()
    hub = await launch(config=stranger, env=secrets, state="strangers")
    async with subscriber(hub) as client:
        entry = await client.feed("SOL/USD", lambda one: one["state"] == "degraded", "degraded, Edge being refused")
        assert entry["rule"] == "R2"
        ready = await asked(
            *(hub, client, "/readyz"),
            lambda ready: {one["feed"] for one in ready["conditions"]} == {"SOL/USD", "BTC/USD"},
            "strangers, of both feeds",
        )
        told = {one["feed"]: one["text"] for one in ready["conditions"]}
        assert told["SOL/USD"].startswith("not verified: unknown_signer: ")
