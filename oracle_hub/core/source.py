"""What a source says and asks, as data. No socket, task or clock in it.

A *source* is an oracle under a name (``doves``, ``chainlink``, ``pyth``). A *transport* is one way to it (an RPC, a
host). A :class:`Link` is the pure half of one transport: bytes go in, events and effects come out; a driver in
``ingest`` carries them out. In a replay nobody does, since every answer is in the journal.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import ClassVar, Literal, Protocol, TypeAlias

import msgspec


class PriceUpdate(msgspec.Struct, frozen=True, gc=False):
    """One observation of one feed by one source, normalised to the feed's canonical exponent."""

    source: str
    transport: str
    feed: str
    mantissa: int
    """Positive; fits int64."""
    publish_us: int
    """The source's own clock, of the observation (not of the block, the write or the fetch)."""
    received_us: int
    """Our clock, stamped before parsing."""
    conf: int | None = None
    """Half-width of the source's confidence interval at the same exponent, where it gives one."""
    slot: int = 0
    """Solana slot the value came with; 0 where there is none. Compared only within one kind of transport."""
    verified: bool = False
    """A signature was checked by us."""
    account: str | None = None
    """On-chain address, for accounts."""


class Unchanged(msgspec.Struct, frozen=True, gc=False):
    """The link lives and holds nothing new. An old price gets no younger by it."""

    source: str
    transport: str
    feed: str
    received_us: int


class Malformed(msgspec.Struct, frozen=True, gc=False):
    """A frame, or the part of it for one feed, that could not be used. Counted and named, never silent."""

    source: str
    transport: str
    feed: str | None
    reason: str
    received_us: int


class Condition(StrEnum):
    """What a source says of itself, beside prices."""

    OK = "ok"
    HALTED = "halted"
    """The source marks the feed as not trading."""
    INVALID = "invalid"
    """The source now publishes something that is no price (zero, negative, not verified by its own receiver)."""
    UNVERIFIED = "unverified"
    """What it sends is not signed by those who have to."""
    NOT_ENTITLED = "not_entitled"
    """The credentials do not cover this feed, or were refused."""
    RATE_LIMITED = "rate_limited"
    WRONG_CLUSTER = "wrong_cluster"
    MISSING_ACCOUNT = "missing_account"
    CHANGED = "changed"
    """The line-up behind the source changed (a custody names another account)."""
    LIMITS_CHANGED = "limits_changed"
    """The account publishes other limits than before, and they are followed."""
    LIMITS_REFUSED = "limits_refused"
    """The account publishes limits that are none; those before stay."""
    RESUMED = "resumed"
    """What it called halted or invalid counts again, as it was told: there is no newer price to end that."""
    LOST = "lost"
    """One subscription is silent or refused while its link lives."""


class Status(msgspec.Struct, frozen=True, gc=False):
    """A source's condition for one feed (or all of its feeds, when ``feed`` is None). Not a price."""

    source: str
    transport: str
    feed: str | None
    condition: Condition
    text: str
    received_us: int


Event: TypeAlias = PriceUpdate | Unchanged | Malformed | Status


class Open(msgspec.Struct, frozen=True):
    """Open the link's stream. Its frames come back through :meth:`Link.receive` with that channel."""

    channel: Literal["websocket", "sse"]
    url: str
    headers: dict[str, str] = {}
    subprotocols: tuple[str, ...] = ()

    def __repr__(self) -> str:  # headers may hold credentials
        return f"Open({self.channel!r}, headers=…)"


class Send(msgspec.Struct, frozen=True):
    """Send text on the link's websocket."""

    text: str


class Fetch(msgspec.Struct, frozen=True):
    """One HTTP request. Its answer comes back through :meth:`Link.receive` as a frame with the same ``fetch_id``."""

    fetch_id: str
    url: str
    method: Literal["GET", "POST"] = "GET"
    headers: dict[str, str] = {}
    body: bytes = b""
    timeout_ms: int = 10_000

    def __repr__(self) -> str:  # url and headers may hold credentials
        return f"Fetch({self.fetch_id!r}, {self.method})"


class Reconnect(msgspec.Struct, frozen=True):
    """Drop the link's stream and connect again, after the driver's back-off or ``after_ms``, whichever is later."""

    reason: str
    after_ms: int = 0
    amended: bool = False
    """The next session asks for less than what was refused: the driver begins its back-off anew."""


class Rewatch(msgspec.Struct, frozen=True):
    """A reader's set of accounts changed: every Solana link must reconcile its subscriptions."""


Effect: TypeAlias = Open | Send | Fetch | Reconnect | Rewatch


class Frame(msgspec.Struct, frozen=True, gc=False):
    """Bytes that arrived on a link, exactly as they came; only a key of ours that the peer quotes is cut out. This is
    what the journal holds."""

    channel: Literal["websocket", "sse", "http"]
    data: bytes
    """A websocket message, the data of one server-sent event, or a response body."""
    fetch_id: str = ""
    status: int = 0
    """HTTP status; 0 when the request failed without one (``data`` then holds the reason in words)."""
    retry_after_ms: int = 0
    """From a Retry-After header; 0 when absent."""
    event: str = ""
    """Name of the server-sent event, where it has one."""


class Link(Protocol):
    """The pure half of one transport. Its methods are called in journal order, live and in replay alike."""

    CONFIGURED: ClassVar[frozenset[str]]
    """Attributes that the configuration gives: addresses, keys, limits, readers. Everything else is state. It goes into
    the journal's checkpoints, so it is made of plain data and never holds a secret."""
    name: str
    """Unique in the run: ``solana:a``, ``hermes:1``."""

    def connect(self, now_us: int) -> Sequence[Effect]:
        """Start over (first connect and every reconnect): forget the old session, ask for stream and snapshot."""
        ...

    def receive(self, frame: Frame, received_us: int) -> Sequence[Event | Effect]:
        """Take one frame. Never raises on what a peer sent: that is a :class:`Malformed`."""
        ...

    def next_deadline(self) -> int | None:
        """When :meth:`on_timer` wants to be called (our clock, us); None for never."""
        ...

    def on_timer(self, now_us: int) -> Sequence[Event | Effect]:
        """Called at or after :meth:`next_deadline`: pings, watchdogs, polls, planned renewal."""
        ...


class Account(msgspec.Struct, frozen=True, gc=False):
    """The state of one Solana account as an RPC told it."""

    pubkey: str
    owner: str
    slot: int
    """The context slot of the answer, which is not the slot of the last write."""
    data: bytes


class AccountReader(Protocol):
    """A source that is read from Solana accounts. One instance serves all RPC links of the run."""

    CONFIGURED: ClassVar[frozenset[str]]
    """As :attr:`Link.CONFIGURED`."""
    source: str

    def accounts(self) -> frozenset[str]:
        """The addresses to watch now. When it changes, the call that changed it also returns :class:`Rewatch`."""
        ...

    def read(self, account: Account, transport: str, received_us: int) -> Sequence[Event | Rewatch]:
        """Take a state of one of :meth:`accounts`. Never raises on what an account holds."""
        ...

    def missing(self, pubkey: str, slot: int, transport: str, received_us: int) -> Sequence[Event | Rewatch]:
        """Take the news that an account does not exist at ``slot``."""
        ...
