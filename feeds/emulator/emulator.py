"""The emulator: a world, its servers on loopback, its clock, and the page by which it is controlled.

Whoever embeds it calls :meth:`Emulator.start` and hands the URLs on. Everything it serves is simulated, and
:meth:`Emulator.describe` says so for whatever the hub publishes.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path

import msgspec
import orjson
from aiohttp import web

from feeds.addresses import ASSETS
from feeds.emulator.catalogue import Catalogue, ReadAt, mantissa_of
from feeds.emulator.data_streams import StreamsServer
from feeds.emulator.edge import EdgeServer
from feeds.emulator.evm import EvmServer
from feeds.emulator.faults import Fault, FaultBook, check_target, load_script, parse_faults
from feeds.emulator.hermes import HermesServer
from feeds.emulator.pro import ProServer
from feeds.emulator.server import Server
from feeds.emulator.solana import SolanaServer
from feeds.emulator.tape import Playback, Tape, read_tape, utc_text
from feeds.emulator.walk import MANNERS, Point, path_of, walk
from feeds.emulator.world import SLOT_US, Change, Key, World
from oracle_hub.errors import ConfigError

_LONGEST_SLEEP_S = 0.1
_SHORTEST_SLEEP_S = 0.001
_SECOND_US = 1_000_000
_LONGEST_PAUSE_US = 30_000_000


DESCRIBED_FEEDS = 64
"""So many are named wherever a simulation is marked: with each greeting, explanation and check of readiness."""


class EmulatorSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What to play, and where to serve it."""

    seed: int = 1
    tape: str | None = None
    """A CSV file; None: the walk."""
    manifest: str | None = None
    """A manifest, or the name of a shipped one; None: looked up by the tape."""
    noise_bps: float | None = None
    """Standard deviation of every oracle's noise; None: each has its own, 0: none at all."""
    speed: float = 1.0
    start: str | None = None
    """Where on the tape: seconds after its first row, or a UTC time."""
    loop: bool = False
    feeds: tuple[str, ...] = tuple(ASSETS)
    read: tuple[ReadAt, ...] = ()
    """How the configuration reads them: it says where those that are no known assets are served."""
    prices: Mapping[str, str] = {}
    """Start prices of the walk by feed, decimal; the others have their own."""
    updates_per_s: int = 1_200
    """Of all feeds that are no known assets: with thousands of them, each oracle speaks seldomer."""
    host: str = "127.0.0.1"
    port_base: int = 0
    """First of thirteen ports (control, RPC a and b, Hermes 1 and 2, Edge, Data Streams, Pyth Pro 1 to 3, EVM, and the
    second hosts of Edge and of Data Streams); 0: free ones."""
    hermes_key: str | None = None
    """Key that the Hermes hosts want; None: none."""
    edge_key: str | None = None
    """Key that Edge's host wants; None: none."""
    faults: tuple[Fault, ...] = ()
    script: str | None = None
    """A TOML file of further faults."""
    rpc_names: tuple[str, ...] = ("a", "b")
    hermes_names: tuple[str, ...] = ("hermes-1", "hermes-2")
    edge_names: tuple[str, ...] = ("edge", "edge-2")
    streams_names: tuple[str, ...] = ("streams", "streams-2")
    evm_names: tuple[str, ...] = ("evm",)
    streams_key: str = "simulated-key"
    streams_secret: str = "simulated-secret"
    """What clients of Data Streams sign with: nothing but this emulator takes it."""
    pro_names: tuple[str, ...] = ("pro-1", "pro-2", "pro-3")
    pro_key: str = "simulated-token"
    """What the hosts of Pyth Pro want."""

    def __repr__(self) -> str:  # holds a key
        return f"EmulatorSettings(seed={self.seed}, tape={self.tape!r})"


class RpcUrls(msgspec.Struct, frozen=True):
    """One Solana endpoint."""

    name: str
    http: str
    ws: str


class HermesUrl(msgspec.Struct, frozen=True):
    """One Hermes host: what stands before ``/v2``, and its key."""

    name: str
    url: str
    key: str | None

    def __repr__(self) -> str:
        return f"HermesUrl({self.name!r}, {self.url!r})"


class EdgeUrl(msgspec.Struct, frozen=True):
    """One host of Edge: what stands before ``/prices``, and its key."""

    name: str
    url: str
    key: str | None

    def __repr__(self) -> str:
        return f"EdgeUrl({self.name!r}, {self.url!r})"


class StreamsUrl(msgspec.Struct, frozen=True):
    """One host of Data Streams: the bases of its websocket and of its REST API."""

    name: str
    ws: str
    http: str


class ProUrl(msgspec.Struct, frozen=True):
    """One host of Pyth Pro: the base of its websocket."""

    name: str
    ws: str


class EvmUrl(msgspec.Struct, frozen=True):
    """One EVM node: what stands before the chain id in the address of its websocket."""

    name: str
    ws: str


class EmulatorUrls(msgspec.Struct, frozen=True):
    """Where everything is served."""

    solana: tuple[RpcUrls, ...]
    hermes: tuple[HermesUrl, ...]
    control: str
    edge: tuple[EdgeUrl, ...] = ()
    streams: tuple[StreamsUrl, ...] = ()
    pro: tuple[ProUrl, ...] = ()
    evm: tuple[EvmUrl, ...] = ()


class Emulator:
    """Servers over one world.

    Args:
        settings: what to play.
        now_us: the clock, in unix microseconds. Publish times are of this clock.
        drive: advance the world by a task of its own; False: only :meth:`tick` does.

    Raises:
        ConfigError: a tape, manifest, start, feed or fault that can't be used.
    """

    def __init__(self, *, settings: EmulatorSettings, now_us: Callable[[], int], drive: bool = True) -> None:
        self.settings = settings
        self.catalogue = Catalogue(settings.feeds, settings.read)
        self._now_us = now_us
        self._drive = drive
        self._tape = _tape_of(settings, self.catalogue)
        self._script = load_script(Path(settings.script)) if settings.script else ()
        self._playback: Playback | None = None
        self._runners: list[web.AppRunner] = []
        self._transports: dict[str, set[asyncio.Transport]] = {}
        self._struck: set[tuple[int, str]] = set()
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self.rpc: tuple[SolanaServer, ...] = ()
        """The Solana endpoints, while it runs."""
        self.hermes: tuple[HermesServer, ...] = ()
        self.edge: tuple[EdgeServer, ...] = ()
        self.streams: tuple[StreamsServer, ...] = ()
        self.pro: tuple[ProServer, ...] = ()
        self.evm: tuple[EvmServer, ...] = ()
        self.urls: EmulatorUrls | None = None
        self.world = self._make_world(now_us())

    def _make_world(self, start_us: int) -> World:
        settings, book = self.settings, FaultBook(start_us)
        drivers: dict[Key, Iterator[Point]] = {}
        if self._tape is None:
            drivers |= self._walks(start_us)
        else:
            self._playback = Playback(
                self._tape,
                start_us,
                seed=settings.seed,
                speed=settings.speed,
                begin=settings.start,
                loop=settings.loop,
                noise_bps=settings.noise_bps,
            )
            for feed, oracle in self._tape.series:
                if feed in settings.feeds:
                    drivers[feed, oracle] = self._playback.points(feed, oracle)
        world = World(start_us, drivers, book, derive_aggregate=self._tape is None, catalogue=self.catalogue)
        for fault in (*settings.faults, *self._script):
            self._check_target(fault)
            book.add(fault, start_us)
        return world

    def _walks(self, start_us: int) -> Iterator[tuple[Key, Iterator[Point]]]:
        settings, every_us = self.settings, self.every_us
        unknown = next((feed for feed in settings.prices if feed not in settings.feeds), None)
        if unknown is not None:
            raise ConfigError(f"emulator.prices: names {unknown}, which is no feed")
        for feed in settings.feeds:
            given = settings.prices.get(feed)
            path = path_of(feed, None if given is None else mantissa_of(feed, given))
            pace = None if feed in ASSETS else every_us
            for oracle in self.catalogue.oracles[feed]:
                points = walk(feed, oracle, settings.seed, start_us, settings.noise_bps, path=path, every_us=pace)
                yield (feed, oracle), points

    @property
    def every_us(self) -> int:
        """How often an oracle speaks of a feed that is no known asset, at most: all of them share ``updates_per_s``."""
        oracles = [oracle for feed in self.catalogue.further for oracle in self.catalogue.oracles[feed]]
        fast = sum(MANNERS[oracle].cadence_us <= _SECOND_US for oracle in oracles)
        return fast * _SECOND_US // self.settings.updates_per_s

    # Life.

    async def start(self) -> EmulatorUrls:
        """Open the servers; what the oracles held at the beginning can be read at once.

        Raises:
            OSError: a port is taken.
        """
        self._make_servers()
        self.tick()
        try:
            self.urls = await self._serve_all()
        except OSError:
            await self.stop()
            raise
        if self._drive:
            self._task = asyncio.create_task(self._run(), name="emulator")
        return self.urls

    def _make_servers(self) -> None:
        settings = self.settings
        self.rpc = tuple(SolanaServer(name, self.world, self._now_us) for name in settings.rpc_names)
        self.hermes = tuple(
            HermesServer(name, self.world, self._now_us, key=settings.hermes_key) for name in settings.hermes_names
        )
        self.edge = tuple(
            EdgeServer(name, self.world, self._now_us, key=settings.edge_key) for name in settings.edge_names
        )
        self.streams = tuple(
            StreamsServer(name, self.world, self._now_us, key=settings.streams_key, secret=settings.streams_secret)
            for name in settings.streams_names
        )
        self.pro = tuple(ProServer(name, self.world, self._now_us, key=settings.pro_key) for name in settings.pro_names)
        self.evm = tuple(EvmServer(name, self.world, self._now_us) for name in settings.evm_names)

    async def _serve_all(self) -> EmulatorUrls:
        """Open all ports, in the order that ``port_base`` promises."""
        settings, port = self.settings, self.settings.port_base
        control = await self._serve("control", port, lambda app: None)
        where: dict[str, str] = {}
        for server in self._servers:
            port += bool(port)
            where[server.name] = await self._serve(server.name, port, server.routes)
        return EmulatorUrls(
            tuple(RpcUrls(name, f"http://{where[name]}", f"ws://{where[name]}") for name in settings.rpc_names),
            tuple(HermesUrl(name, f"http://{where[name]}", settings.hermes_key) for name in settings.hermes_names),
            f"http://{control}/emulator",
            tuple(EdgeUrl(name, f"http://{where[name]}", settings.edge_key) for name in settings.edge_names),
            tuple(StreamsUrl(name, f"ws://{where[name]}", f"http://{where[name]}") for name in settings.streams_names),
            tuple(ProUrl(name, f"ws://{where[name]}") for name in settings.pro_names),
            tuple(EvmUrl(name, f"ws://{where[name]}") for name in settings.evm_names),
        )

    @property
    def _servers(self) -> tuple[Server, ...]:
        """In the order of their ports: those that came later to the emulator stand last."""
        edge, streams = self.edge, self.streams
        return (*self.rpc, *self.hermes, *edge[:1], *streams[:1], *self.pro, *self.evm, *edge[1:], *streams[1:])

    async def stop(self) -> None:
        """Close all servers and sockets, within a second."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        with suppress(TimeoutError):
            async with asyncio.timeout(0.3):
                await asyncio.gather(*(server.close() for server in self._servers))
        for transports in self._transports.values():
            for transport in tuple(transports):
                transport.abort()
        await asyncio.gather(*(runner.cleanup() for runner in self._runners))
        self._runners.clear()

    async def _serve(self, name: str, port: int, routes: Callable[[web.Application], None]) -> str:
        app = web.Application(middlewares=[self._gate(name)])
        routes(app)
        app.router.add_get("/emulator", self._page)
        app.router.add_get("/emulator/faults", self._list)
        app.router.add_post("/emulator/faults", self._inject)
        app.router.add_delete("/emulator/faults", self._clear)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handle_signals=False)
        await runner.setup()
        self._runners.append(runner)
        await web.TCPSite(runner, self.settings.host, port).start()
        host, bound = runner.addresses[0][:2]
        return f"{host}:{bound}"

    def _gate(self, name: str) -> Callable[..., Awaitable[web.StreamResponse]]:
        """Keep account of sockets, and refuse them while a disconnect lasts."""
        sockets = self._transports.setdefault(name, set())

        @web.middleware
        async def gate(
            request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
        ) -> web.StreamResponse:
            transport = request.transport
            if transport is None:
                return web.Response()
            if self._refuses(name) and not request.path.startswith("/emulator"):
                transport.abort()
                return web.Response()  # goes nowhere
            sockets.add(transport)
            try:
                return await handler(request)
            finally:
                sockets.discard(transport)

        return gate

    def _refuses(self, name: str) -> bool:
        faults = self.world.faults.active(self._now_us(), "disconnect")
        return any(fault.hits_endpoint(name) and fault.end_us is not None for fault in faults)

    # Time.

    def tick(self) -> None:
        """Bring the world up to now and tell everybody. Called by the emulator's own task, or by who drives it."""
        now_us = self._now_us()
        changes = self._newest(self.world.advance(now_us))
        for fault in self.world.faults.active(now_us, "disconnect"):
            for name, transports in self._transports.items():
                if fault.hits_endpoint(name) and name != "control" and (fault.number, name) not in self._struck:
                    self._struck.add((fault.number, name))
                    for transport in tuple(transports):
                        transport.abort()
        for server in self._servers:
            server.tell(changes)

    def _newest(self, changes: list[Change]) -> list[Change]:
        """Without what is no news any more: a loop that was held up would fall further behind by telling all of it,
        thousands of feeds at once. Of the known assets everything is told."""
        if not self.catalogue.further or len(changes) < 2:
            return changes
        last = {(one.feed, one.oracle, one.address, one.endpoint): place for place, one in enumerate(changes)}
        keep = set(last.values())
        return [one for place, one in enumerate(changes) if place in keep or one.feed in ASSETS]

    def follow_clock(self) -> None:
        """Keep to a clock that was stepped, backwards or by more than half a minute: by whole seconds."""
        stepped_us = self._now_us() - self.world.now_us
        if not -_SECOND_US < stepped_us <= _LONGEST_PAUSE_US:
            self.world.rebase(stepped_us // _SECOND_US * _SECOND_US)

    async def _run(self) -> None:
        while True:
            self.follow_clock()
            self.tick()
            now_us = self._now_us()
            next_us = self.world.next_event_us()
            wait_us = SLOT_US - now_us % SLOT_US if next_us is None else min(next_us - now_us, SLOT_US)
            wait_s = min(max(wait_us / 1_000_000, _SHORTEST_SLEEP_S), _LONGEST_SLEEP_S)
            self._wake.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), wait_s)

    # Faults.

    def inject(self, fault: Fault) -> int:
        """Let a fault happen, now or at its time; its number.

        Raises:
            ConfigError: it makes no sense.
        """
        self._check_target(fault)
        active = self.world.faults.add(fault, self._now_us())
        self.tick()
        self._wake.set()
        return active.number

    def _check_target(self, fault: Fault) -> None:
        settings = self.settings
        feeds = settings.feeds if self._tape is None else [f for f, _ in self._tape.series if f in settings.feeds]
        check_target(
            fault,
            dict.fromkeys(feeds),
            (
                *settings.rpc_names,
                *settings.hermes_names,
                *settings.edge_names,
                *settings.streams_names,
                *settings.pro_names,
                *settings.evm_names,
                "control",
            ),
        )

    def clear(self, number: int | None = None) -> int:
        """Take back one fault, or all of them; how many."""
        count = self.world.faults.remove(number)
        self.tick()
        self._wake.set()
        return count

    # What it says of itself.

    @cached_property
    def feeds(self) -> list[str]:
        """All feeds that are played, by name."""
        return sorted({feed for feed, _ in self.world.keys})

    def describe(self) -> dict[str, object]:
        """Marks the simulation: what is played, and that none of it is the market. Of many feeds, the first ones."""
        settings = self.settings
        out: dict[str, object] = {"simulated": True, "feeds": self.feeds[:DESCRIBED_FEEDS]}
        if len(self.feeds) > DESCRIBED_FEEDS:
            out["feeds_omitted"] = len(self.feeds) - DESCRIBED_FEEDS
        if self._tape is None or self._playback is None:
            if self.catalogue.further:
                out["further_feeds_every_ms"] = self.every_us // 1_000
            return out | {"driver": "walk", "seed": settings.seed, "noise_bps": settings.noise_bps}
        playback = self._playback
        return out | {
            "driver": "tape",
            "tape": self._tape.name,
            "title": self._tape.title,
            "manifest": self._tape.manifest,
            "seed": settings.seed,
            "noise_bps": settings.noise_bps,
            "speed": settings.speed,
            "begin": utc_text(playback.begin_us),
            "offset_s": (playback.offset_us + self.world.shift_us) // _SECOND_US,
            "loop": settings.loop,
            "ended": playback.end_us is not None and self._now_us() > playback.end_us + self.world.shift_us,
            "rounded_prices": self._tape.rounded,
            "roles": self._tape.roles(),
        }

    async def _page(self, request: web.Request) -> web.Response:
        urls = msgspec.to_builtins(self.urls)
        for host in (*urls["hermes"], *urls["edge"]):
            host["key"] = "set" if host["key"] else None
        page = self.describe() | {
            "feeds": self.feeds,
            "now_us": self._now_us(),
            "urls": urls,
            "ages_ms": self.world.ages_ms(),
            "refused": self.world.refused,
            "subscriptions": {server.name: server.subscriptions for server in self.rpc},
            "streams": {host.name: host.streams for host in self.hermes}
            | {host.name: host.sockets for host in self.streams}
            | {host.name: host.sockets for host in self.pro},
        }
        return web.Response(body=orjson.dumps(page), content_type="application/json")

    async def _list(self, request: web.Request) -> web.Response:
        now_us = self._now_us()
        faults = [fault.describe(now_us) for fault in self.world.faults]
        return web.Response(body=orjson.dumps(faults), content_type="application/json")

    async def _inject(self, request: web.Request) -> web.Response:
        try:
            raw = orjson.loads(await request.read())
            faults = parse_faults(raw if isinstance(raw, list) else [raw], origin="fault")
            for fault in faults:  # all of them or none
                self._check_target(fault)
            numbers = [self.inject(fault) for fault in faults]
        except (orjson.JSONDecodeError, ConfigError) as error:
            return web.json_response({"error": str(error)}, status=400)
        return web.json_response({"ids": numbers})

    async def _clear(self, request: web.Request) -> web.Response:
        number = request.query.get("id")
        if number is not None and not number.isdecimal():
            return web.json_response({"error": f"id={number}: expected a fault's number"}, status=400)
        return web.json_response({"cleared": self.clear(None if number is None else int(number))})


def _tape_of(settings: EmulatorSettings, catalogue: Catalogue) -> Tape | None:
    if settings.tape is None:
        alone = {"a manifest": settings.manifest, "a start": settings.start, "a loop": settings.loop or None}
        for what, given in alone.items():
            if given is not None:
                raise ConfigError(f"emulator: {what} without a tape; give --tape FILE too")
        return None
    manifest = Path(settings.manifest) if settings.manifest else None
    return read_tape(Path(settings.tape), manifest, tuple(catalogue.assets))
