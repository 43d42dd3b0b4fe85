"""Times as people type them on the command line."""

import argparse
from datetime import UTC, datetime


def moment_us(text: str) -> int:
    """Microseconds since 1970 of ISO 8601 (UTC where it names no zone) or of a unix time, by its magnitude: up to 11
    digits are seconds, up to 14 milliseconds, up to 17 microseconds. For ``argparse``'s ``type``.
    """
    if text.isascii() and text.isdigit() and len(text) <= 17:
        return int(text) * (1_000_000 if len(text) <= 11 else 1_000 if len(text) <= 14 else 1)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: neither ISO 8601 nor a unix time") from None
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return int(moment.replace(microsecond=0).timestamp()) * 1_000_000 + moment.microsecond


def moment_text(at_us: int) -> str:
    """UTC to the second, for people to follow."""
    return datetime.fromtimestamp(at_us // 1_000_000, UTC).strftime("%Y-%m-%d %H:%M:%S")
