"""Which state of an account is the newer one, where several transports tell of it and one of them may be wrong."""

from oracle_hub.errors import DecodeError

MAX_SLOT_GAP = 10_000
"""About an hour. A node that serves requests is not further behind than that, so slots further apart say nothing."""


class SlotOrder:
    """The newest slot of one account by transport.

    A slot that is further than :data:`MAX_SLOT_GAP` from what its transport told before (or, at its first state, from
    the others) is refused once. It is believed when the transport's next state confirms it, since after a long outage
    such a jump is right. However absurd the slots of one transport are, they hold no other one back.
    """

    __slots__ = ("_doubted", "_newest")

    def __init__(self) -> None:
        self._newest: dict[str, int] = {}
        self._doubted: dict[str, int] = {}

    def outdated(self, transport: str, slot: int) -> bool:
        """Whether a state at ``slot`` is older than one that was taken already.

        Raises:
            DecodeError: the slot is too far from those known, and nothing confirms it yet.
        """
        known = self._newest.get(transport, max(self._newest.values(), default=slot))
        doubted = self._doubted.pop(transport, None)
        if abs(slot - known) > MAX_SLOT_GAP:
            if doubted is None or abs(slot - doubted) > MAX_SLOT_GAP:
                self._doubted[transport] = slot
                raise DecodeError(f"slot {slot} is too far from slot {known}: not believed until the next state")
            self._newest.pop(transport, None)
        return any(0 < newest - slot <= MAX_SLOT_GAP for newest in self._newest.values())

    def note(self, transport: str, slot: int) -> None:
        """Take the slot of a state that was used."""
        self._newest[transport] = slot
