"""The service behind a worker's server: what the hub said over the pipe, and questions to it."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from oracle_hub.core.hub import Batch, Decision
from oracle_hub.errors import NoAnswerError
from oracle_hub.server.feed_pipe import Answer, Ask, Facts, Live, Question
from oracle_hub.server.service import SignedQuery
from oracle_hub.stream.messages import is_removed

ANSWER_TIMEOUT_S = 1.0
MAX_QUESTIONS = 64
"""Unanswered at once; more are refused."""


class FedService:
    """Implements :class:`oracle_hub.server.service.Service` in a process that the hub feeds.

    Args:
        live: how things stood when the hub had said all that was before.
        now_us: the hub's clock.
        current: whether the hub's last word is young enough, at a time of its clock, for a heartbeat.
        send: sends a question to the hub, whose answer comes back through :meth:`answered`.
    """

    def __init__(
        self,
        live: Live,
        *,
        now_us: Callable[[], int],
        current: Callable[[int], bool],
        send: Callable[[Ask], None],
        timeout_s: float = ANSWER_TIMEOUT_S,
    ) -> None:
        self.now_us = now_us
        self.current = current
        self.seq = live.seq
        self._facts = live.facts
        self._decisions = {decision.feed: decision for decision in live.decisions}
        self._send = send
        self._timeout_s = timeout_s
        self._asked = 0
        self._waiting: dict[int, asyncio.Future[Answer]] = {}

    # What the hub said.

    def take(self, batch: Batch) -> None:
        """A batch was published."""
        self.seq = batch.seq
        for decision in batch.decisions:
            if is_removed(decision):
                self._decisions.pop(decision.feed, None)
            else:
                self._decisions[decision.feed] = decision

    def learn(self, facts: Facts) -> None:
        """Facts changed."""
        self._facts = facts

    def answered(self, answer: Answer) -> None:
        """An answer came, maybe too late."""
        waiting = self._waiting.get(answer.number)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)

    # What the server asks.

    @property
    def instance(self) -> str:
        return self._facts.instance

    @property
    def epoch(self) -> int:
        return self._facts.epoch

    @property
    def first_epoch(self) -> int | None:
        return self._facts.first_epoch

    @property
    def simulated(self) -> Mapping[str, Any] | None:
        return self._facts.simulated

    @property
    def policy(self) -> str:
        return self._facts.policy

    @property
    def config_hash(self) -> str:
        return self._facts.config_hash

    @property
    def limits(self) -> Mapping[str, Any]:
        return self._facts.limits

    @property
    def decisions(self) -> Mapping[str, Decision]:
        return {feed: self._decisions[feed] for feed in self._facts.feeds if feed in self._decisions}

    async def explain(self, feed: str) -> msgspec.Raw | None:
        body = (await self._ask("explain", feed)).body
        return None if body is None else msgspec.Raw(body)

    async def signed(self, asked: SignedQuery) -> msgspec.Raw:
        return msgspec.Raw((await self._ask("signed", signed=asked)).body or b"{}")

    async def parity(self) -> msgspec.Raw:
        return msgspec.Raw((await self._ask("parity")).body or b"{}")

    async def ready(self) -> tuple[bool, msgspec.Raw]:
        answer = await self._ask("ready")
        return answer.ready, msgspec.Raw(answer.body or b"{}")

    async def metrics(self) -> bytes:
        return (await self._ask("metrics")).body or b""

    async def _ask(self, what: Question, feed: str = "", signed: SignedQuery | None = None) -> Answer:
        if len(self._waiting) >= MAX_QUESTIONS:
            raise NoAnswerError("too many questions to the hub at once")
        self._asked += 1
        number = self._asked
        waiting: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting[number] = waiting
        try:
            async with asyncio.timeout(self._timeout_s):
                self._send(Ask(number, what, feed, signed))
                answer = await waiting
        except TimeoutError:
            raise NoAnswerError(f"the hub did not answer within {self._timeout_s:g} s") from None
        finally:
            del self._waiting[number]
        if not answer.answered:
            raise NoAnswerError("the hub failed to answer; see its log")
        return answer
