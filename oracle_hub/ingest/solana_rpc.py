"""Accounts over one Solana RPC endpoint: a snapshot by HTTP, changes by websocket. The pure half.

Every account has a subscription of its own, so that one bad one can't silence the rest. A subscription tells changes
only, it may miss some, and it may die without a word (solana-labs/solana#15187, #18587): so there is a snapshot at
every connect, another one as soon as all subscriptions stand, and one every few seconds afterwards. Two watchdogs:

- *transport silence*: a websocket without any frame is dropped. Slot notifications, which a node sends several times a
  second, feed this one and nothing else;
- *data silence*, per account: the chain is asked once whether the account moved. If a snapshot shows a change that no
  notification tells within ``proof_us``, the subscription is dead and is made again. If the account simply stands
  still, nothing is wrong with the link.

States are handed to the readers as they come, older ones included: which one counts is decided by publish time, in the
table, not by slot.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar, TypeAlias

import msgspec
import orjson

from oracle_hub.core.source import (
    Account,
    AccountReader,
    Condition,
    Effect,
    Event,
    Fetch,
    Frame,
    Malformed,
    Open,
    Reconnect,
    Send,
    Status,
)
from oracle_hub.ingest.backoff import retry_us
from oracle_hub.ingest.cluster_proof import ClusterProof
from oracle_hub.ingest.rpc_messages import (
    MAX_SLOT,
    NOT_A_NOTIFICATION,
    SYSTEM_PROGRAM,
    Problem,
    call,
    decode_notification,
    http_result,
    plain_text,
    rpc_problem,
    secrets_of,
    snapshot_call,
    snapshot_of,
    state_of,
    subscribe_text,
)
from oracle_hub.ingest.rpc_watch import (
    CONFIGURED,
    NEVER,
    Request,
    RequestKind,
    RpcLimits,
    Watch,
    gone,
    next_check,
    restless,
    wanted_by,
)

Output: TypeAlias = Event | Effect

_BEHIND_PATIENCE = 3
"""Answers "not reached minContextSlot" in a row before the demand is given up: the slot held may itself be wrong."""

_LONGEST_PATIENCE_US = 600_000_000
"""A node's wish to be left alone is kept over a reconnect, but not over a clock that was set back."""


class SolanaRpc:
    """A :class:`~oracle_hub.core.source.Link` to one RPC endpoint, serving any number of account readers.

    With ``genesis_hash`` no account reaches a reader before the endpoint has proved to be on that cluster; states that
    come earlier wait. After a mismatch nothing passes until a later check is right.

    ``transports`` gives the name that each reader's updates come by, where it is not the link's own.
    """

    CONFIGURED: ClassVar[frozenset[str]] = CONFIGURED

    def __init__(
        self,
        name: str,
        http_url: str,
        ws_url: str,
        readers: Sequence[AccountReader],
        *,
        commitment: str = "confirmed",
        genesis_hash: str | None = None,
        limits: RpcLimits | None = None,
        headers: Mapping[str, str] | None = None,
        transports: Sequence[str] | None = None,
    ) -> None:
        self.name = name
        self._http_url = http_url
        self._ws_url = ws_url
        self._transports = dict(zip(readers, transports or [name] * len(readers), strict=True))
        self._sources = tuple(dict.fromkeys(reader.source for reader in readers))
        self._commitment = commitment
        self._genesis_hash = genesis_hash
        self._limits = limits or RpcLimits()
        self._headers = dict(headers or {})
        self._secrets = secrets_of(http_url, ws_url) + tuple(self._headers.values())
        self._last_id = 0
        self._cluster = ClusterProof(wanted=genesis_hash is not None)
        self._troubles: dict[str, tuple[Condition, tuple[str, ...]]] = {}
        self._well_again: list[Output] = []
        """What :meth:`reconcile` ended and could not say, since it returns effects only; said at the next timer."""
        self._http_ready_us = 0
        """No request before this instant: the endpoint asked for patience. Outlives the connection."""
        self._forget(0)

    def __repr__(self) -> str:
        return f"SolanaRpc({self.name!r})"  # URLs hold keys

    def _forget(self, now_us: int) -> None:
        self._watches: dict[str, Watch] = {}
        self._by_subscription: dict[int, Watch] = {}
        self._by_request: dict[int, Watch] = {}
        self._left: set[int] = set()
        self._slots_request = 0
        self._slot_notifications = True
        self._pending: dict[str, Request] = {}
        self._retries: list[tuple[int, Request]] = []
        self._cluster.restart()
        self._max_slot = 0
        self._behind = 0
        self._heard_us = now_us
        self._snapshot_us = now_us + self._limits.safety_snapshot_us
        self._probe_ready_us = now_us
        self._deadline_us = now_us

    # The contract.

    def connect(self, now_us: int) -> list[Effect]:
        """Open the websocket, check the cluster, read every account, subscribe to every account."""
        self._forget(now_us)
        self._http_ready_us = min(self._http_ready_us, now_us + _LONGEST_PATIENCE_US)
        effects: list[Effect] = [Open("websocket", self._ws_url, self._headers)]
        if self._genesis_hash is not None:
            effects.extend(self._ask("genesis", (), now_us))
        self._slots_request = self._next_id()
        slots = Send(call(self._slots_request, "slotSubscribe").decode())
        watching = self.reconcile(now_us)
        fetches = [effect for effect in watching if isinstance(effect, Fetch)]  # they stand at the end
        return [*effects, *fetches, slots, *watching[: len(watching) - len(fetches)]]

    def reconcile(self, now_us: int, moved: Collection[str] | None = None) -> list[Effect]:
        """Compare what the readers want with what is watched; subscribe and read what is new, drop what is gone.

        Called on every Solana link after any reader returned ``Rewatch``; only for addresses that ``moved``, if known.
        """
        only = None if (anew := not self._watches) else moved
        wanted, effects = wanted_by(self._transports, only), list[Effect]()
        for pubkey in gone(self._watches, wanted, only):
            effects.extend(self._drop_subscription(self._watches.pop(pubkey)))
            self._cluster.drop(pubkey)
            for key in (f"refused {pubkey}", f"silent {pubkey}"):
                self._well_again.extend(self._clear(key, now_us))
        new: list[str] = []
        for pubkey in sorted(wanted):
            watch = self._watches.get(pubkey)
            if watch is None:
                self._watches[pubkey] = watch = Watch(pubkey, wanted[pubkey], self._limits.silence_us, now_us)
                effects.append(self._subscribe(watch, now_us))
                new.append(pubkey)
            elif watch.readers != wanted[pubkey]:
                watch.read_by(wanted[pubkey])
                new.append(pubkey)
        effects.extend(self._snapshot("snapshot", new, now_us))
        if anew and not self._well_again:  # as below without looking at each of thousands: nothing else can be due
            limits = self._limits
            first_us = now_us + min(limits.reply_us, limits.transport_silence_us, limits.silence_us)
            due_us = [first_us, *(due_us for due_us, _ in self._retries)]
            self._deadline_us = min(due_us if new else [*due_us, self._snapshot_us])
        elif only is None:
            self._rearm(now_us)
        else:  # too early does no harm
            soon_us = 0 if self._well_again or self._retries else min(self._limits.reply_us, self._limits.probe_gap_us)
            self._wake_by(now_us + soon_us)
        return effects

    def receive(self, frame: Frame, received_us: int) -> Sequence[Output]:
        """Take a websocket message or the answer to a fetch."""
        if frame.channel == "websocket":
            if frame.status:
                return self._refused(frame, received_us)
            self._heard_us = received_us
            return self._message(frame.data, received_us)
        if frame.channel == "http":
            output = self._answer(frame, received_us)
            if not self._snapshot_under_way():
                self._wake_by(max(self._snapshot_us, self._http_ready_us))
            return output
        return self._malformed(f"a {frame.channel} frame on a Solana link", received_us)

    def next_deadline(self) -> int | None:
        """The next instant at which something must be asked, repeated or given up; possibly too early, never late."""
        return self._deadline_us

    def on_timer(self, now_us: int) -> list[Output]:
        """Watchdogs, retries and the safety snapshot."""
        output, self._well_again = self._well_again, []
        lost = False
        if self._slot_notifications and now_us - self._heard_us >= self._limits.transport_silence_us:
            lost = True
            self._heard_us = now_us
            seconds = self._limits.transport_silence_us / 1_000_000
            output.append(Reconnect(f"no frame on the websocket for {seconds:g} s"))
        quiet: list[str] = []
        if not lost:
            for watch in restless(self._watches.values(), now_us):
                output.extend(self._check(watch, now_us, quiet))
        output.extend(self._due_fetches(now_us, quiet))
        self._rearm(now_us)
        return output

    # Websocket.

    def _message(self, data: bytes, received_us: int) -> Sequence[Output]:
        try:
            params = decode_notification(data).params
            watch = self._by_subscription[params.subscription]
        except KeyError:
            if params.subscription in self._left:
                return ()  # was on its way when we unsubscribed
            return self._malformed(f"notification for subscription {params.subscription}, not ours", received_us)
        except NOT_A_NOTIFICATION:
            return self._rare_message(data, received_us)
        result = params.result
        slot = result.context.slot
        try:
            content = result.value.content()
        except ValueError as error:
            return self._malformed(f"account {watch.pubkey}: {error}", received_us, watch.sources)
        if not 0 <= slot <= MAX_SLOT:
            return self._malformed(f"account {watch.pubkey}: slot {slot}", received_us, watch.sources)
        if self._cluster.foreign(slot, received_us):
            return self._elsewhere(self._cluster.words(slot), received_us)
        if self._troubles:
            self._well_again.extend(self._clear("slots", received_us))
        watch.heard_us = received_us
        watch.suspect_us = NEVER
        watch.deaths = 0
        watch.based = True
        watch.data = content
        watch.slot = slot
        if slot > self._max_slot:
            self._max_slot = slot
        if watch.probed:
            watch.probed = False
            self._wake_by(received_us + watch.silence_us)
        owner = result.value.owner
        if not content and owner == SYSTEM_PROGRAM:  # how a subscription tells that an account was closed
            return self._pass_on(watch, slot, received_us)
        account = Account(watch.pubkey, owner, slot, content)
        if self._cluster.sure and len(watch.readers) == 1:
            return watch.readers[0].read(account, self._transports[watch.readers[0]], received_us)
        return self._pass_on(watch, account, received_us)

    def _rare_message(self, data: bytes, received_us: int) -> Sequence[Output]:
        """Anything but an account notification: replies, slot notifications, garbage."""
        try:
            message = orjson.loads(data)
        except orjson.JSONDecodeError:
            return self._malformed(f"not JSON: {plain_text(data[:80], self._secrets)}", received_us)
        if isinstance(message, dict):
            method = message.get("method")
            if method == "slotNotification":
                return ()
            if method is None and ("id" in message or "error" in message):
                return self._reply(message, received_us)
            if method == "accountNotification":
                return self._odd_notification(message, received_us)
        return self._malformed(f"unknown message: {plain_text(data[:80], self._secrets)}", received_us)

    def _odd_notification(self, message: dict[str, Any], received_us: int) -> Sequence[Output]:
        params = message.get("params")
        subscription = params.get("subscription") if isinstance(params, dict) else None
        watch = self._by_subscription.get(subscription) if isinstance(subscription, int) else None
        where = f"account {watch.pubkey}" if watch else f"subscription {plain_text(subscription)}"
        reason = f"{where}: notification without context.slot, value.owner or value.data"
        return self._malformed(reason, received_us, watch.sources if watch else None)

    def _reply(self, message: dict[str, Any], received_us: int) -> Sequence[Output]:
        request_id, result, error = message.get("id"), message.get("result"), message.get("error")
        watch = self._by_request.pop(request_id, None) if type(request_id) is int else None
        if watch is not None:
            output = self._subscribe_reply(watch, result, error, received_us)
            if not self._by_request:  # what changed before the last subscription stood was told by nobody
                self._snapshot_us = min(self._snapshot_us, received_us)
                self._wake_by(received_us)
            self._wake_by(watch.retry_us)
            return output
        if request_id == self._slots_request:
            if error is not None:
                self._slot_notifications = False  # a node without them: the driver's pings must do
            return ()
        if error is not None:
            problem = rpc_problem(error, self._secrets)
            return self._trouble("websocket", problem.condition, self._sources, problem.text, received_us)
        if type(result) is int and type(request_id) is int and 0 < request_id <= self._last_id:
            if result in self._by_subscription:
                return ()  # asked for twice: nodes give equal wishes one number, and it is the one that stands
            return (self._unsubscribe(result),)  # confirmed after we had given it up and asked again
        if result is True:
            return ()  # an unsubscription
        return self._malformed(f"reply to no request: {plain_text(message, self._secrets)}", received_us)

    def _subscribe_reply(self, watch: Watch, result: object, error: object, received_us: int) -> list[Output]:
        watch.request_id = 0
        if type(result) is int and error is None:
            other = self._by_subscription.get(result)
            if other is not None and other is not watch:
                text = f"{watch.pubkey} and {other.pubkey} are told under one number, {result}: no news tells of which"
                sources = tuple(dict.fromkeys(other.sources + watch.sources))
                return [*self._malformed(text, received_us, sources), Reconnect(text)]
            watch.subscription = result
            watch.subscribed_us = received_us
            watch.based = False
            watch.attempts = 0
            self._by_subscription[result] = watch
            self._left.discard(result)
            return [
                *self._clear("websocket", received_us),
                *self._clear(f"refused {watch.pubkey}", received_us),
                *self._clear(f"silent {watch.pubkey}", received_us),
            ]
        problem = rpc_problem(error, self._secrets)
        watch.retry_us = received_us + retry_us(watch.attempts, self._limits.first_retry_us, self._limits.max_retry_us)
        watch.attempts += 1
        text = f"subscription to {watch.pubkey} refused: {problem.text}"
        return list(self._trouble(f"refused {watch.pubkey}", Condition.LOST, watch.sources, text, received_us))

    def _refused(self, frame: Frame, received_us: int) -> list[Output]:
        """The websocket handshake was answered with an HTTP status."""
        problem = http_result(frame, self._secrets)
        if not isinstance(problem, Problem):
            problem = Problem(Condition.LOST, f"HTTP {frame.status} to the websocket handshake")
        after_us = problem.retry_after_us
        if problem.condition is Condition.NOT_ENTITLED:
            after_us = max(after_us, self._limits.refused_retry_us)
        text = f"websocket refused: {problem.text}"
        output: list[Output] = list(self._trouble("websocket", problem.condition, self._sources, text, received_us))
        output.append(Reconnect(text, after_us // 1_000))
        return output

    def _subscribe(self, watch: Watch, now_us: int) -> Send:
        watch.request_id = self._next_id()
        watch.requested_us = now_us
        watch.retry_us = NEVER
        self._by_request[watch.request_id] = watch
        return Send(subscribe_text(watch.request_id, watch.pubkey, self._commitment))

    def _unsubscribe(self, subscription: int) -> Send:
        self._left.add(subscription)
        self._left = self._limits.remembered(self._left, len(self._watches))
        return Send(call(self._next_id(), "accountUnsubscribe", [subscription]).decode())

    def _drop_subscription(self, watch: Watch) -> list[Effect]:
        self._by_request.pop(watch.request_id, None)
        watch.request_id = 0
        subscription, watch.subscription = watch.subscription, None
        watch.subscribed_us = NEVER
        watch.suspect_us = NEVER
        if subscription is None or self._by_subscription.pop(subscription, None) is None:
            return []
        return [self._unsubscribe(subscription)]

    # HTTP.

    def _answer(self, frame: Frame, received_us: int) -> list[Output]:
        request = self._pending.pop(frame.fetch_id, None)
        if request is None:
            return self._malformed(f"answer to no request ({plain_text(frame.fetch_id)})", received_us)
        result = http_result(frame, self._secrets)
        if isinstance(result, Problem):
            return self._failed(request, result, received_us)
        if request.kind == "genesis":
            return self._genesis(request, result, received_us)
        try:
            slot, values = snapshot_of(result, len(request.keys))
        except ValueError as error:
            problem = Problem(Condition.LOST, str(error))
            return [*self._malformed(problem.text, received_us), *self._failed(request, problem, received_us)]
        self._max_slot = max(self._max_slot, slot)
        self._behind = 0
        again = () if self._cluster.note(slot, received_us) else self._ask("genesis", (), received_us)
        if self._cluster.moved:
            self._snapshot_us = min(self._snapshot_us, received_us + self._limits.probe_gap_us)
        output = [*self._clear("fetch", received_us), *self._release(), *again]
        for pubkey, value in zip(request.keys, values, strict=True):
            watch = self._watches.get(pubkey)
            if watch is not None:
                output.extend(self._snapshot_value(watch, value, slot, request, received_us))
        return output

    def _snapshot_value(
        self, watch: Watch, value: object, slot: int, request: Request, received_us: int
    ) -> Sequence[Output]:
        try:
            state = state_of(watch.pubkey, value, slot)
        except ValueError as error:
            return self._malformed(str(error), received_us, watch.sources)
        content = b"" if isinstance(state, int) else state.data
        if slot > watch.slot:
            if content != watch.data:
                watch.heard_us = received_us
                watch.probed = False
                self._wake_by(received_us + watch.silence_us)
                if watch.based and watch.suspect_us == NEVER:
                    watch.suspect_us = received_us
                    self._wake_by(received_us + self._limits.proof_us)
            watch.data = content
            watch.slot = slot
        if slot >= watch.slot and content == watch.data and request.made_us >= watch.subscribed_us:
            watch.based = True
        return self._pass_on(watch, state, received_us)

    def _pass_on(self, watch: Watch, state: Account | int, received_us: int) -> Sequence[Output]:
        """Give a state, or the slot at which the account is missing, to the account's readers."""
        if not self._cluster.sure:
            self._cluster.hold(watch.pubkey, state, received_us)
            return ()
        output: list[Output] = []
        for reader in watch.readers:
            if isinstance(state, int):
                output.extend(reader.missing(watch.pubkey, state, self._transports[reader], received_us))
            else:
                output.extend(reader.read(state, self._transports[reader], received_us))
        return output

    def _genesis(self, request: Request, result: object, received_us: int) -> list[Output]:
        if result == self._genesis_hash:
            if "cluster" in self._troubles:  # nothing was kept meanwhile
                self._snapshot_us = received_us
            output = [*self._clear("fetch", received_us), *self._clear("cluster", received_us)]
            self._cluster.found(True)
            return [*output, *self._release()]
        self._cluster.found(False)
        text = f"genesis hash is {plain_text(result, self._secrets)}, configured is {self._genesis_hash}"
        output = self._trouble("cluster", Condition.WRONG_CLUSTER, self._sources, text, received_us)
        return [*output, Reconnect("wrong cluster", self._limits.refused_retry_us // 1_000)]

    def _release(self) -> list[Output]:
        """Hand on what waited until the cluster was known."""
        waiting = self._cluster.release()
        return [out for key, state, at_us in waiting for out in self._pass_on(self._watches[key], state, at_us)]

    def _elsewhere(self, text: str, received_us: int) -> list[Output]:
        """The websocket tells of a slot that its own endpoint's HTTP can't be at."""
        output = self._malformed(text, received_us)
        output += self._trouble("slots", Condition.WRONG_CLUSTER, self._sources, text, received_us)
        return [*output, Reconnect("wrong cluster", self._limits.refused_retry_us // 1_000)]

    def _failed(self, request: Request, problem: Problem, received_us: int) -> list[Output]:
        delay_us = self._limits.request_retry_us(request.attempt, problem.down)
        output: list[Output] = []
        if problem.behind:
            self._behind += 1
            if self._behind >= _BEHIND_PATIENCE:
                self._max_slot = 0
        if not problem.behind or self._behind >= _BEHIND_PATIENCE:
            output = self._trouble("fetch", problem.condition, self._sources, problem.text, received_us)
        if problem.condition is Condition.NOT_ENTITLED:
            delay_us = self._limits.refused_retry_us
        delay_us = max(delay_us, problem.retry_after_us)
        if problem.condition in (Condition.RATE_LIMITED, Condition.NOT_ENTITLED):
            self._http_ready_us = max(self._http_ready_us, received_us + delay_us)
        if request.kind != "probe":
            again = msgspec.structs.replace(request, attempt=request.attempt + 1)
            self._retries.append((received_us + delay_us, again))
            self._wake_by(max(received_us + delay_us, self._http_ready_us))
        return output

    def _fetch(self, kind: RequestKind, keys: tuple[str, ...], attempt: int, now_us: int) -> Fetch:
        number = self._next_id()
        fetch_id = f"{kind}:{number}"
        self._pending[fetch_id] = Request(kind, keys, attempt, now_us)
        if kind == "genesis":
            body = call(number, "getGenesisHash")
        else:
            body = snapshot_call(number, keys, self._commitment, self._max_slot)
        headers = {**self._headers, "Content-Type": "application/json"}
        return Fetch(fetch_id, self._http_url, "POST", headers, body, self._limits.fetch_timeout_ms)

    def _ask(self, kind: RequestKind, keys: tuple[str, ...], now_us: int) -> list[Fetch]:
        """Make a request, or put it off while the endpoint wants to be left alone."""
        if now_us >= self._http_ready_us:
            return [self._fetch(kind, keys, 0, now_us)]
        self._retries.append((self._http_ready_us, Request(kind, keys, 0, now_us)))
        return []

    def _snapshot(self, kind: RequestKind, pubkeys: Sequence[str], now_us: int) -> list[Fetch]:
        size = self._limits.keys_per_snapshot
        chunks = [tuple(pubkeys[start : start + size]) for start in range(0, len(pubkeys), size)]
        return [fetch for chunk in chunks for fetch in self._ask(kind, chunk, now_us)]

    # Timers.

    def _check(self, watch: Watch, now_us: int, quiet: list[str]) -> list[Output]:
        """One account's watchdogs; an account to be asked about goes to ``quiet``."""
        limits = self._limits
        if watch.retry_us <= now_us:
            return [self._subscribe(watch, now_us)]
        if watch.request_id and now_us - watch.requested_us >= limits.reply_us:
            self._by_request.pop(watch.request_id)
            text = f"subscription to {watch.pubkey} not answered"
            output = self._trouble(f"refused {watch.pubkey}", Condition.LOST, watch.sources, text, now_us)
            return [*output, self._subscribe(watch, now_us)]
        if watch.suspect_us != NEVER and now_us - watch.suspect_us >= limits.proof_us:
            watch.deaths += 1
            if watch.deaths >= limits.deaths_before_reconnect:
                watch.deaths = 0
                return [Reconnect(f"the subscription to {watch.pubkey} falls silent again and again")]
            text = f"subscription to {watch.pubkey} is silent: the account moved and nothing told"
            output = self._trouble(f"silent {watch.pubkey}", Condition.LOST, watch.sources, text, now_us)
            return [*output, *self._drop_subscription(watch), self._subscribe(watch, now_us)]
        if not watch.probed and now_us >= max(watch.heard_us + watch.silence_us, self._probe_ready_us):
            watch.probed = True
            quiet.append(watch.pubkey)
        return []

    def _due_fetches(self, now_us: int, quiet: list[str]) -> list[Fetch]:
        if now_us < self._http_ready_us:
            return []
        fetches: list[Fetch] = []
        waiting: list[tuple[int, Request]] = []
        for due_us, request in self._retries:
            if due_us > now_us:
                waiting.append((due_us, request))
                continue
            keys = tuple(key for key in request.keys if key in self._watches)
            if keys or request.kind == "genesis":
                fetches.append(self._fetch(request.kind, keys, request.attempt, now_us))
        self._retries = waiting
        if self._snapshot_us <= now_us and not self._snapshot_under_way():
            self._snapshot_us = now_us + self._limits.safety_snapshot_us
            return [*fetches, *self._snapshot("snapshot", sorted(self._watches), now_us)]
        if quiet:
            self._probe_ready_us = now_us + self._limits.probe_gap_us
        return [*fetches, *self._snapshot("probe", sorted(quiet), now_us)]

    def _snapshot_under_way(self) -> bool:
        requests = [*self._pending.values(), *(request for _, request in self._retries)]
        return any(request.kind == "snapshot" for request in requests)

    def _wake_by(self, due_us: int) -> None:
        if due_us < self._deadline_us:
            self._deadline_us = due_us

    def _rearm(self, now_us: int) -> None:
        """Work out the next deadline, from every account: not for a notification, which can only move deadlines away,
        nor for an answer to a request, of which a catalogue of thousands has dozens at once."""
        due = next_check(self._watches.values(), self._limits, self._probe_ready_us)
        if self._slot_notifications:
            due = min(due, self._heard_us + self._limits.transport_silence_us)
        fetches = [due_us for due_us, _ in self._retries]
        if not self._snapshot_under_way():
            fetches.append(self._snapshot_us)
        if fetches:
            due = min(due, max(min(fetches), self._http_ready_us))
        self._deadline_us = now_us if self._well_again else due

    # Words.

    def _next_id(self) -> int:
        self._last_id += 1
        return self._last_id

    def _malformed(self, reason: str, received_us: int, sources: tuple[str, ...] | None = None) -> list[Output]:
        """One event for every source that the frame may have concerned: a broken link is broken for all."""
        return [Malformed(source, self.name, None, reason, received_us) for source in sources or self._sources]

    def _trouble(
        self, key: str, condition: Condition, sources: tuple[str, ...], text: str, now_us: int
    ) -> list[Output]:
        """Tell a trouble once, until it is over or of another kind."""
        known = self._troubles.get(key)
        self._troubles[key] = (condition, sources)
        if known is not None and known[0] is condition:
            return []
        return [Status(source, self.name, None, condition, text, now_us) for source in sources]

    def _clear(self, key: str, now_us: int) -> list[Output]:
        """A trouble is over: the sources that have no other one on this link are well again."""
        ended = self._troubles.pop(key, None)
        if ended is None:
            return []
        ill = {source for _, sources in self._troubles.values() for source in sources}
        text = f"{self.name}: {key.split()[0]} is well again"
        return [Status(source, self.name, None, Condition.OK, text, now_us) for source in ended[1] if source not in ill]
