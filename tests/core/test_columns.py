"""The columnar form of the rule against the scalar one, leases included, and its own corners."""

from typing import cast

import numpy as np
import numpy.typing as npt
import pytest

from oracle_hub.core.columns import CODES, NEVER, POLICIES, ColumnInputs, ColumnSelection, ColumnSelector
from oracle_hub.core.price import INT64_MAX
from oracle_hub.core.selector import BIT_A_BARRED, BIT_B_BARRED, OUTCOMES, Input, Policy, select

Int64 = npt.NDArray[np.int64]
NOW = 1_760_000_000_000_000
MS = 1_000


def column(*rows: list[int] | tuple[int, ...]) -> Int64:
    return np.array(rows, np.int64)


def one_cell(*inputs: Input) -> ColumnInputs:
    """Three scalar inputs as columns of one cell."""
    return ColumnInputs._make(column(*([source[field]] for source in inputs)) for field in range(4))


def random_cells(rng: np.random.Generator, n_cells: int, largest: int = 2**62) -> tuple[Int64, ColumnInputs, Int64]:
    """Cells crowded at the edges: ends at now and one beside, equal recencies, prices about one threshold apart."""
    now = NOW + rng.integers(-5, 6, n_cells)
    starts = np.where(rng.random((3, n_cells)) < 0.6, 0, NOW + rng.integers(-12, 13, (3, n_cells)))
    ends = np.where(rng.random((3, n_cells)) < 0.1, INT64_MAX, NOW + rng.integers(-12, 25, (3, n_cells)))
    base = np.exp(rng.uniform(0, np.log(largest / 4), n_cells)).astype(np.int64) + 1
    bps = rng.choice(np.array([0, 1, 50, 333, 10_000]), n_cells)
    bound = bps * (base // 10_000) + bps * (base % 10_000) // 10_000
    offset = rng.choice(np.array([-1, 0, 0, 0, 1, 1, 2]), (3, n_cells)) * bound + rng.integers(-1, 2, (3, n_cells))
    mantissa = np.maximum(base + offset, 1)
    return now, ColumnInputs(starts, ends, mantissa, NOW + rng.integers(-2, 3, (3, n_cells))), bps


def assert_equals_scalar(
    now: Int64,
    inputs: ColumnInputs,
    bps: Int64,
    policies: npt.NDArray[np.uint8],
    bars: Int64,
    result: ColumnSelection,
) -> None:
    assert result.valid_until_us is not None
    cells = np.stack(inputs, axis=2).transpose(1, 0, 2).tolist()
    for index, (at, rows, limit, policy, barred) in enumerate(
        zip(now.tolist(), cells, bps.tolist(), policies.tolist(), bars.tolist(), strict=True)
    ):
        primary, first, second = (tuple(row) for row in rows)
        scalar = select(at, (primary, first, second), limit, POLICIES[policy], barred)
        assert CODES[result.code[index]] == scalar.outcome, (at, rows, limit)
        assert result.mantissa[index] == (scalar.mantissa or 0), (at, rows, limit)
        lease = NEVER if scalar.valid_until_us is None else min(scalar.valid_until_us, NEVER)
        assert result.valid_until_us[index] == lease, (at, rows, limit)


@pytest.mark.parametrize(("largest", "chunk"), [(2**62, 8_192), (2**44, 1_000), (2**62, 7)])
def test_equals_the_scalar_form_with_leases(largest: int, chunk: int) -> None:
    rng = np.random.default_rng(largest % 1_000 + chunk)
    now, inputs, bps = random_cells(rng, 10_003, largest)
    policies = rng.integers(0, 2, 10_003).astype(np.uint8)
    bars = rng.choice(np.array([0, BIT_A_BARRED, BIT_B_BARRED, BIT_A_BARRED | BIT_B_BARRED]), 10_003)
    result = ColumnSelector(chunk).select(now, inputs, bps, policies, bars, leases=True)
    assert_equals_scalar(now, inputs, bps, policies, bars, result)
    assert len(set(result.code.tolist())) == len(CODES), "the data reaches every outcome"


def test_one_value_for_all_cells_equals_a_column_of_it() -> None:
    _, inputs, _ = random_cells(np.random.default_rng(5), 3_000)
    selector = ColumnSelector()
    for index, policy in enumerate(POLICIES):
        single = selector.select(NOW, inputs, 50, policy, leases=True)
        columns = selector.select(
            np.full(3_000, NOW), inputs, np.full(3_000, 50), np.full(3_000, index, np.uint8), leases=True
        )
        for ours, theirs in zip(single, columns, strict=True):
            assert ours is not None and theirs is not None
            assert ours.tolist() == theirs.tolist()


def test_a_selector_keeps_nothing_from_one_call_to_the_next() -> None:
    now, inputs, bps = random_cells(np.random.default_rng(6), 5_000)
    used = ColumnSelector(512)
    used.select(now[::-1].copy(), inputs, bps, Policy.QUORUM, leases=True)
    again = used.select(now, inputs, bps, Policy.STRICT)
    fresh = ColumnSelector(512).select(now, inputs, bps, Policy.STRICT)
    assert again.code.tolist() == fresh.code.tolist()
    assert again.mantissa.tolist() == fresh.mantissa.tolist()
    assert again.valid_until_us is None


def test_columns_may_be_views_of_a_larger_table() -> None:
    now, inputs, bps = random_cells(np.random.default_rng(7), 2_000)
    feed_major = ColumnInputs._make(np.ascontiguousarray(rows.T).T for rows in inputs)
    assert not feed_major.mantissa.flags.c_contiguous
    ours = ColumnSelector(256).select(now, feed_major, bps, Policy.QUORUM)
    theirs = ColumnSelector(256).select(now, inputs, bps, Policy.QUORUM)
    assert ours.code.tolist() == theirs.code.tolist()
    assert ours.mantissa.tolist() == theirs.mantissa.tolist()


def test_an_unusable_source_may_hold_any_mantissa() -> None:
    """A cell that was never written is 0; neither that nor a negative number may reach the outcome."""
    for garbage in (0, -1, -(2**63), INT64_MAX):
        result = ColumnSelector().select(
            NOW,
            one_cell((1, 0, garbage, 0), (0, NOW, 10_000, 7), (0, NOW, 10_050, 8)),
            50,
            Policy.STRICT,
            leases=True,
        )
        assert CODES[result.code[0]] == OUTCOMES[Policy.STRICT][0b1100110]
        assert result.mantissa.tolist() == [10_050]
        assert result.valid_until_us is not None and result.valid_until_us.tolist() == [NOW + 1]


@pytest.mark.parametrize("base", [2**62, INT64_MAX // 2, 922_337_203_685_477, 922_337_203_685_478])
@pytest.mark.parametrize("bps", [0, 50, 9_999, 10_000])
def test_divergence_of_exactly_the_threshold_is_near_at_any_size(base: int, bps: int) -> None:
    """On both sides of the mantissa from which products no longer fit."""
    bound = base * bps // 10_000
    for apart, agreed in ((bound, True), (bound + 1, False)):
        if base + apart > INT64_MAX:
            continue
        always = (0, INT64_MAX, base, 0)
        for other in ((0, INT64_MAX, base + apart, 0), always):
            result = ColumnSelector().select(
                NOW, one_cell(always, other, (0, INT64_MAX, base + apart, 0)), bps, Policy.STRICT, leases=True
            )
            assert (CODES[result.code[0]].reason == "agreed") is agreed
            assert result.valid_until_us is not None and result.valid_until_us.tolist() == [NEVER]


def test_a_lease_ends_when_a_source_becomes_usable() -> None:
    inputs = one_cell((NOW + 5 * MS, NOW + 9 * MS, 100, 0), (0, NOW + 20 * MS, 100, 0), (0, NOW + 30 * MS, 100, 0))
    result = ColumnSelector().select(NOW, inputs, 50, Policy.STRICT, leases=True)
    assert CODES[result.code[0]].reason == "primary_unusable"
    assert result.valid_until_us is not None and result.valid_until_us.tolist() == [NOW + 5 * MS]


def test_no_cells_give_no_outcomes() -> None:
    empty = np.empty((3, 0), np.int64)
    result = ColumnSelector().select(NOW, ColumnInputs(empty, empty, empty, empty), 50, Policy.STRICT, leases=True)
    assert [None if part is None else part.shape for part in result] == [(0,), (0,), (0,)]


def test_codes_name_every_outcome_once() -> None:
    assert len(set(CODES)) == len(CODES) == 10
    assert set(CODES) == set(OUTCOMES[Policy.STRICT]) | set(OUTCOMES[Policy.QUORUM])


def test_wrong_arrays_are_refused_by_name() -> None:
    good = np.zeros((3, 4), np.int64)
    inputs = ColumnInputs(good, good, good, good)
    selector = ColumnSelector()
    shaped: list[Int64] = [np.zeros(shape, np.int64) for shape in ((3, 5), (4,), (4, 3))]
    for bad in (*shaped, cast("Int64", np.zeros((3, 4)))):
        with pytest.raises(ValueError, match="recency_us: int64 of one shape"):
            selector.select(NOW, inputs._replace(recency_us=bad), 50, Policy.STRICT)
    with pytest.raises(ValueError, match="now_us: one int64"):
        selector.select(np.zeros(3, np.int64), inputs, 50, Policy.STRICT)
    with pytest.raises(ValueError, match="policy: one uint8"):
        selector.select(NOW, inputs, 50, np.zeros(5, np.uint8))
    with pytest.raises(ValueError, match="chunk 0"):
        ColumnSelector(0)
