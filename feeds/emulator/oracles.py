"""The oracles that the emulator plays, under the names that a configuration gives to kinds of sources."""

from oracle_hub.errors import ConfigError

EDGE = "doves.edge"
AGGREGATE = "doves.aggregate"
CHAINLINK_LEG = "doves.chainlink"
LAZER = "doves.lazer"
STORE = "chainlink.store"
RECEIVER = "pyth.receiver"
LEGACY = "pyth.legacy"
HERMES = "pyth.hermes"
REDSTONE = "redstone"

ORACLES: tuple[str, ...] = (EDGE, LAZER, CHAINLINK_LEG, AGGREGATE, STORE, RECEIVER, LEGACY, HERMES, REDSTONE)
"""Every oracle; the aggregate after its legs."""

GROUPS: dict[str, tuple[str, ...]] = {
    "doves": (EDGE, LAZER, AGGREGATE),
    "edge": (EDGE,),
    "aggregate": (AGGREGATE,),
    "lazer": (LAZER,),
    "chainlink": (CHAINLINK_LEG, STORE),
    "pyth": (RECEIVER, LEGACY, HERMES),
    "hermes": (HERMES,),
}
"""Names for several oracles at once, after the roles of the documented line-up: what stands behind ``doves`` when a
custody is followed, and the ways to read ``chainlink`` and ``pyth``."""

STRICT_SECONDS = frozenset({EDGE, AGGREGATE, CHAINLINK_LEG, LAZER, STORE})
"""Oracles whose program refuses a timestamp (in seconds) that is not greater than the one held."""


def select_oracles(name: str | None) -> tuple[str, ...]:
    """The oracles that a name stands for: one, a group, or all of them for None.

    Raises:
        ConfigError: no such name.
    """
    if name is None:
        return ORACLES
    if name in ORACLES:
        return (name,)
    if name in GROUPS:
        return GROUPS[name]
    raise ConfigError(f"emulator: unknown source {name!r}; known: {', '.join((*GROUPS, *ORACLES))}")
