"""The command line ``urst-tiles``. Each module here adds some commands to the parser and runs them.

An error is printed as one sentence on stderr. The exit status is 2 if the command failed before it began its
work (then it leaves no files behind), 1 if it failed later (then finished work is saved), and 130 if it was
interrupted.
"""

from __future__ import annotations

import argparse
import atexit
import logging
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from urst_tiles.cli import (
    balance,
    batch,
    export,
    info,
    learn,
    measure,
    shards,
    studio,
    styles,
    stylize,
    weights,
)
from urst_tiles.cli.arguments import HELP as HELP
from urst_tiles.cli.arguments import with_negatives
from urst_tiles.cli.terminal import (
    Told,
    close_streams,
    complain,
    event,
    lost,
    open_streams,
    say,
    silence,
    write,
)
from urst_tiles.errors import UrstError
from urst_tiles.job.ending import forget_marks, keep_marks
from urst_tiles.machine import share_one_heap
from urst_tiles.options import parse_bytes as parse_bytes
from urst_tiles.weights import NO_HOME, home

#: The modules that add commands, in the order of ``--help``.
GROUPS = (stylize, studio, export, shards, batch, learn, measure, balance, info, styles, weights)


#: The exit status of a command that was interrupted, and the seconds that it then has to end.
STOPPED, EXIT_SECONDS = 130, 10.0


def program() -> None:
    """Run the command line of this process and end it, as ``urst-tiles`` does.

    What tells that a job is finished goes in the very last moment: whenever the process is killed before, the
    same command says that the job is finished.
    """
    status = 0

    def end() -> None:
        if forget_marks():
            os._exit(status)

    atexit.register(end)  # runs last, since all others are registered later
    status = _guarded(None)
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    if status == STOPPED:
        _end_soon()
    sys.exit(status)


def _end_soon() -> None:
    """Let this process end silently and soon, whatever state a signal left its libraries in.

    An interrupt may come while a library starts a thread or waits for one. What it does at exit can then fail
    with a traceback, or wait for ever.
    """

    def end(signum: int, frame: Any) -> NoReturn:
        os._exit(STOPPED)

    silence(sys.stderr)
    signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, EXIT_SECONDS)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (default: the arguments of this process); return the exit status."""
    try:
        return _guarded(argv)
    finally:
        forget_marks()


def _guarded(argv: Sequence[str] | None) -> int:
    """As `main`; the marks of finished jobs stay."""
    open_streams()
    lost.clear()
    try:
        return _main(argv)
    finally:
        close_streams()


def _main(argv: Sequence[str] | None) -> int:
    arguments = build_parser().parse_args(with_negatives(sys.argv[1:] if argv is None else argv))
    # Torch threads that spin while they wait take the cores from the threads that encode tiles. Torch reads
    # this variable when it is loaded, which is later.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if home() == NO_HOME:
        os.environ["HOME"] = str(NO_HOME)  # else dask reads and writes "~/.config" in the current folder
    share_one_heap()
    signal.signal(signal.SIGTERM, _terminate)
    logging.getLogger("urst_tiles").addHandler(logging.NullHandler())
    if arguments.run in (stylize.run_stylize, shards.run_assemble):
        keep_marks()
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
        return STOPPED
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

    _words: Sequence[str] = ()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        self._words = sys.argv[1:] if args is None else list(args)
        return super().parse_known_args(self._words, namespace)

    def error(self, message: str) -> NoReturn:
        """Say what is wrong; of a file whose name begins with a dash, that it is taken for an option."""
        for word in self._words[: self._words.index("--") if "--" in self._words else None]:
            if self._is_file(word):
                complain(f"{word} is taken for an option, as it begins with a dash; for a file give ./{word}")
                self.exit(2)
        super().error(message)

    def _is_file(self, word: str) -> bool:
        """Whether a word that begins with a dash is no option, but the name of a file."""
        known = word in ("-", "--") or word.partition("=")[0] in self._option_string_actions
        named = os.path.lexists(word) or (not word.startswith("--") and ("." in word or os.sep in word))
        return word.startswith("-") and not known and named and not _is_number(word)

    def _print_message(self, message: str, file: Any = None) -> None:
        write(file or sys.stderr, message)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


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
