"""The age of what waits, against a model that remembers every byte."""

from hypothesis import given, settings
from hypothesis import strategies as st

from oracle_hub.stream.backlog import Backlog


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 200_000), st.integers(0, 60)), max_size=40))
def test_age_is_that_of_the_oldest_waiting_byte_but_for_a_mark(steps: list[tuple[int, int, int]]) -> None:
    backlog, waiting, now_us = Backlog(), [0] * 0, 0
    for size, after_us, taken in steps:
        now_us += after_us
        backlog.sent(size, now_us)
        waiting = (waiting + [now_us] * size)[taken:]
        age_us = backlog.age_us(len(waiting), now_us)
        true_us = now_us - waiting[0] if waiting else 0
        assert true_us <= age_us < true_us + 50_000 if waiting else age_us == 0
        assert len(backlog._marks) <= 1 + age_us // 50_000


def test_nothing_waits_at_first_and_when_all_is_taken() -> None:
    backlog = Backlog()
    assert backlog.age_us(0, 5) == 0
    backlog.sent(10, 5)
    assert (backlog.age_us(1, 1_000_000), backlog.age_us(0, 2_000_000), backlog.age_us(0, 3_000_000)) == (999_995, 0, 0)
