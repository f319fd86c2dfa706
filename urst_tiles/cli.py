"""The command line: ``urst-tiles stylize INPUT OUTPUT --style STYLE``; flags and choices come from `Options`.

Errors are one sentence on stderr; exit status 2 before the first block (nothing is left behind), 1 after
(finished work is kept), 130 when interrupted.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from urst_tiles.errors import BadInput, UrstError
from urst_tiles.options import Options, choices

if TYPE_CHECKING:
    from urst_tiles.plan import Plan

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
    "workers": "processes on this machine",
    "scheduler": "address of a dask scheduler to run on instead",
    "memory": "refuse a plan above this, e.g. 1.5G (default: what the machine has)",
    "job_dir": "folder for work in progress (default: OUTPUT.job)",
    "overwrite": "replace the output, and start the job anew",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    arguments = build_parser().parse_args(argv)
    # Torch threads that spin while they wait starve the encoders beside them; read when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    signal.signal(signal.SIGTERM, _terminate)
    logging.getLogger("urst_tiles").addHandler(logging.NullHandler())
    try:
        return arguments.run(arguments) or 0
    except UrstError as error:
        _say(arguments, error)
        return error.exit_status
    except KeyboardInterrupt:
        print("urst-tiles: stopped; finished blocks are kept, the same command goes on", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 1
    except OSError as error:
        _say(arguments, UrstError(f"{error.filename or 'the system'} says: {error.strerror or error}"))
        return 1


def _terminate(signum: int, frame: Any) -> NoReturn:
    raise KeyboardInterrupt


def _say(arguments: argparse.Namespace, error: UrstError) -> None:
    if getattr(arguments, "json", False):
        print(json.dumps({"event": "error", "kind": type(error).__name__, "message": str(error)}), flush=True)
    print(f"urst-tiles: {error}", file=sys.stderr)


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="urst-tiles",
        description="Style transfer at any resolution: gigapixel image in, pyramidal TIFF out.",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, run, text in (
        (
            "stylize",
            run_stylize,
            "stylise INPUT into OUTPUT, a pyramidal TIFF; the same command again goes on",
        ),
        ("plan", run_plan, "say what stylize would do (blocks, memory, disk), and run nothing"),
        ("preview", run_preview, "stylise the thumbnail into a PNG, in seconds"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("input", type=Path, metavar="INPUT")
        command.add_argument("output", type=Path, metavar="OUTPUT")
        add_styles(command)
        add_options(command)
        command.set_defaults(run=run)
    info = commands.add_parser("info", help="say what a file is, as this program reads it")
    info.add_argument("file", type=Path, metavar="FILE")
    info.add_argument("--json", action="store_true", help="as JSON")
    info.set_defaults(run=run_info)
    validate = commands.add_parser("validate", help="check a pyramidal TIFF; exit status 1 if it is invalid")
    validate.add_argument("file", type=Path, metavar="FILE")
    validate.add_argument("--json", action="store_true", help="as JSON")
    validate.set_defaults(run=run_validate)
    styles = commands.add_parser("styles", help="list the named styles of --model lite")
    styles.add_argument(
        "--sheet", type=Path, metavar="PNG", help="also write a picture in each style, in order"
    )
    styles.add_argument("--input", type=Path, metavar="IMAGE", help="the picture (default: a made-up scene)")
    styles.set_defaults(run=run_styles)
    _add_weights(commands)
    return parser


def _add_weights(commands: Any) -> None:
    weights = commands.add_parser("weights", help="list, fetch or add the weights of a model")
    actions = weights.add_subparsers(metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="which models there are, and where their weights lie")
    fetch = actions.add_parser("fetch", help="download a model's weights and check their hashes")
    add = actions.add_parser("add", help="take a model's files, under their original names, from anywhere")
    for action in (fetch, add):
        action.add_argument("model", metavar="MODEL")
    add.add_argument("files", nargs="+", type=Path, metavar="FILE")
    for action, run in ((listing, run_weights_list), (fetch, run_weights_fetch), (add, run_weights_add)):
        action.add_argument("--weights", type=Path, metavar="DIR", help=HELP["weights"])
        action.set_defaults(run=run)


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
    closed = choices()
    parse: dict[str, Callable[[str], Any]] = {
        "bands": parse_bands,
        "memory": parse_bytes,
        "weights": Path,
        "job_dir": Path,
        "mask": Path,
        "alpha": float,
    }
    words = {"model", "device", "stretch", "scheduler"} | set(closed)
    for field in fields(Options):
        flag, text = "--" + field.name.replace("_", "-"), HELP[field.name]
        if isinstance(field.default, bool):
            action = argparse.BooleanOptionalAction if field.default else "store_true"
            parser.add_argument(flag, action=action, default=field.default, help=text)
            continue
        kind = parse.get(field.name, str if field.name in words else int)
        default = "" if field.default is None else f" (default {field.default})".replace("%", "%%")
        parser.add_argument(
            flag, type=kind, choices=closed.get(field.name), default=field.default, help=text + default,
            metavar=None if field.name in closed else kind.__name__.removeprefix("parse_").upper(),
        )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="progress and result as JSON lines on stdout")


def parse_bands(text: str) -> tuple[int, ...]:
    """``3,2,1`` as integers."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected numbers such as 3,2,1, got {text!r}") from None


def parse_bytes(text: str) -> int:
    """``1.5G``, ``800M`` or a number of bytes (powers of 1024)."""
    units = {"K": 10, "M": 20, "G": 30, "T": 40}
    number = text.upper().removesuffix("IB").removesuffix("B")
    shift = units.get(number[-1:], 0)
    try:
        return int(float(number[:-1] if shift else number) * (1 << shift))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a size such as 1.5G or 800M, got {text!r}") from None


def options_of(arguments: argparse.Namespace) -> Options:
    """The options that were given."""
    return Options(**{field.name: getattr(arguments, field.name) for field in fields(Options)})


def run_stylize(arguments: argparse.Namespace) -> int:
    """``urst-tiles stylize``."""
    from urst_tiles.api import stylize
    from urst_tiles.terminal import progress_for

    progress = progress_for(arguments.json)
    report = stylize(
        arguments.input, arguments.output, styles_of(arguments), options_of(arguments), progress=progress
    )
    seconds = sum(report.seconds.values())
    grid = report.plan.grid
    if arguments.json:
        result = {
            "event": "done",
            "output": str(report.output),
            "seconds": report.seconds,
            "splits": report.splits,
        }
        result["megapixels"] = grid.image.area / 1e6
        print(json.dumps(result | {"blocks": report.blocks_run, "kept": report.blocks_kept}), flush=True)
        return 0
    print(
        f"{report.output}: {grid.width} x {grid.height}, {seconds:.1f} s"
        f" ({grid.image.area / 1e6 / seconds:.2f} Mpx/s), {report.plan.precision} on {report.plan.device}"
        + (f"; {report.blocks_kept} blocks were finished before" if report.blocks_kept else "")
        + (
            f"; memory ran out {report.splits} times and was answered by smaller windows"
            if report.splits
            else ""
        )
    )
    return 0


def run_plan(arguments: argparse.Namespace) -> int:
    """``urst-tiles plan``."""
    from urst_tiles.api import plan_job
    from urst_tiles.terminal import clock

    plan, seconds = plan_job(arguments.input, arguments.output, styles_of(arguments), options_of(arguments))
    if arguments.json:
        print(
            json.dumps(
                asdict(plan)
                | {"peak_bytes": plan.peak_bytes, "disk_bytes": plan.disk_bytes, "seconds": seconds},
                default=str,
            )
        )
        return 0
    print(describe_plan(plan))
    print(f"{'time':12} about {clock(seconds)} on a machine like this (guessed from one window)")
    return 0


def describe_plan(plan: Plan) -> str:
    """The plan, one fact a line."""
    from urst_tiles.files import megabytes

    grid = plan.grid
    rows = {
        "image": f"{grid.width} x {grid.height} px, {plan.source_dtype} -> {plan.dtype} {plan.compression}",
        "blocks": f"{len(grid)} of {grid.block} px, {plan.in_flight} in flight, {plan.workers} process(es)",
        "windows": f"{plan.forwards} of {grid.window[1]} x {grid.window[0]} px"
        f" (core {grid.core}, halo {grid.halo}, stride {grid.stride}), {plan.seam}",
        "statistics": f"{plan.statistics}, {plan.passes} pass(es)",
        "network": f"{plan.precision} on {plan.device}, {plan.threads} thread(s)",
        "memory": f"at most {megabytes(plan.peak_bytes)}"
        + (f", device {megabytes(plan.device_bytes)}" if plan.device_bytes else ""),
        "disk": f"about {megabytes(plan.disk_bytes)} while it runs",
        "fingerprint": plan.fingerprint[:16],
    }
    return "\n".join(f"{name:12} {value}" for name, value in rows.items())


def run_preview(arguments: argparse.Namespace) -> int:
    """``urst-tiles preview``."""
    from tempfile import TemporaryDirectory

    from urst_tiles.api import check_output, preview
    from urst_tiles.picture import write_png
    from urst_tiles.terminal import progress_for

    output = check_output(arguments.output, arguments.input)
    if output.suffix.lower() != ".png":
        raise BadInput(
            f"a preview is a PNG file; name the output {output.with_suffix('.png').name}, not {output.name}"
        )
    with TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as folder:
        progress = progress_for(arguments.json)
        pixels = preview(
            arguments.input,
            styles_of(arguments),
            options_of(arguments),
            folder=Path(folder),
            progress=progress,
        )
    write_png(output, pixels)
    if not arguments.json:
        print(f"{output}: {pixels.shape[1]} x {pixels.shape[0]}")
    return 0


def run_info(arguments: argparse.Namespace) -> int:
    """``urst-tiles info``."""
    from urst_tiles.source import open_source

    source = open_source(arguments.file)
    info = source.info
    facts = {
        "file": str(source.path),
        "size": f"{source.shape[1]} x {source.shape[0]}",
        "file dtype": str(source.file_dtype),
        "read as": f"{source.channels} x {source.dtype}",
        "access": "random" if source.random_access else "read once into the job folder",
        "overviews": ", ".join(f"{w} x {h}" for h, w in source.overviews) or "none",
        "validity": info.validity,
        "nodata": info.nodata,
        "georeferenced": bool(info.geo),
        "microns per pixel": 1e4 / info.pixels_per_cm[1] if info.pixels_per_cm else None,
        "colour profile": f"{len(info.icc)} bytes" if info.icc else None,
        "fingerprint": source.fingerprint,
    }
    if arguments.json:
        print(json.dumps(facts))
    else:
        print("\n".join(f"{name:18} {value}" for name, value in facts.items() if value is not None))
    return 0


def run_validate(arguments: argparse.Namespace) -> int:
    """``urst-tiles validate``."""
    from urst_tiles.pyramid import validate

    report = validate(arguments.file)
    if arguments.json:
        print(
            json.dumps(
                {"file": str(arguments.file), "valid": report.valid, "problems": list(report.problems)}
            )
        )
    else:
        print(report)
    return 0 if report.valid else 1


def run_styles(arguments: argparse.Namespace) -> int:
    """``urst-tiles styles``."""
    from urst_tiles.api import check_output
    from urst_tiles.picture import write_png
    from urst_tiles.sheet import contact_sheet, named_styles

    for name, title in named_styles().items():
        print(f"{name:26} {title}")
    if arguments.sheet is None:
        return 0
    output = check_output(arguments.sheet, arguments.input or arguments.sheet.parent)
    if output.suffix.lower() != ".png":
        raise BadInput(f"a contact sheet is a PNG file; name it {output.with_suffix('.png').name}")
    sheet = contact_sheet(arguments.input)
    write_png(output, sheet)
    print(f"{output}: the picture as it is, then in the styles above, row by row")
    return 0


def run_weights_list(arguments: argparse.Namespace) -> int:
    """``urst-tiles weights list``."""
    from urst_tiles import weights

    print(f"weights folder: {weights.folder(arguments.weights)}")
    for model in weights.TABLE:
        print(weights.describe(model, arguments.weights))
    return 0


def run_weights_fetch(arguments: argparse.Namespace) -> int:
    """``urst-tiles weights fetch``."""
    from urst_tiles import weights
    from urst_tiles.terminal import progress_for

    for path in weights.fetch(arguments.model, arguments.weights, progress_for(False)):
        print(path)
    return 0


def run_weights_add(arguments: argparse.Namespace) -> int:
    """``urst-tiles weights add``."""
    from urst_tiles import weights

    for path in weights.add(
        arguments.model, {path.name: path for path in arguments.files}, arguments.weights
    ):
        print(path)
    return 0
