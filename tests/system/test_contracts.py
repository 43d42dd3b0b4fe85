"""The commands that are contracts, as processes: ``check`` on every preset, ``decode`` on every account, ``select``."""

from base64 import b64decode
from pathlib import Path

import orjson
import pytest

from tests.conftest import require
from tests.system.process import ROOT, Message, command

PRICE_KEYS = {"kind", "price", "expo", "publish_time_us"}
KINDS = {
    "doves_pricefeed": "doves.price_feed",
    "doves_agpricefeed": "doves.ag_price_feed",
    "jup_custody": "jupiter.custody",
    "jup_pool": "jupiter.pool",
    "chainlink_transmissions": "chainlink.transmissions",
    "pyth_priceupdatev2": "pyth.price_update_v2",
    "SYNTHETIC_pyth_priceupdatev2": "pyth.price_update_v2",
    "pyth_legacy_price": "pyth.legacy_price",
    "pyth_pythnet_price": "pyth.legacy_price",
}
"""By the beginning of a file's name."""


@pytest.mark.parametrize("preset", sorted(path.name for path in (ROOT / "deploy").glob("*.toml")))
async def test_check_of_every_preset(preset: str) -> None:
    finished = await command("check", ROOT / "deploy" / preset, "--json")
    assert finished.status == 0 and not finished.err
    findings = orjson.loads(finished.out)
    assert findings["valid"] is True and findings["simulated"] is preset.startswith("simulate")
    assert list(findings["feeds"]) == ["SOL/USD", "BTC/USD", "ETH/USD", "USDC/USD", "USDT/USD"]
    for feed in findings["feeds"].values():
        assert [one["role"] for one in feed["inputs"].values()][:3] == ["primary", "verifier", "verifier"]
    readable = await command("check", ROOT / "deploy" / preset)
    assert readable.status == 0 and b"SOL/USD" in readable.out


def accounts(fixtures_dir: Path) -> dict[str, list[tuple[str, Message]]]:
    """Every real account that has a decoder, by kind."""
    found: dict[str, list[tuple[str, Message]]] = {}
    for path in sorted(fixtures_dir.glob("*.json")):
        for prefix, kind in KINDS.items():
            if path.name.startswith(prefix + "_"):
                found.setdefault(kind, []).append((path.name, orjson.loads(path.read_bytes())))
    return found


async def test_decode_of_every_account(fixtures_dir: Path) -> None:
    found = accounts(fixtures_dir)
    require(found.keys() == set(KINDS.values()), "an account of every kind")
    for kind, of_kind in found.items():
        base64 = [account["data_base64"] for _, account in of_kind]
        in_hex = [b64decode(text).hex() for text in base64]
        lines = "\n".join([*base64, *in_hex, in_hex[0][:40]]).encode()
        finished = await command("decode", kind, "--lines", data=lines)
        assert finished.status == 0 and not finished.err
        *decoded, last = finished.lines
        count = len(base64)
        assert list(last) == ["error"] and decoded[:count] == decoded[count:] and len(decoded) == 2 * count
        for (name, account), fields in zip(of_kind, decoded, strict=False):
            assert fields["kind"] == kind and "error" not in fields, name
            if not kind.startswith("jupiter"):
                assert fields.keys() >= PRICE_KEYS and isinstance(fields["price"], str), name
                expected = account["expected"]
                price = expected.get("price_raw", expected.get("price", expected.get("latest_answer")))
                if isinstance(price, int):
                    assert fields["price"] == str(price), name


async def test_decode_checks_the_owner(fixtures_dir: Path) -> None:
    account = orjson.loads((fixtures_dir / "doves_pricefeed_sol_edge_2026-09-24.json").read_bytes())
    data = account["data_base64"].encode()
    right = await command("decode", "doves.price_feed", "--owner", account["owner"], data=data)
    assert right.status == 0
    fields = orjson.loads(right.out)
    assert (fields["price"], fields["expo"], fields["publish_time_us"]) == ("6782862018", -8, 1_780_621_855_000_000)
    wrong = await command("decode", "doves.price_feed", "--owner", "11111111111111111111111111111111", data=data)
    assert wrong.status == 1 and len(wrong.err.splitlines()) == 1 and not wrong.out
    foreign = await command("decode", "pyth.price_update_v2", data=data)
    assert foreign.status == 1 and len(foreign.err.splitlines()) == 1 and not foreign.out


NOW_US = 1_790_000_000_000_000


def question(*prices: int | None, policy: str = "strict", age_ms: int = 0) -> bytes:
    """A line for ``select``; the sources' ages differ by a millisecond each."""
    sources = {
        name: None if price is None else {"price": str(price), "publish_time_us": NOW_US - (age_ms + n) * 1_000}
        for n, (name, price) in enumerate(zip(("primary", "verifier_1", "verifier_2"), prices, strict=True))
    }
    limits = {"max_age_ms": 5_000, "max_divergence_bps": 50, "max_future_ms": 2_000}
    return orjson.dumps({"now_us": NOW_US, "policy": policy, **limits, "sources": sources})


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        (question(10_000, 10_050, 10_000), ("live", "R1", "primary", "10000", "agreed")),
        (question(10_000, 10_051, 10_051), ("degraded", "R2", "verifier_1", "10051", "primary_diverged")),
        (question(10_000, 10_051, 10_000), ("none", "R3", None, None, "diverged")),
        (question(None, 10_001, 10_002), ("degraded", "R2", "verifier_1", "10001", "primary_unusable")),
        (question(10_000, None, 10_000), ("none", "R3", None, None, "verifier_unusable")),
        (question(10_000, None, 10_000, policy="quorum"), ("degraded", "R1", "primary", "10000", "verifier_unusable")),
        (question(10_000, None, None, policy="quorum"), ("none", "R3", None, None, "too_few_sources")),
        (question(0, 10_000, 10_000), ("degraded", "R2", "verifier_1", "10000", "primary_unusable")),
        (question(10_000, 10_000, 10_000, age_ms=4_998), ("live", "R1", "primary", "10000", "agreed")),
        (question(10_000, 10_000, 10_000, age_ms=4_999), ("none", "R3", None, None, "verifier_unusable")),
    ],
)
async def test_select(line: bytes, answer: tuple[str | None, ...]) -> None:
    finished = await command("select", data=line + b"\n")
    assert finished.status == 0 and not finished.err
    (given,) = finished.lines
    assert tuple(given[key] for key in ("state", "rule", "source", "price", "reason")) == answer


async def test_select_says_until_when() -> None:
    finished = await command("select", data=question(10_000, 10_000, 10_000) + b"\n" + question(None, None, None))
    live, never = finished.lines
    assert live["valid_until_us"] == NOW_US - 2_000 + 5_000_000 + 1  # the oldest leaves just after its max age
    assert never["valid_until_us"] is None
