"""Signed updates behind chosen prices, where a source has several links to its host."""

from base64 import b64decode, b64encode

import orjson

from benchmarks.catalogue import made_asset, made_config
from feeds.emulator.pyth_signing import simulated_signer
from feeds.pyth.accumulator import Accumulator, PriceMessage
from oracle_hub.app.lineup import build_lineup, endpoints_of
from oracle_hub.app.signed import ChosenUpdates
from oracle_hub.config import parse_config
from oracle_hub.core.hub import Batch, Decision
from oracle_hub.core.selector import Reason, Rule, State
from oracle_hub.core.source import Frame, PriceUpdate
from oracle_hub.server.service import SignedQuery

NOW_S = 1_790_000_000
S = 1_000_000
PRICE = 15_000_000_000


def event(*numbers: int) -> Frame:
    """What a host signs of some feeds."""
    ids = [made_asset(number).hermes_id for number in numbers]
    messages = [PriceMessage(bytes.fromhex(one), PRICE, 5, -8, NOW_S, NOW_S - 1, PRICE, 5) for one in ids]
    blobs = [b64encode(blob).decode() for blob in simulated_signer().updates(messages, NOW_S)]
    price = {"price": str(PRICE), "conf": "5", "expo": -8, "publish_time": NOW_S}
    body = {"binary": {"encoding": "base64", "data": blobs}, "parsed": [{"id": one, "price": price} for one in ids]}
    return Frame("sse", orjson.dumps(body))


def chosen(feed: str) -> Decision:
    """A decision for that price."""
    at_us = NOW_S * S
    return Decision(feed, -8, State.DEGRADED, Rule.R2, Reason.AGREED, "pyth", PRICE, 5, at_us, at_us, None, ())


def test_feeds_of_every_link_of_a_large_catalogue_have_their_updates() -> None:
    text = made_config(250, "var", "127.0.0.1:1", hermes=True).replace('verify = "off"', 'signers = "simulated"')
    config = parse_config(text, origin="made")
    lineup = build_lineup(config, endpoints_of(config))
    numbers = {"hermes:1.1": 7, "hermes:1.2": 107, "hermes:1.3": 207}
    for name, number in numbers.items():
        told = lineup.links[name].receive(event(number), NOW_S * S)
        assert [item.verified for item in told if isinstance(item, PriceUpdate)] == [True]
    updates = ChosenUpdates(lambda: lineup)
    feeds = [made_asset(number).feed for number in numbers.values()]
    updates.note(Batch(1, 1, NOW_S * S, "", tuple(map(chosen, feeds))))
    for number, feed in zip(numbers.values(), feeds, strict=True):
        answer = updates.answer(SignedQuery(feed=feed, source="pyth", publish_time_us=NOW_S * S, price=PRICE))
        assert answer.signing and answer.update is not None
        (message,) = Accumulator.decode(b64decode(answer.update.data)).updates
        assert isinstance(message.message, PriceMessage)
        assert message.message.feed_id.hex() == made_asset(number).hermes_id
    other = updates.answer(SignedQuery(feed=feeds[0], source="lazer", publish_time_us=NOW_S * S, price=PRICE))
    assert not other.signing and other.update is None
