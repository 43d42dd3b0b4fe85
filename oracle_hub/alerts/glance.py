"""The quick look over columns: which of many feeds are so ordinary that no detector has anything to say. Pure.

What :meth:`oracle_hub.alerts.detectors.FeedWatch.calm` is for one feed. Both may call a calm feed not calm, which costs
time and nothing else; neither may do the opposite.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from oracle_hub.alerts.memory import Int64, Memory, Said
from oracle_hub.alerts.settings import AlertSettings
from oracle_hub.core.catalog import Catalog, FeedSpec
from oracle_hub.core.parity import chain_max_age_us
from oracle_hub.core.price import INT64_MAX
from oracle_hub.core.table import HEARD, HELD, VERIFIED, Table

NARROW = INT64_MAX // 100_000
"""Prices and confidences up to here (920,000 dollars at exponent -8) times any limit fit int64; others get no quick
look."""


class Glance:
    """Limits of a catalog and a configuration, in columns by the catalog's numbers of feeds."""

    def __init__(self, catalog: Catalog, settings: AlertSettings, memory: Memory) -> None:
        self.catalog, self.settings, self._memory = catalog, settings, memory
        specs = catalog.feeds
        n_sources = len(catalog.sources)

        def by_role(of_role: list[list[int]]) -> Int64:
            return np.array(of_role, np.int64).reshape(-1, 3).T

        self._rows = np.array([memory.row(spec.feed) for spec in specs], np.int64)
        self._seen_cells = by_role([[memory.cell(spec.feed, source) for source in spec.roles] for spec in specs])
        self._cells = by_role(
            [
                [index * n_sources + catalog.source_index[source] for source in spec.roles]
                for index, spec in enumerate(specs)
            ]
        )
        self._max_age_us = by_role(
            [
                [min(spec.max_age_us[source], _chain_max_age_us(settings, spec, source)) for source in spec.roles]
                for spec in specs
            ]
        )
        self._max_divergence_bps = np.array([spec.max_divergence_bps for spec in specs], np.int64)
        self._max_conf_bps = np.array([_max_conf_bps(settings, spec) for spec in specs], np.int64)
        self._pegs = np.array([settings.pegs.get(spec.feed, 0) for spec in specs], np.int64)
        self._references = [_References(catalog, settings, memory, n) for n in range(_most_references(catalog))]

    def follow(self, catalog: Catalog) -> list[str] | None:
        """Go by a catalog that differs in limits of a few feeds, as a hub has it after published ones changed.

        Returns:
            The feeds whose limits are others; None where it is another catalog: then nothing was done.
        """
        before = self.catalog
        if catalog is before:
            return []
        if catalog.feed_index is not before.feed_index:  # shared by those that differ in limits only
            return None
        self.catalog = catalog
        pairs = zip(before.feeds, catalog.feeds, strict=True)
        changed = [index for index, (was, spec) in enumerate(pairs) if spec is not was]
        for index in changed:
            self._limit(index, catalog.feeds[index])
        return [catalog.feeds[index].feed for index in changed]

    def _limit(self, index: int, spec: FeedSpec) -> None:
        settings = self.settings
        ages_us = [min(spec.max_age_us[one], _chain_max_age_us(settings, spec, one)) for one in spec.roles]
        self._max_age_us[:, index] = ages_us
        self._max_divergence_bps[index] = spec.max_divergence_bps
        self._max_conf_bps[index] = _max_conf_bps(settings, spec)
        for reference, source in zip(self._references, spec.references, strict=False):
            reference.limit(index, spec, source, settings)

    def calm(self, table: Table, feeds: Int64, now_us: int) -> npt.NDArray[np.bool_]:
        """Note what is held of feeds, and say of which there is nothing else to do.

        Args:
            table: of the same catalog.
            feeds: int64 (N,), numbers of feeds in the catalog, none of them twice; nothing blocks them, so those
                whose roles are all usable and near are live by R1.

        Returns:
            bool (N,). What is not calm is still to be looked at by itself; that it may have been noted changes nothing.
        """
        cells = self._cells.take(feeds, axis=1)
        said = _said(table, cells)
        mantissas, confs = said.mantissas, said.confs
        born_us = np.minimum(said.publish_us, said.received_us)
        fit = table.flag_column.take(cells) | VERIFIED == HELD | HEARD | VERIFIED
        fit &= now_us - born_us <= self._max_age_us.take(feeds, axis=1)
        fit &= np.maximum(mantissas, confs) <= NARROW
        fit &= confs * 20_000 <= mantissas * self._max_conf_bps.take(feeds)
        calm: npt.NDArray[np.bool_] = fit[0] & fit[1] & fit[2]
        price, second, third = mantissas
        low, high = np.minimum(np.minimum(price, second), third), np.maximum(np.maximum(price, second), third)
        calm &= (high - low) * 30_000 <= low * self._max_divergence_bps.take(feeds)
        if self.settings.pegs:
            pegs = self._pegs.take(feeds)
            calm &= (pegs == 0) | (np.abs(price - pegs) * 20_000 <= pegs * self.settings.peg_bps)
        for reference in self._references:
            calm &= reference.calm(table, feeds, price, self._max_conf_bps.take(feeds), now_us)
        if not calm.all():
            kept = calm.nonzero()[0]
            feeds, price, said = feeds[kept], price[kept], Said._make(column[:, kept] for column in said)
        rows = self._rows.take(feeds)
        self._memory.see_all(self._seen_cells.take(feeds, axis=1), said)
        for reference in self._references:
            reference.see(table, feeds)
        self._memory.move_all(rows, now_us, price)
        self._memory.told_all(rows, now_us)
        calm[calm] = self._memory.spans(rows) * 20_000 <= price * self.settings.velocity_bps
        return calm


class _References:
    """The ``n``-th reference of each feed that has so many.

    One is calm that nobody has told anything of, or that is as ordinary as a role must be, old or not, and near the
    price unless it is too old. One that comes up for the first time is looked at by itself.
    """

    def __init__(self, catalog: Catalog, settings: AlertSettings, memory: Memory, n: int) -> None:
        self._memory, self._parity_bps = memory, settings.parity_bps
        sources = [spec.references[n] if len(spec.references) > n else None for spec in catalog.feeds]
        self._there = np.array([source is not None for source in sources], np.bool_)

        def column(of: Callable[[FeedSpec, str], int]) -> Int64:
            pairs = zip(catalog.feeds, sources, strict=True)
            return np.array([0 if source is None else of(spec, source) for spec, source in pairs], np.int64)

        self._cells = column(
            lambda spec, source: catalog.feed_index[spec.feed] * len(catalog.sources) + catalog.source_index[source]
        )
        self._seen_cells = column(lambda spec, source: memory.cell(spec.feed, source))
        self._max_age_us = column(lambda spec, source: spec.max_age_us[source])
        self._chain_max_age_us = column(lambda spec, source: _chain_max_age_us(settings, spec, source))

    def limit(self, index: int, spec: FeedSpec, source: str, settings: AlertSettings) -> None:
        """One feed has other limits from now on."""
        self._max_age_us[index] = spec.max_age_us[source]
        self._chain_max_age_us[index] = _chain_max_age_us(settings, spec, source)

    def calm(self, table: Table, feeds: Int64, price: Int64, max_conf_bps: Int64, now_us: int) -> npt.NDArray[np.bool_]:
        """Bool (N,): whether there is nothing to say of it beside the chosen prices, int64 (N,) up to NARROW."""
        cells = self._cells.take(feeds)
        said, flags = _said(table, cells), table.flag_column.take(cells)
        known = self._memory.knows(self._seen_cells.take(feeds))
        age_us = now_us - np.minimum(said.publish_us, said.received_us)
        mantissas, confs = said.mantissas, said.confs
        fit = known & (flags | VERIFIED == HELD | HEARD | VERIFIED) & (age_us <= self._chain_max_age_us.take(feeds))
        fit &= np.maximum(mantissas, confs) <= NARROW
        fit &= confs * 20_000 <= mantissas * max_conf_bps
        # Written so that prices up to NARROW do not overflow; what is beyond it is not fit anyhow.
        apart = np.abs(np.minimum(mantissas, NARROW) - np.minimum(price, NARROW)) * 20_000
        near = apart <= np.minimum(mantissas, price) * self._parity_bps
        fit &= near | (age_us > self._max_age_us.take(feeds))
        absent = ~known & (flags == 0)
        calm: npt.NDArray[np.bool_] = fit | absent | ~self._there.take(feeds)
        return calm

    def see(self, table: Table, feeds: Int64) -> None:
        """Note what it says of feeds, int64 (N,), that are calm."""
        cells = self._cells.take(feeds)
        told = self._there.take(feeds) & (table.flag_column.take(cells) & HELD != 0)
        self._memory.see_all(self._seen_cells.take(feeds[told]), _said(table, cells[told]))


def _max_conf_bps(settings: AlertSettings, spec: FeedSpec) -> int:
    # Half of what is wide, as everywhere in a quick look; and all of what the rule accepts.
    return min(settings.wide_conf_bps, 2 * (spec.max_conf_bps or settings.wide_conf_bps))


def _chain_max_age_us(settings: AlertSettings, spec: FeedSpec, source: str) -> int:
    return chain_max_age_us(spec, settings.chain_max_age_us) if source in settings.aggregates else INT64_MAX


def _most_references(catalog: Catalog) -> int:
    return max((len(spec.references) for spec in catalog.feeds), default=0)


def _said(table: Table, cells: Int64) -> Said:
    return Said(
        table.mantissas.take(cells),
        table.publish_us_column.take(cells),
        table.received_us_column.take(cells),
        table.confs.take(cells),
    )
