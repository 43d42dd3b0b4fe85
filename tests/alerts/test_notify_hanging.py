"""A channel that hangs delays no other; and the check of that sees it where channels wait for each other."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from oracle_hub.alerts.notify.message import Message
from oracle_hub.alerts.notify.webhook import Webhook
from tests.alerts.delivery import Receiver, alert, delivering, firing, resolved, serving, webhook
from tests.patience import PATIENCE_S

FEEDS = ("SOL/USD", "BTC/USD", "ETH/USD")


@pytest.fixture
async def receivers() -> AsyncIterator[tuple[Receiver, Receiver]]:
    """One that answers, and one that never does."""
    async with serving() as prompt, serving() as hanging:
        hanging.always = "hang"
        yield prompt, hanging


async def heard_beside(receivers: tuple[Receiver, Receiver], state: Path, patience_s: float) -> list[tuple[str, str]]:
    """What a channel hears of while another hangs in its first request."""
    prompt, hanging = receivers
    deliveries = delivering(state, webhook(hanging, "hang", timeout_s=600), webhook(prompt, "desk"))
    await deliveries.start([])
    heard: list[tuple[str, str]] = []
    try:
        deliveries.take(firing(alert("USDC/USD")))
        await hanging.next()
        for feed in FEEDS:
            deliveries.take(firing(alert(feed)))
            deliveries.take(resolved(alert(feed)))
        async with asyncio.timeout(patience_s):
            while len(heard) < 1 + 2 * len(FEEDS):
                message = (await prompt.requests.get()).json
                heard.append((message["alert"]["feed"], message["change"]))
    except TimeoutError:
        pass
    finally:
        hanging.let_go.set()
        await deliveries.stop(0)
    return heard


WANTED = [("USDC/USD", "firing"), *((feed, change) for feed in FEEDS for change in ("firing", "resolved"))]


async def test_a_channel_that_hangs_delays_no_other(receivers: tuple[Receiver, Receiver], tmp_path: Path) -> None:
    assert await heard_beside(receivers, tmp_path, PATIENCE_S) == WANTED


async def test_channels_that_wait_for_each_other_are_found_out(
    receivers: tuple[Receiver, Receiver], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn, send = asyncio.Lock(), Webhook.send

    async def in_turn(channel: Webhook, message: Message, now_us: int) -> None:
        async with turn:
            await send(channel, message, now_us)

    monkeypatch.setattr(Webhook, "send", in_turn)
    assert await heard_beside(receivers, tmp_path, 0.3) != WANTED
