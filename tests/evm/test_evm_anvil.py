"""EVM feeds against a real node: answers, a phase change, a node that dies, a chain that is reorganised."""

from pathlib import Path
from typing import Any

from feeds.chainlink.evm import EvmLink
from feeds.chainlink.node import NodeLimits
from feeds.chainlink.proxies import EvmFeed
from oracle_hub.core.source import Condition, Malformed, Status
from tests.evm.anvil import CHAIN_ID, Anvil, anvil, listening

S = 1_000_000
CHECK_QUICKLY = NodeLimits(check_every_us=100_000, second_look_us=100_000)


def link_to(node: Anvil, proxy: Any, feed: str = "SOL/USD", *, name: str = "evm:1", **options: Any) -> EvmLink:
    return EvmLink(name, node.ws, {feed: EvmFeed(proxy.address)}, chain_id=CHAIN_ID, **options)


def conditions(said: list[Any]) -> list[Condition]:
    return [one.condition for one in said if isinstance(one, Status)]


async def test_answers_arrive_with_the_time_of_their_observation() -> None:
    with anvil() as node:
        proxy, aggregator = node.feed("SOL / USD")
        first_s = node.transmit(aggregator, 115 * 10**8, 5)
        async with listening(link_to(node, proxy)) as heard:
            held = await heard.price(115 * 10**8)
            assert (held.publish_us, held.account, held.slot) == (first_s * S, proxy.address, 3)
            second_s = node.transmit(aggregator, 116 * 10**8, 0)
            new = await heard.price(116 * 10**8)
            assert (new.publish_us, new.slot) == (second_s * S, 4)
            node.ask("evm_increaseTime", 60)
            third_s = node.transmit(aggregator, 117 * 10**8, 7)
            assert (await heard.price(117 * 10**8)).publish_us == (third_s - 7) * S
            assert [type(one) for one in heard.said if isinstance(one, Malformed | Status)] == []
            assert not any(isinstance(detail, str) and detail == "timer" for _, detail, _ in heard.frames)


async def test_a_phase_change_is_followed_and_nothing_between_is_lost() -> None:
    with anvil() as node:
        proxy, old = node.feed("SOL / USD")
        node.transmit(old, 115 * 10**8)
        async with listening(link_to(node, proxy, limits=CHECK_QUICKLY)) as heard:
            await heard.price(115 * 10**8)
            new = node.deploy("Aggregator", 18, "SOL / USD")
            node.ask("evm_increaseTime", 60)
            node.transmit(new, 116 * 10**18)
            node.receipt(proxy.functions.change(new.address))
            first_s = node.transmit(new, 117 * 10**18, 2)
            assert (await heard.price(117 * 10**8)).publish_us in (first_s * S, (first_s - 2) * S)
            changed = [one.text for one in heard.said if isinstance(one, Status) and one.condition is Condition.CHANGED]
            assert changed == [f"SOL/USD: proxy {proxy.address} is in phase 2, with aggregator {new.address}"]
            node.ask("evm_increaseTime", 60)
            node.transmit(old, 99 * 10**8)  # whoever still writes there is no longer heard
            node.transmit(new, 118 * 10**18)
            await heard.price(118 * 10**8)
            told = [one.mantissa for one in heard.prices]
            assert [price for at, price in enumerate(told) if told.index(price) == at] in (
                [115 * 10**8, 117 * 10**8, 118 * 10**8],
                [115 * 10**8, 116 * 10**8, 117 * 10**8, 118 * 10**8],
            )
            times = [one.publish_us for one in heard.prices]
            assert times == sorted(times)


async def test_a_killed_node_is_found_again_with_what_it_said_meanwhile(tmp_path: Path) -> None:
    with anvil(tmp_path / "state.json") as node:
        proxy, aggregator = node.feed("SOL / USD")
        node.transmit(aggregator, 115 * 10**8)
        async with listening(link_to(node, proxy, limits=CHECK_QUICKLY)) as heard:
            await heard.price(115 * 10**8)
            node.stop()
            node.start()
            node.ask("evm_increaseTime", 60)
            missed_s = node.transmit(aggregator, 116 * 10**8, 4)
            missed = await heard.price(116 * 10**8)
            assert missed.publish_us in (missed_s * S, (missed_s - 4) * S)
            node.ask("evm_increaseTime", 60)
            later_s = node.transmit(aggregator, 117 * 10**8, 4)
            assert (await heard.price(117 * 10**8)).publish_us == (later_s - 4) * S
            node.stop(kill=True)
            node.start()  # as it was before the state was written last: the chain lost two answers
            await heard.until(lambda: Condition.INVALID in conditions(heard.said), "the loss of an answer")
            taken_back = next(one for one in heard.said if isinstance(one, Status) and one.condition == "invalid")
            assert "answer 11700000000" in taken_back.text and "taken back" in taken_back.text


async def test_a_reorganised_chain_takes_back_what_it_said() -> None:
    with anvil() as node:
        proxy, aggregator = node.feed("SOL / USD")
        node.transmit(aggregator, 115 * 10**8)
        async with listening(link_to(node, proxy)) as heard:
            await heard.price(115 * 10**8)
            node.ask("evm_increaseTime", 60)
            node.transmit(aggregator, 116 * 10**8)
            await heard.price(116 * 10**8)
            node.ask("anvil_reorg", 1, [])
            await heard.until(lambda: Condition.INVALID in conditions(heard.said), "what the chain took back")
            assert heard.prices[-1].mantissa == 116 * 10**8  # the older one is not told again
            node.ask("evm_increaseTime", 120)
            at_s = node.transmit(aggregator, 118 * 10**8)
            assert (await heard.price(118 * 10**8)).publish_us == (at_s - 3) * S


async def test_a_proxy_of_another_pair_and_an_address_without_a_contract_are_refused_by_name() -> None:
    with anvil() as node:
        eth, eth_aggregator = node.feed("ETH / USD")
        sol, sol_aggregator = node.feed("SOL / USD")
        node.transmit(eth_aggregator, 3_000 * 10**8)
        node.transmit(sol_aggregator, 115 * 10**8)
        nobody = "0x00000000000000000000000000000000000000aA"
        feeds = {"BTC/USD": EvmFeed(eth.address), "SOL/USD": EvmFeed(sol.address), "USDC/USD": EvmFeed(nobody.lower())}
        async with listening(EvmLink("evm:1", node.ws, feeds, chain_id=CHAIN_ID)) as heard:
            await heard.price(115 * 10**8)
            await heard.until(lambda: len(conditions(heard.said)) >= 3, "both refusals")
            assert {one.feed for one in heard.prices} == {"SOL/USD"}
            named = {(one.feed, one.condition): one.text for one in heard.said if isinstance(one, Status)}
            why = f"BTC/USD: proxy {eth.address} describes itself as 'ETH / USD': another pair"
            assert named["BTC/USD", Condition.INVALID] == why
            assert nobody.lower() in named["USDC/USD", Condition.MISSING_ACCOUNT].lower()


async def test_another_chain_is_refused() -> None:
    with anvil() as node:
        proxy, aggregator = node.feed("SOL / USD")
        node.transmit(aggregator, 115 * 10**8)
        link = EvmLink("evm:1", node.ws, {"SOL/USD": EvmFeed(proxy.address)}, chain_id=1)
        async with listening(link) as heard:
            await heard.until(lambda: bool(heard.said), "a refusal")
            assert [(one.condition, one.text) for one in heard.said if isinstance(one, Status)] == [
                (Condition.WRONG_CLUSTER, "chain id is 31337, configured is 1")
            ]
            assert heard.prices == []


async def test_one_of_two_nodes_is_enough() -> None:
    with anvil() as one, anvil() as other:
        proxies = [node.feed("SOL / USD") for node in (one, other)]
        assert proxies[0][0].address == proxies[1][0].address
        for node, (_, aggregator) in zip((one, other), proxies, strict=True):
            node.transmit(aggregator, 115 * 10**8)
        links = [link_to(node, proxies[0][0], name=f"evm:{at}") for at, node in ((1, one), (2, other))]
        async with listening(*links) as heard:
            await heard.until(lambda: {price.transport for price in heard.prices} == {"evm:1", "evm:2"}, "both nodes")
            one.stop(kill=True)
            other.ask("evm_increaseTime", 60)
            other.transmit(proxies[1][1], 116 * 10**8)
            assert (await heard.price(116 * 10**8)).transport == "evm:2"
