"""What a link to a node knows of the proxies that it reads."""

import msgspec

from feeds.chainlink.rounds import Answer, Rounds

NEVER = 2**63 - 1


class EvmFeed(msgspec.Struct, frozen=True):
    """One feed by its proxy, and the exponent to which its prices are brought."""

    proxy: str
    expo: int = -8


class Proxy(msgspec.Struct):
    """What a link knows of one proxy. The sequencer's uptime feed has no feed."""

    feed: str | None
    address: str
    rounds: Rounds
    phase: int = 0
    aggregator: str = ""
    """The one that is followed, or was in the session before."""
    following: bool = False
    """Whether its logs are subscribed to in this session."""
    subscription: str = ""
    answers: dict[str, int | str] = {}
    """To the questions that are being asked: what the proxy is now."""
    straddled: bool = False
    refused: bool = False
    block: int = 0
    """Everything up to this block was seen."""
    first_look: bool = True
    called_us: int = 0
    """When a call told a round that no log had told; 0: all of them came as logs."""
    doubted: bool = False
    """The latest look contradicted what is held."""
    reorged: bool = False
    """The chain was reorganised since the latest look."""
    again_us: int = NEVER
    waiting: Answer | None = None
    """The newest answer, while the sequencer is not to be trusted."""

    @property
    def named(self) -> str:
        """In words, for what is told of it."""
        return self.feed or "sequencer"

    def forget_session(self) -> None:
        """A new session begins: nothing is subscribed to, and nothing is known for sure."""
        self.following = self.doubted = self.straddled = self.refused = False
        self.subscription, self.answers, self.again_us = "", {}, NEVER
        self.first_look, self.called_us = True, 0
