"""``oracle-hub``: the command line. Each command is a module that is imported only when it is called."""

import argparse
import importlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import NamedTuple

import oracle_hub
from oracle_hub.errors import OracleHubError, in_words


class Command(NamedTuple):
    """A command: the module ``oracle_hub.cli.<module>`` has ``arguments(parser)`` and ``run(options) -> int``."""

    module: str
    help: str


COMMANDS: dict[str, Command] = {
    "run": Command("run", "start the hub (without --config: with the emulator, a self-contained simulation)"),
    "charts": Command("charts", "keep bars of a running hub's prices, and serve them to charts and price clients"),
    "check": Command("check", "validate a configuration and say what it gives"),
    "migrate": Command("migrate", "show the exchange's old and new oracles side by side, and rewrite a configuration"),
    "feeds": Command("feeds", "find a feed over the known sources, and add it to a configuration"),
    "tail": Command("tail", "follow the prices of a running hub in a live table"),
    "explain": Command("explain", "show why a feed has the price it has: inputs, ages, divergences, the rule"),
    "parity": Command("parity", "hold the exchange's own aggregate against our prices, live or over a journal"),
    "replay": Command("replay", "run a journal through the same code and compare what it published"),
    "prove": Command("prove", "show the frames, inputs and rule behind one published price, from the journal"),
    "whatif": Command("whatif", "decide a recorded history again under other limits, and compare them"),
    "incidents": Command("incidents", "play oracle disasters of the past, also with a configuration of your own"),
    "rebuild-bars": Command("rebuild_bars", "make the bars of charts anew from a journal"),
    "import-bars": Command("import_bars", "load somebody else's history into the bars of charts"),
    "export": Command("export", "write bars or decisions of charts as CSV or Parquet"),
    "alerts": Command("alerts", "what is wrong now, what began and ended, and whether it is heard"),
    "decode": Command("decode", "decode account data from standard input into JSON"),
    "select": Command("select", "apply the rule to JSON lines from standard input"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point. Returns the exit status: 0 done, 1 refused with one line on standard error, 2 usage."""
    try:
        status = _called(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()  # here, where its failing has a handler
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        _drop_output()
        return 141
    except OSError as error:
        _drop_output()
        where = f"{error.filename}: " if error.filename else ""
        print(_one_line(f"oracle-hub: {where}{in_words(error)}"), file=sys.stderr)
        return 1
    return status


def _one_line(text: str) -> str:
    """Names of files may hold the end of a line, and what a terminal would obey."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def _empty(arguments: Sequence[str]) -> str | None:
    """What an empty argument stands behind, as ``--config "$NAME"`` gives it where NAME is not set."""
    for before, argument in pairwise(("", *arguments)):
        option, equals, value = argument.partition("=")
        if value or (argument and not (equals and option.startswith("--"))):
            continue
        named = option or before
        if named != "--references":  # there, none can be meant
            return named
    return None


@contextmanager
def _ended_by_interrupts() -> Iterator[None]:
    """While modules are imported, Ctrl-C ends the process by itself: raised amid the import of an extension,
    KeyboardInterrupt can crash the interpreter."""
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler or threading.current_thread() is not threading.main_thread():
        yield  # whoever calls from a program of theirs has a say of their own
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _drop_output() -> None:
    """What nobody takes is not offered again when the interpreter ends, which would complain about it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _called(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="oracle-hub", description=oracle_hub.__doc__, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"oracle-hub {oracle_hub.__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    called = next((argument for argument in arguments if not argument.startswith("-")), None)
    for name, command in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=command.help, description=command.help, allow_abbrev=False)
        if name == called:  # the others' modules need not be imported to list them
            with _ended_by_interrupts():
                importlib.import_module(f"oracle_hub.cli.{command.module}").arguments(subparser)
    empty = _empty(arguments)
    if empty is not None:
        parser.error(f"{empty or 'COMMAND'} is followed by nothing (an empty argument); is a variable not set?")
    options = parser.parse_args(arguments)
    try:
        status: int = importlib.import_module(f"oracle_hub.cli.{COMMANDS[options.command].module}").run(options)
        return status
    except OracleHubError as error:
        print(_one_line(f"oracle-hub {options.command}: {error}"), file=sys.stderr)
        return 1
