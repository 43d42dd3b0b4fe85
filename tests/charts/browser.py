"""Real Chromium, driven over its own protocol (CDP): a page is opened, looked at and typed into. Nothing sleeps."""

import asyncio
import base64
import contextlib
import itertools
import json
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from tests.conftest import require
from tests.patience import PATIENCE_S

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-extensions",
    "--no-first-run",
    "--remote-debugging-port=0",
)
KEYS = {"Tab": 9, "Enter": 13, "End": 35, "Home": 36, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}

_UNTIL = """new Promise((resolve) => {
  const look = () => { let found; try { found = (%s); } catch { found = false; }
    if (found) resolve(found); else requestAnimationFrame(look); };
  look();
})"""


class Page:
    """One tab. Made by :func:`chromium`."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.errors: list[str] = []
        """Everything that the console shows as an error or warning: of scripts, of the network, of the policy."""
        self.requests: list[str] = []
        """Addresses of everything that was asked for."""
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for frame in self._socket:
            message = json.loads(frame.data)
            if "id" in message:
                waiting = self._answers.pop(message["id"], None)
                if waiting is not None and not waiting.done():
                    waiting.set_result(message)
            else:
                self._event(message["method"], message["params"])

    def _event(self, method: str, params: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.errors.append(" ".join(str(part.get("value", part.get("description"))) for part in params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.errors.append(f"{params['entry']['text']} {params['entry'].get('url', '')}".strip())
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Network.webSocketCreated":
            self.requests.append(params["url"])

    async def call(self, method: str, **params: object) -> dict[str, Any]:
        """One command of the protocol. Fails with the browser's words."""
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": params})
        async with asyncio.timeout(PATIENCE_S):
            message = await answer
        assert "error" not in message, f"{method}: {message['error']['message']}"
        result: dict[str, Any] = message["result"]
        return result

    async def start(self) -> "Page":
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self.call(f"{domain}.enable")
        return self

    async def open(self, url: str) -> None:
        """Go there; the page may still be loading."""
        answer = await self.call("Page.navigate", url=url)
        assert "errorText" not in answer, f"{url}: {answer['errorText']}"

    async def value(self, expression: str) -> Any:
        """What an expression gives, as JSON; a promise is awaited."""
        answer = await self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        details = answer.get("exceptionDetails")
        assert details is None, f"{expression}: {details['exception'].get('description')}"
        return answer["result"].get("value")

    async def until(self, expression: str) -> Any:
        """Wait until an expression is true, looking with every frame that is drawn; returns its value."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await self.value(_UNTIL % expression)
        except TimeoutError:
            text = await self.value("document.body.innerText")
            raise AssertionError(f"not within {PATIENCE_S:g} s: {expression}\n{self.errors}\n{text}") from None

    async def press(self, key: str, *, shift: bool = False) -> None:
        """A key, as from a keyboard."""
        common = {"key": key, "code": key, "windowsVirtualKeyCode": KEYS[key], "modifiers": 8 if shift else 0}
        await self.call("Input.dispatchKeyEvent", type="rawKeyDown", **common)
        await self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    async def look(self, *, width: int = 1280, height: int = 900, dark: bool = False, scale: float = 1.0) -> None:
        """Size of the window, and which colours its user wants."""
        phone = width < 600
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=phone
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme])

    async def picture(self, *, whole: bool = False) -> bytes:
        """A PNG of what is seen; ``whole`` has what is below the window too."""
        answer = await self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        return base64.b64decode(answer["data"])

    async def close(self) -> None:
        self._reading.cancel()
        await asyncio.wait([self._reading])


@asynccontextmanager
async def chromium() -> AsyncIterator[Page]:
    """A browser with an empty profile and one empty tab; it ends with the block."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    require(program is not None, "chromium")
    assert program is not None
    profile = Path(tempfile.mkdtemp(prefix="oracle-hub-chromium-"))
    process = await asyncio.create_subprocess_exec(
        program,
        *FLAGS,
        f"--user-data-dir={profile}",
        "about:blank",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    draining: asyncio.Task[None] | None = None
    try:
        async with asyncio.timeout(PATIENCE_S):
            line = b""
            while not line.startswith(b"DevTools listening on "):
                line = await process.stderr.readline()
                assert line, "chromium ended at once"
        draining = asyncio.create_task(_drain(process.stderr))
        address = line.decode().split()[-1].split("/")[2]
        async with aiohttp.ClientSession() as http:
            async with http.get(f"http://{address}/json/list") as answer:
                (tab,) = [one for one in await answer.json() if one["type"] == "page"]
            async with http.ws_connect(tab["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                page = await Page(socket).start()
                try:
                    yield page
                finally:
                    with contextlib.suppress(AssertionError, TimeoutError, aiohttp.ClientError):
                        await page.call("Browser.close")
                    await page.close()
    finally:
        await _ended(process)
        if draining is not None:
            await draining
        await asyncio.to_thread(shutil.rmtree, profile, ignore_errors=True)


async def _drain(stream: asyncio.StreamReader) -> None:
    while await stream.read(65_536):
        pass


async def _ended(process: asyncio.subprocess.Process) -> None:
    try:
        async with asyncio.timeout(PATIENCE_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
