"""HTTP answers: JSON, errors with closed codes, and who may read from a browser."""

from collections import Counter
from collections.abc import Awaitable, Callable
from enum import StrEnum
from urllib.parse import urlsplit

import orjson
from aiohttp import web

from oracle_hub.errors import NoAnswerError

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class RequestError(StrEnum):
    """Codes of HTTP errors, in ``{"error": {"code", "message"}}``."""

    NOT_FOUND = "not_found"
    UNKNOWN_FEED = "unknown_feed"
    UNAUTHORIZED = "unauthorized"
    TOKEN_IN_QUERY = "token_in_query"
    TOO_MANY_FOR_TOKEN = "too_many_for_token"
    HEAD_TOO_LARGE = "head_too_large"
    BAD_QUERY = "bad_query"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    BAD_REQUEST = "bad_request"
    UPGRADE_REQUIRED = "upgrade_required"
    UNKNOWN_SUBPROTOCOL = "unknown_subprotocol"
    ORIGIN_REFUSED = "origin_refused"
    HOST_REFUSED = "host_refused"
    TOO_MANY_CONNECTIONS = "too_many_connections"
    TOO_MANY_FROM_ADDRESS = "too_many_from_address"
    SHUTTING_DOWN = "shutting_down"
    HUB_SILENT = "hub_silent"
    """This process serves for a hub in another one, which did not answer in time."""
    INTERNAL = "internal"


def json_answer(value: object, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """A JSON body that no cache may keep."""
    return bytes_answer(orjson.dumps(value), status, headers)


def bytes_answer(body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """A body that is JSON already."""
    return web.Response(
        body=body,
        status=status,
        content_type="application/json",
        headers={"Cache-Control": "no-store", **(headers or {})},
    )


def error_answer(status: int, code: RequestError, message: str, headers: dict[str, str] | None = None) -> web.Response:
    """An error that a program can tell by its code and a person by its message."""
    answer = json_answer({"error": {"code": code.value, "message": message}}, status, headers)
    answer[_CODE] = code
    return answer


_CODE = web.ResponseKey("oracle_hub.code", RequestError)
REFUSALS = frozenset(
    (
        RequestError.UNAUTHORIZED,
        RequestError.TOKEN_IN_QUERY,
        RequestError.ORIGIN_REFUSED,
        RequestError.HOST_REFUSED,
        RequestError.TOO_MANY_CONNECTIONS,
        RequestError.TOO_MANY_FROM_ADDRESS,
        RequestError.TOO_MANY_FOR_TOKEN,
        RequestError.SHUTTING_DOWN,
    )
)
"""Codes that say not what was asked wrongly, but who is not served."""


def counted(refusals: Counter[str]) -> Callable[..., Awaitable[object]]:
    """A middleware, outside of all that refuse: counts refusals by their code."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        answer = await handler(request)
        code = answer.get(_CODE)
        if code is not None and code in REFUSALS:
            refusals[code.value] += 1
        return answer

    return middleware


def origin_allowed(origin: str, host: str, allowed: tuple[str, ...]) -> bool:
    """Whether a browser's page from ``origin`` may read from us: from our own host, or listed."""
    if "*" in allowed or origin in allowed:
        return True
    return urlsplit(origin).netloc.lower() == host.lower() != ""


def _preflight() -> web.Response:
    """What a browser asks before it sends a page's request with a token to another host."""
    allowed = {"Access-Control-Allow-Methods": "GET", "Access-Control-Allow-Headers": "Authorization"}
    return web.Response(status=204, headers={**allowed, "Access-Control-Max-Age": "600"})


_BY_STATUS = {404: RequestError.NOT_FOUND, 405: RequestError.METHOD_NOT_ALLOWED}


_THERE_IS = "there are /v1/prices, /v1/stream, /readyz (docs/protocol.md); the dashboard is at the port of charts"
_MISDIRECTED = "this server does not go by this name; see server.allowed_hosts"


def guard(
    allowed_origins: tuple[str, ...],
    on_error: Callable[[Exception], None],
    answers_to: Callable[[str | None], bool] = lambda host: True,
) -> Callable[..., Awaitable[object]]:
    """A middleware: the policies for names (``Host``) and origins, and errors as JSON.

    Programs, which send no Origin, are not concerned by that one.
    """

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        if not answers_to(request.headers.get("Host")):
            return error_answer(421, RequestError.HOST_REFUSED, _MISDIRECTED)
        origin = request.headers.get("Origin")
        if origin is not None and not origin_allowed(origin, request.host, allowed_origins):
            return error_answer(403, RequestError.ORIGIN_REFUSED, "this origin is not in server.allowed_origins")
        try:
            preflight = request.method == "OPTIONS" and origin is not None
            answer = _preflight() if preflight else await handler(request)
        except web.HTTPException as error:
            code = _BY_STATUS.get(error.status, RequestError.BAD_REQUEST)
            kept = {key: error.headers[key] for key in ("Allow", "Location") if key in error.headers}
            text = f"{request.method} {request.path}: {error.reason}"
            if code is RequestError.NOT_FOUND:
                text += f"; {_THERE_IS}"
            answer = error_answer(error.status, code, text, kept)
        except NoAnswerError as error:
            answer = error_answer(503, RequestError.HUB_SILENT, str(error), {"Retry-After": "1"})
        except ConnectionError:  # aiohttp raises the plain kind to who waits for the peer to read
            return web.Response(status=400)  # goes nowhere: the peer left under our hands, and nothing of ours failed
        except Exception as error:
            on_error(error)
            answer = error_answer(500, RequestError.INTERNAL, "the server failed to answer; see its log")
        if origin is not None and not answer.prepared:
            answer.headers["Access-Control-Allow-Origin"] = origin
            answer.headers["Vary"] = "Origin"
        return answer

    return middleware
