"""What is decided, and from what: feeds, their exponents, roles and limits. Immutable; a reload makes a new one."""

from collections.abc import Iterable, Mapping
from copy import copy
from enum import StrEnum
from itertools import chain, repeat

import msgspec
import numpy as np

from oracle_hub.core.price import BPS_ONE
from oracle_hub.core.selector import BIT_A_BARRED, BIT_B_BARRED, Policy
from oracle_hub.core.stall import StallRule
from oracle_hub.errors import ConfigError


class Redistribute(StrEnum):
    """What a source's licence lets leave the hub."""

    NO = "no"
    """It may verify. Its price is never chosen and never shown."""
    CHOSEN = "chosen"
    """Its price leaves as the chosen price, and is not shown beside one."""
    FULL = "full"
    """Everything."""


class Proof(StrEnum):
    """What a checked signature counts for, of a source that is read in more than one way."""

    PREFERRED = "preferred"
    """An unverified update never replaces a verified one."""
    DEMANDED = "demanded"
    """An unverified update is never taken at all: some way to the source proves its updates, so nothing else counts."""
    EQUIVALENT = "equivalent"
    """Verified and unverified updates count alike."""


class FeedSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One feed: who is asked, and how far answers may be apart and how old."""

    feed: str
    """Name, as in ``SOL/USD``."""
    expo: int = -8
    """Canonical exponent: every price of this feed is ``mantissa * 10**expo``."""
    primary: str
    verifiers: tuple[str, str]
    """In order of preference: a tie in recency goes to the first."""
    references: tuple[str, ...] = ()
    """Compared and shown, never chosen."""
    policy: Policy = Policy.STRICT
    max_divergence_bps: int = 50
    """At most this far apart, inclusive, relative to the smaller price. 0 to 10,000."""
    max_conf_bps: int = 0
    """A source whose confidence interval is wider than this part of its price is ``uncertain``. 0: no limit."""
    max_age_us: Mapping[str, int]
    """Per source: older than this is ``stale``. Every source of the feed has an entry."""
    chain_max_age_us: int | None = None
    """How old an aggregate the exchange executes with may be, as the aggregate publishes it; None: not known."""
    redistribute: Mapping[str, Redistribute] = {}
    """Per source, what may leave of it; a source without an entry is ``full``. A primary is never ``no``."""

    @property
    def barred(self) -> int:
        """Verifiers that may not be chosen, as :func:`oracle_hub.core.selector.select` takes them."""
        first, second = (self.redistribute.get(source) is Redistribute.NO for source in self.verifiers)
        return (BIT_A_BARRED if first else 0) | (BIT_B_BARRED if second else 0)

    def shows(self, source: str) -> bool:
        """Whether a source's price may be told as an input."""
        return self.redistribute.get(source, Redistribute.FULL) is Redistribute.FULL

    @property
    def roles(self) -> tuple[str, str, str]:
        """Primary, first verifier, second verifier."""
        return (self.primary, *self.verifiers)

    @property
    def sources(self) -> tuple[str, ...]:
        """Roles, then references."""
        return self.roles + self.references


class Catalog:
    """Feeds in a fixed order, and the sources that they name.

    Raises:
        ConfigError: a feed named twice, a source in two roles, a limit out of range, an age missing.
    """

    def __init__(
        self,
        feeds: Iterable[FeedSpec],
        *,
        max_future_us: int = 2_000_000,
        stall: StallRule | None = None,
        proof: Mapping[str, Proof] | None = None,
    ) -> None:
        self.feeds: tuple[FeedSpec, ...] = tuple(feeds)
        self.max_future_us = max_future_us
        """A publish time further ahead of our clock than this is not believed."""
        self.stall = stall or StallRule()
        """When a source is proven to stand still."""
        self.proof: dict[str, Proof] = dict(proof or {})
        """By source; ``PREFERRED`` where absent."""
        self.feed_index: dict[str, int] = {spec.feed: index for index, spec in enumerate(self.feeds)}
        names = dict.fromkeys(source for spec in self.feeds for source in spec.sources)
        self.sources: tuple[str, ...] = tuple(names)
        self.source_index: dict[str, int] = {source: index for index, source in enumerate(self.sources)}
        if len(self.feed_index) != len(self.feeds):
            raise ConfigError("feeds: a feed is named twice")
        for spec in self.feeds:
            _check(spec)
        self.withheld: frozenset[str] = frozenset(
            source for spec in self.feeds for source in spec.sources if not spec.shows(source)
        )
        """Sources whose prices may not be told as inputs."""
        self._layout: Layout | None = None

    @property
    def layout(self) -> "Layout":
        """The places of its cells. Made when it is asked for first: for thousands of feeds not while prices wait."""
        if self._layout is None:
            self._layout = Layout(self)
        return self._layout

    def with_limits(self, spec: FeedSpec) -> "Catalog":
        """The same catalog with one feed under other limits.

        Raises:
            ConfigError: a limit out of range, or another exponent or other sources than the feed has.
        """
        index = self.feed_index[spec.feed]
        before = self.feeds[index]
        if (spec.expo, spec.roles, spec.references) != (before.expo, before.roles, before.references):
            raise ConfigError(f"feeds.{spec.feed}: other limits cannot come with other roles or another exponent")
        _check(spec)
        changed = copy(self)
        feeds = list(self.feeds)
        feeds[index] = spec
        changed.feeds = tuple(feeds)
        changed._layout = None
        return changed


_ROLES = ("primary", "verifier", "verifier")


class Layout:
    """All that tables and hubs of one catalog have in common: places, and what is known of each. Nobody changes it.

    Cells are feed-major: cell = feed_index * n_sources + source_index.
    """

    def __init__(self, catalog: Catalog) -> None:
        n_sources = len(catalog.sources)
        self.n_cells = max(1, n_sources * len(catalog.feeds))
        self.cells: dict[tuple[str, str], int] = {}
        """By source and feed."""
        self.by_feed: list[tuple[int, ...]] = []
        """The cells of each feed's sources, roles first."""
        self.inputs: list[tuple[tuple[str, str, int], ...]] = []
        """Per feed: source, role and cell, roles first."""
        self.peers: list[tuple[int, int] | None] = [None] * self.n_cells
        """Per cell of a role, the cells of the two others in their order. None: a reference, never judged."""
        self.max_age_us = np.zeros(self.n_cells, np.int64)
        """int64 (n_cells,): 0 where the source has no part in the feed."""
        self.demanded: list[bool] = [False] * self.n_cells
        """Per cell, whether only verified updates are taken."""
        self.equivalent: list[bool] = [False] * self.n_cells
        """And whether verified and unverified ones count alike."""
        self.barred = [spec.barred for spec in catalog.feeds]
        """Per feed, its barred verifiers."""
        proofs = {source: catalog.proof.get(source, Proof.PREFERRED) for source in catalog.sources}
        for index, spec in enumerate(catalog.feeds):
            sources = spec.sources
            places = tuple(index * n_sources + catalog.source_index[source] for source in sources)
            for source, cell in zip(sources, places, strict=True):
                self.cells[source, spec.feed] = cell
                self.max_age_us[cell] = spec.max_age_us[source]
                self.demanded[cell] = proofs[source] is Proof.DEMANDED
                self.equivalent[cell] = proofs[source] is Proof.EQUIVALENT
            self.by_feed.append(places)
            self.inputs.append(tuple(zip(sources, chain(_ROLES, repeat("reference")), places, strict=False)))
            a, b, c = places[:3]
            self.peers[a], self.peers[b], self.peers[c] = (b, c), (a, c), (a, b)
        self.role_cells = np.array([places[:3] for places in self.by_feed], np.int64).reshape(-1, 3).T
        """int64 (3, n_feeds): the cells of the roles."""


def _check(spec: FeedSpec) -> None:
    where = f"feeds.{spec.feed}"
    if len(set(spec.sources)) != len(spec.sources):
        raise ConfigError(f"{where}: a source stands in two roles ({', '.join(spec.sources)})")
    if not 0 <= spec.max_divergence_bps <= BPS_ONE:
        raise ConfigError(f"{where}.max_divergence_bps: {spec.max_divergence_bps} is not within 0 to {BPS_ONE}")
    if not 0 <= spec.max_conf_bps <= BPS_ONE:
        raise ConfigError(f"{where}.max_conf_bps: {spec.max_conf_bps} is not within 0 to {BPS_ONE}")
    if not -18 <= spec.expo <= 0:
        raise ConfigError(f"{where}.expo: {spec.expo} is not within -18 to 0")
    if spec.redistribute.get(spec.primary) is Redistribute.NO:
        raise ConfigError(
            f'{where}.primary: the licence of {spec.primary} forbids that its price leaves (redistribute = "no"): it '
            f'may verify; or write redistribute = "chosen" in [sources.{spec.primary}] if your licence allows it'
        )
    for source in spec.sources:
        if spec.max_age_us.get(source, 0) <= 0:
            raise ConfigError(f"{where}: source {source} has no positive max_age")
