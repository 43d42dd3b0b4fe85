"""The list of who may be told something from when on, and in which turn."""

from oracle_hub.server.due import Due, Turns


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


def test_who_leaves_is_not_kept_until_he_would_be_due() -> None:
    due: Due[str] = Due()
    for name in ("a", "b"):
        due.add(10, name)
    for at_us, name in ((10, "a"), (10, "nobody"), (11, "b")):
        due.discard(at_us, name)
    assert (due.next_us, due.pop(10), due.next_us) == (10, ["b"], None)


def test_everybody_gets_one_turn_in_the_order_of_coming() -> None:
    turns: Turns[str] = Turns()
    assert not turns and turns.next() is None
    turns.add(["a", "b"])
    turns.add(["c", "a"])
    turns.discard("b")
    turns.discard("nobody")
    assert [bool(turns), turns.next(), turns.next(), bool(turns), turns.next()] == [True, "a", "c", False, None]
