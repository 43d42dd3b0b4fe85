"""However many hosts deliver a signed update, it is proved once: in a live run, and again once in its replay."""

from base64 import b64encode
from pathlib import Path

import orjson

from feeds.addresses import ASSETS
from feeds.edge.messages import EdgePrice
from feeds.emulator.edge_signing import EdgeSigner
from feeds.emulator.pro_signing import ProSigner
from feeds.emulator.report_signing import DonSigner
from feeds.pyth.lazer import LazerFeed
from oracle_hub.app.engine import Engine
from oracle_hub.app.lineup import lineup_from_text
from oracle_hub.app.replay import Replayer
from oracle_hub.config import load_config
from oracle_hub.core.source import Frame
from oracle_hub.journal.reader import read_journal
from tests.app.rig import Rig, hermes_event

CONFIG = Path(__file__).resolve().parents[2] / "deploy" / "simulate-signed.toml"
S = 1_000_000
SECONDS = 3
HOSTS = {"edge": 2, "streams": 4, "pro": 3, "hermes": 2}
"""Links by kind: Data Streams has two hosts of two origins."""
EDGE, DON, PRO = EdgeSigner(), DonSigner(), ProSigner()


def frame(kind: str, second: int, now_s: int) -> Frame:
    """What every host of a kind sends about SOL/USD in a second of the run."""
    asset, price = ASSETS["SOL/USD"], 100_00000000 + second
    match kind:
        case "edge":
            body = EDGE.batch([EdgePrice("SOLUSD", price, -8, now_s)])
            return Frame("http", body, f"batch:{second + 1}", 200)
        case "streams":
            quotes = dict.fromkeys(("price", "bid", "ask"), price * 10**10)
            report = DON.report(bytes.fromhex(asset.data_streams_id), now_s, quotes)
            return Frame("websocket", orjson.dumps({"fullReport": "0x" + report.hex()}))
        case "pro":
            names = ("price", "exponent", "feed_update_timestamp")
            feed = LazerFeed(asset.pro_id, names, price=price, exponent=-8, feed_update_timestamp=now_s * S)
            data = b64encode(PRO.message("solana", now_s * S, 3, [feed])).decode()
            update = {"type": "streamUpdated", "solana": {"encoding": "base64", "data": data}}
            return Frame("websocket", orjson.dumps(update))
    return hermes_event({"SOL/USD": (price, now_s)})


def checked(engine: Engine) -> dict[str, int]:
    """How many signed updates were proved, by kind."""
    links = engine.lineup.links
    provers = {kind: [vars(links[f"{kind}:{one + 1}"])["_prover"] for one in range(HOSTS[kind])] for kind in HOSTS}
    return {
        kind: sum(one.checked for one in {id(one): one for one in given}.values()) for kind, given in provers.items()
    }


async def test_an_update_is_proved_once_live_and_once_in_a_replay(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "journal", load_config(CONFIG))
    names = [f"{kind}:{one + 1}" for kind in HOSTS for one in range(HOSTS[kind])]
    assert set(names) == {name for name in rig.pump.engine.lineup.links if not name.startswith("solana")}
    rig.connect(*names)
    for second in range(SECONDS):
        for name in names:
            rig.deliver(name, frame(name.partition(":")[0], second, rig.now_s))
        rig.pump.step()
        assert rig.pump.engine.hub.decisions["SOL/USD"].mantissa == 100_00000000 + second
        rig.manual.advance(S)
        for name in names:
            rig.pump.on_timer(rig.pump.engine.lineup.links[name], rig.clock.now_us())
    assert checked(rig.pump.engine) == dict.fromkeys(HOSTS, SECONDS)
    rig.close()

    replayer = Replayer(lineup_from_text)
    for record in read_journal(tmp_path / "journal"):
        replayer.take(record)
    report = replayer.finish()
    assert report.proved and report.frames == SECONDS * len(names)
    assert replayer.engine is not None and replayer.engine is not rig.pump.engine
    assert checked(replayer.engine) == dict.fromkeys(HOSTS, SECONDS)
