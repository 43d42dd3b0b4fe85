"""What the checker has to say: findings with their evidence, and how much was looked at."""

from collections import Counter
from typing import Any

import msgspec

MAX_FINDINGS_PER_RULE = 20
"""More are counted, not kept."""

RULES: dict[str, str] = {
    "protocol": "every message can be read and belongs to something that was asked for",
    "order": "(epoch, seq) of an instance never goes back, and no sequence is used twice",
    "loss": "prev_seq is what the client holds; nothing that concerns it lies between; heartbeats agree",
    "belief": "a client that believes itself current holds what was published at its seq",
    "lease": "no price is shown at or after the end of its lease, by the server's clock",
    "acted": "no client acts on a price after the end of its lease, or on one that was not published",
    "content": "what was received is what the journal's replay derives for that (instance, epoch, seq)",
    "agreement": "all clients were told the same of each (instance, epoch, seq)",
    "journal": "everything received is in the journal, and the journal replays to what it says was published",
    "publish_time": "no source's publish time goes back",
    "warmup": "no price before every source was heard or its warm-up was over",
    "config": "every connection is told of every reload, right after the first batch under it",
    "goodbye": "who fell behind in mode all is told so with 4001, and finds it when it reads again",
    "coverage": "the run had what it was made for: frames, faults, prices",
}
"""Every rule, and what it demands."""


class Finding(msgspec.Struct, frozen=True):
    """One violation."""

    rule: str
    client: str
    """Name of the client; empty where the journal itself is at fault."""
    connection: int
    frame: int
    """Number of the message in its connection, from 1; 0 where there is none."""
    message: str
    evidence: dict[str, Any]


class Report(msgspec.Struct):
    """What was found, and how often each thing was looked at."""

    findings: list[Finding] = []
    found: Counter[str] = msgspec.field(default_factory=Counter)
    """Findings by rule, also those that were not kept."""
    checked: Counter[str] = msgspec.field(default_factory=Counter)

    def add(self, finding: Finding) -> None:
        """Keep a finding, up to the bound of its rule."""
        self.found[finding.rule] += 1
        if self.found[finding.rule] <= MAX_FINDINGS_PER_RULE:
            self.findings.append(finding)

    latest_act_us: int | None = None
    """The latest act, counted from the end of its price's lease; negative: before it."""

    longest_hop_us: int = 0
    """The longest that a batch was seen to be on its way to a worker: by this much it was older than a heartbeat
    without it."""

    def note_act(self, late_us: int) -> None:
        """Count an act whose time could be judged."""
        self.checked["acts_timed"] += 1
        if self.latest_act_us is None or late_us > self.latest_act_us:
            self.latest_act_us = late_us

    @property
    def passed(self) -> bool:
        """Nothing was found."""
        return not self.found
