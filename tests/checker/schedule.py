"""What goes wrong when: a function of a seed, so that a run that found something can be made again."""

import random
from typing import Literal, TypeAlias

import msgspec

from tests.checker.lineup import FEEDS

Kind: TypeAlias = Literal[
    "stop_hub",
    "kill_hub",
    "step_clock",
    "reload_hub",
    "kill_worker",
    "stop_worker",
    "stop_clients",
    "delay",
    "throttle",
    "pause",
    "truncate",
    "reset",
    "half_open",
    "kill_source",
    "stall_source",
    "spike_source",
    "future_source",
]
HUB_KINDS: tuple[Kind, ...] = ("stop_hub", "kill_hub", "step_clock", "reload_hub")
WORKER_KINDS: tuple[Kind, ...] = ("kill_worker", "stop_worker")
PROXY_KINDS: tuple[Kind, ...] = ("delay", "throttle", "pause", "truncate", "reset", "half_open")
WORLD_KINDS: tuple[Kind, ...] = ("kill_source", "stall_source", "spike_source", "future_source")
LONGEST_STOP_S = 30.0
HOUR_S = 3_600


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One fault: it begins ``at_s`` after the start and is undone ``duration_s`` later."""

    at_s: float
    kind: Kind
    target: int
    """Number of the hub, of the process of clients, or of the proxy."""
    duration_s: float
    value: int = 0
    """Seconds of a clock's step; ms of delay; bytes per second; bytes before the cut; basis points of a spike,
    or the greatest distance between sources that a reload allows; which worker of its hub."""
    source: str = ""
    feed: str | None = None
    """Of a source's fault: the only one, or None for all. Of a reload: the one that is left out."""


def _lane(
    rng: random.Random, kinds: tuple[Kind, ...], duration_s: float, n_targets: int, gap_s: tuple[float, float]
) -> list[Event]:
    """Faults of these kinds one after the other, each kind before any a second time."""
    events: list[Event] = []
    at_s = rng.uniform(4.0, 8.0)
    queue: list[Kind] = []
    while True:
        if not queue:
            queue = rng.sample(kinds, len(kinds))
        event = _event(rng, queue.pop(), at_s, duration_s, n_targets)
        if event.at_s + event.duration_s > duration_s - 5.0:
            return events
        events.append(event)
        at_s += event.duration_s + rng.uniform(*gap_s)


def _event(rng: random.Random, kind: Kind, at_s: float, whole_s: float, n_targets: int) -> Event:
    target = rng.randrange(n_targets)
    stop_s = min(LONGEST_STOP_S, whole_s / 6)
    match kind:
        case "stop_hub" | "stop_clients":
            return Event(at_s=at_s, kind=kind, target=target, duration_s=stop_s)
        case "kill_worker" | "stop_worker":  # it is replaced whether it is let go on or not
            return Event(at_s=at_s, kind=kind, target=target, duration_s=rng.uniform(0.5, 6.0), value=rng.randrange(64))
        case "kill_hub":
            return Event(at_s=at_s, kind=kind, target=target, duration_s=rng.uniform(0.2, 3.0))
        case "step_clock":  # back only after the step became the new anchor: then that is a step too
            step_s = rng.choice((HOUR_S, -HOUR_S))
            return Event(at_s=at_s, kind=kind, target=target, duration_s=rng.uniform(8.0, 14.0), value=step_s)
        case "reload_hub":
            duration_s, bps, left_out = rng.uniform(3.0, 8.0), rng.choice((40, 70)), rng.choice(FEEDS)
            return Event(at_s=at_s, kind=kind, target=target, duration_s=duration_s, value=bps, feed=left_out)
        case "delay":
            return Event(at_s=at_s, kind=kind, target=target, duration_s=5.0, value=rng.randrange(5, 150))
        case "throttle":
            return Event(at_s=at_s, kind=kind, target=target, duration_s=6.0, value=rng.randrange(4_000, 60_000))
        case "truncate":
            return Event(at_s=at_s, kind=kind, target=target, duration_s=2.0, value=rng.randrange(1, 5_000))
        case "reset" | "pause" | "half_open":
            return Event(at_s=at_s, kind=kind, target=target, duration_s=rng.uniform(1.0, 6.0))
    source = rng.choice(("doves", "chainlink", "pyth"))
    feed = rng.choice((None, "SOL/USD", "BTC/USD"))
    value = rng.choice((-300, 80, 300)) if kind == "spike_source" else 0
    duration_s = rng.uniform(3.0, 9.0)
    return Event(at_s=at_s, kind=kind, target=target, duration_s=duration_s, value=value, source=source, feed=feed)


def schedule(
    seed: int, duration_s: float, *, n_hubs: int, n_client_processes: int, n_proxies: int, n_workers: int = 0
) -> list[Event]:
    """All faults of a run, by time. Hubs, workers, clients, proxies and the world each have one at a time."""
    rng = random.Random(seed)
    events = _lane(rng, HUB_KINDS, duration_s, n_hubs, (5.0, 12.0))
    events += _lane(rng, ("stop_clients",), duration_s, n_client_processes, (20.0, 40.0))
    events += _lane(rng, PROXY_KINDS, duration_s, n_proxies, (1.0, 5.0))
    events += _lane(rng, WORLD_KINDS, duration_s, 1, (2.0, 8.0))
    if n_workers:
        events += _lane(rng, WORKER_KINDS, duration_s, n_hubs, (3.0, 8.0))
    return sorted(events, key=lambda event: event.at_s)
