"""What the emulator is to play for a configuration: which feeds, and where each of their sources reads them."""

from feeds.addresses import ASSETS
from feeds.emulator.catalogue import ReadAt
from feeds.emulator.emulator import EmulatorSettings
from oracle_hub.app.lineup import EMULATED_RPC, addresses_of, catalog_of
from oracle_hub.config import Config, ways_of

_ON_THE_WAY_US = 1_800_000
"""An update may be this old when it is seen: cut to whole seconds, delayed, told in groups."""


def read_at(config: Config) -> tuple[ReadAt, ...]:
    """Where the emulator has to serve what: each feed by each way to each of its sources.

    Raises:
        ConfigError: as :func:`~oracle_hub.app.lineup.addresses_of`.
    """
    found = []
    for name, way in ways_of(config).items():
        kind, chain_id = way.section.kind, way.section.chain_id
        for feed, address in addresses_of(config, name).items():
            key = f"sources.{way.key}.accounts.{feed}" if way.way else f"feeds.{feed}.accounts.{name}"
            found.append(ReadAt(feed=feed, kind=kind, at=address, key=key, chain_id=chain_id))
    return tuple(found)


def emulator_settings(config: Config) -> EmulatorSettings:
    """What the emulator is to play, by the ``[emulator]`` of a simulation.

    Raises:
        ConfigError: as :func:`read_at`.
    """
    section = config.emulator
    assert section is not None
    return EmulatorSettings(
        seed=section.seed,
        tape=section.tape,
        manifest=section.manifest,
        noise_bps=section.noise_bps,
        speed=section.speed,
        start=section.start,
        loop=section.loop,
        feeds=tuple(config.feeds),
        read=read_at(config),
        prices=section.prices,
        updates_per_s=section.updates_per_s,
        port_base=section.port,
        script=section.faults,
        rpc_names=tuple(one.name for one in EMULATED_RPC),
    )


def pace_warning(config: Config, every_us: int) -> str | None:
    """One line, when the emulator has so many feeds that it updates them more seldom than a source may stay silent."""
    rarest_us = every_us + every_us // 10 + _ON_THE_WAY_US
    for spec in catalog_of(config).feeds:
        for source, max_age_us in spec.max_age_us.items():
            if spec.feed not in ASSETS and max_age_us < rarest_us:
                return (
                    f"emulator.updates_per_s: each feed is updated every {every_us / 1_000_000:.1f} s at most, and "
                    f"{source} of {spec.feed} is too old after {max_age_us / 1_000_000:g} s: raise it, if the machine "
                    f"bears it, or sources.{source}.max_age_ms to {-(-rarest_us // 1_000_000) * 1_000}"
                )
    return None
