"""History in from CSV and UDF, out as CSV and Parquet: checked by row, exact to the digit, never over recorded bars."""

import asyncio
import gzip
import importlib
import re
import sys
import threading
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web
from hypothesis import given, settings

from oracle_hub.charts.bars import Bar, Builder
from oracle_hub.charts.export import BAR_FIELDS
from oracle_hub.charts.resolutions import RESOLUTIONS, SECOND_US, Resolution
from oracle_hub.charts.store import open_store
from oracle_hub.charts.transfer import Source, read_csv, with_coarser
from oracle_hub.cli import main
from oracle_hub.errors import ChartsError
from tests.charts.plain_bars import BEGIN_US, FEED, histories, point
from tests.patience import PATIENCE_S

NOW_US = 1_800_000_000 * SECOND_US
FOREVER_US = 2**62
SOURCE = Source(feed=FEED, resolution=Resolution.M1, expo=-8, now_us=NOW_US)
MIDNIGHT_S = 1_704_067_200


def csv_of(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "history.csv"
    path.write_text(text, encoding="utf-8")
    return path


# CSV.


@pytest.mark.parametrize(
    "moment",
    [
        str(MIDNIGHT_S),
        *(f"{MIDNIGHT_S}{'0' * zeros}" for zeros in (3, 6, 9)),
        "2024-01-01T00:00:00Z",
        "2024-01-01 00:00",
        "2024-01-01T02:00:00+02:00",
    ],
)
def test_a_row_is_read_to_the_digit_whatever_form_its_time_has(tmp_path: Path, moment: str) -> None:
    path = csv_of(tmp_path, f"Time,Open,High,Low,Close,Volume\n{moment},145.1,145.20000000,145.00000001,1.451e2,7\n\n")
    (bar,) = read_csv(path, SOURCE)
    assert bar == Bar(
        FEED,
        Resolution.M1,
        MIDNIGHT_S * SECOND_US,
        14_510_000_000,
        14_520_000_000,
        14_500_000_001,
        14_510_000_000,
        -8,
        1,
        0,
        0,
        imported=True,
    )


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("60,1,2,1", r":3: close '' is no number"),
        ("60,1,2,1,x", r":3: close 'x' is no number"),
        ("60,1,2,1,nan", r":3: close 'nan' is no price"),
        ("60,1,2,1,Infinity", r":3: close 'Infinity' is no price"),
        ("60,0,2,1,1", r":3: open 0 is not positive"),
        ("60,-1,2,1,1", r":3: open -1 is not positive"),
        ("60,1e40,2,1,1", r":3: "),
        ("60,1e-30,2,1,1", r":3: price .* is zero at exponent -8"),
        ("60,3,2,1,1", r":3: open and close must lie between low and high"),
        ("60,1,2,1.5,1", r":3: open and close must lie between"),
        ("61,1,2,1,1", r":3: time 61: no bar of 1 min starts there"),
        ("yesterday,1,2,1,1", r":3: time 'yesterday': neither seconds"),
        ("1960-01-01,1,2,1,1", r":3: time '1960-01-01': before 1970"),
        (f"{NOW_US // SECOND_US},1,2,1,1", r":3: time 1800000000: the bar is not over yet"),
        ("0,1,1,1,1", r":3: a second bar at 0"),
    ],
)
def test_a_row_that_is_no_bar_is_named_by_file_and_line(tmp_path: Path, row: str, message: str) -> None:
    path = csv_of(tmp_path, f"time,open,high,low,close\n0,1,1,1,1\n{row}\n")
    with pytest.raises(ChartsError, match=rf"history\.csv{message}"):
        read_csv(path, SOURCE)


@pytest.mark.parametrize("text", ["", "open,high,low,close\n", "t;o;h;l;c\n"])
def test_a_header_without_the_columns_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ChartsError, match=r"history\.csv:1: no column time"):
        read_csv(csv_of(tmp_path, text), SOURCE)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("time,open,high,low,close,close\n0,1,2,1,1,2\n", r":1: column close stands there more than once"),
        ("t,timestamp,open,high,low,close\n0,0,1,2,1,1\n", r":1: column time stands there more than once"),
        ("time,open,high,low,close\n0,1,1,1,1\n60,1,160.5,1,161.0,9\n", r":3: 6 values; the header has 5 columns"),
    ],
)
def test_columns_that_can_be_taken_for_others_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ChartsError, match=rf"history\.csv{message}"):
        read_csv(csv_of(tmp_path, text), SOURCE)


def test_a_columns_own_name_goes_before_other_words_for_it(tmp_path: Path) -> None:
    plain = read_csv(csv_of(tmp_path, "time,open,high,low,close\n60,1,2,1,1\n"), SOURCE)
    assert read_csv(csv_of(tmp_path, "timestamp,O,h,l,c,time,,\nx,1,2,1,1,60,,\n"), SOURCE) == plain
    assert read_csv(csv_of(tmp_path, "time,open,high,low,close\n60,1,2,1,1,,\n"), SOURCE) == plain


@pytest.mark.parametrize("name", ["ts_ms", "open_time", "Date"])
def test_comments_and_blank_lines_before_the_header_are_passed_over(tmp_path: Path, name: str) -> None:
    plain = read_csv(csv_of(tmp_path, "time,open,high,low,close\n60,1,2,1,1\n"), SOURCE)
    before = "\ufeff# bars of a venue, of minutes\r\n\r\n , ,\r\n"
    assert read_csv(csv_of(tmp_path, f"{before}{name},open,high,low,close\r\n60,1,2,1,1\r\n"), SOURCE) == plain
    with pytest.raises(ChartsError, match=r"history\.csv:4: no column time"):
        read_csv(csv_of(tmp_path, f"{before}open,high,low,close\r\n"), SOURCE)
    with pytest.raises(ChartsError, match=r"history\.csv:5: time 61: no bar"):
        read_csv(csv_of(tmp_path, f"{before}{name},open,high,low,close\r\n61,1,2,1,1\r\n"), SOURCE)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "packed.csv").write_bytes(gzip.compress(b"time,open,high,low,close\n"))
    with pytest.raises(ChartsError, match="it is compressed; unpack it with gunzip"):
        read_csv(tmp_path / "packed.csv", SOURCE)
    (tmp_path / "history.csv").write_bytes(b"time,open,high,low,close\n\xff\xfe\x00")
    with pytest.raises(ChartsError, match="not a CSV file in UTF-8"):
        read_csv(tmp_path / "history.csv", SOURCE)


@settings(max_examples=30, deadline=None)
@given(histories(max_size=12))
def test_coarser_bars_of_imports_are_those_of_a_recording(points: list[Any]) -> None:
    """But for their marks: seconds imported from a recording derive the bars that the recording derived."""
    builder = Builder(BEGIN_US)
    for told in points:
        builder.add(told)
    builder.watermark(max(points[-1].decided_us, BEGIN_US) + 70 * 86_400 * SECOND_US)
    recorded = builder.drain().bars
    seconds = [bar for bar in recorded if bar.resolution is Resolution.S1]
    derived = with_coarser(seconds)
    assert [bar for bar in derived if bar.resolution is Resolution.S1] == seconds

    def content(bar: Bar) -> tuple[object, ...]:
        return (
            RESOLUTIONS.index(bar.resolution),
            bar.start_us,
            bar.open,
            bar.high,
            bar.low,
            bar.close,
            bar.updates,
            bar.none_us,
        )

    assert sorted(map(content, derived)) == sorted(map(content, recorded))


def test_a_derived_bar_that_is_only_partly_imported_is_marked(tmp_path: Path) -> None:
    rows = "".join(f"{MIDNIGHT_S + 60 * minute},1,1,1,1\n" for minute in range(1, 10))
    bars = with_coarser(read_csv(csv_of(tmp_path, f"t,o,h,l,c\n{rows}"), SOURCE))
    fives = [(bar.start_us // SECOND_US - MIDNIGHT_S, bar.gap) for bar in bars if bar.resolution is Resolution.M5]
    assert fives == [(0, True), (300, False)]
    assert all(bar.imported for bar in bars) and bars[-1].resolution is Resolution.MO1 and bars[-1].gap


# A UDF server.


class UdfServer:
    """Serves minutes as the protocol has it, on a thread of its own. Prices are numbers in JSON."""

    def __init__(self, start_s: int, count: int) -> None:
        self.times = [start_s + 60 * index for index in range(count)]
        self.asked: list[dict[str, str]] = []
        self.says_no_data = True
        self.unit = 1
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> "UdfServer":
        self._thread.start()
        assert self._ready.wait(PATIENCE_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _serve(self) -> None:
        self._loop.run_until_complete(self._start())
        self._loop.run_forever()
        self._loop.run_until_complete(self._runner.cleanup())
        self._loop.close()

    async def _start(self) -> None:
        app = web.Application()
        app.router.add_get("/udf/history", self._history)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{site.port}/udf"
        self._ready.set()

    async def _history(self, request: web.Request) -> web.Response:
        query = dict(request.query)
        self.asked.append(query)
        if query["symbol"] == "LOCKED":
            return web.Response(status=403, text="pay first")
        if query["symbol"] != "Crypto.SOL/USD":
            return web.json_response({"s": "error", "errmsg": "unknown_symbol"})
        times = [at for at in self.times if int(query["from"]) <= at < int(query["to"])]
        if not times:
            earlier = [at for at in self.times if at < int(query["from"])]
            body: dict[str, object] = {"s": "no_data"}
            if not self.says_no_data:
                body = {"s": "ok", "t": [], "o": [], "h": [], "l": [], "c": [], "v": []}
            elif earlier:
                body["nextTime"] = earlier[-1]
            return web.json_response(body)
        prices = "[" + ",".join(f"145.{at // 60 % 1000:03d}00001" for at in times) + "]"
        told = [at * self.unit for at in times]
        text = f'{{"s":"ok","t":{told},"o":{prices},"h":{prices},"l":{prices},"c":{prices},"v":[]}}'
        return web.Response(text=text, content_type="application/json")


@pytest.fixture
def server() -> Iterator[UdfServer]:
    with UdfServer(MIDNIGHT_S, 6_000) as udf:
        yield udf


def test_history_of_a_udf_server_is_paged_back_until_it_ends(
    tmp_path: Path, server: UdfServer, capsys: pytest.CaptureFixture[str]
) -> None:
    end = str(MIDNIGHT_S + 6_000 * 60 + 900_000)  # more than a page beyond the last bar
    command = ["import-bars", FEED, "1", "--udf", server.url, "--symbol", "Crypto.SOL/USD", "--to", end]
    command += ["--database", str(tmp_path / "charts.sqlite"), "--json"]
    assert main(command) == 0, capsys.readouterr().err
    outcome = orjson.loads(capsys.readouterr().out)
    assert outcome["read"] == 6_000 and outcome["changed"] == 6_000 + outcome["derived"]
    with open_store(tmp_path / "charts.sqlite") as store:
        bars = store.bars(FEED, Resolution.M1, 0, FOREVER_US)
        assert [bar.start_us // SECOND_US for bar in bars] == server.times
        assert bars[7].close == 14_500_000_001 + MIDNIGHT_S // 60 % 1_000 * 100_000 + 7 * 100_000
        assert len(store.bars(FEED, Resolution.H1, 0, FOREVER_US)) == 100
    assert main(command) == 0
    assert orjson.loads(capsys.readouterr().out)["changed"] == 0
    assert len(server.asked) < 20


def test_a_server_that_never_says_no_data_is_left_after_many_empty_pages(
    tmp_path: Path, server: UdfServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.says_no_data = False
    arguments = ["--udf", server.url, "--symbol", "Crypto.SOL/USD", "--to", str(MIDNIGHT_S + 6_000 * 60)]
    assert main(["import-bars", FEED, "1", *arguments, "--json", "--database", str(tmp_path / "charts.sqlite")]) == 0
    assert orjson.loads(capsys.readouterr().out)["read"] == 6_000
    assert len(server.asked) == 2 + 20


@pytest.mark.parametrize(
    ("symbol", "message"), [("LOCKED", "HTTP 403 'pay first'"), ("Crypto.NONE/USD", "refused symbol .*unknown_symbol")]
)
def test_a_server_that_refuses_is_quoted(
    tmp_path: Path, server: UdfServer, capsys: pytest.CaptureFixture[str], symbol: str, message: str
) -> None:
    database = str(tmp_path / "charts.sqlite")
    assert main(["import-bars", FEED, "1", "--udf", server.url, "--symbol", symbol, "--database", database]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(message, error)


def test_a_server_that_tells_milliseconds_is_refused(
    tmp_path: Path, server: UdfServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.unit = 1_000
    arguments = ["--udf", server.url, "--symbol", "Crypto.SOL/USD", "--to", str(MIDNIGHT_S + 6_000 * 60)]
    assert main(["import-bars", FEED, "1", *arguments, "--database", str(tmp_path / "charts.sqlite")]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(r"bar 0: time 1704\d{9} is still to come; UDF has seconds since 1970", error)


def test_a_server_that_is_not_there_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["import-bars", FEED, "1", "--udf", "http://127.0.0.1:1/udf", "--database", str(tmp_path / "c.sqlite")]
    assert main(arguments) == 1
    assert "http://127.0.0.1:1/udf/history: cannot be reached" in capsys.readouterr().err


# Commands.


def recorded(path: Path) -> None:
    """Twenty seconds of a recording, the open minute of which is in nobody's file."""
    with open_store(path) as store:
        builder = store.resume_builder(BEGIN_US)
        for seq in range(40):
            builder.add(point(seq * 500_000, 14_510_000_000 + seq, seq=seq + 1))
        builder.add(point(20_000_000, None, seq=41))
        builder.watermark(BEGIN_US + 60 * SECOND_US)
        store.write_harvest(builder.drain())


def test_import_never_replaces_recorded_bars(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    database = tmp_path / "charts.sqlite"
    second = 1_704_067_200
    with open_store(database) as store:
        held = Bar(FEED, Resolution.S1, second * SECOND_US, 7, 7, 7, 7, -8, 1, 0, 0)
        store.write(bars=[held])
    path = csv_of(tmp_path, f"time,open,high,low,close\n{second},1,1,1,1\n{second + 1},1,1,1,1\n")
    assert main(["import-bars", FEED, "1S", "--csv", str(path), "--no-derive", "--database", str(database)]) == 0
    assert "2 bars read, 0 coarser ones derived: 1 imported, 1 as they were" in capsys.readouterr().out
    with open_store(database) as store:
        first, later = store.bars(FEED, Resolution.S1, 0, FOREVER_US)
        assert first == held and later.imported


def test_a_bad_row_imports_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = csv_of(tmp_path, "time,open,high,low,close\n0,1,1,1,1\n60,1,1,1,none\n")
    arguments = ["import-bars", FEED, "1", "--csv", str(path), "--database", str(tmp_path / "charts.sqlite")]
    assert main(arguments) == 1
    assert capsys.readouterr().err == f"oracle-hub import-bars: {path}:3: close 'none' is no number\n"
    assert list(tmp_path.iterdir()) == [path]  # and makes no store


def test_a_name_that_the_store_does_not_know_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    database = tmp_path / "charts.sqlite"
    recorded(database)
    path = csv_of(tmp_path, "time,open,high,low,close\n0,1,1,1,1\n")
    for name, said in (("SOL", f"SOL is new to {database}, which has {FEED}\n"), (FEED, "")):
        assert main(["import-bars", name, "1", "--csv", str(path), "--database", str(database)]) == 0
        assert capsys.readouterr().err == said


def test_export_as_csv_is_exact_and_can_be_imported_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    database, output = tmp_path / "charts.sqlite", tmp_path / "bars.csv"
    recorded(database)
    arguments = ["export", "bars", FEED, "--resolution", "1S", "--output", str(output), "--database", str(database)]
    assert main([*arguments, "--json"]) == 0
    assert orjson.loads(capsys.readouterr().err) == {"rows": 20, "format": "csv"}
    lines = output.read_text("utf-8").splitlines()
    assert lines[0] == ",".join(BAR_FIELDS)
    assert (
        lines[1]
        == f"{FEED},1S,{BEGIN_US // SECOND_US},145.10000000,145.10000001,145.10000000,145.10000001,-8,2,0,0,1,0,0,0"
    )
    source = Source(feed=FEED, resolution=Resolution.S1, expo=-8, now_us=BEGIN_US + 60 * SECOND_US)
    with open_store(database) as store:
        held = store.bars(FEED, Resolution.S1, 0, FOREVER_US)
    again = read_csv(output, source)
    assert [(bar.start_us, bar.open, bar.close, bar.updates, bar.none_us) for bar in again] == [
        (bar.start_us, bar.open, bar.close, bar.updates, bar.none_us) for bar in held
    ]


def test_export_of_decisions_goes_to_standard_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    database = tmp_path / "charts.sqlite"
    recorded(database)
    assert main(["export", "points", "--from", "2027-01-31T23:59:59.5", "--database", str(database)]) == 0
    printed = capsys.readouterr()
    header, first, last = printed.out.splitlines()
    assert header.startswith("feed,decided_us,instance,epoch,seq,state,price,expo,conf,source")
    assert first.split(",")[5:8] == ["live", "145.10000039", "-8"] and last.split(",")[5:8] == ["none", "", "-8"]
    assert printed.err == "2 points written\n"


@pytest.mark.parametrize("what", ["bars", "points"])
def test_parquet_holds_what_csv_holds(tmp_path: Path, what: str) -> None:
    parquet = importlib.import_module("pyarrow.parquet")
    database = tmp_path / "charts.sqlite"
    recorded(database)
    for name in ("out.csv", "out.parquet"):
        output = ["--output", str(tmp_path / name), "--database", str(database)]
        assert main(["export", what, "--resolution", "1S", *output]) == 0
    names, *lines = [line.split(",") for line in (tmp_path / "out.csv").read_text("utf-8").splitlines()]
    table = parquet.read_table(tmp_path / "out.parquet")
    assert table.column_names == names and table.num_rows == len(lines)
    for name, column in zip(names, zip(*lines, strict=True), strict=True):
        for value, text in zip(table.column(name).to_pylist(), column, strict=True):
            if isinstance(value, Decimal):
                assert value == Decimal(text)
            else:
                assert str(int(value) if isinstance(value, bool) else "" if value is None else value) == text


def test_parquet_without_pyarrow_is_one_clear_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    database = tmp_path / "charts.sqlite"
    recorded(database)
    output = str(tmp_path / "out.parquet")
    assert main(["export", "bars", "--output", output, "--database", str(database)]) == 1
    assert "Parquet needs pyarrow: pip install 'oracle-hub[parquet]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bars", "XYZ/USD"], "holds no feed XYZ/USD; it has SOL/USD"),
        (["bars", "--resolution", "7"], "no resolution '7'"),
        (["bars", "--format", "parquet"], "give --output FILE"),
        (["bars", "--output", "/nowhere/at/all.csv"], "/nowhere/at/all.csv: cannot be written"),
    ],
)
def test_export_refuses_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    database = tmp_path / "charts.sqlite"
    recorded(database)
    assert main(["export", *arguments, "--database", str(database)]) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.parametrize("link", [False, True])
def test_export_does_not_write_over_what_it_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], link: bool
) -> None:
    database = tmp_path / "charts.sqlite"
    recorded(database)
    before = database.read_bytes()
    output = tmp_path / "bars.csv" if link else database
    if link:
        output.symlink_to(database)
    assert main(["export", "bars", "--output", str(output), "--database", str(database)]) == 1
    assert capsys.readouterr().err == f"oracle-hub export: --output {output}: is the store itself; give another file\n"
    assert database.read_bytes() == before


def test_export_makes_no_store_where_there_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "bars", "--database", str(tmp_path / "none.sqlite")]) == 1
    assert "no such file" in capsys.readouterr().err and not list(tmp_path.iterdir())
