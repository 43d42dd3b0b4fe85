"""The files of the dashboard: what is served, under which policy, and that a wheel has all of it."""

import re
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import orjson
import pytest
from aiohttp import web
from yarl import URL

from oracle_hub.app.charts import DOORS
from oracle_hub.charts.answers import json_answer
from oracle_hub.charts.context import Context
from oracle_hub.charts.dashboard import hub_door
from oracle_hub.charts.dashboard.pages import CLIENT, CONTENT_TYPES, POLICY, STATIC, served
from tests.charts.browser import chromium
from tests.charts.charts_stage import charts_beside
from tests.client.client_stage import HubStage
from tests.project.test_packaging import wheel as wheel  # a fixture, by its name

TEXTS = {path: path.read_text("utf-8") for path in STATIC.iterdir() if path.is_file()}
ALERTS: list[dict[str, object]] = [
    {
        "id": "a2",
        "kind": "journal_lag",
        "feed": None,
        "severity": "warning",
        "started_us": 1_790_000_001_000_000,
        "summary": "the journal is behind",
    },
    {
        "id": "a1",
        "kind": "pair_diverged",
        "feed": "SOL/USD",
        "severity": "critical",
        "started_us": 1_790_000_000_000_000,
        "summary": "SOL/USD: pair_diverged: doves and pyth are <b>80</b> bps apart",
    },
]


@pytest.fixture
async def url(tmp_path: Path) -> AsyncIterator[str]:
    hub = await HubStage().start()
    async with charts_beside(hub, tmp_path / "charts.sqlite") as charts:
        yield charts.url
    await hub.server.stop("the test is over")


async def test_every_file_is_served_under_the_policy(url: str) -> None:
    async with aiohttp.ClientSession(url) as http:
        for path, file in served().items():
            async with http.get(path) as answer:
                assert answer.status == 200, path
                assert await answer.read() == file.read_bytes()
                assert answer.headers["Content-Security-Policy"] == POLICY
                assert answer.headers["X-Content-Type-Options"] == "nosniff"
                assert answer.content_type == CONTENT_TYPES[file.suffix].split(";")[0]
                again = {"If-None-Match": answer.headers["ETag"]}
            async with http.get(path, headers=again) as answer:
                assert answer.status == 304
    assert "default-src 'self'" in POLICY and "unsafe" not in POLICY


@pytest.mark.parametrize("path", ["/dashboard/", "/dashboard/../pages.py", "/dashboard/pages.py", "/index.html"])
async def test_nothing_else_is(url: str, path: str) -> None:
    async with aiohttp.ClientSession() as http, http.get(URL(url + path, encoded=True)) as answer:
        assert answer.status == 404


def test_files_name_only_each_other() -> None:
    """What is asked for is relative and there, so nothing comes from another server, wherever the page is mounted."""
    names = {path.removeprefix("/dashboard/") for path in served()}
    for path, text in TEXTS.items():
        if path.suffix == ".mjs":
            assert {found.removeprefix("./") for found in re.findall(r'from "([^"]+)"', text)} <= names, path.name
        if path.suffix in (".mjs", ".html", ".css"):
            asked = re.findall(r'(?:src|href)="(?!https://www\.tradingview\.com/|#|v1/)([^"]+)"', text)
            assert {one.removeprefix("dashboard/") for one in asked} <= names, path.name
            assert not re.search(r"@import|url\(|innerHTML|insertAdjacentHTML|\beval\(", text), path.name


def test_what_is_from_others_is_named_with_its_version_and_licence() -> None:
    vendor = STATIC / "vendor"
    code = (vendor / "lightweight-charts.standalone.production.mjs").read_text("utf-8")
    version = re.findall(r"Lightweight Charts™ v([\d.]+)", code[:300])[0]
    assert f"Lightweight Charts™ **{version}**" in (vendor / "README.md").read_text("utf-8")
    assert f"Lightweight Charts™ {version}" in TEXTS[STATIC / "index.html"]
    assert "Apache License" in (vendor / "lightweight-charts.LICENSE").read_text("utf-8")


def test_no_file_is_too_long() -> None:
    assert {path.name: lines for path, text in TEXTS.items() if (lines := len(text.splitlines())) > 600} == {}


def test_a_wheel_has_all_of_it(wheel: zipfile.ZipFile) -> None:
    for file in (CLIENT, *STATIC.rglob("*")):
        if file.is_file():
            name = "oracle_hub/" + file.as_posix().rsplit("/oracle_hub/", 1)[1]
            assert wheel.read(name) == file.read_bytes()


def others(context: Context) -> list[web.RouteDef]:
    """The hub's door without its alerts."""
    return [route for route in hub_door.routes(context) if route.path != "/v1/alerts"]


async def test_alerts_are_listed_the_worst_first(tmp_path: Path) -> None:
    told: list[dict[str, object]] = []

    def door(context: Context) -> list[web.RouteDef]:
        async def alerts(request: web.Request) -> web.Response:
            return json_answer({"alerts": told})

        return [*others(context), web.get("/v1/alerts", alerts)]

    doors = (*(one for one in DOORS if one is not hub_door.routes), door)
    hub = await HubStage().start()
    async with charts_beside(hub, tmp_path / "charts.sqlite", doors=doors) as charts, chromium() as page:
        panel = "document.querySelector('#alerts-panel')"
        await page.open(charts.url)
        await page.until(f"{panel}.checkVisibility() && {panel}.innerText.includes('no alerts')")
        told.extend(ALERTS)
        row = await page.until(f"{panel}.querySelector('li:first-child[data-alert=a1]')?.innerText")
        assert "pair diverged · SOL/USD" in row and "critical" in row and "14:13:20" in row
        assert "doves and pyth are <b>80</b> bps apart" in row  # text, whatever it is
        assert "journal lag" in await page.value(f"{panel}.querySelector('li:last-child').innerText")
        assert page.errors == []
    await hub.server.stop("the test is over")


async def test_where_no_alerts_are_served_there_is_no_list(tmp_path: Path) -> None:
    doors = (*(one for one in DOORS if one is not hub_door.routes), others)
    hub = await HubStage().start()
    async with charts_beside(hub, tmp_path / "charts.sqlite", doors=doors) as charts, chromium() as page:
        await page.open(charts.url)
        await page.until("document.querySelector('#health-badge').textContent !== ''")
        assert not await page.value("document.querySelector('#alerts-panel').checkVisibility()")
    await hub.server.stop("the test is over")


async def test_of_very_many_feeds_only_those_in_sight_are_drawn(url: str) -> None:
    async with chromium() as page:
        await page.look()
        await page.open(url)
        await page.until("document.querySelector('#health-badge').textContent !== ''")
        await page.value(
            """(async () => {
              const { FeedList } = await import("/dashboard/feed_list.mjs");
              const root = document.body.appendChild(document.createElement("div"));
              globalThis.seen = [];
              globalThis.list = new FeedList(root, () => {}, (feed) => seen.push(feed));
              list.show(Array.from({ length: 200 }, (_, at) => `F${at}/USD`));
              globalThis.card = (at) => root.children[at];
              card(0).scrollIntoView();
            })()"""
        )
        await page.until("list.sees('F0/USD') && !list.sees('F199/USD')")
        price = "{ mantissa: 12345678901n, expo: -8, source: 'doves', rule: 'R1', publishTimeUs: 0, leaseLeftUs: null }"
        await page.value(f"list.draw({{ feed: 'F0/USD', state: 'live', reason: 'agreed', price: {price} }}, 0)")
        shown = "card(0).querySelector('.price').textContent"
        assert await page.value(shown) == "123.45678901"
        await page.value("card(199).scrollIntoView()")
        await page.until("seen.includes('F199/USD') && list.sees('F199/USD')")
        assert not await page.value("list.sees('F0/USD')")
        assert await page.value(shown) == "—"  # what nobody sees is not kept up to date, so it is no price
        assert page.errors == []


async def test_a_source_that_is_too_far_from_another_is_not_called_ok(tmp_path: Path) -> None:
    hub = await HubStage().start()
    status = "document.querySelector('#sources [data-source={}] .chip')?.textContent"
    async with charts_beside(hub, tmp_path / "charts.sqlite") as charts, chromium() as page:
        await page.open(charts.url + "/#feed=SOL/USD")
        await page.until(f"{status.format('pyth')} === 'ok'")
        hub.tick("SOL/USD", 15_000_000_000)
        hub.tick("SOL/USD", 15_450_000_000, "pyth")
        await page.until(f"{status.format('pyth')} === 'apart'")
        assert await page.value(status.format("doves")) == await page.value(status.format("chainlink")) == "ok"
        assert "300.00 bps" in await page.value("document.querySelector('#sources [data-source=pyth]').innerText")
        await page.value("import('/dashboard/prices.mjs').then((module) => { globalThis.prices = module; })")

        async def apart(reason: str, doves: str, chainlink: float, pyth: float) -> object:
            inputs = {
                "doves": {"role": "primary", "status": doves, "divergence_bps": 0},
                "chainlink": {"role": "verifier", "status": "ok", "divergence_bps": chainlink},
                "pyth": {"role": "verifier", "status": "ok", "divergence_bps": pyth},
                "lazer": {"role": "reference", "status": "ok", "divergence_bps": 900},
            }
            return await page.value(f"prices.apart({orjson.dumps(inputs).decode()}, '{reason}', 50)")

        assert await apart("agreed", "ok", 70, 80) == []  # this feed has a limit of its own
        assert await apart("diverged", "ok", 20, 60) == ["pyth"]
        assert await apart("diverged", "ok", 60, 160) == ["chainlink", "pyth"]
        assert await apart("diverged", "ok", 20, 30) == ["pyth"]  # so has this
        assert await apart("diverged", "stale", 20, 900) == ["chainlink", "pyth"]
        assert await apart("primary_diverged", "ok", 1, 0) == ["doves"]
        await page.look(width=320, height=740)
        await page.value(
            """(() => {
              const row = document.querySelector("#sources [data-source=chainlink]");
              const texts = ["98,765.12345678", "26.8 s", "302.00 bps"];
              row.cells[1].firstChild.textContent = "unverified";
              texts.forEach((text, at) => { row.cells[at + 2].textContent = text; });
              const table = document.querySelector(".sources"), panel = table.parentElement.getBoundingClientRect();
              globalThis.out = [...row.cells].filter((cell) => {
                const range = document.createRange();
                range.selectNodeContents(cell);
                return range.getBoundingClientRect().right > panel.right - 12;
              }).length;
            })()"""
        )
        assert await page.value("out") == 0  # the widest that there may be, on the narrowest phone
        assert page.errors == []
    await hub.server.stop("the test is over")


async def test_a_bar_of_another_day_is_told_with_its_day(url: str) -> None:
    async with chromium() as page:
        await page.open(url)
        await page.value("import('/dashboard/format.mjs').then((module) => { globalThis.format = module; })")
        day_us, now_ms = 1_790_035_200_000_000, 1_790_121_600_000 + 3_723_000
        starts = (day_us, day_us + 61_000_000, day_us + 86_400_000_000, day_us + 86_461_000_000)
        told = [await page.value(f"format.moment({start_us}, {now_ms})") for start_us in starts]
        assert told == ["2026-09-22", "2026-09-22 00:01:01", "2026-09-23", "00:01:01"]


async def test_a_long_list_is_narrowed_by_typing(url: str) -> None:
    async with chromium() as page:
        await page.look()
        await page.open(url)
        await page.until("document.querySelector('#health-badge').textContent !== ''")
        assert await page.value("document.querySelector('#find-feed').hidden")  # a short list needs none
        await page.value(
            """(async () => {
              const { FeedList } = await import("/dashboard/feed_list.mjs");
              const root = document.body.appendChild(document.createElement("div"));
              globalThis.find = document.body.appendChild(document.createElement("input")); // the page uses its own
              globalThis.chosen = [];
              globalThis.list = new FeedList(root, (feed) => chosen.push(feed), () => {}, find);
              list.show(Array.from({ length: 3000 }, (_, at) => `F${at}/USD`));
              const visible = () => [...root.children].filter((one) => one.checkVisibility());
              globalThis.names = () => visible().map((one) => one.dataset.feed);
              find.focus();
            })()"""
        )
        assert await page.value("!find.hidden && names().length") == 3_000
        await page.value("find.value = ' f299'; find.dispatchEvent(new Event('input'))")
        assert await page.value("names()") == ["F299/USD", *(f"F{number}/USD" for number in range(2_990, 3_000))]
        await page.value("document.querySelector('[data-feed=\\'F299/USD\\']').focus()")
        await page.press("ArrowDown")
        assert await page.value("chosen") == ["F2990/USD"]
        await page.value("list.show(['F1/USD', 'F2/USD'])")
        assert await page.value("find.hidden && names()") == ["F1/USD", "F2/USD"]
        assert page.errors == []


async def test_each_source_has_a_colour_of_its_own_the_same_in_both_charts_and_beside_them(url: str) -> None:
    """A line-up that changes tells other sources first; nobody may be taken for another for that."""
    async with chromium() as page:
        await page.look()
        await page.open(url)
        await page.until("document.querySelector('#health-badge').textContent !== ''")
        await page.value(
            """(async () => {
              const { Trends } = await import("/dashboard/trends.mjs");
              const node = () => document.body.appendChild(document.createElement("div"));
              const [divergence, ages, legend] = [node(), node(), node()];
              const trends = new Trends(divergence, ages, legend);
              const told = (...names) => names.map((name) => ({ name, divergenceBps: 1, ageUs: 1e6 }));
              const plain = (colours) => Object.fromEntries(Object.entries(colours).map(([name, value]) => {
                const shown = document.createElement("i");
                shown.style.background = value;
                return [name, shown.style.background];
              }));
              const before = told("doves", "chainlink", "pyth");
              const after = told("edge", "streams", "pyth", "hermes", "doves", "redstone");
              trends.tell(after);
              trends.show("SOL/USD");
              trends.sample("SOL/USD", 1790000000, before);
              trends.sample("SOL/USD", 1790000001, after);
              trends.restyle();
              trends.tell(after);
              const beside = [...legend.children].map(
                (one) => [one.querySelector("b").textContent, one.firstChild.style.background],
              );
              globalThis.colours = {
                beside: Object.fromEntries(beside),
                divergence: plain(divergence.chartColours()),
                ages: plain(ages.chartColours()),
              };
            })()"""
        )
        colours = await page.value("colours")
        assert len(set(colours["beside"].values())) == len(colours["beside"]) == 6
        assert colours["divergence"] == colours["ages"]
        assert len(set(colours["ages"].values())) == len(colours["ages"]) == 7  # with one that was there before
        assert colours["beside"].items() <= colours["ages"].items()
        assert page.errors == []
