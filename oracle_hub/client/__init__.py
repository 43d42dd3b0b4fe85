"""The client library: prices of a hub, held only while they may be acted on. See docs/client.md."""

from oracle_hub.client.price import HubUnreachable, Merged, NoPrice, Price, Refusal, Taken, Update
from oracle_hub.client.prices import Prices, Stats, connect
from oracle_hub.client.threaded import BlockingPrices, open_prices

__all__ = [
    "BlockingPrices",
    "HubUnreachable",
    "Merged",
    "NoPrice",
    "Price",
    "Prices",
    "Refusal",
    "Stats",
    "Taken",
    "Update",
    "connect",
    "open_prices",
]
