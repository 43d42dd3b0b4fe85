"""Faults that are put into a hub's process on purpose, to see that the checker finds them. No part of the product."""

from collections.abc import Callable
from typing import Any

import msgspec

from oracle_hub.core.hub import Batch, Decision
from oracle_hub.server.client import Client
from oracle_hub.server.websocket import Subscribers
from oracle_hub.stream.board import Form
from oracle_hub.stream.messages import Update, View

EVERY = 10
"""One batch in so many is hit."""


def drop_frames() -> None:
    """Batches that are decided, journaled and never sent."""
    publish = Subscribers.publish

    def faulty(self: Subscribers, batch: Batch, journaled: bool = True) -> None:
        if batch.seq % EVERY:
            publish(self, batch, journaled)
        else:
            self._board.apply(batch, self._service.now_us(), journaled=journaled)

    setattr(Subscribers, "publish", faulty)  # noqa: B010 - a method is replaced, and mypy should not mind


def reuse_sequences() -> None:
    """Updates that carry the sequence of the one before."""
    encode: Callable[[Form, Any], bytes] = Form.message

    def faulty(form: Form, message: Any) -> bytes:
        if isinstance(message, Update) and message.seq % EVERY == 0:
            message = msgspec.structs.replace(message, seq=message.prev_seq)
        return encode(form, message)

    setattr(Form, "message", faulty)  # noqa: B010


def send_stale_prices() -> None:
    """The first live price of all is sent again with every heartbeat after its lease is over."""
    heartbeats = Subscribers._heartbeats
    first: list[Decision] = []

    def faulty(self: Subscribers, n: int) -> bool:
        more = heartbeats(self, n)
        if not more:
            send_stale(self)
        return more

    def send_stale(self: Subscribers) -> None:
        now_us, board = self._service.now_us(), self._board
        if not first:
            first.extend([one for one in board.decisions.values() if one.mantissa and one.valid_until_us][:1])
            return
        stale = first[0]
        if now_us < (stale.valid_until_us or 0):
            return
        for client in self._clients:
            for sub in client.session._subscriptions.values():
                form = board.form(sub.group.key)
                entry = form.entry(stale, View(None, stale.valid_until_us), False, None)
                self._write(client, board._update(form, sub.number, sub.last_seq, sub.last_seq, now_us, [entry]))

    setattr(Subscribers, "_heartbeats", faulty)  # noqa: B010


def hide_reloads() -> None:
    """A reload is carried out, journaled, and told nobody."""

    def faulty(self: Subscribers) -> None:
        pass

    setattr(Subscribers, "config_changed", faulty)  # noqa: B010


def cut_the_slow() -> None:
    """Who falls behind in mode ``all`` is cut off instead of being closed."""
    close = Client.close

    def faulty(self: Client, frame: bytes, *, drop: bool) -> None:
        if drop:
            self.transport.abort()
        close(self, frame, drop=drop)

    setattr(Client, "close", faulty)  # noqa: B010


PLANTS: dict[str, tuple[Callable[[], None], str]] = {
    "drop": (drop_frames, "loss"),
    "reuse": (reuse_sequences, "order"),
    "stale": (send_stale_prices, "lease"),
    "untold": (hide_reloads, "config"),
    "mute": (cut_the_slow, "goodbye"),
}
"""By name: what puts the fault in, and the rule of the checker that must find it."""
