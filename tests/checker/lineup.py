"""Which subscribers a run has: every mode, detail, form, rate, age and choice of feeds; some stuck, some library."""

import random

from tests.checker.recorder import ClientSpec

FEEDS = ("SOL/USD", "BTC/USD", "ETH/USD", "USDC/USD", "USDT/USD")
STUCK_SHARE = 0.05
LIBRARY_SHARE = 0.15
STUCK_FOR_S = (15.0, 20.0)
"""A server has had enough of who does not read after 10 s (``server.max_unsent_age_ms``) at the latest, and cuts it off
20 s after it said so: a close frame is there to be found in between."""


def lineup(seed: int, n_clients: int, steady_urls: list[str], faulty_urls: list[str]) -> list[ClientSpec]:
    """Specs of all subscribers. ``steady_urls`` have no network faults; most clients go through the others.

    Every second one of those that are stuck has mode ``all``: it stays with one hub, and comes back with what it held.
    The first of these is stuck from the start, until it was closed for that and is back.
    At least two clients are stuck and one is the library's, however few there are.
    """
    rng = random.Random(seed + 1)
    n_stuck, n_library = max(2, round(n_clients * STUCK_SHARE)), max(1, round(n_clients * LIBRARY_SHARE))
    specs = []
    for number in range(n_clients):
        stuck, library = number < n_stuck, n_stuck <= number < n_stuck + n_library
        urls = rng.sample(steady_urls if rng.random() < 0.3 else faulty_urls, k=len(steady_urls))
        if rng.random() < 0.3:
            urls = urls[:1]
        stuck_all = stuck and number % 2 == 1
        mode = "all" if stuck_all else "latest" if library or stuck else rng.choice(("latest", "latest", "all"))
        feeds = list(FEEDS) if library else rng.choice((["*"], ["*"], rng.sample(FEEDS, 2), [rng.choice(FEEDS)]))
        if stuck:  # so much that buffers fill up, and a connection that nothing else ends
            feeds, urls = ["*"], rng.sample(steady_urls, k=1 if stuck_all else len(steady_urls))
        specs.append(
            ClientSpec(
                name=f"{'stuck-all' if stuck_all else 'stuck' if stuck else 'library' if library else mode}-{number}",
                kind="library" if library else "raw",
                urls=urls,
                feeds=feeds,
                mode=mode,
                detail="full" if stuck else rng.choice(("price", "full")),
                binary=number % 2 == 1,
                max_hz=None if stuck or library or mode == "all" else rng.choice((None, None, 1.0, 5.0)),
                max_age_ms=rng.choice((None, None, None, 700, 2_500)),
                resume=rng.random() < 0.6 or stuck_all,
                disconnect_every_s=None if stuck or library else rng.choice((4.0, 15.0, 60.0)),
                stuck_every_s=5.0 if stuck else None,
                stuck_for_s=rng.uniform(*STUCK_FOR_S) if stuck else 0.0,
                stuck_first=number == 1,
                seed=seed * 1_000 + number,
            )
        )
    return specs
