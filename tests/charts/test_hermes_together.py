"""Updates of single prices joined again: real ones give the bytes that Pyth delivered, and contracts can check them."""

import base64
import json
from pathlib import Path

import pytest

from feeds.emulator.pyth_signing import PythSigner
from feeds.pyth.accumulator import Accumulator, PriceMessage, check, excerpt
from feeds.pyth.signers import PRODUCTION
from oracle_hub.charts.signed_together import MAX_PRICES, together

SIGNER = PythSigner(size=5, quorum=3)
SECOND = 1_790_000_000


def load(path: Path) -> bytes:
    vector = json.loads(path.read_text())
    return bytes.fromhex(vector["data"]) if vector["encoding"] == "hex" else base64.b64decode(vector["data"])


def singles(data: bytes) -> list[bytes]:
    """An update of each of its prices, as the hub hands them on."""
    return [excerpt(data, [one]) for one in Accumulator.decode(data).updates]


def prices(count: int) -> list[PriceMessage]:
    return [
        PriceMessage(place.to_bytes(32, "big"), 100 + place, 1, -8, SECOND, SECOND - 1, 7, 1) for place in range(count)
    ]


NAMES = (
    "docs_fetch_latest_2feeds",
    "fuel_eth_usdc",
    "jssdk_3feeds_c96_eth_sol",
    "ton_9feeds",
    "router_set1_btc_eth_sol_bnb",
)


@pytest.mark.parametrize("name", NAMES)
def test_what_was_delivered_as_one_is_one_again_byte_for_byte(name: str, fixtures_dir: Path) -> None:
    whole = load(fixtures_dir / f"pnau_{name}.json")
    assert len(singles(whole)) > 1
    assert together(singles(whole)) == [whole]


def test_real_updates_of_two_messages_are_two(fixtures_dir: Path) -> None:
    """BTC and ETH were delivered apart and signed together; SOL was signed at another time."""
    btc, sol, eth = (
        load(fixtures_dir / f"pnau_clientpy_{name}.json") for name in ("btc_same_vaa", "sol_other_vaa", "eth_same_vaa")
    )
    pair, alone = together([btc, sol, eth])
    assert alone == sol
    update = Accumulator.decode(pair)
    assert [price.feed_id for price in update.prices] == [
        Accumulator.decode(one).prices[0].feed_id for one in (btc, eth)
    ]
    assert check(update, PRODUCTION).verified


def test_other_signatures_of_the_same_message_are_the_same_message() -> None:
    """Hosts may have collected other signers. What was signed is equal, so either proof holds under either of them."""
    one, other = prices(2)
    (whole,) = SIGNER.updates([one, other], SECOND)
    first, second = singles(whole)
    vaa_at, vaa_bytes = 10, int.from_bytes(whole[8:10], "big")
    vaa = whole[vaa_at : vaa_at + vaa_bytes]
    body = vaa[6 + 66 * vaa[5] :]
    resigned = SIGNER.vaa(body[51:], SECOND, int.from_bytes(body[42:50], "big"), places=(1, 2, 4))
    assert resigned != vaa and len(resigned) == len(vaa)
    elsewhere = second[:vaa_at] + resigned + second[vaa_at + vaa_bytes :]
    assert check(Accumulator.decode(elsewhere), SIGNER.sets).verified
    assert together([first, elsewhere]) == [whole]


def test_no_update_holds_more_prices_than_its_count_can_say() -> None:
    every = [one for whole in SIGNER.updates(prices(300), SECOND) for one in singles(whole)]
    joined = [Accumulator.decode(one) for one in together(every)]
    assert [len(one.prices) for one in joined] == [MAX_PRICES, 45]
    assert all(check(one, SIGNER.sets).verified for one in joined)


def test_what_cannot_be_read_is_passed_on_as_it_is() -> None:
    (whole,) = SIGNER.updates(prices(2), SECOND)
    first, second = singles(whole)
    cut = [first[:end] for end in range(len(first))]
    strange = [*cut, first + b"\x00", b"PNAU\x02" + first[5:], first[:5], b"", b"\xff" * 99]
    assert together([first, *strange, second]) == [whole, *strange]
