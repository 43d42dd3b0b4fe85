"""API tokens: who may come in, by which of three ways, and how many at once with the same one.

A token comes as ``Authorization: Bearer``, as a subprotocol offered beside ours (browsers can set no header), or in the
first message. Only its SHA-256 is held, so no log, error or repr can show it, and it is compared with every token that
is known, in constant time. In a query it is refused: addresses are kept in logs and histories all over the way.
"""

import asyncio
import base64
import binascii
import contextlib
import hmac
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from hashlib import sha256

import msgspec
from aiohttp import WSMsgType, web

from oracle_hub.errors import StreamError
from oracle_hub.server.answers import Handler, RequestError, error_answer
from oracle_hub.stream.messages import Auth, CloseCode, parse_client_message
from oracle_hub.stream.session import SessionLimits

TOKEN_SUBPROTOCOL = "oraclehub.token."
"""Followed by the token in base64url without padding. Never the subprotocol that is chosen."""
OPEN_PATHS = ("/livez", "/readyz")
"""For those who look after the process, and hold no token."""
STREAM_PATH = "/v1/stream"
"""Asks for itself, after its own limits: it may be told the token later."""
QUERY_KEYS = frozenset(
    ("token", "access_token", "auth_token", "api_token", "auth", "authorization", "bearer", "key", "api_key", "apikey")
)


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """One token, known by its digest, and what its bearers may do. None: as everybody."""

    name: str
    digest: bytes
    """SHA-256 of the token."""
    max_connections: int = 1_000
    """Of all its bearers together."""
    max_subscriptions: int | None = None
    requests_per_second: int | None = None
    request_burst: int | None = None

    def session_limits(self, common: SessionLimits) -> SessionLimits:
        """The limits of one connection: those of everybody, with its own instead where it has them."""
        own = {
            "max_subscriptions": self.max_subscriptions,
            "requests_per_second": self.requests_per_second,
            "request_burst": self.request_burst,
        }
        return msgspec.structs.replace(common, **{key: value for key, value in own.items() if value is not None})


def token_digest(secret: str) -> bytes:
    """What is held of a token."""
    return sha256(secret.encode("utf-8", "surrogateescape")).digest()


class Visitor:
    """One connection on its way in. While it is inside, it counts among the bearers of its token."""

    def __init__(self, tokens: "Tokens") -> None:
        self._tokens = tokens
        self.token: Token | None = None
        self.refusal: web.Response | None = None
        """What to answer instead of letting it in."""
        self.must_authenticate = False
        """It has shown no token, and one is required: its first message has to."""

    def enter(self, token: Token) -> bool:
        """Count it as a bearer; False when there are too many already."""
        if self._tokens.bearers[token.name] >= token.max_connections:
            return False
        self._tokens.bearers[token.name] += 1
        self.token = token
        return True

    def leave(self) -> None:
        if self.token is not None:
            self._tokens.bearers[self.token.name] -= 1

    async def authenticate(self, ws: web.WebSocketResponse, timeout_s: float) -> CloseCode | None:
        """Wait for the first message. Returns the code to close with when it does not show a token that is known."""
        try:
            async with asyncio.timeout(timeout_s):  # receive's own begins anew at every ping
                message = await ws.receive()
                while message.type in (WSMsgType.PING, WSMsgType.PONG):
                    if message.type is WSMsgType.PING:
                        await ws.pong(message.data)
                    message = await ws.receive()
        except TimeoutError:
            return CloseCode.UNAUTHORIZED
        token = self._tokens.find(_token_of(message.data)) if message.type is WSMsgType.TEXT else None
        if token is None:
            return CloseCode.UNAUTHORIZED
        return None if self.enter(token) else CloseCode.TOO_MANY_FOR_TOKEN


def _token_of(text: str) -> str:
    try:
        message = parse_client_message(text)
    except StreamError:
        return ""
    return message.token if isinstance(message, Auth) else ""


class Tokens:
    """The tokens that are known, and how many connections each has."""

    def __init__(self, tokens: Sequence[Token] = (), *, required: bool = False) -> None:
        self.bearers: Counter[str] = Counter()
        """Connections by name of their token."""
        self.change(tokens, required=required)

    def change(self, tokens: Sequence[Token], *, required: bool) -> None:
        """Know these from now on. Who is inside already must be looked at with :meth:`still_welcome`."""
        self._tokens = tuple(tokens)
        self.required = required

    @property
    def names(self) -> list[str]:
        return [token.name for token in self._tokens]

    def still_welcome(self, token: Token | None) -> bool:
        """Whether somebody who came in with this token, or with none, could do so now."""
        if token is None:
            return not self.required
        return any(token.name == known.name and token.digest == known.digest for known in self._tokens)

    def find(self, secret: str) -> Token | None:
        """The token that this is. All are compared, whichever it is."""
        given, found = token_digest(secret), None
        for token in self._tokens:
            if hmac.compare_digest(given, token.digest):
                found = token
        return found

    @contextlib.contextmanager
    def visit(self, request: web.Request) -> Iterator[Visitor]:
        """Look at who asks for the stream. Counts it until the end of the ``with``."""
        visitor = Visitor(self)
        secret = self._presented(request)
        if secret is None:
            visitor.must_authenticate = self.required
        else:
            token = self.find(secret)
            if token is None:
                visitor.refusal = _unauthorized()
            elif not visitor.enter(token):
                visitor.refusal = error_answer(
                    429,
                    RequestError.TOO_MANY_FOR_TOKEN,
                    f"more than {token.max_connections} connections with the token {token.name}",
                    {"Retry-After": "1"},
                )
        try:
            yield visitor
        finally:
            visitor.leave()

    def _presented(self, request: web.Request) -> str | None:
        """The token of a request, "" for what can be none; None where it has none, or nobody asked for one."""
        if not self._tokens and not self.required:
            return None  # what stands in the header is for somebody before us
        scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return secret.strip()
        for name in offered_subprotocols(request):
            if name.startswith(TOKEN_SUBPROTOCOL):
                return _from_base64url(name.removeprefix(TOKEN_SUBPROTOCOL))
        return None

    def middleware(self) -> Callable[..., Awaitable[object]]:
        """Refuses requests with a token in their query, and where one is required those without."""

        @web.middleware
        async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
            if request.query_string and self._token_in_query(request):
                return error_answer(
                    400,
                    RequestError.TOKEN_IN_QUERY,
                    "a token in the address ends in logs: send it as Authorization: Bearer, and replace this one",
                )
            if request.path not in OPEN_PATHS and request.path != STREAM_PATH:
                secret = self._presented(request)
                if self.required if secret is None else self.find(secret) is None:
                    return _unauthorized()
            return await handler(request)

        return middleware

    def _token_in_query(self, request: web.Request) -> bool:
        return any(
            key.lower() in QUERY_KEYS or self.find(key) is not None or self.find(value) is not None
            for key, value in request.query.items()
        )


def offered_subprotocols(request: web.Request) -> list[str]:
    """The websocket subprotocols that a request names, tokens among them."""
    offered = ",".join(request.headers.getall("Sec-WebSocket-Protocol", []))
    return [name for name in map(str.strip, offered.split(",")) if name]


def _from_base64url(text: str) -> str:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        return ""


def _unauthorized() -> web.Response:
    return error_answer(
        401,
        RequestError.UNAUTHORIZED,
        "a token that this hub knows is needed, as Authorization: Bearer TOKEN",
        {"WWW-Authenticate": 'Bearer realm="oracle-hub"'},
    )
