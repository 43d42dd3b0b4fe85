"""A Hermes link that proves: what is signed counts, what is not is refused by name, and each update is proved once."""

import base64
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest

from feeds.emulator.pyth_signing import PythSigner
from feeds.pyth.accumulator import Accumulator, PriceMessage, check, excerpt
from feeds.pyth.hermes import HermesFeed, HermesLink
from feeds.pyth.merkle import proves
from feeds.pyth.proving import Prover
from feeds.signers import SignerSet, SignerSets
from oracle_hub.core.source import Condition, Frame, Malformed, PriceUpdate, Status

S = 1_000_000
T_S = 1_789_248_348
T0 = T_S * S + 5
BTC = "e62df6c8b4a85fe1a67db44dc12de5db330f7ac66b72dc658afedf0f4a415b43"
SOL = "ef0d8b6fda2ceba41da15d4095d1da392a0d2f8ed0c6c7bc0f4cfac8c280b56d"
FEEDS = {"BTC/USD": HermesFeed(BTC), "SOL/USD": HermesFeed(SOL)}
SIGNER = PythSigner()


def price(feed_id: str, mantissa: int, publish_s: int = T_S, expo: int = -8) -> PriceMessage:
    return PriceMessage(bytes.fromhex(feed_id), mantissa, 7, expo, publish_s, publish_s - 1, mantissa, 8)


def entry(feed_id: str, mantissa: int, publish_s: int = T_S) -> dict[str, Any]:
    told = {"price": str(mantissa), "conf": "7", "expo": -8, "publish_time": publish_s}
    return {"id": feed_id, "price": told, "ema_price": told, "metadata": {"slot": 3}}


def frame(blobs: Sequence[bytes], *entries: object, encoding: str = "base64") -> Frame:
    data = [blob.hex() if encoding == "hex" else base64.b64encode(blob).decode() for blob in blobs]
    return Frame("sse", orjson.dumps({"binary": {"encoding": encoding, "data": data}, "parsed": entries}))


def make(prover: Prover | None = None, *, needs_proof: bool = True, name: str = "hermes:1") -> HermesLink:
    prover = prover or Prover(SIGNER.sets)
    link = HermesLink(name, "https://h", FEEDS, prover=prover, needs_proof=needs_proof)
    link.connect(T0)
    return link


def updates(output: Sequence[object]) -> list[tuple[str, int, int, int, bool]]:
    return [
        (one.feed, one.mantissa, one.publish_us // S, one.slot, one.verified)
        for one in output
        if isinstance(one, PriceUpdate)
    ]


def reasons(output: Sequence[object]) -> list[tuple[str | None, str]]:
    return [(one.feed, one.reason) for one in output if isinstance(one, Malformed)]


def statuses(output: Sequence[object]) -> list[tuple[str | None, Condition, str]]:
    return [(one.feed, one.condition, one.text) for one in output if isinstance(one, Status)]


@pytest.mark.parametrize("encoding", ["base64", "hex"])
def test_what_was_signed_counts_not_the_json_beside_it(encoding: str) -> None:
    blobs = SIGNER.updates([price(BTC, 6_000_000_000_000), price(SOL, 17_000, expo=-2)], T_S, 77)
    output = make().receive(frame(blobs, entry(SOL, 1), entry(BTC, 2), encoding=encoding), T0)
    assert updates(output) == [
        ("SOL/USD", 17_000_000_000, T_S, 77, True),
        ("BTC/USD", 6_000_000_000_000, T_S, 77, True),
    ]
    assert reasons(output) == [] and statuses(output) == []


def test_prices_of_several_slots_come_in_their_order() -> None:
    blobs = [*SIGNER.updates([price(BTC, 5, T_S)], T_S, 1), *SIGNER.updates([price(BTC, 6, T_S + 1)], T_S + 1, 2)]
    output = make().receive(frame(blobs, entry(BTC, 6)), T0)
    assert updates(output) == [("BTC/USD", 5, T_S, 1, True), ("BTC/USD", 6, T_S + 1, 2, True)]


def changed(blob: bytes, place: int) -> bytes:
    return blob[:place] + bytes((blob[place] ^ 1,)) + blob[place + 1 :]


GOOD = SIGNER.updates([price(BTC, 5)], T_S)[0]


@pytest.mark.parametrize(
    ("blobs", "why"),
    [
        ([], "unsigned: no signed update beside it"),
        ([b"PNAU"], "malformed: pyth.accumulator: offset 4: expected major version (1 bytes from offset 4)"),
        ([changed(GOOD, -2)], "bad_proof: message 1 of 1 is not under the root that was signed"),
        ([GOOD + b"x"], "trailing_bytes: 1 bytes follow the last message"),
        (SIGNER.updates([price(SOL, 5)], T_S), "unsigned: no signed price of this feed beside it"),
        (PythSigner(index=1).updates([price(BTC, 5)], T_S), "unknown_set: signer set 1 of emitter 26:"),
        (PythSigner(seed=1).updates([price(BTC, 5)], T_S), "unknown_signer: signature 0 is by "),
    ],
)
def test_what_is_not_proved_is_refused_by_name_or_taken_as_not_verified(blobs: list[bytes], why: str) -> None:
    text = f"not verified: {why}"
    link = make()
    output = link.receive(frame(blobs, entry(BTC, 5)), T0)
    assert updates(output) == []
    ((feed, reason),) = reasons(output)
    assert feed == "BTC/USD" and reason.startswith(text)
    ((feed, condition, told),) = statuses(output)
    assert (feed, condition) == ("BTC/USD", Condition.UNVERIFIED) and told == reason
    assert statuses(link.receive(frame(blobs, entry(BTC, 5)), T0)) == []  # told once, counted each time
    output = link.receive(frame([GOOD], entry(BTC, 5)), T0)
    assert [condition for _, condition, _ in statuses(output)] == [Condition.OK]
    assert updates(output) == [("BTC/USD", 5, T_S, T_S * 20, True)]

    lenient = make(needs_proof=False)
    output = lenient.receive(frame(blobs, entry(BTC, 5)), T0)
    assert updates(output) == [("BTC/USD", 5, T_S, 3, False)]
    assert reasons(output) == [] and [condition for _, condition, _ in statuses(output)] == [Condition.UNVERIFIED]


@pytest.mark.parametrize(
    "binary", [None, 5, {"data": 7}, {"encoding": "base64", "data": ["%%"]}, [1], {"data": ["zz"]}]
)
def test_a_binary_that_is_none_costs_only_the_proof(binary: object) -> None:
    data = orjson.dumps({"binary": binary, "parsed": [entry(BTC, 5)]})
    output = make().receive(Frame("sse", data), T0)
    ((feed, reason),) = reasons(output)
    assert feed == "BTC/USD" and reason.startswith("not verified: ")
    absent = make().receive(Frame("sse", orjson.dumps({"parsed": [entry(BTC, 5)]})), T0)
    assert reasons(absent) == [("BTC/USD", "not verified: unsigned: no signed update beside it")]


def test_a_set_ends_while_the_hub_runs_though_the_update_is_remembered() -> None:
    (known,) = SIGNER.sets
    sets = SignerSets([SignerSet(known.kind, known.group, 0, known.keys, known.quorum, 0, T_S + 1)])
    prover = Prover(sets)
    link = make(prover)
    assert updates(link.receive(frame([GOOD], entry(BTC, 5)), T0))
    output = link.receive(frame([GOOD], entry(BTC, 5)), (T_S + 1) * S)
    ((_, reason),) = reasons(output)
    assert reason == f"not verified: expired_set: set {known.name} ended at unix second {T_S + 1}"
    assert prover.checked == 1


def test_each_update_is_proved_once_however_many_hosts_deliver_it() -> None:
    prover = Prover(SIGNER.sets, capacity=2)
    links = [make(prover, name=f"hermes:{number}") for number in range(1, 4)]
    for link in links:
        assert len(updates(link.receive(frame([GOOD], entry(BTC, 5)), T0))) == 1
    assert prover.checked == 1
    others = [SIGNER.updates([price(BTC, n)], T_S)[0] for n in (6, 7)]
    for blob in others:
        links[0].receive(frame([blob], entry(BTC, 5)), T0)
    links[1].receive(frame([others[1]], entry(BTC, 5)), T0)
    assert prover.checked == 3
    links[2].receive(frame([GOOD], entry(BTC, 5)), T0)  # forgotten meanwhile: memory is bounded
    assert prover.checked == 4


def test_a_refused_update_is_remembered_too() -> None:
    prover = Prover(SIGNER.sets)
    for number in range(1, 4):
        make(prover, name=f"hermes:{number}").receive(frame([changed(GOOD, -2), b"PNAU"], entry(BTC, 5)), T0)
    assert prover.checked == 2


def test_what_a_host_makes_long_does_not_stay_in_memory() -> None:
    prover, long = Prover(SIGNER.sets), GOOD + bytes(2**17)
    for _ in range(2):
        ((_, reason),) = reasons(make(prover).receive(frame([long], entry(BTC, 5)), T0))
        assert "trailing_bytes" in reason
    assert prover._known.cache_info().currsize == 0


def test_a_price_that_was_signed_and_is_none_is_invalid() -> None:
    output = make().receive(frame(SIGNER.updates([price(BTC, 0)], T_S), entry(BTC, 5)), T0)
    assert updates(output) == []
    assert [condition for _, condition, _ in statuses(output)] == [Condition.INVALID]


def test_the_answer_to_a_fetch_is_proved_as_well() -> None:
    link = HermesLink("hermes:1", "https://h", FEEDS, prover=Prover(SIGNER.sets))
    _, fetch = link.connect(T0)
    body = msgspec.structs.replace(frame([GOOD], entry(BTC, 9)), channel="http", fetch_id="latest:1", status=200)
    output = link.receive(body, T0)
    assert fetch.fetch_id == "latest:1"  # type: ignore[union-attr]
    assert updates(output) == [("BTC/USD", 5, T_S, T_S * 20, True)]


def test_the_prover_is_configured_and_no_state() -> None:
    link = make()
    link.receive(frame([GOOD], entry(BTC, 5)), T0)
    assert {"_prover", "_needs_proof"} <= HermesLink.CONFIGURED
    state = {name: value for name, value in vars(link).items() if name not in HermesLink.CONFIGURED}
    assert b"proving" not in pickle.dumps(state)


def test_a_proved_price_can_be_handed_on_alone() -> None:
    """Of five that were signed together only the one that was asked for goes on, and it is as good as the whole."""
    others = [price(f"{number:064x}", number) for number in range(1, 4)]
    blobs = SIGNER.updates([*others, price(BTC, 6_000_000_000_000), price(SOL, 17_000, expo=-2)], T_S, 77)
    link = make()
    link.receive(frame(blobs, entry(SOL, 1), entry(BTC, 2)), T0)
    relayed = link.signed("SOL/USD", T_S * S, 17_000_000_000)  # at the feed's exponent
    assert relayed is not None and len(relayed) < len(blobs[0])
    update = Accumulator.decode(relayed)
    assert update.prices == [price(SOL, 17_000, expo=-2)]
    assert (update.trailing_bytes, check(update, SIGNER.sets).verified) == (0, True)
    for feed, publish_us, mantissa in (
        ("SOL/USD", T_S * S, 17_000_000_001),
        ("SOL/USD", (T_S + 1) * S, 17_000_000_000),
        ("SOL/USD", T_S * S + 1, 17_000_000_000),
        ("BTC/USD", T_S * S, 17_000_000_000),
        ("ETH/USD", T_S * S, 17_000_000_000),
    ):
        assert link.signed(feed, publish_us, mantissa) is None


def test_what_was_signed_beside_it_and_is_no_price_is_passed_over() -> None:
    link = make()
    blobs = SIGNER.updates([price(BTC, 0)], T_S, 76) + SIGNER.updates([price(BTC, 6_000_000_000_000)], T_S, 77)
    output = link.receive(frame(blobs, entry(BTC, 2)), T0)
    assert updates(output) == [("BTC/USD", 6_000_000_000_000, T_S, 77, True)]
    relayed = link.signed("BTC/USD", T_S * S, 6_000_000_000_000)
    assert relayed is not None and Accumulator.decode(relayed).prices == [price(BTC, 6_000_000_000_000)]
    assert link.signed("BTC/USD", T_S * S, 0) is None


def test_what_was_not_proved_is_never_handed_on() -> None:
    lenient = make(needs_proof=False)
    forged = PythSigner(seed=1).updates([price(BTC, 5)], T_S)
    assert updates(lenient.receive(frame(forged, entry(BTC, 5)), T0))  # taken, as not verified
    assert lenient.signed("BTC/USD", T_S * S, 5) is None
    plain = HermesLink("hermes:1", "https://h", FEEDS)
    plain.connect(T0)
    plain.receive(frame([GOOD], entry(BTC, 5)), T0)
    assert plain.signed("BTC/USD", T_S * S, 5) is None


def test_the_newest_proved_prices_are_kept_and_no_more() -> None:
    link = make()
    for second in range(40):
        link.receive(frame(SIGNER.updates([price(BTC, 5, T_S + second)], T_S + second), entry(BTC, 5)), T0)
    kept = [second for second in range(40) if link.signed("BTC/USD", (T_S + second) * S, 5)]
    assert kept == list(range(24, 40))


@pytest.mark.parametrize("count", [1, 2, 255])
def test_an_excerpt_of_everything_is_the_update_itself(count: int) -> None:
    (blob,) = SIGNER.updates([price(f"{number:064x}", number) for number in range(1, count + 1)], T_S)
    assert excerpt(blob, Accumulator.decode(blob).updates) == blob


def test_real_updates_can_be_taken_apart(fixtures_dir: Path) -> None:
    """Each message of each real update alone has the root and the signers of the whole."""
    seen = 0
    for path in sorted(fixtures_dir.glob("pnau_*.json")):
        fixture = orjson.loads(path.read_bytes())
        if not fixture.get("should_verify"):
            continue
        data = bytes.fromhex(fixture["data"]) if fixture["encoding"] == "hex" else base64.b64decode(fixture["data"])
        whole = Accumulator.decode(data)
        for one in whole.updates:
            alone = Accumulator.decode(excerpt(data, [one]))
            assert alone.updates == (one,) and alone.vaa == whole.vaa and alone.root == whole.root
            assert proves(alone.root, one.data, one.proof)
            seen += 1
    assert seen > 30
