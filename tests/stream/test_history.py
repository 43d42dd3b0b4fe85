"""The ring of batches: complete, or nothing; bounded three ways."""

from oracle_hub.core.hub import Batch, Decision
from oracle_hub.core.selector import Reason, Rule, State
from oracle_hub.stream.history import BYTES_PER_BATCH, BYTES_PER_DECISION, History, batch_size_bytes

ONE = BYTES_PER_BATCH + BYTES_PER_DECISION


def batch(seq: int, epoch: int = 5, now_us: int | None = None) -> Batch:
    decision = Decision(
        feed="SOL/USD", expo=-8, state=State.NONE, rule=Rule.R3, reason=Reason.WARMING, source=None, mantissa=None,
        conf=None, publish_us=None, decided_us=seq, valid_until_us=None, inputs=(),
    )  # fmt: skip
    return Batch(epoch, seq, seq * 1000 if now_us is None else now_us, "c", (decision,))


def filled(count: int, **bounds: int) -> History:
    history = History(5, 10, **bounds)
    for seq in range(11, 11 + count):
        history.append(batch(seq))
    return history


def seqs(batches: list[Batch] | None) -> list[int] | None:
    return None if batches is None else [held.seq for held in batches]


def test_gives_everything_after_a_sequence() -> None:
    history = filled(4)
    assert seqs(history.since(5, 10)) == [11, 12, 13, 14]
    assert seqs(history.since(5, 13)) == [14]
    assert seqs(history.since(5, 14)) == []


def test_gives_nothing_where_it_cannot_give_all() -> None:
    history = filled(4)
    assert history.since(5, 9) is None
    assert history.since(5, 15) is None
    assert history.since(4, 12) is None


def test_is_bounded_by_count() -> None:
    history = filled(9, max_batches=3)
    assert (len(history), history.floor_seq, history.last_seq) == (3, 16, 19)
    assert seqs(history.since(5, 16)) == [17, 18, 19]
    assert history.since(5, 15) is None


def test_is_bounded_by_bytes() -> None:
    assert batch_size_bytes(batch(1)) == ONE
    history = filled(9, max_bytes=2 * ONE)
    assert (len(history), history.size_bytes) == (2, 2 * ONE)


def test_is_bounded_by_age() -> None:
    history = filled(9, max_age_us=2_000)
    assert seqs(history.since(5, history.floor_seq)) == [17, 18, 19]
    history.append(batch(20, now_us=10**9))
    assert seqs(history.since(5, history.floor_seq)) == [20]


def test_a_batch_larger_than_the_bound_is_let_go_and_known_to_be() -> None:
    history = filled(3, max_bytes=10)
    assert (len(history), history.size_bytes) == (0, 0)
    assert seqs(history.since(5, 13)) == []
    assert history.since(5, 12) is None


def test_another_epoch_starts_over() -> None:
    history = filled(3)
    history.append(batch(1, epoch=6))
    assert history.since(5, 12) is None
    assert seqs(history.since(6, 0)) == [1]
    assert history.size_bytes == ONE


def test_what_must_not_be_told_again_is_forgotten() -> None:
    history = filled(3)
    history.forget()
    assert (len(history), history.size_bytes, history.last_seq) == (0, 0, 13)
    assert history.since(5, 12) is None and history.since(5, 13) == []
    history.append(batch(14))
    assert seqs(history.since(5, 13)) == [14]
