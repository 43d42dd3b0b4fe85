"""HTTP answers of the doors: JSON, errors with closed codes, limits, and who may read from a browser."""

import logging
from collections.abc import Awaitable, Callable
from enum import StrEnum
from urllib.parse import urlsplit

import msgspec
from aiohttp import web

from oracle_hub.charts.settings import Settings
from oracle_hub.hosts import host_allowed

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

encode = msgspec.json.Encoder().encode


class ChartsCode(StrEnum):
    """Codes of errors: over HTTP in ``{"error": {"code", "message"}}``, on websockets in ``error`` messages."""

    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    BAD_REQUEST = "bad_request"
    BAD_QUERY = "bad_query"
    UNKNOWN_FEED = "unknown_feed"
    UNKNOWN_RESOLUTION = "unknown_resolution"
    TOO_MANY_ROWS = "too_many_rows"
    """The range holds more than one answer may: ask for less at once."""
    UPGRADE_REQUIRED = "upgrade_required"
    ORIGIN_REFUSED = "origin_refused"
    HOST_REFUSED = "host_refused"
    TOO_MANY_LISTENERS = "too_many_listeners"
    TOO_MANY_FROM_ADDRESS = "too_many_from_address"
    BUSY = "busy"
    """Too many requests wait for the store."""
    STORE_FAILED = "store_failed"
    """The store could not be read; live prices go on."""
    SHUTTING_DOWN = "shutting_down"
    HEAD_TOO_LARGE = "head_too_large"
    """The request line, or a header, is too long. Said by the listener (:mod:`oracle_hub.server.door`)."""
    INTERNAL = "internal"


class Refused(Exception):
    """A request that is not served. The application answers as JSON; a door with a format of its own may catch it."""

    def __init__(self, status: int, code: ChartsCode, message: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.retry_after_s = retry_after_s

    @property
    def headers(self) -> dict[str, str]:
        """``Retry-After``, where coming back later helps."""
        return {} if self.retry_after_s is None else {"Retry-After": str(self.retry_after_s)}


class ErrorBody(msgspec.Struct, frozen=True, gc=False):
    """An error that a program can tell by its code and a person by its message."""

    code: str
    message: str


class ErrorAnswer(msgspec.Struct, frozen=True, gc=False):
    """Body of every answer that is none."""

    error: ErrorBody


def json_answer(value: object, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """A JSON body that no cache may keep. ``value`` is anything that msgspec encodes."""
    return web.Response(
        body=encode(value),
        status=status,
        content_type="application/json",
        headers={"Cache-Control": "no-store", **(headers or {})},
    )


def error_answer(status: int, code: ChartsCode, message: str, headers: dict[str, str] | None = None) -> web.Response:
    """A refusal or a failure."""
    return json_answer(ErrorAnswer(ErrorBody(code.value, message)), status, headers)


def origin_allowed(origin: str, host: str, allowed: tuple[str, ...]) -> bool:
    """Whether a browser's page from ``origin`` may read from us: from our own host, or listed."""
    if "*" in allowed or origin in allowed:
        return True
    return urlsplit(origin).netloc.lower() == host.lower() != ""


_BY_STATUS = {404: ChartsCode.NOT_FOUND, 405: ChartsCode.METHOD_NOT_ALLOWED}
_MISSED = "this origin is not in charts.allowed_origins"


_MISDIRECTED = "this server does not go by this name; see charts.allowed_hosts"


def guard(settings: Settings, on_error: Callable[[], None]) -> Callable[..., Awaitable[object]]:
    """A middleware: the names that are answered to, the Origin policy (CORS and its preflight), every error as JSON.

    Programs, which send no Origin, are not concerned. ``on_error`` counts answers that failed inside the server.
    """

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        if not host_allowed(request.headers.get("Host"), settings.host, settings.allowed_hosts):
            return error_answer(421, ChartsCode.HOST_REFUSED, _MISDIRECTED)
        origin = request.headers.get("Origin")
        if origin is not None and not origin_allowed(origin, request.host, settings.allowed_origins):
            return error_answer(403, ChartsCode.ORIGIN_REFUSED, _MISSED)
        if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
            answer: web.StreamResponse = _preflight(request)
        else:
            answer = await _answer(request, handler, on_error)
        if origin is not None and not answer.prepared:
            answer.headers.update(cors_headers(origin))
        return answer

    return middleware


def cors_headers(origin: str | None) -> dict[str, str]:
    """What lets a page of an allowed origin read an answer. Streams send them with their first bytes."""
    return {} if origin is None else {"Access-Control-Allow-Origin": origin, "Vary": "Origin"}


def _preflight(request: web.Request) -> web.Response:
    asked = request.headers.get("Access-Control-Request-Headers", "")
    headers = {"Access-Control-Allow-Methods": "GET, HEAD, OPTIONS", "Access-Control-Max-Age": "600"}
    if asked:
        headers["Access-Control-Allow-Headers"] = asked[:500]
    return web.Response(status=204, headers=headers)


async def _answer(request: web.Request, handler: Handler, on_error: Callable[[], None]) -> web.StreamResponse:
    try:
        return await handler(request)
    except Refused as refused:
        return error_answer(refused.status, refused.code, str(refused), refused.headers)
    except web.HTTPException as error:
        code = _BY_STATUS.get(error.status, ChartsCode.BAD_REQUEST)
        kept = {key: error.headers[key] for key in ("Allow", "Location") if key in error.headers}
        return error_answer(error.status, code, f"{request.method} {request.path[:200]}: {error.reason}", kept)
    except ConnectionResetError:
        return web.Response(status=400)  # goes nowhere: the peer left under our hands
    except Exception:
        on_error()
        log.exception("a request failed: %s %s", request.method, request.path[:200])
        return error_answer(500, ChartsCode.INTERNAL, "the server failed to answer; see its log")
