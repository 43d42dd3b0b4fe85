"""``limits = "onchain"``: the limits that an aggregate account publishes, followed while the hub runs.

They arrive in the very frames that hold its price, so they are in the journal, and a replay follows them too.
"""

from collections.abc import Iterable, Mapping

import msgspec

from feeds.custody import CustodyReader
from feeds.doves import AgPriceFeedReader
from oracle_hub.config import AGGREGATES, Config
from oracle_hub.core.catalog import FeedSpec
from oracle_hub.core.limits import PublishedLimits
from oracle_hub.core.source import AccountReader, PriceUpdate
from oracle_hub.core.ways import WaySpec

_SECOND_US = 1_000_000


def following(config: Config) -> frozenset[str]:
    """Sources whose published limits are followed."""
    return frozenset(name for name, source in config.sources.items() if source.limits == "onchain")


def publishers_of(config: Config, ways: Iterable[WaySpec]) -> Mapping[tuple[str, str], str]:
    """By source and transport, the ways that read accounts which publish limits that are followed.

    A source can be read by other ways beside; these publish none.
    """
    followed = following(config)
    return {
        (spec.source, spec.transport): spec.way for spec in ways if spec.source in followed and spec.kind in AGGREGATES
    }


def published(reader: AccountReader, update: PriceUpdate) -> PublishedLimits | None:
    """The limits of the account behind an update; None where it publishes none (an old oracle has no limits)."""
    assert isinstance(reader, CustodyReader | AgPriceFeedReader)  # the configuration was checked
    limits, legs = reader.limits_of(update.feed), reader.legs_of(update.feed)
    if limits is None:
        return None
    return PublishedLimits(
        source=update.source,
        account=update.account,
        slot=update.slot,
        since_us=update.received_us,
        max_age_s=limits.max_ag_price_age_sec,
        max_leg_age_s=limits.max_price_feed_age_sec,
        max_divergence_bps=limits.max_price_diff_bps,
        legs=tuple(leg for leg in msgspec.structs.astuple(legs) if leg is not None) if legs is not None else (),
    )


def limited(
    config: Config, spec: FeedSpec, addresses: dict[str, dict[str, str]], limits: Iterable[PublishedLimits]
) -> FeedSpec:
    """A feed under the limits that its aggregates publish.

    What is written for the feed itself stands, and so does an age that is written for a source that is a leg.

    Args:
        config: what is written.
        spec: the feed as the configuration has it.
        addresses: where each source reads each feed.
        limits: those in force for this feed; the first one's distance counts.
    """
    section = config.feeds[spec.feed]
    ages_us = dict(spec.max_age_us)
    bps: int | None = None
    chain_us: int | None = None
    for one in limits:
        if one.source not in section.max_age_ms:
            ages_us[one.source] = one.max_age_s * _SECOND_US
        for source in spec.sources:
            written = source in section.max_age_ms or config.sources[source].max_age_ms is not None
            if source != one.source and not written and addresses[source][spec.feed] in one.legs:
                ages_us[source] = one.max_leg_age_s * _SECOND_US
        bps = one.max_divergence_bps if bps is None else bps
        chain_us = one.max_age_s * _SECOND_US if chain_us is None else chain_us
    if bps is None or section.max_divergence_bps is not None:
        bps = spec.max_divergence_bps
    return msgspec.structs.replace(spec, max_age_us=ages_us, max_divergence_bps=bps, chain_max_age_us=chain_us)
