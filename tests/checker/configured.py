"""What one connection must be told of the configuration: the hash at the start, and every reload in its place."""

from typing import Any

from tests.checker.subscription import Complain
from tests.checker.truth import Run


class ConfiguredCheck:
    """Follows the configuration that a connection was told of.

    A reload is told right after the first batch under the new configuration, or at once where there is none.
    """

    def __init__(self, hello: dict[str, Any], run: Run, complain: Complain) -> None:
        self._run = run
        self._hash: str = hello["config_hash"]
        self._since: int = hello["seq"]
        """The last batch before it was told: up to here, what was in force may have been another."""
        self._reported = False
        self._in_force("hello", hello, complain)

    def _in_force(self, kind: str, message: dict[str, Any], complain: Complain) -> None:
        """The hash is that of the last batch or, where nothing was decided since the reload, of the next."""
        seq, run = message["seq"], self._run
        if not run.has(seq):
            return  # told by others: the journal lacks it
        batches = (seq, seq + 1) if not run.hop_us else (seq - 1, seq, seq + 1)
        expected = {run.config_hash[one - run.first_seq] for one in batches if run.has(one)}
        if message["config_hash"] not in expected and run.has(seq + 1):
            complain("config", f"{kind} with another configuration than the journal's", seq=seq, expected=expected)

    def told(self, message: dict[str, Any], complain: Complain) -> None:
        """A ``config`` message."""
        self._hash, self._since = message["config_hash"], message["seq"]
        self._in_force("config", message, complain)

    def news(self, message: dict[str, Any], complain: Complain) -> None:
        """A snapshot or an update: two batches in a row under a configuration that was not told are one too many."""
        seq, run = message["seq"], self._run
        if message.get("replayed") or seq - 1 <= self._since or not run.has(seq):
            return
        last, before = (run.config_hash[one - run.first_seq] for one in (seq, seq - 1))
        if last == before != self._hash and not self._reported:
            self._reported = True  # once a connection: everything after it would say the same
            complain("config", "a reload was not told", seq=seq, told=self._hash, in_force=last)
