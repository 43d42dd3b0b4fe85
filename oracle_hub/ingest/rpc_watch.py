"""What one Solana link knows of one account and of the requests that are under way. Plain state, no behaviour."""

from typing import Literal

import msgspec

from oracle_hub.core.source import AccountReader

NEVER = 2**63 - 1

CONFIGURED = frozenset(
    {"name", "_http_url", "_ws_url", "_headers", "_secrets", "_transports", "_sources"}
    | {"_commitment", "_genesis_hash", "_silence_us", "_limits"}
)
"""What a Solana link has from the configuration; everything else of it is state."""

RequestKind = Literal["genesis", "snapshot", "probe"]


class Watch:
    """One account on one link: who reads it, its subscription, and what the link last saw of it."""

    __slots__ = (
        "attempts",
        "based",
        "data",
        "deaths",
        "heard_us",
        "probed",
        "pubkey",
        "readers",
        "request_id",
        "requested_us",
        "retry_us",
        "silence_us",
        "slot",
        "sources",
        "subscribed_us",
        "subscription",
        "suspect_us",
    )

    def __init__(self, pubkey: str, readers: tuple[AccountReader, ...], silence_us: int, now_us: int) -> None:
        self.pubkey = pubkey
        self.readers = readers
        self.sources = tuple(dict.fromkeys(reader.source for reader in readers))
        self.silence_us = silence_us
        self.request_id = 0
        """Id of the subscribe request that waits for its answer; 0 for none."""
        self.requested_us = now_us
        self.retry_us = NEVER
        """When to subscribe again after a refusal."""
        self.attempts = 0
        self.deaths = 0
        """Times that the subscription was found silent since the last notification."""
        self.subscription: int | None = None
        self.subscribed_us = NEVER
        self.heard_us = now_us
        """Last notification, or last snapshot that showed something new."""
        self.probed = False
        """The chain was asked about the present silence."""
        self.based = False
        """A state was seen since the subscription stands: from here on every change must be notified."""
        self.slot = -1
        self.data: bytes | None = None
        """The newest state seen; None before the first one, empty while the account does not exist."""
        self.suspect_us = NEVER
        """When a snapshot first showed a change that no notification told."""


class Request(msgspec.Struct, frozen=True):
    """An HTTP request under way, or waiting to be made again."""

    kind: RequestKind
    keys: tuple[str, ...]
    attempt: int
    made_us: int


class RpcLimits(msgspec.Struct, frozen=True):
    """Patience and bounds of a Solana link. The defaults respect the public endpoints' published limits."""

    keys_per_snapshot: int = 100
    """``getMultipleAccounts`` accepts at most 100 addresses on a stock node."""
    safety_snapshot_us: int = 15_000_000
    """Every account is read again this often, so that a missed notification heals."""
    transport_silence_us: int = 15_000_000
    """A websocket that says nothing at all for so long (slot notifications included) is dead."""
    silence_us: int = 20_000_000
    """An account without news for so long is looked up once, unless its source has a limit of its own."""
    probe_gap_us: int = 1_000_000
    """At most one look-up of silent accounts in this time, however many fall silent one after the other."""
    proof_us: int = 5_000_000
    """A change that a snapshot showed must be notified within this, or the subscription is dead."""
    reply_us: int = 15_000_000
    """A subscribe request must be answered within this."""
    first_retry_us: int = 500_000
    max_retry_us: int = 30_000_000
    refused_retry_us: int = 60_000_000
    """Wait after a refused key or a wrong cluster."""
    fetch_timeout_ms: int = 5_000
    deaths_before_reconnect: int = 3
