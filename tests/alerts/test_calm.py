"""The quick look of an alert engine: where it sees nothing, no detector has anything that begins an alert."""

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from oracle_hub.alerts.alert import Kind
from oracle_hub.alerts.detectors import Facts, FeedWatch
from oracle_hub.alerts.memory import Memory
from oracle_hub.alerts.settings import AlertSettings
from oracle_hub.core.catalog import FeedSpec
from oracle_hub.core.hub import Decision, DecisionInput
from oracle_hub.core.selector import Reason, Rule, State
from oracle_hub.core.source import PriceUpdate
from oracle_hub.core.table import InputStatus

NOW_US = 1_000_000_000
SOURCES = ("a", "b", "c", "x", "y")
SPEC = FeedSpec(
    feed="USDC/USD",
    primary="a",
    verifiers=("b", "c"),
    references=("x", "y"),
    max_age_us=dict.fromkeys(SOURCES, 10_000_000),
)
STATUSES = st.sampled_from([InputStatus.OK] * 6 + list(InputStatus))


@st.composite
def entries(draw: st.DrawFn, source: str) -> DecisionInput:
    status = draw(STATUSES)
    age_us = draw(st.integers(0, 12_000_000))
    if status is InputStatus.OK:
        age_us = min(age_us, 10_000_000)
    mantissa = 100_000_000 + draw(st.integers(-900_000, 900_000))
    conf = draw(st.none() | st.integers(0, 1_200_000))
    held = PriceUpdate(source, "solana:a", SPEC.feed, mantissa, NOW_US - age_us, NOW_US - age_us // 2, conf)
    return DecisionInput(source, "primary" if source == "a" else "verifier", status, held)


def facts(inputs: tuple[DecisionInput, ...], spec: FeedSpec = SPEC) -> Facts:
    assert inputs[0].held is not None
    decision = Decision(
        feed=SPEC.feed,
        expo=-8,
        state=State.LIVE,
        rule=Rule.R1,
        reason=Reason.AGREED,
        source="a",
        mantissa=inputs[0].held.mantissa,
        conf=None,
        publish_us=NOW_US,
        decided_us=NOW_US,
        valid_until_us=None,
        inputs=inputs,
    )
    return Facts(NOW_US, spec, decision, inputs)


@settings(max_examples=400, deadline=None)
@given(
    st.tuples(*(entries(source) for source in SOURCES)),
    st.integers(3, 5),
    st.sampled_from([{}, {"USDC/USD": 100_000_000}]),
    st.sampled_from([frozenset(), frozenset({"x"}), frozenset({"a"})]),
    st.integers(1, 100),
    st.sampled_from([3_000_000, 10_000_000]),
)
def test_where_it_is_calm_nothing_begins(
    inputs: tuple[DecisionInput, ...],
    n_inputs: int,
    pegs: dict[str, int],
    aggregates: frozenset[str],
    leave_percent: int,
    chain_max_age_us: int,
) -> None:
    watch = FeedWatch(
        AlertSettings(pegs=pegs, aggregates=aggregates, leave_percent=leave_percent, chain_max_age_us=chain_max_age_us),
        SPEC.feed,
        Memory(60_000_000),
    )
    watch.take(facts(inputs[:n_inputs]))
    if watch.calm():
        assert [signal for signal in watch.signals(NOW_US) if signal.value >= signal.enter] == []


def test_an_aggregate_is_as_young_as_the_chain_says_that_it_must_be() -> None:
    tuned = AlertSettings(aggregates=frozenset({"a"}), chain_max_age_us=10_000_000)
    for published_us, calm in ((None, True), (1_500_000, True), (1_000_000, False), (9_000_000, True)):
        watch = FeedWatch(tuned, SPEC.feed, Memory(60_000_000))
        held = [PriceUpdate(one, "solana:a", SPEC.feed, 100_000_000, NOW_US - 1_500_000, NOW_US) for one in SOURCES[:3]]
        inputs = tuple(DecisionInput(one.source, "verifier", InputStatus.OK, one) for one in held)
        watch.take(facts(inputs, msgspec.structs.replace(SPEC, chain_max_age_us=published_us)))
        assert watch.calm() is calm
        assert [one.kind for one in watch.signals(NOW_US)] == ([] if calm else [Kind.NOT_EXECUTABLE])
    lenient = msgspec.structs.replace(SPEC, chain_max_age_us=3_000_000)
    watch = FeedWatch(
        AlertSettings(aggregates=frozenset({"a"}), chain_max_age_us=1_000_000), SPEC.feed, Memory(60_000_000)
    )
    watch.take(facts(inputs, lenient))
    assert watch.calm()


def ordinary(n_inputs: int, mantissa_of_y: int = 100_000_000, status_of_y: InputStatus = InputStatus.OK) -> FeedWatch:
    tuned = AlertSettings(pegs={"USDC/USD": 100_000_000}, aggregates=frozenset({"x"}))
    watch = FeedWatch(tuned, SPEC.feed, Memory(60_000_000))
    inputs = []
    for source in SOURCES[:n_inputs]:
        mantissa = mantissa_of_y if source == "y" else 100_000_000
        status = status_of_y if source == "y" else InputStatus.OK
        age_us = 10_000_001 if status is InputStatus.STALE else 1
        held = PriceUpdate(source, "solana:a", SPEC.feed, mantissa, NOW_US - age_us, NOW_US)
        inputs.append(DecisionInput(source, "verifier", status, held))
    watch.take(facts(tuple(inputs)))
    return watch


def test_it_is_calm_with_references_a_peg_and_an_aggregate() -> None:
    assert [ordinary(count).calm() for count in (3, 4, 5)] == [True, True, True]
    assert ordinary(5, 100_250_000).calm() and not ordinary(5, 100_260_000).calm()
    assert ordinary(5, 150_000_000, InputStatus.STALE).calm()  # out of use: nobody compares with it
    assert not ordinary(5, 100_000_000, InputStatus.FUTURE).calm()
