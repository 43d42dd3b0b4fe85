"""Addresses of accounts that others replaced, read as what a source of their kind reads today.

A configuration written before the exchange's change of oracles names price accounts. Where its source is of a kind
that is read from something else by now, the known successor is read, and that is said (:mod:`oracle_hub.app.legacy`).
It follows from the configuration alone, so a replay maps as the run did.
"""

from feeds.addresses import asset_of

_SUCCESSORS: dict[str, tuple[str, frozenset[str]]] = {
    "doves.custody": ("custody", frozenset({"edge", "ag", "mint"})),
    "doves.pool": ("mint", frozenset({"edge", "ag", "custody"})),
    "doves.aggregate": ("ag", frozenset({"edge", "custody", "mint"})),
}
"""Per kind of source, which account of an asset it is read from, and which others are taken for it."""


def successor_of(kind: str, feed: str, address: str) -> str | None:
    """What a source of a kind reads instead of an address; None where it is read as it is written.

    An account of another feed's asset is never taken for this feed's: it is left, and refused when it is read.
    """
    successor = _SUCCESSORS.get(kind)
    known = asset_of(address) if successor is not None else None
    if successor is None or known is None:
        return None
    asset, role = known
    field, taken = successor
    return str(getattr(asset, field)) if asset.feed == feed and role in taken else None
