"""How long to wait before trying again."""

import random


class Backoff:
    """Exponential delays with jitter, so that a hundred hubs do not knock at the same instant.

    Each delay is drawn from the upper half of ``first_s * 2**n``, capped at ``max_s``: never a hot loop, never in step.
    After a refusal it is drawn from the upper half of ``refused_s`` (``max_s`` where absent) instead.
    The random generator is given, so that a test knows what it will draw.
    """

    def __init__(
        self, rng: random.Random, *, first_s: float = 0.25, max_s: float = 30.0, refused_s: float | None = None
    ) -> None:
        self._rng = rng
        self._first_s = first_s
        self._max_s = max_s
        self._refused_s = max_s if refused_s is None else refused_s
        self.attempts = 0
        """Failures since the last :meth:`reset`."""

    def next_s(self, *, refused: bool = False) -> float:
        """Count one more failure and return how long to wait, in seconds.

        With ``refused`` (the server knows us and said no) the wait is the longest one at once: asking faster can't
        help, and may get the address blocked.
        """
        ceiling = self._refused_s if refused else min(self._max_s, self._first_s * float(2 ** min(self.attempts, 32)))
        self.attempts += 1
        return ceiling * (0.5 + self._rng.random() / 2)

    def reset(self) -> None:
        """Start again from the shortest delay: the link has been healthy."""
        self.attempts = 0


def retry_us(attempt: int, first_us: int, max_us: int) -> int:
    """Delay before retry number ``attempt`` (from 0), without jitter, for the pure halves: their calls must replay."""
    return min(max_us, first_us << min(attempt, 32))
