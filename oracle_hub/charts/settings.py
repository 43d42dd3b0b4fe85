"""What the charts process may be told to do. Every bound has a default (docs/configuration.md, ``[charts]``)."""

from collections.abc import Mapping

import msgspec


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Times in ms, sizes as named."""

    host: str = "127.0.0.1"
    port: int = 8081
    """0 takes any free port."""
    allowed_origins: tuple[str, ...] = ()
    """Origins of browsers that may read, beside our own host. ``*`` is everybody."""
    allowed_hosts: tuple[str, ...] = ()
    """Names that are answered to, beside addresses and ``localhost`` (:func:`oracle_hub.hosts.host_allowed`)."""
    max_listeners: int = 1_000
    """Websockets and event streams at once."""
    max_listeners_per_ip: int = 100
    max_rows: int = 50_000
    """Bars or marks in one answer; more are refused, never cut in silence."""
    max_reads: int = 256
    """Requests that may wait for the store at once; beyond it the answer is 503."""
    read_threads: int = 2
    version: str = "0"
    """Of the program, for the descriptions."""
    heartbeat_ms: int = 1_000
    """Of the event streams and of ``/v1/bars``."""
    open_bar_hz: float = 4.0
    """How often a bar that is still open is told at most."""
    pyth_ids: Mapping[str, str] = {}
    """Feeds to the ids that clients of Pyth know them by, beside those of the known assets."""
