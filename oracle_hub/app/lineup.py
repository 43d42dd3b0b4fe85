"""From a configuration to a line-up: which accounts and streams stand behind each source, and the links to them."""

import re
from collections.abc import Iterator, Mapping

import msgspec

from feeds.addresses import ASSETS, GENESIS_HASHES
from feeds.chainlink.data_streams import STREAM_ID, ReportProver, StreamsFeed, StreamsLink
from feeds.chainlink.report import ANY_DIGEST
from feeds.chainlink.report import KIND as REPORT
from feeds.chainlink.signers import KNOWN as DON_SIGNERS
from feeds.edge.messages import SVM, feed_id_of
from feeds.edge.rest import FEED_ID as EDGE_ID
from feeds.edge.rest import EdgeFeed, EdgeLink
from feeds.edge.signers import KNOWN as EDGE_SIGNERS
from feeds.emulator.edge_signing import EdgeSigner
from feeds.emulator.pyth_signing import simulated_signer
from feeds.emulator.report_signing import DonSigner
from feeds.layout import pubkey_bytes
from feeds.pyth.hermes import HermesFeed, HermesLink
from feeds.pyth.proving import Prover
from feeds.pyth.signers import KNOWN as KNOWN_SIGNERS
from feeds.pyth.signers import rotated_by_text
from feeds.registry import default_account, make_reader
from feeds.signers import SignerSet, SignerSets
from oracle_hub.app.alert_settings import alert_settings
from oracle_hub.app.engine import DescribedReader, Lineup
from oracle_hub.app.independence import refuse_same_reading
from oracle_hub.config import (
    Config,
    RpcSection,
    SourceSection,
    canonical_text,
    feed_roles,
    parse_canonical,
    resolve_secret,
    resolve_url,
    text_hash,
)
from oracle_hub.core.catalog import Catalog, FeedSpec
from oracle_hub.core.source import Link
from oracle_hub.core.stall import StallRule
from oracle_hub.errors import ConfigError, DecodeError
from oracle_hub.ingest.rpc_watch import RpcLimits
from oracle_hub.ingest.solana_rpc import SolanaRpc


class HermesHost(msgspec.Struct, frozen=True):
    """One base URL of Hermes, or of Edge, with its key (None: open)."""

    url: str
    key: str | None = None

    def __repr__(self) -> str:  # may hold a key
        return "HermesHost(…)"


class StreamsHost(msgspec.Struct, frozen=True):
    """One host of Data Streams, and what its requests are signed with."""

    ws_url: str
    rest_url: str
    key: str
    secret: str

    def __repr__(self) -> str:
        return "StreamsHost(…)"


class Endpoints(msgspec.Struct, frozen=True):
    """Where the links go, with secrets filled in. A replay has none: it needs names, not places."""

    rpc: tuple[RpcSection, ...]
    hermes: Mapping[str, tuple[HermesHost, ...]]
    """By source name."""
    genesis_hash: str | None
    edge: Mapping[str, tuple[HermesHost, ...]] = {}
    """By source name, as for Hermes."""
    streams: Mapping[str, tuple[StreamsHost, ...]] = {}
    """By source name."""

    def __repr__(self) -> str:
        return "Endpoints(…)"


_HERMES_ID = re.compile(r"(0[xX])?[0-9a-fA-F]{64}")
HERMES = "pyth.hermes"
EDGE = "edge.rest"
STREAMS = "chainlink.streams"
HOSTED = frozenset({HERMES, EDGE, STREAMS})
"""Kinds of sources that are no accounts: they have links of their own."""


def catalog_of(config: Config) -> Catalog:
    """The pure part: feeds, roles and limits.

    Raises:
        ConfigError: as :class:`~oracle_hub.core.catalog.Catalog` does.
    """
    specs = []
    for feed, section in config.feeds.items():
        roles = feed_roles(config, section)
        assert roles.primary is not None  # checked when the configuration was read
        sources = (roles.primary, *roles.verifiers, *roles.references)
        hub = config.hub
        specs.append(
            FeedSpec(
                feed=feed,
                expo=section.expo,
                primary=roles.primary,
                verifiers=(roles.verifiers[0], roles.verifiers[1]),
                references=roles.references,
                policy=section.policy or hub.policy,
                max_divergence_bps=_first(section.max_divergence_bps, hub.max_divergence_bps),
                max_conf_bps=_first(section.max_conf_bps, hub.max_conf_bps),
                max_age_us={
                    source: _first(section.max_age_ms.get(source), config.sources[source].age_ms) * 1_000
                    for source in sources
                },
            )
        )
    hub = config.hub
    stall = StallRule(hub.stall_after_ms * 1_000, hub.stall_bps)
    return Catalog(specs, max_future_us=hub.max_future_ms * 1_000, stall=stall)


def _first(own: int | None, default: int) -> int:
    return default if own is None else own


def addresses_of(config: Config, source_name: str) -> dict[str, str]:
    """Where each feed of a source is read from: configured, else known.

    Raises:
        ConfigError: neither; names the key to write.
    """
    source = config.sources[source_name]
    found: dict[str, str] = {}
    for feed, section in config.feeds.items():
        roles = feed_roles(config, section)
        if source_name not in (roles.primary, *roles.verifiers, *roles.references):
            continue
        address = section.accounts.get(source_name) or _known_address(source, feed)
        if address is None:
            raise ConfigError(
                f"feeds.{feed}.accounts.{source_name}: {feed} is no known asset; write where {source.kind} reads it"
            )
        _check_address(address, source.kind, key=f"feeds.{feed}.accounts.{source_name}")
        found[feed] = address
    return found


def _check_address(address: str, kind: str, *, key: str) -> None:
    if kind == HERMES:
        if not _HERMES_ID.fullmatch(address):
            raise ConfigError(f"{key}: {address!r} is no Pyth id (64 hex digits)")
        return
    if kind == EDGE:
        if not EDGE_ID.fullmatch(address):
            raise ConfigError(f"{key}: {address!r} is no id of Edge (SOLUSD, or a number)")
        return
    if kind == STREAMS:
        if not STREAM_ID.fullmatch(address):
            raise ConfigError(f"{key}: {address!r} is no Data Streams id (64 hex digits)")
        return
    try:
        pubkey_bytes(address)
    except DecodeError as error:
        raise ConfigError(f"{key}: {error}") from None


def _known_address(source: SourceSection, feed: str) -> str | None:
    if source.kind == HERMES:
        return ASSETS[feed].hermes_id if feed in ASSETS else None
    if source.kind == EDGE:
        return feed_id_of(feed) if feed in ASSETS else None
    if source.kind == STREAMS:
        return ASSETS[feed].data_streams_id if feed in ASSETS else None
    return default_account(source.kind, feed, receiver=source.receiver)


def readers_of(config: Config) -> dict[str, DescribedReader]:
    """The account readers, by source."""
    readers: dict[str, DescribedReader] = {}
    for name, source in config.sources.items():
        addresses = addresses_of(config, name)
        if not addresses or source.kind in HOSTED:
            continue
        expos = {feed: config.feeds[feed].expo for feed in addresses}
        readers[name] = make_reader(source.kind, name, addresses, expos, pool=source.pool)
    return readers


def all_addresses(config: Config) -> dict[str, dict[str, str]]:
    """:func:`addresses_of` for every source, with roles that would verify themselves refused.

    Raises:
        ConfigError: as its parts do.
    """
    addresses = {name: addresses_of(config, name) for name in config.sources}
    refuse_same_reading(config, addresses)
    return addresses


def endpoints_of(config: Config) -> Endpoints:
    """Endpoints of the configuration, with secrets from the environment.

    Raises:
        ConfigError: a variable is not set, or a source has no way to it.
    """
    rpc = tuple(
        RpcSection(
            name=section.name,
            http_url=resolve_url(section.http_url, ("http", "https"), key=f"solana.rpc.{section.name}.http_url"),
            ws_url=resolve_url(section.ws_url, ("ws", "wss"), key=f"solana.rpc.{section.name}.ws_url"),
        )
        for section in config.solana.rpc
    )
    if not rpc and readers_of(config):
        raise ConfigError("solana.rpc: no endpoint, but sources are read from accounts; add [[solana.rpc]]")
    return Endpoints(
        rpc,
        {name: _hosts(config, name, "a Hermes server") for name in _sources_of(config, HERMES)},
        genesis_hash_of(config),
        {name: _hosts(config, name, "Edge's API") for name in _sources_of(config, EDGE)},
        {name: _streams_hosts(config, name) for name in _sources_of(config, STREAMS)},
    )


def _streams_hosts(config: Config, name: str) -> tuple[StreamsHost, ...]:
    source = config.sources[name]
    given = (source.rest_url, source.api_key, source.api_secret)
    if not source.hosts or None in given:
        raise ConfigError(f"sources.{name}: Data Streams needs hosts (websockets), rest_url, api_key and api_secret")
    rest_url, key, secret = (text or "" for text in given)
    rest_url = resolve_url(rest_url, ("http", "https"), key=f"sources.{name}.rest_url")
    key, secret = (
        resolve_secret(text, key=f"sources.{name}.{what}") for what, text in (("api_key", key), ("api_secret", secret))
    )
    places = [resolve_url(url, ("ws", "wss"), key=f"sources.{name}.hosts") for url in source.hosts]
    return tuple(StreamsHost(url, rest_url, key, secret) for url in places)


def _hosts(config: Config, name: str, what: str) -> tuple[HermesHost, ...]:
    source = config.sources[name]
    if not source.hosts:
        raise ConfigError(f"sources.{name}.hosts: none given; add the base URL of {what}")
    key = None if source.api_key is None else resolve_secret(source.api_key, key=f"sources.{name}.api_key")
    places = [resolve_url(url, ("http", "https"), key=f"sources.{name}.hosts") for url in source.hosts]
    return tuple(HermesHost(url, key) for url in places)


def genesis_hash_of(config: Config) -> str:
    """The hash that every endpoint must prove to be on.

    Raises:
        ConfigError: a custom cluster without one.
    """
    if config.solana.genesis_hash is not None:
        return config.solana.genesis_hash
    if config.solana.cluster == "custom":
        raise ConfigError("solana.genesis_hash: a custom cluster needs one")
    return GENESIS_HASHES[config.solana.cluster]


def _sources_of(config: Config, kind: str) -> list[str]:
    return [name for name, source in config.sources.items() if source.kind == kind and addresses_of(config, name)]


def build_lineup(
    config: Config, endpoints: Endpoints, before: Lineup | None = None, *, journaled_text: str | None = None
) -> Lineup:
    """Put a line-up together. Links and readers of ``before`` are kept where the configuration of all of them is equal.

    ``journaled_text`` is the text as it was journaled: a later version may have keys that it lacks, and the hash that
    was published is of that text.

    Raises:
        ConfigError: as the parts do.
    """
    text = canonical_text(config) if journaled_text is None else journaled_text
    if before is not None and _wiring(parse_canonical(before.config_text)) == _wiring(config):
        readers, links = before.readers, before.links
    else:
        readers = readers_of(config)
        links = {link.name: link for link in _links(config, readers, endpoints)}
    return Lineup(
        catalog=catalog_of(config),
        links=links,
        readers=readers,
        config=config,
        addresses=all_addresses(config),
        config_text=text,
        config_hash=text_hash(text),
        alerts=alert_settings(config),
    )


def _wiring(config: Config) -> object:
    """The part of a configuration that links and readers are made of."""
    sources = {name: msgspec.structs.replace(source, max_age_ms=None) for name, source in config.sources.items()}
    addresses = {name: addresses_of(config, name) for name in config.sources}
    expos = {feed: section.expo for feed, section in config.feeds.items()}
    return (config.solana, sources, addresses, expos)


def _links(config: Config, readers: Mapping[str, DescribedReader], endpoints: Endpoints) -> Iterator[Link]:
    solana = config.solana
    if readers:
        for rpc in endpoints.rpc:
            yield SolanaRpc(
                f"solana:{rpc.name}",
                rpc.http_url,
                rpc.ws_url,
                list(readers.values()),
                commitment=solana.commitment,
                genesis_hash=endpoints.genesis_hash,
                limits=RpcLimits(
                    safety_snapshot_us=solana.snapshot_interval_ms * 1_000,
                    transport_silence_us=solana.silence_ms * 1_000,
                ),
            )
    for name, hosts in endpoints.hermes.items():
        feeds = addresses_of(config, name)
        prover = _prover(config, name)
        for number, host in enumerate(hosts, 1):
            yield HermesLink(
                f"hermes:{number}" if len(endpoints.hermes) == 1 else f"hermes:{name}:{number}",
                host.url,
                {feed: HermesFeed(price_id, config.feeds[feed].expo) for feed, price_id in feeds.items()},
                source=name,
                key=host.key,
                prover=prover,
                needs_proof=config.sources[name].verify == "strict",
            )
    yield from _edge_links(config, endpoints)
    yield from _streams_links(config, endpoints)


def _edge_links(config: Config, endpoints: Endpoints) -> Iterator[Link]:
    for name, hosts in endpoints.edge.items():
        feeds = addresses_of(config, name)
        for number, host in enumerate(hosts, 1):
            yield EdgeLink(
                f"edge:{number}" if len(endpoints.edge) == 1 else f"edge:{name}:{number}",
                host.url,
                {feed: EdgeFeed(feed_id, config.feeds[feed].expo) for feed, feed_id in feeds.items()},
                sets=_edge_signers(config, name),
                source=name,
                key=host.key,
                verify=config.sources[name].verify,
            )


def _streams_links(config: Config, endpoints: Endpoints) -> Iterator[Link]:
    """One link for each host and origin; those of a source prove each report once."""
    for name, hosts in endpoints.streams.items():
        source, feeds = config.sources[name], addresses_of(config, name)
        prover = ReportProver(_don_signers(config, name))
        ways = [(host, origin) for host in hosts for origin in source.origins or (None,)]
        for number, (host, origin) in enumerate(ways, 1):
            yield StreamsLink(
                f"streams:{number}" if len(endpoints.streams) == 1 else f"streams:{name}:{number}",
                host.ws_url,
                host.rest_url,
                {feed: StreamsFeed(stream_id, config.feeds[feed].expo) for feed, stream_id in feeds.items()},
                key=host.key,
                secret=host.secret,
                prover=prover,
                source=name,
                verify=source.verify,
                origin=origin,
            )


def _don_signers(config: Config, name: str) -> SignerSets:
    source = config.sources[name]
    if source.signer_keys:
        keys = tuple(bytes.fromhex(text.removeprefix("0x")) for text in source.signer_keys)
        return SignerSets([SignerSet(REPORT, ANY_DIGEST, 0, keys, source.signer_quorum or len(keys))])
    signers = source.signers or ("simulated" if config.emulator is not None else "production")
    return DonSigner().sets if signers == "simulated" else DON_SIGNERS[signers]


def _edge_signers(config: Config, name: str) -> SignerSets:
    source = config.sources[name]
    if source.signer_keys:
        keys = (bytes.fromhex(text.removeprefix("0x")) for text in source.signer_keys)
        return SignerSets(SignerSet(SVM, name, number, (key,), 1) for number, key in enumerate(keys))
    signers = source.signers or ("simulated" if config.emulator is not None else "production")
    return EdgeSigner().sets if signers == "simulated" else EDGE_SIGNERS[signers]


def _prover(config: Config, name: str) -> Prover | None:
    """What checks the signatures of a Hermes source, for all of its hosts; None where they are not checked."""
    source = config.sources[name]
    if source.verify == "off":
        return None
    signers = source.signers or ("simulated" if config.emulator is not None else "production")
    sets = simulated_signer().sets if signers == "simulated" else KNOWN_SIGNERS[signers]
    return Prover(rotated_by_text(sets, source.rotations, f"sources.{name}.rotations"))


def journaled_endpoints(config: Config) -> Endpoints:
    """Endpoints for a replay: as many as there were, going nowhere."""
    rpc = config.solana.rpc or (EMULATED_RPC if config.emulator is not None else ())
    hermes = {
        name: tuple(HermesHost("http://replay.invalid") for _ in config.sources[name].hosts or EMULATED_HERMES)
        for name in _sources_of(config, HERMES)
    }
    edge = {
        name: tuple(HermesHost("http://replay.invalid") for _ in config.sources[name].hosts or EMULATED_EDGE)
        for name in _sources_of(config, EDGE)
    }
    nowhere = tuple(
        RpcSection(name=one.name, http_url="http://replay.invalid", ws_url="ws://replay.invalid") for one in rpc
    )
    streams = {
        name: tuple(_NO_STREAMS for _ in config.sources[name].hosts or EMULATED_STREAMS)
        for name in _sources_of(config, STREAMS)
    }
    return Endpoints(nowhere, hermes, genesis_hash_of(config), edge, streams)


EMULATED_RPC = tuple(RpcSection(name=name, http_url="", ws_url="") for name in ("a", "b"))
"""Names of the endpoints that the emulator offers."""
EMULATED_HERMES = (1, 2)
EMULATED_EDGE = (1,)
EMULATED_STREAMS = (1,)
_NO_STREAMS = StreamsHost("ws://replay.invalid", "http://replay.invalid", "", "")


def lineup_from_text(text: str, before: Lineup | None = None) -> Lineup:
    """The line-up of a journaled configuration, for replay."""
    config = parse_canonical(text)
    return build_lineup(config, journaled_endpoints(config), before, journaled_text=text)
