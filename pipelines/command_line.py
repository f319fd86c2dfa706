"""What the command lines of all programs have in common, of this folder and of ``benchmarks/``.

Bad input ends a program as it ends ``urst-tiles``: with one sentence on stderr, which names the argument or
the file, and with exit status 2. A program marks its `main` with `program`, parses with `Parser`, and says by
the functions below (`integer`, `positive`, `new_file`, ...) what each of its arguments must be; they are
checked before any work begins.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn

from urst_tiles.errors import BadInput, UrstError
from urst_tiles.storage.names import require_file
from urst_tiles.storage.publish import publish, refuse_special
from urst_tiles.storage.stores import utf8_name

#: The largest whole number that is taken where nothing else is said; numpy and torch hold it.
MOST = 2**63 - 1
#: The suffixes of pictures that `write_picture` writes.
PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp")
STOPPED = 130  # the exit status after Ctrl-C


# The end of a program


def program(main: Callable[[Sequence[str]], int | None]) -> Callable[..., int]:
    """``main``, which takes the words of the command line (default: those of this process) and may return an
    exit status, as a function that ends as `guarded` says."""

    @wraps(main)
    def run(arguments: Sequence[str] | None = None) -> int:
        words = sys.argv[1:] if arguments is None else arguments
        return guarded(Path(main.__code__.co_filename).stem, lambda: main(words))

    return run


def guarded(
    name: str,
    work: Callable[[], int | None],
    stopped: str = "interrupted",
    too_large: str = "there is too little memory for this: give smaller numbers",
) -> int:
    """Call ``work`` and return its exit status, 0 for None.

    Bad input, errors of the system, too little memory and Ctrl-C become one line on stderr, and another
    status. Any other error is a fault of the program, and is raised.

    Parameters
    ----------
    name : the name of the program, with which the line begins.
    stopped, too_large : what is said after Ctrl-C (status 130), and where memory does not suffice (status 1).
    """
    try:
        return work() or 0
    except UrstError as error:
        said, status = str(error), error.exit_status
    except BrokenPipeError:  # whoever reads the output had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        said, status = f"{error.filename or 'the system'}: {error.strerror or error}", 2
    except subprocess.CalledProcessError as error:
        said = f"{' '.join(map(str, error.cmd))} failed with exit status {error.returncode}"
        status = max(1, error.returncode)
    except (MemoryError, RuntimeError) as error:
        from urst_tiles.engine.device import is_out_of_memory  # imports torch, which some programs never do

        if not is_out_of_memory(error):
            raise
        said, status = too_large, 1
    except KeyboardInterrupt:
        said, status = stopped, STOPPED
    print(f"{name}: {' '.join(said.split())}", file=sys.stderr)
    return status


# Arguments


class Parser(argparse.ArgumentParser):
    """Says in one sentence what is wrong, without a page of usage."""

    def error(self, message: str) -> NoReturn:
        """BadInput."""
        if found := re.fullmatch(r"argument (\S+): (must .*)", message, re.DOTALL):
            raise BadInput(f"{found[1]} {found[2]}")
        raise BadInput(f"{message}; --help lists the settings")


def integer(least: int = 1, most: int = MOST) -> Callable[[str], int]:
    """What reads a whole number from ``least`` to ``most``."""

    def read(text: str) -> int:
        try:
            found = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"must be a whole number, got {text!r}") from None
        if not least <= found <= most:
            limit = f"at least {least}" if found < least else f"at most {most}"
            raise argparse.ArgumentTypeError(f"must be {limit}, got {text}")
        return found

    return read


def positive(text: str) -> float:
    """A finite number above 0."""
    found = _float(text)
    if not 0 < found < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number above 0, got {text!r}")
    return found


def point(text: str) -> tuple[float, float]:
    """Two fractions of an image, from 0 to 1, as in "0.5,0.25": (y, x)."""
    found = [_float(part) for part in text.split(",")]
    if len(found) != 2 or not all(0 <= part <= 1 for part in found):
        raise argparse.ArgumentTypeError(f"must be Y,X, each from 0 to 1, such as 0.5,0.25; got {text!r}")
    return found[0], found[1]


def _float(text: str) -> float:
    """NaN for what is no number."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def several(text: str, read: Callable[[str], Any] = str, known: Sequence[str] = ()) -> list[Any]:
    """What commas separate, each part through ``read``, and one of ``known`` if there are any."""
    parts = [part.strip() for part in text.split(",")]
    if known and (strange := [part for part in parts if part not in known]):
        raise argparse.ArgumentTypeError(f"{strange[0]!r} is none of {', '.join(known)}")
    return [read(part) for part in parts]


def existing_file(text: str) -> Path:
    """The path of a file that exists."""
    return _checked(text, require_file)


def existing_folder(text: str) -> Path:
    """The path of a folder that exists."""
    if not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {text}")
    return Path(text)


def new_file(text: str) -> Path:
    """The path of a file that is to be written; its folder exists."""
    path = _checked(text, refuse_special)
    if not text or path.is_dir():
        raise argparse.ArgumentTypeError(f"{text or 'an empty name'} is no file; name a file to write")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {path.parent} to write into; make it first")
    if not os.access(path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"no right to write in {path.parent}: choose another place")
    return path


def new_folder(text: str) -> Path:
    """The path of a folder that is there or is to be made."""
    path = Path(text)
    above = next(one for one in (path, *path.parents) if os.path.lexists(one) or one == one.parent)
    if not text or not above.is_dir():
        raise argparse.ArgumentTypeError(f"{above if text else 'an empty name'} is no folder; name another")
    if not os.access(above, os.W_OK):
        raise argparse.ArgumentTypeError(f"no right to write in {above}: choose another place")
    return path


def new_picture(text: str) -> Path:
    """The path of a picture that is to be written."""
    path = new_file(text)
    if path.suffix.lower() not in PICTURES:
        raise argparse.ArgumentTypeError(f"the name of a picture ends in {', '.join(PICTURES)}; got {text}")
    return path


def _checked(text: str, check: Callable[[Path], object]) -> Path:
    """A path for which ``check`` raises no BadInput; argparse keeps the sentence of no other error."""
    try:
        check(Path(text))
    except BadInput as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return Path(text)


# Files


def keep_apart(output: Path, *inputs: Path | None) -> None:
    """Raise BadInput if the output would replace one of the inputs."""
    for path in inputs:
        if path and output.exists() and path.exists() and output.samefile(path):
            raise BadInput(f"the output {output} is an input too: name another output")


def read_table(path: Path, *columns: str) -> list[dict[str, str]]:
    """The rows of a CSV file, each a dict by column; BadInput if it has not these columns or no row."""
    require_file(path, "table")
    try:
        with open(path, newline="", encoding="utf-8") as opened:
            rows = list(csv.DictReader(opened, strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{path} is no CSV file in UTF-8: {error}") from None
    for name in columns:
        if not rows or not all(row.get(name) for row in rows):
            raise BadInput(
                f"{path} must have the columns {' and '.join(columns)}, and a value of each in each row"
            )
    return rows


@contextmanager
def reading(path: Path) -> Iterator[str]:
    """The name of an image for libvips, which must decode it before the ``with`` block ends.

    Raises
    ------
    MissingFile, BadInput : there is no such file, or it is no image or a damaged one.
    """
    import pyvips

    require_file(path, "image")
    try:
        with utf8_name(path) as name:
            yield str(name)
    except pyvips.Error:
        raise BadInput(f"the image {path} cannot be read: it is no image, or it is damaged") from None


def write_picture(path: Path, image: Any, **options: Any) -> None:
    """Write a pyvips image in the format of the suffix; no part of it has the name before the whole has."""
    import pyvips

    try:
        content = image.write_to_buffer(path.suffix.lower(), **options)
    except pyvips.Error as error:
        reason = str(error.detail or error).strip().splitlines()[0]
        raise BadInput(f"the picture {path} cannot be written: {reason}") from None
    publish(path, content)
