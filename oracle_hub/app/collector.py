"""When the garbage collector may stop the loop."""

import gc

_YOUNG, _MIDDLE = 700, 10
_FULL = 50
"""Five times as many: a full collection walks all that clients are made of, 30 ms for a thousand of them."""


def settle() -> None:
    """To be called once all is set up: what exists now lives until the end, and no collection needs to walk it.

    Clients leave next to nothing that only a full collection finds, so these are rare: one after some 4,000 have come
    and gone.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _MIDDLE, _FULL)
