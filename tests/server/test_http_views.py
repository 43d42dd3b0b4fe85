"""The HTTP views, their errors, and who may read them."""

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from oracle_hub.errors import NoAnswerError
from oracle_hub.server.answers import guard
from tests.server.conftest import Stage
from tests.server.stream_service import START_US

ENVELOPE = {"instance", "epoch", "seq", "server_time_us", "simulated", "policy", "config_hash"}


async def test_prices_are_what_was_published(stage: Stage) -> None:
    await stage.start()
    status, body, response = await stage.get("/v1/prices")
    assert (status, set(body)) == (200, ENVELOPE | {"feeds"})
    assert (body["seq"], body["epoch"], body["simulated"]) == (3, stage.service.epoch, None)
    assert [(e["feed"], e["state"], e["price"], e["expo"]) for e in body["feeds"]] == [
        ("SOL/USD", "live", "15000000000", -8),
        ("BTC/USD", "live", "6000000000000", -8),
    ]
    assert response.headers["Cache-Control"] == "no-store"


async def test_a_decision_that_was_not_published_is_not_shown(stage: Stage) -> None:
    await stage.start()
    stage.service.tick("SOL/USD", 15_100_000_000)
    _, body, _ = await stage.get("/v1/prices")
    assert (body["seq"], body["feeds"][0]["price"]) == (3, "15000000000")


async def test_what_is_simulated_is_marked(stage: Stage) -> None:
    stage.service.simulated = {"emulator": "walk"}
    await stage.start()
    _, body, _ = await stage.get("/v1/prices")
    peer = await stage.connect()
    assert body["simulated"] == peer.hello["simulated"] == {"emulator": "walk"}


@pytest.mark.parametrize("name", ["SOL/USD", "SOL%2FUSD", "SOL-USD"])
async def test_one_feed_by_each_way_to_write_it(stage: Stage, name: str) -> None:
    await stage.start()
    status, body, _ = await stage.get(f"/v1/prices/{name}")
    assert (status, body["feed"], body["price"], body["seq"]) == (200, "SOL/USD", "15000000000", 3)
    assert set(body) > ENVELOPE and "inputs" not in body
    status, body, _ = await stage.get(f"/v1/explain/{name}")
    assert (status, body) == (200, {"feed": "SOL/USD", "reason": "agreed"})


async def test_the_signed_update_behind_a_price(stage: Stage) -> None:
    await stage.start()
    stage.service.signed_updates["SOL/USD", "pyth", 1_790_000_000_000_000, 15_000_000_000] = "UE5BVQ=="
    path = "/v1/signed/SOL-USD?source=pyth&publish_time_us=1790000000000000&price="
    status, body, _ = await stage.get(f"{path}15000000000")
    assert (status, body) == (
        200,
        {
            "feed": "SOL/USD",
            "source": "pyth",
            "price": "15000000000",
            "publish_time_us": 1_790_000_000_000_000,
            "signing": True,
            "update": {"format": "pyth.accumulator", "data": "UE5BVQ=="},
        },
    )
    _, body, _ = await stage.get(f"{path}15000000001")
    assert (body["signing"], body["update"]) == (True, None)
    _, body, _ = await stage.get(f"{path}1".replace("pyth", "doves"))
    assert (body["signing"], body["update"]) == (False, None)


async def test_the_exchanges_aggregates_beside_the_prices(stage: Stage) -> None:
    await stage.start()
    status, body, _ = await stage.get("/v1/parity")
    assert (status, body) == (200, {"now_us": stage.service.now_us(), "feeds": []})


async def test_full_detail_has_the_inputs(stage: Stage) -> None:
    await stage.start()
    _, body, _ = await stage.get("/v1/prices?detail=full")
    assert list(body["feeds"][0]["inputs"]) == ["doves", "chainlink", "pyth"]
    assert body["feeds"][0]["inputs"]["doves"]["account"] == "Acc1"


async def test_a_price_is_not_served_past_its_lease_even_if_the_step_is_late(stage: Stage) -> None:
    await stage.start()
    lease_us = stage.service.decisions["SOL/USD"].valid_until_us
    assert lease_us is not None
    stage.service.clock_us = lease_us - 1
    assert (await stage.get("/v1/prices/SOL-USD"))[1]["price"] == "15000000000"
    stage.service.clock_us = lease_us
    body = (await stage.get("/v1/prices/SOL-USD"))[1]
    assert (body["state"], body["price"], body["reason"]) == ("none", None, "lease_over")
    assert stage.service.clock_us > START_US


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v1/prices/NO-USD", 404, "unknown_feed"),
        ("/v1/explain/NO-USD", 404, "unknown_feed"),
        ("/v1/signed/NO-USD?source=pyth&publish_time_us=1&price=1", 404, "unknown_feed"),
        ("/v1/signed/SOL-USD?source=pyth&publish_time_us=1", 400, "bad_query"),
        ("/v1/signed/SOL-USD?source=pyth&publish_time_us=-1&price=1", 400, "bad_query"),
        ("/v1/signed/SOL-USD?publish_time_us=1&price=1", 400, "bad_query"),
        ("/v1/prices?detail=all", 400, "bad_query"),
        ("/v1/prices/SOL-USD?detail=all", 400, "bad_query"),
        ("/nowhere", 404, "not_found"),
        ("/v1/stream", 426, "upgrade_required"),
    ],
)
async def test_errors_are_json_with_a_code(stage: Stage, path: str, status: int, code: str) -> None:
    await stage.start()
    answered, body, _ = await stage.get(path)
    assert (answered, body["error"]["code"]) == (status, code)
    assert body["error"]["message"]


@pytest.mark.parametrize("path", ["/", "/nowhere"])
async def test_who_comes_to_nothing_is_told_what_there_is(stage: Stage, path: str) -> None:
    await stage.start()
    _, body, _ = await stage.get(path)
    told = f"GET {path}: Not Found; there are /v1/prices, /v1/stream, /readyz (docs/protocol.md); the dashboard is at"
    assert body["error"]["message"].startswith(told)
    for door in ("/v1/prices", "/readyz"):
        assert (await stage.get(door))[0] == 200


async def test_a_wrong_method_is_named(stage: Stage) -> None:
    await stage.start()
    async with stage.http.post(f"{stage.base}/v1/prices", data=b"x") as response:
        assert (response.status, (await response.json())["error"]["code"]) == (405, "method_not_allowed")
        assert "GET" in response.headers["Allow"]


async def test_health_and_metrics(stage: Stage) -> None:
    await stage.start()
    assert (await stage.get("/livez"))[:2] == (200, {"status": "ok"})
    assert (await stage.get("/readyz"))[:2] == (200, {"ready": True, "seq": 3})
    stage.service.is_ready = False
    assert (await stage.get("/readyz"))[:2] == (503, {"ready": False, "seq": 3})
    status, body, response = await stage.get("/metrics")
    assert (status, body) == (200, await stage.service.metrics())
    assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"


async def test_a_failing_view_is_an_error_of_ours_and_tells_no_secret(stage: Stage) -> None:
    await stage.start()

    async def fail(feed: str) -> None:
        raise RuntimeError("key=hunter2")

    stage.service.explain = fail  # type: ignore[method-assign]
    status, body, _ = await stage.get("/v1/explain/SOL-USD")
    assert (status, body["error"]["code"]) == (500, "internal")
    assert "hunter2" not in body["error"]["message"]
    assert stage.server.errors == 1


async def test_a_hub_in_another_process_that_does_not_answer_is_named(stage: Stage) -> None:
    await stage.start()

    async def silence() -> bytes:
        raise NoAnswerError("no answer from the hub within 1 s")

    stage.service.metrics = silence  # type: ignore[method-assign]
    status, body, response = await stage.get("/metrics")
    assert (status, body["error"]["code"], response.headers["Retry-After"]) == (503, "hub_silent", "1")
    assert stage.server.errors == 0


async def test_browsers_read_from_our_host_or_where_allowed(stage: Stage) -> None:
    await stage.start(allowed_origins=("https://app.example",))
    for origin in (stage.base, "https://app.example"):
        status, _, response = await stage.get("/v1/prices", Origin=origin)
        assert (status, response.headers["Access-Control-Allow-Origin"]) == (200, origin)
        assert response.headers["Vary"] == "Origin"
    for origin in ("https://evil.example", "null", "https://app.example.evil.example"):
        status, body, response = await stage.get("/v1/prices", Origin=origin)
        assert (status, body["error"]["code"]) == (403, "origin_refused")
        assert "Access-Control-Allow-Origin" not in response.headers
    _, _, response = await stage.get("/v1/prices")
    assert "Access-Control-Allow-Origin" not in response.headers


@pytest.mark.parametrize(
    "left", [ConnectionResetError("Cannot write to closing transport"), ConnectionError("Connection lost")]
)
async def test_a_peer_that_leaves_during_the_handshake_is_no_failure_of_ours(left: ConnectionError) -> None:
    """Found by the checker: a stopped hub wakes to handshakes whose peers have long reset."""
    request = make_mocked_request("GET", "/v1/stream")
    errors: list[Exception] = []

    async def gone(_: web.Request) -> web.Response:
        raise left

    answer = await guard((), errors.append)(request, gone)
    assert isinstance(answer, web.Response)
    assert errors == []
