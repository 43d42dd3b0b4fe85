"""Whether both addresses of an RPC endpoint are on the cluster that is wanted, and what waits until that is known.

HTTP proves it by its genesis hash. Subscriptions can't be asked for one, and an endpoint's two addresses are configured
apart; but slots of clusters lie millions apart, while the two ends of one chain are seconds apart.


One address may stand for nodes of several clusters, by an error of whoever runs it. Who was asked for the genesis hash
and who answered with accounts are then two: so an endpoint that answers from elsewhere has to do so twice in a row, and
to prove its cluster after that. What it told until then is not used.
"""

from typing import Literal, TypeAlias

from oracle_hub.core.source import Account

State: TypeAlias = Account | int
"""An account, or the slot at which there is none."""

MAX_APART_SLOTS = 10_000
"""More than an hour: no node that is this far behind is of use."""
SLOTS_PER_S = 4
"""Faster than the chain counts, so that an old answer of HTTP refuses nobody."""


class ClusterProof:
    """State of one link. It outlives a connection: what was right stays so until the next check says otherwise.

    Args:
        wanted: False when no cluster is demanded: then states pass at once, and only the slots are compared.
    """

    __slots__ = ("_at_us", "_held", "_right", "_slot", "_wanted", "sure")

    def __init__(self, wanted: bool) -> None:
        self._wanted = wanted
        self._right: bool | Literal["moved"] | None = None
        """What the genesis hash said; None before it did. ``moved``: the latest answer was from elsewhere."""
        self._slot = -1
        """Of the latest answer over HTTP; -1 before the first."""
        self._at_us = 0
        self._held: dict[str, tuple[State, int]] = {}
        self.sure = not wanted
        """Whether states may pass."""

    def restart(self) -> None:
        """The link connects anew: what waited was of the connection before."""
        self._held = {}

    def found(self, right: bool) -> None:
        """HTTP told its genesis hash. Where its answers are from elsewhere since, that it is right proves nothing."""
        if right and self.moved:
            return
        self._right = right
        if not right:
            self._held, self._slot = {}, -1
        self.sure = right and self._slot >= 0

    def note(self, slot: int, at_us: int) -> bool:
        """HTTP answered at this slot. False: it was too far from where it was before, and so it was the time before: it
        has to prove its cluster again."""
        if self._right is False:
            return True
        jumped, moved = self._wanted and self.foreign(slot, at_us), self.moved
        self._slot, self._at_us = slot, at_us
        if jumped:
            self._right, self._held = "moved", {}
        elif moved:
            self._right = None
        self.sure = not self._wanted or self._right is True
        return jumped or not moved

    @property
    def moved(self) -> bool:
        """Whether the latest answer was too far from the one before: another one is to be had soon."""
        return self._right == "moved"

    def foreign(self, slot: int, at_us: int) -> bool:
        """Whether a slot can't be of the chain that HTTP answers for. Before its first answer nobody knows: False."""
        apart = abs(slot - self._slot)
        if apart <= MAX_APART_SLOTS or self._slot < 0:
            return False
        return apart > MAX_APART_SLOTS + SLOTS_PER_S * (abs(at_us - self._at_us) // 1_000_000)

    def words(self, slot: int) -> str:
        """Why a slot is foreign."""
        return f"the websocket is at slot {slot}, HTTP at {self._slot}: not the same cluster, or one stands still"

    def hold(self, pubkey: str, state: State, received_us: int) -> None:
        """Keep the newest state of an account until the cluster is known; after a mismatch keep nothing."""
        held, _ = self._held.get(pubkey, (-1, 0))
        if self._right is not False and _slot(state) >= _slot(held):
            self._held[pubkey] = (state, received_us)

    def drop(self, pubkey: str) -> None:
        """Nobody wants this account any more."""
        self._held.pop(pubkey, None)

    def release(self) -> list[tuple[str, State, int]]:
        """What waited and may pass now: address, state, when it came. What is foreign is dropped."""
        held = {key: one for key, one in self._held.items() if not self.foreign(_slot(one[0]), one[1])}
        self._held = {} if self.sure else held
        return [(key, *one) for key, one in held.items()] if self.sure else []


def _slot(state: State) -> int:
    return state if isinstance(state, int) else state.slot
