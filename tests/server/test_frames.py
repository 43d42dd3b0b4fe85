"""Frame headers against the examples of RFC 6455, section 5.7, and their edges."""

import pytest

from oracle_hub.server.frames import text_frame


def test_the_example_of_the_rfc() -> None:
    assert text_frame(b"Hello") == bytes.fromhex("810548656c6c6f")


@pytest.mark.parametrize(
    ("size", "header"),
    [
        (0, "8100"),
        (125, "817d"),
        (126, "817e007e"),
        (256, "817e0100"),
        (65_535, "817effff"),
        (65_536, "817f0000000000010000"),
    ],
)
def test_the_length_takes_its_shortest_form(size: int, header: str) -> None:
    assert text_frame(b"x" * size) == bytes.fromhex(header) + b"x" * size
