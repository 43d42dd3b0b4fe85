"""What one Solana link knows of one account and of the requests that are under way. Plain state, no behaviour."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any, Literal

import msgspec

from oracle_hub.core.source import AccountReader
from oracle_hub.ingest.backoff import retry_us

NEVER = 2**63 - 1

CONFIGURED = frozenset(
    {"name", "_http_url", "_ws_url", "_headers", "_secrets", "_transports", "_sources"}
    | {"_commitment", "_genesis_hash", "_limits"}
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
        self.read_by(readers)
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

    def read_by(self, readers: tuple[AccountReader, ...]) -> None:
        """From now on it is of these readers."""
        self.readers = readers
        # Nearly always one: thousands are made at each connect.
        self.sources = (readers[0].source,) if len(readers) == 1 else tuple({one.source: None for one in readers})


def wanted_by(readers: Iterable[AccountReader], only: Collection[str] | None) -> dict[str, tuple[AccountReader, ...]]:
    """Who wants which account; of all, or of some addresses."""
    wanted: dict[str, tuple[AccountReader, ...]] = {}
    for reader in readers:
        accounts, alone = reader.accounts(), (reader,)  # one for all of them: it is nearly always so
        for pubkey in accounts if only is None else (pubkey for pubkey in only if pubkey in accounts):
            wanted[pubkey] = (*wanted[pubkey], reader) if pubkey in wanted else alone
    return wanted


def gone(watches: Mapping[str, Watch], wanted: Collection[str], only: Collection[str] | None) -> list[str]:
    """What is watched and no longer wanted, in the order in which it came; of all, or of some addresses."""
    if only is not None and sum(pubkey in watches and pubkey not in wanted for pubkey in only) < 2:
        return [pubkey for pubkey in only if pubkey in watches and pubkey not in wanted]
    return [pubkey for pubkey in watches if pubkey not in wanted and (only is None or pubkey in only)]


WATCHED = frozenset({"_watches", "_by_subscription", "_by_request"})
"""State of a link that is tables of watches: thousands of objects, each in two or three of them."""
FIELDS = tuple(sorted(Watch.__slots__))
_row = attrgetter(*FIELDS)
_Rows = dict[str, list[Any]]


def taken_apart(state: Mapping[str, Any]) -> tuple[dict[str, Any], _Rows]:
    """A link's state without its tables of watches, and these as rows: a copy that takes a microsecond for a watch.

    Returns:
        What is left, and rows by name. ``watches``: the values of :data:`FIELDS`. ``subscriptions``, ``requests``:
        number and address.
    """
    watches, subscriptions, requests = (state[name] for name in ("_watches", "_by_subscription", "_by_request"))
    rows: _Rows = {
        "watches": list(map(_row, watches.values())),
        "subscriptions": [(number, watch.pubkey) for number, watch in subscriptions.items()],
        "requests": [(number, watch.pubkey) for number, watch in requests.items()],
    }
    return {name: value for name, value in state.items() if name not in WATCHED}, rows


def put_together(
    fields: Sequence[str], rows: Mapping[str, Sequence[Sequence[Any]]], readers: Mapping[str, AccountReader]
) -> dict[str, Any]:
    """The opposite: the tables of watches. In the rows readers are by name.

    Raises:
        ValueError: a watch holds other things today.
        KeyError: an address or a reader that nobody has.
    """
    if tuple(fields) != FIELDS:
        raise ValueError(f"Watch holds other things: {', '.join(sorted(set(fields) ^ set(FIELDS)))}")
    watches: dict[str, Watch] = {}
    for row in rows["watches"]:
        watch = Watch.__new__(Watch)
        for name, value in zip(FIELDS, row, strict=True):
            setattr(watch, name, value)
        watch.readers, watch.sources = tuple(readers[name] for name in row[_READERS]), tuple(row[_SOURCES])
        watches[watch.pubkey] = watch
    return {
        "_watches": watches,
        "_by_subscription": {number: watches[pubkey] for number, pubkey in rows["subscriptions"]},
        "_by_request": {number: watches[pubkey] for number, pubkey in rows["requests"]},
    }


_READERS, _SOURCES = FIELDS.index("readers"), FIELDS.index("sources")


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
    """An account without news for so long is looked up once."""
    probe_gap_us: int = 1_000_000
    """At most one look-up of silent accounts in this time, however many fall silent one after the other."""
    proof_us: int = 5_000_000
    """A change that a snapshot showed must be notified within this, or the subscription is dead."""
    reply_us: int = 15_000_000
    """A subscribe request must be answered within this."""
    first_retry_us: int = 500_000
    down_retry_us: int = 5_000_000
    """At most, while HTTP does not answer: an endpoint that comes back is to be used again within seconds."""
    max_retry_us: int = 30_000_000
    """At most, while it answers and refuses."""
    refused_retry_us: int = 60_000_000
    """Wait after a refused key or a wrong cluster."""
    fetch_timeout_ms: int = 5_000
    deaths_before_reconnect: int = 3
    left_subscriptions: int = 1_024
    """So many that were given up are remembered at least, since news of them may be on its way."""

    def request_retry_us(self, attempt: int, down: bool) -> int:
        """How long to wait before a request is made again; ``attempt`` failures were before this one."""
        return retry_us(attempt, self.first_retry_us, self.down_retry_us if down else self.max_retry_us)

    def remembered(self, left: set[int], n_watches: int) -> set[int]:
        """Of subscriptions that were given up the last ones, as many as there are accounts, once they are twice that.

        Nodes number subscriptions upwards.
        """
        bound = max(self.left_subscriptions, n_watches)
        return left if len(left) <= 2 * bound else set(sorted(left)[-bound:])


def restless(watches: Iterable[Watch], now_us: int) -> list[Watch]:
    """Those for which a watchdog may have something to do at ``now_us``: of thousands, few."""
    return [
        watch
        for watch in watches
        if watch.request_id
        or watch.suspect_us != NEVER
        or watch.retry_us <= now_us
        or (now_us >= watch.heard_us + watch.silence_us and not watch.probed)
    ]


def next_check(watches: Iterable[Watch], limits: RpcLimits, probe_ready_us: int) -> int:
    """The earliest instant at which a watchdog of one of these has something to do; silent ones are looked up from
    ``probe_ready_us`` on."""
    quiet_us, due_us = NEVER, NEVER
    for watch in watches:
        if not watch.probed and watch.heard_us + watch.silence_us < quiet_us:
            quiet_us = watch.heard_us + watch.silence_us
        if watch.retry_us < due_us:
            due_us = watch.retry_us
        if watch.request_id:
            due_us = min(due_us, watch.requested_us + limits.reply_us)
        if watch.suspect_us != NEVER:
            due_us = min(due_us, watch.suspect_us + limits.proof_us)
    return min(due_us, max(quiet_us, probe_ready_us))
