"""``pyth.pro`` in a role, over three hosts that are killed one after the other, and what else may go wrong with it."""

from pathlib import Path

from feeds.emulator.emulator import Emulator
from feeds.emulator.faults import Fault
from tests.system.conftest import Launch
from tests.system.process import Message, Subscriber, asked, command, subscriber

SIGNED = Path(__file__).resolve().parents[2] / "deploy" / "simulate-signed.toml"
LINEUP = """
[hub]
warmup_ms = 3_000
[roles]
primary = "lazer"
verifiers = ["edge", "streams"]
[sources.lazer]
kind = "pyth.pro"
[sources.edge]
kind = "edge.rest"
max_age_ms = 9_000
[sources.streams]
kind = "chainlink.streams"
max_age_ms = 9_000
redistribute = "full"
[feeds."SOL/USD"]
[feeds."BTC/USD"]
"""


def all_heard(prices: Message) -> bool:
    """References need not be heard before there are prices."""
    return {one["status"] for feed in prices["feeds"] for one in feed["inputs"].values()} == {"ok"}


async def test_the_simulation_of_signed_sources_is_proved_and_replays(launch: Launch) -> None:
    hub = await launch(config=SIGNED.read_text())
    async with subscriber(hub) as client:
        for name in ("SOL/USD", "BTC/USD", "ETH/USD", "USDC/USD", "USDT/USD"):
            await client.feed(name, lambda one: one["state"] == "live", f"{name} live by signed sources")
        prices = await asked(hub, client, "/v1/prices?detail=full", all_heard, "every source of every feed")
    for feed in prices["feeds"]:
        assert feed["source"] == "edge" and feed["inputs"]["lazer"]["transport"].startswith("pro:")
        proved = {name: one["verified"] for name, one in feed["inputs"].items()}
        signed = dict.fromkeys(("edge", "streams", "lazer", "hermes"), True)
        assert proved == signed | {"redstone": False, "doves": False}
    ready = await hub.get("/readyz")
    assert ready["conditions"] == [] and {"pro:1", "pro:2", "pro:3"} <= ready["links"].keys()
    assert await hub.end() == 0
    replayed = await command("replay", hub.state / "journal", "--json")
    assert replayed.status == 0 and replayed.lines[-1]["proved"] is True
    journal = b"".join(path.read_bytes() for path in (hub.state / "journal").iterdir())
    assert b"simulated-token" not in journal


def placed(chain: Emulator, *lines: str) -> tuple[str, dict[str, str]]:
    """The line-up with the places of an emulator that a test holds in its hand, and the secrets for it."""
    assert chain.urls is not None
    edge, streams = chain.urls.edge[0], chain.urls.streams[0]
    hosts = [one.ws for one in chain.urls.pro]
    at_pro = "\n".join(['"pyth.pro"', f"hosts = {hosts}", 'api_key = "env:PRO_KEY"', 'signers = "simulated"', *lines])
    config = LINEUP.replace('"pyth.pro"', at_pro)
    config = config.replace('"edge.rest"', f'"edge.rest"\nsigners = "simulated"\nhosts = ["{edge.url}"]')
    at_streams = f'"chainlink.streams"\nhosts = ["{streams.ws}"]\nrest_url = "{streams.http}"\nsigners = "simulated"\n'
    at_streams += 'api_key = "env:DS_KEY"\napi_secret = "env:DS_SECRET"'
    config = config.replace('"chainlink.streams"', at_streams)
    settings = chain.settings
    secrets = {"PRO_KEY": settings.pro_key, "DS_KEY": settings.streams_key, "DS_SECRET": settings.streams_secret}
    return config, secrets


def told_by(ready: Message) -> set[tuple[str, str | None, str]]:
    """What is told of which way and feed."""
    return {(one["transport"], one["feed"], one["condition"]) for one in ready["conditions"]}


async def test_strangers_and_a_key_without_rights_are_named(launch: Launch, chain: Emulator) -> None:
    config, secrets = placed(chain)
    chain.inject(Fault(kind="not_entitled", source="lazer", feed="BTC/USD"))
    hub = await launch(config=config, env=secrets)
    async with subscriber(hub) as client:
        await client.feed("SOL/USD", lambda one: one["state"] == "live", "live")
        await client.feed("BTC/USD", lambda one: one["state"] == "degraded", "degraded without a right to it")
        refusals = {(f"pro:{number}", "BTC/USD", "not_entitled") for number in (1, 2, 3)}
        await asked(hub, client, "/readyz", lambda ready: told_by(ready) == refusals, "BTC/USD refused by every host")
        chain.inject(Fault(kind="forged", source="lazer"))
        await client.feed("SOL/USD", lambda one: one["state"] == "degraded", "degraded, strangers being refused")
        strangers = {(f"pro:{number}", "SOL/USD", "unverified") for number in (1, 2, 3)}
        ready = await asked(hub, client, "/readyz", lambda one: told_by(one) >= strangers, "strangers at every host")
        texts = {one["text"] for one in ready["conditions"] if one["condition"] == "unverified"}
        assert texts and all(text.startswith("not verified: unknown_signer: ") for text in texts)
    assert await hub.end() == 0
    refused = await launch(config=config, env=secrets | {"PRO_KEY": "wrong"}, state="refused")
    async with subscriber(refused) as client:
        await client.feed("SOL/USD", lambda one: one["state"] == "degraded", "degraded without a key")
        wrong_key = {(f"pro:{number}", None, "not_entitled") for number in (1, 2, 3)}
        await asked(
            refused, client, "/readyz", lambda ready: told_by(ready) == wrong_key, "the key refused by every host"
        )
    assert await refused.end() == 0


async def goes_on(client: Subscriber, what: str) -> None:
    """Until Pyth Pro's price, still chosen, is made anew; a feed that loses it on the way fails."""
    seen = await client.feed("SOL/USD", lambda one: True, what)
    published_us, states = seen["publish_time_us"], [seen["state"]]

    def newer(entry: Message) -> bool:
        states.append(entry["state"])
        return bool((entry["publish_time_us"] or 0) > published_us)

    await client.feed("SOL/USD", newer, what)
    assert set(states) == {"live"}, what


async def test_hosts_die_in_turn_and_two_of_three_at_once(launch: Launch, chain: Emulator) -> None:
    config, secrets = placed(chain, "max_age_ms = 8_000")
    hub = await launch(config=config, env=secrets)
    async with subscriber(hub) as client:
        await client.feed("SOL/USD", lambda one: one["state"] == "live", "live")
        for name in ("pro-1", "pro-2", "pro-3"):
            number = chain.inject(Fault(kind="disconnect", endpoint=name, duration_s=600))
            await goes_on(client, f"newer prices without {name}")
            chain.clear(number)
        for name in ("pro-1", "pro-2"):
            chain.inject(Fault(kind="disconnect", endpoint=name, duration_s=600))
        await goes_on(client, "newer prices by the third alone")
        inputs = (await hub.get("/v1/prices?detail=full"))["feeds"][0]["inputs"]
        assert inputs["lazer"]["transport"] == "pro:3"
        chain.inject(Fault(kind="disconnect", endpoint="pro-3", duration_s=600))
        entry = await client.feed("SOL/USD", lambda one: one["state"] == "degraded", "degraded without any host")
        assert (entry["rule"], entry["reason"]) == ("R2", "primary_unusable")
        chain.clear()
        await client.feed("SOL/USD", lambda one: one["state"] == "live", "live again when the hosts are back")
    assert await hub.end() == 0
