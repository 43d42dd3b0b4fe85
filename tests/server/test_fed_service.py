"""The service of a worker: what the hub said, and questions that it may not answer."""

import asyncio

import msgspec
import pytest

from oracle_hub.errors import NoAnswerError
from oracle_hub.server.fed_service import MAX_QUESTIONS, FedService
from oracle_hub.server.feed_pipe import Answer, Ask, Live, Published, facts_of
from oracle_hub.server.http import Server
from oracle_hub.server.service import ServerSettings, SignedQuery
from tests.server.stream_service import HubService


class Hub:
    """A hub that hears questions, and a worker's service beside it."""

    def __init__(self, timeout_s: float = 5.0) -> None:
        self.hub = HubService("SOL/USD", "BTC/USD")
        self.asked: list[Ask] = []
        live = Live(ServerSettings(), facts_of(self.hub), self.hub.seq, tuple(self.hub.decisions.values()))
        self.service = FedService(
            live, now_us=self.hub.now_us, current=self.hub.current, send=self.asked.append, timeout_s=timeout_s
        )


def test_it_stands_as_the_hub_does() -> None:
    both = Hub()
    both.service.take(both.hub.tick("BTC/USD", 6_000_000_000_000))
    hub, service = both.hub, both.service
    assert (service.seq, service.epoch, service.instance) == (hub.seq, hub.epoch, hub.instance)
    assert list(service.decisions.items()) == list(hub.decisions.items())
    assert (service.policy, service.config_hash, service.simulated) == (hub.policy, hub.config_hash, None)
    hub.simulated, hub.first_epoch = {"tape": "x"}, hub.epoch
    service.learn(facts_of(hub))
    assert (service.first_epoch, Hub().service.first_epoch) == (hub.epoch, None)
    assert service.simulated == {"tape": "x"} and service.limits == {"max_future_ms": 2_000}


async def test_questions_go_to_the_hub_and_answers_to_who_asked() -> None:
    both = Hub()
    explain = asyncio.create_task(both.service.explain("SOL/USD"))
    ready = asyncio.create_task(both.service.ready())
    metrics = asyncio.create_task(both.service.metrics())
    await asyncio.sleep(0)
    assert [(ask.what, ask.feed) for ask in both.asked] == [("explain", "SOL/USD"), ("ready", ""), ("metrics", "")]
    for answer in (Answer(3, True, body=b"m 1"), Answer(2, True, True, b"{}"), Answer(1, True, body=b'{"a":1}')):
        both.service.answered(answer)
    both.service.answered(Answer(1, True))  # twice, and one that nobody asked for
    both.service.answered(Answer(99, True))
    assert await explain == msgspec.Raw(b'{"a":1}')
    assert await ready == (True, msgspec.Raw(b"{}"))
    assert await metrics == b"m 1"
    query = SignedQuery(feed="SOL/USD", source="pyth", publish_time_us=1, price=2)
    signed = asyncio.create_task(both.service.signed(query))
    await asyncio.sleep(0)
    assert both.asked[-1] == Ask(4, "signed", signed=query)
    both.service.answered(Answer(4, True, body=b'{"signing":false}'))
    assert await signed == msgspec.Raw(b'{"signing":false}')


async def test_a_hub_that_is_silent_fails_or_is_asked_too_much_is_named() -> None:
    both = Hub(timeout_s=0.001)
    with pytest.raises(NoAnswerError, match=r"within 0\.001 s"):
        await both.service.metrics()
    both = Hub()
    failing = asyncio.create_task(both.service.metrics())
    others = [asyncio.create_task(both.service.metrics()) for _ in range(MAX_QUESTIONS - 1)]
    await asyncio.sleep(0)
    with pytest.raises(NoAnswerError, match="too many"):
        await both.service.metrics()
    both.service.answered(Answer(1, False))
    with pytest.raises(NoAnswerError, match="failed"):
        await failing
    for task in others:
        task.cancel()


async def test_a_server_that_starts_late_has_the_past_for_resumes_and_publishes_before_it_listens() -> None:
    both = Hub()
    past = [Published(both.hub.tick("SOL/USD", 15_000_000_000 + n), n != 2) for n in range(4)]
    live = Live(ServerSettings(), facts_of(both.hub), both.hub.seq, tuple(both.hub.decisions.values()))
    service = FedService(live, now_us=both.hub.now_us, current=both.hub.current, send=both.asked.append)
    server = Server(service, ServerSettings(port=0, worker=2, reuse_port=True))
    server.load([(one.batch, one.journaled) for one in past])
    server.publish(both.hub.tick("BTC/USD", 6_000_000_000_000))
    board = server._board
    assert board is not None and board.seq == both.hub.seq
    assert dict(board.decisions) == dict(both.hub.decisions)
    missed = board.history.since(both.hub.epoch, past[0].batch.seq)
    assert missed is not None and [batch.seq for batch in missed] == list(range(past[1].batch.seq, both.hub.seq + 1))
    assert list(board._unjournaled) == [past[2].batch.seq]
    await server.start()
    await server.stop("the test is over")
