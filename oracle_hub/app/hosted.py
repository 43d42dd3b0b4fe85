"""Sources that are no accounts: they have links of their own. One entry of :data:`HOSTED` for each kind."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping

import msgspec

from feeds.addresses import ASSETS
from feeds.chainlink.data_streams import STREAM_ID, ReportProver, StreamsFeed, StreamsLink
from feeds.edge.messages import feed_id_of
from feeds.edge.rest import FEED_ID as EDGE_ID
from feeds.edge.rest import EdgeFeed, EdgeLink, EdgeProver
from feeds.emulator.emulator import EmulatorSettings, EmulatorUrls
from feeds.evm_addresses import PROXIES, SEQUENCERS, checksummed, heartbeat_ms
from feeds.pyth.hermes import HermesFeed, HermesLink
from feeds.pyth.pro import ProFeed, ProLink, ProProver
from feeds.pyth.proving import Prover
from oracle_hub.app.trust import trusted
from oracle_hub.config import SourceSection
from oracle_hub.config_secrets import resolve_secret, resolve_url
from oracle_hub.core.source import Link
from oracle_hub.errors import ConfigError


class Host(msgspec.Struct, frozen=True):
    """One place of a source, with what its requests are authorised by."""

    url: str
    key: str | None = None
    """None: open."""
    secret: str = ""
    """What requests are signed with, where they are."""
    rest_url: str = ""
    """Beside ``url``, where a stream has its snapshots elsewhere."""

    def __repr__(self) -> str:  # may hold a key
        return "Host(…)"


class Hosting(msgspec.Struct, frozen=True):
    """What the links of one source are made of."""

    source: str
    """The name under which its updates go."""
    key: str
    """Where it is configured, below ``sources``: the source's name, or that of a further way to it."""
    section: SourceSection
    feeds: Mapping[str, str]
    """The source's own id by feed."""
    expos: Mapping[str, int]
    """Canonical exponent by feed."""
    simulated: bool
    """Its places are the emulator's."""
    names: str
    """Links are called this and a number: ``hermes:1``, or ``hermes:pyth:1`` where several sources are of a kind."""


class HostedKind(msgspec.Struct, frozen=True):
    """One kind of source with links of its own."""

    prefix: str
    """Of the names of its links."""
    accepts: re.Pattern[str]
    """Ids that it takes."""
    an_id: str
    """In words, for one that is refused."""
    known_id: Callable[[SourceSection, str], str | None]
    """The id of a known asset, by feed."""
    hosts: Callable[[str, SourceSection], tuple[Host, ...]]
    """The configured places of a source, by its name; raises ConfigError."""
    emulated: Callable[[EmulatorUrls], Iterable[Host]]
    n_emulated: int
    """How many places the emulator offers."""
    links: Callable[[Hosting, tuple[Host, ...]], Iterator[Link]]
    signed: bool = True
    """Whether its updates can be proved (``verify``)."""
    proves: Callable[[str], object] = str
    """Looks closer at an id of the right form; raises DecodeError."""
    age_ms: Callable[[SourceSection, str], int | None] = lambda section, feed: None
    """Max age that is known for a feed; None: that of the kind."""


def _base_urls(what: str) -> Callable[[str, SourceSection], tuple[Host, ...]]:
    def hosts(name: str, section: SourceSection) -> tuple[Host, ...]:
        if not section.hosts:
            raise ConfigError(f"sources.{name}.hosts: none given; add the base URL of {what}")
        key = None if section.api_key is None else resolve_secret(section.api_key, key=f"sources.{name}.api_key")
        places = [resolve_url(url, ("http", "https"), key=f"sources.{name}.hosts") for url in section.hosts]
        return tuple(Host(url, key) for url in places)

    return hosts


def _streams_hosts(name: str, section: SourceSection) -> tuple[Host, ...]:
    given = (section.rest_url, section.api_key, section.api_secret)
    if not section.hosts or None in given:
        raise ConfigError(f"sources.{name}: Data Streams needs hosts (websockets), rest_url, api_key and api_secret")
    rest_url, key, secret = (text or "" for text in given)
    rest_url = resolve_url(rest_url, ("http", "https"), key=f"sources.{name}.rest_url")
    key, secret = (
        resolve_secret(text, key=f"sources.{name}.{what}") for what, text in (("api_key", key), ("api_secret", secret))
    )
    places = [resolve_url(url, ("ws", "wss"), key=f"sources.{name}.hosts") for url in section.hosts]
    return tuple(Host(url, key, secret, rest_url) for url in places)


def _emulated_streams(urls: EmulatorUrls) -> Iterator[Host]:
    given = EmulatorSettings()
    for one in urls.streams:
        yield Host(one.ws, given.streams_key, given.streams_secret, one.http)


def _pro_hosts(name: str, section: SourceSection) -> tuple[Host, ...]:
    if not section.hosts or section.api_key is None:
        raise ConfigError(f"sources.{name}: Pyth Pro needs hosts (websockets) and api_key")
    key = resolve_secret(section.api_key, key=f"sources.{name}.api_key")
    places = [resolve_url(url, ("ws", "wss"), key=f"sources.{name}.hosts") for url in section.hosts]
    return tuple(Host(url, key) for url in places)


def _pro_links(hosting: Hosting, hosts: tuple[Host, ...]) -> Iterator[Link]:
    """One link for each host; those of a source prove each message once."""
    section = hosting.section
    prover = ProProver(None if section.verify == "off" else trusted(section))
    for number, host in enumerate(hosts, 1):
        yield ProLink(
            f"{hosting.names}:{number}",
            host.url,
            {feed: ProFeed(int(feed_id), hosting.expos[feed]) for feed, feed_id in hosting.feeds.items()},
            key=host.key or "",
            prover=prover,
            source=hosting.source,
            verify=section.verify,
            envelope=section.envelope,
            channel=section.channel,
        )


_IDS_PER_STREAM = 100
"""An id is 70 bytes of a URL, and servers take 8 KiB of one for granted. It also keeps an event short: one of thousands
of prices would hold up everything else for tens of milliseconds."""


def _parts(hosting: Hosting, an_id: str) -> list[list[tuple[str, str]]]:
    """Feeds and their ids, a hundred at a time.

    Raises:
        ConfigError: two feeds have one id, which two links would not notice.
    """
    ids: dict[str, str] = {}
    for feed, own_id in hosting.feeds.items():
        other = ids.setdefault(own_id.lower().removeprefix("0x"), feed)
        if other != feed:
            raise ConfigError(f"source {hosting.source}: feeds {other} and {feed} have one {an_id}")
    feeds = list(hosting.feeds.items())
    return [feeds[start : start + _IDS_PER_STREAM] for start in range(0, len(feeds), _IDS_PER_STREAM)]


def _hermes_links(hosting: Hosting, hosts: tuple[Host, ...]) -> Iterator[Link]:
    """One link for each host; for each hundred feeds, where there are more."""
    section = hosting.section
    prover = None if section.verify == "off" else Prover(trusted(section))
    parts = _parts(hosting, "price id")
    for number, host in enumerate(hosts, 1):
        for place, part in enumerate(parts, 1):
            yield HermesLink(
                f"{hosting.names}:{number}" if len(parts) == 1 else f"{hosting.names}:{number}.{place}",
                host.url,
                {feed: HermesFeed(price_id, hosting.expos[feed]) for feed, price_id in part},
                source=hosting.source,
                key=host.key,
                prover=prover,
                needs_proof=section.verify == "strict",
            )


def _edge_links(hosting: Hosting, hosts: tuple[Host, ...]) -> Iterator[Link]:
    """One link for each host; those of a source prove each message once."""
    prover = EdgeProver(trusted(hosting.section))
    for number, host in enumerate(hosts, 1):
        yield EdgeLink(
            f"{hosting.names}:{number}",
            host.url,
            {feed: EdgeFeed(feed_id, hosting.expos[feed]) for feed, feed_id in hosting.feeds.items()},
            prover=prover,
            source=hosting.source,
            key=host.key,
            verify=hosting.section.verify,
        )


def _streams_links(hosting: Hosting, hosts: tuple[Host, ...]) -> Iterator[Link]:
    """One link for each host and origin; for each hundred feeds, where there are more. They prove each report once."""
    section, parts = hosting.section, _parts(hosting, "stream id")
    prover = ReportProver(trusted(section))
    ways = [(host, origin) for host in hosts for origin in section.origins or (None,)]
    for number, (host, origin) in enumerate(ways, 1):
        for place, part in enumerate(parts, 1):
            yield StreamsLink(
                f"{hosting.names}:{number}" if len(parts) == 1 else f"{hosting.names}:{number}.{place}",
                host.url,
                host.rest_url,
                {feed: StreamsFeed(stream_id, hosting.expos[feed]) for feed, stream_id in part},
                key=host.key or "",
                secret=host.secret,
                prover=prover,
                source=hosting.source,
                verify=section.verify,
                origin=origin,
            )


def _evm_hosts(name: str, section: SourceSection) -> tuple[Host, ...]:
    if not section.hosts:
        raise ConfigError(
            f"sources.{name}.hosts: none given; add the websocket URL of a node of chain {section.chain_id}"
        )
    return tuple(Host(resolve_url(url, ("ws", "wss"), key=f"sources.{name}.hosts")) for url in section.hosts)


def _evm_links(hosting: Hosting, hosts: tuple[Host, ...]) -> Iterator[Link]:
    # Here, since eth-abi is an extra and takes 150 ms to import: who reads no EVM chain needs and pays neither.
    from feeds.chainlink.evm import EvmLink
    from feeds.chainlink.node import NodeLimits
    from feeds.chainlink.proxies import EvmFeed

    section = hosting.section
    assert section.chain_id is not None  # checked when the configuration was read
    limits = NodeLimits(
        silence_us=section.silence_ms * 1_000,
        check_every_us=section.check_ms * 1_000,
        sequencer_grace_us=section.sequencer_grace_ms * 1_000,
        backfill_blocks=section.backfill_blocks,
    )
    sequencer = SEQUENCERS.get(section.chain_id) if section.sequencer is None else section.sequencer
    for number, host in enumerate(hosts, 1):
        yield EvmLink(
            f"{hosting.names}:{number}",
            f"{host.url}/{section.chain_id}" if hosting.simulated else host.url,
            {feed: EvmFeed(proxy, hosting.expos[feed]) for feed, proxy in hosting.feeds.items()},
            chain_id=section.chain_id,
            source=hosting.source,
            sequencer=None if sequencer == "none" else sequencer,
            limits=limits,
        )


def carried_by(link: Link, feeds: Iterable[str]) -> tuple[str, ...]:
    """The feeds of a way that one of its links carries: all of them, but for Hermes and Data Streams, which have one
    for each hundred."""
    return tuple(link.feeds if isinstance(link, HermesLink | StreamsLink) else feeds)


HOSTED: Mapping[str, HostedKind] = {
    "pyth.hermes": HostedKind(
        prefix="hermes",
        accepts=re.compile(r"(0[xX])?[0-9a-fA-F]{64}"),
        an_id="Pyth id (64 hex digits)",
        known_id=lambda section, feed: ASSETS[feed].hermes_id if feed in ASSETS else None,
        hosts=_base_urls("a Hermes server"),
        emulated=lambda urls: (Host(one.url, one.key) for one in urls.hermes),
        n_emulated=2,
        links=_hermes_links,
    ),
    "pyth.pro": HostedKind(
        prefix="pro",
        accepts=re.compile(r"0|[1-9][0-9]{0,8}"),
        an_id="number of a feed at Pyth Pro",
        known_id=lambda section, feed: str(ASSETS[feed].pro_id) if feed in ASSETS else None,
        hosts=_pro_hosts,
        emulated=lambda urls: (Host(one.ws, EmulatorSettings().pro_key) for one in urls.pro),
        n_emulated=3,
        links=_pro_links,
    ),
    "edge.rest": HostedKind(
        prefix="edge",
        accepts=EDGE_ID,
        an_id="id of Edge (SOLUSD, or a number)",
        known_id=lambda section, feed: feed_id_of(feed) if feed in ASSETS else None,
        hosts=_base_urls("Edge's API"),
        emulated=lambda urls: (Host(one.url, one.key) for one in urls.edge),
        n_emulated=2,
        links=_edge_links,
    ),
    "chainlink.streams": HostedKind(
        prefix="streams",
        accepts=STREAM_ID,
        an_id="Data Streams id (64 hex digits)",
        known_id=lambda section, feed: ASSETS[feed].data_streams_id if feed in ASSETS else None,
        hosts=_streams_hosts,
        emulated=_emulated_streams,
        n_emulated=2,
        links=_streams_links,
    ),
    "chainlink.evm": HostedKind(
        prefix="evm",
        accepts=re.compile(r"0[xX][0-9a-fA-F]{40}"),
        an_id="address of an EVM chain (0x and 40 hex digits)",
        known_id=lambda section, feed: PROXIES.get(section.chain_id or 0, {}).get(feed),
        hosts=_evm_hosts,
        emulated=lambda urls: (Host(one.ws) for one in urls.evm),
        n_emulated=1,
        links=_evm_links,
        signed=False,
        proves=checksummed,
        age_ms=lambda section, feed: heartbeat_ms(section.chain_id, feed),
    ),
}
"""By kind, as a configuration names it. Kinds that are not here are read from accounts
(:data:`feeds.registry.SOURCES`)."""
