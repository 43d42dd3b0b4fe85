"""Channels of alerts from a configuration: secrets from the environment, and refusals that name the key."""

import msgspec
import pytest

from oracle_hub.alerts.alert import Kind, Severity
from oracle_hub.alerts.notify.settings import AlertmanagerSettings, LibrarySettings, Secret, WebhookSettings
from oracle_hub.app.alert_channels import delivery_settings
from oracle_hub.config import Config, canonical_text, parse_canonical, parse_config
from oracle_hub.errors import ConfigError
from tests.conftest import ROOT

BASE = (ROOT / "deploy" / "jupiter-mainnet.toml").read_text()
CHANNELS = """
[[alerts.alertmanager]]
name = "am"
url = "http://alertmanager:9093/prefix"
bearer = "env:AM_TOKEN"
min_severity = "critical"
resend_ms = 30000

[[alerts.webhook]]
name = "desk"
url = "env:DESK_URL"
secret = "env:DESK_SECRET"
kinds = ["no_price", "peg_band"]
heartbeat_ms = 15000

[[alerts.notify]]
name = "slack"
url = "env:SLACK_URL"
"""
SECRETS = {
    "AM_TOKEN": "am-token-value",
    "DESK_URL": "https://desk.example/in/desk-key-value",
    "DESK_SECRET": "desk-secret-value",
    "SLACK_URL": "slack://slack-token-value/a/b",
}


def config(text: str) -> Config:
    return parse_config(BASE + text, origin="hub.toml")


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("secrets")
def test_channels_have_what_the_configuration_says() -> None:
    settings = delivery_settings(config(CHANNELS))
    assert settings.channels == (
        AlertmanagerSettings(
            name="am",
            url=Secret("http://alertmanager:9093/prefix"),
            bearer=Secret("am-token-value"),
            min_severity=Severity.CRITICAL,
            timeout_s=10.0,
            resend_s=30.0,
            expire_s=900.0,
        ),
        WebhookSettings(
            name="desk",
            url=Secret("https://desk.example/in/desk-key-value"),
            secret=Secret("desk-secret-value"),
            kinds=frozenset({Kind.NO_PRICE, Kind.PEG_BAND}),
            heartbeat_s=15.0,
        ),
        LibrarySettings(name="slack", url=Secret("slack://slack-token-value/a/b"), timeout_s=30.0),
    )
    assert (settings.max_queued, settings.first_retry_s, settings.max_retry_s) == (1000, 0.5, 60.0)
    assert not settings.simulated


@pytest.mark.usefixtures("secrets")
def test_no_secret_is_in_what_is_printed_or_journaled() -> None:
    parsed = config(CHANNELS)
    text = canonical_text(parsed) + repr(parsed) + repr(delivery_settings(parsed))
    assert [value for value in SECRETS.values() if value in text] == []
    assert parse_canonical(canonical_text(parsed)) == parsed
    with pytest.raises(TypeError):
        msgspec.json.encode(Secret("shown"))


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        ('[[alerts.notify]]\nname = "slack"\nurl = "slack://token/a/b"', 'alerts.notify.slack.url: write "env:NAME"'),
        (
            '[[alerts.webhook]]\nname = "d"\nurl = "https://d.example"\nsecret = "hunter2"',
            'alerts.webhook.d.secret: write "env:NAME"',
        ),
        (
            '[[alerts.webhook]]\nname = "d"\nurl = "https://hooks.example/services/T0001/B0002/abcdefgh1234"',
            "alerts.webhook.d.url: this URL seems to hold a key",
        ),
        (
            '[[alerts.webhook]]\nname = "d"\nurl = "http://a"\n[[alerts.notify]]\nname = "d"\nurl = "env:X"',
            "alerts: two channels have the name d",
        ),
        ('[[alerts.alertmanager]]\nname = "A B"\nurl = "http://a"', r"alerts.alertmanager.0.name: must match"),
        (
            '[[alerts.alertmanager]]\nname = "a"\nurl = "http://a"\nresend = 5',
            "alerts.alertmanager.0: unknown key resend; did you mean resend_ms",
        ),
    ],
)
def test_a_channel_that_cannot_be_is_refused_by_its_key(text: str, refusal: str) -> None:
    with pytest.raises(ConfigError, match=refusal):
        config(text)


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        (
            '[[alerts.webhook]]\nname = "d"\nurl = "env:UNSET_URL"',
            "d.url: environment variable UNSET_URL is not",
        ),
        ('[[alerts.webhook]]\nname = "d"\nurl = "ftp://a"', r"webhook.d.url: a URL beginning with http:// or https://"),
        (
            '[[alerts.webhook]]\nname = "d"\nurl = "http://a"\nkinds = ["no_prise"]',
            "webhook.d.kinds: no_prise is no kind of alert; known: pair_diverged,",
        ),
        (
            '[[alerts.alertmanager]]\nname = "a"\nurl = "http://a"\nresend_ms = 60000\nexpire_ms = 61000',
            "alertmanager.a.expire_ms: must be twice resend_ms or more",
        ),
    ],
)
def test_a_channel_that_cannot_work_is_refused_at_the_start(text: str, refusal: str) -> None:
    with pytest.raises(ConfigError, match=refusal):
        delivery_settings(config(text))
