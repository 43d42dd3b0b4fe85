"""Exact prices: rescaling, divergence, decimal text."""

from decimal import ROUND_CEILING, ROUND_HALF_EVEN, Context, Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracle_hub.core.price import INT64_MAX, decimal_text, divergence_bps, near, rescale, rescale_conf
from oracle_hub.errors import PriceError

WIDE = Context(prec=200)
mantissas = st.integers(1, INT64_MAX) | st.integers(1, 20_000)


@pytest.mark.parametrize(
    ("mantissa", "exponent", "to_exponent", "expected"),
    [
        (17_512_345_678, -8, -8, 17_512_345_678),
        (175, 0, -8, 17_500_000_000),
        (17_512_345, -5, -8, 17_512_345_000),
        (175_123_456_789_012_345_678, -18, -8, 17_512_345_679),  # Data Streams: 18 digits
        (25, -1, 0, 2),  # half to even, downwards
        (35, -1, 0, 4),  # half to even, upwards
        (15 * 10**9, -18, -8, 2),  # 1.5 units
        (25 * 10**9, -18, -8, 2),  # 2.5 units
        (25 * 10**9 + 1, -18, -8, 3),  # a hair above the half
        (25 * 10**9 - 1, -18, -8, 2),
        (INT64_MAX, -8, -8, INT64_MAX),
        (INT64_MAX * 10 + 4, -9, -8, INT64_MAX),
        (1, 18, 0, 10**18),
        (6, -1, 0, 1),
    ],
)
def test_rescale(mantissa: int, exponent: int, to_exponent: int, expected: int) -> None:
    assert rescale(mantissa, exponent, to_exponent) == expected


@pytest.mark.parametrize(
    ("mantissa", "exponent", "to_exponent", "says"),
    [
        (0, -8, -8, "not positive"),
        (-1, -8, -8, "not positive"),
        (-(10**30), -18, -8, "not positive"),
        (INT64_MAX + 1, -8, -8, "does not fit int64"),
        (INT64_MAX, -7, -8, "does not fit int64"),
        (INT64_MAX * 10 + 5, -9, -8, "does not fit int64"),  # rounds up beyond the end
        (5, -1, 0, "is zero at exponent 0"),  # half to even gives zero, which is no price
        (1, -80, 0, "is zero"),
        (1, -81, 0, "too far"),
        (1, 41, 0, "too far"),
        (1, 2**31 - 1, -8, "too far"),
        (1, -(2**31), -8, "too far"),
    ],
)
def test_rescale_refuses_what_is_no_price(mantissa: int, exponent: int, to_exponent: int, says: str) -> None:
    with pytest.raises(PriceError, match=says):
        rescale(mantissa, exponent, to_exponent)


@settings(deadline=None, max_examples=300)
@given(st.integers(1, 10**40), st.integers(-40, 10), st.integers(-18, 0))
def test_rescale_equals_decimal_half_even(mantissa: int, exponent: int, to_exponent: int) -> None:
    value = Decimal(mantissa).scaleb(exponent, WIDE)
    expected = int(value.quantize(Decimal(1).scaleb(to_exponent), ROUND_HALF_EVEN, WIDE).scaleb(-to_exponent, WIDE))
    if 0 < expected <= INT64_MAX:
        assert rescale(mantissa, exponent, to_exponent) == expected
    else:
        with pytest.raises(PriceError):
            rescale(mantissa, exponent, to_exponent)


@settings(deadline=None, max_examples=200)
@given(st.integers(1, 10**10), st.integers(-18, 0), st.integers(0, 8))
def test_rescaling_to_finer_and_back_loses_nothing(mantissa: int, exponent: int, digits: int) -> None:
    assert rescale(rescale(mantissa, exponent, exponent - digits), exponent - digits, exponent) == mantissa


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 10**30), st.integers(-30, 5))
def test_a_confidence_interval_is_rounded_up(conf: int, exponent: int) -> None:
    value = Decimal(conf).scaleb(exponent, WIDE)
    expected = int(value.quantize(Decimal("1e-8"), ROUND_CEILING, WIDE).scaleb(8, WIDE))
    if expected <= INT64_MAX:
        assert rescale_conf(conf, exponent, -8) == expected
    else:
        with pytest.raises(PriceError, match="does not fit int64"):
            rescale_conf(conf, exponent, -8)


def test_confidence_by_value() -> None:
    assert rescale_conf(0, -18, -8) == 0
    assert rescale_conf(1, -18, -8) == 1  # the least uncertainty is not none
    assert rescale_conf(10**10, -18, -8) == 1
    assert rescale_conf(12, -5, -8) == 12_000
    for conf, exponent, says in ((-1, -8, "negative"), (1, -100, "too far"), (1, 60, "too far")):
        with pytest.raises(PriceError, match=says):
            rescale_conf(conf, exponent, -8)


@pytest.mark.parametrize(
    ("a", "b", "bps", "expected"),
    [
        (10_000, 10_050, 50, True),
        (10_000, 10_051, 50, False),
        (9_999, 10_048, 50, True),  # 49 of 9,999 is within, 49.995 being allowed
        (9_999, 10_049, 50, False),
        (1, 1, 0, True),
        (1, 2, 9_999, False),
        (1, 2, 10_000, True),
        (10_000, 19_999, 9_999, True),
        (2**62, 2**62 + 2**62 // 200, 50, True),
        (2**62, 2**62 + 2**62 // 200 + 1, 50, False),
        (INT64_MAX, INT64_MAX, 0, True),
        (1, INT64_MAX, 10_000, False),
    ],
)
def test_near(a: int, b: int, bps: int, expected: bool) -> None:
    assert near(a, b, bps) is expected
    assert near(b, a, bps) is expected


@settings(deadline=None, max_examples=500)
@given(mantissas, st.integers(0, 10_000), st.integers(-2, 2), st.booleans())
def test_near_is_the_fraction_compared(a: int, bps: int, beside: int, swap: bool) -> None:
    """Around the threshold itself, where a rounded form would differ."""
    b = min(max(a + a * bps // 10_000 + beside, 1), INT64_MAX)
    first, second = (b, a) if swap else (a, b)
    assert near(first, second, bps) is (Fraction(abs(a - b), min(a, b)) <= Fraction(bps, 10_000))


@settings(deadline=None, max_examples=300)
@given(mantissas, mantissas, st.integers(0, 10_000))
def test_near_keeps_every_intermediate_within_int64(a: int, b: int, bps: int) -> None:
    smaller = min(a, b)
    parts = (bps * (smaller // 10_000), bps * (smaller % 10_000), abs(a - b))
    assert max(*parts, parts[0] + parts[1] // 10_000) <= INT64_MAX
    assert near(a, b, bps) is (Fraction(abs(a - b), smaller) <= Fraction(bps, 10_000))


def test_divergence_is_of_the_smaller_and_symmetric() -> None:
    assert divergence_bps(10_000, 10_050) == divergence_bps(10_050, 10_000) == 50.0
    assert divergence_bps(10_000, 20_000) == 10_000.0
    assert divergence_bps(30_000, 30_001) == 0.33
    assert divergence_bps(7, 7) == 0.0


@pytest.mark.parametrize(
    ("mantissa", "exponent", "text"),
    [
        (150, -2, "1.50"),
        (17_512_345_678, -8, "175.12345678"),
        (1, -8, "0.00000001"),
        (100_000_000, -8, "1.00000000"),
        (5, 0, "5"),
        (5, 3, "5000"),
        (-5, -1, "-0.5"),
        (-12_345, -2, "-123.45"),
        (0, -3, "0.000"),
        (INT64_MAX, -18, "9.223372036854775807"),
    ],
)
def test_decimal_text(mantissa: int, exponent: int, text: str) -> None:
    assert decimal_text(mantissa, exponent) == text


@settings(deadline=None, max_examples=300)
@given(st.integers(-(2**63), INT64_MAX), st.integers(-18, 6))
def test_decimal_text_reads_back_exactly(mantissa: int, exponent: int) -> None:
    text = decimal_text(mantissa, exponent)
    assert Decimal(text) == Decimal(mantissa).scaleb(exponent, WIDE)
    assert len(text.partition(".")[2]) == max(0, -exponent)
