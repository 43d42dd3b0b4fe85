"""What all readers of price accounts share: from an account's bytes to one event, whatever the bytes are."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, TypeAlias

from oracle_hub.core.price import INT64_MAX, rescale, rescale_conf
from oracle_hub.core.source import Account, Condition, Event, Malformed, PriceUpdate, Rewatch, Status
from oracle_hub.errors import ConfigError, DecodeError, PriceError

CANONICAL_EXPO = -8
"""Exponent of a feed for which the catalogue gives none."""
SECOND_US = 1_000_000
MILLISECOND_US = 1_000

Observation: TypeAlias = tuple[int, int, int, int | None]
"""As on the wire: price, exponent, unix time (in seconds unless the reader says else), confidence (None where the
layout has none)."""


class Refused(Exception):
    """An account that is laid out well and holds no price to be used: with the condition that says why."""

    def __init__(self, condition: Condition, text: str) -> None:
        super().__init__(text)
        self.condition = condition


def normalise(
    source: str,
    feed: str,
    expo: int,
    observation: Observation,
    account: Account,
    transport: str,
    received_us: int,
    tick_us: int = SECOND_US,
) -> PriceUpdate:
    """One observation at the feed's canonical exponent ``expo``, whatever exponent it came with.

    ``tick_us`` is the unit of the observation's timestamp.

    Raises:
        Refused: no positive price, never updated, or beyond what int64 holds.
    """
    price, from_expo, timestamp, conf = observation
    if timestamp == 0:
        raise Refused(Condition.INVALID, f"{account.pubkey}: timestamp is 0: the account was never updated")
    if not 0 < timestamp <= INT64_MAX // tick_us:
        unit = "seconds" if tick_us == SECOND_US else "milliseconds"
        raise Refused(Condition.INVALID, f"{account.pubkey}: timestamp {timestamp} is no unix time in {unit}")
    try:
        mantissa = rescale(price, from_expo, expo)
        half_width = None if conf is None else rescale_conf(conf, from_expo, expo)
    except PriceError as error:
        raise Refused(Condition.INVALID, f"{account.pubkey}: {error}") from None
    return PriceUpdate(
        source,
        transport,
        feed,
        mantissa,
        timestamp * tick_us,
        received_us,
        half_width,
        account.slot,
        False,
        account.pubkey,
    )


class PriceAccountReader(ABC):
    """One price account for each feed. Subclasses say how an account of theirs is read.

    Args:
        source: the name under which its updates go.
        accounts: address by feed.
        expos: canonical exponent by feed; -8 where absent.

    Raises:
        ConfigError: two feeds name the same account.
    """

    KIND: ClassVar[str]
    OWNERS: ClassVar[frozenset[str]]
    TICK_US: ClassVar[int] = SECOND_US
    """The unit of the layout's timestamp: :data:`SECOND_US` or :data:`MILLISECOND_US`."""
    CONFIGURED: ClassVar[frozenset[str]] = frozenset({"source", "_address", "_bound", "_accounts"})

    def __init__(self, source: str, accounts: Mapping[str, str], expos: Mapping[str, int] | None = None) -> None:
        self.source = source
        self._address = dict(accounts)
        self._bound: dict[str, tuple[str, int]] = {}
        for feed, address in accounts.items():
            if address in self._bound:
                raise ConfigError(
                    f"source {source}: {self._bound[address][0]} and {feed} name the same account {address}"
                )
            self._bound[address] = (feed, (expos or {}).get(feed, CANONICAL_EXPO))
        self._accounts = frozenset(self._bound)

    def accounts(self) -> frozenset[str]:
        """The addresses to watch. They never change."""
        return self._accounts

    def read(self, account: Account, transport: str, received_us: int) -> Sequence[Event | Rewatch]:
        """One event for a state of one of the accounts; nothing for an account that is not ours."""
        bound = self._bound.get(account.pubkey)
        if bound is None:
            return ()
        feed, expo = bound
        try:
            if account.owner not in self.OWNERS:
                raise foreign_owner(self.KIND, account, self.OWNERS)
            observation = self._observe(feed, account)
            update = normalise(self.source, feed, expo, observation, account, transport, received_us, self.TICK_US)
            return (update,)
        except DecodeError as error:
            return (Malformed(self.source, transport, feed, f"{account.pubkey}: {error}", received_us),)
        except Refused as refused:
            return (Status(self.source, transport, feed, refused.condition, str(refused), received_us),)

    def missing(self, pubkey: str, slot: int, transport: str, received_us: int) -> Sequence[Event | Rewatch]:
        """Say that a feed's account does not exist."""
        bound = self._bound.get(pubkey)
        if bound is None:
            return ()
        return (missing_account(self.source, bound[0], self.KIND, pubkey, slot, transport, received_us),)

    def describe(self, feed: str) -> dict[str, object]:
        """Which account a feed is read from, for ``explain``, and whether the address is the one that rules derive.

        Raises:
            KeyError: no such feed here.
        """
        address = self._address[feed]
        derived = self._derived(feed)
        return {"account": address, "kind": self.KIND, "derived": derived, "matches_derived": address in derived}

    @abstractmethod
    def _observe(self, feed: str, account: Account) -> Observation:
        """Read the account. Raises DecodeError for bytes that are none of the layout, Refused for no price."""

    @abstractmethod
    def _derived(self, feed: str) -> list[str]:
        """Addresses that a rule or the table of known assets gives for the feed; empty when nothing is known."""


def foreign_owner(kind: str, account: Account, owners: frozenset[str]) -> DecodeError:
    """The error for an account of another program: whoever owns an account writes what they like into it."""
    return DecodeError(f"{kind}: owner: expected {' or '.join(sorted(owners))}, found {account.owner}")


def missing_account(
    source: str, feed: str, kind: str, pubkey: str, slot: int, transport: str, received_us: int
) -> Status:
    """The status for an account that does not exist."""
    text = f"{kind} account {pubkey} does not exist at slot {slot}: check address and cluster"
    return Status(source, transport, feed, Condition.MISSING_ACCOUNT, text, received_us)
