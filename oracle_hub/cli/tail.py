"""``oracle-hub tail``: the prices of a running hub, live."""

import argparse
import asyncio
import contextlib
import os
import sys
import time
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import orjson
from rich.console import Console
from rich.live import Live
from rich.table import Table
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.typing import Subprotocol

from oracle_hub.cli.asking import WANTED, hub_address, token_headers
from oracle_hub.cli.console import console
from oracle_hub.core.price import decimal_text
from oracle_hub.errors import ConfigError, SourceError
from oracle_hub.stream.messages import SUBPROTOCOL, CloseCode

STYLES = {"live": "green", "degraded": "yellow", "none": "red"}


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("feeds", metavar="FEED", nargs="*", help="feeds to follow, as in SOL/USD (default: all)")
    parser.add_argument("--url", default="http://127.0.0.1:8080", help="where the hub is (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="print every message of the stream as it comes")
    parser.add_argument("--count", type=int, metavar="N", help="stop after N updates")
    parser.add_argument("--svg", metavar="FILE", help="with --count: write the last table as a picture")


def run(options: argparse.Namespace) -> int:
    if options.count is not None and options.count < 1:
        raise ConfigError(f"--count {options.count}: at least one update")
    if options.svg is not None and options.count is None:
        raise ConfigError("--svg: goes with --count N, which says when the picture is drawn")
    asyncio.run(_follow(options))
    return 0


def stream_url(url: str) -> str:
    """``http://host:port`` to ``ws://host:port/v1/stream``."""
    parts = urlsplit(url)
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    return urlunsplit((scheme, parts.netloc, parts.path.rstrip("/") + "/v1/stream", "", ""))


async def _follow(options: argparse.Namespace) -> None:
    url = stream_url(hub_address(options.url, "--url"))
    view = _View(as_json=options.json)
    async with await _connected(url) as socket:
        try:
            await _show(socket, url, options, view)
        except ConnectionClosed as closed:
            if closed.rcvd is not None and closed.rcvd.code == CloseCode.UNAUTHORIZED:
                raise SourceError(f"{url}: {WANTED}") from None
            raise SourceError(f"{url}: the hub closed the stream ({closed})") from None
    if options.svg is not None:
        try:
            view.draw(options.svg)
        except OSError as error:
            raise ConfigError(f"--svg {options.svg}: cannot be written ({error.strerror})") from None


async def _connected(url: str) -> ClientConnection:
    """Raises SourceError where no hub answers, or one that refuses."""
    try:
        return await connect(
            url,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            additional_headers=token_headers(),
            compression=None,
            proxy=None,
        )
    except InvalidStatus as refusal:
        if refusal.response.status_code == HTTPStatus.UNAUTHORIZED:
            raise SourceError(f"{url}: {WANTED}") from None
        raise SourceError(f"{url}: the hub refused with HTTP {refusal.response.status_code}") from None
    except (OSError, WebSocketException) as error:
        raise SourceError(f"{url}: no hub there ({error}); start one with: oracle-hub run") from None


async def _show(socket: ClientConnection, url: str, options: argparse.Namespace, view: "_View") -> None:
    """Subscribe, and show what comes until there were enough updates."""
    subscribe = {"type": "subscribe", "id": 1, "channel": "prices", "feeds": options.feeds or ["*"], "detail": "full"}
    await socket.send(orjson.dumps(subscribe).decode())
    with view.screen:
        seen = 0
        async for text in socket:
            message = orjson.loads(text)
            _check_subscribed(message, url)
            view.take(message, text if isinstance(text, str) else text.decode())
            seen += message.get("type") == "update"
            if options.count is not None and seen >= options.count:
                break


def _check_subscribed(message: dict[str, Any], url: str) -> None:
    """Raise SourceError when the hub gives none of the feeds: nothing would ever come."""
    if message.get("type") == "subscribed" and message.get("sub") is None:
        refused = ", ".join(f"{one['feed']} ({one['code']})" for one in message.get("rejected", ()))
        raise SourceError(f"{url}: refused {refused}; GET /v1/prices lists all feeds")


class _View:
    """The table on a terminal; a line for each decision in a file or pipe; or the bare messages."""

    def __init__(self, *, as_json: bool) -> None:
        self._console = console()
        self._as_json = as_json
        self._feeds: dict[str, dict[str, Any]] = {}
        self._title = ""
        shows_table = self._console.is_terminal and not as_json
        self._live = Live(console=self._console, refresh_per_second=8) if shows_table else None
        self.screen: contextlib.AbstractContextManager[object] = self._live or contextlib.nullcontext()
        self._offset_us: int | None = None

    def take(self, message: dict[str, Any], text: str) -> None:
        if self._as_json:
            print(text, flush=True)
            return
        kind = message.get("type")
        stamp_us = message.get("sent_us") or message.get("server_time_us")
        if stamp_us:
            offset_us = time.time_ns() // 1_000 - stamp_us
            self._offset_us = offset_us if self._offset_us is None else min(self._offset_us, offset_us)
        if kind == "hello":
            simulated = "  SIMULATED: not the market" if message.get("simulated") else ""
            self._title = f"oracle-hub {message['instance'][:8]}  epoch {message['epoch']}{simulated}"
            if self._live is None:
                print(self._title, flush=True)
        elif kind == "subscribed":
            for rejected in message.get("rejected", ()):
                self._console.print(f"{rejected['feed']}: {rejected['code']}", style="red")
        elif kind in ("snapshot", "update"):
            self._feeds.update({feed["feed"]: feed for feed in message["feeds"]})
            if self._live is None:
                self._print(message)
        elif kind == "goaway":
            self._console.print(f"the hub goes away: {message.get('reason')}", style="yellow")
        if self._live is not None:
            self._live.update(self._table())

    def _print(self, message: dict[str, Any]) -> None:
        """A line for each feed of a message, as it stood when the hub sent it: by that time, which begins the line."""
        sent_us = message["sent_us"]
        at = datetime.fromtimestamp(sent_us / 1e6, UTC).strftime("%H:%M:%S.%f")[:-3]
        for feed in message["feeds"]:
            print(at, *self._cells(feed, sent_us), sep="  ")
        sys.stdout.flush()

    def _now_us(self) -> int:
        """The hub's clock, as far as messages told it."""
        return time.time_ns() // 1_000 - (self._offset_us or 0)

    def draw(self, path: str) -> None:
        """Write the table as an SVG."""
        with Path(os.devnull).open("w") as nowhere:
            canvas = Console(record=True, width=150, file=nowhere, emoji=False)
            canvas.print(self._table())
            canvas.save_svg(path, title="oracle-hub tail")

    def _table(self) -> Table:
        now_us = self._now_us()
        table = Table(title=self._title, title_style="bold magenta" if "SIMULATED" in self._title else "bold")
        for column in ("feed", "state", "price", "source", "rule", "reason", "age s", "lease s", "inputs"):
            table.add_column(column, justify="right" if column in ("price", "age s", "lease s") else "left")
        for feed in self._feeds.values():
            name, state, *others = self._cells(feed, now_us)
            table.add_row(name, f"[{STYLES[state]}]{state}[/]", *others)
        return table

    @staticmethod
    def _cells(feed: dict[str, Any], now_us: int) -> tuple[str, ...]:
        """A feed at an instant of the hub's clock, by column."""
        until_us = feed.get("valid_until_us")
        over = until_us is not None and until_us <= now_us
        price = None if over or feed["price"] is None else decimal_text(int(feed["price"]), feed["expo"])
        return (
            feed["feed"],
            "none" if over else feed["state"],
            price or "—",
            feed["source"] or "—",
            feed["rule"] or "—",
            "lease over" if over else feed["reason"],
            _seconds(now_us - feed["publish_time_us"]) if feed.get("publish_time_us") else "—",
            _seconds(until_us - now_us) if until_us and not over else "—",
            "  ".join(f"{source} {entry['status']}" for source, entry in feed.get("inputs", {}).items()),
        )


def _seconds(us: int) -> str:
    return f"{us / 1e6:.1f}"
