"""The files of the dashboard: ``/`` and ``/dashboard/…``. Whatever the page loads comes from here, and nowhere else."""

from collections.abc import Awaitable, Callable
from importlib.resources import files
from pathlib import Path

from aiohttp import web

from oracle_hub.charts.context import Context

STATIC = Path(str(files("oracle_hub.charts.dashboard"))) / "static"
CLIENT = Path(str(files("oracle_hub.client"))) / "js" / "oracle-hub.mjs"
"""The JavaScript client that everybody may use: the page judges leases with it."""
PREFIX = "/dashboard/"
CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".LICENSE": "text/plain; charset=utf-8",
}
POLICY = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'"
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # kept, but asked for again: a new version shows at once
}


def served() -> dict[str, Path]:
    """Every file by its path on the server. Nothing else is reachable."""
    found = {
        PREFIX + path.relative_to(STATIC).as_posix(): path
        for path in sorted(STATIC.rglob("*"))
        if path.suffix in CONTENT_TYPES and path.name != "index.html"
    }
    return {"/": STATIC / "index.html", **found, PREFIX + CLIENT.name: CLIENT}


def routes(context: Context) -> list[web.RouteDef]:
    """The page and its files."""
    return [web.get(path, _handler(file)) for path, file in served().items()]


def _handler(file: Path) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    headers = {**HEADERS, "Content-Type": CONTENT_TYPES[file.suffix]}

    async def handle(request: web.Request) -> web.StreamResponse:
        return web.FileResponse(file, headers=headers)

    return handle
