"""What may be told of a source, by its licence: the one wall between what the hub holds and what any door shows. Pure.

Everything that leaves the program with an input in it passes through here: batches on their way to subscribers
(:func:`told_batch`), decisions that a view is made of (:func:`told_decision`), inputs as they stand
(:func:`told_inputs`: ``explain``, the evidence of alerts), distances (:func:`told_ratio`), and texts of a source
(:func:`told_text`). A price beside its exact distance from another, shown one is that price, so distances are rounded
to whole basis points where either end is withheld. Behind the wall stay the journal and the digests in it.
"""

import re
from collections.abc import Sequence

import msgspec

from oracle_hub.core.catalog import Catalog, FeedSpec, Redistribute
from oracle_hub.core.hub import Batch, Decision, DecisionInput, Withheld
from oracle_hub.core.price import BPS_ONE
from oracle_hub.core.source import PriceUpdate

WITHHELD = "licence"
"""Why a price is not told, in the answers."""


def told_batch(batch: Batch, catalog: Catalog) -> Batch:
    """A batch as it may leave. The same one where every source may be told in full."""
    if not catalog.withheld:
        return batch
    return msgspec.structs.replace(
        batch, decisions=tuple(told_decision(decision, catalog) for decision in batch.decisions)
    )


def told_decision(decision: Decision, catalog: Catalog) -> Decision:
    """A decision as it may leave."""
    index = catalog.feed_index.get(decision.feed)
    if index is None or not catalog.withheld:
        return decision  # a feed that is no longer configured: its last word has no inputs
    return msgspec.structs.replace(
        decision, inputs=told_inputs(decision.inputs, catalog.feeds[index], decision.mantissa)
    )


def told_inputs(
    inputs: Sequence[DecisionInput], spec: FeedSpec, chosen: int | None = None
) -> tuple[DecisionInput, ...]:
    """Inputs of a feed, roles first, as they may leave.

    Distances are from ``chosen``, a mantissa that is told anyway; from the primary's where that is None.
    """
    if all(spec.shows(entry.source) for entry in inputs):
        return tuple(inputs)
    base, exact = chosen, True
    if base is None and inputs[0].held is not None:
        base, exact = inputs[0].held.mantissa, spec.shows(inputs[0].source)
    told = []
    for entry in inputs:
        held, shown = entry.held, spec.shows(entry.source)
        if held is None or (shown and exact):
            told.append(entry)
            continue
        apart_bps = None if base is None else whole_bps(held.mantissa, base)
        if shown:
            told.append(msgspec.structs.replace(entry, apart_bps=apart_bps))
        else:
            told.append(DecisionInput(entry.source, entry.role, entry.status, None, _without_price(held), apart_bps))
    return tuple(told)


def _without_price(held: PriceUpdate) -> Withheld:
    return Withheld(held.transport, held.publish_us, held.received_us, held.slot, held.verified, held.account)


def whole_bps(a: int, b: int) -> int:
    """Distance of two positive mantissas in basis points of the smaller, rounded half up."""
    smaller = min(a, b)
    return (2 * BPS_ONE * abs(a - b) + smaller) // (2 * smaller)


def told_ratio(mantissa: int, base: int, *, exact: bool) -> float:
    """How far a price is from another, as a signed part of that; to whole basis points unless ``exact``."""
    if exact:
        return (mantissa - base) / base
    return (2 * BPS_ONE * (mantissa - base) + base) // (2 * base) / BPS_ONE


_ORDER = (Redistribute.NO, Redistribute.CHOSEN, Redistribute.FULL)


def tightened(before: Catalog, after: Catalog) -> bool:
    """Whether a source may be told less of than before: what was told of it must not be told again."""
    now = _licences(after)
    return any(_ORDER.index(now.get(source, was)) < _ORDER.index(was) for source, was in _licences(before).items())


def _licences(catalog: Catalog) -> dict[str, Redistribute]:
    return {
        source: spec.redistribute.get(source, Redistribute.FULL) for spec in catalog.feeds for source in spec.sources
    }


_NUMBER = re.compile(r"\d[\d.,_]*")
_MAX_DIGITS = 3


def told_text(text: str) -> str:
    """What a source, or our decoder, says of a message whose price is withheld: every longer number is blanked.

    A code of three digits is left. A sentence may quote the price that it refuses, whatever its form.
    """

    def blank(found: re.Match[str]) -> str:
        digits = sum(character.isdigit() for character in found[0])
        return found[0] if digits <= _MAX_DIGITS else "…"

    return _NUMBER.sub(blank, text)
