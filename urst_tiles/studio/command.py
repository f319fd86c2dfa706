"""The commands that the queue runs: ``stylize IMAGE OUTPUT`` with some flags, read back and checked.

They stand in a file that somebody else may have written, so nothing is taken from it that leads outside of
the root or names code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from urst_tiles import nets
from urst_tiles.api.output import check_output
from urst_tiles.errors import BadInput
from urst_tiles.studio.asked import inside, inside_to_write

#: The flags that a command may have besides ``--style``, ``--style-weight`` and ``--mask``.
FLAGS = ("--model", "--alpha", "--preserve-color", "--dtype", "--statistics", "--stroke", "--region")


@dataclass(frozen=True)
class Command:
    """A command of the queue.

    Attributes
    ----------
    image, output : relative to the root.
    styles : as ``--style`` has them.
    weights : their shares in a mixture; empty where there is none.
    mask : the file of ``--mask``, relative to the root; or empty.
    options : the other flags by their names.
    """

    image: str
    output: str
    styles: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    mask: str = ""
    options: dict[str, str] = field(default_factory=dict)


def parsed(root: Path, words: Sequence[str]) -> Command:
    """A command from its arguments.

    Raises
    ------
    BadInput, MissingFile : it is none of the studio, it reads or writes outside of the root, or a file that
        it reads is not there.
    """
    if not all(isinstance(word, str) for word in words) or len(words) < 3 or words[0] != "stylize":
        raise BadInput("this is no command of the studio")
    image, output, flags = words[1], words[2], words[3:]
    pairs = list(zip(flags[::2], flags[1::2], strict=False))
    wrong = [value for value in (image, output, *(value for _, value in pairs)) if value.startswith("-")]
    if wrong or len(flags) % 2:
        raise BadInput("this is no command of the studio")
    named: dict[str, list[str]] = {"--style": [], "--style-weight": [], "--mask": []}
    options: dict[str, str] = {}
    for flag, value in pairs:
        if flag in named:
            named[flag].append(value)
        elif flag in FLAGS and not (flag == "--model" and ":" in value):
            options[flag] = value
        else:
            raise BadInput(f"a command of the studio has no {flag} {value}")
    found = inside(root, image)
    check_output(inside_to_write(root, output), found)
    styles, masks = named["--style"], named["--mask"]
    for style in styles:
        one = style.partition("=")[2] if masks else style
        if one not in nets.named_styles.titles():
            inside(root, one)
    for mask in masks:
        inside(root, mask)
    return Command(image, output, tuple(styles), tuple(named["--style-weight"]), "".join(masks), options)
