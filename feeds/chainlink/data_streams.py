"""Chainlink Data Streams: a websocket of signed reports and a REST look-up, from one origin. The pure half.

Source: Chainlink's Data Streams reference and its SDKs. Each request is signed: HMAC-SHA256 over method, path with
query as on the wire, hash of the body, key and time in milliseconds, which the server takes within 5 s of its own
clock. The set of feeds is fixed when a socket is opened. What was sent while no socket stood is lost, so that every
connect, and every feed that falls silent, asks for the latest report.

Several origins (``X-Cll-Origin``) or hosts are several links. They share a :class:`ReportProver`, so that a report is
proved once; a link tells each second of a feed once.
"""

import hmac
import re
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from hashlib import sha256
from typing import ClassVar
from urllib.parse import urlsplit

import msgspec

from feeds.chainlink.report import Report, in_force, unaged
from feeds.host_link import LONGEST_PATIENCE_US, NEVER, PLAUSIBLE_US, HostLink, Output, Verify
from feeds.signers import SignerSets
from feeds.verdict import Verdict
from oracle_hub.core.source import (
    Condition,
    Effect,
    Fetch,
    Frame,
    Open,
    PriceUpdate,
    Reconnect,
    Unchanged,
)
from oracle_hub.errors import ConfigError, DecodeError, PriceError

STREAM_ID = re.compile(r"(?:0x)?([0-9a-f]{64})", re.IGNORECASE)
_KEPT_VERDICTS = 1_024


def signed_headers(
    method: str, url: str, body: bytes, key: str, secret: str, at_ms: int, origin: str | None = None
) -> dict[str, str]:
    """The headers that a request must carry.

    Args:
        method: in capitals.
        url: exactly as it goes on the wire; only path and query are signed.
        body: empty for the websocket.
        key: the API key (a UUID).
        secret: the API secret; it is not among the headers.
        at_ms: unix milliseconds.
        origin: which of the origins is to answer; None: any.
    """
    parts = urlsplit(url)
    path = f"{parts.path}?{parts.query}" if parts.query else parts.path
    text = f"{method} {path} {sha256(body).hexdigest()} {key} {at_ms}"
    headers = {
        "Authorization": key,
        "X-Authorization-Timestamp": str(at_ms),
        "X-Authorization-Signature-SHA256": hmac.new(secret.encode(), text.encode(), sha256).hexdigest(),
    }
    return headers if origin is None else headers | {"X-Cll-Origin": origin}


class StreamsFeed(msgspec.Struct, frozen=True):
    """One feed as Data Streams names it, and the exponent to which its prices are brought."""

    stream_id: str
    """64 hexadecimal digits, with or without ``0x``."""
    expo: int = -8


class StreamsLimits(msgspec.Struct, frozen=True):
    """Patience of a link."""

    transport_silence_us: int = 10_000_000
    """A healthy origin sends about a report a second."""
    silence_us: int = 5_000_000
    """A feed without news for so long is looked up by REST."""
    probe_every_us: int = 10_000_000
    refused_retry_us: int = 60_000_000
    """Wait after refused credentials, and after a rate limit that names no wait of its own."""
    fetch_timeout_ms: int = 5_000


class ReportProver:
    """Decodes reports and checks who signed them, each once however many links bring it."""

    def __init__(self, sets: SignerSets) -> None:
        self._known = lru_cache(_KEPT_VERDICTS)(lambda data: unaged(Report.decode(data), sets))

    @property
    def checked(self) -> int:
        """Reports whose signatures were looked at."""
        return self._known.cache_info().misses

    def prove(self, report: Report, at_us: int) -> Verdict:
        """Whether a report is signed by those who may, and in time. That it is ahead of our clock is for the table."""
        return in_force(report, *self._known(report.encode()), max(at_us, report.publish_us))


class _Feed:
    """What the link knows of one feed."""

    __slots__ = ("expo", "feed", "next_probe_us", "publish_us", "stream_id")

    def __init__(self, feed: str, stream_id: str, expo: int) -> None:
        self.feed = feed
        self.stream_id = stream_id
        self.expo = expo
        self.publish_us = 0
        self.next_probe_us = NEVER


class StreamsLink(HostLink):
    """A :class:`~oracle_hub.core.source.Link` to one origin of Data Streams.

    Args:
        name: unique in the run.
        ws_url: base of the websocket (``wss://ws.dataengine.chain.link``).
        rest_url: base of the REST API (``https://api.dataengine.chain.link``).
        feeds: by feed.
        key: the API key.
        secret: the API secret. Neither is ever shown.
        prover: shared by all links of a source.
        source: the name under which its updates go.
        verify: ``strict`` refuses what is not verified, ``lenient`` takes it as not verified, ``off`` does not look.
        origin: which origin; None: the host decides.
        limits: patience.

    Raises:
        ConfigError: an id that can't be one, or two feeds with one id.
    """

    CONFIGURED: ClassVar[frozenset[str]] = HostLink.CONFIGURED | {
        "_ws_url",
        "_rest_url",
        "_key",
        "_secret",
        "_origin",
        "_prover",
        "_verify",
        "_limits",
    }

    def __init__(
        self,
        name: str,
        ws_url: str,
        rest_url: str,
        feeds: Mapping[str, StreamsFeed],
        *,
        key: str,
        secret: str,
        prover: ReportProver,
        source: str = "streams",
        verify: Verify = "strict",
        origin: str | None = None,
        limits: StreamsLimits | None = None,
    ) -> None:
        super().__init__(name, source, secret, key)
        self._key = key
        self._secret = secret
        self._prover = prover
        self._verify = verify
        self._origin = origin
        self._limits = limits or StreamsLimits()
        self._feeds: dict[str, _Feed] = {}
        for feed, spec in feeds.items():
            match = STREAM_ID.fullmatch(spec.stream_id)
            if match is None:
                raise ConfigError(f"source {source}, feed {feed}: stream id {spec.stream_id!r} is not 64 hex digits")
            stream_id = match[1].lower()
            if stream_id in self._feeds:
                raise ConfigError(f"source {source}: feeds {self._feeds[stream_id].feed} and {feed} have one stream id")
            self._feeds[stream_id] = _Feed(feed, stream_id, spec.expo)
        ids = ",".join(f"0x{stream_id}" for stream_id in self._feeds)
        self._ws_url = f"{ws_url.rstrip('/')}/api/v1/ws?feedIDs={ids}"
        self._rest_url = f"{rest_url.rstrip('/')}/api/v1/reports/latest?feedID=0x"
        self._last_id = 0
        self._ready_us = 0
        self._start(0)

    def _start(self, now_us: int) -> None:
        self._heard_us = now_us
        self._pending: dict[str, str] = {}

    @property
    def feeds(self) -> tuple[str, ...]:
        """The feeds that it reads."""
        return tuple(feed.feed for feed in self._feeds.values())

    # The contract.

    def connect(self, now_us: int) -> list[Effect]:
        """Open the socket for all feeds, and ask for the latest report of each."""
        self._start(now_us)
        self._ready_us = min(self._ready_us, now_us + LONGEST_PATIENCE_US)
        opening = Open("websocket", self._ws_url, self._headers(self._ws_url, now_us))
        return [opening, *self._fetch(list(self._feeds.values()), now_us)]

    def receive(self, frame: Frame, received_us: int) -> list[Output]:
        """Take a report of the stream, a refusal of it, or the answer to a look-up."""
        if frame.channel == "http":
            return self._answer(frame, received_us)
        if frame.channel != "websocket":
            return [self._malformed(None, f"a {frame.channel} frame on a Data Streams link", received_us)]
        if frame.status:
            output = self._refused(frame, "stream", received_us)
            wait_ms = max(0, self._ready_us - received_us) // 1_000
            return [*output, Reconnect(f"stream refused with HTTP {frame.status}", wait_ms)]
        self._heard_us = received_us
        return [*self._clear("stream", received_us), *self._report(frame.data, received_us)]

    def next_deadline(self) -> int | None:
        """The next instant for the watchdog or a look-up; possibly too early, never late."""
        probe_us = min((feed.next_probe_us for feed in self._feeds.values()), default=NEVER)
        return min(self._heard_us + self._limits.transport_silence_us, max(probe_us, self._ready_us))

    def on_timer(self, now_us: int) -> list[Output]:
        """The watchdog of the stream, and look-ups of silent feeds."""
        output: list[Output] = []
        if now_us - self._heard_us >= self._limits.transport_silence_us:
            self._heard_us = now_us
            output.append(Reconnect(f"no report for {self._limits.transport_silence_us / 1_000_000:g} s"))
        due = [feed for feed in self._feeds.values() if feed.next_probe_us <= now_us]
        return [*output, *self._fetch(due, now_us)] if now_us >= self._ready_us else output

    # Reports.

    def _report(self, data: bytes, received_us: int) -> list[Output]:
        try:
            report = Report.decode(data)
        except DecodeError as error:
            return [self._malformed(None, self._plain(str(error)), received_us)]
        feed = self._feeds.get(report.feed_id.hex())
        if feed is None:
            return [self._malformed(None, f"report of {report.feed_id.hex()}, not asked for", received_us)]
        feed.next_probe_us = received_us + self._limits.silence_us
        verified, output = self._verified(feed, report, received_us)
        if verified is None:
            return output
        if report.publish_us <= feed.publish_us:
            return [*output, self._old(feed, report, received_us, verified=verified)]
        if report.closed is not None:
            key, word_us = f"market {feed.feed}", report.publish_us
            return output + self._trouble(key, feed.feed, Condition.HALTED, report.closed, received_us, word_us)
        output += self._clear(f"market {feed.feed}", received_us)
        try:
            mantissa = report.mantissa(feed.expo)
        except PriceError as error:
            return output + self._no_price(feed.feed, str(error), received_us, report.publish_us)
        output += self._clear(f"price {feed.feed}", received_us)
        if report.publish_us <= received_us + PLAUSIBLE_US:  # else one wrong clock would silence the feed
            feed.publish_us = report.publish_us
        output.append(
            PriceUpdate(self.source, self.name, feed.feed, mantissa, report.publish_us, received_us, verified=verified)
        )
        return output

    def _old(self, feed: _Feed, report: Report, received_us: int, *, verified: bool) -> PriceUpdate | Unchanged:
        """A report of the past: told, so that it is counted as older. Several of one second are no conflict."""
        if report.publish_us < feed.publish_us and report.closed is None:
            with suppress(PriceError):
                mantissa, at_us = report.mantissa(feed.expo), report.publish_us
                return PriceUpdate(self.source, self.name, feed.feed, mantissa, at_us, received_us, verified=verified)
        return Unchanged(self.source, self.name, feed.feed, received_us)

    def _verified(self, feed: _Feed, report: Report, received_us: int) -> tuple[bool | None, list[Output]]:
        """Whether a report counts as verified (None: it is refused), and what there is to tell of it."""
        if self._verify == "off":
            return False, []
        verdict = self._prover.prove(report, received_us)
        if verdict.verified:
            return True, self._clear(f"proof {feed.feed}", received_us)
        strict = self._verify == "strict"
        told = self._unproved(feed.feed, f"{verdict.why}: {verdict.detail}", received_us, refused=strict)
        return None if strict else False, told

    # Requests.

    def _headers(self, url: str, now_us: int) -> dict[str, str]:
        return signed_headers("GET", url, b"", self._key, self._secret, now_us // 1_000, self._origin)

    def _fetch(self, feeds: list[_Feed], now_us: int) -> list[Fetch]:
        if now_us < self._ready_us:
            for feed in feeds:
                feed.next_probe_us = self._ready_us
            return []
        fetches = []
        for feed in feeds:
            feed.next_probe_us = now_us + self._limits.probe_every_us
            self._last_id += 1
            fetch_id, url = f"latest:{self._last_id}", self._rest_url + feed.stream_id
            self._pending[fetch_id] = feed.stream_id
            fetches.append(
                Fetch(fetch_id, url, headers=self._headers(url, now_us), timeout_ms=self._limits.fetch_timeout_ms)
            )
        return fetches

    def _answer(self, frame: Frame, received_us: int) -> list[Output]:
        stream_id = self._pending.pop(frame.fetch_id, None)
        if stream_id is None:
            return [self._malformed(None, f"answer to no request ({frame.fetch_id[:40]!r})", received_us)]
        feed = self._feeds[stream_id]
        if frame.status == 404:
            text = f"Data Streams has no report of {feed.feed} (id 0x{stream_id})"
            return self._trouble(f"missing {feed.feed}", feed.feed, Condition.LOST, text, received_us)
        if frame.status != 200:
            return self._refused(frame, "latest", received_us)
        output = self._clear("latest", received_us) + self._clear(f"missing {feed.feed}", received_us)
        return output + self._report(frame.data, received_us)

    def _refused(self, frame: Frame, what: str, received_us: int) -> list[Output]:
        """Name an HTTP status, and keep the wait that it asks for."""
        why = "not entitled (or our clock is more than 5 s off)"
        output, wait_us = self._refusal(frame, what, received_us, self._limits.refused_retry_us, why)
        if wait_us:
            self._ready_us = max(self._ready_us, received_us + wait_us)
        return output
