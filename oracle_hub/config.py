"""Configuration: TOML, validated, unknown keys refused with the nearest known one, secrets by reference only.

Every key has its default here, and its description in ``docs/configuration.md``; a test compares the two.
A secret is written as ``"env:NAME"`` and read from the environment when it is used, so neither a config, nor its hash,
nor the journal that keeps its text ever holds one.
"""

import difflib
import re
import tomllib
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import msgspec

from oracle_hub.config_checks import check_channels, check_endpoints, check_server
from oracle_hub.config_errors import explained
from oracle_hub.config_secrets import refuse_literal_key
from oracle_hub.config_sections import (
    AlertmanagerSection,
    AlertsSection,
    Bps,
    ChartsSection,
    EmulatorSection,
    JournalSection,
    NotifySection,
    Positive,
    RpcSection,
    ServerSection,
    SolanaSection,
    StateSection,
    TokenSection,
    WebhookSection,
)
from oracle_hub.core.catalog import Redistribute
from oracle_hub.core.selector import Policy
from oracle_hub.errors import ConfigError, in_words
from oracle_hub.hosts import is_pattern


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class HubSection(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[hub]``: the rule."""

    policy: Policy = Policy.STRICT
    max_divergence_bps: Bps = 50
    max_conf_bps: Bps = 0
    max_future_ms: Annotated[int, msgspec.Meta(ge=0, le=60_000)] = 2_000
    max_clock_skew_ms: Annotated[int, msgspec.Meta(ge=1, le=60_000)] = 2_000
    stall_after_ms: Annotated[int, msgspec.Meta(ge=0, le=86_400_000)] = 60_000
    stall_bps: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 20
    warmup_ms: Annotated[int, msgspec.Meta(ge=0, le=600_000)] = 10_000


class Kind(NamedTuple):
    """What is known of a kind of source."""

    max_age_ms: int
    """Where the configuration gives none: heartbeat plus margin for slow push accounts."""
    slow_push: bool = False
    """Written seldom, by heartbeat or deviation: a verifier, never a primary."""


KINDS: dict[str, Kind] = {
    "doves.custody": Kind(10_000),
    "doves.pool": Kind(10_000),
    "doves.aggregate": Kind(10_000),
    "doves.edge": Kind(5_000),
    "doves.chainlink": Kind(5_000),
    "doves.lazer": Kind(5_000),
    "chainlink.store": Kind(3_660_000, slow_push=True),
    "pyth.receiver": Kind(90_000, slow_push=True),
    "pyth.legacy": Kind(5_000),
    "pyth.hermes": Kind(5_000),
    "pyth.pro": Kind(5_000),
    "edge.rest": Kind(5_000),
    "chainlink.streams": Kind(5_000),
    "redstone": Kind(60_000, slow_push=True),
    "chainlink.evm": Kind(3_660_000, slow_push=True),
}
"""Kinds of sources, as ``sources.kind`` names them."""

LICENCES: dict[str, Redistribute] = {
    "chainlink.streams": Redistribute.NO,
    "pyth.hermes": Redistribute.CHOSEN,
    "pyth.pro": Redistribute.CHOSEN,
}
"""Per kind of source, what its terms let leave where ``redistribute`` is not written; ``full`` for all others."""


AGGREGATES = ("doves.custody", "doves.pool", "doves.aggregate")
"""Kinds of sources that are the exchange's own aggregate."""


class TrustedSet(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Keys that sign together, as :class:`feeds.signers.SignerSet` has them, in hex."""

    kind: str
    group: str
    index: int
    keys: tuple[str, ...]
    quorum: int
    from_s: int
    until_s: int | None
    proved: bool


class _ReadSection(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How something is read: the kind of account or stream, and what that kind wants."""

    kind: str
    max_age_ms: Positive | None = None
    pool: str | None = None
    receiver: Literal["old", "new"] = "new"
    hosts: tuple[str, ...] = ()
    api_key: str | None = None
    verify: Literal["strict", "lenient", "off"] = "strict"
    signers: Annotated[str, msgspec.Meta(min_length=1, max_length=4_096)] | None = None
    rotations: tuple[str, ...] = ()
    signer_keys: tuple[
        Annotated[str, msgspec.Meta(pattern="^(0x)?(0[23][0-9a-fA-F]{64}|[0-9a-fA-F]{64}|[0-9a-fA-F]{40})$")], ...
    ] = ()
    signer_quorum: Positive | None = None
    trusted: tuple[TrustedSet, ...] = ()
    """Written by the hub: whose signatures count, by key. In effective configurations only."""
    api_secret: str | None = None
    rest_url: str | None = None
    origins: tuple[Annotated[str, msgspec.Meta(pattern="^[0-9A-Za-z_-]{1,16}$")], ...] = ()
    channel: Literal["real_time", "fixed_rate@50ms", "fixed_rate@200ms", "fixed_rate@1000ms"] = "fixed_rate@200ms"
    envelope: Literal["solana", "leEcdsa", "evm"] = "solana"
    chain_id: Positive | None = None
    sequencer: str | None = None
    sequencer_grace_ms: Annotated[int, msgspec.Meta(ge=0, le=86_400_000)] = 3_600_000
    check_ms: Annotated[int, msgspec.Meta(ge=1_000, le=3_600_000)] = 60_000
    silence_ms: Annotated[int, msgspec.Meta(ge=1_000, le=600_000)] = 8_000
    backfill_blocks: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 1_000

    @property
    def age_ms(self) -> int:
        """Max age in ms: configured, else the default of the kind."""
        return self.max_age_ms if self.max_age_ms is not None else KINDS[self.kind].max_age_ms


class WaySection(_ReadSection, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[sources.NAME.ways.WAY]``: a further way to the source, of the same or another kind."""

    accounts: dict[str, str] = {}


class SourceSection(_ReadSection, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[sources.NAME]``: one source, by the kind of account or stream it is read from first, and its further ways."""

    ways: dict[str, WaySection] = {}
    equivalent: bool = False
    limits: Literal["configured", "onchain"] = "configured"
    redistribute: Redistribute | None = None


class RolesSection(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[roles]``: who is primary, who verifies, who is only compared; for every feed that says nothing else."""

    primary: str | None = None
    verifiers: tuple[str, ...] = ()
    references: tuple[str, ...] = ()


class FeedSection(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[feeds."SOL/USD"]``: one feed. What is absent comes from ``[hub]``, ``[roles]`` and the known assets."""

    expo: Annotated[int, msgspec.Meta(ge=-18, le=0)] = -8
    primary: str | None = None
    verifiers: tuple[str, ...] | None = None
    references: tuple[str, ...] | None = None
    policy: Policy | None = None
    max_divergence_bps: Bps | None = None
    max_conf_bps: Bps | None = None
    max_age_ms: dict[str, Positive] = {}
    accounts: dict[str, str] = {}


class Config(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole configuration file."""

    sources: dict[str, SourceSection]
    feeds: dict[str, FeedSection]
    hub: HubSection = HubSection()
    server: ServerSection = ServerSection()
    journal: JournalSection = JournalSection()
    state: StateSection = StateSection()
    solana: SolanaSection = SolanaSection()
    roles: RolesSection = RolesSection()
    alerts: AlertsSection = AlertsSection()
    charts: ChartsSection = ChartsSection()
    emulator: EmulatorSection | None = None


def canonical_text(config: Config) -> str:
    """The effective configuration as JSON: what the journal keeps and the hash is taken of.

    Feeds stay in their order, which is the order of decisions in a batch.
    """
    return msgspec.json.encode(config).decode()


def config_hash(config: Config) -> str:
    """First 16 hex digits of the SHA-256 of the canonical text: published with every batch."""
    return text_hash(canonical_text(config))


def text_hash(text: str) -> str:
    """The hash of a canonical text."""
    return sha256(text.encode()).hexdigest()[:16]


def parse_canonical(text: str) -> Config:
    """Read back what :func:`canonical_text` wrote. Raises ConfigError for anything else."""
    try:
        raw = msgspec.json.decode(text, type=dict[str, Any])
        for source in raw.get("sources", {}).values():
            source.setdefault("verify", "off")  # whoever wrote it without this key took prices as they were told
        return msgspec.convert(raw, Config)
    except (msgspec.MsgspecError, AttributeError) as error:
        raise ConfigError(f"journaled configuration: {error}") from None


def load_config(path: Path, *, base: str = "") -> Config:
    """Read and validate a configuration file.

    ``base`` is another configuration, of whose sections a file is made whole that names no source and no feed: for a
    process that needs none. Without it such a file is refused.

    Raises:
        ConfigError: one line that names the file, the key, and what it accepts.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES + 1)
        if len(data) > _MAX_FILE_BYTES:
            raise ConfigError(f"{path}: larger than {_MAX_FILE_BYTES >> 20} MiB: this is no configuration")
        text = data.decode("utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({in_words(error)})") from None
    return parse_config(text, origin=str(path), base=base)


_MAX_FILE_BYTES = 64 << 20
"""Ten thousand feeds take two. What is larger is another file, which is not to be taken into memory."""


def parse_config(text: str, *, origin: str, base: str = "") -> Config:
    """Validate the text of a configuration. Raises ConfigError as :func:`load_config` does."""
    try:
        raw = tomllib.loads(text.removeprefix("\ufeff"))  # the mark that editors of Windows put first
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{origin}: not TOML: {error}") from None
    if not raw:
        raise ConfigError(f"{origin}: is empty; begin with a file of deploy/, or see docs/configuration.md")
    if base and not raw.keys() & {"sources", "feeds"}:
        raw = {**tomllib.loads(base), **raw}
    _refuse_controls(raw, origin)
    config = convert(raw, origin)
    _check(config, origin)
    return config


def _refuse_controls(raw: Any, where: str, *, separator: str = ": ") -> None:
    """No name, path or address holds a control character, and the system's calls take some of them amiss."""
    if isinstance(raw, str) and any(character < " " or character == "\x7f" for character in raw):
        raise ConfigError(f"{where}: holds a control character; take it out")
    for key, value in raw.items() if isinstance(raw, dict) else enumerate(raw) if isinstance(raw, list) else ():
        _refuse_controls(key, where)
        _refuse_controls(value, f"{where}{separator}{key}", separator=".")


def convert(raw: dict[str, Any], origin: str | None = None) -> Config:
    """Tables as TOML gives them to a configuration; only shapes, types and ranges are looked at.

    Raises:
        ConfigError: one line with the key, down to which entry of a table, and what it accepts.
    """
    try:
        return msgspec.convert(raw, Config)
    except msgspec.ValidationError as error:
        refusal = explained(raw, Config, str(error), _known_keys)
        raise ConfigError(f"{origin}: {refusal}" if origin else refusal) from None


_SECTIONS: dict[str, type[msgspec.Struct]] = {
    "": Config,
    "hub": HubSection,
    "server": ServerSection,
    "server.tokens": TokenSection,
    "journal": JournalSection,
    "state": StateSection,
    "solana": SolanaSection,
    "solana.rpc": RpcSection,
    "sources": SourceSection,
    "sources.ways": WaySection,
    "roles": RolesSection,
    "feeds": FeedSection,
    "alerts": AlertsSection,
    "alerts.alertmanager": AlertmanagerSection,
    "alerts.webhook": WebhookSection,
    "alerts.notify": NotifySection,
    "charts": ChartsSection,
    "emulator": EmulatorSection,
}


def _known_keys(path: str) -> list[str]:
    section = _SECTIONS.get(re.sub(r"\[.*?\]", "", path), Config)
    return [field.name for field in msgspec.structs.fields(section)]


def documented_keys() -> list[str]:
    """Every key as ``section.key``, for the test that compares them with the documentation.

    A way has the keys of its source, which are described once.
    """
    shared = {field.name for field in msgspec.structs.fields(_ReadSection)}
    return [
        f"{name}.{field.name}" if name else field.name
        for name, section in _SECTIONS.items()
        for field in msgspec.structs.fields(section)
        if (name or field.name not in _SECTIONS) and not (name == "sources.ways" and field.name in shared)
    ]


class Way(msgspec.Struct, frozen=True):
    """One way in which a source is read: the keys of its own table, or a further one beside them."""

    source: str
    way: str
    """Empty for the first one."""
    section: SourceSection
    accounts: dict[str, str] = {}
    """Addresses by feed, of a further way; those of the first one stand with the feeds."""

    @property
    def name(self) -> str:
        """Unique among all ways: ``chainlink``, ``chainlink.doves``."""
        return f"{self.source}.{self.way}" if self.way else self.source

    @property
    def key(self) -> str:
        """Where it stands in the file, below ``sources``."""
        return f"{self.source}.ways.{self.way}" if self.way else self.source


def ways_of(config: Config) -> dict[str, Way]:
    """Every way to every source, by its name, the first one of each source before its further ones."""
    found: dict[str, Way] = {}
    for name, source in config.sources.items():
        found[name] = Way(name, "", source)
        for way, section in source.ways.items():
            keys = {field.name: getattr(section, field.name) for field in msgspec.structs.fields(_ReadSection)}
            found[f"{name}.{way}"] = Way(name, way, SourceSection(**keys), section.accounts)
    return found


def _check(config: Config, origin: str) -> None:
    if not config.sources:
        raise ConfigError(f"{origin}: sources: none given; add [sources.NAME] tables, or begin with a file of deploy/")
    if not config.feeds:
        raise ConfigError(f'{origin}: feeds: none given; add a [feeds."SOL/USD"] table')
    for way in ways_of(config).values():
        name, source = way.key, way.section
        if source.kind not in KINDS:
            nearest = difflib.get_close_matches(source.kind, KINDS, n=1, cutoff=0.4)
            hint = f"did you mean {nearest[0]}?" if nearest else f"known: {', '.join(KINDS)}"
            raise ConfigError(f"{origin}: sources.{name}.kind: unknown kind {source.kind}; {hint}")
        if source.api_key is not None and not source.api_key.startswith("env:"):
            raise ConfigError(f'{origin}: sources.{name}.api_key: write "env:NAME" and put the key in the environment')
        _check_signers(name, source, origin)
        kinds = {source.kind, *(one.kind for one in source.ways.values())}
        if source.limits == "onchain" and not kinds & set(AGGREGATES):
            raise ConfigError(f"{origin}: sources.{name}.limits: only {', '.join(AGGREGATES)} publish limits")
    _check_ways(config, origin)
    check_server(config.server, origin)
    check_host_names(config, origin)
    check_endpoints(config.solana, origin)
    _check_hosts(config, origin)
    _check_feeds(config, origin)
    check_channels(config.alerts, origin)


def _check_signers(name: str, source: SourceSection, origin: str) -> None:
    """Keys of the right form for the kind, and what the kind cannot do without."""
    key = f"{origin}: sources.{name}"
    if source.trusted:
        raise ConfigError(f"{key}.trusted: written by the hub; name the signers as signers, or give signer_keys")
    streams = source.kind == "chainlink.streams"
    digits = {"chainlink.streams": 40, "edge.rest": 66, "pyth.pro": 64 if source.envelope == "solana" else 40}.get(
        source.kind
    )
    if source.signer_keys and (digits is None or source.signers is not None):
        raise ConfigError(f"{key}.signer_keys: for edge.rest, chainlink.streams and pyth.pro, and in place of signers")
    if source.kind == "chainlink.evm" and source.chain_id is None:
        raise ConfigError(f"{key}.chain_id: write what the chain answers to eth_chainId: 1, 42161, 8453")
    if any(len(one.removeprefix("0x")) != digits for one in source.signer_keys):
        raise ConfigError(f"{key}.signer_keys: {source.kind} wants keys of {digits} hex digits")
    quorum = source.signer_quorum
    needed = streams and bool(source.signer_keys)
    if needed is not (quorum is not None) or (quorum or 0) > len(source.signer_keys):
        raise ConfigError(f"{key}.signer_quorum: write how many of signer_keys must sign (f + 1)")
    if source.api_secret is not None and not source.api_secret.startswith("env:"):
        raise ConfigError(f'{key}.api_secret: write "env:NAME" and put the secret in the environment')


def redistribute_of(config: Config, name: str) -> Redistribute:
    """What may leave of a source: as configured, else the least that any of its ways lets out, by its kind. Simulated
    prices are nobody's; and a Hermes that asks for no key is one's own.
    """
    configured = config.sources[name].redistribute
    if configured is not None:
        return configured
    if config.emulator is not None:
        return Redistribute.FULL
    found = {_licence(way.section) for way in ways_of(config).values() if way.source == name}
    return next(one for one in Redistribute if one in found)  # listed from the least on


def _licence(section: SourceSection) -> Redistribute:
    if section.kind == "pyth.hermes" and section.api_key is None:
        return Redistribute.FULL
    return LICENCES.get(section.kind, Redistribute.FULL)


def _check_ways(config: Config, origin: str) -> None:
    for name, source in config.sources.items():
        if source.equivalent and not source.ways:
            raise ConfigError(f"{origin}: sources.{name}.equivalent: for sources with [sources.{name}.ways.WAY] only")
        for way, section in source.ways.items():
            key = f"{origin}: sources.{name}.ways.{way}"
            if not re.fullmatch("[a-z0-9_-]{1,32}", way):
                raise ConfigError(f"{key}: a way is named by up to 32 of a-z, 0-9, _ and -")
            if f"{name}.{way}" in config.sources:
                raise ConfigError(f"{key}: there is a source of the name {name}.{way}; rename one")
            unknown = next((feed for feed in section.accounts if feed not in config.feeds), None)
            if unknown is not None:
                raise ConfigError(f"{key}.accounts: names {unknown}, which is no feed")


def _check_feeds(config: Config, origin: str) -> None:
    for feed, section in config.feeds.items():
        roles = feed_roles(config, section)
        if roles.primary is None:
            raise ConfigError(f"{origin}: feeds.{feed}.primary: no primary here nor in [roles]")
        if len(roles.verifiers) != 2:
            raise ConfigError(
                f"{origin}: feeds.{feed}.verifiers: the rule takes exactly two verifiers, not {len(roles.verifiers)}"
            )
        names = (roles.primary, *roles.verifiers, *roles.references)
        if len(set(names)) != len(names):
            raise ConfigError(f"{origin}: feeds.{feed}: a source stands in two roles ({', '.join(names)})")
        for source_name in names:
            if source_name not in config.sources:
                nearest = difflib.get_close_matches(source_name, config.sources, n=1, cutoff=0.4)
                hint = f"did you mean {nearest[0]}?" if nearest else f"defined: {', '.join(config.sources)}"
                raise ConfigError(f"{origin}: feeds.{feed}: no [sources.{source_name}]; {hint}")
        if KINDS[config.sources[roles.primary].kind].slow_push:
            kind = config.sources[roles.primary].kind
            raise ConfigError(
                f"{origin}: feeds.{feed}.primary: {roles.primary} is a slow push account ({kind}): verifier only"
            )
        if redistribute_of(config, roles.primary) is Redistribute.NO:
            raise ConfigError(
                f"{origin}: feeds.{feed}.primary: the licence of {roles.primary} forbids that its price leaves "
                f'(redistribute = "no"), so it may only verify; if yours allows it, write sources.{roles.primary}.'
                f'redistribute = "chosen"'
            )
        for key in (*section.max_age_ms, *section.accounts):
            if key not in config.sources:
                raise ConfigError(f"{origin}: feeds.{feed}: max_age_ms or accounts names {key}, which is no source")


def check_host_names(config: Config, origin: str | None = None) -> None:
    """Raise ConfigError for what is no name of a host: an address with port or scheme would match nothing, and an
    empty one to listen on would mean every address of the machine."""
    for key, section in (("server", config.server), ("charts", config.charts)):
        where = f"{origin}: {key}" if origin else key
        if not section.host:
            raise ConfigError(f'{where}.host: is empty; "127.0.0.1" is this machine, "0.0.0.0" every network')
        for name in section.allowed_hosts:
            if not is_pattern(name):
                raise ConfigError(f"{where}.allowed_hosts: {name!r} is no name; write hub.example, *.example or *")


def feed_roles(config: Config, section: FeedSection) -> RolesSection:
    """The roles of one feed: its own where it has them, else those of ``[roles]``."""
    return RolesSection(
        primary=section.primary or config.roles.primary,
        verifiers=config.roles.verifiers if section.verifiers is None else section.verifiers,
        references=config.roles.references if section.references is None else section.references,
    )


def _check_hosts(config: Config, origin: str) -> None:
    for way in ways_of(config).values():
        name, source = way.key, way.section
        if len(set(source.hosts)) != len(source.hosts):
            raise ConfigError(f"{origin}: sources.{name}.hosts: a host is named twice")
        for host in source.hosts:
            refuse_literal_key(host, key=f"{origin}: sources.{name}.hosts")
        if source.rest_url:
            refuse_literal_key(source.rest_url, key=f"{origin}: sources.{name}.rest_url")
