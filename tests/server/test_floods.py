"""Who sends without end what is no request: cut before others wait for it."""

import asyncio

import pytest

from oracle_hub.server.door import MAX_HEAD_BYTES
from tests.patience import PATIENCE_S
from tests.server.conftest import Stage

HEAD = b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nX: "


async def send(stage: Stage, data: bytes) -> bytes:
    """All that is answered to this, until the end of the connection, however it ends."""
    host, _, port = stage.base.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    answer = b""
    try:
        async with asyncio.timeout(PATIENCE_S):
            writer.write(data)
            while piece := await reader.read(65_536):
                answer += piece
    except ConnectionError:
        pass
    finally:
        writer.transport.abort()
    return answer


@pytest.mark.parametrize("start", [b"", HEAD, b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 100])
async def test_a_head_without_end_is_cut_and_read_by_nobody(
    stage: Stage, start: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stage.start()
    parsed = []
    monkeypatch.setattr("oracle_hub.server.door.RequestHandler.handle_error", lambda *_, **__: parsed.append(1))
    assert await send(stage, start + b"\x00" * (16 * MAX_HEAD_BYTES)) == b""
    assert len(parsed) <= 1
    assert (await stage.get("/livez"))[0] == 200


async def test_after_a_whole_request_too(stage: Stage) -> None:
    await stage.start()
    answer = await send(stage, HEAD + b"1\r\n\r\n" + b"\xff" * (16 * MAX_HEAD_BYTES))
    assert answer.count(b"HTTP/1.1") <= 2  # of the one request, and at most once that the rest is none
    assert (await stage.get("/livez"))[0] == 200
