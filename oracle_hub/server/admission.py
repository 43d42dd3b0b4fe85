"""Who may come in: how many subscribers there are, from which addresses, and how many without a token yet."""

import contextlib
from collections import Counter
from collections.abc import Iterator

from aiohttp import web

from oracle_hub.server.answers import RequestError, error_answer
from oracle_hub.server.service import ServerSettings
from oracle_hub.server.tokens import Visitor, offered_subprotocols
from oracle_hub.stream.messages import BINARY_SUBPROTOCOL, SUBPROTOCOL

SUBPROTOCOLS = (SUBPROTOCOL, BINARY_SUBPROTOCOL)


class Admission:
    """Counts the websockets of one server, and refuses those beyond its limits before the upgrade."""

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self.connections = 0
        self._unauthenticated = 0
        """Of these, how many have to show a token yet."""
        self._by_address: Counter[str] = Counter()
        self.over = False
        """The server is going away."""

    def refusal(self, request: web.Request) -> web.Response | None:
        """The answer for who asks for no websocket of ours, or for one more than there may be; None for others."""
        if request.headers.get("Upgrade", "").lower() != "websocket":
            upgrade = {"Upgrade": "websocket", "Connection": "Upgrade"}
            return error_answer(426, RequestError.UPGRADE_REQUIRED, "this is a websocket", upgrade)
        offered = offered_subprotocols(request)
        if offered and not set(SUBPROTOCOLS).intersection(offered):
            known = " and ".join(SUBPROTOCOLS)
            return error_answer(400, RequestError.UNKNOWN_SUBPROTOCOL, f"the subprotocols are {known}")
        settings = self._settings
        if self.over:
            return error_answer(503, RequestError.SHUTTING_DOWN, "the server is going away", self._later)
        if self.connections >= settings.max_clients:
            return self._full()
        if self._by_address[request.remote or ""] >= settings.max_clients_per_ip:
            message = f"more than {settings.max_clients_per_ip} connections from one address"
            return error_answer(429, RequestError.TOO_MANY_FROM_ADDRESS, message, self._later)
        return None

    def refusal_of(self, visitor: Visitor) -> web.Response | None:
        """The same for who shows this token, or none."""
        if visitor.must_authenticate and self._unauthenticated >= self._settings.max_handshakes:
            return self._full()  # those who show a token at once are not kept out by those who don't
        return visitor.refusal

    @property
    def _later(self) -> dict[str, str]:
        return {"Retry-After": str(-(-self._settings.retry_after_ms // 1000))}

    def _full(self) -> web.Response:
        return error_answer(503, RequestError.TOO_MANY_CONNECTIONS, "the server is full", self._later)

    @contextlib.contextmanager
    def connected(self, request: web.Request) -> Iterator[None]:
        """Count a connection until the end of the ``with``."""
        address = request.remote or ""
        self.connections += 1
        self._by_address[address] += 1
        try:
            yield
        finally:
            self.connections -= 1
            self._by_address[address] -= 1
            if not self._by_address[address]:
                del self._by_address[address]

    @contextlib.contextmanager
    def authenticating(self) -> Iterator[None]:
        """Count one of them as waiting for its token until the end of the ``with``."""
        self._unauthenticated += 1
        try:
            yield
        finally:
            self._unauthenticated -= 1
