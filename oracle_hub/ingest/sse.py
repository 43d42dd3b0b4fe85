"""Server-sent events, parsed as bytes come (WHATWG HTML, section "Server-sent events")."""

import msgspec


class ServerSentEvent(msgspec.Struct, frozen=True, gc=False):
    """One event, or a comment (no name, no data), which only says that the server lives."""

    event: str
    data: bytes
    """The ``data`` lines joined by newlines."""


class SseParser:
    """Turns chunks, cut anywhere, into events. Lines end in LF, CRLF or CR.

    A line or an event longer than ``max_event_bytes`` raises ValueError: the stream can't be followed any further.
    ``id`` and ``retry`` fields are ignored: no server that we read resumes by id.
    """

    def __init__(self, max_event_bytes: int = 16 * 2**20) -> None:
        self._max_bytes = max_event_bytes
        self._partial: list[bytes] = []
        self._partial_bytes = 0
        self._after_cr = False
        self._first_line = True
        self._event = ""
        self._data: list[bytes] = []
        self._data_bytes = 0

    def feed(self, chunk: bytes) -> list[ServerSentEvent]:
        """Take the next bytes and return what they completed.

        Raises:
            ValueError: a line or an event is longer than allowed.
        """
        if not chunk:
            return []
        if self._after_cr and chunk[:1] == b"\n":  # second half of a CRLF that was cut
            chunk = chunk[1:]
        events: list[ServerSentEvent] = []
        lines = chunk.splitlines(keepends=True)
        for line in lines:
            ended = line[-1:] in (b"\n", b"\r")
            self._keep(line)
            if ended:
                whole = b"".join(self._partial)
                self._partial.clear()
                self._partial_bytes = 0
                self._line(whole.rstrip(b"\r\n"), events)
        self._after_cr = bool(lines) and lines[-1][-1:] == b"\r"
        return events

    def _keep(self, piece: bytes) -> None:
        self._partial.append(piece)
        self._partial_bytes += len(piece)
        if self._partial_bytes + self._data_bytes > self._max_bytes:
            raise ValueError(f"server-sent event longer than {self._max_bytes} bytes")

    def _line(self, line: bytes, events: list[ServerSentEvent]) -> None:
        if self._first_line:
            self._first_line = False
            line = line.removeprefix(b"\xef\xbb\xbf")
        if not line:
            if self._data:
                events.append(ServerSentEvent(self._event, b"\n".join(self._data)))
            self._event = ""
            self._data = []
            self._data_bytes = 0
            return
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if not name:
            events.append(ServerSentEvent("", b""))
        elif name == b"data":
            self._data.append(value)
            self._data_bytes += len(value) + 1
        elif name == b"event":
            self._event = value.decode("utf-8", "replace")
