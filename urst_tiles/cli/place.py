"""What the command ``preview`` shows: the whole image in small, or with ``--at`` a place of it at full scale.

With ``--styles`` the same picture is shown in several styles side by side.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from urst_tiles.cli.arguments import styles_of
from urst_tiles.cli.terminal import one_line, progress_for
from urst_tiles.errors import BadInput
from urst_tiles.options import Options

#: The longest side of a picture of a place, in pixels.
LONGEST = 16384

#: What the picture without a style is called on a sheet.
AS_IT_IS = "as it is"


def add_place(command: argparse.ArgumentParser) -> None:
    """Add ``--at``, ``--size`` and ``--styles`` to the command ``preview``."""
    group = command.add_argument_group("what is shown")
    group.add_argument(
        "--at",
        type=_pair("a place such as 2048,4096", least=0),
        metavar="X,Y",
        help="show a place at full scale, with the very pixels that stylize writes there: X pixels from the"
        " left edge of INPUT, Y from the top, to the upper left corner of OUTPUT (default: all of INPUT in"
        " small)",
    )
    group.add_argument(
        "--size",
        type=_pair("a size such as 1024 or 1024,768", least=1, one=True),
        metavar="W,H",
        help="width and height in pixels of what --at shows, or one number for both (default: 1024)",
    )
    group.add_argument(
        "--styles",
        metavar="A,B,C",
        help="a sheet of the same picture as it is and in each of these styles, with their names; instead of"
        " --style",
    )


def _pair(wanted: str, *, least: int, one: bool = False) -> Any:
    """A parser of two whole numbers, or with ``one`` of one that stands for both."""

    def parsed(text: str) -> tuple[int, int]:
        words = text.split(",")
        words = words * 2 if one and len(words) == 1 else words
        numbers = [int(word) for word in words if word.strip().isascii() and word.strip().isdecimal()]
        if len(words) != 2 or len(numbers) != 2 or min(numbers) < least or max(map(len, words)) > 18:
            raise argparse.ArgumentTypeError(f"expected {wanted}, got {text!r}")
        return numbers[0], numbers[1]

    return parsed


def looks_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """Label -> the styles of one picture, in the form that `urst_tiles.stylize` takes.

    Raises
    ------
    BadInput : the flags do not go together.
    """
    if arguments.size and not arguments.at:
        raise BadInput("--size is that of a place at full scale; give the place with --at X,Y")
    if max(arguments.size or (1,)) > LONGEST:
        raise BadInput(
            f"--size is at most {LONGEST} px, got {max(arguments.size)}; `urst-tiles stylize` makes more"
        )
    if arguments.styles is None:
        return {"": styles_of(arguments)}
    if arguments.style or arguments.mask:
        raise BadInput("--styles names a style for each picture; leave --style and --mask out")
    names = [name.strip() for name in arguments.styles.split(",") if name.strip()]
    if not names:
        raise BadInput("--styles names no style; give some, as in --styles hokusai-wave,starry-night")
    return {name: [(name, 1.0)] for name in names}


def files_of(looks: Mapping[str, Any]) -> list[str]:
    """The styles of all pictures, which may be files."""
    found: list[str] = []
    for styles in looks.values():
        found += styles.values() if isinstance(styles, dict) else [style for style, _ in styles or []]
    return found


def pictures(
    arguments: argparse.Namespace, looks: Mapping[str, Any], options: Options, folder: Path
) -> tuple[Any, str]:
    """The picture that the arguments ask for, (h, w, 3 or 4), and what is said of it behind its size.

    It is uint8; uint16 where a place alone is written as PNG and the output of ``stylize`` would be uint16.
    """
    from urst_tiles.source.sheet import labelled_sheet

    if arguments.styles is not None or Path(arguments.output).suffix.lower() != ".png":
        options = replace(options, dtype="uint8")
    show = _places if arguments.at else _wholes
    made, said = show(arguments, looks, options, folder)
    if arguments.styles is None:
        return made[""], said
    return labelled_sheet(made), f"{said}: {', '.join(map(one_line, made))}, row by row"


def _places(
    arguments: argparse.Namespace, looks: Mapping[str, Any], options: Options, folder: Path
) -> tuple[dict[str, Any], str]:
    """A place at full scale in each look; on a sheet also as it is."""
    from urst_tiles.api.opening import tell_choice
    from urst_tiles.api.result import eight_bits
    from urst_tiles.api.view import open_view, place, prepare_input

    progress = progress_for(arguments.json)
    source = prepare_input(arguments.input, options, folder=folder, progress=progress)
    tell_choice(source)
    box = place(source.shape, arguments.at, arguments.size or (1024, 1024))
    made: dict[str, Any] = {}
    if arguments.styles is not None:
        made[AS_IT_IS] = eight_bits(source.read(box))
    for label, styles in looks.items():
        made[label] = open_view(source, styles, options, folder=folder, progress=progress).pixels(box)
    return made, f" at {box.x0},{box.y0}, at full scale"


def _wholes(
    arguments: argparse.Namespace, looks: Mapping[str, Any], options: Options, folder: Path
) -> tuple[dict[str, Any], str]:
    """The thumbnail in each look; on a sheet also as it is."""
    from urst_tiles.api.opening import open_input
    from urst_tiles.api.preview import preview
    from urst_tiles.api.result import eight_bits
    from urst_tiles.source.part import part_of

    progress = progress_for(arguments.json)
    source = open_input(arguments.input, options)
    made: dict[str, Any] = {}
    if arguments.styles is not None:
        prepared = source.prepare(folder, thumbnail=options.thumbnail, progress=progress)
        made[AS_IT_IS] = eight_bits(prepared.thumbnail)
    for label, styles in looks.items():
        made[label] = preview(arguments.input, styles, options, folder=folder, progress=progress)
    part = part_of(source, options.region, options.bbox, options.bbox_crs)
    return made, _scale(part.box.shape if part else source.shape, next(reversed(made.values())))


def _scale(shape: tuple[int, int], small: Any) -> str:
    """At which scale a preview of an image or a part of ``shape`` is, and where its strokes are seen; empty
    at full scale."""
    times = max(shape) / max(small.shape[:2])
    if times <= 1:
        return ""
    return f", {times:.3g} times smaller than INPUT, whose strokes --at X,Y shows at full scale"
