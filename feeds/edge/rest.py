"""Edge's REST API: the latest prices of all feeds, polled. The pure half.

Source: Edge's API reference (``GET /prices/batch?feedIds=…`` with the key as it is in ``Authorization``). One signature
is over the whole answer, in its order. No rate limit and no error but 401 is documented, so that a host's
``Retry-After`` is kept, and what fails is asked again ever more slowly: every few seconds while the host is down.

A price counts by the signed bytes. An answer with the signature of the one before holds nothing new: it is neither
proved nor told again.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import ClassVar
from urllib.parse import quote

import msgspec

from feeds.edge.messages import SVM, EdgeMessage, EdgePrice, check, decode
from feeds.host_link import LONGEST_PATIENCE_US, NEVER, HostLink, Output, Verify, retry_delay_us
from feeds.signers import SignerSets
from feeds.verdict import Mode, Verdict
from oracle_hub.core.source import (
    Condition,
    Effect,
    Fetch,
    Frame,
    PriceUpdate,
    Unchanged,
)
from oracle_hub.errors import ConfigError, DecodeError, PriceError

FEED_ID = re.compile(r"[A-Za-z0-9._-]{1,32}", re.ASCII)
"""A name (``SOLUSD``) or, for customers with numbered feeds, a number."""
_KEPT_SIGNERS = 256


class EdgeFeed(msgspec.Struct, frozen=True):
    """One feed as Edge names it, and the exponent to which its prices are brought."""

    feed_id: str
    expo: int = -8


class EdgeLimits(msgspec.Struct, frozen=True):
    """How often a host is asked, and how patiently."""

    poll_us: int = 1_000_000
    """From one request to the next. Edge's prices have whole seconds."""
    first_retry_us: int = 1_000_000
    down_retry_us: int = 5_000_000
    """At most, while the host is down: it is used again soon after it comes back."""
    max_retry_us: int = 30_000_000
    refused_retry_us: int = 60_000_000
    """Wait after a refused key; after a rate limit that names no wait of its own, too."""
    fetch_timeout_ms: int = 5_000


class EdgeProver:
    """Checks who signed messages, each once however many hosts bring it."""

    def __init__(self, sets: SignerSets) -> None:
        self._sets = sets
        self._signer = lru_cache(_KEPT_SIGNERS)(EdgeMessage.signer)

    @property
    def checked(self) -> int:
        """Messages whose signature was looked at."""
        return self._signer.cache_info().misses

    def prove(self, message: EdgeMessage, at_us: int) -> Verdict:
        """Whether a message is signed by one who may at ``at_us``."""
        return check([message], self._sets, at_us=at_us, mode=Mode.STRICT, signer=self._signer)


class EdgeLink(HostLink):
    """A :class:`~oracle_hub.core.source.Link` to one host of Edge's REST API. It has no stream: it asks by timer.

    Args:
        name: unique in the run.
        base_url: what stands before ``/prices``.
        feeds: by feed.
        source: the name under which its updates go.
        key: sent as ``Authorization``, and never shown.
        prover: shared by all links of a source.
        verify: ``strict`` refuses what is not verified, ``lenient`` takes it as not verified, ``off`` does not look.
        limits: how often and how patiently.

    Raises:
        ConfigError: an id that can't be one, or two feeds with one id.
    """

    CONFIGURED: ClassVar[frozenset[str]] = HostLink.CONFIGURED | {
        "_base_url",
        "_key",
        "_limits",
        "_feeds",
        "_prover",
        "_verify",
        "_url",
    }

    def __init__(
        self,
        name: str,
        base_url: str,
        feeds: Mapping[str, EdgeFeed],
        *,
        prover: EdgeProver,
        source: str = "edge",
        key: str | None = None,
        verify: Verify = "strict",
        limits: EdgeLimits | None = None,
    ) -> None:
        super().__init__(name, source, key)
        self._base_url = base_url.rstrip("/")
        self._key = key
        self._prover = prover
        self._verify = verify
        self._limits = limits or EdgeLimits()
        self._feeds: dict[str, tuple[str, int]] = {}
        for feed, spec in feeds.items():
            feed_id = spec.feed_id.upper()
            if not FEED_ID.fullmatch(feed_id):
                raise ConfigError(f"source {source}, feed {feed}: {spec.feed_id!r} is no id of Edge (SOLUSD)")
            if feed_id in self._feeds:
                raise ConfigError(f"source {source}: feeds {self._feeds[feed_id][0]} and {feed} have one id")
            self._feeds[feed_id] = (feed, spec.expo)
        self._url = f"{self._base_url}/prices/batch?feedIds={','.join(map(quote, self._feeds))}"
        self._last_id = 0
        self._ready_us = 0
        self._start()

    def _start(self) -> None:
        self._pending: str | None = None
        self._attempts = 0
        self._due_us = NEVER
        self._held: dict[str, EdgeMessage] = {}

    # The contract.

    def connect(self, now_us: int) -> list[Effect]:
        """Ask for all feeds, unless the host wishes to be left alone."""
        self._start()
        self._ready_us = min(self._ready_us, now_us + LONGEST_PATIENCE_US)
        if now_us < self._ready_us:
            self._due_us = self._ready_us
            return []
        return [self._ask(now_us)]

    def receive(self, frame: Frame, received_us: int) -> list[Output]:
        """Take the answer to a request."""
        if frame.channel != "http" or frame.fetch_id != self._pending:
            return [self._malformed(None, f"a {frame.channel} frame that answers no request", received_us)]
        self._pending = None
        if frame.status != 200:
            return self._refused(frame, received_us)
        self._attempts = 0
        self._due_us = max(self._due_us, received_us)
        try:
            messages = decode(SVM, frame.data)
        except DecodeError as error:
            return [self._malformed(None, self._plain(str(error)), received_us)]
        output = self._clear("prices", received_us)
        named: set[str] = set()
        for message in messages:
            output += self._message(message, received_us, named)
        return output + self._absences(named, received_us)

    def next_deadline(self) -> int | None:
        """When the next request is due; None while one is under way (each ends, by its own timeout)."""
        return None if self._pending is not None or self._due_us == NEVER else self._due_us

    def on_timer(self, now_us: int) -> list[Output]:
        """Ask again when it is time."""
        if self._pending is not None or now_us < self._due_us:
            return []
        return [self._ask(now_us)]

    # Prices.

    def _message(self, message: EdgeMessage, received_us: int, named: set[str]) -> list[Output]:
        ours: list[tuple[EdgePrice, str, int]] = []
        output: list[Output] = []
        for price in message.prices:
            feed_id = str(price.feed_id).upper()
            if feed_id not in self._feeds:
                told = f"price of {self._plain(str(price.feed_id))!r}, not asked for"
                output.append(self._malformed(None, told, received_us))
            elif feed_id in named:
                output.append(self._malformed(self._feeds[feed_id][0], "two prices in one answer", received_us))
            else:
                named.add(feed_id)
                ours.append((price, *self._feeds[feed_id]))
        if ours and all(self._held.get(feed) == message for _, feed, _ in ours):
            return output + [Unchanged(self.source, self.name, feed, received_us) for _, feed, _ in ours]
        why = self._why_unverified(message, received_us)
        verified = why is None and self._verify != "off"
        for price, feed, expo in ours:
            if why is not None:
                output += self._unproved(feed, why, received_us, refused=self._verify == "strict")
                if self._verify == "strict":
                    continue
            else:
                output += self._clear(f"proof {feed}", received_us)
            output += self._price(price, feed, expo, message, received_us, verified=verified)
        return output

    def _why_unverified(self, message: EdgeMessage, received_us: int) -> str | None:
        if self._verify == "off":
            return None
        verdict = self._prover.prove(message, received_us)
        return None if verdict.verified else f"{verdict.why}: {verdict.detail}"

    def _price(
        self, price: EdgePrice, feed: str, expo: int, message: EdgeMessage, received_us: int, *, verified: bool
    ) -> Sequence[Output]:
        try:
            mantissa = price.mantissa(expo)
        except PriceError as error:
            return self._no_price(feed, str(error), received_us, price.publish_us)
        self._held[feed] = message
        update = PriceUpdate(self.source, self.name, feed, mantissa, price.publish_us, received_us, None, 0, verified)
        return [*self._clear(f"price {feed}", received_us), update]

    def _absences(self, named: set[str], received_us: int) -> list[Output]:
        """Tell which feeds an answer lacks, and which it has again."""
        output: list[Output] = []
        for feed_id, (feed, _) in self._feeds.items():
            if feed_id in named:
                output += self._clear(f"missing {feed}", received_us)
            else:
                text = f"Edge has no price for {feed} (id {feed_id}): not of this key, or the id is wrong"
                output += self._trouble(f"missing {feed}", feed, Condition.LOST, text, received_us)
        return output

    # Requests.

    def _ask(self, now_us: int) -> Fetch:
        self._last_id += 1
        self._pending = f"batch:{self._last_id}"
        self._due_us = now_us + self._limits.poll_us
        headers = {"Authorization": self._key} if self._key else {}
        return Fetch(self._pending, self._url, headers=headers, timeout_ms=self._limits.fetch_timeout_ms)

    def _refused(self, frame: Frame, received_us: int) -> list[Output]:
        """Name an HTTP status, and wait: as long as the host wishes, or ever longer."""
        limits = self._limits
        output, wait_us = self._refusal(frame, "prices", received_us, limits.refused_retry_us)
        if wait_us:
            self._ready_us = received_us + wait_us
        delay_us = retry_delay_us(frame, self._attempts, received_us, self.name, limits)
        self._attempts += 1
        self._due_us = received_us + max(delay_us, wait_us)
        return output
