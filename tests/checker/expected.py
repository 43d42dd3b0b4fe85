"""How a decision must look on the wire: the protocol's words once more, apart from the product's code."""

from collections.abc import Sequence
from typing import Any, TypeAlias

from tests.checker.records import HeldFeed
from tests.checker.truth import Decided, inputs_digest

Entry: TypeAlias = dict[str, Any]

PRICE_STATES = ("live", "degraded")


def shown(decided: Decided, at_us: int, max_age_us: int | None) -> tuple[str | None, int | None]:
    """Why the decision no longer holds at an instant (None: it holds), and until when it does."""
    until_us = decided.valid_until_us
    if until_us is not None and at_us >= until_us:
        return "lease_over", None
    if max_age_us is None or decided.price is None:
        return None, until_us
    too_old_us = decided.recency_us + max_age_us + 1
    if at_us >= too_old_us:
        return "max_age", None
    return None, too_old_us if until_us is None else min(until_us, too_old_us)


def held_feed(decided: Decided, at_us: int, max_age_us: int | None) -> HeldFeed:
    """What somebody who was told everything holds at an instant; what is over counts as none."""
    ended, until_us = shown(decided, at_us, max_age_us)
    if ended is not None:
        return HeldFeed("none", None, None)
    return HeldFeed(decided.state, decided.price, until_us)


def differences(entry: Entry, decided: Decided, at_us: int, max_age_us: int | None, *, full: bool) -> dict[str, Any]:
    """Keys of an entry that are not as they must be: key to [received, expected]."""
    ended, until_us = shown(decided, at_us, max_age_us)
    over = ended is not None
    wanted: Entry = {
        "feed": decided.feed,
        "state": "none" if over else decided.state,
        "price": None if over else decided.price,
        "expo": decided.expo,
        "conf": None if over else decided.conf,
        "source": None if over else decided.source,
        "rule": "R3" if over else decided.rule,
        "reason": ended or decided.reason,
        "publish_time_us": None if over else decided.publish_time_us,
        "decided_us": decided.decided_us,
        "valid_until_us": until_us,
    }
    found = {key: [entry.get(key, "absent"), value] for key, value in wanted.items() if entry.get(key, "") != value}
    if full and inputs_digest(entry.get("inputs")) != decided.inputs_digest:
        found["inputs"] = [entry.get("inputs"), "other inputs"]
    return found


def merge_differences(entry: Entry, decisions: Sequence[Decided], max_age_us: int | None) -> dict[str, Any]:
    """Keys that tell of a merged entry's past and are not as they must be. A price that was too old for the
    subscription when it was decided was none to it."""
    prices = [
        None if max_age_us is not None and one.decided_us - one.recency_us > max_age_us else one.price
        for one in decisions
    ]
    mantissas = [int(price) for price in prices if price is not None]
    wanted: Entry = {
        "n": len(decisions),
        "low": str(min(mantissas)) if mantissas else None,
        "high": str(max(mantissas)) if mantissas else None,
    }
    found = {key: [entry.get(key, "absent"), value] for key, value in wanted.items() if entry.get(key, "") != value}
    if None in prices and entry.get("was_none") is not True:
        found["was_none"] = [entry.get("was_none"), True]
    return found
