"""Frame headers against the examples of RFC 6455, section 5.7, and their edges."""

import pytest

from oracle_hub.server.frames import close_frame, text_frame


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


def test_a_close_frame_has_code_and_reason() -> None:
    assert close_frame(4000, "shutdown") == bytes.fromhex("880a0fa0") + b"shutdown"


def test_a_control_frame_is_short() -> None:
    assert len(close_frame(4000, "x" * 123)) == 127
    with pytest.raises(ValueError, match="125 bytes, not 126"):
        close_frame(4000, "x" * 124)
