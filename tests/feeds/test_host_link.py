"""What links to hosts say of what goes wrong: once, in one line, and without secrets."""

import pytest

from feeds.host_link import HostLink, Output
from oracle_hub.core.source import Condition, Frame, Malformed, Status

S = 1_000_000
T0 = 1_790_000_000 * S


class Told(HostLink):
    """A link that can be made to speak."""

    def trouble(self, key: str, feed: str | None, condition: Condition, at_us: int, word_us: int = 0) -> list[Output]:
        return self._trouble(key, feed, condition, "as told", at_us, word_us)

    def clear(self, key: str, at_us: int = T0) -> list[Output]:
        return self._clear(key, at_us)

    def refusal(self, status: int, retry_after_ms: int = 0, said: bytes = b"no") -> tuple[str, Condition, int]:
        output, wait_us = self._refusal(Frame("http", said, "x", status, retry_after_ms), str(status), T0, 60 * S)
        (one,) = output
        assert isinstance(one, Status) and one.feed is None
        return one.text, one.condition, wait_us

    def unproved(self, *, refused: bool) -> list[Output]:
        return self._unproved("SOL/USD", "expired_set: key-1 is\nover", T0, refused=refused)


def link() -> Told:
    return Told("told:1", "told", "top-secret", None, "")


def test_a_trouble_is_told_once_and_its_end_when_the_feed_has_no_other() -> None:
    of = link()
    assert of.trouble("stream", None, Condition.LOST, T0) == [
        Status("told", "told:1", None, Condition.LOST, "as told", T0)
    ]
    assert of.trouble("stream", None, Condition.LOST, T0 + 9 * S, T0 + 9 * S) == []
    assert len(of.trouble("stream", None, Condition.NOT_ENTITLED, T0)) == 1  # of another kind
    assert len(of.trouble("a", "SOL/USD", Condition.LOST, T0)) == len(of.trouble("b", "SOL/USD", Condition.LOST, T0))
    assert of.clear("a") == [] and of.clear("a") == [] and of.clear("never") == []
    assert of.clear("b") == [Status("told", "told:1", "SOL/USD", Condition.OK, "b is well again", T0)]
    assert len(of.clear("stream")) == 1


@pytest.mark.parametrize("condition", [Condition.HALTED, Condition.INVALID])
def test_what_a_price_ends_is_told_again_by_each_later_word(condition: Condition) -> None:
    of = link()

    def told(word_us: int, at_us: int) -> bool:
        return bool(of.trouble("price SOL/USD", "SOL/USD", condition, at_us, word_us))

    assert told(T0, T0)
    assert not told(T0, T0 + 60 * S)  # the same word, however often it is heard
    assert not told(T0 - 5 * S, T0 + 60 * S)
    assert not told(T0 + S - 1, T0 + 60 * S)  # at most once a second
    assert told(T0 + S, T0 + 60 * S)
    assert not told(T0 + S, T0 + 61 * S)
    assert told(T0 + 3_600 * S, T0 + 62 * S)  # a wrong clock counts as now,
    assert not told(T0 + 3_600 * S, T0 + 62 * S) and told(T0 + 64 * S, T0 + 64 * S)  # and silences nothing that follows
    of.clear("price SOL/USD")
    assert told(T0, T0)


def test_what_has_no_time_of_its_own_is_told_once() -> None:
    of = link()
    assert [len(of.trouble("x", None, Condition.HALTED, T0 + one * S)) for one in range(3)] == [1, 0, 0]


def test_refusals_are_named_with_the_wait_that_they_ask_for() -> None:
    of = link()
    assert of.refusal(401) == ("HTTP 401, not entitled: no", Condition.NOT_ENTITLED, 60 * S)
    assert of.refusal(403, 90_000)[2] == 90 * S
    assert of.refusal(429, 5_000) == ("HTTP 429, too many requests: no", Condition.RATE_LIMITED, 5 * S)
    assert of.refusal(503, 7_000) == ("HTTP 503: no", Condition.LOST, 7 * S)
    assert of.refusal(0, said=b"cut\n by top-secret\x00") == ("no answer: cut by …", Condition.LOST, 0)


def test_a_price_without_proof() -> None:
    text = "not verified: expired_set: key-1 is over"
    told = Status("told", "told:1", "SOL/USD", Condition.UNVERIFIED, text, T0)
    assert link().unproved(refused=False) == [told]
    of, malformed = link(), Malformed("told", "told:1", "SOL/USD", text, T0)
    assert of.unproved(refused=True) == [malformed, told]
    assert of.unproved(refused=True) == [malformed]  # counted each time


def test_secrets_are_configured_and_never_shown() -> None:
    of = link()
    assert "_secrets" in HostLink.CONFIGURED and vars(of)["_secrets"] == ("top-secret",)
    assert repr(of) == "Told('told:1')"
    assert "top-secret" not in repr({name: value for name, value in vars(of).items() if name not in of.CONFIGURED})
