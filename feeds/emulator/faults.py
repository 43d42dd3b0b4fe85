"""Scripted faults: what goes wrong, where, when, and for how long. Values only; who is hit acts on them."""

import tomllib
from collections.abc import Collection, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import msgspec

from feeds.emulator.oracles import select_oracles
from oracle_hub.errors import ConfigError, in_words

Kind: TypeAlias = Literal[
    "stall",
    "kill",
    "spike",
    "carry",
    "wide",
    "future",
    "fork",
    "custody",
    "wipe",
    "freeze",
    "limits",
    "disconnect",
    "silent",
    "half_open",
    "slow",
    "rate_limit",
    "malformed",
    "impostor",
    "cluster",
    "forged",
    "unauthorized",
    "not_entitled",
]
ONE_SHOT: dict[str, int] = {"future": 1, "fork": 1, "malformed": 1}
"""Faults that strike a number of times and are over, with the number that they have by default."""


class Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One fault. What a selector leaves out is hit as a whole: no feed means every feed.

    ========================  =================================================================================
    stall, kill               matching oracles publish nothing (kill has no end unless it is given one)
    spike                     prices are multiplied by ``times``, or moved by ``bps``
    carry                     matching oracles go on telling the value that they held, under new times
    wide                      confidence intervals of matching oracles are ``bps`` of the price
    future                    the next ``count`` updates of each matching oracle are stamped ``offset_s`` ahead
    fork                      the state before the held one is told again, at a slot that differs by ``slots``
    custody                   the custody's ``dovesAgOracle`` is unset (``mode="unset"``), set (``"set"``), not there
                              at all, as in accounts from before it was added (``"short"``), or names the feed's
                              second aggregate, at another address (``"next"``)
    wipe                      matching accounts (or ``account``) do not exist, or (``mode="blank"``) exist and never
                              had a price
    freeze                    matching accounts stay as they are, while their oracles go on elsewhere
    limits                    aggregates publish other limits: ``max_age_s``, ``max_leg_age_s``, ``max_diff_bps``
    disconnect                open sockets are closed; new ones are refused for the duration
    silent                    subscriptions to matching accounts (or feeds of a stream) tell nothing, others go on;
                              ``mode="once"``: only those that stood when it began, so that a new one works
    half_open                 sockets accept, and say nothing at all
    slow                      answers over HTTP come ``delay_ms`` late
    rate_limit                ``mode="http"``: HTTP 429; ``mode="rpc"``: JSON-RPC error -32005 under HTTP 200
    malformed                 the next ``count`` frames are broken (``mode``: ``json``, ``base64``, ``account``)
    impostor                  accounts are told under a foreign owner (``mode="owner"``), or begin as another kind of
                              account does (``"discriminator"``); their prices are doubled
    cluster                   an RPC is on another cluster: its own genesis hash, the same addresses, doubled prices;
                              ``mode="websocket"``: only its websocket is
    forged                    updates of Hermes and Pyth Pro are signed by strangers (``mode="signers"``), changed after
                              they were signed (``"price"``), not signed at all (``"unsigned"``), or those that were
                              told when this began, over and over (``"old"``)
    unauthorized              Hermes, Edge, Data Streams and Pyth Pro answer 401
    not_entitled              Hermes answers 403 for the feed, Edge leaves it out, Pyth Pro ignores it by name
    ========================  =================================================================================
    """

    kind: Kind
    source: str | None = None
    """An oracle (``doves.edge``, ``pyth.hermes``) or a group of them (``doves``, ``chainlink``, ``pyth``)."""
    feed: str | None = None
    endpoint: str | None = None
    """A server by its name: ``a``, ``b``, ``hermes-1``, ``hermes-2``."""
    account: str | None = None
    at_s: Annotated[float, msgspec.Meta(ge=0)] | None = None
    """Seconds after the emulator's start; absent: now."""
    duration_s: Annotated[float, msgspec.Meta(gt=0)] | None = None
    """Absent: until cleared. One-shot faults need none."""
    bps: int = 0
    times: str | None = None
    """A decimal number as text, exact: ``"1.5"``."""
    offset_s: int = 3_600
    slots: int = -2
    delay_ms: Annotated[int, msgspec.Meta(ge=0, le=600_000)] = 3_000
    retry_after_s: Annotated[int, msgspec.Meta(ge=0, le=3_600)] = 1
    count: Annotated[int, msgspec.Meta(ge=1, le=1_000)] | None = None
    mode: str | None = None
    max_age_s: Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)] = 10
    max_leg_age_s: Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)] = 60
    max_diff_bps: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] = 50


_MODES: dict[str, tuple[str, ...]] = {
    "custody": ("unset", "set", "short", "next"),
    "wipe": ("blank",),
    "silent": ("once",),
    "rate_limit": ("http", "rpc"),
    "malformed": ("json", "base64", "account"),
    "impostor": ("owner", "discriminator"),
    "cluster": ("websocket",),
    "forged": ("signers", "price", "unsigned", "old"),
}


def check_fault(fault: Fault) -> Fault:
    """The fault, if it makes sense.

    Raises:
        ConfigError: an unknown source or mode, or a number that is none.
    """
    select_oracles(fault.source)
    modes = _MODES.get(fault.kind, ())
    if fault.mode is not None and fault.mode not in modes:
        known = ", ".join(modes) or "none"
        raise ConfigError(f"fault {fault.kind}: mode {fault.mode!r} is unknown here; known: {known}")
    if fault.kind == "disconnect" and (fault.source or fault.feed or fault.account):
        raise ConfigError("fault disconnect: cuts servers, not oracles or feeds; select by endpoint")
    if fault.kind == "wide" and fault.bps <= 0:
        raise ConfigError("fault wide: widens nothing; give bps")
    if fault.kind == "spike":
        try:
            factor = spike_factor(fault)
        except (ValueError, ZeroDivisionError):
            raise ConfigError(f"fault spike: times {fault.times!r} is no decimal number") from None
        if factor <= 0:
            raise ConfigError("fault spike: times and bps must leave a positive price")
        if factor == 1:
            raise ConfigError("fault spike: moves no price; give bps, or times")
    return fault


def check_target(fault: Fault, feeds: Collection[str], endpoints: Collection[str]) -> None:
    """Look whether there is anything that the fault can hit.

    Raises:
        ConfigError: a feed or an endpoint that is not simulated.
    """
    for what, named, known in (("feed", fault.feed, feeds), ("endpoint", fault.endpoint, endpoints)):
        if named is not None and named not in known:
            raise ConfigError(f"fault {fault.kind}: no {what} {named!r} is simulated; there are {', '.join(known)}")


def spike_factor(fault: Fault) -> Fraction:
    """By what a spike multiplies a price, exactly. Raises ValueError for a ``times`` that is no number."""
    return Fraction(fault.times or 1) * Fraction(10_000 + fault.bps, 10_000)


def load_script(path: Path) -> tuple[Fault, ...]:
    """Read a script of faults: TOML with one ``[[fault]]`` table for each.

    Raises:
        ConfigError: one line that names the file and what is wrong.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: not a script of faults: {in_words(error)}") from None
    unknown = sorted(set(raw) - {"fault"})
    if unknown:
        raise ConfigError(f"{path}: unknown key {unknown[0]}; a script has [[fault]] tables only")
    return parse_faults(raw.get("fault", []), origin=str(path))


def parse_faults(raw: object, *, origin: str) -> tuple[Fault, ...]:
    """Validate a list of faults in plain values. Raises ConfigError as :func:`load_script` does."""
    try:
        return tuple(check_fault(fault) for fault in msgspec.convert(raw, list[Fault]))
    except msgspec.ValidationError as error:
        raise ConfigError(f"{origin}: {error}") from None


class ActiveFault:
    """A fault with its place in time, and how often it struck."""

    __slots__ = ("end_us", "fault", "number", "oracles", "start_us", "strikes")

    def __init__(self, number: int, fault: Fault, start_us: int) -> None:
        self.number = number
        self.fault = fault
        self.start_us = start_us
        self.end_us = None if fault.duration_s is None else start_us + round(fault.duration_s * 1_000_000)
        self.oracles = frozenset(select_oracles(fault.source))
        self.strikes: dict[object, int] = {}

    def active(self, now_us: int) -> bool:
        """Whether it holds now: from its start, to just before its end."""
        return self.start_us <= now_us and (self.end_us is None or now_us < self.end_us)

    def hits(self, oracle: str | None, feed: str | None, account: str | None = None) -> bool:
        """Whether its selectors cover a thing. An account selector covers that account alone."""
        if self.fault.account is not None:
            return account == self.fault.account
        if oracle is None and self.fault.source is not None:
            return False
        if oracle is not None and oracle not in self.oracles:
            return False
        return self.fault.feed is None or feed == self.fault.feed

    def hits_endpoint(self, endpoint: str) -> bool:
        """Whether it covers a server."""
        return self.fault.endpoint is None or self.fault.endpoint == endpoint

    def strike(self, target: object) -> bool:
        """Count one hit of a one-shot fault on a target; False when its count is used up for that target."""
        limit = self.fault.count or ONE_SHOT[self.fault.kind]
        struck = self.strikes.get(target, 0)
        if struck >= limit:
            return False
        self.strikes[target] = struck + 1
        return True

    def describe(self, now_us: int) -> dict[str, object]:
        """The fault for the control page."""
        plain: dict[str, object] = msgspec.to_builtins(self.fault)
        state = "active" if self.active(now_us) else "waiting" if now_us < self.start_us else "over"
        return {"id": self.number, "state": state, "start_us": self.start_us, "end_us": self.end_us} | plain


class FaultBook:
    """All faults of a run, in the order in which they were injected."""

    MAX_FAULTS = 10_000

    def __init__(self, start_us: int) -> None:
        self._start_us = start_us
        self._last = 0
        self._faults: dict[int, ActiveFault] = {}

    def add(self, fault: Fault, now_us: int) -> ActiveFault:
        """Enter a fault: at its ``at_s`` after the start, else now. Raises ConfigError for a senseless one."""
        check_fault(fault)
        self._forget(now_us)
        if len(self._faults) >= self.MAX_FAULTS:
            raise ConfigError(f"emulator: {self.MAX_FAULTS} faults are waiting or active already; clear some")
        at_us = now_us if fault.at_s is None else self._start_us + round(fault.at_s * 1_000_000)
        self._last += 1
        active = ActiveFault(self._last, fault, at_us)
        self._faults[self._last] = active
        return active

    def _forget(self, now_us: int) -> None:
        for number in [n for n, f in self._faults.items() if f.end_us is not None and f.end_us < now_us - 60_000_000]:
            del self._faults[number]

    def remove(self, number: int | None = None) -> int:
        """Take out one fault, or all; how many were taken out."""
        if number is None:
            count = len(self._faults)
            self._faults.clear()
            return count
        return int(self._faults.pop(number, None) is not None)

    def active(self, now_us: int, *kinds: Kind) -> list[ActiveFault]:
        """Faults of these kinds that hold now."""
        return [one for one in self._faults.values() if one.fault.kind in kinds and one.active(now_us)]

    def shift(self, by_us: int) -> None:
        """Move all of them in time, with a clock that was stepped."""
        self._start_us += by_us
        for one in self._faults.values():
            one.start_us += by_us
            one.end_us = None if one.end_us is None else one.end_us + by_us

    def edges(self) -> list[int]:
        """Instants at which a fault begins or ends."""
        return [edge for one in self._faults.values() for edge in (one.start_us, one.end_us) if edge is not None]

    def __iter__(self) -> Iterator[ActiveFault]:
        return iter(tuple(self._faults.values()))
