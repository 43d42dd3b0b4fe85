"""What the server needs from the program behind it, and how it is set up."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec

from oracle_hub.core.hub import Decision
from oracle_hub.server.tokens import Token
from oracle_hub.stream.session import SessionLimits

CURRENT_POLL_S = 0.1


class SignedQuery(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A price that was chosen, of which the signed update is wanted."""

    feed: str
    source: str
    publish_time_us: int
    price: int
    """The mantissa."""


class SignedUpdate(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What others can check, and take to a chain."""

    format: str
    """Of ``data``: ``pyth.accumulator``."""
    data: str
    """Base64. It holds that price and no other."""


class SignedAnswer(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Answer of ``/v1/signed/{feed}``."""

    feed: str
    source: str
    price: str
    publish_time_us: int
    signing: bool
    """Whether prices of the source come with signatures that can be handed on at all."""
    update: SignedUpdate | None
    """None: this price was not chosen, came without one, or is too long ago."""


class Service(Protocol):
    """The program as the server sees it. What is no coroutine is read on the event loop and must answer at once.

    A coroutine may raise :class:`~oracle_hub.errors.NoAnswerError` where the program is in another process.
    """

    @property
    def instance(self) -> str:
        """The stored UUID of this installation."""
        ...

    @property
    def epoch(self) -> int: ...

    @property
    def first_epoch(self) -> int | None:
        """In which the instance began; None where not known."""
        ...

    @property
    def seq(self) -> int:
        """Sequence of the last batch that was handed to :meth:`Server.publish`, or journaled before it started."""
        ...

    @property
    def simulated(self) -> Mapping[str, Any] | None:
        """What is simulated, or None when prices are real."""
        ...

    @property
    def policy(self) -> str: ...

    @property
    def config_hash(self) -> str: ...

    @property
    def limits(self) -> Mapping[str, Any]:
        """Limits of the program, published in ``hello`` beside those of the server."""
        ...

    @property
    def decisions(self) -> Mapping[str, Decision]:
        """Current decisions in catalog order, one for every feed. Read at start and on a change of configuration."""
        ...

    def now_us(self) -> int:
        """Our clock: microseconds since 1970, carried by the monotonic clock."""
        ...

    def current(self, now_us: int) -> bool:
        """Whether all is here that was published until about ``now_us``; where not, no heartbeat may say so."""
        ...

    async def explain(self, feed: str) -> Mapping[str, Any] | msgspec.Raw | None:
        """Why a feed is as it is, as JSON values or as JSON; None for an unknown feed."""
        ...

    async def signed(self, asked: SignedQuery) -> SignedAnswer | msgspec.Raw:
        """The signed update behind a chosen price."""
        ...

    async def parity(self) -> Mapping[str, Any] | msgspec.Raw:
        """The exchange's own aggregates beside the decisions, as JSON values or as JSON."""
        ...

    async def ready(self) -> tuple[bool, Mapping[str, Any] | msgspec.Raw]:
        """Whether the truth can be served (``none`` is the truth too), and the evidence as JSON values or as JSON."""
        ...

    async def metrics(self) -> bytes:
        """Prometheus text exposition."""
        ...


class ServerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Every bound has a default. Times in ms, sizes in bytes."""

    host: str = "127.0.0.1"
    port: int = 8080
    """0 takes any free port."""
    heartbeat_ms: int = 500
    allowed_origins: tuple[str, ...] = ()
    """Origins of browsers that may read, beside our own host: ``https://app.example``. ``*`` is everybody."""
    allowed_hosts: tuple[str, ...] = ()
    """Names that are answered to, beside addresses and ``localhost`` (:func:`oracle_hub.hosts.host_allowed`)."""
    max_clients: int = 10_000
    max_clients_per_ip: int = 2_000
    handshake_timeout_ms: int = 5_000
    """A connection that has not sent a whole request head by then is cut."""
    max_handshakes: int = 2_000
    """Connections that have not sent one yet; beyond this the oldest is cut. And websockets that have to show a token
    yet; beyond this those without one are refused."""
    subscribe_timeout_ms: int = 30_000
    """A subscriber without a subscription for so long is closed."""
    max_message_bytes: int = 65_536
    """A larger message from a client closes its connection with 1009."""
    ping_interval_ms: int = 20_000
    """A peer that answers no ping within half of this is cut off."""
    flush_interval_ms: int = 5
    """How often held-back changes are looked at while there are any."""
    not_sent_low_water_bytes: int = 4_096
    """``TCP_NOTSENT_LOWAT``: how much unsent data the kernel may hide from us."""
    max_unanswered_bytes: int = 65_536
    """What is sent beyond this, and follows the last ping that the client has answered, counts as unsent: however large
    its receive buffer is, it wakes to no more than about so many bytes. 0: no such pings."""
    close_grace_ms: int = 500
    """How long a close may take before the connection is cut."""
    slow_close_grace_ms: int = 20_000
    """The same for who is closed for not reading (4001): it should find out why when it reads again."""
    worker: int | None = None
    """Number of this process among several that serve on one port, for ``hello``; None where there is one."""
    reuse_port: bool = False
    """``SO_REUSEPORT``: other processes listen on the same port, and the kernel deals connections out."""
    retry_after_ms: int = 1_000
    """When to come back, in ``goaway`` and in refusals."""
    history_batches: int = 8_192
    """Bounds of what a resume can reach back to: this, the next, and the one after that, whichever is met first."""
    history_bytes: int = 32 << 20
    history_age_ms: int = 120_000
    tls_certificate: str | None = None
    """PEM files; both or neither. With them the port speaks TLS only."""
    tls_key: str | None = None
    tokens: tuple[Token, ...] = ()
    require_token: bool = False
    """Whether prices are for those with a token only."""
    session: SessionLimits = SessionLimits()

    def published(self) -> dict[str, int]:
        """What a client has to know, for ``hello``."""
        return {
            "max_message_bytes": self.max_message_bytes,
            "max_clients_per_ip": self.max_clients_per_ip,
            **self.session.published(),
        }


async def until_current(service: Service, ending: Callable[[], bool]) -> None:
    """Wait while a hub is silent: nobody is answered with what it said before, since a snapshot does not tell how long
    ago that was. Its next word is soon, or the worker ends."""
    while not (service.current(service.now_us()) or ending()):  # noqa: ASYNC110 - a time that passes has no event
        await asyncio.sleep(CURRENT_POLL_S)
