"""From the configuration to the settings of the alert engine."""

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation

from oracle_hub.alerts.alert import Kind
from oracle_hub.alerts.settings import AlertSettings
from oracle_hub.app.parity import aggregates_of
from oracle_hub.config import Config
from oracle_hub.errors import ConfigError


def alert_settings(config: Config) -> AlertSettings:
    """What ``[alerts]`` says, with pegs at the exponents of their feeds.

    Raises:
        ConfigError: an unknown kind of alert, or a peg that is no positive decimal number.
    """
    section = config.alerts
    return AlertSettings(
        critical_divergence_bps=section.critical_divergence_bps,
        leave_percent=section.leave_percent,
        wide_conf_bps=section.wide_conf_bps,
        velocity_bps=section.velocity_bps,
        critical_velocity_bps=section.critical_velocity_bps,
        velocity_window_us=section.velocity_window_ms * 1_000,
        pegs={
            feed: _mantissa(text, config.feeds[feed].expo, feed)
            for feed, text in section.pegs.items()
            if feed in config.feeds
        },
        peg_bps=section.peg_bps,
        critical_peg_bps=section.critical_peg_bps,
        parity_bps=section.parity_bps,
        aggregates=frozenset(aggregates_of(config)),
        chain_max_age_us=section.chain_max_age_ms * 1_000,
        decode_errors=section.decode_errors,
        decode_window_us=section.decode_window_ms * 1_000,
        group_min=section.group_min,
        storm_cap=section.storm_cap,
        off=frozenset(_kind(name, "off") for name in section.off),
        hold_on_us=_times(section.hold_on_ms, "hold_on_ms"),
        hold_off_us=_times(section.hold_off_ms, "hold_off_ms"),
        escalate_us=_times(section.escalate_ms, "escalate_ms"),
    )


def _times(given: Mapping[str, int], key: str) -> dict[Kind, int]:
    return {_kind(name, key): value * 1_000 for name, value in given.items()}


def _kind(name: str, key: str) -> Kind:
    try:
        return Kind(name)
    except ValueError:
        raise ConfigError(f"alerts.{key}: {name} is no kind of alert; known: {', '.join(Kind)}") from None


def _mantissa(text: str, expo: int, feed: str) -> int:
    try:
        scaled = Decimal(text).scaleb(-expo)
    except InvalidOperation:
        scaled = Decimal(0)
    if not scaled.is_finite() or not 0 < scaled < 2**63 or scaled != scaled.to_integral_value():
        raise ConfigError(f"alerts.pegs.{feed}: {text} is no positive number with at most {-expo} decimals")
    return int(scaled)
