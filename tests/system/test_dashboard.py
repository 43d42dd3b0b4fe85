"""The dashboard in real Chromium, on a real hub and charts process, while both come and go."""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TypeAlias
from urllib.parse import urlsplit

import aiohttp
import orjson
import pytest

from feeds.emulator.emulator import Emulator
from tests.charts.browser import Page, chromium
from tests.ports import free_ports
from tests.system.conftest import Launch
from tests.system.process import (
    FEEDS,
    PROGRAM,
    ROOT,
    HubProcess,
    Message,
    environment,
    hub_config,
    patiently,
    subscriber,
)
from tests.system.test_companion import charts_url

GONE_WITHIN_MS = 5_000
"""At once, for a page that shares a busy machine with all that it shows. Leases are longer."""

LaunchCharts: TypeAlias = Callable[..., Awaitable[tuple[asyncio.subprocess.Process, str]]]

PRICE = "document.querySelector('#price').textContent"
SHOWN = "/^[0-9,.]{6,}$/.test(" + PRICE + ")"
GONE = PRICE + " === '—'"
BARS = "document.querySelector('#chart').chartData().filter((bar) => bar.open !== undefined)"
WATCH = """(() => {
  globalThis.goneMs = {};
  for (const card of document.querySelectorAll('[data-feed]')) new MutationObserver(() => {
    const gone = card.querySelector('.price').textContent === '—';
    if (gone) globalThis.goneMs[card.dataset.feed] ??= Date.now(); else delete globalThis.goneMs[card.dataset.feed];
  }).observe(card, { subtree: true, childList: true, characterData: true });
  return true;
})()"""


@pytest.fixture
async def page() -> AsyncIterator[Page]:
    """An empty tab of a window of usual size."""
    async with chromium() as tab:
        await tab.look()
        yield tab


@pytest.fixture
async def charts(tmp_path: Path) -> AsyncIterator[LaunchCharts]:
    """Start a charts process beside a hub: ``await charts(hub)``, again on the same port with ``port=``."""
    started: list[asyncio.subprocess.Process] = []

    async def start(hub: HubProcess, port: int = 0) -> tuple[asyncio.subprocess.Process, str]:
        process = await asyncio.create_subprocess_exec(
            *PROGRAM,
            *("charts", "--hub", hub.url, "--port", str(port), "--state", str(tmp_path / "charts"), "--json"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            cwd=ROOT,
            env=environment(),
        )
        started.append(process)
        assert process.stdout is not None
        line = await patiently(process.stdout.readline(), "the charts' first line")
        return process, str(orjson.loads(line)["url"])

    yield start
    for process in started:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def get(url: str) -> Message:
    async with aiohttp.ClientSession() as http, http.get(url) as response:
        answer: Message = await response.json()
    return answer


def at_home(page: Page, url: str) -> bool:
    """Whether the page asked nobody but the server it came from."""
    hosts = {urlsplit(asked).netloc for asked in page.requests if not asked.startswith(("data:", "blob:", "about:"))}
    return hosts == {urlsplit(url).netloc}


async def drawn_as_kept(page: Page, url: str, feed: str, resolution: str) -> None:
    """Every final bar that is drawn is one that is kept, and none between the first and the last of them is missing."""
    drawn = await page.value(BARS)
    first, last = drawn[0]["time"], drawn[-1]["time"]
    path = f"/v1/bars/{feed.replace('/', '-')}?resolution={resolution}&from={int(first)}&to={int(last)}"
    kept = (await get(url + path))["bars"]
    assert [bar["time"] * 1_000_000 for bar in drawn[:-1]] == [bar["start_us"] for bar in kept]
    for shown, bar in zip(drawn, kept, strict=False):
        prices = [int(bar[key]) / 1e8 for key in ("open", "high", "low", "close")]
        assert [shown[key] for key in ("open", "high", "low", "close")] == pytest.approx(prices, rel=1e-12)


def unexpected(page: Page) -> list[str]:
    """What is in the page's console, but for the browser's own words on connections that were not to be had."""
    own = "ERR_CONNECTION", "WebSocket is closed before the connection is established"
    return [error for error in page.errors if not any(words in error for words in own)]


async def test_history_and_live_bars_join(launch: Launch, page: Page) -> None:
    hub = await launch("--noise", "5", charts=True)
    url = await charts_url(hub)
    await page.open(url + "/#resolution=1S")
    await page.until(f"{BARS}.length >= 3 && {SHOWN}")
    await page.open("about:blank")
    await page.open(url + "/#resolution=1S")
    held = len(await page.until(f"{BARS}.length >= 3 && {BARS}"))
    await page.until(f"{BARS}.length >= {held + 3}")
    await drawn_as_kept(page, url, "SOL/USD", "1S")
    assert await page.value("document.querySelector('#chart').chartPosition()") > 0, "the newest bar is not in sight"
    times = [point["time"] for point in await page.value("document.querySelector('#chart').chartData()")]
    assert times == [times[0] + at for at in range(len(times))]
    await page.value("document.querySelector('input[value=\"5S\"]').click()")
    await page.until(f"{BARS}.length >= 2 && {BARS}.every((bar) => bar.time % 5 === 0)")
    await page.value("document.querySelector('[data-feed=\"BTC/USD\"]').click()")
    await page.until(f"{BARS}.length >= 1 && {BARS}[0].open > 10000")
    await drawn_as_kept(page, url, "BTC/USD", "5S")
    assert await page.value("document.querySelector('#simulated').checkVisibility()")
    assert (await page.value("document.title")).startswith("SIMULATED · BTC/USD live")
    assert page.errors == []
    assert at_home(page, url)


async def test_prices_go_at_once_when_sources_stop_and_come_back(
    chain: Emulator, launch: Launch, charts: LaunchCharts, page: Page
) -> None:
    assert chain.urls is not None
    control = chain.urls.control
    hub = await launch(config=hub_config(chain.urls))
    _, url = await charts(hub)
    await page.open(url + "/#resolution=1S")
    await page.until(f"{SHOWN} && document.querySelectorAll('[data-feed][data-state=live]').length === {len(FEEDS)}")
    assert not await page.value("document.querySelector('#simulated').checkVisibility()")
    await page.value(WATCH)
    async with aiohttp.ClientSession() as http, subscriber(hub) as client:
        await client.all_in("live")
        await http.post(f"{control}/faults", json={"kind": "kill"})
        await client.all_in("none")
        await page.until(f"{GONE} && Object.keys(goneMs).length === {len(FEEDS)}")
        gone_ms = await page.value("goneMs")
        await client.until(lambda message: message["type"] == "heartbeat", "what was told meanwhile")
        first_none: dict[str, Message] = {}
        for _, entry in client.words:
            if entry["state"] == "none":
                first_none.setdefault(entry["feed"], entry)
            else:  # also degraded, which can come between
                first_none.pop(entry["feed"], None)
        for feed, entry in first_none.items():
            assert gone_ms[feed] - entry["decided_us"] / 1_000 < GONE_WITHIN_MS, feed
        assert await page.value("document.querySelector('#ohlc').textContent") == ""
        assert "No price: " in await page.value("document.querySelector('#why-none').textContent")
        assert "no price" in await page.value("document.querySelector('#spoken').textContent")
        # What sources said is shown as long as it may be used, and no longer.
        await page.until(
            "[...document.querySelectorAll('#sources tr')].every((row) => row.cells[2].textContent === '—')"
        )
        await page.until("document.querySelector('#alerts').innerText.includes('no price')")
        await http.delete(f"{control}/faults")
        await page.until(SHOWN)
    changes = "document.querySelector('#changes')"
    await page.until(f"{changes}.querySelector('b').textContent.endsWith('→ live')")  # perhaps by way of degraded
    assert "→ no price" in await page.value(f"{changes}.innerText")
    assert page.errors == []


async def test_a_hub_that_was_killed_and_comes_back(
    chain: Emulator, launch: Launch, charts: LaunchCharts, page: Page
) -> None:
    (port,) = free_ports(1)
    hub = await launch("--port", port, config=hub_config(chain.urls))
    _, url = await charts(hub)
    await page.open(url + "/#resolution=1S&feed=ETH%2FUSD")
    await page.until(
        f"{SHOWN} && {BARS}.length >= 2 && document.querySelector('#health-badge').textContent === 'ready'"
    )
    hub.send_signal(signal.SIGKILL)
    await page.until("[...document.querySelectorAll('.price')].every((price) => price.textContent === '—')")
    await page.until("document.querySelector('#outage').checkVisibility()")
    assert "no prices" in await page.value("document.querySelector('#outage').textContent")
    await page.until("document.querySelector('#health-badge').textContent === 'hub not reached'")
    held = len(await page.value(BARS))
    await hub.ended()
    await launch("--port", port, config=hub_config(chain.urls))
    await page.until(f"{SHOWN} && {BARS}.length > {held} && !document.querySelector('#outage').checkVisibility()")
    await drawn_as_kept(page, url, "ETH/USD", "1S")
    assert unexpected(page) == []


async def test_charts_that_end_and_come_back(chain: Emulator, launch: Launch, charts: LaunchCharts, page: Page) -> None:
    hub = await launch(config=hub_config(chain.urls))
    (port,) = free_ports(1)
    process, url = await charts(hub, port)
    await page.open(url + "/#resolution=1S")
    await page.until(f"{SHOWN} && {BARS}.length >= 2")
    process.send_signal(signal.SIGSTOP)  # the connection stays, and nothing comes over it
    await page.until("[...document.querySelectorAll('.price')].every((price) => price.textContent === '—')")
    process.send_signal(signal.SIGCONT)
    await page.until(SHOWN)
    process.kill()
    await page.until(f"{GONE} && document.querySelector('#outage').checkVisibility()")
    await process.wait()
    held = len(await page.value(BARS))
    await charts(hub, port)
    await page.until(f"{SHOWN} && {BARS}.length > {held} && !document.querySelector('#outage').checkVisibility()")
    await drawn_as_kept(page, url, "SOL/USD", "1S")
    assert unexpected(page) == []


async def test_it_is_for_every_eye_and_hand(launch: Launch, page: Page) -> None:
    hub = await launch(charts=True)
    await page.open(await charts_url(hub))
    await page.until(f"{SHOWN} && document.querySelectorAll('[data-feed]').length === {len(FEEDS)}")
    focused = "(document.activeElement.dataset.feed ?? document.activeElement.id)"

    # Keyboard: the chosen feed alone is a stop, and arrows go on from there.
    stops = []
    for _ in range(4):
        await page.press("Tab")
        stops.append(await page.value(f"{focused} || document.activeElement.className || document.activeElement.value"))
        assert await page.value("document.activeElement.matches(':focus-visible')")
    assert stops == ["skip", "theme", "SOL/USD", "1"]
    await page.press("Tab", shift=True)
    tab, title = "document.querySelector('[aria-selected=true]')", "document.querySelector('#feed-name')"
    chosen = f"{tab}.dataset.feed + ' ' + {title}.textContent"
    for key, feed in (
        ("ArrowDown", "BTC/USD"),
        ("End", "USDT/USD"),
        ("ArrowRight", "SOL/USD"),
        ("ArrowUp", "USDT/USD"),
    ):
        await page.press(key)
        assert await page.value(chosen) == f"{feed} {feed}"
        assert await page.value(focused) == feed
    await page.press("Tab")
    await page.press("ArrowLeft")
    await page.until("location.hash.includes('resolution=15S')")

    # Nobody is told of every tick: only of states.
    spoken = "document.querySelector('[aria-live]').textContent"
    said, price = await page.value(spoken), await page.value(PRICE)
    await page.until(f"{SHOWN} && {PRICE} !== {price!r}")
    assert await page.value(spoken) == said

    # Colours: those of the system, until somebody chooses.
    background = "getComputedStyle(document.body).backgroundColor"
    assert await page.value(background) == "rgb(244, 246, 250)"
    await page.look(dark=True)
    assert await page.until(f"{background} === 'rgb(11, 15, 22)'")
    await page.value("document.querySelector('#theme').click()")
    assert await page.value(background) == "rgb(244, 246, 250)"
    await page.value("document.querySelector('#theme').click()")
    await page.look()
    assert await page.value(background) == "rgb(11, 15, 22)"

    # A phone: nothing is wider than the window.
    for width in (360, 320):
        await page.look(width=width, height=740)
        await page.until(f"innerWidth === {width} && document.querySelector('#chart canvas').clientWidth < {width}")
        assert await page.value("document.documentElement.scrollWidth") == width
    assert page.errors == []


async def test_a_page_that_is_opened_again_shows_the_divergence_before_it(launch: Launch, page: Page) -> None:
    hub = await launch("--noise", "5", charts=True)
    url = await charts_url(hub)
    trend = "Object.values(document.querySelector('#divergence').chartData?.() ?? {})[1] ?? []"
    seen = f"({trend}).filter((point) => point.value !== undefined).map((point) => point.time)"
    await page.open(url + "/")
    await page.until(f"{seen}.length >= 3")
    before = await page.value(seen)
    await page.open("about:blank")
    await page.open(url + "/")
    await page.until(f"{seen}.length >= {len(before) + 1}")
    again = await page.value(seen)
    assert set(before) <= set(again) and again == sorted(set(again))
    ages = "Object.values(document.querySelector('#ages').chartData())[1].filter((point) => point.value < 60).length"
    assert await page.value(ages) >= len(before)
    assert at_home(page, url) and page.errors == []
