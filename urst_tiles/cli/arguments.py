"""Arguments that several commands share; flags and choices come from `Options`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

from urst_tiles.errors import BadInput
from urst_tiles.options import Options, choices, kinds, parse_bands, parse_bytes, parse_path

HELP = {
    "model": "network: lite, microast, adain, fast, cin, msgnet, linear-r31, linear-r41, wct, wct-16x,"
    " multimodal, identity; or package.module:function, your own, which is imported and run",
    "weights": "folder with a subfolder of weights per model (default: $URST_TILES_WEIGHTS, else your cache)",
    "alpha": "0 keeps the content, 1 takes the style in full",
    "style_size": "short side the style image is resized to, px; strokes grow with it",
    "preserve_color": "keep the image's colours: take luminance alone, or give the style its colours (coral)",
    "stroke": "how many times as large strokes become: painted from coarse to fine; 1, 2, 4, 8",
    "mask": "an image of region numbers over the same extent; then give --style NUMBER=STYLE for each",
    "feather": "width of the soft edges between regions, px",
    "statistics": "of the thumbnail (URST's TIN), the full image (exact), around each place (local), or each"
    " window (tile: has seams)",
    "local_scale": "distance of the places of local statistics, px",
    "thumbnail": "short side of the thumbnail, px",
    "overviews": "take the thumbnail from the file's own overviews where they are large enough",
    "tile": "side of a window's core, px: divides --block, multiple of the stride (default 1024 or 2048)",
    "block": "side of a task's block, px: 512 times a power of two",
    "halo": "context around a core, px; less than the network needs (the default) blends the seams",
    "seam": "how windows are joined",
    "precision": "auto: the fastest that keeps the float32 picture",
    "device": "auto, cpu, cuda, cuda:1, ...",
    "threads": "torch threads of a process (default: all cores)",
    "bands": "which bands are red, green and blue, counted from 1, e.g. 3,2,1",
    "stretch": "how other dtypes than uint8 become colours: percentiles (2%%,98%%) or values (0,4000)",
    "dtype": "of the output; auto: uint16 for uint16 input, else uint8",
    "compression": "of the output's tiles",
    "quality": "of jpeg and webp, 1 to 100",
    "workers": "processes on this machine, on --device cuda each on a card of its own; or jobs of --cluster",
    "scheduler": "address of a dask scheduler to run on instead",
    "cluster": "slurm, pbs or lsf: workers are jobs of this queue, set up in dask's configuration",
    "memory": "refuse a plan above this, e.g. 1.5G (default: what the machine has)",
    "job_dir": "folder for work in progress, also s3://bucket/folder (default: OUTPUT.job)",
    "overwrite": "replace the output, and start the job anew",
}


def add_json(parser: argparse.ArgumentParser, text: str = "as JSON") -> None:
    """``--json``."""
    parser.add_argument("--json", action="store_true", help=text)


def add_styles(parser: argparse.ArgumentParser) -> None:
    """``--style`` and ``--style-weight``, as often as there are styles."""
    parser.add_argument(
        "--style",
        action="append",
        default=[],
        metavar="STYLE",
        help="a style image, or a name of `urst-tiles styles`; for --model fast and multimodal a checkpoint,"
        " for cin a name or number; several are mixed; NUMBER=STYLE with --mask",
    )
    parser.add_argument(
        "--style-weight",
        action="append",
        default=[],
        type=float,
        metavar="WEIGHT",
        help="of each --style in the mixture, in their order (default: all alike)",
    )


def styles_of(arguments: argparse.Namespace) -> Any:
    """The styles as the Python interface takes them."""
    styles, weights = arguments.style, arguments.style_weight
    if arguments.mask:
        if weights:
            raise BadInput(
                "--style-weight mixes styles, and with --mask each region has its own; leave it out"
            )
        return _by_number(styles)
    if weights and len(weights) != len(styles):
        raise BadInput(
            f"there are {len(styles)} --style and {len(weights)} --style-weight; give one for each"
        )
    return list(zip(styles, weights or [1.0] * len(styles), strict=True)) or None


def _by_number(styles: Sequence[str]) -> dict[int, str]:
    """``1=a.jpg`` and so on."""
    found: dict[int, str] = {}
    for text in styles:
        number, equals, style = text.partition("=")
        if not (equals and number.isdigit() and style):
            raise BadInput(f"with --mask each --style is NUMBER=STYLE, as in --style 1=a.jpg; got {text!r}")
        if int(number) in found:
            raise BadInput(f"--style gives region {number} twice: {found[int(number)]} and {style}")
        found[int(number)] = style
    return found


def add_options(parser: argparse.ArgumentParser) -> None:
    """One flag per field of `Options`, and ``--json``."""
    closed, kind_of = choices(), kinds()
    special: dict[str, Callable[[str], Any]] = {
        "bands": parse_bands,
        "memory": parse_bytes,
        "job_dir": parse_path,
    }
    for field in fields(Options):
        flag, text = "--" + field.name.replace("_", "-"), HELP[field.name]
        if isinstance(field.default, bool):
            action = argparse.BooleanOptionalAction if field.default else "store_true"
            parser.add_argument(flag, action=action, default=field.default, help=text)
            continue
        parse = special.get(field.name, kind_of[field.name])
        default = "" if field.default is None else f" (default {field.default})".replace("%", "%%")
        parser.add_argument(
            flag, type=_argument(parse), choices=closed.get(field.name), default=field.default,
            help=text + default,
            metavar=None if field.name in closed else parse.__name__.removeprefix("parse_").upper(),
        )  # fmt: skip
    add_json(parser, "progress and result as JSON lines on stdout")


def _argument(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """The same, its sentence told as argparse tells them."""

    def parsed(text: str) -> Any:
        try:
            return parse(text)
        except BadInput as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    parsed.__name__ = parse.__name__
    return parsed


def options_of(arguments: argparse.Namespace) -> Options:
    """The options that were given."""
    return Options(**{field.name: getattr(arguments, field.name) for field in fields(Options)})
