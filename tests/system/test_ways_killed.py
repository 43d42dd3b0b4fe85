"""Each host and endpoint of each source killed in turn, then all but one, then revived: prices go on, losses are told.

Edge by two hosts, Chainlink by two hosts of Data Streams and its account on the chain, Pyth by two hosts of Hermes and
its sponsored account, the chain by two endpoints.
"""

from feeds.emulator.emulator import Emulator
from feeds.emulator.faults import Fault
from tests.system.conftest import Launch
from tests.system.process import HubProcess, Message, Subscriber, command, entries, patiently, subscriber

SOL = "SOL/USD"
LINEUP = """
[hub]
warmup_ms = 10_000
[solana]
snapshot_interval_ms = 1_000
silence_ms = 2_000
[alerts]
hold_on_ms = {{ redundancy_degraded = 0 }}
hold_off_ms = {{ redundancy_degraded = 100 }}
[roles]
primary = "edge"
verifiers = ["chainlink", "pyth"]
[sources.edge]
kind = "edge.rest"
max_age_ms = 8_000
signers = "simulated"
hosts = {edge}
[sources.chainlink]
kind = "chainlink.streams"
max_age_ms = 9_000
redistribute = "full"
signers = "simulated"
hosts = {streams}
rest_url = "{rest}"
api_key = "env:DS_KEY"
api_secret = "env:DS_SECRET"
[sources.chainlink.ways.doves]
kind = "doves.chainlink"
[sources.pyth]
kind = "pyth.hermes"
max_age_ms = 9_000
signers = "simulated"
hosts = {hermes}
[sources.pyth.ways.pushed]
kind = "pyth.receiver"
[feeds."SOL/USD"]
[feeds."BTC/USD"]
"""
FIRST: dict[str, list[tuple[str, ...]]] = {
    "hermes-1": [("hermes:1",)],
    "streams": [("streams:1",)],
    "a": [("solana:a",)],
    "edge": [("edge", "edge:1")],
}
SECOND: dict[str, list[tuple[str, ...]]] = {
    "hermes-2": [("hermes:2",)],
    "streams-2": [("streams:2",)],
    "b": [("solana:b",)],
    "edge-2": [("edge", "edge:2")],
}
"""What is told as lost with each: its link, or the way that falls silent where nothing but polls go over it."""
GONE = 600


def configured(chain: Emulator) -> tuple[str, dict[str, str]]:
    urls = chain.urls
    assert urls is not None
    config = LINEUP.format(
        edge=[one.url for one in urls.edge],
        streams=[one.ws for one in urls.streams],
        rest=urls.streams[0].http,
        hermes=[one.url for one in urls.hermes],
    )
    for rpc in urls.solana:
        config += f'[[solana.rpc]]\nname = "{rpc.name}"\nhttp_url = "{rpc.http}"\nws_url = "{rpc.ws}"\n'
    return config, {"DS_KEY": chain.settings.streams_key, "DS_SECRET": chain.settings.streams_secret}


def kill(chain: Emulator, *endpoints: str) -> list[int]:
    return [chain.inject(Fault(kind="disconnect", endpoint=name, duration_s=GONE)) for name in endpoints]


def told(client: Subscriber) -> dict[str, list[tuple[str, ...]]]:
    """The ways and links that were told as lost, and as found again."""
    found: dict[str, list[tuple[str, ...]]] = {"firing": [], "resolved": []}
    for message in client.messages:
        alert = message["alert"] if message["type"] == "alert" else {}
        if alert.get("kind") == "redundancy_degraded" and alert["feed"] is None and message["change"] in found:
            found[message["change"]].append(tuple(alert["sources"]))
    return found


async def goes_on(client: Subscriber, chain: Emulator, lost: list[tuple[str, ...]], what: str) -> None:
    """Until the loss is told and both feeds had news since; a feed that is not live on the way fails."""
    since_us, begun, fresh = chain.world.now_us, len(client.messages), set[str]()

    def done(message: Message) -> bool:
        fresh.update(one["feed"] for one in entries(message) if (one["publish_time_us"] or 0) > since_us)
        return len(fresh) == 2 and set(lost) <= set(told(client)["firing"])

    await client.until(done, what)
    states = {one["state"] for message in client.messages[begun:] for one in entries(message)}
    assert states == {"live"}, what


async def found_again(client: Subscriber, what: str) -> None:
    def done(_: Message) -> bool:
        changes = told(client)
        return sorted(changes["firing"]) == sorted(changes["resolved"])

    await client.until(done, what)


async def test_each_way_is_killed_in_turn_then_all_but_one_then_revived(launch: Launch, chain: Emulator) -> None:
    config, secrets = configured(chain)
    hub = await launch(config=config, env=secrets)
    async with subscriber(hub) as client:
        await client.all_in("live", [SOL, "BTC/USD"])
        await client.socket.send('{"type":"subscribe","id":2,"channel":"alerts","feeds":["*"]}')
        for endpoints in (FIRST, SECOND):
            for name, lost in endpoints.items():
                (number,) = kill(chain, name)
                await goes_on(client, chain, lost, f"live without {name}, and a word on it")
                chain.clear(number)
            await found_again(client, f"{list(endpoints)} are back")
        kill(chain, *FIRST)
        client.messages.clear()
        await goes_on(client, chain, [way for lost in FIRST.values() for way in lost], "live by one way of each source")
        await way_of(hub, "hermes:1", up=False)
        chain.clear()
        await found_again(client, "all are back")
    assert await hub.end() == 0
    assert not [line for line in hub.log if "Traceback" in line]
    replayed = await command("replay", hub.state / "journal", "--json")
    assert replayed.status == 0 and replayed.lines[-1]["proved"] is True


async def way_of(hub: HubProcess, transport: str, *, up: bool) -> None:
    ways = {one["transport"]: one for one in (await hub.get("/readyz"))["ways"]}
    assert ways[transport]["up"] is up
    assert ways["hermes:2"]["up"] is True and ways["solana/doves:b"]["updates"] > 0


async def test_a_way_without_proof_that_is_left_alone_gives_no_price_and_is_named(
    launch: Launch, chain: Emulator
) -> None:
    config, secrets = configured(chain)
    hub = await launch(config=config, env=secrets)
    async with subscriber(hub, SOL) as client:
        await client.all_in("live", [SOL])
        kill(chain, "streams", "streams-2")
        entry = await client.feed(SOL, lambda one: one["state"] == "none", "no price by the account alone")
        assert entry["reason"] == "verifier_unusable"
        assert entry["inputs"]["chainlink"]["status"] == "stale"
        explained = await patiently(explained_by(hub, client), "a note on the account's newer price")
        ways = explained["inputs"]["chainlink"]["ways"]
        assert ways["solana/doves:a"]["verified"] is False and ways["streams:1"]["behind_ms"] > 0
        chain.clear()
        await client.feed(SOL, lambda one: one["state"] == "live", "live again")
    assert await hub.end() == 0


async def explained_by(hub: HubProcess, client: Subscriber) -> Message:
    while True:
        answer: Message = await hub.get("/v1/explain/SOL-USD")
        if any("chainlink is stale: solana/doves:" in note and "not proved" in note for note in answer["notes"]):
            return answer
        await client.read()
