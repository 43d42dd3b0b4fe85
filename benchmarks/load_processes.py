"""The processes of :mod:`benchmarks.load`: a source of thousands of feeds, the hub, and a subscriber of all of them.

The source makes all bytes beforehand and then only writes them, each at its instant, whether the hub keeps up or not.
"""

import asyncio
import cProfile
import gc
import os
import resource
import time
from multiprocessing.connection import Connection
from typing import Any

import msgspec
import orjson
from aiohttp import web

from benchmarks import catalogue, chain, relay

TICK_S = 0.002
LEAD_S = 1.0
"""Before the first write, after everything is made."""
FIRST_SLOT = 400_000_000


class Plan(msgspec.Struct, frozen=True):
    """What is sent: each source tells each feed so often, at even distances, the feeds one after the other."""

    n_feeds: int
    hertz: int
    seconds: float
    hermes: bool

    @property
    def turns(self) -> int:
        return round(self.hertz * self.seconds)

    @property
    def updates(self) -> int:
        """Of all sources."""
        return 3 * self.n_feeds * self.turns


class Sent(msgspec.Struct, frozen=True):
    """What a source did."""

    due_us: list[int]
    """Unix time at which each notification was to be written, in their order."""
    late_us: int
    """How far behind its plan it was at the worst: then the machine is too small to tell anything."""
    busy_share: float
    """Of the core that it shares with the subscriber."""


class Measured(msgspec.Struct, frozen=True):
    """What the hub process saw."""

    applied: dict[str, int]
    """Updates of each source, by what became of them."""
    decisions: int
    batches: int
    waits_us: list[int]
    """Per update, ascending: from its ``received_us`` to the instant of the decision."""
    decided_us: list[int]
    """Per notification of an account, in the order of their coming: the instant of the decision."""
    core_share: float
    """CPU seconds of the whole process for each second of the round."""
    loop_share: float
    """The same of the thread with the loop alone."""
    seconds: float
    peak_rss_mib: float
    parts_s: dict[str, float]
    """Seconds in each part of the loop's thread; what is left is sockets, websocket frames and the loop itself."""
    pauses_us: list[int]
    """Of the garbage collector."""
    journal_mib: float
    """Written since the hub started."""


def pin(core: int) -> None:
    """Keep this process on one core, where the machine has that many."""
    if core in os.sched_getaffinity(0):
        os.sched_setaffinity(0, {core})


# The source.


class LoadSource:
    """A node's JSON-RPC and pubsub, and a Hermes without proofs, for a made catalogue."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        sources = ("lazer", "chainlink") if plan.hermes else tuple(catalogue.SOURCES)
        self._accounts = {
            catalogue.SOURCES[source].address(catalogue.made_asset(number)): (source, number)
            for source in sources
            for number in range(plan.n_feeds)
        }
        self._by_id = {catalogue.made_asset(number).hermes_id: number for number in range(plan.n_feeds)}
        self._subscriptions: dict[tuple[str, int], int] = {}
        self._pubsub: asyncio.WriteTransport | None = None
        self._streams: list[tuple[list[int], asyncio.WriteTransport]] = []
        self._ticks: list[list[tuple[asyncio.WriteTransport, bytes]]] = []

    def routes(self, app: web.Application) -> None:
        app.router.add_post("/", self._rpc)
        app.router.add_get("/pubsub", self._websocket)
        app.router.add_get("/v2/updates/price/latest", self._latest)
        app.router.add_get("/v2/updates/price/stream", self._stream)

    async def _rpc(self, request: web.Request) -> web.Response:
        call = orjson.loads(await request.read())
        result: object = chain.GENESIS_HASH
        if call["method"] == "getMultipleAccounts":
            now_s = int(time.time()) - 1
            values = [
                catalogue.account_value(*self._accounts[address], 0, now_s, FIRST_SLOT) for address in call["params"][0]
            ]
            result = {"context": {"slot": FIRST_SLOT}, "value": values}
        return web.Response(body=chain.reply(call["id"], result), content_type="application/json")

    async def _websocket(self, request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(compress=False)
        await ws.prepare(request)
        assert isinstance(request.transport, asyncio.WriteTransport)
        self._pubsub = request.transport
        async for message in ws:
            call = orjson.loads(message.data)
            if call["method"] == "slotSubscribe":
                error = {"code": -32601, "message": "Method not found"}
                await ws.send_str(orjson.dumps({"jsonrpc": "2.0", "id": call["id"], "error": error}).decode())
                continue
            self._subscriptions[self._accounts[call["params"][0]]] = call["id"]
            await ws.send_str(chain.reply(call["id"], call["id"]).decode())
        return ws

    def _numbers(self, request: web.Request) -> list[int]:
        return [self._by_id[price_id] for price_id in request.query.getall("ids[]")]

    async def _latest(self, request: web.Request) -> web.Response:
        now_s = int(time.time()) - 1
        parsed = [catalogue.hermes_entry(number, 0, now_s, FIRST_SLOT) for number in self._numbers(request)]
        body = {"binary": {"encoding": "base64", "data": []}, "parsed": parsed}
        return web.Response(body=orjson.dumps(body), content_type="application/json")

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        assert isinstance(request.transport, asyncio.WriteTransport)
        self._streams.append((self._numbers(request), request.transport))
        await asyncio.Event().wait()
        return response

    def ready(self) -> bool:
        """Whether the hub reads everything."""
        told = sum(len(numbers) for numbers, _ in self._streams)
        return len(self._subscriptions) == len(self._accounts) and (not self._plan.hermes or told == self._plan.n_feeds)

    def make(self) -> float:
        """Make all bytes, for a start soon after; return its Unix time. On a machine that is too busy for it, again."""
        plan, lead_s = self._plan, LEAD_S + self._plan.updates * 40e-6
        while True:
            self._started_s = int(time.time() + lead_s) + 1
            self._ticks = [[] for _ in range(round(plan.seconds / TICK_S) + 1)]
            self._due_us: list[int] = []
            self._make_notifications()
            self._make_events()
            gc.collect()
            if time.time() + lead_s / 2 < self._started_s:
                break
            lead_s *= 3
        gc.freeze()
        return self._started_s

    async def go(self) -> Sent:
        """Write everything at its time."""
        loop = asyncio.get_running_loop()
        began_s = loop.time() + self._started_s - time.time()
        if began_s < loop.time():
            raise SystemExit("load: the source was too slow to make its bytes")
        late_s, cpu_s = 0.0, time.process_time()
        for number, tick in enumerate(self._ticks):
            due_s = began_s + number * TICK_S
            await asyncio.sleep(max(0.0, due_s - loop.time()))
            late_s = max(late_s, loop.time() - due_s)
            for transport, data in tick:
                transport.write(data)
        busy = (time.process_time() - cpu_s) / self._plan.seconds
        return Sent(self._due_us, round(late_s * 1e6), busy)

    def _make_notifications(self) -> None:
        """The accounts in an order that mixes feeds and sources; one write for each tick."""
        accounts, plan = list(self._accounts.values()), self._plan
        pieces: list[list[bytes]] = [[] for _ in self._ticks]
        accounts.sort(key=lambda one: catalogue.made_key(f"{one}"))
        for turn in range(plan.turns):
            for position, (source, number) in enumerate(accounts):
                at_s = (turn + position / len(accounts)) / plan.hertz
                slot = FIRST_SLOT + turn + 1
                value = catalogue.account_value(source, number, turn + 1, int(self._started_s + at_s), slot)
                data = chain.notification(self._subscriptions[source, number], slot, value)
                at_tick = int(at_s / TICK_S)
                pieces[at_tick].append(relay.text_frame(data))
                self._due_us.append(round((self._started_s + at_tick * TICK_S) * 1e6))
        assert self._pubsub is not None
        for tick, frames in zip(self._ticks, pieces, strict=True):
            tick.append((self._pubsub, b"".join(frames)))

    def _make_events(self) -> None:
        """Hermes tells the feeds of a stream in one event, as many times; the streams one after the other."""
        plan = self._plan
        for turn in range(plan.turns):
            for position, (numbers, transport) in enumerate(self._streams):
                at_s = (turn + position / len(self._streams)) / plan.hertz
                slot = FIRST_SLOT + turn + 1
                parsed = [
                    catalogue.hermes_entry(number, turn + 1, int(self._started_s + at_s), slot) for number in numbers
                ]
                body = orjson.dumps({"binary": {"encoding": "base64", "data": []}, "parsed": parsed})
                event = b"data:" + body + b"\n\n"
                chunk = f"{len(event):x}\r\n".encode() + event + b"\r\n"
                self._ticks[int(at_s / TICK_S)].append((transport, chunk))


def run_source(commands: Connection, plan: Plan) -> None:
    """Process: serve, tell the port; ``ready`` asks whether the hub has subscribed, then ``make``, then ``go``."""

    async def serve() -> None:
        pin(0)
        source = LoadSource(plan)
        app = web.Application(handler_args={"max_line_size": 2**20, "max_field_size": 2**20})
        source.routes(app)

        async def act(command: str) -> object:
            if command == "ready":
                return source.ready()
            if command == "make":
                return source.make()
            return msgspec.to_builtins(await source.go())

        async with relay.listening(app) as port:
            await relay.obey(commands, port, act)

    relay.run(serve())


# The hub.


class Stamps:
    """Stands around a pump: notes when frames came, when what they brought was decided, and what each part took."""

    def __init__(self, pump: Any) -> None:
        self._pump = pump
        self._waiting: list[tuple[int, int]] = []
        self.prices: list[tuple[int, int, int]] = []
        """Per frame with prices: how many (0: one, of an account), receipt, decision."""
        self.decisions = self.batches = 0
        self.parts_s: dict[str, float] = {}
        """Time in each part; they do not overlap."""
        self._timed(pump.engine.hub, "step", "decide")
        self._timed(pump.engine, "watch", "alerts")
        self._timed(pump, "_commit", "journal")
        self._timed(pump, "_publish", "publish")
        self._timed(pump, "on_frame", "frames")
        self._on_frame, self._step, self._publish = pump.on_frame, pump.step, pump._publish
        vars(pump).update(on_frame=self.on_frame, step=self.step, _publish=self.publish)

    def _timed(self, part: Any, name: str, told: str, within: str = "") -> None:
        """Count the time in a call, without that of the part ``within`` it."""
        call, spent, clock = getattr(part, name), self.parts_s, time.perf_counter

        def timed(*arguments: Any, **more: Any) -> Any:
            inner_s, began_s = spent.get(within, 0.0), clock()
            result = call(*arguments, **more)
            spent[told] = spent.get(told, 0.0) + clock() - began_s - spent.get(within, 0.0) + inner_s
            return result

        vars(part)[name] = timed

    def on_frame(self, link: Any, frame: Any, received_us: int) -> Any:
        effects = self._on_frame(link, frame, received_us)
        if frame.channel == "websocket":
            self._waiting.append((0, received_us))
        elif frame.channel == "sse" and frame.data:
            self._waiting.append((frame.data.count(b'"ema_price"'), received_us))
        return effects

    def step(self) -> None:
        waiting, self._waiting = self._waiting, []
        now_us = self._pump.clock.now_us()  # the decisions' own instant is read next, first thing in the step
        self.prices += [(count, received_us, now_us) for count, received_us in waiting]
        self._step()

    def publish(self, batch: Any, journaled: bool) -> None:
        self.decisions += len(batch.decisions)
        self.batches += 1
        self._publish(batch, journaled)

    def forget(self) -> None:
        """Begin anew."""
        self.prices.clear()
        self.parts_s.clear()
        self.decisions = self.batches = 0


class HubWatch:
    """The hub process, asked what it does."""

    def __init__(self, application: Any) -> None:
        self._application = application
        self._stamps = Stamps(application.pump)
        self._began = (0.0, 0.0, 0.0)
        self._pauses_us: list[int] = []
        self._paused_ns = 0
        gc.callbacks.append(self._collected)

    def _collected(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._paused_ns = time.perf_counter_ns()
        else:
            self._pauses_us.append((time.perf_counter_ns() - self._paused_ns) // 1_000)

    async def obey(self, command: str) -> object:
        """``live``: how many feeds are; ``begin`` a round; ``count``: frames with prices so far; ``end`` gives a
        :class:`Measured`, as plain data."""
        engine = self._application.pump.engine
        if command == "live":
            return sum(decision.state == "live" for decision in engine.hub.decisions.values())
        if command == "count":
            return len(self._stamps.prices)
        if command == "begin":
            self._stamps.forget()
            self._pauses_us.clear()
            self._taken = engine.applied.copy()
            self._began = (time.monotonic(), time.process_time(), time.thread_time())
            return None
        return msgspec.to_builtins(self._measured())

    def _measured(self) -> Measured:
        stamps, application = self._stamps, self._application
        wall_s, process_s, thread_s = self._began
        seconds = time.monotonic() - wall_s
        waits = [decided - received for count, received, decided in stamps.prices for _ in range(count or 1)]
        applied = application.pump.engine.applied - self._taken
        return Measured(
            applied={f"{source} {verdict}": count for (source, verdict), count in applied.items()},
            decisions=stamps.decisions,
            batches=stamps.batches,
            waits_us=sorted(waits),
            decided_us=[decided for count, _, decided in stamps.prices if not count],
            core_share=(time.process_time() - process_s) / seconds,
            loop_share=(time.thread_time() - thread_s) / seconds,
            seconds=seconds,
            peak_rss_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            parts_s=dict(stamps.parts_s),
            pauses_us=sorted(self._pauses_us),
            journal_mib=application.journal.bytes_written / 2**20,
        )


def run_hub(commands: Connection, config: str, profile: str | None = None) -> None:
    """Process: the whole program, as ``oracle-hub run`` has it, on one core. ``profile``: where to leave cProfile's."""
    from oracle_hub.app.run import Application  # the other processes do without it
    from oracle_hub.config import parse_config

    async def serve() -> None:
        pin(1)
        async with Application(parse_config(config, origin="benchmark")) as application:
            watch = HubWatch(application)
            port = int(application.url.rpartition(":")[2])
            await relay.obey(commands, port, watch.obey)

    if profile is None:
        relay.run(serve())
        return
    profiler = cProfile.Profile()
    profiler.runcall(relay.run, serve())
    profiler.dump_stats(profile)


# The subscriber.


class Reader(relay.Subscriber):
    """Counts bytes, and keeps nothing."""

    n_bytes = 0

    def data_received(self, data: bytes) -> None:
        self.n_bytes += len(data)
        self.answer(data)


def run_reader(commands: Connection, port: int) -> None:
    """Process: one subscriber of everything; each command is answered with the bytes read so far."""

    async def serve() -> None:
        pin(0)
        loop = asyncio.get_running_loop()
        _, reader = await loop.create_connection(Reader, "127.0.0.1", port)
        while not reader.n_bytes:  # noqa: ASYNC110 - the handshake
            await asyncio.sleep(0.01)
        reader.send(b'{"type":"subscribe","feeds":["*"]}')

        async def act(command: object) -> int:
            return reader.n_bytes

        await relay.obey(commands, port, act)

    relay.run(serve())
