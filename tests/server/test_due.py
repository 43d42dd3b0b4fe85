"""The list of who may be told something from when on."""

from oracle_hub.server.due import Due


def test_entries_come_out_by_time_and_once() -> None:
    due: Due[str] = Due()
    assert (due.next_us, due.pop(10)) == (None, [])
    for at_us, name in ((30, "c"), (10, "a"), (20, "b"), (10, "also a")):
        due.add(at_us, name)
    assert due.next_us == 10
    assert due.pop(9) == []
    assert due.pop(20) == ["a", "also a", "b"]
    assert (due.next_us, due.pop(20)) == (30, [])
    assert due.pop(31) == ["c"]
    assert due.next_us is None
