"""The quick look over columns: which of many feeds are so ordinary that no detector has anything to say. Pure.

What :meth:`oracle_hub.alerts.detectors.FeedWatch.calm` is for one feed. Both may call a calm feed not calm, which costs
time and nothing else; neither may do the opposite.
"""

import numpy as np
import numpy.typing as npt

from oracle_hub.alerts.memory import Int64, Memory, Said
from oracle_hub.alerts.settings import AlertSettings
from oracle_hub.core.catalog import Catalog
from oracle_hub.core.price import INT64_MAX
from oracle_hub.core.table import HEARD, HELD, VERIFIED, Table

NARROW = INT64_MAX // 100_000
"""Prices and confidences up to here (920,000 dollars at exponent -8) times any limit fit int64; others get no quick
look."""


class Glance:
    """Limits of a catalog and a configuration, in columns by the catalog's numbers of feeds.

    A feed with references gets no quick look: of those there is more to say than the three roles show.
    """

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
                [
                    min(
                        spec.max_age_us[source],
                        settings.chain_max_age_us if source in settings.aggregates else INT64_MAX,
                    )
                    for source in spec.roles
                ]
                for spec in specs
            ]
        )
        self._max_divergence_bps = np.array([spec.max_divergence_bps for spec in specs], np.int64)
        # Half of what is wide, as everywhere in a quick look; and all of what the rule accepts.
        self._max_conf_bps = np.array(
            [min(settings.wide_conf_bps, 2 * (spec.max_conf_bps or settings.wide_conf_bps)) for spec in specs], np.int64
        )
        self._pegs = np.array([settings.pegs.get(spec.feed, 0) for spec in specs], np.int64)
        self._plain = np.array([not spec.references for spec in specs], np.bool_)

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
        said = Said(
            table.mantissas.take(cells),
            table.publish_us_column.take(cells),
            table.received_us_column.take(cells),
            table.confs.take(cells),
        )
        mantissas, confs = said.mantissas, said.confs
        born_us = np.minimum(said.publish_us, said.received_us)
        fit = table.flag_column.take(cells) | VERIFIED == HELD | HEARD | VERIFIED
        fit &= now_us - born_us <= self._max_age_us.take(feeds, axis=1)
        fit &= np.maximum(mantissas, confs) <= NARROW
        fit &= confs * 20_000 <= mantissas * self._max_conf_bps.take(feeds)
        calm: npt.NDArray[np.bool_] = fit[0] & fit[1] & fit[2] & self._plain.take(feeds)
        price, second, third = mantissas
        low, high = np.minimum(np.minimum(price, second), third), np.maximum(np.maximum(price, second), third)
        calm &= (high - low) * 30_000 <= low * self._max_divergence_bps.take(feeds)
        if self.settings.pegs:
            pegs = self._pegs.take(feeds)
            calm &= (pegs == 0) | (np.abs(price - pegs) * 20_000 <= pegs * self.settings.peg_bps)
        if not calm.all():
            kept = calm.nonzero()[0]
            feeds, price, said = feeds[kept], price[kept], Said._make(column[:, kept] for column in said)
        rows = self._rows.take(feeds)
        self._memory.see_all(self._seen_cells.take(feeds, axis=1), said)
        self._memory.move_all(rows, now_us, price)
        self._memory.told_all(rows, now_us)
        calm[calm] = self._memory.spans(rows) * 20_000 <= price * self.settings.velocity_bps
        return calm
