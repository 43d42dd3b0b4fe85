"""A few accounts, read once over HTTP from one endpoint: for commands that look at the chain and end."""

from collections.abc import Sequence

import aiohttp
import msgspec

from oracle_hub.clock import SystemClock
from oracle_hub.core.source import Account, Fetch
from oracle_hub.errors import SourceError
from oracle_hub.ingest.http import fetch_frame
from oracle_hub.ingest.rpc_messages import AccountValue, Problem, call, http_result, secrets_of, snapshot_call

MAX_KEYS = 100
"""Keys that a node takes in one ``getMultipleAccounts``."""
MAX_ANSWER_BYTES = 4 << 20
TIMEOUT_MS = 10_000


class _Context(msgspec.Struct):
    slot: int


class _Snapshot(msgspec.Struct):
    context: _Context
    value: list[AccountValue | None]


class AccountEndpoint:
    """One RPC endpoint, asked over HTTP.

    Args:
        session: carries the requests.
        name: the endpoint's, for messages; its URL may hold a key and is never shown.
        url: http or https.
        commitment: as in ``solana.commitment``.
    """

    def __init__(self, session: aiohttp.ClientSession, name: str, url: str, commitment: str) -> None:
        self.name = name
        self._session = session
        self._url = url
        self._commitment = commitment
        self._secrets = secrets_of(url)

    def __repr__(self) -> str:
        return f"AccountEndpoint({self.name!r})"

    async def prove_cluster(self, genesis_hash: str) -> None:
        """Refuse an endpoint of another cluster, where the same addresses hold other prices.

        Raises:
            SourceError: it is on another cluster, or does not answer.
        """
        found = await self._ask(call(1, "getGenesisHash"))
        if found != genesis_hash:
            raise SourceError(
                f"endpoint {self.name} is on another cluster: genesis {str(found)[:44]}, not {genesis_hash}"
            )

    async def read(self, addresses: Sequence[str]) -> dict[str, Account | None]:
        """States of accounts by address, None for those that do not exist.

        Raises:
            SourceError: no answer, or one that is none.
        """
        found: dict[str, Account | None] = {}
        for first in range(0, len(addresses), MAX_KEYS):
            keys = addresses[first : first + MAX_KEYS]
            result = await self._ask(snapshot_call(1, keys, self._commitment, 0))
            try:
                snapshot = msgspec.convert(result, _Snapshot)
                for key, value in zip(keys, snapshot.value, strict=True):
                    state = None if value is None else value.content()
                    found[key] = (
                        None
                        if value is None or state is None
                        else Account(key, value.owner, snapshot.context.slot, state)
                    )
            except (msgspec.ValidationError, ValueError):
                raise SourceError(f"endpoint {self.name}: an answer that is no list of accounts") from None
        return found

    async def _ask(self, body: bytes) -> object:
        fetch = Fetch("once", self._url, "POST", {"Content-Type": "application/json"}, body, TIMEOUT_MS)
        frame, _ = await fetch_frame(self._session, fetch, MAX_ANSWER_BYTES, SystemClock().wall_us)
        result = http_result(frame, self._secrets)
        if isinstance(result, Problem):
            raise SourceError(f"endpoint {self.name}: {result.text}")
        return result
