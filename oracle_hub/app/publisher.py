"""Who carries batches to subscribers: a server in the hub's own process, or several workers (``app/workers.py``)."""

from collections.abc import Iterator
from typing import Protocol

from oracle_hub.app.doors import server_settings
from oracle_hub.core.hub import Batch
from oracle_hub.metrics import Sample
from oracle_hub.server.http import Server
from oracle_hub.server.service import ServerSettings, Service
from oracle_hub.stream.messages import AlertChange

__all__ = ["OwnServer", "Publisher", "server_samples", "server_settings"]


class Publisher(Protocol):
    """What the program needs from whoever serves subscribers."""

    async def start(self) -> tuple[str, int]:
        """Serve. Returns the address that was bound. Raises OSError when the port is taken."""
        ...

    def publish(self, batch: Batch, *, journaled: bool = True) -> None:
        """Send a batch, right after it was journaled, in order. Never waits, never raises."""
        ...

    def alert(self, change: AlertChange) -> None:
        """Tell of an alert that begins, gets worse or ends. Never waits, never raises."""
        ...

    def config_changed(self, *, forget_past: bool = False) -> None:
        """Tell of a reload, after its first batch was published. ``forget_past``: none of those before it again."""
        ...

    def renew(self, settings: ServerSettings) -> None:
        """Take over tokens from these settings, and read the files of the certificate again.

        Raises ConfigError where these cannot be used; then nothing was changed.
        """
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
        self.renew, self.alert = self.server.renew, self.server.alert

    def evidence(self) -> dict[str, object]:
        return {}

    def samples(self) -> Iterator[Sample]:
        return server_samples(self.server)


def server_samples(server: Server) -> Iterator[Sample]:
    """What one server counts. With several workers the hub adds these up, sample by sample."""
    yield "oraclehub_clients", (), server.clients
    yield "oraclehub_sent_frames", (), server.frames_sent
    yield "oraclehub_sent_bytes", (), server.bytes_sent
    yield "oraclehub_cut_off_connections", (), server.cut_off
    yield "oraclehub_client_errors", (), server.errors
    for kind, kindred in server.standing().items():
        yield "oraclehub_clients_by_kind", (kind,), kindred.clients
        yield "oraclehub_unsent_bytes", (kind,), kindred.unsent_bytes
        yield "oraclehub_most_unsent_bytes", (kind,), kindred.most_unsent_bytes
    for name, count in server.bearers.items():
        yield "oraclehub_token_clients", (name,), count
    yield "oraclehub_held_back_clients", (), server.held_back
    kept = server.history
    yield "oraclehub_history_batches", (), 0 if kept is None else len(kept)
    yield "oraclehub_history_bytes", (), 0 if kept is None else kept.size_bytes
    yield "oraclehub_conflated_entries", (), server.conflated
    for code, count in server.closes.items():
        yield "oraclehub_closed_clients", (code,), count
    for reason, count in server.refusals.items():
        yield "oraclehub_refused_clients", (reason,), count
    yield "oraclehub_send_buffer_unlimited", (), not server.send_buffer_limited
