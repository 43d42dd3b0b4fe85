"""From a configuration to a line-up: which accounts and streams stand behind each source, and the links to them."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping

import msgspec

from feeds.addresses import GENESIS_HASHES
from feeds.emulator.emulator import EmulatorUrls
from feeds.layout import pubkey_bytes
from feeds.registry import default_account, make_reader
from oracle_hub.app.alert_settings import alert_settings
from oracle_hub.app.engine import DescribedReader, Lineup
from oracle_hub.app.hosted import HOSTED, Host, Hosting, carried_by
from oracle_hub.app.independence import Witnesses, refuse_same_reading
from oracle_hub.app.mapped import successor_of
from oracle_hub.app.onchain import following, publishers_of
from oracle_hub.app.trust import settled
from oracle_hub.config import (
    Config,
    SourceSection,
    Way,
    canonical_text,
    feed_roles,
    parse_canonical,
    redistribute_of,
    text_hash,
    ways_of,
)
from oracle_hub.config_secrets import resolve_url
from oracle_hub.config_sections import RpcSection
from oracle_hub.core.catalog import Catalog, FeedSpec, Proof, Redistribute
from oracle_hub.core.source import Link
from oracle_hub.core.stall import StallRule
from oracle_hub.core.ways import WaySpec
from oracle_hub.errors import ConfigError, DecodeError
from oracle_hub.ingest.rpc_watch import RpcLimits
from oracle_hub.ingest.solana_rpc import SolanaRpc


class Endpoints(msgspec.Struct, frozen=True):
    """Where the links go, with secrets filled in. A replay has none: it needs names, not places."""

    rpc: tuple[RpcSection, ...]
    hosts: Mapping[str, tuple[Host, ...]]
    """By way (:func:`~oracle_hub.config.ways_of`), for those with links of their own."""
    genesis_hash: str | None

    def __repr__(self) -> str:
        return "Endpoints(…)"


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
                    source: _first(section.max_age_ms.get(source), _age_ms(config.sources[source], feed)) * 1_000
                    for source in sources
                },
                redistribute={
                    source: told
                    for source in sources
                    if (told := redistribute_of(config, source)) is not Redistribute.FULL
                },
            )
        )
    hub = config.hub
    stall = StallRule(hub.stall_after_ms * 1_000, hub.stall_bps)
    proof = {name: _proof(config, name) for name in config.sources}
    return Catalog(specs, max_future_us=hub.max_future_ms * 1_000, stall=stall, proof=proof)


def _proof(config: Config, source: str) -> Proof:
    """What a checked signature counts for: with a way that demands them, everything of a source but what it brings."""
    sections = [way.section for way in ways_of(config).values() if way.source == source]
    proving = [section for section in sections if proves(section)]
    if config.sources[source].equivalent or not proving:
        return Proof.EQUIVALENT
    strict = any(section.verify == "strict" for section in proving)
    return Proof.DEMANDED if strict and len(sections) > 1 else Proof.PREFERRED


def proves(section: SourceSection) -> bool:
    """Whether signatures are checked on what is read so."""
    return section.kind in HOSTED and HOSTED[section.kind].signed and section.verify != "off"


def _first(own: int | None, default: int) -> int:
    return default if own is None else own


def _age_ms(source: SourceSection, feed: str) -> int:
    """Max age in ms of a feed of a source: configured, else what is known of the feed, else the kind's."""
    hosted = HOSTED.get(source.kind)
    known = None if source.max_age_ms is not None or hosted is None else hosted.age_ms(source, feed)
    return _first(known, source.age_ms)


def addresses_of(config: Config, name: str) -> dict[str, str]:
    """Where each feed of a source is read from by its first way, or by a further one: configured, else known.

    A further way need not have every feed of its source.

    An address whose account was replaced is mapped to what took its place (:mod:`oracle_hub.app.mapped`).

    Raises:
        ConfigError: neither; names the key to write.
    """
    way = ways_of(config)[name]
    found: dict[str, str] = {}
    for feed, section in config.feeds.items():
        roles = feed_roles(config, section)
        if way.source not in (roles.primary, *roles.verifiers, *roles.references):
            continue
        given = way.accounts.get(feed) if way.way else section.accounts.get(name)
        key = f"sources.{way.key}.accounts.{feed}" if way.way else f"feeds.{feed}.accounts.{name}"
        address = given or _known_address(way.section, feed)
        if address is not None:
            _check_address(address, way.section.kind, key=key)
            found[feed] = successor_of(way.section.kind, feed, address) or address
        elif not way.way:
            raise ConfigError(f"{key}: {feed} is no known asset; write where {way.section.kind} reads it")
    if way.way:
        _check_further(config, way, found)
    return found


def _check_further(config: Config, way: Way, found: Mapping[str, str]) -> None:
    foreign = next((feed for feed in way.accounts if feed not in found), None)
    if foreign is not None:
        raise ConfigError(f"sources.{way.key}.accounts.{foreign}: {way.source} has no part in {foreign}")
    if not found and addresses_of(config, way.source):
        raise ConfigError(f"sources.{way.key}: reads none of {way.source}'s feeds; add accounts with their addresses")


def _check_address(address: str, kind: str, *, key: str) -> None:
    hosted = HOSTED.get(kind)
    if hosted is not None:
        if not hosted.accepts.fullmatch(address):
            raise ConfigError(f"{key}: {address!r} is no {hosted.an_id}")
        check: Callable[[str], object] = hosted.proves
    else:
        check = pubkey_bytes
    try:
        check(address)
    except DecodeError as error:
        raise ConfigError(f"{key}: {error}") from None


def _known_address(source: SourceSection, feed: str) -> str | None:
    hosted = HOSTED.get(source.kind)
    if hosted is not None:
        return hosted.known_id(source, feed)
    return default_account(source.kind, feed, receiver=source.receiver)


def readers_of(config: Config) -> dict[str, DescribedReader]:
    """The account readers, by way."""
    readers: dict[str, DescribedReader] = {}
    for name, way in ways_of(config).items():
        addresses, section = addresses_of(config, name), way.section
        if not addresses or section.kind in HOSTED:
            continue
        expos = {feed: config.feeds[feed].expo for feed in addresses}
        readers[name] = make_reader(section.kind, way.source, addresses, expos, pool=section.pool)
    return readers


def all_addresses(config: Config) -> dict[str, dict[str, str]]:
    """:func:`addresses_of` for every way to every source, with roles that would verify themselves refused.

    Raises:
        ConfigError: as its parts do.
    """
    addresses = {name: addresses_of(config, name) for name in ways_of(config)}
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
    hosts = {name: HOSTED[way.section.kind].hosts(way.key, way.section) for name, way in _hosted_ways(config)}
    return Endpoints(rpc, hosts, genesis_hash_of(config))


def emulated_endpoints(config: Config, urls: EmulatorUrls) -> Endpoints:
    """Endpoints of a simulation: what the emulator offers."""
    rpc = tuple(RpcSection(name=one.name, http_url=one.http, ws_url=one.ws) for one in urls.solana)
    hosts = {name: tuple(HOSTED[way.section.kind].emulated(urls)) for name, way in _hosted_ways(config)}
    return Endpoints(rpc, hosts, genesis_hash_of(config))


def journaled_endpoints(config: Config) -> Endpoints:
    """Endpoints for a replay: as many as there were, going nowhere."""
    rpc = tuple(
        RpcSection(name=one.name, http_url="http://replay.invalid", ws_url="ws://replay.invalid")
        for one in config.solana.rpc or (EMULATED_RPC if config.emulator is not None else ())
    )
    nowhere = Host("http://replay.invalid", rest_url="http://replay.invalid")
    hosts = {
        name: (nowhere,) * (len(way.section.hosts) or HOSTED[way.section.kind].n_emulated)
        for name, way in _hosted_ways(config)
    }
    return Endpoints(rpc, hosts, genesis_hash_of(config))


EMULATED_RPC = tuple(RpcSection(name=name, http_url="", ws_url="") for name in ("a", "b"))
"""Names of the endpoints that the emulator offers."""


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


def _hosted_ways(config: Config) -> list[tuple[str, Way]]:
    """Ways with links of their own that have feeds."""
    ways = ways_of(config).items()
    return [(name, way) for name, way in ways if way.section.kind in HOSTED and addresses_of(config, name)]


def build_lineup(
    config: Config, endpoints: Endpoints, before: Lineup | None = None, *, journaled_text: str | None = None
) -> Lineup:
    """Put a line-up together. Links and readers of ``before`` are kept where the configuration of all of them is equal.

    ``journaled_text`` is the text as it was journaled: a later version may have keys that it lacks, and the hash that
    was published is of that text.

    Raises:
        ConfigError: as the parts do.
    """
    config = settled(config)
    text = canonical_text(config) if journaled_text is None else journaled_text
    if before is not None and _wiring(settled(parse_canonical(before.config_text))) == _wiring(config):
        readers, links = before.readers, before.links
        carried = [(spec.way, spec.link, spec.feeds) for spec in before.ways]
    else:
        readers = readers_of(config)
        links, carried = {}, []
        for names, link in _links(config, readers, endpoints):
            links[link.name] = link
            carried += [(name, link.name, carried_by(link, addresses_of(config, name))) for name in names]
    addresses = all_addresses(config)
    ways = tuple(_way_specs(config, carried))
    return Lineup(
        catalog=catalog_of(config),
        links=links,
        readers=readers,
        config=config,
        addresses=addresses,
        config_text=text,
        config_hash=text_hash(text),
        alerts=alert_settings(config),
        witnesses=Witnesses(config, addresses, readers),
        onchain=following(config),
        publishers=publishers_of(config, ways),
        ways=ways,
    )


def _way_specs(config: Config, carried: Iterable[tuple[str, str, tuple[str, ...]]]) -> Iterator[WaySpec]:
    """Every way by every link that carries it, with the feeds that it carries, in the order of the configuration."""
    ways = ways_of(config)
    order = list(ways)
    for name, link, feeds in sorted(carried, key=lambda one: order.index(one[0])):
        section = ways[name].section
        yield WaySpec(
            source=ways[name].source,
            transport=link if section.kind in HOSTED else transport_of(link, ways[name]),
            link=link,
            way=name,
            kind=section.kind,
            proves=proves(section),
            feeds=feeds,
            max_age_us=section.age_ms * 1_000,
        )


def transport_of(link: str, way: Way) -> str:
    """What updates call a way by accounts: the link's name, and for a further way ``solana/WAY:RPC``.

    What stands before the colon is the kind of transport: slots of two accounts do not compare.
    """
    kind, _, rpc = link.partition(":")
    return f"{kind}/{way.way}:{rpc}" if way.way else link


def _wiring(config: Config) -> object:
    """The part of a configuration that links and readers are made of."""
    ways = ways_of(config)
    sources = {
        name: msgspec.structs.replace(
            way.section, max_age_ms=None, ways={}, equivalent=False, limits="configured", redistribute=None
        )
        for name, way in ways.items()
    }
    addresses = {name: addresses_of(config, name) for name in ways}
    expos = {feed: section.expo for feed, section in config.feeds.items()}
    return (config.solana, sources, addresses, expos)


def _links(
    config: Config, readers: Mapping[str, DescribedReader], endpoints: Endpoints
) -> Iterator[tuple[Iterable[str], Link]]:
    """Each link, with the ways that it carries."""
    solana, ways = config.solana, ways_of(config)
    if readers:
        for rpc in endpoints.rpc:
            name = f"solana:{rpc.name}"
            link = SolanaRpc(
                name,
                rpc.http_url,
                rpc.ws_url,
                list(readers.values()),
                transports=[transport_of(name, ways[way]) for way in readers],
                commitment=solana.commitment,
                genesis_hash=endpoints.genesis_hash,
                limits=RpcLimits(
                    safety_snapshot_us=solana.snapshot_interval_ms * 1_000,
                    transport_silence_us=solana.silence_ms * 1_000,
                ),
            )
            yield readers, link
    kinds = Counter(ways[name].section.kind for name in endpoints.hosts)
    for name, hosts in endpoints.hosts.items():
        section = ways[name].section
        kind = HOSTED[section.kind]
        feeds = addresses_of(config, name)
        hosting = Hosting(
            source=ways[name].source,
            key=ways[name].key,
            section=section,
            feeds=feeds,
            expos={feed: config.feeds[feed].expo for feed in feeds},
            simulated=config.emulator is not None,
            names=kind.prefix if kinds[section.kind] == 1 else f"{kind.prefix}:{name}",
        )
        for hosted in kind.links(hosting, hosts):
            yield (name,), hosted


def lineup_from_text(text: str, before: Lineup | None = None) -> Lineup:
    """The line-up of a journaled configuration, for replay."""
    config = parse_canonical(text)
    return build_lineup(config, journaled_endpoints(config), before, journaled_text=text)
