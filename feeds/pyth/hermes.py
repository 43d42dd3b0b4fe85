"""Pyth Hermes: a stream of server-sent events and a REST snapshot from one host. The pure half.

Sources: Hermes' OpenAPI (``GET /v2/updates/price/latest`` and ``/stream``) and its server's behaviour:

- the stream has no resume and loses what happened during a reconnect, so every connect also asks for the latest prices;
- one unknown id fails a whole request unless ``ignore_invalid_price_ids`` is set; what is then absent is told by name;
- server faults come as ``event: error`` and the stream ends; between prices there are comments, which show that the
  host lives and nothing else;
- since 2026-08-26 a key is needed: 401 is a missing or refused key, 403 a key that does not cover a feed. Neither gets
  better by asking fast.

Several hosts are several links; the table takes whichever is first and drops the duplicates. With a prover a price is
what the signed update beside it says, not what the JSON says; without a proof it is refused, or, leniently, taken as
not verified.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import ClassVar

import msgspec

from feeds.host_link import LONGEST_PATIENCE_US, NEVER, HostLink, Output, retry_delay_us
from feeds.pyth.proving import Proved, Prover
from oracle_hub.core.price import rescale, rescale_conf
from oracle_hub.core.source import (
    Condition,
    Effect,
    Fetch,
    Frame,
    Malformed,
    Open,
    PriceUpdate,
    Reconnect,
)
from oracle_hub.errors import ConfigError, PriceError

_LAST_SECOND = 2**40
_HEX_ID = re.compile(r"(?:0x)?([0-9a-f]{64})", re.IGNORECASE)
_INTEGER = re.compile(r"-?[0-9]{1,20}", re.ASCII)


class HermesFeed(msgspec.Struct, frozen=True):
    """One feed as Hermes names it, and the exponent to which its prices are brought."""

    price_id: str
    """64 hexadecimal digits, with or without ``0x``, in any case."""
    expo: int = -8


class HermesLimits(msgspec.Struct, frozen=True):
    """Patience of a Hermes link."""

    transport_silence_us: int = 30_000_000
    """A healthy host sends at least a comment every 15 s."""
    silence_us: int = 10_000_000
    """A feed without news for so long is looked up by REST."""
    probe_every_us: int = 15_000_000
    """Look-ups of a feed that stays silent; ten requests in ten seconds is the strictest limit that was published."""
    proof_us: int = 5_000_000
    """A price that REST has must come by the stream within this, or the stream is dead."""
    margin_us: int = 2_000_000
    """Prices published so shortly after the connect may have passed before the stream stood."""
    first_retry_us: int = 1_000_000
    down_retry_us: int = 5_000_000
    """At most, while the host is down."""
    max_retry_us: int = 30_000_000
    refused_retry_us: int = 60_000_000
    """Wait after a refused key; after a rate limit that names no wait of its own, too (the public one is a minute)."""
    entitled_retry_us: int = 300_000_000
    """A feed that the key did not cover is asked for again, alone, after so long."""
    fetch_timeout_ms: int = 10_000
    ids_per_fetch: int = 100


class _Price(msgspec.Struct, gc=False):
    price: str
    conf: str
    expo: int
    publish_time: int


class _Metadata(msgspec.Struct, gc=False):
    slot: int | None = None


class _Entry(msgspec.Struct, gc=False):
    id: str
    price: _Price
    metadata: _Metadata | None = None


class _Body(msgspec.Struct, gc=False):
    parsed: list[msgspec.Raw]
    binary: msgspec.Raw = msgspec.Raw()


_body = msgspec.json.Decoder(_Body).decode
_entry = msgspec.json.Decoder(_Entry).decode
_BROKEN = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class _Feed:
    """What the link knows of one feed."""

    __slots__ = ("entitled", "expo", "feed", "next_probe_us", "price_id", "publish_us", "suspect_us")

    def __init__(self, feed: str, price_id: str, expo: int) -> None:
        self.feed = feed
        self.price_id = price_id
        self.expo = expo
        self.publish_us = 0
        self.next_probe_us = NEVER
        self.suspect_us = NEVER
        self.entitled = True


class HermesLink(HostLink):
    """A :class:`~oracle_hub.core.source.Link` to one Hermes host.

    ``base_url`` is what stands before ``/v2`` (``https://pyth.dourolabs.app/hermes``); ``key`` is sent as
    ``Authorization: Bearer`` and never shown. A feed that the key does not cover is left out of later requests, so that
    it can't take the others with it; it is asked for again every few minutes, alone.

    Raises:
        ConfigError: a price id is not 64 hexadecimal digits, or two feeds share one.
    """

    CONFIGURED: ClassVar[frozenset[str]] = HostLink.CONFIGURED | {
        "_base_url",
        "_key",
        "_ids",
        "_limits",
        "_prover",
        "_needs_proof",
    }

    def __init__(
        self,
        name: str,
        base_url: str,
        feeds: Mapping[str, HermesFeed],
        *,
        source: str = "pyth",
        key: str | None = None,
        limits: HermesLimits | None = None,
        prover: Prover | None = None,
        needs_proof: bool = True,
    ) -> None:
        super().__init__(name, source, key)
        self._base_url = base_url.rstrip("/")
        self._key = key
        self._limits = limits or HermesLimits()
        self._prover = prover
        self._needs_proof = needs_proof
        self._feeds: dict[str, _Feed] = {}
        for feed, spec in feeds.items():
            match = _HEX_ID.fullmatch(spec.price_id)
            if match is None:
                raise ConfigError(f"source {source}, feed {feed}: price id {spec.price_id!r} is not 64 hex digits")
            price_id = match[1].lower()
            if price_id in self._feeds:
                raise ConfigError(f"source {source}: feeds {self._feeds[price_id].feed} and {feed} have one price id")
            self._feeds[price_id] = _Feed(feed, price_id, spec.expo)
            if prover is not None:
                prover.keep(price_id)
        self._ids = {feed.feed: price_id for price_id, feed in self._feeds.items()}
        self._last_id = 0
        self._ready_us = 0
        self._streamed: tuple[str, ...] = ()
        self._start(0)

    @property
    def feeds(self) -> tuple[str, ...]:
        """The feeds that it reads."""
        return tuple(feed.feed for feed in self._feeds.values())

    def _start(self, now_us: int) -> None:
        self._connected_us = now_us
        self._heard_us = now_us
        self._pending: dict[str, tuple[str, ...]] = {}
        self._retry_us = NEVER
        self._attempts = 0
        self._deadline_us = now_us + self._limits.transport_silence_us

    # The contract.

    def connect(self, now_us: int) -> list[Effect]:
        """Open the stream and ask for the latest prices of all feeds."""
        self._start(now_us)
        self._ready_us = min(self._ready_us, now_us + LONGEST_PATIENCE_US)
        for feed in self._feeds.values():
            again_us = now_us + self._limits.entitled_retry_us
            feed.next_probe_us = (
                now_us + self._limits.silence_us if feed.entitled else min(feed.next_probe_us, again_us)
            )
            feed.suspect_us = NEVER
        ids = self._streamed = self._asked()
        opening = Open("sse", self._url("stream", ids), self._headers())
        if now_us < self._ready_us:
            self._retry_us = self._ready_us
        fetches = [] if now_us < self._ready_us else self._fetch(ids)
        self._rearm()
        return [opening, *fetches]

    def receive(self, frame: Frame, received_us: int) -> list[Output]:
        """Take an event of the stream (no data: a comment), a refusal of it, or the answer to a fetch."""
        if frame.channel == "http":
            output = self._answer(frame, received_us)
            self._rearm()
            return output
        if frame.channel != "sse":
            return [self._malformed(None, f"a {frame.channel} frame on a Hermes link", received_us)]
        if frame.status:
            return self._refused_stream(frame, received_us)
        self._heard_us = received_us
        if frame.event == "error":
            text = f"stream ended by the server: {self._plain(frame.data)}"
            return [*self._trouble("stream", None, Condition.LOST, text, received_us), Reconnect(text)]
        if not frame.data:
            return []
        return [*self._clear("stream", received_us), *self._prices(frame.data, received_us, streamed=True)[0]]

    def next_deadline(self) -> int | None:
        """The next instant for a watchdog, a look-up or a retry; possibly too early, never late."""
        return self._deadline_us

    def on_timer(self, now_us: int) -> list[Output]:
        """Watchdogs, look-ups of silent feeds, retries."""
        limits = self._limits
        output: list[Output] = []
        if now_us - self._heard_us >= limits.transport_silence_us:
            self._heard_us = now_us
            output.append(Reconnect(f"no event and no comment for {limits.transport_silence_us / 1_000_000:g} s"))
        for feed in self._feeds.values():
            if now_us - feed.suspect_us >= limits.proof_us:
                feed.suspect_us = NEVER
                text = f"{feed.feed}: REST has a newer price that the stream never told"
                output.extend(self._trouble(f"stream {feed.feed}", feed.feed, Condition.LOST, text, now_us))
                output.append(Reconnect(text))
        if now_us >= self._ready_us and not self._pending:
            output.extend(self._due_fetches(now_us))
        self._rearm()
        return output

    def proves(self) -> Collection[str]:
        """The feeds that it reads."""
        return self._ids.keys()

    def signed(self, feed: str, publish_us: int, mantissa: int) -> bytes | None:
        """The signed update (an accumulator's) behind a price of a feed, and of nothing else.

        It is that very price: equal publish time, and equal mantissa at the feed's exponent. None: not kept, or prices
        are not proved here.
        """
        found = self._feeds.get(self._ids.get(feed, ""))
        if found is None or self._prover is None or publish_us % 1_000_000:
            return None
        for price, update in self._prover.signed(found.price_id, publish_us // 1_000_000):
            with suppress(PriceError):  # signed, and no price
                if rescale(price.price, price.exponent, found.expo) == mantissa:
                    return update
        return None

    # Stream and answers.

    def _prices(self, data: bytes, received_us: int, *, streamed: bool) -> tuple[list[Output], set[str]]:
        """The prices of a body of REST or stream, and the ids that it named."""
        try:
            body = _body(data)
        except _BROKEN:
            reason = f"no PriceUpdate with a parsed list: {self._plain(data[:80])}"
            return [self._malformed(None, reason, received_us)], set()
        proved = None if self._prover is None else self._prover.prove(body.binary, received_us)
        output: list[Output] = []
        named: set[str] = set()
        for raw in body.parsed:
            try:
                entry = _entry(raw)
                feed = self._feeds.get(entry.id.lower().removeprefix("0x"))
                if feed is None:
                    output.append(self._malformed(None, f"price of {entry.id[:70]!r}, not asked for", received_us))
                    continue
                named.add(feed.price_id)
                if proved is None:
                    output.extend(self._price(feed, entry, received_us, streamed=streamed))
                else:
                    output.extend(self._proved(feed, entry, proved, received_us, streamed=streamed))
            except _BROKEN as error:
                reason = f"broken entry: {self._plain(str(error))}"
                output.append(self._malformed(self._feed_named_in(raw), reason, received_us))
        return output, named

    def _proved(
        self, feed: _Feed, entry: _Entry, proved: Proved, received_us: int, *, streamed: bool
    ) -> Sequence[Output]:
        """The signed prices of a feed, whatever the entry says; without one it is refused, or taken as not verified."""
        signed = proved.prices.get(feed.price_id)
        if signed is None:
            found = proved.refused[0] if proved.refused else None
            text = f"{found.why}: {found.detail}" if found else "unsigned: no signed price of this feed beside it"
            told = self._unproved(feed.feed, text, received_us, refused=self._needs_proof)
            return told if self._needs_proof else [*told, *self._price(feed, entry, received_us, streamed=streamed)]
        output = self._clear(f"proof {feed.feed}", received_us)
        for one in signed:
            price = one.price
            told_price = _Price(str(price.price), str(price.conf), price.exponent, price.publish_time)
            true_entry = _Entry(entry.id, told_price, _Metadata(one.slot))
            output.extend(self._price(feed, true_entry, received_us, streamed=streamed, verified=True))
        return output

    def _price(
        self, feed: _Feed, entry: _Entry, received_us: int, *, streamed: bool, verified: bool = False
    ) -> list[Output]:
        try:
            update = self._update(feed, entry, received_us, verified=verified)
        except PriceError as error:
            return self._no_price(feed.feed, str(error), received_us, entry.price.publish_time * 1_000_000)
        return [*self._news(feed, update, received_us, streamed=streamed), update]

    def _update(self, feed: _Feed, entry: _Entry, received_us: int, *, verified: bool = False) -> PriceUpdate:
        """Raises PriceError for what is no price, msgspec.ValidationError for what is not in its form."""
        price = entry.price
        if not _INTEGER.fullmatch(price.price) or not _INTEGER.fullmatch(price.conf):
            raise msgspec.ValidationError("price and conf must be decimal integers")
        if not 0 < price.publish_time < _LAST_SECOND:
            raise msgspec.ValidationError(f"publish_time {price.publish_time} is no Unix second")
        slot = entry.metadata.slot if entry.metadata else None
        return PriceUpdate(
            source=self.source,
            transport=self.name,
            feed=feed.feed,
            mantissa=rescale(int(price.price), price.expo, feed.expo),
            publish_us=price.publish_time * 1_000_000,
            received_us=received_us,
            conf=rescale_conf(int(price.conf), price.expo, feed.expo),
            slot=slot if slot is not None and 0 <= slot < NEVER else 0,
            verified=verified,
        )

    def _news(self, feed: _Feed, update: PriceUpdate, received_us: int, *, streamed: bool) -> list[Output]:
        """Note what a price says about the link."""
        output = self._clear(f"price {feed.feed}", received_us)
        newer = update.publish_us > feed.publish_us
        if streamed:
            feed.suspect_us = NEVER
            output += self._clear(f"stream {feed.feed}", received_us)
        elif newer and feed.publish_us and update.publish_us > self._connected_us + self._limits.margin_us:
            feed.suspect_us = min(feed.suspect_us, received_us)
        if newer:
            feed.publish_us = update.publish_us
            feed.next_probe_us = received_us + self._limits.silence_us
            self._deadline_us = min(self._deadline_us, feed.next_probe_us)
        return output

    def _feed_named_in(self, raw: msgspec.Raw) -> str | None:
        match = _HEX_ID.search(bytes(raw).decode("utf-8", "replace"))
        feed = self._feeds.get(match[1].lower()) if match else None
        return feed.feed if feed else None

    def _refused_stream(self, frame: Frame, received_us: int) -> list[Output]:
        output, wait_us = self._refused(frame, "stream", received_us, self._streamed)
        amended = (
            self._asked() != self._streamed
        )  # by now, be it from the answer to a look-up, we know what to leave out
        return [*output, Reconnect(f"stream refused with HTTP {frame.status}", wait_us // 1_000, amended)]

    def _answer(self, frame: Frame, received_us: int) -> list[Output]:
        asked = self._pending.pop(frame.fetch_id, None)
        if asked is None:
            return [self._malformed(None, f"answer to no request ({frame.fetch_id[:40]!r})", received_us)]
        alone = self._feeds[asked[0]] if len(asked) == 1 else None
        if alone is not None and not alone.entitled and frame.status in (200, 401, 403, 404):
            return self._asked_again(alone, frame, received_us)
        if frame.status != 200:
            covered = self._asked()
            output, wait_us = self._refused(frame, "latest", received_us, asked)
            if self._asked() != covered:
                self._attempts = 0  # the next request is another one
            delay_us = retry_delay_us(frame, self._attempts, received_us, self.name, self._limits)
            self._attempts += 1
            self._retry_us = received_us + max(delay_us, wait_us)
            if wait_us:
                self._ready_us = max(self._ready_us, received_us + wait_us)
            return output
        self._attempts = 0
        prices, named = self._prices(frame.data, received_us, streamed=False)
        output = [*self._clear("latest", received_us), *prices]
        if not named and any(isinstance(item, Malformed) for item in prices):
            return output  # an answer that could not be read says nothing about what is missing
        for price_id in asked:
            feed = self._feeds[price_id]
            if price_id in named:
                output.extend(self._clear(f"missing {feed.feed}", received_us))
            else:
                output.extend(self._missing(feed, received_us))
        return output

    def _asked_again(self, feed: _Feed, frame: Frame, received_us: int) -> list[Output]:
        """The answer about a feed that the key did not cover: if it does now, the stream begins anew with it."""
        if frame.status != 200:
            return []  # known, and told
        prices, named = self._prices(frame.data, received_us, streamed=False)
        if feed.price_id not in named:
            return prices
        feed.entitled = True
        told = [one for what in ("key", "missing") for one in self._clear(f"{what} {feed.feed}", received_us)]
        return [*told, *prices, Reconnect(f"the key covers {feed.feed} again")]

    def _missing(self, feed: _Feed, received_us: int) -> list[Output]:
        text = f"Hermes has no price for {feed.feed} (id {feed.price_id}): removed, or the id is wrong"
        return self._trouble(f"missing {feed.feed}", feed.feed, Condition.LOST, text, received_us)

    def _refused(self, frame: Frame, what: str, received_us: int, asked: Sequence[str]) -> tuple[list[Output], int]:
        """Name an HTTP status, of a request for so many ids; also the wait that it asks for, in microseconds."""
        ids = dict.fromkeys(found.lower() for found in _HEX_ID.findall(frame.data[:65_536].decode("utf-8", "replace")))
        named = [self._feeds[price_id] for price_id in ids if price_id in self._feeds]
        wait_us = frame.retry_after_ms * 1_000
        if frame.status in (401, 403) and named and len(named) < max(len(asked), len(self._asked())):
            text = f"HTTP {frame.status}, not entitled: {self._plain(frame.data)}"
            output: list[Output] = []
            for feed in named:
                feed.entitled = False
                feed.next_probe_us = received_us + self._limits.entitled_retry_us
                output += self._trouble(f"key {feed.feed}", feed.feed, Condition.NOT_ENTITLED, text, received_us)
            return output, wait_us
        if frame.status == 404 and named:
            return [status for feed in named for status in self._missing(feed, received_us)], wait_us
        return self._refusal(frame, what, received_us, self._limits.refused_retry_us)

    # Requests and timers.

    def _asked(self) -> tuple[str, ...]:
        return tuple(price_id for price_id, feed in self._feeds.items() if feed.entitled)

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._key}"} if self._key else {}

    def _url(self, route: str, ids: Sequence[str]) -> str:
        query = "&".join(f"ids[]={price_id}" for price_id in ids)
        options = "parsed=true&encoding=base64&ignore_invalid_price_ids=true"
        return f"{self._base_url}/v2/updates/price/{route}?{query}&{options}"

    def _fetch(self, ids: Sequence[str]) -> list[Fetch]:
        fetches = []
        for start in range(0, len(ids), self._limits.ids_per_fetch):
            chunk = tuple(ids[start : start + self._limits.ids_per_fetch])
            self._last_id += 1
            fetch_id = f"latest:{self._last_id}"
            self._pending[fetch_id] = chunk
            url = self._url("latest", chunk)
            fetches.append(Fetch(fetch_id, url, headers=self._headers(), timeout_ms=self._limits.fetch_timeout_ms))
        return fetches

    def _due_fetches(self, now_us: int) -> list[Fetch]:
        if self._retry_us <= now_us:
            self._retry_us = NEVER
            due = self._asked()
        else:
            feeds = self._feeds.values()
            due = tuple(feed.price_id for feed in feeds if feed.entitled and feed.next_probe_us <= now_us)
        for price_id in due:
            self._feeds[price_id].next_probe_us = now_us + self._limits.probe_every_us
        return self._fetch(due) or self._ask_again(now_us)

    def _ask_again(self, now_us: int) -> list[Fetch]:
        """Ask for one feed that the key did not cover, by itself, so that it can't take others with it."""
        doubtful = [feed for feed in self._feeds.values() if not feed.entitled]
        due = next((feed for feed in doubtful if feed.next_probe_us <= now_us), None)
        if due is None:
            return []
        for feed in doubtful:
            feed.next_probe_us = max(feed.next_probe_us, now_us + self._limits.probe_every_us)
        due.next_probe_us = now_us + self._limits.entitled_retry_us
        return self._fetch((due.price_id,))

    def _rearm(self) -> None:
        due_us = self._heard_us + self._limits.transport_silence_us
        fetch_us = self._retry_us
        for feed in self._feeds.values():
            if feed.suspect_us != NEVER:
                due_us = min(due_us, feed.suspect_us + self._limits.proof_us)
            fetch_us = min(fetch_us, feed.next_probe_us)
        if not self._pending:
            due_us = min(due_us, max(fetch_us, self._ready_us))
        self._deadline_us = due_us
