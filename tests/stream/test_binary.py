"""The binary form says exactly what the JSON form says, and takes nothing that it did not write."""

import struct
from collections.abc import Callable

import msgspec
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracle_hub.core.hub import Decision, DecisionInput
from oracle_hub.core.selector import Reason, Rule, State
from oracle_hub.core.source import PriceUpdate
from oracle_hub.core.table import InputStatus
from oracle_hub.errors import StreamError
from oracle_hub.stream import binary
from oracle_hub.stream.board import Board, encode_entry
from oracle_hub.stream.history import History
from oracle_hub.stream.messages import (
    BINARY_SUBPROTOCOL,
    SUBPROTOCOL,
    Heartbeat,
    Merge,
    Snapshot,
    Update,
    View,
    ViewReason,
    encode,
    feed_entry,
    feed_entry_decoder,
    server_message_decoder,
)
from oracle_hub.stream.session import Session
from tests.checker.binary_form import message_of
from tests.server.stream_service import HubService
from tests.stream.model_client import sized_frame

INT64_MAX = 2**63 - 1
TIMES = st.integers(0, INT64_MAX)
MANTISSAS = st.integers(1, INT64_MAX)
NAMES = st.text(min_size=1, max_size=64)

UPDATES = st.builds(
    PriceUpdate,
    source=NAMES,
    transport=NAMES,
    feed=NAMES,
    mantissa=MANTISSAS,
    publish_us=TIMES,
    received_us=TIMES,
    conf=st.none() | TIMES,
    slot=st.integers(0, 2**62),
    verified=st.booleans(),
    account=st.none() | NAMES,
)
INPUTS = st.lists(
    st.builds(DecisionInput, NAMES, NAMES, st.sampled_from(InputStatus), st.none() | UPDATES), max_size=3
).map(tuple)


def decisions(feeds: st.SearchStrategy[str] = NAMES) -> st.SearchStrategy[Decision]:
    priced = st.builds(
        Decision,
        feed=feeds,
        expo=st.integers(-128, 127),
        state=st.sampled_from((State.LIVE, State.DEGRADED)),
        rule=st.sampled_from(Rule),
        reason=st.sampled_from(Reason),
        source=st.none() | NAMES,
        mantissa=MANTISSAS,
        conf=st.none() | TIMES,
        publish_us=st.none() | TIMES,
        decided_us=TIMES,
        valid_until_us=st.none() | TIMES,
        inputs=INPUTS,
    )
    none = {"state": State.NONE, "mantissa": None, "source": None, "conf": None, "publish_us": None}
    return priced | priced.map(lambda one: msgspec.structs.replace(one, **none))


VIEWS = st.builds(View, st.none(), st.none() | TIMES) | st.builds(View, st.sampled_from(ViewReason), st.none())


@st.composite
def merges(draw: st.DrawFn) -> Merge:
    low, high = draw(st.none() | st.tuples(MANTISSAS, MANTISSAS).map(sorted)) or (None, None)
    return Merge(draw(st.integers(0, 2**32 - 1)), low, high, draw(st.booleans()))


ENTRIES = st.tuples(decisions(), VIEWS, st.booleans(), st.none() | merges())
COUNTS = st.integers(0, 2**53 - 1)


@settings(max_examples=300, deadline=None)
@given(ENTRIES)
def test_an_entry_is_the_same_in_both_forms(entry: tuple[Decision, View, bool, Merge | None]) -> None:
    decision, shown, full, merge = entry
    wanted = feed_entry(decision, shown, full=full, merge=merge)
    raw = binary.encode_entry(decision, shown, full, merge)
    decoded = binary.decode_entry(raw)
    assert decoded == feed_entry_decoder.decode(encode(wanted))
    assert encode(decoded) == encode(wanted)
    assert len(bytes(raw)) % 8 == 0


def updates(entries: list[msgspec.Raw]) -> st.SearchStrategy[Update | Snapshot]:
    head = {
        "sub": st.integers(0, 2**32 - 1),
        "epoch": COUNTS,
        "seq": COUNTS,
        "sent_us": TIMES,
        "feeds": st.just(entries),
    }
    return st.builds(Snapshot, **head) | st.builds(
        Update,
        **head,
        prev_seq=COUNTS,
        conflated=st.booleans(),
        replayed=st.booleans(),
        journaled=st.sampled_from((msgspec.UNSET, False)),
    )


@settings(max_examples=100, deadline=None)
@given(st.data(), st.lists(ENTRIES, max_size=4))
def test_a_message_is_the_same_in_both_forms(
    data: st.DataObject, entries: list[tuple[Decision, View, bool, Merge | None]]
) -> None:
    message = data.draw(updates([]))
    as_binary = msgspec.structs.replace(message, feeds=[binary.encode_entry(*entry) for entry in entries])
    as_text = encode(msgspec.structs.replace(message, feeds=[encode_entry(*entry) for entry in entries]))
    frame = binary.encode_message(as_binary)
    assert binary.is_binary(frame) and not binary.is_binary(as_text)
    assert binary.as_json(frame) == as_text
    assert message_of(frame) == orjson.loads(as_text)


@settings(max_examples=100, deadline=None)
@given(
    st.builds(
        Heartbeat,
        sub=st.integers(0, 2**32 - 1),
        epoch=COUNTS,
        seq=COUNTS,
        server_time_us=TIMES,
        not_live=st.lists(NAMES, max_size=5),
        digest=st.binary(min_size=8, max_size=8).map(bytes.hex),
    )
)
def test_a_heartbeat_is_the_same_in_both_forms(beat: Heartbeat) -> None:
    frame = binary.encode_message(beat)
    assert message_of(frame) == orjson.loads(encode(beat))
    assert binary.decode_message(frame) == beat == server_message_decoder.decode(binary.as_json(frame))
    for end in range(len(frame)):
        with pytest.raises(StreamError):
            binary.as_json(frame[:end])


# What is not a frame.

LIVE = Decision(
    feed="SOL/USD",
    expo=-8,
    state=State.LIVE,
    rule=Rule.R1,
    reason=Reason.AGREED,
    source="doves",
    mantissa=15_012_345_678,
    conf=1_234_567,
    publish_us=1_790_000_000_100_000,
    decided_us=1_790_000_000_150_000,
    valid_until_us=1_790_000_005_100_001,
    inputs=(),
)
HOLDS = View(None, LIVE.valid_until_us)
ENDED = View(ViewReason.LEASE_OVER, None)
MERGE = Merge(3, 15_012_345_000, 15_012_345_678, True)


def update(*entries: msgspec.Raw) -> bytes:
    message = Update(
        sub=1, epoch=1_790_000_000, seq=44, prev_seq=41, sent_us=1_790_000_000_150_040, conflated=False,
        replayed=False, feeds=list(entries),
    )  # fmt: skip
    return binary.encode_message(message)


FRAME = update(binary.encode_entry(LIVE, HOLDS, False), binary.encode_entry(LIVE, ENDED, False, MERGE))


def test_every_cut_is_refused() -> None:
    for end in range(len(FRAME)):
        with pytest.raises(StreamError):
            binary.as_json(FRAME[:end])
    with pytest.raises(StreamError, match="after the last entry"):
        binary.as_json(FRAME + b"\0")


@pytest.mark.parametrize("frame", [FRAME, update(binary.encode_entry(LIVE, HOLDS, True))], ids=["plain", "full"])
def test_a_changed_bit_is_refused_or_gives_something_that_can_be_told(frame: bytes) -> None:
    for bit in range(len(frame) * 8):
        changed = bytearray(frame)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            told = server_message_decoder.decode(binary.as_json(bytes(changed)))
        except StreamError:
            continue
        for raw in told.feeds if isinstance(told, Snapshot | Update) else []:
            entry = feed_entry_decoder.decode(raw)
            assert (entry.price is None) is (entry.state == "none")
            assert entry.price is None or int(entry.price) > 0


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300), st.integers(1, 3), st.integers(0, 4))
def test_garbage_is_refused_or_gives_something_that_can_be_told(tail: bytes, kind: int, count: int) -> None:
    head = struct.pack("<4sBBHII", binary.MAGIC, kind, 0, binary.HEADER_BYTES, 1, count)
    for frame in (tail, head + tail):
        try:
            server_message_decoder.decode(binary.as_json(frame))
        except StreamError:
            continue


def test_a_later_kind_is_named_so_that_it_can_be_ignored() -> None:
    with pytest.raises(StreamError) as caught:
        binary.decode_message(FRAME[:4] + b"\x09" + FRAME[5:])
    assert caught.value.code == binary.UNKNOWN_KIND


def test_what_a_later_version_adds_is_passed_over() -> None:
    entry = bytes(binary.encode_entry(LIVE, HOLDS, False))
    size, text_at = len(entry) + 8, binary.ENTRY_BYTES + 8
    longer = bytearray(entry[: binary.ENTRY_BYTES] + b"\xff" * 8 + entry[binary.ENTRY_BYTES :])
    struct.pack_into("<I", longer, 0, size)
    struct.pack_into("<H", longer, 54, text_at)
    assert binary.decode_entry(bytes(longer)) == binary.decode_entry(entry)
    frame = bytearray(FRAME[:48] + b"\xff" * 8 + FRAME[48:])
    struct.pack_into("<H", frame, 6, 56)
    assert binary.as_json(bytes(frame)) == binary.as_json(FRAME)
    unknown = bytearray(entry)
    unknown[59] = 200
    assert binary.decode_entry(bytes(unknown)).reason == "reason_200"


Change = Callable[[bytearray], None]


def _put(layout: str, at: int, value: int) -> Change:
    return lambda entry: struct.pack_into(layout, entry, at, value)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_put("<q", 8, 0), "price, flag and state"),
        (_put("<q", 8, -1), "price, flag and state"),
        (_put("<B", 57, 0), "price, flag and state"),
        (_put("<H", 52, 14), "price, flag and state"),
        (_put("<q", 16, -5), "negative conf"),
        (_put("<H", 52, 13), "where the flags say"),
        (_put("<H", 52, 7), "where the flags say"),
        (_put("<B", 57, 3), "unknown state"),
        (_put("<B", 58, 0), "unknown state or rule"),
        (_put("<B", 59, 0), "no reason"),
        (_put("<H", 4, 0), "no name"),
        (_put("<H", 4, 60), "lengths that do not fit"),
        (_put("<H", 54, 63), "lengths that do not fit"),
        (_put("<I", 48, 5), "inputs that can't be read|lengths"),
        (_put("<B", 64, 0xFF), "not UTF-8"),
    ],
)
def test_contradictions_in_an_entry_are_refused(change: Change, told: str) -> None:
    entry = bytearray(binary.encode_entry(LIVE, HOLDS, False))
    change(entry)
    with pytest.raises(StreamError, match=told):
        binary.decode_entry(bytes(entry))


def test_no_price_is_zero_whatever_way_it_is_read() -> None:
    entry = bytes(binary.encode_entry(LIVE, ENDED, False, Merge()))
    assert entry[8:16] == entry[64:72] == entry[72:80] == bytes(8)
    assert struct.unpack_from("<H", entry, 52)[0] & (binary.HAS_PRICE | binary.HAS_RANGE) == 0
    told = binary.decode_entry(entry)
    assert (told.price, told.state, told.reason, told.low, told.was_none) == (None, "none", "lease_over", None, True)


# What it looks like, for good.

GOLDEN_ENTRY = bytes.fromhex(
    "50000000 0700 0500"
    "4e37ce7e03000000 87d6120000000000 a06627dafe5b0600 f02928dafe5b0600 e1b173dafe5b0600"
    "00000000 0f00 4000 f8 01 01 01 00000000"
    "534f4c2f555344 646f766573 00000000"
)
GOLDEN_HEADER = bytes.fromhex(
    "b14f4801 02 00 3000 01000000 01000000 803bb16a00000000 2c00000000000000 2900000000000000 182a28dafe5b0600"
)


def test_golden_update() -> None:
    assert bytes(binary.encode_entry(LIVE, HOLDS, False)).hex() == GOLDEN_ENTRY.hex()
    assert update(binary.encode_entry(LIVE, HOLDS, False)).hex() == (GOLDEN_HEADER + GOLDEN_ENTRY).hex()


def test_golden_heartbeat() -> None:
    beat = Heartbeat(
        sub=1, epoch=1_790_000_000, seq=44, server_time_us=1_790_000_000_150_040, not_live=["BTC/USD"],
        digest="f7cbda0cea230da0",
    )  # fmt: skip
    assert binary.encode_message(beat).hex() == (
        "b14f4801030030000100000001000000803bb16a000000002c000000000000000000000000000000182a28dafe5b0600"
        "f7cbda0cea230da007004254432f555344"
    )


def test_every_state_rule_and_reason_has_a_number_of_its_own() -> None:
    tables: tuple[tuple[dict[str, int], set[str]], ...] = (
        ({str(key): code for key, code in binary.STATES.items()}, set(State)),
        ({str(key): code for key, code in binary.RULES.items()}, set(Rule)),
        ({str(key): code for key, code in binary.REASONS.items()}, {*Reason, *ViewReason}),
    )
    for table, members in tables:
        assert set(table) == members
        assert len(set(table.values())) == len(table)


# Two subscribers of one hub.


class Pair:
    """A JSON and a binary session of one board, told the same things; every message of both as JSON."""

    def __init__(self, *options: str) -> None:
        self.service = HubService("SOL/USD", "BTC/USD")
        history = History(self.service.epoch, self.service.seq)
        self.told: dict[str, list[bytes]] = {SUBPROTOCOL: [], BINARY_SUBPROTOCOL: []}
        self.board = Board(self.service.decisions, history, sized_frame, binary_frame=sized_frame)
        self.sessions = [Session(self.board, protocol=protocol) for protocol in self.told]

    def hear(self, session: Session, data: bytes) -> None:
        while data:
            end = 4 + int.from_bytes(data[:4], "little")
            payload, data = data[4:end], data[end:]
            is_news = b'"type":"subscribed"' not in payload
            assert binary.is_binary(payload) is (is_news and session.protocol == BINARY_SUBPROTOCOL)
            self.told[session.protocol].append(binary.as_json(payload) if binary.is_binary(payload) else payload)

    def ask(self, text: str) -> None:
        for session in self.sessions:
            self.hear(session, session.receive(text, self.service.clock_us, self.service.clock_us))

    def tick(self, mantissa: int, *sources: str, unsent_bytes: int = 0, journaled: bool = True) -> None:
        batch = self.service.tick("SOL/USD", mantissa, *sources)
        publication = self.board.apply(batch, self.service.clock_us, journaled=journaled)
        for session in self.sessions:
            self.hear(session, session.publish(publication, unsent_bytes))

    def each(self, produce: Callable[[Session], bytes]) -> None:
        for session in self.sessions:
            self.hear(session, produce(session))


OPTIONS = ("", ',"mode":"all"', ',"max_age_ms":3000', ',"detail":"full"')


@pytest.mark.parametrize("options", OPTIONS)
def test_two_clients_of_one_hub_are_told_the_same(options: str) -> None:
    pair = Pair()
    pair.tick(150)
    pair.ask(f'{{"type":"subscribe","feeds":["*"]{options}}}')
    pair.tick(151)
    pair.tick(152, journaled=False)
    pair.tick(170, "doves")
    now_us = pair.service.clock_us
    pair.each(lambda session: session.heartbeat(now_us, 0))
    if "all" not in options:
        pair.tick(153, unsent_bytes=1 << 20)
        pair.tick(154, unsent_bytes=1 << 20)
    else:
        pair.tick(153)
    pair.each(lambda session: session.flush(pair.service.clock_us, 0))
    pair.service.clock_us += 3_500_000
    ended = pair.board.pop_ended(pair.service.clock_us)
    assert len(ended) == (2 if "max_age" in options else 0)
    pair.each(lambda session: session.expire(ended, pair.service.clock_us, 0))
    resume = f'"resume":{{"epoch":{pair.board.epoch},"seq":{pair.board.seq - 2}}}'
    pair.ask(f'{{"type":"subscribe","feeds":["*"],{resume}{options}}}')
    as_json, as_binary = pair.told.values()
    assert len(as_json) > 6
    assert as_json == as_binary
