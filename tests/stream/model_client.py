"""A subscriber that does exactly what docs/protocol.md tells it to."""

from collections.abc import Iterator
from typing import Any

import orjson

from oracle_hub.stream.binary import as_json, is_binary
from oracle_hub.stream.messages import digest, digest_line


def unframed(data: bytes) -> list[dict[str, Any]]:
    """What sessions return when every message is framed by its size, in whichever form."""
    return [orjson.loads(as_json(payload) if is_binary(payload) else payload) for payload in payloads(data)]


def payloads(data: bytes) -> Iterator[bytes]:
    """Messages as they were framed."""
    at = 0
    while at < len(data):
        begin = at + 4
        at = begin + int.from_bytes(data[at:begin], "little")
        yield data[begin:at]


def sized_frame(payload: bytes) -> bytes:
    """The simplest framing that can be split again."""
    return len(payload).to_bytes(4, "little") + payload


class ModelClient:
    """State of one subscription as its client knows it."""

    def __init__(self) -> None:
        self.seq = -1
        self.feeds: dict[str, dict[str, Any]] = {}
        self.gaps = 0
        self.wrong_digests = 0
        self.updates: list[dict[str, Any]] = []

    def take(self, message: dict[str, Any]) -> None:
        """Apply one server message."""
        kind = message["type"]
        if kind == "snapshot":
            self.feeds = {entry["feed"]: entry for entry in message["feeds"]}
            self.seq = message["seq"]
        elif kind == "update":
            self.updates.append(message)
            if message["prev_seq"] > self.seq:
                self.gaps += 1
            assert message["seq"] >= message["prev_seq"]
            for entry in message["feeds"]:
                self.feeds[entry["feed"]] = entry
            self.seq = message["seq"]
        elif kind == "heartbeat":
            told = (message["seq"], message["digest"])
            self.wrong_digests += told != (self.seq, self.digest(message["server_time_us"]))

    def take_all(self, data: bytes) -> "ModelClient":
        """Apply everything that a session returned."""
        for message in unframed(data):
            self.take(message)
        return self

    def digest(self, now_us: int) -> str:
        """What a heartbeat at ``now_us`` must say if nothing was missed."""
        return digest(
            digest_line(entry["feed"], entry["state"], entry["price"], entry["valid_until_us"], now_us)
            for entry in self.feeds.values()
            if entry["reason"] != "removed"
        )
