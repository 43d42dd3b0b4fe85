"""Pyth Pro (Lazer): a websocket of signed payloads from one host. The pure half.

Sources: Pyth's reference of the protocol, and its SDKs:

- the key goes into ``Authorization: Bearer``. A feed that the key does not cover, or that is not served on the channel,
  fails the subscription unless ``ignoreInvalidFeeds`` is set; then the answer names it, by reason;
- single hosts drop at deployments, so that all are read at once. Each is a link; they share a :class:`ProProver`, so
  that a payload which several deliver is decoded and proved once;
- each payload tells all feeds of its subscription, news or not: the stream is its own snapshot. A price is carried
  forward under new times of the payload, and only ``feedUpdateTimestamp`` says how old it is;
- the text of an error stands under ``error`` in the SDKs and under ``message`` in the reference.

What is read is the signed payload. ``parsed``, the JSON beside it, is not asked for.
"""

import binascii
from base64 import b64decode
from collections.abc import Mapping
from functools import lru_cache, partial
from typing import ClassVar, Literal, TypeAlias
from urllib.parse import urlsplit

import msgspec

from feeds.host_link import NEVER, PLAUSIBLE_US, HostLink, Output, Verify
from feeds.pyth.lazer import SESSIONS, Lazer, LazerFeed, in_force, unaged
from feeds.signers import SignerSet, SignerSets
from feeds.verdict import Verdict
from oracle_hub.core.price import rescale, rescale_conf
from oracle_hub.core.source import (
    Condition,
    Effect,
    Frame,
    Open,
    PriceUpdate,
    Reconnect,
    Send,
    Unchanged,
)
from oracle_hub.errors import ConfigError, DecodeError, PriceError

Envelope: TypeAlias = Literal["solana", "leEcdsa", "evm"]
Channel: TypeAlias = Literal["real_time", "fixed_rate@50ms", "fixed_rate@200ms", "fixed_rate@1000ms"]

DEFAULT_PATH = "/v1/stream"
PROPERTIES = ("price", "confidence", "exponent", "publisherCount", "marketSession", "feedUpdateTimestamp")
LARGEST_ID = 2**32 - 1
_CLOSED = 4
_KEPT_MESSAGES = 512
_ENTITLEMENT = ("not entitled", "insufficient access", "not accessible", "allowed types")
"""How an error says that it is about the key's rights."""


class ProFeed(msgspec.Struct, frozen=True):
    """One feed as Pyth Pro numbers it, and the exponent to which its prices are brought."""

    feed_id: int
    expo: int = -8


class ProLimits(msgspec.Struct, frozen=True):
    """Patience of a link."""

    transport_silence_us: int = 5_000_000
    """As in Pyth's SDKs: the slowest channel sends every second."""
    silence_us: int = 10_000_000
    """A feed that no payload names for so long, while others come, is subscribed anew."""
    refused_retry_us: int = 60_000_000
    """Wait after a refused key, a rate limit that names no wait, or a refused subscription."""
    ignored_retry_us: int = 300_000_000
    """Feeds that the host ignored are asked for again after so long."""
    feeds_per_subscription: int = 100
    """A payload has room for 255."""


class Proved(msgspec.Struct, frozen=True):
    """A message, and whether it is signed by those who may."""

    message: Lazer
    verdict: Verdict | None
    """None: signatures are not looked at."""


class ProProver:
    """Decodes messages and checks who signed them, each once however many links bring it.

    Args:
        sets: who may sign; None: signatures are not looked at.
        capacity: messages to remember. Hosts are a second apart at most, with a few messages a second.
    """

    def __init__(self, sets: SignerSets | None, *, capacity: int = _KEPT_MESSAGES) -> None:
        self._known = lru_cache(capacity)(partial(_looked_at, sets=sets))

    @property
    def checked(self) -> int:
        """Messages that were looked at, not remembered."""
        return self._known.cache_info().misses

    def prove(self, data: bytes, at_us: int) -> Proved:
        """Decode and judge a message; its key must be in force at ``at_us``.

        Raises:
            DecodeError: it is none.
        """
        message, verdict, signer_set = self._known(data)
        return Proved(message, None if verdict is None else in_force(message, verdict, signer_set, at_us))


def _looked_at(data: bytes, sets: SignerSets | None) -> tuple[Lazer, Verdict | None, SignerSet | None]:
    message = Lazer.decode(data)
    return message, *((None, None) if sets is None else unaged(message, sets))


class _Signed(msgspec.Struct, gc=False):
    data: str
    encoding: str = "base64"


class _Message(msgspec.Struct, rename="camel", gc=False):
    """Any message of a host; what a type does not have is absent."""

    type: str
    subscription_id: int | None = None
    error: str | None = None
    message: str | None = None
    ignored_invalid_feed_ids: dict[str, list[int | str]] | None = None
    solana: _Signed | None = None
    le_ecdsa: _Signed | None = None
    evm: _Signed | None = None

    @property
    def text(self) -> str:
        return self.error or self.message or "no reason given"


_message = msgspec.json.Decoder(_Message).decode
_BROKEN = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class _Feed:
    """What the link knows of one feed."""

    __slots__ = ("expo", "feed", "feed_id", "heard_us", "held", "ignored", "told_us")

    def __init__(self, feed: str, feed_id: int, expo: int) -> None:
        self.feed = feed
        self.feed_id = feed_id
        self.expo = expo
        self.heard_us = 0
        self.held = (0, 0, False)
        """Publish time, mantissa and proof of the last price."""
        self.told_us = 0
        """The latest time of a payload that spoke of it."""
        self.ignored = False


class _Subscription:
    """Feeds that were asked for together."""

    __slots__ = ("again_us", "feeds", "number", "refused", "stands")

    def __init__(self, feeds: list[_Feed]) -> None:
        self.feeds = feeds
        self.number = 0
        self.stands = False
        self.refused = False
        self.again_us = NEVER

    @property
    def expects(self) -> bool:
        """Whether payloads should be coming."""
        return not self.refused and not all(feed.ignored for feed in self.feeds)


class ProLink(HostLink):
    """A :class:`~oracle_hub.core.source.Link` to one host of Pyth Pro.

    Args:
        name: unique in the run.
        url: of the websocket; without a path, ``/v1/stream`` is meant.
        feeds: by feed.
        key: sent as ``Authorization: Bearer`` and never shown.
        prover: shared by all links of a source.
        source: the name under which its updates go.
        verify: ``strict`` refuses what is not verified, ``lenient`` takes it as not verified, ``off`` does not look
            (then give a prover without signer sets).
        envelope: which signature to ask for: ed25519 (``solana``) or secp256k1.
        channel: how often; faster than a feed is served, and the feed is ignored.
        limits: patience.

    Raises:
        ConfigError: an id that can't be one, or two feeds with one id.
    """

    CONFIGURED: ClassVar[frozenset[str]] = HostLink.CONFIGURED | {
        "_url",
        "_key",
        "_prover",
        "_verify",
        "_envelope",
        "_channel",
        "_limits",
    }

    def __init__(
        self,
        name: str,
        url: str,
        feeds: Mapping[str, ProFeed],
        *,
        key: str,
        prover: ProProver,
        source: str = "pro",
        verify: Verify = "strict",
        envelope: Envelope = "solana",
        channel: Channel = "fixed_rate@200ms",
        limits: ProLimits | None = None,
    ) -> None:
        super().__init__(name, source, key)
        self._url = url if urlsplit(url).path.strip("/") else url.rstrip("/") + DEFAULT_PATH
        self._key = key
        self._prover = prover
        self._verify = verify
        self._envelope: Envelope = envelope
        self._channel = channel
        self._limits = limits or ProLimits()
        self._feeds: dict[int, _Feed] = {}
        for feed, spec in feeds.items():
            if not 0 <= spec.feed_id <= LARGEST_ID:
                raise ConfigError(f"source {source}, feed {feed}: {spec.feed_id} is no id of Pyth Pro")
            if spec.feed_id in self._feeds:
                raise ConfigError(f"source {source}: feeds {self._feeds[spec.feed_id].feed} and {feed} have one id")
            self._feeds[spec.feed_id] = _Feed(feed, spec.feed_id, spec.expo)
        every, size = list(self._feeds.values()), self._limits.feeds_per_subscription
        self._subscriptions = [_Subscription(every[at : at + size]) for at in range(0, len(every), size)]
        self._last_number = 0
        self._heard_us = 0
        self._leaving = False
        self._deadline_us = NEVER

    # The contract.

    def connect(self, now_us: int) -> list[Effect]:
        """Open the socket and subscribe to all feeds."""
        self._heard_us = now_us
        self._leaving = False
        self._last_number = 0
        sends = []
        for subscription in self._subscriptions:
            subscription.stands = False
            sends.append(self._subscribe(subscription, now_us))
        self._rearm()
        return [Open("websocket", self._url, {"Authorization": f"Bearer {self._key}"}), *sends]

    def receive(self, frame: Frame, received_us: int) -> list[Output]:
        """Take a message of the host, or its refusal of the socket."""
        if frame.channel != "websocket":
            return [self._malformed(None, f"a {frame.channel} frame on a Pyth Pro link", received_us)]
        if frame.status:
            why, retry_us = "the key was refused", self._limits.refused_retry_us
            output, wait_us = self._refusal(frame, "stream", received_us, retry_us, why)
            return [*output, self._leave(f"stream refused with HTTP {frame.status}", wait_us)]
        self._heard_us = received_us
        try:
            message = _message(frame.data)
        except _BROKEN as error:
            return [self._malformed(None, f"no message of Pyth Pro: {self._plain(str(error))}", received_us)]
        if message.type == "streamUpdated":
            return [*self._clear("stream", received_us), *self._updated(message, received_us)]
        output = self._answered(message, received_us)
        self._rearm()
        return output

    def next_deadline(self) -> int | None:
        """The next instant for a watchdog or a new try; possibly too early, never late."""
        return None if self._deadline_us == NEVER else self._deadline_us

    def on_timer(self, now_us: int) -> list[Output]:
        """Watchdogs of socket and feeds, and new tries of what was refused."""
        limits = self._limits
        output: list[Output] = []
        expecting = any(subscription.expects for subscription in self._subscriptions)
        if expecting and now_us - self._heard_us >= limits.transport_silence_us:
            output.append(self._leave(f"no message for {limits.transport_silence_us / 1_000_000:g} s"))
        for subscription in () if output else self._subscriptions:
            silent = [feed for feed in subscription.feeds if self._is_silent(subscription, feed, now_us)]
            for feed in silent:
                text = f"{feed.feed}: not a word for {limits.silence_us / 1_000_000:g} s, while the host goes on"
                output += self._trouble(f"stream {feed.feed}", feed.feed, Condition.LOST, text, now_us)
            if silent or subscription.again_us <= now_us:
                before = subscription.number if subscription.stands else None
                output.append(self._subscribe(subscription, now_us))
                if before is not None:
                    output.append(_send({"type": "unsubscribe", "subscriptionId": before}))
        self._rearm()
        return output

    def _is_silent(self, subscription: _Subscription, feed: _Feed, now_us: int) -> bool:
        return subscription.expects and not feed.ignored and now_us - feed.heard_us >= self._limits.silence_us

    def _rearm(self) -> None:
        if self._leaving:
            self._deadline_us = NEVER
            return
        due_us = min((one.again_us for one in self._subscriptions), default=NEVER)
        expecting = [one for one in self._subscriptions if one.expects]
        if expecting:
            due_us = min(due_us, self._heard_us + self._limits.transport_silence_us)
        heard_us = [feed.heard_us for one in expecting for feed in one.feeds if not feed.ignored]
        self._deadline_us = min(due_us, min(heard_us, default=NEVER) + self._limits.silence_us)

    # Subscriptions.

    def _subscribe(self, subscription: _Subscription, now_us: int) -> Send:
        """Ask for the feeds of a subscription under a new number; one that stands goes on until it is taken back."""
        self._last_number += 1
        subscription.number = self._last_number
        subscription.refused = False
        subscription.again_us = NEVER
        for feed in subscription.feeds:
            feed.heard_us = now_us
            feed.ignored = False
        return _send(
            {
                "type": "subscribe",
                "subscriptionId": subscription.number,
                "priceFeedIds": [feed.feed_id for feed in subscription.feeds],
                "properties": PROPERTIES,
                "formats": [self._envelope],
                "channel": self._channel,
                "deliveryFormat": "json",
                "jsonBinaryEncoding": "base64",
                "parsed": False,
                "ignoreInvalidFeeds": True,
            }
        )

    def _answered(self, message: _Message, received_us: int) -> list[Output]:
        if message.type == "error":
            text = f"the host says: {self._plain(message.text)}"
            told = self._trouble("stream", None, Condition.LOST, text, received_us)
            return [*told, self._leave(text)] if "too slow" in text.lower() else told
        number = message.subscription_id
        subscription = next((one for one in self._subscriptions if one.number == number), None)
        match message.type:
            case "subscribed" | "subscribedWithInvalidFeedIdsIgnored" if subscription is not None:
                return self._stands(subscription, message.ignored_invalid_feed_ids or {}, received_us)
            case "subscriptionError" | "unsubscribed" if subscription is not None:
                return self._refused(subscription, message, received_us)
            case "subscribed" | "subscribedWithInvalidFeedIdsIgnored" | "unsubscribed":
                return []  # of one that has been replaced
            case "subscriptionError":
                return [self._malformed(None, f"of no subscription: {self._plain(message.text)}", received_us)]
            case other:
                return [self._malformed(None, f"unknown type of message: {self._plain(other)}", received_us)]

    def _stands(
        self, subscription: _Subscription, ignored: dict[str, list[int | str]], received_us: int
    ) -> list[Output]:
        """The host has taken a subscription, except for what it names."""
        subscription.stands = True
        reasons = {feed_id: reason for reason, feed_ids in ignored.items() for feed_id in feed_ids}
        output = self._clear("stream", received_us)
        for feed in subscription.feeds:
            key, reason = f"feed {feed.feed}", reasons.get(feed.feed_id)
            feed.ignored = reason is not None
            if reason is None:
                output += self._clear(key, received_us)
            else:
                condition, text = self._why_ignored(feed, reason)
                output += self._trouble(key, feed.feed, condition, text, received_us)
                subscription.again_us = received_us + self._limits.ignored_retry_us
        return output

    def _why_ignored(self, feed: _Feed, reason: str) -> tuple[Condition, str]:
        match reason:
            case "notEntitled":
                return Condition.NOT_ENTITLED, f"the key does not cover {feed.feed} (id {feed.feed_id})"
            case "unknownIds":
                return Condition.LOST, f"Pyth Pro knows no feed of id {feed.feed_id} ({feed.feed})"
            case "unsupportedChannels":
                return Condition.LOST, f"{feed.feed} (id {feed.feed_id}) is not served on {self._channel}: ask slower"
            case "unstable":
                return Condition.LOST, f"Pyth Pro does not call {feed.feed} (id {feed.feed_id}) stable yet"
        return Condition.LOST, f"{feed.feed} (id {feed.feed_id}) was ignored: {self._plain(reason)}"

    def _refused(self, subscription: _Subscription, message: _Message, received_us: int) -> list[Output]:
        """A subscription that does not stand, in the host's words; each of its feeds is told."""
        subscription.stands = False
        subscription.refused = True
        subscription.again_us = received_us + self._limits.refused_retry_us
        text = self._plain("unsubscribed by the host" if message.type == "unsubscribed" else message.text)
        entitled = not any(words in text.lower() for words in _ENTITLEMENT)
        condition = Condition.LOST if entitled else Condition.NOT_ENTITLED
        output: list[Output] = []
        for feed in subscription.feeds:
            key = f"feed {feed.feed}"
            if key not in self._troubles or not entitled:  # a reason of its own says more than all feeds together
                output += self._trouble(key, feed.feed, condition, text, received_us)
        return output

    def _leave(self, reason: str, wait_us: int = 0) -> Reconnect:
        """Have the socket opened anew; until then there is nothing to watch."""
        self._leaving = True
        self._rearm()
        return Reconnect(reason, wait_us // 1_000)

    # Payloads.

    def _updated(self, message: _Message, received_us: int) -> list[Output]:
        try:
            proved = self._prover.prove(self._signed_bytes(message), received_us)
        except DecodeError as error:
            return [self._malformed(None, self._plain(str(error)), received_us)]
        lazer, verdict = proved.message, proved.verdict
        refusal = None if verdict is None or verdict.verified else f"{verdict.why}: {verdict.detail}"
        refused = refusal is not None and self._verify == "strict"
        output: list[Output] = []
        current = not refused and self._is_current(lazer, received_us, output)
        if not lazer.feeds:
            why = f"not verified: {refusal}" if refused else "a payload without feeds"
            output.append(self._malformed(None, why, received_us))
        for one in lazer.feeds:
            feed = self._feeds.get(one.feed_id)
            if feed is None:
                output.append(self._malformed(None, f"price of feed {one.feed_id}, not asked for", received_us))
                continue
            if refusal is None:
                output += self._clear(f"proof {feed.feed}", received_us)
            else:
                output += self._unproved(feed.feed, refusal, received_us, refused=refused)
            if refused:
                continue
            verified = verdict is not None and refusal is None
            self._told(feed, one, lazer.timestamp_us if current else None, received_us, verified, output)
        return output

    def _signed_bytes(self, message: _Message) -> bytes:
        signed = {"solana": message.solana, "leEcdsa": message.le_ecdsa, "evm": message.evm}[self._envelope]
        if signed is None:
            raise DecodeError(f"an update without a signed payload ({self._envelope})")
        try:
            return bytes.fromhex(signed.data) if signed.encoding == "hex" else b64decode(signed.data, validate=True)
        except (ValueError, binascii.Error):
            raise DecodeError(f"a payload that is not in {self._plain(signed.encoding)}") from None

    def _is_current(self, lazer: Lazer, received_us: int, output: list[Output]) -> bool:
        """Whether a payload speaks of now; one that does not is named."""
        ahead_us = lazer.timestamp_us - received_us
        if abs(ahead_us) <= PLAUSIBLE_US:
            output += self._clear("clock", received_us)
            return True
        where = "ahead of" if ahead_us > 0 else "behind"
        text = f"a payload stamped {abs(ahead_us) / 1_000_000:.1f} s {where} our clock"
        output += self._trouble("clock", None, Condition.LOST, text, received_us)
        return False

    def _told(
        self,
        feed: _Feed,
        one: LazerFeed,
        told_us: int | None,
        received_us: int,
        verified: bool,
        output: list[Output],
    ) -> None:
        """What a payload says of a feed. ``told_us`` is the payload's time; None if it is far from our clock.

        An old payload that is told again may hold a price, which the table knows to be older. What it says of the
        feed's condition is over.
        """
        feed.heard_us = received_us
        output += self._clear(f"stream {feed.feed}", received_us)
        current = told_us is not None and told_us >= feed.told_us
        if current and told_us is not None:
            feed.told_us = told_us
        condition, text = self._absence(one)
        if condition is not None:
            if current:
                output += self._trouble(f"price {feed.feed}", feed.feed, condition, text, received_us, feed.told_us)
            return
        try:
            update = self._update(feed, one, received_us, verified)
        except PriceError as error:
            if current:
                output += self._no_price(feed.feed, str(error), received_us, feed.told_us)
            else:
                output.append(self._malformed(feed.feed, str(error), received_us))
            return
        if current:
            output += self._clear(f"price {feed.feed}", received_us)
        held = (update.publish_us, update.mantissa, verified)
        if held == feed.held:
            output.append(Unchanged(self.source, self.name, feed.feed, received_us))
            return
        if current and held > feed.held:
            feed.held = held
        output.append(update)

    def _absence(self, one: LazerFeed) -> tuple[Condition | None, str]:
        """Why a feed is without a price, if it is."""
        if one.market_session == _CLOSED:
            return Condition.HALTED, "the market is closed"
        if one.market_session is not None and one.market_session not in SESSIONS:
            return Condition.HALTED, f"an unknown market session ({one.market_session})"
        if one.price is None and "price" in one.properties:
            return Condition.INVALID, "no price: not enough publishers"
        return None, ""

    def _update(self, feed: _Feed, one: LazerFeed, received_us: int, verified: bool) -> PriceUpdate:
        """Raises PriceError for what is no price, or has no time."""
        if one.price is None or one.exponent is None:
            raise PriceError("a payload without price or exponent")
        publish_us = one.feed_update_timestamp
        if publish_us is None or not 0 < publish_us < NEVER:
            raise PriceError("a price without a time of its own (feedUpdateTimestamp)")
        conf = None if one.confidence is None else rescale_conf(one.confidence, one.exponent, feed.expo)
        mantissa = rescale(one.price, one.exponent, feed.expo)
        return PriceUpdate(
            self.source, self.name, feed.feed, mantissa, publish_us, received_us, conf=conf, verified=verified
        )


def _send(message: Mapping[str, object]) -> Send:
    return Send(msgspec.json.encode(message).decode())
