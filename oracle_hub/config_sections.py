"""Sections of the configuration that are not about the choice of a price; and the ranges of numbers."""

from typing import Annotated, Literal

import msgspec

Positive = Annotated[int, msgspec.Meta(ge=1, le=10**12)]
"""As milliseconds 31 years, which as microseconds still fit the columns."""
Bps = Annotated[int, msgspec.Meta(ge=0, le=10_000)]
Port = Annotated[int, msgspec.Meta(ge=0, le=65_535)]


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class TokenSection(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[[server.tokens]]``: one API token, by the environment variable that holds it, and its own limits."""

    name: Annotated[str, msgspec.Meta(pattern="^[a-z0-9_-]{1,32}$")]
    token: str
    max_connections: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 1_000
    max_subscriptions: Annotated[int, msgspec.Meta(ge=1, le=4_096)] | None = None
    requests_per_second: Annotated[int, msgspec.Meta(ge=1, le=100_000)] | None = None
    request_burst: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] | None = None


class ServerSection(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[server]``: the stream and the HTTP views."""

    host: str = "127.0.0.1"
    port: Port = 8080
    heartbeat_ms: Annotated[int, msgspec.Meta(ge=50, le=500)] = 500
    allowed_origins: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    max_clients: Positive = 10_000
    max_clients_per_ip: Positive = 2_000
    handshake_timeout_ms: Positive = 5_000
    subscribe_timeout_ms: Positive = 30_000
    max_message_bytes: Annotated[int, msgspec.Meta(ge=1_024, le=16_777_216)] = 65_536
    max_subscriptions: Annotated[int, msgspec.Meta(ge=1, le=4_096)] = 64
    max_feeds: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 4_096
    max_metric_feeds: Annotated[int, msgspec.Meta(ge=0, le=100_000)] = 256
    requests_per_second: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 20
    request_burst: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 100
    conflate_above_bytes: Annotated[int, msgspec.Meta(ge=512, le=1_048_576)] = 4_096
    max_unsent_bytes: Annotated[int, msgspec.Meta(ge=16_384, le=268_435_456)] | None = None
    max_unsent_age_ms: Positive = 10_000
    max_unanswered_bytes: Annotated[int, msgspec.Meta(ge=0, le=268_435_456)] = 65_536
    history_batches: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 8_192
    history_mib: Annotated[int, msgspec.Meta(ge=1, le=4_096)] = 32
    history_age_ms: Annotated[int, msgspec.Meta(ge=1_000, le=3_600_000)] = 120_000
    tls_certificate: str | None = None
    tls_key: str | None = None
    require_token: bool = False
    tokens: tuple[TokenSection, ...] = ()
    workers: Annotated[int, msgspec.Meta(ge=0, le=64)] = 0


class JournalSection(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[journal]``: truth on disk."""

    mode: Literal["best_effort", "required", "off"] = "best_effort"
    max_segment_mib: Positive = 64
    retention_hours: Positive = 72
    disk_budget_mib: Positive = 10_240
    buffer_limit_mib: Positive = 16
    sync_interval_ms: Positive = 200


class StateSection(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[state]``: where instance, epoch and journal live. Relative to the working directory."""

    directory: str = "var"


class RpcSection(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[[solana.rpc]]``: one endpoint. URLs may be ``env:NAME``, since they often hold a key."""

    name: Annotated[str, msgspec.Meta(pattern="^[a-z0-9_-]{1,32}$")]
    http_url: str
    ws_url: str


class SolanaSection(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[solana]``: the cluster, and several ways to it at once."""

    cluster: Literal["mainnet-beta", "devnet", "testnet", "custom"] = "mainnet-beta"
    genesis_hash: str | None = None
    commitment: Literal["processed", "confirmed", "finalized"] = "confirmed"
    snapshot_interval_ms: Positive = 15_000
    silence_ms: Positive = 15_000
    rpc: tuple[RpcSection, ...] = ()


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
    port: Annotated[int, msgspec.Meta(ge=0, le=65_523)] = 0
    prices: dict[str, str] = {}
    updates_per_s: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 1_200
