"""A reader of ``oraclehub.v1.bin`` made from docs/protocol-binary.md alone: it shares no code with the product's."""

import struct
from typing import Any

import orjson

_HEADER = struct.Struct("<4s B B H I I q q q q")
_ENTRY = struct.Struct("<I H H q q q q q I H H b B B B I")
_STATES = ("none", "live", "degraded")
_REASONS = (
    "", "agreed", "primary_diverged", "primary_unusable", "verifier_unusable", "diverged", "too_few_sources", "warming",
    "clock_skew", "journal_unavailable", "removed", "lease_over", "max_age", "not_redistributable",
)  # fmt: skip


def message_of(data: bytes) -> dict[str, Any]:
    """The message as its JSON form would have it. Raises ``ValueError`` or ``struct.error`` where it is none."""
    magic, kind, flags, at, sub, count, epoch, seq, prev_seq, sent_us = _HEADER.unpack_from(data)
    if magic != b"\xb1OH\x01":
        raise ValueError(f"magic {magic!r}")
    message: dict[str, Any] = {"type": ("", "snapshot", "update", "heartbeat")[kind], "sub": sub}
    message |= {"epoch": epoch, "seq": seq}
    if kind == 3:
        names, digest = [], data[at : at + 8].hex()
        at += 8
        for _ in range(count):
            size = int.from_bytes(data[at : at + 2], "little")
            names.append(data[at + 2 : at + 2 + size].decode())
            at += 2 + size
        return message | {"server_time_us": sent_us, "not_live": names, "digest": digest}
    entries = []
    for _ in range(count):
        entries.append(_entry(data, at))
        at += int.from_bytes(data[at : at + 4], "little")
    if at != len(data):
        raise ValueError(f"{len(data)} bytes where the entries end at {at}")
    if kind == 2:
        message |= {"prev_seq": prev_seq, "conflated": bool(flags & 1), "replayed": bool(flags & 2)}
        if flags & 4:
            message["journaled"] = False
    return message | {"sent_us": sent_us, "feeds": entries}


def _entry(data: bytes, at: int) -> dict[str, Any]:
    (
        _, feed_bytes, source_bytes, price, conf, published_us, decided_us, until_us, inputs_bytes, flags, text_at,
        expo, state, rule, reason, n,
    ) = _ENTRY.unpack_from(data, at)  # fmt: skip
    begin = at + text_at
    middle = begin + feed_bytes
    end = middle + source_bytes
    if bool(flags & 1) is not (price > 0) or bool(price) is not (state > 0):
        raise ValueError("price, flag and state contradict each other")
    entry: dict[str, Any] = {
        "feed": data[begin:middle].decode(),
        "state": _STATES[state],
        "price": str(price) if flags & 1 else None,
        "expo": expo,
        "conf": str(conf) if flags & 2 else None,
        "source": data[middle:end].decode() or None,
        "rule": f"R{rule}",
        "reason": _REASONS[reason],
        "publish_time_us": published_us if flags & 4 else None,
        "decided_us": decided_us,
        "valid_until_us": until_us if flags & 8 else None,
    }
    if flags & 16:
        low, high = struct.unpack_from("<qq", data, at + 64)
        has_range = flags & 32
        entry |= {"n": n, "low": str(low) if has_range else None, "high": str(high) if has_range else None}
        entry["was_none"] = bool(flags & 64)
    if inputs_bytes:
        entry["inputs"] = orjson.loads(data[end : end + inputs_bytes])
    return entry
