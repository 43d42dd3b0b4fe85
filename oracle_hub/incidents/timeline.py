"""From a script to the events that a hub gets, in order of arrival. Pure; the same script, the same events."""

from bisect import bisect_right
from collections.abc import Iterator
from decimal import Decimal

import msgspec

from oracle_hub.core.catalog import FeedSpec, Proof
from oracle_hub.core.price import INT64_MAX
from oracle_hub.core.source import Condition, Event, PriceUpdate, Status
from oracle_hub.incidents.script import ROLES, Fault, Feed, Point, Script, Series, decimal

_ONE = Decimal(1)


class Arrival(msgspec.Struct, frozen=True):
    """One event, and when it comes."""

    at_us: int
    order: tuple[int, int, int]
    """Feed, role, number: for events of one instant."""
    event: Event


def value_at(points: tuple[Point, ...], shape: str, at_s: Decimal) -> tuple[Decimal, Decimal | None]:
    """Price and confidence of a series of points at an instant; after the last one that one stays."""
    index = bisect_right(points, at_s, key=lambda point: Decimal(str(point.at_s)))
    before = points[max(0, index - 1)]
    after = points[index] if index < len(points) else None
    conf = None if before.conf is None else decimal(before.conf)
    price = decimal(before.price)
    if after is None or shape == "step":
        return price, conf
    begin, end = Decimal(str(before.at_s)), Decimal(str(after.at_s))
    return price + (decimal(after.price) - price) * (at_s - begin) / (end - begin), conf


def mantissa_of(price: Decimal, expo: int) -> int:
    """At a feed's exponent, rounded half to even; possibly 0, or beyond int64."""
    return int(price.scaleb(-expo).to_integral_value())


def truth_at(feed: Feed, expo: int, at_us: int) -> int:
    """What was true so many microseconds after the start, as a mantissa."""
    return mantissa_of(value_at(feed.truth, feed.truth_shape, Decimal(at_us) / 1_000_000)[0], expo)


def arrivals(script: Script, specs: dict[str, FeedSpec]) -> list[Arrival]:
    """Everything that the three roles of every feed say by all of their ways, in order.

    Args:
        script: the incident.
        specs: per feed of the script, who plays which role, and the exponent.
    """
    found: list[Arrival] = []
    for feed_number, (name, feed) in enumerate(script.feeds.items()):
        for one in feed.series:
            role = ROLES.index(one.role)
            for number, (at_us, event) in enumerate(_series(script, specs[name], feed, one)):
                found.append(Arrival(at_us, (feed_number, role, number), event))
    return sorted(found, key=lambda one: (one.at_us, one.order))


def proofs(script: Script, specs: dict[str, FeedSpec]) -> dict[str, Proof]:
    """What a signature counts for, by source: demanded where one of several ways proves, as in a hub by default."""
    found: dict[str, Proof] = {}
    for name, feed in script.feeds.items():
        for role, source in zip(ROLES, specs[name].roles, strict=True):
            ways = [one for one in feed.series if one.role == role]
            if any(one.proves for one in ways):
                found[source] = Proof.DEMANDED if len(ways) > 1 else Proof.PREFERRED
    return found


def _series(script: Script, spec: FeedSpec, feed: Feed, one: Series) -> Iterator[tuple[int, Event]]:
    role = ROLES.index(one.role)
    source = spec.roles[role]
    transport = f"{source}/{one.way}:1" if one.way else f"{source}:1"
    carried: int | None = None
    for number, at_us in enumerate(_instants(script, one)):
        at_s = Decimal(at_us) / 1_000_000
        active = [fault for fault in one.faults if _within(fault, at_us)]
        kinds = {fault.kind for fault in active}
        if "silent" in kinds:
            continue
        publish_us, received_us = script.start_us + at_us, script.start_us + at_us + one.lag_ms * 1_000
        for fault in active:
            publish_us += round(fault.by_s * 1e6) if fault.kind == "ahead" else 0
            received_us += round(fault.by_s * 1e6) if fault.kind == "delay" else 0
        price, conf = value_at(one.points, one.shape, at_s) if one.points else (None, None)
        if price is None:
            price, _ = value_at(feed.truth, feed.truth_shape, at_s)
        mantissa = mantissa_of(_bent(price * (_ONE + _noise(one, role, number)), active), spec.expo)
        if "carry" in kinds and carried is not None:
            mantissa = carried
        carried = mantissa
        if not 0 < mantissa <= INT64_MAX:
            # Decoders refuse it before the table can: the source says that what it has is no price.
            yield received_us, Status(source, transport, spec.feed, Condition.INVALID, "no price", received_us)
            continue
        if conf is None and one.conf_bps is not None:
            conf = price * one.conf_bps / 10_000
        width = None if conf is None else mantissa_of(conf, spec.expo)
        yield (
            received_us,
            PriceUpdate(source, transport, spec.feed, mantissa, publish_us, received_us, width, verified=one.proves),
        )


def _instants(script: Script, one: Series) -> Iterator[int]:
    """When a series publishes, in microseconds since the start."""
    if one.only_points:
        yield from (round(point.at_s * 1e6) for point in one.points)
        return
    for number in range(1 + (round(script.duration_s * 1_000) - one.phase_ms - 1) // one.cadence_ms):
        yield (one.phase_ms + number * one.cadence_ms) * 1_000


def _within(fault: Fault, at_us: int) -> bool:
    return any(round(begin * 1e6) <= at_us < round(end * 1e6) for begin, end in fault.windows)


def _noise(one: Series, role: int, number: int) -> Decimal:
    """Offset and constructed wobble, as a part of the price."""
    reach = one.wobble_bps * 100
    steps = (number * 7_919 + role * 104_729) % (2 * reach + 1) - reach
    return (Decimal(one.offset_bps) * 100 + steps) / 1_000_000


def _bent(price: Decimal, active: list[Fault]) -> Decimal:
    for fault in active:
        match fault.kind:
            case "scale":
                price *= decimal(fault.factor)
            case "floor":
                price = max(price, decimal(fault.value))
            case "cap":
                price = min(price, decimal(fault.value))
            case "zero":
                price = Decimal(0)
            case _:
                pass
    return price
