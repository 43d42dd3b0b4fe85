"""The binary form beside JSON: bytes of a frame, what it costs to encode, and what it costs to read."""

import struct
import sys
from collections.abc import Callable

from benchmarks.broadcasters import Source
from benchmarks.report import Figure, Report, Table, Value, main, measure
from oracle_hub.client.decoding import decode
from oracle_hub.core.hub import Batch
from oracle_hub.stream import binary
from oracle_hub.stream.board import encode_entry
from oracle_hub.stream.messages import Update, encode, feed_entry_decoder, server_message_decoder, view

FEEDS = (1, 10, 100)
_PRICE_AND_LEASE = struct.Struct("<q24xq")
"""Of an entry, from offset 8: price, and after conf, publish time and decision time, the lease."""


def _message(batch: Batch, entries: list[object]) -> Update:
    return Update(
        sub=1, epoch=batch.epoch, seq=batch.seq, prev_seq=batch.seq - 1, sent_us=batch.now_us, conflated=False,
        replayed=False, feeds=entries,  # type: ignore[arg-type]
    )  # fmt: skip


def encode_json(batch: Batch) -> bytes:
    """A whole update of a batch, with nothing shared."""
    shown = [(one, view(one, batch.now_us)) for one in batch.decisions]
    return encode(_message(batch, [encode_entry(*each, False) for each in shown]))


def encode_binary(batch: Batch) -> bytes:
    """The same in the binary form."""
    shown = [(one, view(one, batch.now_us)) for one in batch.decisions]
    return binary.encode_message(_message(batch, [binary.encode_entry(*each, False) for each in shown]))


def read_all(data: bytes) -> None:
    """What the Python client does to read a message of either form, before it judges anything."""
    message, read = decode(data)
    assert isinstance(message, Update)
    for raw in message.feeds:
        read(raw)


def pick_json(data: bytes) -> tuple[int, int | None]:
    """Price and lease of the first feed, by a reader of JSON that wants nothing else."""
    message = server_message_decoder.decode(data)
    assert isinstance(message, Update)
    entry = feed_entry_decoder.decode(message.feeds[0])
    return int(entry.price or 0), entry.valid_until_us


def pick_binary(data: bytes) -> tuple[int, int]:
    """The same at its offset, as a compiled keeper does it."""
    price, until_us = _PRICE_AND_LEASE.unpack_from(data, binary.HEADER_BYTES + 8)
    return price, until_us


def run(repetitions: int) -> Report:
    rows: list[tuple[Value, ...]] = []
    figures: list[Figure] = []
    works: tuple[tuple[str, Callable[..., object], Callable[..., object]], ...] = (
        ("encode", encode_json, encode_binary),
        ("read", read_all, read_all),
        ("pick", pick_json, pick_binary),
    )
    for n_feeds in FEEDS:
        batch = Source(n_feeds).next_batch()
        frames = encode_json(batch), encode_binary(batch)
        assert binary.as_json(frames[1]) == frames[0]
        rows.append((n_feeds, "bytes", *map(len, frames), len(frames[1]) / len(frames[0])))
        figures.append(Figure(f"bytes_ratio_{n_feeds}", len(frames[1]) / len(frames[0]), "of JSON"))
        for name, as_json, as_binary in works:
            arguments = (batch, batch) if name == "encode" else frames
            json_us, binary_us = (
                measure(lambda work=work, argument=argument: work(argument), repetitions=repetitions).us  # type: ignore[misc]
                for work, argument in zip((as_json, as_binary), arguments, strict=True)
            )
            rows.append((n_feeds, f"{name}, µs", json_us, binary_us, binary_us / json_us))
            figures.append(Figure(f"{name}_ratio_{n_feeds}", binary_us / json_us, "of JSON"))
    notes = (
        "encode: a whole update, nothing shared. read: every entry, as the Python client does it. "
        "pick: price and lease of one feed; the binary one at its offset, in Python.",
    )
    columns = ("feeds", "what", "JSON", "binary", "ratio")
    return Report("binary", tuple(figures), (Table("One update in both forms", columns, tuple(rows)),), notes)


if __name__ == "__main__":
    sys.exit(main("binary", "Compare the binary form of the stream with JSON.", run))
