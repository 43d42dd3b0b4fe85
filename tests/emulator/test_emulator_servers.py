"""The wire: JSON-RPC and pubsub as a node speaks them, Hermes as its server does, read by other people's clients."""

import asyncio
import json
import shutil
from base64 import b64decode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from solana.rpc.async_api import AsyncClient
from solana.rpc.commitment import Confirmed
from solana.rpc.websocket_api import SolanaWsClient
from solders.pubkey import Pubkey
from zstandard import ZstdDecompressor

from feeds.addresses import ASSETS, DOVES, GENESIS_HASHES, POOL
from feeds.doves import AgPriceFeed
from feeds.emulator.emulator import Emulator, EmulatorSettings
from feeds.emulator.faults import Fault, Kind
from feeds.emulator.oracles import AGGREGATE, EDGE, HERMES
from feeds.emulator.pyth_signing import simulated_signer
from feeds.emulator.world import slot_at
from feeds.pyth.accumulator import Accumulator, check
from oracle_hub.errors import ConfigError
from tests.conftest import require
from tests.emulator.conftest import START_US, MakeStage, Stage
from tests.patience import PATIENCE_S

SOL = ASSETS["SOL/USD"]
NOWHERE = "11111111111111111111111111111112"
JS = Path(__file__).resolve().parent.parent / "js"


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def rpc_urls(stage: Stage, index: int = 0) -> tuple[str, str]:
    assert stage.emulator.urls is not None
    one = stage.emulator.urls.solana[index]
    return one.http, one.ws


def hermes_url(stage: Stage, index: int = 0) -> str:
    assert stage.emulator.urls is not None
    return stage.emulator.urls.hermes[index].url


async def call(http: aiohttp.ClientSession, url: str, method: str, *params: object) -> Any:
    request = {"jsonrpc": "2.0", "id": 7, "method": method, "params": list(params)}
    async with http.post(url, json=request) as response:
        body = await response.json()
    assert body["jsonrpc"] == "2.0" and body["id"] == 7
    return body.get("result", body.get("error"))


async def subscribe(socket: aiohttp.ClientWebSocketResponse, address: str) -> int:
    params = [address, {"encoding": "base64", "commitment": "confirmed"}]
    await socket.send_json({"jsonrpc": "2.0", "id": 1, "method": "accountSubscribe", "params": params})
    reply = await socket.receive_json()
    assert reply["id"] == 1
    return int(reply["result"])


def held(stage: Stage, oracle: str = AGGREGATE) -> int:
    state = stage.world.held("SOL/USD", oracle)
    assert state is not None
    return state.mantissa


# JSON-RPC.


async def test_simple_methods(stage: Stage, http: aiohttp.ClientSession) -> None:
    url, _ = rpc_urls(stage)
    assert await call(http, url, "getGenesisHash") == GENESIS_HASHES["mainnet-beta"]
    assert await call(http, url, "getHealth") == "ok"
    assert await call(http, url, "getSlot") == slot_at(START_US)
    assert "solana-core" in await call(http, url, "getVersion")
    assert await call(http, url, "getNothing") == {"code": -32601, "message": "Method not found"}


async def test_accounts_as_a_node_tells_them(stage: Stage, http: aiohttp.ClientSession) -> None:
    url, _ = rpc_urls(stage, 1)
    answer = await call(http, url, "getMultipleAccounts", [SOL.ag, NOWHERE, POOL], {"encoding": "base64"})
    assert answer["context"]["slot"] == slot_at(START_US)
    first, missing, pool = answer["value"]
    assert missing is None and pool["space"] == 2_000
    assert {key: first[key] for key in ("owner", "executable", "rentEpoch", "space")} == {
        "owner": DOVES,
        "executable": False,
        "rentEpoch": 2**64 - 1,
        "space": 394,
    }
    assert first["data"][1] == "base64"
    assert AgPriceFeed.decode(b64decode(first["data"][0])).price == held(stage)


async def test_encodings_and_slices(stage: Stage, http: aiohttp.ClientSession) -> None:
    url, _ = rpc_urls(stage)
    plain = await call(http, url, "getAccountInfo", SOL.edge, {"encoding": "base64"})
    data = b64decode(plain["value"]["data"][0])
    packed = await call(http, url, "getAccountInfo", SOL.edge, {"encoding": "base64+zstd"})
    assert ZstdDecompressor().decompress(b64decode(packed["value"]["data"][0]), 10_000) == data
    piece = {"encoding": "base58", "dataSlice": {"offset": 8, "length": 32}}
    sliced = await call(http, url, "getAccountInfo", SOL.edge, piece)
    assert sliced["value"]["data"] == [str(Pubkey.from_bytes(data[8:40])), "base58"]
    refused = await call(http, url, "getAccountInfo", SOL.edge, {"encoding": "base58"})
    assert refused["code"] == -32600 and "128 bytes" in refused["message"]
    unknown = await call(http, url, "getAccountInfo", SOL.edge, {"encoding": "base1"})
    assert unknown["code"] == -32602


async def test_refusals_have_the_codes_of_a_node(stage: Stage, http: aiohttp.ClientSession) -> None:
    url, _ = rpc_urls(stage)
    many = await call(http, url, "getMultipleAccounts", [SOL.ag] * 101)
    assert many == {"code": -32602, "message": "Too many inputs provided; max 100"}
    assert (await call(http, url, "getAccountInfo", "l0l"))["message"] == "Invalid param: Invalid"
    assert (await call(http, url, "getAccountInfo", "abc"))["message"] == "Invalid param: WrongSize"
    later = {"encoding": "base64", "minContextSlot": slot_at(START_US) + 1}
    behind = await call(http, url, "getMultipleAccounts", [SOL.ag], later)
    assert behind == {
        "code": -32016,
        "message": "Minimum context slot has not been reached",
        "data": {"contextSlot": slot_at(START_US)},
    }
    async with http.post(url, data=b"{") as response:
        assert (await response.json())["error"]["code"] == -32700
    batch = [{"jsonrpc": "2.0", "id": number, "method": "getHealth"} for number in (1, 2)]
    async with http.post(url, json=batch) as response:
        assert [one["id"] for one in await response.json()] == [1, 2]


# Pubsub.


async def test_a_subscription_tells_changes_only(stage: Stage, http: aiohttp.ClientSession) -> None:
    async with http.ws_connect(rpc_urls(stage)[1]) as socket:
        number = await subscribe(socket, SOL.edge)
        stage.advance(1.5)
        message = await socket.receive_json()
        assert (message["method"], message["params"]["subscription"]) == ("accountNotification", number)
        result = message["params"]["result"]
        assert result["value"]["space"] == 283 and result["context"]["slot"] > slot_at(START_US)
        await socket.send_json({"jsonrpc": "2.0", "id": 2, "method": "accountUnsubscribe", "params": [number]})
        assert (await socket.receive_json())["result"] is True
        await socket.send_json({"jsonrpc": "2.0", "id": 3, "method": "accountUnsubscribe", "params": [number]})
        assert (await socket.receive_json())["error"]["message"] == "Invalid subscription id."


async def test_slots_are_told_in_order(stage: Stage, http: aiohttp.ClientSession) -> None:
    async with http.ws_connect(rpc_urls(stage)[1]) as socket:
        await socket.send_json({"jsonrpc": "2.0", "id": 1, "method": "slotSubscribe"})
        await socket.receive_json()
        stage.advance(1.2)
        slots = [(await socket.receive_json())["params"]["result"]["slot"] for _ in range(3)]
        first = slot_at(START_US) + 1
        assert slots == [first, first + 1, first + 2]


async def test_pings_are_answered(stage: Stage, http: aiohttp.ClientSession) -> None:
    async with http.ws_connect(rpc_urls(stage)[1], autoping=False) as socket:
        await socket.ping(b"alive")
        message = await socket.receive()
        assert (message.type, bytes(message.data)) == (aiohttp.WSMsgType.PONG, b"alive")


async def test_solana_py_reads_accounts_and_notifications(stage: Stage) -> None:
    url, ws_url = rpc_urls(stage)
    keys = [Pubkey.from_string(SOL.ag), Pubkey.from_string(SOL.custody)]
    async with AsyncClient(url, commitment=Confirmed) as client:
        answer = await client.get_multiple_accounts(keys)
        account, custody = answer.value
        assert account is not None and custody is not None
        assert AgPriceFeed.decode(account.data).price == held(stage)
        assert str(custody.owner) == stage.world.account(SOL.custody).owner  # type: ignore[union-attr]
    client_ws = SolanaWsClient(ws_url)
    await client_ws.connect()
    await client_ws.account_subscribe(pubkey=keys[0], commitment=Confirmed, encoding="base64")
    stage.advance(1.5)
    notification: Any = await client_ws.recv()
    assert AgPriceFeed.decode(notification.result.value.data).expo == -8
    await client_ws.close()


async def test_a_javascript_client_reads_accounts_and_notifications(stage: Stage) -> None:
    node = shutil.which("node")
    installed = (JS / "node_modules" / "@solana" / "web3.js").is_dir()
    require(node is not None and installed, "node with tests/js/node_modules (npm ci --prefix tests/js)")
    assert node is not None
    url, ws_url = rpc_urls(stage)
    process = await asyncio.create_subprocess_exec(
        node, str(JS / "read_accounts.mjs"), url, ws_url, SOL.ag, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            genesis = json.loads(await process.stdout.readline())
            snapshot = json.loads(await process.stdout.readline())
            await stage.emulator.rpc[0].wait_for_subscriptions(1)
            stage.advance(1.5)
            told = json.loads(await process.stdout.readline())
            await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert genesis == {"genesis": GENESIS_HASHES["mainnet-beta"]}
    assert (snapshot["owner"], snapshot["missing"]) == (DOVES, True)
    before, after = (AgPriceFeed.decode(b64decode(one["data"])) for one in (snapshot, told))
    assert after.timestamp > before.timestamp and told["slot"] > snapshot["slot"]


# Hermes.


async def test_hermes_latest_and_its_refusals(make_stage: MakeStage, http: aiohttp.ClientSession) -> None:
    stage = await make_stage(EmulatorSettings(hermes_key="s3cret"))
    base = hermes_url(stage) + "/v2/updates/price/latest"
    key = {"Authorization": "bearer s3cret"}
    for ids in (f"ids[]={SOL.hermes_id}", f"ids%5B0%5D=0X{SOL.hermes_id.upper()}", f"ids[]=0x{SOL.hermes_id}"):
        async with http.get(f"{base}?{ids}", headers=key) as response:
            body = await response.json()
            assert response.status == 200
        (entry,) = body["parsed"]
        state = stage.world.held("SOL/USD", HERMES)
        assert state is not None
        assert entry["id"] == SOL.hermes_id
        expected = {"price": str(state.mantissa), "conf": str(state.conf), "expo": -8, "publish_time": state.publish_s}
        assert entry["price"] == expected
        (blob,) = body["binary"]["data"]
        update = Accumulator.decode(bytes.fromhex(blob))
        assert check(update, simulated_signer().sets).verified and update.slot == state.price_slot
        (price,) = update.prices
        assert (price.feed_id.hex(), price.price, price.conf) == (SOL.hermes_id, state.mantissa, state.conf)
        assert (price.publish_time, price.ema_price) == (state.publish_s, state.ema)
    unknown = "ab" * 32
    for query, headers, status, text in (
        (f"ids[]={SOL.hermes_id}", {}, 401, "unauthorized"),
        (f"ids[]={SOL.hermes_id}", {"Authorization": "Bearer wrong"}, 401, "unauthorized"),
        (f"ids[]={SOL.hermes_id}&ids[]={unknown}", key, 404, f"Price ids not found: 0x{unknown}"),
        ("parsed=true", key, 400, "missing field `ids`"),
        ("ids[]=abc", key, 400, "invalid price feed id"),
        (f"ids[]={SOL.hermes_id}&parsed=maybe", key, 400, "`true` or `false`"),
    ):
        async with http.get(f"{base}?{query}", headers=headers) as response:
            assert response.status == status
            assert text in await response.text()
    lenient = f"ids[]={SOL.hermes_id}&ids[]={unknown}&ignore_invalid_price_ids=true&parsed=false&ACCESS_TOKEN=s3cret"
    async with http.get(f"{base}?{lenient}") as response:
        assert response.status == 200 and "parsed" not in await response.json()


async def test_hermes_streams_events_and_comments(stage: Stage, http: aiohttp.ClientSession) -> None:
    url = f"{hermes_url(stage)}/hermes/v2/updates/price/stream?ids[]={SOL.hermes_id}&encoding=base64"
    async with http.get(url) as response:
        assert response.headers["Content-Type"] == "text/event-stream"
        await stage.emulator.hermes[0].wait_for_streams(1)
        stage.emulator.inject(Fault(kind="kill", source=HERMES, at_s=1))
        stage.advance(0.9)
        line = await response.content.readline()
        assert line.startswith(b"data:")
        event = json.loads(line.removeprefix(b"data:"))
        assert [entry["id"] for entry in event["parsed"]] == [SOL.hermes_id]
        assert await response.content.readline() == b"\n"
        stage.advance(20)
        while (line := await response.content.readline()).startswith(b"data:"):
            assert await response.content.readline() == b"\n"
        assert line == b":\n"


async def test_hermes_metadata_are_strings(stage: Stage, http: aiohttp.ClientSession) -> None:
    async with http.get(f"{hermes_url(stage)}/v2/price_feeds?query=btc") as response:
        (entry,) = await response.json()
    assert entry["attributes"]["symbol"] == "Crypto.BTC/USD"
    assert all(isinstance(value, str) for value in entry["attributes"].values())


# Faults on the wire.


async def test_disconnect_closes_one_endpoint_and_refuses_it(stage: Stage, http: aiohttp.ClientSession) -> None:
    (url_a, ws_a), (url_b, ws_b) = rpc_urls(stage, 0), rpc_urls(stage, 1)
    async with http.ws_connect(ws_a) as first, http.ws_connect(ws_b) as second:
        await subscribe(first, SOL.edge)
        await subscribe(second, SOL.edge)
        stage.emulator.inject(Fault(kind="disconnect", endpoint="a", duration_s=5))
        assert (await first.receive()).type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.CLOSE)
        with pytest.raises(aiohttp.ClientError):
            await call(http, url_a, "getHealth")
        assert await call(http, url_b, "getHealth") == "ok"
        stage.advance(5)
        assert (await second.receive_json())["method"] == "accountNotification"
    assert await call(http, url_a, "getHealth") == "ok"


async def test_one_subscription_falls_silent(stage: Stage, http: aiohttp.ClientSession) -> None:
    async with http.ws_connect(rpc_urls(stage)[1]) as socket:
        await subscribe(socket, SOL.edge)
        ag = await subscribe(socket, SOL.ag)
        stage.emulator.inject(Fault(kind="silent", source=EDGE, feed="SOL/USD", mode="once"))
        stage.advance(3)
        again = await subscribe_after(socket, SOL.edge, ag)
        stage.advance(1.5)
        heard: set[int] = set()
        while len(heard) < 2:
            message = await socket.receive_json()
            heard.add(message["params"]["subscription"])
        assert heard == {ag, again}


async def subscribe_after(socket: aiohttp.ClientWebSocketResponse, address: str, only: int) -> int:
    """Subscribe while notifications of one other subscription come in."""
    params = [address, {"encoding": "base64"}]
    await socket.send_json({"jsonrpc": "2.0", "id": 9, "method": "accountSubscribe", "params": params})
    while "method" in (message := await socket.receive_json()):
        assert message["params"]["subscription"] == only
    return int(message["result"])


async def test_half_open_says_nothing_at_all(stage: Stage, http: aiohttp.ClientSession) -> None:
    async with http.ws_connect(rpc_urls(stage)[1], autoping=False) as socket:
        await subscribe(socket, SOL.edge)
        fault = stage.emulator.inject(Fault(kind="half_open", endpoint="a"))
        stage.advance(3)
        await socket.send_json({"jsonrpc": "2.0", "id": 5, "method": "slotSubscribe"})
        await call(http, rpc_urls(stage)[0], "getHealth")
        assert stage.emulator.clear(fault) == 1
        await socket.ping(b"x")
        while (message := await socket.receive()).type is aiohttp.WSMsgType.TEXT:
            assert "slotNotification" not in message.data and '"id":5' not in message.data
        assert message.type is aiohttp.WSMsgType.PONG


async def test_rate_limits_in_both_forms(stage: Stage, http: aiohttp.ClientSession) -> None:
    url, ws_url = rpc_urls(stage)
    stage.emulator.inject(Fault(kind="rate_limit", endpoint="a", mode="rpc"))
    assert await call(http, url, "getHealth") == {"code": -32005, "message": "Too many requests"}
    async with http.ws_connect(ws_url) as socket:
        await socket.send_json({"jsonrpc": "2.0", "id": 1, "method": "accountSubscribe", "params": [SOL.ag]})
        assert (await socket.receive_json())["error"]["code"] == -32005
    stage.emulator.clear()
    stage.emulator.inject(Fault(kind="rate_limit", mode="http", retry_after_s=9))
    for target in (url, f"{hermes_url(stage)}/v2/updates/price/latest"):
        async with http.request("POST" if target == url else "GET", target) as response:
            assert (response.status, response.headers["Retry-After"]) == (429, "9")
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await http.ws_connect(ws_url)
    assert refused.value.status == 429


@pytest.mark.parametrize(
    ("mode", "why"), [(None, "unknown_signer"), ("signers", "unknown_signer"), ("price", "bad_proof"), ("unsigned", "")]
)
async def test_forged_updates_are_refused_for_their_reason(
    stage: Stage, http: aiohttp.ClientSession, mode: str | None, why: str
) -> None:
    url = f"{hermes_url(stage)}/v2/updates/price/latest?ids[]={SOL.hermes_id}&encoding=hex"
    stage.emulator.inject(Fault(kind="forged", endpoint="hermes-1", mode=mode))
    async with http.get(url) as response:
        blobs = (await response.json())["binary"]["data"]
    sets = simulated_signer().sets
    assert [check(Accumulator.decode(bytes.fromhex(blob)), sets).why for blob in blobs] == ([why] if why else [])
    stage.emulator.clear()
    async with http.get(url) as response:
        (blob,) = (await response.json())["binary"]["data"]
    assert check(Accumulator.decode(bytes.fromhex(blob)), sets).verified


async def test_malformed_frames_are_broken_as_asked(stage: Stage, http: aiohttp.ClientSession) -> None:
    url, ws_url = rpc_urls(stage)
    stage.emulator.inject(Fault(kind="malformed", endpoint="a"))
    async with http.post(url, json={"jsonrpc": "2.0", "id": 1, "method": "getHealth"}) as response:
        with pytest.raises(json.JSONDecodeError):
            json.loads(await response.read())
    assert await call(http, url, "getHealth") == "ok"
    async with http.ws_connect(ws_url) as socket:
        await subscribe(socket, SOL.edge)
        spoilt = []
        for mode in ("base64", "account"):
            stage.emulator.inject(Fault(kind="malformed", source=EDGE, mode=mode))
            stage.advance(1.5)
            spoilt.append((await socket.receive_json())["params"]["result"]["value"]["data"][0])
            stage.emulator.clear()
        assert spoilt[0].startswith("*")
        assert len(b64decode(spoilt[1])) == 12


async def test_fork_is_told_by_one_endpoint(stage: Stage, http: aiohttp.ClientSession) -> None:
    stage.advance(3)
    async with http.ws_connect(rpc_urls(stage, 0)[1]) as first, http.ws_connect(rpc_urls(stage, 1)[1]) as second:
        await subscribe(first, SOL.edge)
        await subscribe(second, SOL.edge)
        state = stage.world.held("SOL/USD", EDGE)
        assert state is not None
        stage.emulator.inject(Fault(kind="fork", source=EDGE, feed="SOL/USD", endpoint="b", slots=2))
        message = (await second.receive_json())["params"]["result"]
        assert message["context"]["slot"] == slot_at(stage.now_us) + 2
        older = b64decode(message["value"]["data"][0])
        assert int.from_bytes(older[82:90], "little") < state.publish_s
        await first.ping(b"")
        stage.advance(1.5)
        newer = b64decode((await first.receive_json())["params"]["result"]["value"]["data"][0])
        assert int.from_bytes(newer[82:90], "little") > state.publish_s


async def test_a_wiped_account_is_closed_on_the_wire(stage: Stage, http: aiohttp.ClientSession) -> None:
    url, ws_url = rpc_urls(stage)
    async with http.ws_connect(ws_url) as socket:
        await subscribe(socket, SOL.ag)
        stage.emulator.inject(Fault(kind="wipe", account=SOL.ag))
        value = (await socket.receive_json())["params"]["result"]["value"]
        assert (value["owner"], value["data"], value["lamports"]) == ("1" * 32, ["", "base64"], 0)
    assert (await call(http, url, "getAccountInfo", SOL.ag, {"encoding": "base64"}))["value"] is None


async def test_hermes_refuses_keys_and_feeds(stage: Stage, http: aiohttp.ClientSession) -> None:
    url = f"{hermes_url(stage)}/v2/updates/price/latest?ids[]={SOL.hermes_id}"
    stage.emulator.inject(Fault(kind="unauthorized", endpoint="hermes-1", duration_s=1))
    async with http.get(url) as response:
        assert response.status == 401
    stage.advance(1)
    stage.emulator.inject(Fault(kind="not_entitled", feed="SOL/USD"))
    async with http.get(url) as response:
        assert (response.status, await response.text()) == (403, f"Not entitled: feed {SOL.hermes_id}")
    async with http.get(url.replace(SOL.hermes_id, ASSETS["BTC/USD"].hermes_id)) as response:
        assert response.status == 200


@pytest.mark.parametrize("kind", ["forged", "unauthorized", "not_entitled", "rate_limit", "malformed"])
async def test_a_fault_of_another_source_leaves_hermes_alone(
    stage: Stage, http: aiohttp.ClientSession, kind: Kind
) -> None:
    url = f"{hermes_url(stage)}/v2/updates/price/latest?ids[]={SOL.hermes_id}&encoding=hex"
    stage.emulator.inject(Fault(kind=kind, source="lazer", feed="SOL/USD"))
    async with http.get(url) as response:
        assert response.status == 200
        (blob,) = (await response.json())["binary"]["data"]
    assert check(Accumulator.decode(bytes.fromhex(blob)), simulated_signer().sets).verified


async def test_slow_answers_come_late(stage: Stage, http: aiohttp.ClientSession) -> None:
    stage.emulator.inject(Fault(kind="slow", endpoint="a", delay_ms=600_000))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await call(http, rpc_urls(stage)[0], "getHealth")
    assert await call(http, rpc_urls(stage, 1)[0], "getHealth") == "ok"


# Control.


async def test_faults_are_injected_from_outside(make_stage: MakeStage, http: aiohttp.ClientSession) -> None:
    stage = await make_stage(EmulatorSettings(hermes_key="s3cret"))
    assert stage.emulator.urls is not None
    control = stage.emulator.urls.control
    async with http.get(control) as response:
        text = await response.text()
    page = json.loads(text)
    assert page["simulated"] is True and page["seed"] == 1 and page["ages_ms"]["SOL/USD"]
    assert "s3cret" not in text + repr(stage.emulator.urls) + repr(stage.emulator.settings)
    async with http.post(f"{control}/faults", json={"kind": "kill", "source": "doves"}) as response:
        (number,) = (await response.json())["ids"]
    before = held(stage, EDGE)
    stage.advance(5)
    assert held(stage, EDGE) == before
    async with http.get(rpc_urls(stage)[0] + "/emulator/faults") as response:
        (fault,) = await response.json()
    assert (fault["id"], fault["kind"], fault["state"]) == (number, "kill", "active")
    async with http.delete(f"{control}/faults?id={number}") as response:
        assert await response.json() == {"cleared": 1}
    stage.advance(3)
    assert held(stage, EDGE) != before
    for body in ('{"kind": "storm"}', '{"kind": "stall", "sorce": "doves"}', "{"):
        async with http.post(f"{control}/faults", data=body) as response:
            assert response.status == 400 and "error" in await response.json()


async def test_a_script_of_faults_is_followed(make_stage: MakeStage, tmp_path: Path) -> None:
    script = tmp_path / "storm.toml"
    script.write_text('[[fault]]\nkind = "stall"\nsource = "pyth"\nat_s = 2\nduration_s = 3\n', encoding="utf-8")
    stage = await make_stage(EmulatorSettings(script=str(script)))
    ages = []
    for _ in range(6):
        stage.advance(1)
        ages.append(stage.world.ages_ms()["SOL/USD"][HERMES] // 1_000)
    assert ages[0] == 0 and ages[3] >= 2 and ages[5] == 0
    script.write_text("[[fault]]\nkind = 3\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="storm"):
        await make_stage(EmulatorSettings(script=str(script)))


@pytest.mark.parametrize("step_s", [3_600, -3_600])
async def test_a_stepped_clock_is_followed(make_stage: MakeStage, step_s: int) -> None:
    fault = Fault(kind="stall", source="chainlink", at_s=4, duration_s=600)
    stage = await make_stage(EmulatorSettings(noise_bps=0, faults=(fault,)))
    plain = await make_stage(EmulatorSettings(noise_bps=0))
    for one in (stage, plain):
        one.advance(3)
    stage.now_us += step_s * 1_000_000
    stage.emulator.follow_clock()
    for one in (stage, plain):
        one.advance(3)
    stepped, straight = (one.world.held("SOL/USD", EDGE) for one in (stage, plain))
    assert stepped is not None and straight is not None
    assert (stepped.mantissa, stepped.publish_us) == (straight.mantissa, straight.publish_us + step_s * 1_000_000)
    assert stage.world.ages_ms()["SOL/USD"]["chainlink.store"] >= 2_000
    stage.emulator.follow_clock()
    assert stage.world.shift_us == step_s * 1_000_000


async def test_stop_waits_for_no_open_socket(http: aiohttp.ClientSession) -> None:
    emulator = Emulator(settings=EmulatorSettings(), now_us=lambda: START_US)
    urls = await emulator.start()
    stream = f"{urls.hermes[0].url}/v2/updates/price/stream?ids[]={SOL.hermes_id}"
    async with http.ws_connect(urls.solana[0].ws) as socket, http.get(stream) as response:
        await emulator.hermes[0].wait_for_streams(1)
        async with asyncio.timeout(30):  # not the minute that aiohttp leaves to whoever is connected
            await emulator.stop()
        assert await response.content.read() == b""
        assert (await socket.receive()).type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match="DOGE/USD"):
        Emulator(settings=EmulatorSettings(feeds=("DOGE/USD",)), now_us=lambda: START_US)
    with pytest.raises(ConfigError, match="without a tape"):
        Emulator(settings=EmulatorSettings(manifest="x.toml"), now_us=lambda: START_US)
