"""Words and waits of HTTP answers."""

from datetime import UTC, datetime

import pytest

from oracle_hub.ingest.http import retry_after_ms


@pytest.mark.parametrize(
    ("value", "expected_ms"),
    [
        (None, 0),
        ("", 0),
        ("7", 7_000),
        ("0.5", 500),
        ("-3", 0),
        ("1e99", 600_000),
        ("inf", 0),
        ("nan", 0),
        ("soon", 0),
        ("Fri, 21 Nov 2026 10:00:30 GMT", 30_000),
        ("Fri, 21 Nov 2026 09:00:00 GMT", 1),
        ("0", 1),
        ("Sat, 21 Nov 99999999999999999999 10:00:30 GMT", 0),
        ("Sat, 21 Nov 2026 99999999999999999999:00:30 GMT", 0),
        ("Sat, 21 Nov 2026 10:00:30 +9999999999999", 0),
    ],
)
def test_retry_after(value: str | None, expected_ms: int) -> None:
    assert retry_after_ms(value, lambda: datetime(2026, 11, 21, 10, tzinfo=UTC)) == expected_ms
