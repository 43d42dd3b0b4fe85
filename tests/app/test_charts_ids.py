"""Ids of Pyth's clients in ``[charts.pyth_ids]``: they reach the doors, and a wrong one is refused with its key."""

import pytest

from oracle_hub.app.charts import charts_of
from oracle_hub.charts.hermes_ids import PYTH_IDS
from oracle_hub.cli.run import simulation_text
from oracle_hub.config import Config, parse_config
from oracle_hub.errors import ConfigError

BNB = "2f95862b045670cd22bee3114c39763a4a08beeb663b145d283c31d7d1101c4f"


def config(ids: str) -> Config:
    return parse_config(f"{simulation_text()}\n[charts.pyth_ids]\n{ids}\n", origin="hub.toml")


def test_ids_reach_the_doors() -> None:
    charts = charts_of(config(f'"BNB/USD" = "0x{BNB}"'), "ws://127.0.0.1:1/v1/stream")
    assert charts.settings.pyth_ids == {"BNB/USD": f"0x{BNB}"}


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        ('"BNB/USD" = "0x12"', "charts.pyth_ids: BNB/USD: invalid price feed id '0x12': expected 64 hex digits"),
        (f'"WSOL/USD" = "{PYTH_IDS["SOL/USD"]}"', "charts.pyth_ids: SOL/USD and WSOL/USD have the same id"),
    ],
)
def test_a_wrong_id_is_refused_with_its_key(ids: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        charts_of(config(ids), "ws://127.0.0.1:1/v1/stream")
    assert str(refused.value).startswith(said)
