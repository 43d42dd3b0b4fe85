"""Sections of the configuration that are not about prices: alerts, charts, the emulator; and the ranges of numbers."""

from typing import Annotated, Literal

import msgspec

Positive = Annotated[int, msgspec.Meta(ge=1)]
Bps = Annotated[int, msgspec.Meta(ge=0, le=10_000)]
Port = Annotated[int, msgspec.Meta(ge=0, le=65_535)]


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class ChartsSection(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[charts]``: the process that keeps bars and opens doors for charts and price clients."""

    enabled: bool | None = None
    host: str = "127.0.0.1"
    port: Port = 8081
    database: str = "charts.sqlite"
    allowed_origins: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    retention_days: dict[str, Positive] = {}
    max_listeners: Positive = 1_000
    max_listeners_per_ip: Positive = 100
    max_rows: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 50_000
    max_reads: Positive = 256
    heartbeat_ms: Annotated[int, msgspec.Meta(ge=50, le=60_000)] = 1_000
    pyth_ids: dict[str, str] = {}
    hubs: tuple[str, ...] = ()


class Channel(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every channel for alerts has."""

    name: Annotated[str, msgspec.Meta(pattern="^[a-z0-9_-]{1,32}$")]
    url: str
    min_severity: Literal["warning", "critical"] = "warning"
    kinds: tuple[str, ...] = ()
    timeout_ms: Annotated[int, msgspec.Meta(ge=100, le=600_000)] = 10_000


class AlertmanagerSection(Channel, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[[alerts.alertmanager]]``: an Alertmanager that is told of alerts."""

    bearer: str | None = None
    resend_ms: Annotated[int, msgspec.Meta(ge=1_000, le=3_600_000)] = 60_000
    expire_ms: Annotated[int, msgspec.Meta(ge=10_000, le=86_400_000)] = 900_000
    hub_alive: bool = True


class WebhookSection(Channel, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[[alerts.webhook]]``: a URL that is sent signed JSON."""

    secret: str | None = None
    heartbeat_ms: Annotated[int, msgspec.Meta(ge=0, le=3_600_000)] = 0


class NotifySection(Channel, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[[alerts.notify]]``: a service for people, by the notification library."""

    timeout_ms: Annotated[int, msgspec.Meta(ge=100, le=600_000)] = 30_000


class AlertsSection(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[alerts]``: what operators are told of, and when."""

    critical_divergence_bps: Bps = 200
    leave_percent: Annotated[int, msgspec.Meta(ge=1, le=100)] = 60
    wide_conf_bps: Bps = 100
    velocity_bps: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 300
    critical_velocity_bps: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 1_000
    velocity_window_ms: Annotated[int, msgspec.Meta(ge=1_000, le=3_600_000)] = 60_000
    pegs: dict[str, str] = msgspec.field(default_factory=lambda: {"USDC/USD": "1", "USDT/USD": "1"})
    peg_bps: Bps = 50
    critical_peg_bps: Bps = 200
    parity_bps: Bps = 50
    chain_max_age_ms: Positive = 10_000
    decode_errors: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 10
    decode_window_ms: Positive = 60_000
    group_min: Annotated[int, msgspec.Meta(ge=2, le=1_000)] = 3
    storm_cap: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 20
    off: tuple[str, ...] = ()
    hold_on_ms: dict[str, Annotated[int, msgspec.Meta(ge=0, le=86_400_000)]] = {}
    hold_off_ms: dict[str, Annotated[int, msgspec.Meta(ge=0, le=86_400_000)]] = {}
    escalate_ms: dict[str, Annotated[int, msgspec.Meta(ge=0, le=86_400_000)]] = {}
    runbook_url: str = ""
    max_queued: Annotated[int, msgspec.Meta(ge=10, le=10_000)] = 1_000
    first_retry_ms: Annotated[int, msgspec.Meta(ge=10, le=60_000)] = 500
    max_retry_ms: Annotated[int, msgspec.Meta(ge=10, le=3_600_000)] = 60_000
    alertmanager: tuple[AlertmanagerSection, ...] = ()
    webhook: tuple[WebhookSection, ...] = ()
    notify: tuple[NotifySection, ...] = ()


class EmulatorSection(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[emulator]``: present only in simulations. Endpoints then come from the emulator, and everything is marked."""

    seed: int = 1
    tape: str | None = None
    manifest: str | None = None
    speed: Annotated[float, msgspec.Meta(gt=0, le=10_000)] = 1.0
    noise_bps: Annotated[float, msgspec.Meta(ge=0, le=1_000)] | None = None
    start: str | None = None
    loop: bool = False
    faults: str | None = None
    port: Port = 0
    prices: dict[str, str] = {}
    updates_per_s: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 1_200
