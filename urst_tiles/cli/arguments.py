"""Arguments that several commands share. The flags, their types and their defaults come from `Options`."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from urst_tiles.errors import BadInput
from urst_tiles.lengths import parse_stroke
from urst_tiles.options import (
    WORDS,
    Options,
    choices,
    kinds,
    parse_bytes,
    parse_numbers,
    parse_path,
    parse_valid,
    parse_word,
    parse_words,
)

#: The options by subject, in the order of ``--help``, each with its help.
SUBJECTS: dict[str, dict[str, str]] = {
    "network and controls": {
        "model": "the network: painter or lite (their weights come with the package), microast, adain,"
        " fast, cin, ghiasi, msgnet, linear-r31, linear-r41, wct, wct-16x, wct-3, multimodal; colour and"
        " stain, which paint nothing and give INPUT the colours of a reference, by --method; identity, which"
        " changes nothing; or PACKAGE.MODULE:FUNCTION, a function of yours that returns a network; its module"
        " is imported from the installed packages and PYTHONPATH, and run; auto is $URST_TILES_MODEL, else"
        " painter, or lite with --statistics thumbnail or --statistics-of region, which painter does not"
        " know",
        "method": "how --model colour transfers colours: monge-kantorovich (its default), mean-std, reinhard,"
        " reinhard-lab, histogram, lut (a .cube file as --style), gain-offset (a look of `urst-tiles"
        " balance`); how --model stain"
        " normalises stains: macenko (its default), reinhard, vahadane",
        "white": "the colour of the glass of a slide, for --model stain: R,G,B or one number, from 0 to 255;"
        " auto estimates it from the glass itself",
        "stains": "write the amounts of stains instead of colours, a band of uint16 (or --dtype float32) for"
        " each, for --model stain with --method macenko or vahadane: H,E (hematoxylin and eosin) or one of"
        " them; --style is not needed",
        "weights": "folder of weights, with a subfolder for each network (default: $URST_TILES_WEIGHTS,"
        " or else the user's cache folder)",
        "look": "a look (.safetensors) that `urst-tiles measure INPUT... --style STYLE` made of many images:"
        " its network, style, statistics and stretch, so that all images of a series are painted alike; it"
        " takes the place of --style and --model",
        "alpha": "strength of the style, from 0 (none) to 1 (full)",
        "style_size": "resize the style image to this many pixels on its short side",
        "stroke": "paint from coarse to fine, first on the image reduced by this factor (1, 2, 4, 8, ...), so"
        " that large shapes are painted too; --model painter learned to do that, and by default begins with"
        " the image reduced to about 512 pixels (picture), where the largest strokes are as large as in the"
        " painting; it also takes a length such as 0.5mm, 20um, 300m or 900ft, the width of the largest"
        " strokes on the ground, in the specimen or on paper, where INPUT tells the size of its pixels; with"
        " other models strokes grow less than by this factor (default: picture for painter, 1 for others)",
        "preserve_color": "what to do about the colours of the image: none lets the style set them, luminance"
        " changes the brightness alone, coral first gives the colours of the image to the style image",
        "mask": "an image that holds a region number in each pixel and covers the same area as INPUT, at any"
        " resolution, or where both are georeferenced lies anywhere on it; or polygons in GeoJSON or a"
        " GeoPackage; each region gets a style by --style NUMBER=STYLE; not with --statistics local, nor with"
        " --model fast and multimodal",
        "mask_attribute": "the attribute of the polygons of --mask that is their region number (default:"
        " their only attribute of integers)",
        "feather": "width in pixels of the soft edges between the regions of --mask",
    },
    "which part of INPUT is made, and which pixels are valid": {
        "region": "the part in pixels: its left column, its upper row, its width and its height; OUTPUT holds"
        " the same pixels as that part of the whole output (default: the whole image)",
        "bbox": "the part as a box in the coordinate reference system of INPUT",
        "bbox_crs": "the reference system of --bbox if it is another, for example EPSG:4326 (longitude"
        " first); needs rasterio",
        "aoi": "the part as a GeoJSON or GeoPackage file of polygons: what lies in none of them is invalid,"
        " and the part is the box around all",
        "each": "make a file for each feature of --aoi, all with one measurement; OUTPUT is a folder, or a"
        " name with {id} in it; NAME is the attribute that names the files (default: the id of each feature,"
        " or else its number)",
        "valid": "which pixels count and are painted: a picture whose zeros are invalid, of the same area as"
        " INPUT, at any resolution, or placed by its georeference; or polygons in GeoJSON or a GeoPackage; or"
        " tissue, which finds the tissue of a slide and leaves all else unpainted",
        "statistics_of": "what --statistics are measured on: the whole image, or the part alone",
    },
    "statistics of the image, which the network needs": {
        "statistics": "what they are measured on: a thumbnail (fast, as URST does), a sample of windows all"
        " over the image, exactly on the full image, or on the local surroundings of each place (not with"
        " --mask); auto takes a sample for --model painter and the thumbnail for others",
        "local_scale": "distance in pixels between the places of --statistics local",
        "thumbnail": "short side of the thumbnail in pixels",
        "overviews": "make the thumbnail from the overviews in the file, where they are large enough"
        " (default: --overviews)",
    },
    "reading and writing": {
        "page": "which page of INPUT is read, by its number, counted from 1, or its name; `urst-tiles info`"
        " lists them (default: the main image)",
        "channels": "which channels of INPUT, pages of their own in OME-TIFF, are red, green and blue, by"
        " their numbers or names, for example DAPI,FITC,TRITC; or one that becomes grey",
        "bands": "which bands of INPUT are red, green and blue, by their numbers, counted from 1, or names,"
        " for example 3,2,1 or B4,B3,B2; or names of files of one band each, in the folder INPUT or beside it"
        " (B04.tif,B03.tif,B02.tif), or of assets of INPUT, a STAC item; or one that becomes grey (default:"
        " those that INPUT calls red, green and blue, else the first three); with --model colour also any"
        " other number of bands, or all, which come out as bands",
        "level": "which level of INPUT is read, counted from 0, the image itself; `urst-tiles info` lists the"
        " others as overviews",
        "magnification": "the magnification of the level that is read, within 5 %, for example 10",
        "stretch": "which values become black and white where INPUT is not uint8: percentiles (2%,98%)"
        " or values (0,4000), for each band '0,900;0,800;10,700'"
        " (default: 2%,98%; --model colour and stain keep the values of uint16)",
        "dtype": "data type of OUTPUT; auto writes uint16 for uint16 input and for --stains, float32 for"
        " floats that stay as they are (--bands all), and uint8 otherwise",
        "format": "format of OUTPUT; auto goes by its suffix: .tif, .ome.tif, .ome.zarr, .dzi, .png, .jpg,"
        " .webp or .jp2; iiif makes a folder for viewers of IIIF",
        "compression": "compression of a TIFF; jpeg and webp hold 8 bits only",
        "quality": "quality of jpeg and webp, from 1 to 100 (default: 90); of .jp2 the size of the file in"
        " percent of that of its pixels, as GDAL has it (default: without loss)",
        "predictor": "whether deflate, lzw and zstd store differences of neighbouring pixels, which makes"
        " most TIFFs smaller",
        "blocksize": "side in pixels of the tiles of OUTPUT, a multiple of 16 (default: 512, or 256 for an"
        " image of at most 256 pixels)",
        "overview_resampling": "how overviews are made",
        "tiles": "where INPUT is many files: one writes one OUTPUT, same makes OUTPUT a folder with a file"
        " for each of INPUT, at its place and without a jump at any border",
        "bigtiff": "whether a TIFF is a BigTIFF, which alone can have 4 GiB and more",
        "provenance": "write into OUTPUT what made it: version, model, hashes of weights and styles, options"
        " (default: --provenance)",
        "job_dir": "folder for unfinished work, possibly on an object store, as s3://bucket/folder (default:"
        " OUTPUT.job)",
        "overwrite": "replace an existing OUTPUT, and start again instead of continuing unfinished work",
    },
    "how the image is divided": {
        "block": "side in pixels of a block, the unit in which work is saved and continued: 512 times a power"
        " of two",
        "tile": "side in pixels of the square that the network computes at once: a divisor of --block and a"
        " multiple of the network's stride (default: 1024 or more, depending on the network and the device)",
        "halo": "pixels of context that the network sees around each tile (default: the measured reach of the"
        " network, with which tiles fit together exactly); smaller values blend windows over their overlap",
        "seam": "how neighbouring windows, that is tiles with their halos, are joined: crop cuts the halos"
        " off, which is exact, blend mixes windows over their overlap, auto crops if the halo suffices",
    },
    "where and how it runs": {
        "device": "cpu, cuda, cuda:1, ...; auto takes a GPU if there is one",
        "precision": "number format of the network; auto takes the fastest that keeps the picture of float32",
        "threads": "threads that the network uses in each process (default: all cores)",
        "memory": "refuse to start if more memory would be needed, for example 1.5G (default: what the"
        " machine has)",
        "workers": "number of processes on this machine, each on a GPU of its own with --device cuda; with"
        " --cluster the number of cluster jobs",
        "cluster": "run the workers as jobs of this queue: slurm, pbs or lsf, configured as for"
        " dask-jobqueue",
        "scheduler": "run on the workers of a dask scheduler at this address, for example tls://HOST:8786",
    },
}

#: Name of an option -> its help.
HELP = {name: text for subject in SUBJECTS.values() for name, text in subject.items()}

#: How a text becomes the value of an option, where the option's type does not say it.
PARSERS: dict[str, Callable[[str], Any]] = {
    "page": parse_word, "channels": parse_words, "bands": parse_words, "memory": parse_bytes,
    "job_dir": parse_path, "stroke": parse_stroke, "region": parse_numbers, "bbox": parse_numbers,
    "valid": parse_valid,
}  # fmt: skip

#: What stands for an option's value in the help, by the name of the option or else by the type.
METAVARS = {
    "page": "PAGE", "channels": "R,G,B", "bands": "R,G,B", "stretch": "LOW,HIGH", "memory": "SIZE",
    "scheduler": "ADDRESS", "cluster": "QUEUE", "white": "R,G,B", "stains": "H,E", "region": "X,Y,W,H",
    "bbox": "MINX,MINY,MAXX,MAXY", "bbox_crs": "CRS", "aoi": "FILE", "valid": "FILE|tissue",
    "stroke": "N|LENGTH", "mask_attribute": "NAME", "each": "NAME",
}  # fmt: skip
#: What an option means whose value is left out; others need one.
WITHOUT_VALUE = {"each": "id"}
METAVARS_BY_TYPE: dict[type, str] = {int: "N", float: "X", Path: "PATH"}


def add_command(commands: Any, name: str, text: str, **settings: Any) -> argparse.ArgumentParser:
    """Add the command ``name``; ``text`` says what it does, in the list of commands and in its help."""
    return commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.", **settings)


def add_json(parser: argparse.ArgumentParser, text: str = "print the result as JSON") -> None:
    """Add ``--json``."""
    parser.add_argument("--json", action="store_true", help=text)


def add_styles(parser: argparse.ArgumentParser) -> None:
    """Add ``--style`` and ``--style-weight``, which may be repeated."""
    group = parser.add_argument_group("style")
    group.add_argument(
        "--style",
        action="append",
        default=[],
        metavar="STYLE",
        help="a style image, or a name of the list of `urst-tiles styles`, or a file (.style) of `urst-tiles"
        " learn`; repeat it to mix styles; names are for --model painter and lite, files for painter; with"
        " --mask NUMBER=STYLE, once for each region; --model fast and multimodal take a checkpoint here,"
        " --model cin the name or number of a style, --model colour and stain a reference image or a look"
        " file (.json) of `urst-tiles measure`, --model stain the word standard too",
    )
    group.add_argument(
        "--style-weight",
        action="append",
        default=[],
        type=float,
        metavar="WEIGHT",
        help="share of a --style in the mixture; give one for each, in the same order (default: equal"
        " shares)",
    )


def styles_of(arguments: argparse.Namespace) -> Any:
    """The styles of ``--style`` and ``--style-weight``, in the form that `urst_tiles.stylize` takes.

    That is a list of (style, weight) pairs, None without ``--style``, and a dict of styles by region number
    with ``--mask``.

    Raises
    ------
    BadInput : if the flags do not go together.
    """
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
    """Styles by region number, from texts such as ``1=a.jpg``."""
    regions: dict[int, str] = {}
    for text in styles:
        number, equals, style = text.partition("=")
        if not (equals and number.isdigit() and style):
            raise BadInput(f"with --mask each --style is NUMBER=STYLE, as in --style 1=a.jpg; got {text!r}")
        if int(number) in regions:
            raise BadInput(f"--style gives region {number} twice: {regions[int(number)]} and {style}")
        regions[int(number)] = style
    return regions


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each field of `Options`, and ``--json``."""
    for subject, texts in SUBJECTS.items():
        group = parser.add_argument_group(subject)
        for name in texts:
            add_option(group, name)
    add_json(parser, "print progress and the result as JSON lines on stdout")


def add_option(group: argparse._ActionsContainer, name: str) -> None:
    """Add the flag of one field of `Options` to a parser or to a group of its flags."""
    default, text = getattr(Options, name), HELP[name]
    flag = "--" + name.replace("_", "-")
    if isinstance(default, bool):
        action = argparse.BooleanOptionalAction if default else "store_true"
        group.add_argument(flag, action=action, default=default, help=text)
        return
    kind, shown = kinds()[name], "" if default is None else f" (default: {default})"
    metavar = METAVARS.get(name) or METAVARS_BY_TYPE.get(kind, name.upper())
    if name in choices():  # Options refuses other words, in one sentence
        metavar = f"{{{','.join(choices()[name])}}}"
    optional: dict[str, Any] = {"nargs": "?", "const": WITHOUT_VALUE[name]} if name in WITHOUT_VALUE else {}
    group.add_argument(
        flag, type=_parser(PARSERS.get(name, kind), kind), default=default, metavar=metavar,
        help=(text + shown).replace("%", "%%"), **optional,
    )  # fmt: skip


def _parser(parse: Callable[[str], Any], kind: type) -> Callable[[str], Any]:
    """``parse``, with errors that argparse shows as they are."""

    def parsed(text: str) -> Any:
        try:
            return parse(text)
        except BadInput as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        except ValueError:
            raise argparse.ArgumentTypeError(f"must be {WORDS[kind]}, got {text!r}") from None

    return parsed


#: Numbers of which the first is negative, as in -122.5,37,-122,38.
_NEGATIVE = re.compile(r"-\.?\d[^\s]*,[^\s]*")


def with_negatives(argv: Sequence[str]) -> list[str]:
    """The arguments with ``--flag -1,2`` as ``--flag=-1,2``: argparse takes such a value for a flag."""
    joined: list[str] = []
    for word in argv:
        if joined and joined[-1].startswith("--") and "=" not in joined[-1] and _NEGATIVE.fullmatch(word):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def options_of(arguments: argparse.Namespace) -> Options:
    """The options that the command line gave; BadInput if one of them has a value that is not allowed."""
    return Options(**{field.name: getattr(arguments, field.name) for field in fields(Options)})
