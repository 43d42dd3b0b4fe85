"""Settings to try: what a grid on the command line stands for, and what a setting makes of a feed's own limits."""

import itertools
import re
from collections.abc import Sequence

import msgspec

from oracle_hub.core.catalog import Catalog, FeedSpec
from oracle_hub.core.price import BPS_ONE
from oracle_hub.core.selector import Policy
from oracle_hub.errors import ConfigError
from oracle_hub.journal.decoded import Stretch

MAX_SETTINGS = 1_024
KEYS = ("max_divergence_bps", "max_conf_bps", "max_age_s", "max_age_ms", "policy")
_NUMBER = re.compile(r"[0-9]{1,12}")


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """What is tried. None: as configured for each feed at that time."""

    max_divergence_bps: int | None = None
    max_conf_bps: int | None = None
    policy: Policy | None = None
    max_age_us: int | None = None
    """For every source."""
    source_age_us: tuple[tuple[str, int], ...] = ()
    """For single sources, instead."""

    @property
    def label(self) -> str:
        """Only what is tried, as on the command line; ``as configured`` for nothing."""
        parts = [
            f"{name}={value}"
            for name, value in (
                ("max_divergence_bps", self.max_divergence_bps),
                ("max_conf_bps", self.max_conf_bps),
                ("max_age_s", None if self.max_age_us is None else f"{self.max_age_us / 1e6:g}"),
                *((f"max_age_s.{source}", f"{age_us / 1e6:g}") for source, age_us in self.source_age_us),
                ("policy", self.policy),
            )
            if value is not None
        ]
        return " ".join(parts) or "as configured"

    def age_us(self, source: str, configured_us: int) -> int:
        """Max age of a source."""
        own = dict(self.source_age_us).get(source)
        if own is not None:
            return own
        return configured_us if self.max_age_us is None else self.max_age_us

    def of(self, stretch: Stretch) -> "Limits":
        """The limits of a stretch under this setting."""
        return Limits(
            stretch.max_divergence_bps if self.max_divergence_bps is None else self.max_divergence_bps,
            stretch.max_conf_bps if self.max_conf_bps is None else self.max_conf_bps,
            self.policy or stretch.policy,
            tuple(map(self.age_us, stretch.roles, stretch.max_age_us)),
            stretch.barred,
        )

    def changed(self, catalog: Catalog) -> Catalog:
        """A catalog under this setting: what a hub with such a configuration would decide by."""

        def change(spec: FeedSpec) -> FeedSpec:
            return msgspec.structs.replace(
                spec,
                max_divergence_bps=(
                    spec.max_divergence_bps if self.max_divergence_bps is None else self.max_divergence_bps
                ),
                max_conf_bps=spec.max_conf_bps if self.max_conf_bps is None else self.max_conf_bps,
                policy=self.policy or spec.policy,
                max_age_us={source: self.age_us(source, age_us) for source, age_us in spec.max_age_us.items()},
            )

        return Catalog(map(change, catalog.feeds), max_future_us=catalog.max_future_us, stall=catalog.stall)


class Limits(msgspec.Struct, frozen=True):
    """What one setting comes to for one stretch."""

    max_divergence_bps: int
    max_conf_bps: int
    policy: Policy
    max_age_us: tuple[int, ...]
    """By role."""
    barred: int = 0
    """Verifiers that may not be chosen."""


def parse_grid(text: str) -> list[Setting]:
    """Every combination of the values given: ``max_divergence_bps=10,25 max_age_s=5,10 policy=strict,quorum``.

    Raises:
        ConfigError: one line that names the key or value and what it accepts.
    """
    axes: list[list[dict[str, object]]] = []
    seen: set[str] = set()
    for part in text.split():
        key, _, values = part.partition("=")
        name, _, source = key.partition(".")
        if name not in KEYS or (source and not name.startswith("max_age_")):
            raise ConfigError(f"--grid: unknown key {key!r}; known: {', '.join(KEYS)}, and max_age_s.SOURCE")
        seen_as = f"max_age.{source}" if name.startswith("max_age_") else name
        if seen_as in seen:
            raise ConfigError(f"--grid: {key} is given twice")
        seen.add(seen_as)
        axes.append([_choice(name, source, value) for value in values.split(",")])
    count = 1
    for axis in axes:
        count *= len(axis)
    if not axes:
        raise ConfigError("--grid: is empty; give for example 'max_divergence_bps=10,25,50 max_age_s=5,10'")
    if count > MAX_SETTINGS:
        raise ConfigError(f"--grid: {count} settings are more than {MAX_SETTINGS}; give fewer values")
    return [_setting(choices) for choices in itertools.product(*axes)]


def _choice(name: str, source: str, value: str) -> dict[str, object]:
    if name == "policy":
        if value not in tuple(Policy):
            raise ConfigError(f"--grid: policy {value!r}; known: {', '.join(Policy)}")
        return {"policy": Policy(value)}
    if not _NUMBER.fullmatch(value):
        raise ConfigError(f"--grid: {name}: {value!r} is no whole number")
    number = int(value)
    if name in ("max_divergence_bps", "max_conf_bps"):
        if number > BPS_ONE:
            raise ConfigError(f"--grid: {name}: {number} is not within 0 to {BPS_ONE}")
        return {name: number}
    age_us = number * (1_000_000 if name == "max_age_s" else 1_000)
    if not 0 < age_us <= 86_400_000_000:
        raise ConfigError(f"--grid: {name}: {number} is not within a millisecond and a day")
    return {"source_age_us": (source, age_us)} if source else {"max_age_us": age_us}


def _setting(choices: Sequence[dict[str, object]]) -> Setting:
    ages = tuple(choice["source_age_us"] for choice in choices if "source_age_us" in choice)
    merged = {key: value for choice in choices for key, value in choice.items() if key != "source_age_us"}
    return Setting(**merged, source_age_us=ages)  # type: ignore[arg-type]  # each as _choice made it
