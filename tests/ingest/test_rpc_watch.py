"""Thousands of accounts are looked through at every timer: what is passed over must have had nothing to say."""

from hypothesis import example, given, settings
from hypothesis import strategies as st

from oracle_hub.ingest.rpc_watch import NEVER, RpcLimits, Watch, next_check, restless
from oracle_hub.ingest.solana_rpc import SolanaRpc
from tests.ingest.test_solana_rpc import Reader

LIMITS = RpcLimits()
NOW_US = 1_795_000_000_000_000
NAMES = ("A", "B", "C")
MOMENTS = st.builds(lambda steps, odd_us: NOW_US + steps * 5_000_000 + odd_us, st.integers(-5, 5), st.integers(-1, 1))
"""Limits are multiples of five seconds: many end just now."""
PERHAPS = st.one_of(st.just(NEVER), st.just(NEVER), MOMENTS)
STATES = st.fixed_dictionaries(
    {
        "request_id": st.sampled_from([0, 0, 7]),
        "requested_us": MOMENTS,
        "retry_us": PERHAPS,
        "suspect_us": PERHAPS,
        "heard_us": MOMENTS,
        "silence_us": st.sampled_from([5_000_000, 20_000_000]),
        "probed": st.booleans(),
    }
)
QUIET = {
    "request_id": 0,
    "requested_us": NOW_US,
    "retry_us": NEVER,
    "suspect_us": NEVER,
    "heard_us": NOW_US - 5_000_000,
    "silence_us": 5_000_000,
    "probed": False,
}
"""Due to be asked about just now."""


def due_of(watch: Watch, probe_ready_us: int) -> list[int]:
    """When its watchdogs have something to do, each by itself."""
    return [
        watch.requested_us + LIMITS.reply_us if watch.request_id else NEVER,
        watch.suspect_us + LIMITS.proof_us if watch.suspect_us != NEVER else NEVER,
        NEVER if watch.probed else max(watch.heard_us + watch.silence_us, probe_ready_us),
        watch.retry_us,
    ]


@settings(deadline=None)
@example([QUIET] * 3, NOW_US)
@given(st.lists(STATES, min_size=3, max_size=3), MOMENTS)
def test_a_timer_asks_those_who_have_something_to_say(states: list[dict[str, int]], probe_ready_us: int) -> None:
    link = SolanaRpc("a", "http://node/", "ws://node/", [Reader("pyth", *NAMES)], limits=LIMITS)
    link.connect(NOW_US - 60_000_000)
    watches = list(link._watches.values())
    for watch, state in zip(watches, states, strict=True):
        for name, value in state.items():
            setattr(watch, name, value)
    link._probe_ready_us = probe_ready_us
    due_us = [min(due_of(watch, probe_ready_us)) for watch in watches]
    assert next_check(watches, LIMITS, probe_ready_us) == min(due_us)
    asked = restless(watches, NOW_US)
    assert asked == [watch for watch in watches if watch in asked]
    for watch, at_us in zip(watches, due_us, strict=True):
        assert watch in asked or at_us > NOW_US
        if watch not in asked:
            quiet: list[str] = []
            assert (link._check(watch, NOW_US, quiet), quiet) == ([], [])
