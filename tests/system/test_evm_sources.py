"""A hub that reads EVM feeds: from a real node (Anvil) as a verifier, and from the emulator's, which removes logs."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

from feeds.chainlink.evm import EvmLink
from feeds.chainlink.proxies import EvmFeed
from feeds.emulator.emulator import Emulator, EmulatorSettings
from feeds.emulator.faults import Fault
from feeds.evm_addresses import PROXIES, SEQUENCERS
from oracle_hub.core.source import Condition, Status
from tests.evm.anvil import CHAIN_ID, Anvil, Listener, anvil, listening
from tests.patience import PATIENCE_S
from tests.system.conftest import Launch
from tests.system.process import command, subscriber

SOL = PROXIES[1]["SOL/USD"]
LINEUP = """
[hub]
warmup_ms = 10_000
[roles]
primary = "doves"
verifiers = ["pyth", "evm"]
[sources.doves]
kind = "doves.custody"
max_age_ms = 10_000
[sources.pyth]
kind = "pyth.hermes"
max_age_ms = 10_000
[sources.evm]
kind = "chainlink.evm"
"""


def reading(chain: Emulator, hosts: str) -> str:
    """The line-up at the emulator's Solana and Hermes, with EVM nodes of one's own."""
    assert chain.urls is not None
    pyth = f'"pyth.hermes"\nsigners = "simulated"\nhosts = ["{chain.urls.hermes[0].url}"]'
    config = LINEUP.replace('"pyth.hermes"', pyth) + hosts
    for rpc in chain.urls.solana:
        config += f'[[solana.rpc]]\nname = "{rpc.name}"\nhttp_url = "{rpc.http}"\nws_url = "{rpc.ws}"\n'
    return config


def held(chain: Emulator, feed: str) -> int:
    """What the emulated chain holds now."""
    found = chain.world.held(feed, "chainlink.store")
    assert found is not None
    return found.mantissa


async def evm_input(hub: Any) -> dict[str, Any]:
    feed = (await hub.get("/v1/prices?detail=full"))["feeds"][0]
    return dict(feed["inputs"]["evm"])


def transmitted(node: Anvil, aggregator: Any, chain: Emulator, ago_s: int) -> int:
    """Have the node's feed say what the emulated chain holds, in a block of some seconds ago; what it says."""
    mantissa = held(chain, "SOL/USD")
    node.ask("evm_setNextBlockTimestamp", int(time.time()) - ago_s)
    node.transmit(aggregator, mantissa, 0)
    return mantissa


async def test_a_real_node_verifies_dies_and_comes_back_and_the_journal_proves_it(
    launch: Launch, chain: Emulator
) -> None:
    with anvil() as node:
        proxy, aggregator = node.feed("SOL / USD")
        first = transmitted(node, aggregator, chain, 5)
        hosts = f'hosts = ["env:NODE_URL"]\nchain_id = {CHAIN_ID}\n'
        config = reading(chain, hosts) + f'[feeds."SOL/USD"]\naccounts = {{ evm = "{proxy.address}" }}\n'
        hub = await launch(config=config, env={"NODE_URL": f"{node.ws}/?key=0123456789abcdef"})
        async with subscriber(hub) as client:
            await client.feed("SOL/USD", lambda one: one["state"] == "live", "live with a verifier on an EVM chain")
            told = await evm_input(hub)
            assert (told["price"], told["account"]) == (str(first), proxy.address) and told["transport"] == "evm:1"
            node.stop(kill=True)
            await hub.logged("evm:1")
            node.start()  # of the chain nothing is left
            again, aggregator = node.feed("SOL / USD")
            assert again.address == proxy.address
            second = transmitted(node, aggregator, chain, 0)

            async def told_again() -> None:
                while (await evm_input(hub))["price"] != str(second):
                    await client.read()

            async with asyncio.timeout(PATIENCE_S):
                await told_again()
        assert await hub.end() == 0
        replayed = await command("replay", hub.state / "journal", "--json")
        assert replayed.status == 0 and replayed.lines[-1]["proved"] is True
        journal = b"".join(path.read_bytes() for path in (hub.state / "journal").iterdir())
        assert b"0123456789abcdef" not in journal


async def test_a_simulation_has_its_own_nodes(launch: Launch) -> None:
    config = LINEUP + 'chain_id = 42_161\n[feeds."SOL/USD"]\n[feeds."BTC/USD"]\n[emulator]\n'
    hub = await launch(config=config)
    async with subscriber(hub) as client:
        await client.feed("SOL/USD", lambda one: one["state"] == "live", "live")
        await client.feed("BTC/USD", lambda one: one["state"] == "live", "live")
    assert (await hub.get("/readyz"))["conditions"] == []
    assert (await evm_input(hub))["account"] == PROXIES[42_161]["SOL/USD"]
    assert await hub.end() == 0


async def test_what_a_sequencer_withheld_counts_again_when_it_is_up(launch: Launch, chain: Emulator) -> None:
    assert chain.urls is not None
    (server,) = chain.evm
    host = f'hosts = ["{chain.urls.evm[0].ws}/42161"]\nchain_id = 42_161\nsequencer_grace_ms = 0\n'
    hub = await launch(config=reading(chain, host) + '[feeds."SOL/USD"]\n')

    def says(status: str) -> Callable[[dict[str, Any]], bool]:
        return lambda one: (
            (one["inputs"]["evm"]["status"], one["state"])
            == (
                status,
                {"ok": "live", "halted": "none"}[status],
            )
        )

    async with subscriber(hub, "SOL/USD") as client:
        await client.feed("SOL/USD", says("ok"), "live by the emulated node")
        chain.inject(Fault(kind="stall", source="chainlink.store"))
        now_s = int(time.time())
        server.play(42_161, lambda node: node.set_uptime(SEQUENCERS[42_161], down=True, since_s=now_s, now_s=now_s))
        before = (await client.feed("SOL/USD", says("halted"), "no price while it is down"))["inputs"]["evm"]
        (told,) = [one for one in (await hub.get("/readyz"))["conditions"] if one["source"] == "evm"]
        assert told["condition"] == "halted"
        now_s = int(time.time())
        server.play(42_161, lambda node: node.set_uptime(SEQUENCERS[42_161], down=False, since_s=now_s, now_s=now_s))
        after = (await client.feed("SOL/USD", says("ok"), "live again"))["inputs"]["evm"]
        told_us = before["publish_time_us"]
        assert told_us is not None and after["publish_time_us"] == told_us  # not a newer price: the one that was there
        assert (await hub.get("/readyz"))["conditions"] == []
    assert await hub.end() == 0
    replayed = await command("replay", hub.state / "journal", "--json")
    assert replayed.status == 0 and replayed.lines[-1]["proved"] is True


async def test_a_node_that_removes_logs_over_a_socket() -> None:
    settings = EmulatorSettings(seed=3, feeds=("SOL/USD",))
    emulator = Emulator(settings=settings, now_us=lambda: time.time_ns() // 1_000, drive=False)
    await emulator.start()
    try:
        (server,) = emulator.evm
        assert emulator.urls is not None
        link = EvmLink("evm:1", f"{emulator.urls.evm[0].ws}/1", {"SOL/USD": EvmFeed(SOL)}, chain_id=1)
        now_s = int(time.time())
        async with listening(link) as heard:
            await followed(heard)
            server.play(1, lambda node: node.transmit(SOL, 11_500_000_000, now_s - 3, now_s))
            await heard.price(11_500_000_000)
            server.play(1, lambda node: node.remove(now_s))

            def taken_back() -> bool:
                return any(isinstance(one, Status) and one.condition is Condition.INVALID for one in heard.said)

            await heard.until(taken_back, "an answer that is taken back")
            server.play(1, lambda node: node.transmit(SOL, 11_600_000_000, now_s - 1, now_s))
            await heard.price(11_600_000_000)
    finally:
        await emulator.stop()


async def followed(heard: Listener) -> None:
    """Wait until the link has its first price, after which it hears logs."""
    await heard.until(lambda: bool(heard.prices), "the first price")
