"""Chainlink's price feeds on an EVM chain, by JSON-RPC over a websocket of one node. The pure half.

A proxy is what everybody names; it emits nothing. Its aggregator does, and is another one after each *phase change*,
of which the proxies in use tell nobody. So the link asks the proxy for its aggregator at the start of each session and
by a timer, subscribes to the aggregator's logs, fills what it may have missed (``eth_getLogs``), and compares what the
logs said with ``latestRoundData``, whose round id also names the phase.

Reorganised chains are noticed in three ways: a log with ``removed``, a block that doesn't continue the one before
(``newHeads``), and a ``latestRoundData`` that went back. A price that is no longer on the chain is invalid from then
on; a later answer ends that, or the very same one, should the chain bring it again.

Several nodes are several links.
"""

from collections.abc import Mapping
from typing import ClassVar

import msgspec

from feeds.chainlink.contracts import (
    AGGREGATOR,
    DECIMALS,
    DESCRIPTION,
    EVENTS,
    LATEST_ROUND_DATA,
    PHASE_ID,
    AnswerUpdated,
    Log,
    Round,
    Transmission,
    decode_address,
    decode_log,
    decode_number,
    decode_round,
    decode_text,
    proxy_round,
    quantity,
)
from feeds.chainlink.node import (
    Call,
    Head,
    Message,
    NodeError,
    NodeLimits,
    Session,
    log_or_head,
    logs_of,
    request,
    text_of,
)
from feeds.chainlink.proxies import NEVER, EvmFeed, Proxy
from feeds.chainlink.rounds import Answer, News, Rounds
from feeds.evm_addresses import checksummed
from feeds.host_link import LONGEST_PATIENCE_US, REFUSALS, HostLink, Output, secrets_of
from oracle_hub.core.source import (
    Condition,
    Effect,
    Frame,
    Open,
    PriceUpdate,
    Reconnect,
    Send,
    Status,
    Unchanged,
)
from oracle_hub.errors import ConfigError, DecodeError, PriceError

_DEAF_AFTER_US = 30_000_000
_REORG_MARGIN_BLOCKS = 8
_KEPT_FORMER = 64
_QUESTIONS = {"aggregator": AGGREGATOR, "phaseId": PHASE_ID, "decimals": DECIMALS, "description": DESCRIPTION}


class EvmLink(HostLink):
    """A :class:`~oracle_hub.core.source.Link` to one node.

    Args:
        name: unique in the run.
        url: of the websocket; may hold a key, and is never shown.
        feeds: by feed.
        chain_id: what the node must answer to ``eth_chainId``.
        source: the name under which its updates go.
        sequencer: proxy of the chain's uptime feed: prices wait until it says that the sequencer is up, and for the
            grace period after it came up. None: the chain has none.
        limits: patience.

    Raises:
        ConfigError: an address that can't be one, or one proxy for two feeds.
    """

    CONFIGURED: ClassVar[frozenset[str]] = HostLink.CONFIGURED | {"_url", "_chain_id", "_limits"}

    def __init__(
        self,
        name: str,
        url: str,
        feeds: Mapping[str, EvmFeed],
        *,
        chain_id: int,
        source: str = "evm",
        sequencer: str | None = None,
        limits: NodeLimits | None = None,
    ) -> None:
        super().__init__(name, source, *secrets_of(url))
        self._url = url
        self._chain_id = chain_id
        self._limits = limits or NodeLimits()
        self._proxies: dict[str, Proxy] = {}
        for feed, spec in feeds.items():
            self._add(feed, spec.proxy, spec.expo)
        if sequencer is not None:
            self._add(None, sequencer, 0)
        self._guarded = sequencer is not None
        self._halted = False
        self._last_id = 0
        self._asleep = True
        self._start(0)

    def _add(self, feed: str | None, proxy: str, expo: int) -> None:
        what = "sequencer" if feed is None else f"feed {feed}"
        try:
            address = checksummed(proxy)
        except DecodeError as error:
            raise ConfigError(f"source {self.source}, {what}: {error}") from None
        twin = self._proxies.get(address.lower())
        if twin is not None:
            raise ConfigError(f"source {self.source}: {twin.feed or 'sequencer'} and {what} have one proxy")
        self._proxies[address.lower()] = Proxy(feed, address, Rounds(expo))

    def _start(self, now_us: int) -> None:
        self._session = Session(now_us)
        self._checked_us = now_us
        self._uptime_known = False
        self._grace_until_us = NEVER
        self._followed: dict[str, str] = {}
        self._former: dict[str, None] = {}
        for proxy in self._proxies.values():
            proxy.forget_session()

    # The contract.

    def connect(self, now_us: int) -> list[Effect]:
        """Open the socket and ask which chain it is. Everything else waits for the answer."""
        self._start(now_us)
        self._asleep = False
        return [Open("websocket", self._url), self._ask("chain", "eth_chainId", [], now_us)]

    def receive(self, frame: Frame, received_us: int) -> list[Output]:
        """Take a notification, the answer to a request, or a refusal of the socket."""
        if frame.channel != "websocket":
            return [self._malformed(None, f"a {frame.channel} frame on a link to a node", received_us)]
        if frame.status:
            return self._refused(frame, received_us)
        self._session.hear(received_us)
        try:
            message = Message.of(frame.data)
            if message.params is not None:
                return self._notified(message.params.result, received_us)
            call = self._session.calls.pop(-1 if message.id is None else message.id, None)
            if call is None:
                raise DecodeError("answer to no request")
        except DecodeError as error:
            return [self._malformed(None, str(error), received_us)]
        proxy = self._proxies.get(call.proxy)
        if message.error is not None:
            return self._failed(call, proxy, message.error, received_us)
        return self._answered(call, proxy, message.result, received_us)

    def next_deadline(self) -> int | None:
        """The next instant for a question, a watchdog or the end of a grace period; possibly too early, never late."""
        if self._asleep:
            return None
        limits = self._limits
        session_us = self._session.next_deadline(limits)
        again_us = min((proxy.again_us for proxy in self._proxies.values()), default=NEVER)
        check_us = self._checked_us + limits.check_every_us
        return min(session_us, again_us, check_us, self._grace_until_us)

    def on_timer(self, now_us: int) -> list[Output]:
        """Watchdogs, the round of questions, and the end of the sequencer's grace period."""
        output: list[Output] = []
        if self._asleep:
            return output
        if now_us >= self._grace_until_us:
            self._grace_until_us = NEVER
            output += self._resumed(now_us)
        limits, session = self._limits, self._session
        if now_us - session.heard_us >= limits.silence_us:
            return [*output, self._over(f"nothing heard for {limits.silence_us / 1_000_000:g} s")]
        for call in session.unanswered(now_us, limits):
            output += self._unanswered(call, now_us)
        if session.quiet(now_us, limits):
            output.append(self._ask("height", "eth_blockNumber", [], now_us))
        if now_us - session.head_us >= limits.head_silence_us:
            session.head_us = now_us
            text = f"no new block for {limits.head_silence_us / 1_000_000:g} s"
            output += self._trouble("head", None, Condition.LOST, text, now_us)
        checking = now_us - self._checked_us >= limits.check_every_us
        if checking:
            self._checked_us = now_us
        for proxy in self._proxies.values() if session.right_chain else ():
            if checking or proxy.again_us <= now_us:
                proxy.again_us = NEVER
                output += self._look(proxy, now_us)
        return output

    # Questions.

    def _ask(self, what: str, method: str, params: list[object], now_us: int, proxy: Proxy | None = None) -> Send:
        self._last_id += 1
        self._session.calls[self._last_id] = Call(what, "" if proxy is None else proxy.address.lower(), now_us)
        return request(self._last_id, method, params)

    def _call(self, what: str, proxy: Proxy, data: str, now_us: int) -> Send:
        return self._ask(what, "eth_call", [{"to": proxy.address, "data": data}, "latest"], now_us, proxy)

    def _look(self, proxy: Proxy, now_us: int) -> list[Output]:
        """Ask a proxy what it is now, and what its latest answer is if it is followed."""
        output = self._resolve(proxy, now_us)
        if proxy.following:
            output.append(self._call("latestRoundData", proxy, LATEST_ROUND_DATA, now_us))
        return output

    def _resolve(self, proxy: Proxy, now_us: int) -> list[Output]:
        proxy.answers = {}
        return [self._call(what, proxy, _QUESTIONS[what], now_us) for what in ("phaseId", "aggregator")]

    def _backfill(self, proxy: Proxy, now_us: int) -> list[Output]:
        """Ask for the logs since the last block that was seen; nothing when none ever was."""
        if not proxy.block:
            return []
        first = max(proxy.block - _REORG_MARGIN_BLOCKS, self._session.height - self._limits.backfill_blocks, 0)
        wanted = {"address": proxy.aggregator, "topics": [list(EVENTS)], "fromBlock": hex(first), "toBlock": "latest"}
        return [self._ask("eth_getLogs", "eth_getLogs", [wanted], now_us, proxy)]

    def _over(self, reason: str, after_us: int = 0) -> Reconnect:
        self._asleep = True
        return Reconnect(reason, after_us // 1_000)

    # Answers.

    def _answered(self, call: Call, proxy: Proxy | None, result: msgspec.Raw, at: int) -> list[Output]:
        try:
            if proxy is None:
                return self._of_the_node(call.what, text_of(result), at)
            if call.what == "eth_unsubscribe":
                return []
            if call.what == "logs":
                return self._subscribed(proxy, text_of(result), at)
            if call.what == "eth_getLogs":
                return [item for log in logs_of(result) for item in self._log(log, at)]
            text = text_of(result)
            if text == "0x":
                why = f"{proxy.named}: no contract at {proxy.address} answers {call.what}()"
                return self._troubled(proxy, call, Condition.MISSING_ACCOUNT, why, at)
            output = self._clear(f"{call.what} {proxy.address}", at)
            if call.what == "latestRoundData":
                return output + self._latest(proxy, decode_round(text), at)
            return output + self._told_of_itself(proxy, call.what, text, at)
        except DecodeError as error:
            if proxy is None:
                return [self._malformed(None, f"{call.what}: {error}", at)]
            why = f"{proxy.named}: {call.what} of {proxy.address}: {error}"
            return self._troubled(proxy, call, Condition.LOST, why, at)

    def _of_the_node(self, what: str, text: str, at: int) -> list[Output]:
        if what == "chain":
            chain_id = quantity(text, "eth_chainId")
            if chain_id != self._chain_id:
                why = f"chain id is {chain_id}, configured is {self._chain_id}"
                output = self._trouble("chain", None, Condition.WRONG_CLUSTER, why, at)
                return [*output, self._over("wrong chain", self._limits.refused_retry_us)]
            self._session.right_chain = True
            output = self._clear("chain", at) + self._clear("socket", at)
            output.append(self._ask("height", "eth_blockNumber", [], at))
            output.append(self._ask("newHeads", "eth_subscribe", ["newHeads"], at))
            for proxy in self._proxies.values():
                output += self._look(proxy, at)
            return output
        if what == "height":
            self._session.height = max(self._session.height, quantity(text, "eth_blockNumber"))
        return []

    def _told_of_itself(self, proxy: Proxy, what: str, text: str, at: int) -> list[Output]:
        """One answer about what a proxy is; with the last of them it is known."""
        if what == "aggregator":
            proxy.answers[what] = decode_address(text, what)
        elif what == "description":
            proxy.answers[what] = decode_text(text, what)
        else:
            proxy.answers[what] = decode_number(text, "uint16" if what == "phaseId" else "uint8", what)
        if len(proxy.answers) == 2 and {"phaseId", "aggregator"} <= proxy.answers.keys():
            return self._resolved(proxy, at)
        return self._described(proxy, at) if len(proxy.answers) == len(_QUESTIONS) else []

    def _resolved(self, proxy: Proxy, at: int) -> list[Output]:
        """Phase and aggregator are known: nothing to do, a change to follow, or the two were asked astride of one."""
        phase, aggregator = proxy.answers["phaseId"], str(proxy.answers["aggregator"])
        changed = (phase != proxy.phase, aggregator != proxy.aggregator)
        if proxy.following and changed == (False, False):
            proxy.straddled, proxy.answers = False, {}
            proxy.block = max(proxy.block, self._session.height)
            return []
        if not int(aggregator, 16):
            why = f"{proxy.named}: proxy {proxy.address} has no aggregator in phase {phase}"
            return self._troubled(proxy, Call("aggregator", "", at), Condition.MISSING_ACCOUNT, why, at)
        if proxy.following and changed != (True, True) and not proxy.straddled:
            proxy.straddled = True
            return self._resolve(proxy, at)
        proxy.straddled = False
        return [self._call(what, proxy, _QUESTIONS[what], at) for what in ("decimals", "description")]

    def _described(self, proxy: Proxy, at: int) -> list[Output]:
        """Everything about a proxy is known: refuse it, or follow its aggregator."""
        described = str(proxy.answers["description"])
        if proxy.feed is not None and "".join(described.split()).upper() != proxy.feed.upper():
            output = self._end_subscription(proxy, at)
            self._unfollow(proxy)
            proxy.refused = True
            why = f"{proxy.feed}: proxy {proxy.address} describes itself as {self._plain(described)!r}: another pair"
            told = self._trouble(f"pair {proxy.address}", proxy.feed, Condition.INVALID, why, at)
            return [*output, *told, *([self._malformed(proxy.feed, why, at)] if told else [])]
        output = self._clear(f"pair {proxy.address}", at)
        proxy.refused = False
        phase, aggregator = int(proxy.answers["phaseId"]), str(proxy.answers["aggregator"])
        if proxy.phase and proxy.feed is not None and phase != proxy.phase:
            why = f"{proxy.feed}: proxy {proxy.address} is in phase {phase}, with aggregator {checksummed(aggregator)}"
            output.append(Status(self.source, self.name, proxy.feed, Condition.CHANGED, why, at))
        output += self._end_subscription(proxy, at)
        self._unfollow(proxy)
        proxy.phase, proxy.aggregator = phase, aggregator
        if proxy.waiting is not None and proxy.waiting.round.phase != phase:
            proxy.waiting = None  # its number may have had other decimals
        proxy.rounds.decimals = int(proxy.answers["decimals"])
        self._followed[aggregator] = proxy.address.lower()
        wanted = {"address": aggregator, "topics": [list(EVENTS)]}
        output.append(self._ask("logs", "eth_subscribe", ["logs", wanted], at, proxy))
        return output

    def _unfollow(self, proxy: Proxy) -> None:
        proxy.following, proxy.subscription = False, ""
        if self._followed.pop(proxy.aggregator, None) is not None:
            self._former[proxy.aggregator] = None
            if len(self._former) > _KEPT_FORMER:
                del self._former[next(iter(self._former))]

    def _end_subscription(self, proxy: Proxy, at: int) -> list[Output]:
        if not proxy.subscription:
            return []
        return [self._ask("eth_unsubscribe", "eth_unsubscribe", [proxy.subscription], at, proxy)]

    def _subscribed(self, proxy: Proxy, subscription: str, at: int) -> list[Output]:
        """From here on nothing is missed; now for what was before."""
        proxy.subscription, proxy.following = subscription, True
        proxy.first_look = True
        output = self._clear(f"logs {proxy.address}", at) + self._backfill(proxy, at)
        proxy.block = max(proxy.block, self._session.height)
        return [*output, self._call("latestRoundData", proxy, LATEST_ROUND_DATA, at)]

    # Notifications.

    def _notified(self, result: msgspec.Raw, at: int) -> list[Output]:
        told = log_or_head(result)
        return self._log(told, at) if isinstance(told, Log) else self._new_head(told, at)

    def _new_head(self, head: Head, at: int) -> list[Output]:
        reorged = self._session.take_head(head, at)
        output = self._clear("head", at)
        if reorged:
            for proxy in self._proxies.values():
                if proxy.following:
                    proxy.reorged = True
                    proxy.block = min(proxy.block, self._session.height)
                    output += self._backfill(proxy, at)
                    output.append(self._call("latestRoundData", proxy, LATEST_ROUND_DATA, at))
        return output

    def _log(self, log: Log, at: int) -> list[Output]:
        address = log.address.lower()
        proxy = self._proxies.get(self._followed.get(address, ""))
        if proxy is None:
            return [] if address in self._former else [self._malformed(None, "a log that was not asked for", at)]
        try:
            event = decode_log(log)
            block = 0 if log.block_number is None else quantity(log.block_number, "blockNumber")
        except DecodeError as error:
            return [self._malformed(proxy.feed, f"log of {checksummed(address)}: {error}", at)]
        if event is None:
            return []
        if log.removed:
            return self._removed(proxy, event, log, at) if isinstance(event, AnswerUpdated) else []
        if not proxy.rounds.first_seen(log.key):
            return []
        proxy.block = max(proxy.block, block)
        transaction = log.transaction_hash or ""
        if isinstance(event, Transmission):
            proxy.rounds.observe(transaction, event.round, event.observed_at)
            return []
        if proxy.feed is None:
            return [self._call("latestRoundData", proxy, LATEST_ROUND_DATA, at)]
        round_id = proxy_round(proxy.phase, event.round)
        observed_at = proxy.rounds.observed_s.pop((transaction, event.round), None)
        new = Round(round_id, event.answer, event.updated_at, event.updated_at)
        proxy.called_us = 0
        return self._take(proxy, Answer(new, block, observed_at, log.key), at)

    def _removed(self, proxy: Proxy, event: AnswerUpdated, log: Log, at: int) -> list[Output]:
        """A block is no longer part of the chain: what it brought is not true any more."""
        rounds = proxy.rounds
        rounds.seen.pop(log.key, None)
        held = rounds.held
        if (
            held is None
            or held.round_id != proxy_round(proxy.phase, event.round)
            or rounds.log_key
            not in (
                log.key,
                ("", ""),
            )
        ):
            return []
        told = self._taken_back(proxy, f"its block {log.block_number} was removed", at)
        return [*told, self._call("latestRoundData", proxy, LATEST_ROUND_DATA, at)]

    # Prices.

    def _latest(self, proxy: Proxy, new: Round, at: int) -> list[Output]:
        """Compare what the chain says now with what its logs said."""
        if proxy.feed is None:
            return self._uptime(new, at)
        if new.phase != proxy.phase:
            return self._resolve(proxy, at) if not proxy.answers or len(proxy.answers) == 4 else []
        held, first_look, came = proxy.rounds.held, proxy.first_look, Answer(new, self._session.height)
        reorged, proxy.reorged, proxy.first_look = proxy.reorged, False, False
        if new.updated_at == 0:
            return [self._malformed(proxy.feed, f"{proxy.feed}: {proxy.address} has no answer yet", at)]
        if held is None or new.round_id > held.round_id:
            proxy.doubted = False
            proxy.called_us = 0 if first_look or reorged or self._withheld() else at
            return self._take(proxy, came, at)
        if new.round_id == held.round_id and new.answer == held.answer:
            proxy.doubted = False
            if proxy.called_us and at - proxy.called_us >= _DEAF_AFTER_US:
                why = f"{proxy.feed}: round {held.round_id} never came as a log of {checksummed(proxy.aggregator)}"
                return [self._malformed(proxy.feed, why, at), self._over("a subscription is deaf")]
            return [Unchanged(self.source, self.name, proxy.feed, at)]
        why = f"latestRoundData says {new.answer} in round {new.round_id}, not {held.answer} in round {held.round_id}"
        if reorged or proxy.doubted:
            proxy.doubted = False
            return [*self._taken_back(proxy, why, at), *self._take(proxy, came, at)]
        proxy.doubted, proxy.again_us = True, at + self._limits.second_look_us
        return [self._malformed(proxy.feed, f"{proxy.feed}: {proxy.address}: {why}", at)]

    def _taken_back(self, proxy: Proxy, why: str, at: int) -> list[Output]:
        held = proxy.rounds.held
        proxy.waiting = None
        if not proxy.rounds.take_back() or held is None:
            return []
        text = f"{proxy.feed}: answer {held.answer} of {proxy.address} was taken back by the chain: {why}"
        return [Status(self.source, self.name, proxy.feed, Condition.INVALID, text, at)]

    def _take(self, proxy: Proxy, came: Answer, at: int) -> list[Output]:
        """Tell an answer that is news, unless the sequencer is not to be trusted: then the newest one waits."""
        assert proxy.feed is not None
        if self._withheld():
            if proxy.waiting is None or came.round.round_id >= proxy.waiting.round.round_id:
                proxy.waiting = came
            return []
        rounds, new, before = proxy.rounds, came.round, proxy.rounds.held
        trouble = f"price {proxy.address}"
        try:
            news = rounds.take(came, at)
        except PriceError as error:
            why = f"{proxy.feed}: {error}"
            return [
                self._malformed(proxy.feed, why, at),
                *self._trouble(trouble, proxy.feed, Condition.INVALID, why, at),
            ]
        if news is News.TOLD:
            update = PriceUpdate(
                self.source,
                self.name,
                proxy.feed,
                rounds.told,
                rounds.publish_us,
                at,
                slot=came.block,
                account=proxy.address,
            )
            return [*self._clear(trouble, at), update]
        if news is News.RESTORED:
            text = f"{proxy.feed}: the answer that was taken back stands again"
            return [Status(self.source, self.name, proxy.feed, Condition.RESUMED, text, at)]
        if news is News.OTHER and before is not None:
            proxy.again_us = at + self._limits.second_look_us
            why = f"{proxy.feed}: round {new.round_id} is {new.answer}, and was {before.answer}"
            return [self._malformed(proxy.feed, why, at)]
        if news is News.BACKWARD:
            why = f"{proxy.feed}: round {new.round_id} is older ({new.updated_at}) than what was told: not taken"
            return [self._malformed(proxy.feed, why, at)]
        return [Unchanged(self.source, self.name, proxy.feed, at)]

    # The sequencer.

    def _withheld(self) -> bool:
        return self._guarded and (self._halted or not self._uptime_known)

    def _uptime(self, new: Round, at: int) -> list[Output]:
        """Answer 0 is up and 1 is down, since ``startedAt``; one that was never initialised says nothing."""
        self._uptime_known = True
        since_us = new.started_at * 1_000_000
        open_us = since_us + self._limits.sequencer_grace_us
        self._grace_until_us = NEVER
        if new.answer == 0 and new.started_at and at >= open_us:
            return self._resumed(at)
        if new.answer == 0 and new.started_at:
            self._grace_until_us = min(open_us, NEVER)
            text = f"the sequencer came up at {new.started_at}, prices wait out the grace period"
        elif new.answer == 0:
            text = "the sequencer's uptime feed was never initialised"
        else:
            text = f"the sequencer is down since {new.started_at}"
        self._halted = True
        return self._trouble("sequencer", None, Condition.HALTED, text, at)

    def _resumed(self, at: int) -> list[Output]:
        """The sequencer is to be trusted: what waited is told, and what was told before counts again."""
        was_halted, self._halted = self._halted, False
        output: list[Output] = []
        for proxy in self._proxies.values():
            waiting, proxy.waiting = proxy.waiting, None
            told = [] if waiting is None else self._take(proxy, waiting, at)
            stands = proxy.rounds.told_us and not proxy.rounds.taken_back and not proxy.refused
            if was_halted and proxy.feed is not None and stands and f"price {proxy.address}" not in self._troubles:
                text = "the sequencer is up"
                output.append(Status(self.source, self.name, proxy.feed, Condition.RESUMED, text, at))
            output += told
        return [*output, *self._clear("sequencer", at)]

    # Troubles.

    def _troubled(self, proxy: Proxy, call: Call, condition: Condition, why: str, at: int) -> list[Output]:
        """One call of one contract failed: named, counted, and asked again."""
        proxy.again_us = at + self._limits.second_look_us
        told = self._trouble(f"{call.what} {proxy.address}", proxy.feed, condition, why, at)
        return [self._malformed(proxy.feed, why, at), *told]

    def _failed(self, call: Call, proxy: Proxy | None, error: NodeError, at: int) -> list[Output]:
        """The node answered a request with an error."""
        said = f"{call.what}: {self._plain(error.message)} ({error.code})"
        condition = Condition.RATE_LIMITED if error.code in (429, -32_005) else Condition.LOST
        if proxy is not None:
            why = f"{proxy.named}: proxy {proxy.address}: {said}"
            if call.what == "eth_getLogs":  # latestRoundData was asked as well
                return [self._malformed(proxy.feed, why, at)]
            return self._troubled(proxy, call, condition, why, at)
        output = [self._malformed(None, said, at), *self._trouble(call.what, None, condition, said, at)]
        return [*output, self._over(said, self._limits.second_look_us)] if call.what == "chain" else output

    def _unanswered(self, call: Call, at: int) -> list[Output]:
        proxy = self._proxies.get(call.proxy)
        said = f"no answer to {call.what} in {self._limits.answer_timeout_us / 1_000_000:g} s"
        if proxy is not None:
            return self._troubled(proxy, call, Condition.LOST, f"{proxy.named}: {proxy.address}: {said}", at)
        return [self._over(said)] if call.what == "chain" else [self._malformed(None, said, at)]

    def _refused(self, frame: Frame, at: int) -> list[Output]:
        """The node refused the socket."""
        retry_us = self._limits.refused_retry_us
        output, wait_us = self._refusal(frame, "socket", at, retry_us, "the key was refused")
        if frame.status in REFUSALS:
            wait_us = min(max(wait_us, retry_us), LONGEST_PATIENCE_US)
        return [*output, self._over(f"socket refused with HTTP {frame.status}", wait_us)]
