"""Who carries batches to subscribers: a server in the hub's own process, or several workers (``app/workers.py``)."""

from collections.abc import Iterator
from typing import Protocol

from oracle_hub.config import Config
from oracle_hub.core.hub import Batch
from oracle_hub.metrics import Sample
from oracle_hub.server.http import Server
from oracle_hub.server.service import ServerSettings, Service
from oracle_hub.stream.session import SessionLimits


class Publisher(Protocol):
    """What the program needs from whoever serves subscribers."""

    async def start(self) -> tuple[str, int]:
        """Serve. Returns the address that was bound. Raises OSError when the port is taken."""
        ...

    def publish(self, batch: Batch, *, journaled: bool = True) -> None:
        """Send a batch, right after it was journaled, in order. Never waits, never raises."""
        ...

    def config_changed(self) -> None:
        """Tell of a reload, after its first batch was published."""
        ...

    async def stop(self, reason: str) -> None:
        """Say goodbye to every subscriber and end."""
        ...

    def evidence(self) -> dict[str, object]:
        """What ``/readyz`` tells of it."""
        ...

    def samples(self) -> Iterator[Sample]:
        """Counts for metrics."""
        ...


class OwnServer:
    """The server in the hub's own process: the nearest way to a subscriber."""

    def __init__(self, service: Service, settings: ServerSettings) -> None:
        self.server = Server(service, settings)
        self.start, self.publish = self.server.start, self.server.publish
        self.config_changed, self.stop = self.server.config_changed, self.server.stop

    def evidence(self) -> dict[str, object]:
        return {}

    def samples(self) -> Iterator[Sample]:
        return server_samples(self.server)


def server_samples(server: Server) -> Iterator[Sample]:
    """What one server counts. With several workers the hub adds these up, sample by sample."""
    yield "oraclehub_clients", (), server.clients
    yield "oraclehub_sent_frames", (), server.frames_sent
    yield "oraclehub_sent_bytes", (), server.bytes_sent
    yield "oraclehub_refused_clients", (), server.refused
    yield "oraclehub_cut_off_connections", (), server.cut_off
    yield "oraclehub_client_errors", (), server.errors


def server_settings(config: Config) -> ServerSettings:
    """The settings of a server that stands alone. Raises ConfigError where one can't be used."""
    section = config.server
    return ServerSettings(
        host=section.host,
        port=section.port,
        heartbeat_ms=section.heartbeat_ms,
        allowed_origins=section.allowed_origins,
        max_clients=section.max_clients,
        max_clients_per_ip=section.max_clients_per_ip,
        handshake_timeout_ms=section.handshake_timeout_ms,
        subscribe_timeout_ms=section.subscribe_timeout_ms,
        session=SessionLimits(max_unsent_age_ms=section.max_unsent_age_ms),
    )
