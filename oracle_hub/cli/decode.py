"""``oracle-hub decode``: account data in, one JSON object out. A contract, for debugging and for checkers."""

import argparse
import base64
import binascii
import sys
from collections.abc import Callable

import orjson

from feeds.registry import DECODERS
from oracle_hub.errors import DecodeError


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Reads account data in base64 or hex from standard input and writes one JSON object."
    parser.add_argument("kind", metavar="KIND", choices=sorted(DECODERS), help=", ".join(sorted(DECODERS)))
    parser.add_argument("--owner", metavar="PUBKEY", help="the account's owner: refused if it is not the right program")
    parser.add_argument("--lines", action="store_true", help='one input per line; errors as {"error": ...} lines')
    parser.add_argument("--json", action="store_true", help="accepted for uniformity: the output is always JSON")


def run(options: argparse.Namespace) -> int:
    decoder: Callable[[bytes, str | None], dict[str, object]] = DECODERS[options.kind]
    if not options.lines:
        _write(decoder(_bytes(sys.stdin.read()), options.owner))
        return 0
    for line in sys.stdin:
        if not line.strip():
            continue
        try:
            _write(decoder(_bytes(line), options.owner))
        except DecodeError as error:
            _write({"error": str(error)})
    return 0


def _bytes(text: str) -> bytes:
    compact = "".join(text.split())
    if not compact:
        raise DecodeError("standard input is empty; give account data in base64 or hex")
    digits = compact.removeprefix("0x")
    if len(digits) % 2 == 0 and all(character in "0123456789abcdefABCDEF" for character in digits):
        return bytes.fromhex(digits)
    try:
        return base64.b64decode(compact, validate=True)
    except (binascii.Error, ValueError):
        raise DecodeError("standard input is neither base64 nor hex") from None


def _write(answer: dict[str, object]) -> None:
    sys.stdout.buffer.write(orjson.dumps(answer) + b"\n")
    sys.stdout.buffer.flush()
