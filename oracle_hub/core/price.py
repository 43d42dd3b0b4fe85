"""Exact integer prices: rescaling, divergence, and decimal text.

A price is an integer *mantissa* at an *exponent*: ``value = mantissa * 10**exponent``. Every feed has one canonical
exponent (-8 for the five assets of the exchange), to which decoders normalise on the spot. No float takes part in any
decision.
"""

from oracle_hub.errors import PriceError

INT64_MAX = 2**63 - 1
BPS_ONE = 10_000
"""Basis points in 1 (100 %)."""


def _power_of_ten(exponent: int) -> int:
    return int(10**exponent)  # int ** int is typed Any, since a negative exponent would give a float


def rescale(mantissa: int, exponent: int, to_exponent: int) -> int:
    """Return ``mantissa * 10**exponent`` as an integer at ``to_exponent``.

    Exact where it fits; finer digits (Data Streams has 18) are rounded half to even in arbitrary precision.

    Raises:
        PriceError: the price is not positive, rounds to zero, or does not fit int64.
    """
    if mantissa <= 0:
        raise PriceError(f"price {mantissa}e{exponent} is not positive")
    shift = exponent - to_exponent
    if shift == 0:
        scaled = mantissa
    elif 0 < shift <= 40:
        scaled = mantissa * _power_of_ten(shift)
    elif -80 <= shift < 0:
        divisor = _power_of_ten(-shift)
        scaled, remainder = divmod(mantissa, divisor)
        twice = 2 * remainder
        if twice > divisor or (twice == divisor and scaled & 1):
            scaled += 1
    else:
        raise PriceError(f"exponent {exponent} is too far from {to_exponent}")
    if scaled > INT64_MAX:
        raise PriceError(f"price {mantissa}e{exponent} does not fit int64 at exponent {to_exponent}")
    if scaled == 0:
        raise PriceError(f"price {mantissa}e{exponent} is zero at exponent {to_exponent}")
    return scaled


def rescale_conf(conf: int, exponent: int, to_exponent: int) -> int:
    """Return a confidence interval at ``to_exponent``, rounded up: uncertainty is never understated.

    Raises:
        PriceError: negative, or does not fit int64.
    """
    if conf < 0:
        raise PriceError(f"confidence {conf}e{exponent} is negative")
    shift = exponent - to_exponent
    if not -80 <= shift <= 40:
        raise PriceError(f"exponent {exponent} is too far from {to_exponent}")
    scaled = conf * _power_of_ten(shift) if shift >= 0 else -(-conf // _power_of_ten(-shift))
    if scaled > INT64_MAX:
        raise PriceError(f"confidence {conf}e{exponent} does not fit int64 at exponent {to_exponent}")
    return scaled


def near(a: int, b: int, max_divergence_bps: int) -> bool:
    """Whether two positive mantissas differ by at most ``max_divergence_bps`` (inclusive) of the smaller one.

    The exact, overflow-free form of ``|a-b| / min(a, b) <= bps / 10_000`` for ``0 <= bps <= 10_000``: every
    intermediate fits int64 when both mantissas do, so the columnar form computes the very same numbers.
    """
    smaller = a if a < b else b
    quotient, remainder = divmod(smaller, BPS_ONE)
    bound = max_divergence_bps * quotient + max_divergence_bps * remainder // BPS_ONE
    return abs(a - b) <= bound


def divergence_bps(a: int, b: int) -> float:
    """The distance between two positive mantissas in basis points of the smaller, for people to read.

    Rounded to 0.01 bps. Never compare it with a threshold: that is what :func:`near` is for.
    """
    return round(abs(a - b) * 1_000_000 // min(a, b) / 100, 2)


def decimal_text(mantissa: int, exponent: int) -> str:
    """Print ``mantissa * 10**exponent`` exactly, keeping trailing zeros: ``decimal_text(150, -2) == "1.50"``."""
    if exponent >= 0:
        return str(mantissa * _power_of_ten(exponent))
    sign = "-" if mantissa < 0 else ""
    digits = str(abs(mantissa)).rjust(1 - exponent, "0")
    return f"{sign}{digits[:exponent]}.{digits[exponent:]}"
