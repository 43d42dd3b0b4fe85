"""``oracle-hub decode``: account data or a signed message in, one JSON object out.

A contract, for debugging and for checkers.
"""

import argparse
import base64
import binascii
import io
import sys
from collections.abc import Callable

import orjson

from feeds.registry import DECODERS
from feeds.signed import SIGNED, decode_signed
from feeds.verdict import Mode, Verdict, Why
from oracle_hub.app.trust import sets_by_name, sets_named
from oracle_hub.cli.moments import moment_us
from oracle_hub.errors import ConfigError, DecodeError

KINDS = sorted({*DECODERS, *SIGNED})


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Reads account data or a signed message in base64 or hex from standard input and writes one JSON object."
    )
    parser.add_argument("kind", metavar="KIND", choices=KINDS, help=", ".join(KINDS))
    parser.add_argument("--owner", metavar="PUBKEY", help="the account's owner: refused if it is not the right program")
    parser.add_argument("--lines", action="store_true", help='one input per line; errors as {"error": ...} lines')
    parser.add_argument("--json", action="store_true", help="accepted for uniformity: the output is always JSON")
    signed = parser.add_argument_group("signed messages", f"for {', '.join(sorted(SIGNED))}")
    signed.add_argument("--verify", action="store_true", help="check proofs, signatures, quorum and signer set")
    signed.add_argument(
        "--at",
        metavar="TIME",
        type=moment_us,
        help="when the signer set must be in force: ISO 8601, or unix seconds, ms or us (default: the message's time)",
    )
    signed.add_argument(
        "--signers",
        metavar="SET",
        help="who may sign: production (default) or another known name, or a file of signer sets (TOML or JSON)",
    )
    modes = [mode.value for mode in Mode]
    signed.add_argument("--mode", choices=modes, help="strict (default) or lenient; see docs/signatures.md")


def run(options: argparse.Namespace) -> int:
    decoder = _decoder(options)
    takes_json = options.kind in SIGNED and SIGNED[options.kind].json
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8", errors="replace")  # raw bytes are refused in words, in every locale
    if not options.lines:
        answer = decoder(_bytes(sys.stdin.read(), takes_json))
        _write(answer)
        if options.verify and answer["verified"] is not True:
            print(f"oracle-hub decode: not verified: {answer['why']}: {answer['detail']}", file=sys.stderr)
            return 1
        return 0
    for line in sys.stdin:
        if not line.strip():
            continue
        try:
            _write(decoder(_bytes(line, takes_json)))
        except DecodeError as error:
            _write({"error": str(error)})
    return 0


def _decoder(options: argparse.Namespace) -> Callable[[bytes], dict[str, object]]:
    """What to do with the bytes of one input.

    Raises:
        ConfigError: options that do not belong to the kind, or signer sets that can't be read.
    """
    kind: str = options.kind
    asked = {"--at": options.at, "--signers": options.signers, "--mode": options.mode}
    given = [name for name, value in asked.items() if value is not None]
    if given and not options.verify:
        raise ConfigError(f"{given[0]}: only with --verify")
    if kind not in SIGNED:
        decode, owner = DECODERS[kind], options.owner
        if not options.verify:
            return lambda data: decode(data, owner)
        unsigned = Verdict(Why.UNSIGNED, f"{kind} is account data, which holds no signature").fields()
        said: dict[str, object] = {"mode": str(options.mode or Mode.STRICT)}
        return lambda data: _told(kind, lambda: decode(data, owner) | unsigned | said, said)
    if options.owner is not None:
        raise ConfigError(f"--owner: {kind} is a signed message, which no program owns; use --verify")
    if not options.verify:
        return lambda data: decode_signed(kind, data)
    sets = sets_by_name(options.signers or "production", sets_named(kind, SIGNED[kind].signers), key="--signers")
    mode = Mode(options.mode or Mode.STRICT)
    at_us: int | None = options.at
    return lambda data: _told(
        kind, lambda: decode_signed(kind, data, sets, at_us=at_us, mode=mode), {"mode": str(mode)}
    )


def _told(kind: str, check: Callable[[], dict[str, object]], said: dict[str, object]) -> dict[str, object]:
    """What is not even such a message is not verified either, and says so in the same words."""
    try:
        return check()
    except DecodeError as error:
        return {"kind": kind} | Verdict(Why.MALFORMED, str(error)).fields() | said


def _bytes(text: str, takes_json: bool) -> bytes:
    text = text.removeprefix("\ufeff")  # some editors begin a file with it
    if takes_json and text.lstrip().startswith(("{", "[")):
        return text.strip().encode()
    compact = "".join(text.split())
    if not compact:
        raise DecodeError("standard input is empty; give data in base64 or hex")
    digits = compact.removeprefix("0x").removeprefix("0X")
    if len(digits) % 2 == 0 and all(character in "0123456789abcdefABCDEF" for character in digits):
        return bytes.fromhex(digits)
    try:
        return base64.b64decode(compact, validate=True)
    except (binascii.Error, ValueError):
        raise DecodeError("standard input is neither base64 nor hex") from None


def _write(answer: dict[str, object]) -> None:
    sys.stdout.buffer.write(orjson.dumps(answer) + b"\n")
    sys.stdout.buffer.flush()
