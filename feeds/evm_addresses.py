"""Addresses on EVM chains: EIP-55, and Chainlink's proxies of the known assets.

The proxies are those of Chainlink's own registry, compared with several repositories that use them. A link asks each
contract for its description before it believes it, so that a wrong line here is refused by name and not traded on.
Heartbeats are what is commonly quoted for a feed; how old a price may be is a key of the configuration.
"""

import re
from collections.abc import Mapping

from feeds.signatures import keccak256
from oracle_hub.errors import DecodeError

_ADDRESS = re.compile(r"0[xX][0-9a-fA-F]{40}")

CHAINS: Mapping[int, str] = {1: "Ethereum", 42_161: "Arbitrum", 8_453: "Base"}
"""Chains whose proxies are known, by what ``eth_chainId`` answers."""

PROXIES: Mapping[int, Mapping[str, str]] = {
    1: {
        "BTC/USD": "0xF4030086522a5bEEa4988F8cA5B36dbC97BeE88c",
        "ETH/USD": "0x5f4eC3Df9cbd43714FE2740f5E3616155c5b8419",
        "SOL/USD": "0x4ffC43a60e009B551865A93d232E33Fce9f01507",
        "USDC/USD": "0x8fFfFfd4AfB6115b954Bd326cbe7B4BA576818f6",
        "USDT/USD": "0x3E7d1eAB13ad0104d2750B8863b489D65364e32D",
    },
    42_161: {
        "BTC/USD": "0x6ce185860a4963106506C203335A2910413708e9",
        "ETH/USD": "0x639Fe6ab55C921f74e7fac1ee960C0B6293ba612",
        "SOL/USD": "0x24ceA4b8ce57cdA5058b924B9B9987992450590c",
        "USDC/USD": "0x50834F3163758fcC1Df9973b6e91f0F0F0434aD3",
        "USDT/USD": "0x3f3f5dF88dC9F13eac63DF89EC16ef6e7E25DdE7",
    },
    8_453: {
        "BTC/USD": "0x64c911996D3c6aC71f9b455B1E8E7266BcbD848F",
        "ETH/USD": "0x71041dddad3595F9CEd3DcCFBe3D1F4b0a16Bb70",
        "SOL/USD": "0x975043adBb80fc32276CbF9Bbcfd4A601a12462D",
        "USDC/USD": "0x7e860098F58bBFC8648a4311b374B1D669a2bc6B",
        "USDT/USD": "0xf19d560eB8d2ADf07BD6D13ed03e1D11215721F9",
    },
}
"""Proxy by chain and feed; all with 8 decimals."""

SEQUENCERS: Mapping[int, str] = {
    42_161: "0xFdB631F5EE196F0ed6FAa767959853A9F217697D",
    8_453: "0xBCF85224fc0756B9Fa45aA7892530B47e10b6433",
}
"""Proxy of the sequencer's uptime feed, by chain that has one."""

HEARTBEATS_S: Mapping[int, Mapping[str, int]] = {
    1: {"BTC/USD": 3_600, "ETH/USD": 3_600, "SOL/USD": 86_400, "USDC/USD": 86_400, "USDT/USD": 86_400},
    8_453: {"ETH/USD": 1_200},
}
"""How long a feed may stay silent while its price doesn't move, where it is commonly quoted."""
HEARTBEAT_MARGIN_S = 60
"""A heartbeat comes late when the chain is congested (about 40 s were seen)."""


def checksummed(address: str) -> str:
    """An address in the mixed case of EIP-55.

    Raises:
        DecodeError: not ``0x`` and 40 hex digits, or in mixed case that is not its checksum: mistyped.
    """
    if not _ADDRESS.fullmatch(address):
        raise DecodeError(f"{address[:80]!r} is no address of an EVM chain (0x and 40 hex digits)")
    digits = address[2:].lower()
    sums = keccak256(digits.encode()).hex()
    right = "0x" + "".join(digit.upper() if sums[at] > "7" else digit for at, digit in enumerate(digits))
    if address[2:] not in (digits, digits.upper(), right[2:]):
        raise DecodeError(f"{address} fails the checksum of EIP-55: mistyped? (lower case is taken as it is)")
    return right


def heartbeat_ms(chain_id: int | None, feed: str) -> int | None:
    """Max age that the heartbeat of a feed asks for, with a margin, in ms; None where it is not known."""
    seconds = HEARTBEATS_S.get(chain_id or 0, {}).get(feed)
    return None if seconds is None else (seconds + HEARTBEAT_MARGIN_S) * 1_000
