"""Thresholds and times of the alerts. Defaults here are those of ``[alerts]`` in the configuration. Pure."""

from collections.abc import Mapping

import msgspec

from oracle_hub.alerts.alert import KINDS, Kind, KindSpec


class AlertSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that can be tuned. Distances in basis points, times in microseconds."""

    critical_divergence_bps: int = 200
    """A pair further apart than this is critical at once; nearer ones when they last."""
    leave_percent: int = 60
    """What is wrong is over below this part of the threshold that it began at."""
    wide_conf_bps: int = 100
    """Confidence wider than this is told, for feeds without a limit of their own."""
    velocity_bps: int = 300
    critical_velocity_bps: int = 1_000
    velocity_window_us: int = 60_000_000
    pegs: Mapping[str, int] = {}
    """Peg of stable feeds, as a mantissa at the feed's exponent."""
    peg_bps: int = 50
    critical_peg_bps: int = 200
    parity_bps: int = 50
    aggregates: frozenset[str] = frozenset()
    """Sources that are the exchange's own aggregate."""
    chain_max_age_us: int = 10_000_000
    """The exchange executes with an aggregate no older than this."""
    decode_errors: int = 10
    """Unusable frames of one way to a source, within ``decode_window_us``."""
    decode_window_us: int = 60_000_000
    conflict_us: int = 10_000_000
    """For how long one conflict counts."""
    group_min: int = 3
    """So many alerts of one kind about the same sources are told as one."""
    storm_cap: int = 20
    """So many alerts are told one by one; what comes on top is one alert of its own."""
    off: frozenset[Kind] = frozenset()
    """Kinds that are not told."""
    hold_on_us: Mapping[Kind, int] = {}
    hold_off_us: Mapping[Kind, int] = {}
    escalate_us: Mapping[Kind, int] = {}

    def kind(self, kind: Kind) -> KindSpec:
        """How a kind behaves in time, with what is configured in place of the defaults."""
        spec = KINDS[kind]
        return msgspec.structs.replace(
            spec,
            hold_on_us=self.hold_on_us.get(kind, spec.hold_on_us),
            hold_off_us=self.hold_off_us.get(kind, spec.hold_off_us),
            escalate_us=self.escalate_us.get(kind, spec.escalate_us),
        )
