"""Delays between tries."""

import random

from oracle_hub.ingest.backoff import Backoff, retry_us


def test_delays_double_within_their_jitter_up_to_the_cap() -> None:
    backoff = Backoff(random.Random(7), first_s=0.25, max_s=30.0)
    ceilings = [0.25, 0.5, 1, 2, 4, 8, 16, 30, 30]
    delays = [backoff.next_s() for _ in ceilings]
    assert all(ceiling / 2 <= delay <= ceiling for ceiling, delay in zip(ceilings, delays, strict=True))
    assert len({delay / ceiling for ceiling, delay in zip(ceilings, delays, strict=True)}) == len(ceilings)
    backoff.reset()
    assert backoff.next_s() <= 0.25


def test_a_refusal_waits_longest_at_once() -> None:
    assert Backoff(random.Random(7), max_s=30.0).next_s(refused=True) >= 15.0
    patient = Backoff(random.Random(7), max_s=5.0, refused_s=30.0)
    assert patient.next_s(refused=True) >= 15.0 and patient.next_s() <= 5.0


def test_pure_retries_have_no_jitter() -> None:
    assert [retry_us(attempt, 500, 3_000) for attempt in (0, 1, 2, 3, 500)] == [500, 1_000, 2_000, 3_000, 3_000]
