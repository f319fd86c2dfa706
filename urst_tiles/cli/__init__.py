"""The command line ``urst-tiles``. Each module here adds some commands to the parser and runs them.

An error is printed as one sentence on stderr. The exit status is 2 if the command failed before it began its
work (then it leaves no files behind), 1 if it failed later (then finished work is saved), and 130 if it was
interrupted.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from urst_tiles.cli import batch, info, shards, styles, stylize, weights
from urst_tiles.cli.arguments import HELP as HELP
from urst_tiles.cli.terminal import Told, close_streams, complain, event, lost, open_streams, say, write
from urst_tiles.errors import UrstError
from urst_tiles.machine import share_one_heap
from urst_tiles.options import parse_bytes as parse_bytes

#: The modules that add commands, in the order of ``--help``.
GROUPS = (stylize, shards, batch, info, styles, weights)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (default: the arguments of this process); return the exit status."""
    open_streams()
    lost.clear()
    try:
        return _main(argv)
    finally:
        close_streams()


def _main(argv: Sequence[str] | None) -> int:
    arguments = build_parser().parse_args(argv)
    # Torch threads that spin while they wait take the cores from the threads that encode tiles. Torch reads
    # this variable when it is loaded, which is later.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    share_one_heap()
    signal.signal(signal.SIGTERM, _terminate)
    logging.getLogger("urst_tiles").addHandler(logging.NullHandler())
    told = logging.getLogger("urst_tiles.told")
    if not told.handlers:
        told.addHandler(Told())
    try:
        return _status(arguments, arguments.run(arguments) or 0)
    except UrstError as error:
        _say(arguments, error)
        return error.exit_status
    except KeyboardInterrupt:
        complain("stopped; finished blocks are kept, the same command goes on")
        return 130
    except OSError as error:
        _say(arguments, UrstError(f"{error.filename or 'the system'} says: {error.strerror or error}"))
        return 1


def _status(arguments: argparse.Namespace, status: int) -> int:
    """The exit status of a command that ended well: 1 if it is there only to print, and could not.

    A reader that took no more (a broken pipe) had enough.
    """
    prints = arguments.run in (info.run_info, styles.run_styles, weights.run_weights_list) or (
        arguments.run is stylize.run_plan and not arguments.save
    )
    failed = [error for error in lost if not isinstance(error, BrokenPipeError)]
    if prints and failed and status == 0:
        complain(f"stdout cannot be written: {failed[0].strerror}")
        return 1
    return status


def _terminate(signum: int, frame: Any) -> NoReturn:
    raise KeyboardInterrupt


def _say(arguments: argparse.Namespace, error: UrstError) -> None:
    if getattr(arguments, "json", False):
        event("error", kind=type(error).__name__, message=str(error))
    complain(str(error))


class _Parser(argparse.ArgumentParser):
    """A parser whose messages, which repeat what was typed, cannot command the terminal."""

    def _print_message(self, message: str, file: Any = None) -> None:
        write(file or sys.stderr, message)


def build_parser() -> argparse.ArgumentParser:
    """The parser of ``urst-tiles`` with all its commands."""
    parser = _Parser(
        prog="urst-tiles",
        description="Paint an image of any size in the style of another. A gigapixel image goes in, a"
        " pyramidal TIFF comes out; memory stays bounded, and there are no seams.",
        epilog="`urst-tiles COMMAND --help` says more about a command.",
    )
    parser.add_argument(
        "--version", action="store_const", dest="run", const=_print_version, help="print the version and exit"
    )
    parser.set_defaults(run=lambda arguments: parser.print_help())
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for group in GROUPS:
        group.add(commands)
    return parser


def _print_version(arguments: argparse.Namespace) -> None:
    from importlib.metadata import version

    say(f"urst-tiles {version('urst-tiles')}")
