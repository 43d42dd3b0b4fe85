"""Tapes are played to the last digit, at their own pace, and nothing that is not on them is played."""

import csv
import gzip
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feeds.addresses import ASSETS
from feeds.chainlink.store import Transmissions
from feeds.doves import AgPriceFeed, PriceFeed
from feeds.emulator.catalogue import CUSTODY, KNOWN
from feeds.emulator.emulator import Emulator, EmulatorSettings
from feeds.emulator.manifest import feed_in_text, row_feed, shipped_manifests
from feeds.emulator.oracles import AGGREGATE, HERMES, STORE
from feeds.emulator.tape import Playback, decimal_parts, parse_start, read_tape, scaled_us, utc_text
from feeds.emulator.walk import Point
from feeds.emulator.world import World
from feeds.layout import AccountLayout
from feeds.pyth.legacy import PriceAccount
from feeds.pyth.receiver import PriceUpdateV2
from oracle_hub.errors import ConfigError

START = 1_795_000_000_250_000
SECOND = 1_000_000
BTC = ASSETS["BTC/USD"]


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(line for line in file if not line.startswith("#")))


def e8(text: str) -> int:
    scaled = Decimal(text) * 10**8
    assert scaled == scaled.to_integral_value()
    return int(scaled)


def emulate(path: Path, **settings: object) -> tuple[Emulator, World]:
    plain = {"tape": str(path), "noise_bps": 0.0} | settings
    emulator = Emulator(settings=EmulatorSettings(**plain), now_us=lambda: START)  # type: ignore[arg-type]
    return emulator, emulator.world


def decoded(world: World, address: str, layout: type[AccountLayout]) -> tuple[int, int]:
    """Price at exponent -8 and unix seconds, read back from the account's bytes."""
    state = world.account(address)
    assert state is not None
    account = layout.decode(state.data)  # type: ignore[attr-defined]
    if isinstance(account, PriceUpdateV2):
        return account.price, account.publish_time
    if isinstance(account, Transmissions):
        return account.latest.answer, account.latest.timestamp
    if isinstance(account, PriceAccount):
        return account.agg.price, account.timestamp
    return account.price, account.timestamp


def write_tape(folder: Path, rows: str, manifest: str = "", name: str = "made.csv") -> Path:
    path = folder / name
    path.write_text(rows, encoding="utf-8")
    if manifest:
        (folder / f"{name}.toml").write_text(manifest, encoding="utf-8")
    return path


ONE_SERIES = """
title = "made up"
[[series]]
feed = "BTC/USD"
sources = ["chainlink"]
price = "price"
time = "ts_ms"
"""


def test_the_crash_is_followed_to_the_last_digit(tapes_dir: Path) -> None:
    path = tapes_dir / "oct10_2025_crash_1s_asof.csv"
    _, world = emulate(path, start="2025-10-10T21:10:00")
    begin_ms = 1_760_130_600_000
    offset_s = START // SECOND - begin_ms // 1_000
    rows = [row for row in rows_of(path) if begin_ms <= int(row["ts_ms"]) < begin_ms + 900_000]
    checked = 0
    for row, following in pairwise(rows):
        world.advance((int(row["ts_ms"]) // 1_000 + offset_s) * SECOND)
        for column, address, layout in (
            ("okx", BTC.ag, AgPriceFeed),
            ("okx", BTC.edge, PriceFeed),
            ("gemini_btc", BTC.chainlink_store, Transmissions),
        ):
            seconds, next_seconds = (int(one[f"{column}_ts_ms"]) // 1_000 for one in (row, following))
            price = row["okx_index" if column == "okx" else column]
            if row[f"{column}_ts_ms"] != following[f"{column}_ts_ms"] and seconds == next_seconds:
                continue  # a later observation of the same second is played instead
            assert decoded(world, address, layout) == (e8(price), seconds + offset_s)
            checked += 1
        mark, mark_s = decoded(world, BTC.pyth_legacy, PriceAccount)
        assert (mark, mark_s) == (e8(row["binance_mark_min_open"]), int(row["ts_ms"]) // 1_000 + offset_s)
        held = world.held("BTC/USD", HERMES)
        assert held is not None and held.mantissa == mark
    assert checked > 2_500


@pytest.mark.parametrize(
    ("name", "feed", "price", "time", "digits", "window"),
    [
        ("oct10_2025_gemini_btcusd_trades.csv", "BTC/USD", "price", "ts_ms", 3, 1_200),
        ("oct10_2025_gemini_ethusd_trades.csv", "ETH/USD", "price", "ts_ms", 3, 1_200),
        ("oct10_2025_gemini_solusd_trades.csv", "SOL/USD", "price", "ts_ms", 3, 1_200),
        ("chainlink_streams_jan2026_btcusd_1s.csv", "BTC/USD", "mid", "ts_s", 6, 600),
        ("chainlink_streams_jan2026_ethusd_1s.csv", "ETH/USD", "mid", "ts_s", 6, 600),
        ("binance_btcusdt_trades_2021-01-08.csv", "BTC/USD", "price", "ts_ms", 3, 60),
    ],
)
def test_one_series_plays_every_role_exactly(
    tapes_dir: Path, name: str, feed: str, price: str, time: str, digits: int, window: int
) -> None:
    path = tapes_dir / name
    _, world = emulate(path)
    rows = rows_of(path)
    first_us = int(rows[0][time]) * 10**digits
    offset_us = (START - first_us) // SECOND * SECOND
    expected: dict[int, int] = {}
    for row in rows:
        expected[(int(row[time]) * 10**digits + offset_us) // SECOND] = e8(row[price])
    asset = ASSETS[feed]
    for change in world.advance(START + window * SECOND):
        if change.held is not None and change.address in (asset.ag, asset.chainlink_store, asset.pyth_new_push, None):
            assert change.held.mantissa == expected[change.held.publish_s]
    end_s = START // SECOND + window
    last_s = max(second for second in expected if second <= end_s)
    for address, layout in (
        (asset.ag, AgPriceFeed),
        (asset.lazer, PriceFeed),
        (asset.chainlink_doves, PriceFeed),
        (asset.chainlink_store, Transmissions),
        (asset.pyth_old_push, PriceUpdateV2),
        (asset.pyth_legacy, PriceAccount),
    ):
        value, second = decoded(world, address, layout)
        assert value == expected[second]
        assert last_s - 1 <= second <= last_s
    assert {one for one, _ in world.keys} == {feed}


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("usdc_depeg_2023_stablecoins_1m.csv", "close"),
        ("jan2025_multioracle_ethusd.csv", "price"),
        ("chainlink_eth_mainnet_btcusd_rounds.csv", "answer_e8"),
        ("venue_traces_2023-06.csv", "price"),
        ("oct10_2025_okx_btcusd_index.csv", "price"),
        ("pyth_2025-02-18_btcusd_1s.csv", "price"),
    ],
)
def test_nothing_is_told_that_is_not_on_the_tape(tapes_dir: Path, name: str, column: str) -> None:
    path = tapes_dir / name
    _, world = emulate(path)
    expo = 0 if column == "answer_e8" else 8
    on_tape = {round(Decimal(row[column]) * 10**expo) for row in rows_of(path)}
    told = [change.held for change in world.advance(START + 900 * SECOND) if change.held]
    assert len(told) > 100
    assert {held.mantissa for held in told} <= on_tape


def test_what_is_not_mapped_is_absent(tapes_dir: Path) -> None:
    _, world = emulate(tapes_dir / "oct10_2025_gemini_btcusd_trades.csv")
    world.advance(START + 120 * SECOND)
    for address, place in KNOWN.places.items():
        if place.feed not in (None, "BTC/USD") and place.oracle != CUSTODY:
            assert world.account(address) is None
    assert world.held("SOL/USD", HERMES) is None


def test_pyth_confidence_comes_from_the_tape(tapes_dir: Path) -> None:
    path = tapes_dir / "pyth_2025-02-18_btcusd_1s.csv"
    _, world = emulate(path, start="120")
    world.advance(START)
    held = world.held("BTC/USD", HERMES)
    row = [row for row in rows_of(path) if int(row["ts_s"]) <= 1_739_872_296][-1]
    assert held is not None and (held.mantissa, held.conf) == (e8(row["price"]), e8(row["conf"]))


def test_arrival_times_are_played_when_the_manifest_names_them(tapes_dir: Path) -> None:
    path = tapes_dir / "oct10_2025_gemini_solusd_trades.csv"
    tape = read_tape(path, Path("gemini_trades_by_arrival"))
    rows = rows_of(path)
    played = list(Playback(tape, START, noise_bps=0).points("SOL/USD", STORE))
    late = max(point.emit_us - point.publish_us for point in played)
    assert late == max(int(row["recv_us"]) - int(row["ts_ms"]) * 1_000 for row in rows)
    assert [point.emit_us for point in played] == sorted(point.emit_us for point in played)


def test_the_last_of_a_second_is_played_at_its_own_time(tmp_path: Path) -> None:
    path = write_tape(
        tmp_path, "ts_ms,price\n1000100,1.00000001\n1000900,2.5\n1001000,3\n1002999,4.123456785\n", ONE_SERIES
    )
    tape = read_tape(path)
    points = list(Playback(tape, START, noise_bps=0).points("BTC/USD", STORE))
    base = START - 150_000  # the first row is at .100 of a second, today as then
    assert points == [
        Point(2_50000000, 2_50000000 * 326 // 1_000_000, base + 800_000, base + 800_000),
        Point(3_00000000, 3_00000000 * 326 // 1_000_000, base + 900_000, base + 900_000),
        Point(4_12345678, 4_12345678 * 326 // 1_000_000, base + 2_899_000, base + 2_899_000),
    ]
    assert tape.rounded == 1


def test_speed_start_and_loop(tmp_path: Path) -> None:
    rows = "".join(f"{1_000_000 + second * 1_000},{second + 1}\n" for second in range(10))
    tape = read_tape(write_tape(tmp_path, "ts_ms,price\n" + rows, ONE_SERIES))
    fast = Playback(tape, START, noise_bps=0, speed=2)
    assert [point.mantissa // 10**8 for point in fast.points("BTC/USD", STORE)] == [2, 4, 6, 8, 10]
    late = Playback(tape, START, noise_bps=0, begin="4.5")
    first, second, *_ = late.points("BTC/USD", STORE)
    assert (first.mantissa, second.mantissa) == (5 * 10**8, 6 * 10**8)
    assert late.offset_us % SECOND == 0 and 0 <= START - first.emit_us < SECOND
    assert first.emit_us - first.publish_us == 500_000  # its true age
    assert second.emit_us - first.emit_us == 500_000
    looped = Playback(tape, START, noise_bps=0, loop=True).points("BTC/USD", STORE)
    points = [next(looped) for _ in range(25)]
    assert [point.mantissa // 10**8 for point in points[9:21]] == [10, *range(1, 11), 1]
    assert [point.publish_us for point in points] == sorted({point.publish_us for point in points})


def test_a_heartbeat_tells_the_value_again_but_not_over_a_gap(tmp_path: Path) -> None:
    manifest = ONE_SERIES + "republish_ms = 1000\nrepublish_for_s = 3\n"
    tape = read_tape(write_tape(tmp_path, "ts_ms,price\n1000000,1\n1002500,2\n1020000,3\n", manifest))
    points = list(Playback(tape, START, noise_bps=0).points("BTC/USD", STORE))
    base = START - 250_000
    told = [(point.mantissa // 10**8, (point.publish_us - base) // 1_000) for point in points]
    assert told[:6] == [(1, 0), (1, 1_000), (2, 2_500), (2, 3_500), (2, 4_500), (2, 5_500)]
    assert told[6:] == [(3, 20_000), (3, 21_000), (3, 22_000), (3, 23_000)]
    later = Playback(tape, START, noise_bps=0, begin="5").points("BTC/USD", STORE)
    standing = next(later)
    assert (standing.mantissa, standing.emit_us - standing.publish_us) == (2 * 10**8, 500_000)


def test_an_unknown_file_is_recognised_by_its_header(tmp_path: Path) -> None:
    rows = "# trades of something\nts_ms,recv_us,side,price,amount\n1000,1000000,buy,2.5,1\n"
    tape = read_tape(write_tape(tmp_path, rows, name="venue_ethusd_2026.csv"))
    assert tape.feeds == ("ETH/USD",)
    assert tape.manifest == "shipped: gemini_trades, by its header"
    wider = rows.replace("amount", "amount,id").replace(",1\n", ",1,77\n")
    tape = read_tape(write_tape(tmp_path, wider, name="wider_btcusd.csv"))
    assert (tape.feeds, tape.manifest) == (("BTC/USD",), "shipped: gemini_trades, by the columns of its header")
    with pytest.raises(ConfigError, match="no manifest"):
        read_tape(write_tape(tmp_path, wider.replace("amount,id", "amount,venue"), name="mixed_btcusd.csv"))
    named = read_tape(write_tape(tmp_path, rows.replace("something", "SOL-USD"), name="mystery.csv"))
    assert named.feeds == ("SOL/USD",)


def test_marks_and_blank_lines_before_the_header_are_no_part_of_it(tmp_path: Path) -> None:
    plain = "# trades of BTC-USD\nts_ms,recv_us,side,price,amount\n1000,1000000,buy,2.5,1\n"
    expected = read_tape(write_tape(tmp_path, plain, name="plain.csv")).series
    for number, rows in enumerate(("\ufeff" + plain, "\r\n \n" + plain, ("\ufeff" + plain).replace("\n", "\r\n"))):
        assert read_tape(write_tape(tmp_path, rows, name=f"other_{number}.csv")).series == expected


@pytest.mark.parametrize(
    ("rows", "manifest", "expected"),
    [
        ("a,b\n1,2\n", "", "no manifest for this tape; write made.csv.toml"),
        ("ts_ms,recv_us,side,price,amount\n1,1,buy,2,1\n", "", "which known feed it is"),
        ("ts_ms,cost\n1,2\n", ONE_SERIES, "the manifest names column 'price'; the tape has ts_ms, cost"),
        ("ts_ms,price\n1000,abc\n", ONE_SERIES, "line 2: column price: 'abc' is no number"),
        ("ts_ms,price\n1000,1\n2000,NaN\n", ONE_SERIES, "line 3: column price: 'NaN' is no number"),
        (
            "ts_ms,price\n2025-10-10T20:30:00Z,1\n",
            ONE_SERIES,
            "line 2: column ts_ms: '2025-10-10T20:30:00Z' is no number",
        ),
        ("ts_ms,price\n1e999999,1\n", ONE_SERIES, "line 2: column ts_ms: '1e999999' is no time"),
        ("ts_ms,price\n-5,1\n", ONE_SERIES, "line 2: column ts_ms: -5 is no unix time from 1970 to 2200"),
        ("ts_ms,price\n1760128200000000,1\n", ONE_SERIES, "1760128200000000 is no unix time from 1970 to 2200 in this"),
        ("ts_ms,price\n1000,1\n", f"{ONE_SERIES}shift_ms = -1001\n", "shift_ms = -1001 moves 1000 out of the"),
        ("ts_ms,price\n1000,1\n", f"{ONE_SERIES}shift_ms = {10**15}\n", f"ts_ms: shift_ms = {10**15} moves 1000 "),
        ("ts_ms,price\n1000,1\n", f"{ONE_SERIES}shift_ms = {-(10**25)}\n", "line 2: column ts_ms: shift_ms = -1000"),
        (
            "ts_ms,price,lag_ms\n1000,1,1e15\n",
            f'{ONE_SERIES}receive_lag = "lag_ms"\n',
            "line 2: column lag_ms: 1e15 is no delay: it would be seen after 2200",
        ),
        ("ts_ms,price\n1,1\n", f"{ONE_SERIES}republish_for_s = {10**9}\n", "Expected `int` <= 31622400"),
        ("ts_ms,price\n1760128200,1\n", ONE_SERIES, "begins at 1970-01-21T08:55:28Z; are its times in seconds?"),
        ("ts_ms,price,price\n1000,1,2\n", ONE_SERIES, "the manifest names column 'price'; the tape has it twice"),
        ("ts_ms,price\n1,1\n", ONE_SERIES.replace('["chainlink"]', "[]"), "sources is empty"),
        ("# c\nts_ms,price\n1000,1\n2000,-1\n", ONE_SERIES, "line 4: column price: price -1e0 is not positive"),
        ("ts_ms,price\n1000\n", ONE_SERIES, "line 2: expected 2 values, found 1"),
        ("ts_ms,price\n1000,\n", ONE_SERIES, "no row of it is a price"),
        ("ts_ms,price\n1,1\n", ONE_SERIES.replace("feed =", "fed ="), "unknown field `fed`"),
        ("ts_ms,price\n1,1\n", "deep = " + "[" * 5_000 + "]" * 5_000, "not a manifest of a tape: maximum recursion"),
        ("ts_ms,price\n1,1\n", ONE_SERIES.replace("BTC", "LUNA"), "unknown feed 'LUNA/USD'"),
        ("ts_ms,price\n1,1\n", ONE_SERIES.replace("chainlink", "nobody"), "unknown source 'nobody'"),
        ("ts_ms,price\n1,1\n", ONE_SERIES.replace('"ts_ms"', '"price"'), "has no unit in its name"),
    ],
)
def test_what_cannot_be_played_is_refused_in_one_line(tmp_path: Path, rows: str, manifest: str, expected: str) -> None:
    path = write_tape(tmp_path, rows, manifest)
    with pytest.raises(ConfigError) as refused:
        read_tape(path)
    assert expected in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_compressed_tape_says_so(tmp_path: Path) -> None:
    path = tmp_path / "made_btcusd.csv.gz"
    path.write_bytes(gzip.compress(b"ts_ms,price\n1000,1\n"))
    with pytest.raises(ConfigError, match=r"cannot be read as a tape \(it is compressed; unpack it with gunzip\)$"):
        read_tape(path)


def test_start_must_be_on_the_tape(tmp_path: Path) -> None:
    tape = read_tape(write_tape(tmp_path, "ts_ms,price\n1760130000000,1\n1760130060000,2\n", ONE_SERIES))
    assert parse_start(None, tape) == 1_760_130_000_000_000
    assert parse_start("30.5", tape) == 1_760_130_030_500_000
    assert utc_text(parse_start("2025-10-10T21:00:10Z", tape)) == "2025-10-10T21:00:10Z"
    for text in ("61", "-1", "2025-10-11T00:00:00", "noon"):
        with pytest.raises(ConfigError):
            parse_start(text, tape)


def test_numbers_are_exact() -> None:
    assert decimal_parts("109876.54321000") == (10987654321000, -8)
    assert decimal_parts("-1.5e3") == (-15, 2)
    assert scaled_us("1760130000.123456", 6) == 1_760_130_000_123_456
    assert scaled_us("1760130000123456789", -3) == 1_760_130_000_123_456
    with pytest.raises(ValueError):
        decimal_parts("NaN")


@given(st.from_regex(r"\s?[+-]?(\d{1,24}(\.\d{0,20})?|\.\d{1,20})([eE][+-]?\d{1,3})?\s?", fullmatch=True))
def test_a_number_is_what_decimal_makes_of_it(text: str) -> None:
    sign, digits, exponent = Decimal(text.strip()).as_tuple()
    assert decimal_parts(text) == ((1 - 2 * sign) * int("".join(map(str, digits))), exponent)


@pytest.mark.parametrize("text", ["", ".", "1.2.3", "1,5", "0x10", "²", "1 2", "9" * 5_000])
def test_what_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        decimal_parts(text)


def test_feeds_are_read_from_names() -> None:
    assert feed_in_text("oct10_2025_gemini_btcusd_trades") == "BTC/USD"
    assert feed_in_text("# Gemini SOL-USD public trades") == "SOL/USD"
    assert feed_in_text("jan2025_binance_usdcusdt_1m") == "USDC/USD"
    assert feed_in_text("oct10_2025_binance_usdeusdt_1m") is None
    assert feed_in_text("btcusd and ethusd") is None
    assert [row_feed(text) for text in ("BTC/USD", "eth-usd", "USDTUSD", "BTC/USDT")] == [
        "BTC/USD",
        "ETH/USD",
        "USDT/USD",
        None,
    ]


def test_every_shipped_manifest_is_valid() -> None:
    assert len(shipped_manifests()) >= 12


def test_the_tape_says_what_it_plays(tapes_dir: Path) -> None:
    emulator, _ = emulate(tapes_dir / "oct10_2025_crash_1s_asof.csv")
    said = emulator.describe()
    assert said["simulated"] is True
    assert (said["tape"], said["begin"]) == ("oct10_2025_crash_1s_asof.csv", "2025-10-10T20:30:00Z")
    assert said["offset_s"] == START // SECOND - 1_760_128_200
    roles = said["roles"]
    assert isinstance(roles, list)
    assert roles[0]["column"] == "okx_index" and AGGREGATE in roles[0]["plays"]
    assert "no Doves account published this" in roles[0]["note"]
