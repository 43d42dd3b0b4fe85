"""What a Hermes client asks in a query string, and what it is told when that can't be served: plain text. Pure."""

import re
from collections.abc import Iterable
from urllib.parse import parse_qsl

from oracle_hub.charts.hermes_ids import BadId, parse_id
from oracle_hub.errors import ChartsError

_IDS = re.compile(r"ids(\[[0-9]*\])?")
_BOOLEANS = {"true": True, "false": False}
_LARGEST_TIME_S = 2**63 - 1


class HermesError(ChartsError):
    """What is answered instead of prices: a status, and a text for people."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


UPDATE_DATA_NOT_FOUND = "Update data not found"


def ids_not_found(ids: Iterable[str]) -> HermesError:
    """Ids that no feed has, or whose feed has no price. Every one of them is named."""
    return HermesError(404, f"Price ids not found: {', '.join(f'0x{price_id}' for price_id in ids)}")


def bad_query(reason: str) -> HermesError:
    """A query string that can't be read."""
    return HermesError(400, f"Failed to deserialize query string: {reason}")


class Query:
    """The parameters of every route, each with its default. What a route does not know it ignores, as Hermes does."""

    def __init__(self, text: str) -> None:
        """Read a query string.

        Raises:
            HermesError: 400: a value that can't be read, by name.
        """
        self.ids: list[str] = []
        """In their plain form, each once, in the order of the request."""
        self.encoding = "hex"
        self.parsed = True
        self.ignore_invalid = False
        self.benchmarks_only = False
        self.allow_unordered = False
        self.verbose = False
        self.binary = False
        self._words: dict[str, str] = {}
        flags = {
            "parsed": "parsed",
            "ignore_invalid_price_ids": "ignore_invalid",
            "benchmarks_only": "benchmarks_only",
            "allow_unordered": "allow_unordered",
            "verbose": "verbose",
            "binary": "binary",
        }
        for key, value in parse_qsl(text, keep_blank_values=True):
            if _IDS.fullmatch(key):
                self.ids.append(_id(key, value))
            elif key in flags:
                setattr(self, flags[key], _boolean(key, value))
            elif key == "encoding":
                if value not in ("hex", "base64"):
                    raise bad_query(f"encoding: unknown variant `{value[:40]}`, expected `hex` or `base64`")
                self.encoding = value
            else:
                self._words[key] = value
        self.ids = list(dict.fromkeys(self.ids))

    def required_ids(self) -> list[str]:
        """The ids. Raises HermesError (400) where there are none."""
        if not self.ids:
            raise bad_query("missing field `ids`")
        return self.ids

    def word(self, key: str) -> str | None:
        """A parameter as it was written; None where it is absent."""
        return self._words.get(key)

    def required_id(self) -> str:
        """The one id of the routes that take ``id``. Raises HermesError (400)."""
        return _id("id", self._required("id"))

    def required_time_s(self) -> int:
        """``publish_time``, unix seconds. Raises HermesError (400)."""
        value = self._required("publish_time")
        found = integer(value)
        if found is None:
            raise bad_query(f"publish_time: invalid integer `{value[:40]}`")
        return found

    def _required(self, key: str) -> str:
        value = self._words.get(key)
        if value is None:
            raise bad_query(f"missing field `{key}`")
        return value


def integer(text: str) -> int | None:
    """A decimal integer of 64 bits; None for anything else."""
    if not re.fullmatch(r"-?[0-9]{1,19}", text):
        return None
    value = int(text)
    return value if -_LARGEST_TIME_S <= value <= _LARGEST_TIME_S else None


def ccip_input(text: str | None) -> tuple[str, int]:
    """The id and the time of ``data``: 0x, 32 bytes of id, 8 bytes of unix seconds, big endian.

    Raises:
        HermesError: 400: it is something else.
    """
    match = re.fullmatch(r"0x([0-9a-fA-F]{64})([0-9a-fA-F]{16})", text or "")
    if match is None:
        raise HermesError(400, "Invalid CCIP input")
    return match[1].lower(), int(match[2], 16)


def _id(key: str, value: str) -> str:
    try:
        return parse_id(value)
    except BadId as error:
        raise bad_query(f"{key}: {error}") from None


def _boolean(key: str, value: str) -> bool:
    try:
        return _BOOLEANS[value]
    except KeyError:
        raise bad_query(f"{key}: provided string was not `true` or `false`") from None
