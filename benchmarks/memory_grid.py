"""Peak memory against the plan over a grid of models, statistics, tiles, blocks, types, bands, codecs, masks,
strokes and workers: every peak must lie between 70 and 100 % of the plan.

``python benchmarks/memory_grid.py [--only PATTERN ...] [--again]`` runs each combination as a process of
its own, on an image that this program makes; with ``--only`` those in whose line one of these regular
expressions is found. Peaks are kept in a CSV file (``--csv`` names another than that beside the program), and
what it holds is not run again, unless ``--again`` is given: plans are always made anew, so that a formula can
be judged without a run. Exit status 1 where a peak lies outside of its bounds.

The peak of a run with several processes is the largest sum of their resident memory that was seen.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from harness import SHARED, WORK, Parser, measured, new_file, program, read_table, style_image, table
from opener_files import FILES, made

from urst_tiles.errors import BadInput
from urst_tiles.storage.publish import publish

HERE = Path(__file__).parent
FOLDER = WORK / "grid"

#: The bounds of peak / plan.
LEAST, MOST = 0.7, 1.0

#: Runs ``urst-tiles`` as the command does, with the package that this program uses.
COMMAND = [sys.executable, "-m", "urst_tiles", "stylize"]


def pixels(height: int, width: int, bands: int, dtype: str = "uint8") -> np.ndarray:
    """A picture that is smooth and noisy at once, (height, width, bands); with four bands the last is 0 in a
    corner of each square of 700 px, and full elsewhere."""
    random = np.random.default_rng(7)
    noise = random.integers(0, 40, (512, 512, bands), np.uint8)
    noise = np.tile(noise, (-(-height // 512), -(-width // 512), 1))[:height, :width]
    y, x = np.arange(height)[:, None], np.arange(width)[None]
    wave = (108 + 90 * np.sin(x / 61) * np.cos(y / 47)).astype(np.uint8)
    out = noise + wave[..., None]
    if bands == 4:
        out[..., 3] = np.where((y % 700 < 500) | (x % 700 < 500), 255, 0)
    return out if dtype == "uint8" else out.astype(dtype) * np.array(257, dtype)


def tiff(name: str, array: np.ndarray, **settings: Any) -> Path:
    """The TIFF of this name; it is made when it is first asked for."""
    import tifffile

    path = FOLDER / f"{name}.tif"
    usual = {"tile": (256, 256), "compression": "deflate", "photometric": "rgb", "metadata": None}
    if not path.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(f".{os.getpid()}.partial")
        tifffile.imwrite(beside, array, **(usual | settings))
        beside.rename(path)
    return path


def with_mask(name: str) -> Path:
    """An RGB TIFF with a page that says which pixels are valid."""
    import tifffile

    path = FOLDER / f"{name}.tif"
    if not path.exists():
        array = pixels(HEIGHT, SIDE, 4)
        with tifffile.TiffWriter(path) as out:
            common = {"tile": (256, 256), "compression": "deflate", "metadata": None}
            out.write(array[..., :3], photometric="rgb", **common)
            out.write(array[..., 3] > 0, photometric="mask", subfiletype=4, **common)
    return path


def regions() -> Path:
    """A mask of two regions, at a tenth of the resolution."""
    array = np.ones((HEIGHT // 10, SIDE // 10), np.uint8)
    array[:, SIDE // 20 :] = 2
    return tiff("regions", array, photometric="minisblack", tile=None)


def photograph() -> Path:
    """A JPEG file, which has no random access."""
    import imagecodecs

    path = FOLDER / "photograph.jpg"
    if not path.exists():
        path.write_bytes(imagecodecs.jpeg8_encode(pixels(HEIGHT, SIDE, 3), level=90))
    return path


#: Sides of most images: two blocks of 2048 px, which are in flight together.
HEIGHT, SIDE = 2048, 4096

ALPHA = {"extrasamples": ["unassalpha"]}
KEYS = (1, 1, 0, 2, 1024, 0, 1, 1, 1025, 0, 1, 1)
GEO = [
    (33550, 12, 3, (10.0, 10.0, 0.0), True),
    (33922, 12, 6, (0.0, 0.0, 0.0, 500000.0, 5200000.0, 0.0), True),
    (34735, 3, len(KEYS), KEYS, True),
]


def large_tags() -> Path:
    """A GeoTIFF whose GeoDoubleParams take 16 MB."""
    many = (34736, 12, 1 << 21, np.arange(1 << 21, dtype=np.float64).tobytes(), True)
    return tiff("large-tags", pixels(HEIGHT, SIDE, 3), extratags=[*GEO, many])


def large_metadata() -> Path:
    """A GeoTIFF with 6 MB of GDAL's XML and a colour profile of 8 MB."""
    text = "x" * 6000
    items = "".join(f'<Item name="note{i}">{text}</Item>' for i in range(1000))
    xml = f"<GDALMetadata>{items}</GDALMetadata>"
    profile = bytes(16) + b"RGB " + bytes(16) + b"acsp" + bytes(8 << 20)
    tags = [*GEO, (42112, 2, len(xml) + 1, xml, True), (34675, 7, len(profile), profile, True)]
    return tiff("large-metadata", pixels(HEIGHT, SIDE, 3), extratags=tags)


#: The images, by name.
SOURCES: dict[str, Callable[[], Path]] = {
    "RGB": lambda: tiff("rgb", pixels(HEIGHT, SIDE, 3)),
    "RGBA": lambda: tiff("rgba", pixels(HEIGHT, SIDE, 4), **ALPHA),
    "RGB 16 bit": lambda: tiff("rgb16", pixels(HEIGHT, SIDE, 3, "uint16")),
    "RGBA 16 bit": lambda: tiff("rgba16", pixels(HEIGHT, SIDE, 4, "uint16"), **ALPHA),
    "RGB float": lambda: tiff("rgbfloat", pixels(HEIGHT, SIDE, 3, "float32")),
    "6 bands 16 bit": lambda: tiff(
        "bands", pixels(HEIGHT, SIDE, 6, "uint16"), photometric="minisblack", planarconfig="contig"
    ),
    "grey": lambda: tiff("grey", pixels(HEIGHT, SIDE, 1)[..., 0], photometric="minisblack"),
    "nodata": lambda: tiff("nodata", pixels(HEIGHT, SIDE, 3), extratags=[(42113, 2, 4, "148", True)]),
    "mask page": lambda: with_mask("masked"),
    "strips": lambda: tiff("strips", pixels(HEIGHT, SIDE, 3), tile=None, rowsperstrip=64),
    "wide strips": lambda: tiff("wide", pixels(1024, 32768, 3), tile=None, rowsperstrip=16),
    "JPEG file": photograph,
    "tiles of 2048": lambda: tiff("large-tiles", pixels(HEIGHT, SIDE, 3), tile=(2048, 2048)),
    "GeoDoubleParams 16 MB": large_tags,
    "XML 6 MB, ICC 8 MB": large_metadata,
    "RGB 8192 x 4096": lambda: tiff("rgb-large", pixels(4096, 8192, 3)),
    "RGB 2048 x 2048": lambda: tiff("rgb-2048", pixels(2048, 2048, 3)),
    "RGBA 2048 x 2048": lambda: tiff("rgba-2048", pixels(2048, 2048, 4), **ALPHA),
    "RGB 1024 x 1024": lambda: tiff("rgb-1024", pixels(1024, 1024, 3)),
    "RGBA 1024 x 16384": lambda: tiff("rgba-wide", pixels(1024, 16384, 4), **ALPHA),
    "RGB 1024 x 16384": lambda: tiff("rgb-wide", pixels(1024, 16384, 3)),
    "RGB 700 x 500": lambda: tiff("rgb-700", pixels(500, 700, 3)),
    "RGB 64 x 64": lambda: tiff("rgb-64", pixels(64, 64, 3)),
}  # fmt: skip


#: Images that are no TIFF, each of which its opener reads in its own way, by the same names.
OPENERS: dict[str, Callable[[], Path]] = {
    f"opener {name}": lambda name=name: made(name, FOLDER, lambda: pixels(4096, 4096, 3))  # type: ignore[misc]
    for name in FILES
}
SOURCES |= OPENERS


def weights(model: str) -> Path:
    """The folder of weights; that of adain is made, since the hashes of its files are not in our table."""
    shared = SHARED / "weights"
    if model != "adain":
        return shared
    if not (FOLDER / "weights").exists():
        files = [str(shared / model / name) for name in ("vgg_normalised.pth", "decoder.pth")]
        add = [*COMMAND[:-1], "weights", "add", model, *files, "--weights", str(FOLDER / "weights")]
        subprocess.run(add, check=True, stdout=subprocess.DEVNULL)
    return FOLDER / "weights"


@dataclass(frozen=True)
class Combination:
    """A job.

    Attributes
    ----------
    model : the network.
    source : the image, a name of `SOURCES`.
    flags : the options that differ from ``--tile 512 --block 2048``, as typed.
    """

    model: str
    source: str
    flags: str = ""

    @property
    def name(self) -> str:
        """The words by which ``--only`` finds it."""
        return f"{self.model} {self.source} {self.flags}".strip()

    def arguments(self, output: Path) -> list[str]:
        """The arguments of ``urst-tiles stylize``."""
        flags = self.flags.replace("REGIONS", str(regions()) if "REGIONS" in self.flags else "").split()
        for name, value in (("--tile", "512"), ("--block", "2048")):
            flags += [] if name in flags else [name, value]
        arguments = [str(SOURCES[self.source]()), str(output), "--model", self.model, "--overwrite"]
        return [*arguments, "--weights", str(weights(self.model)), *self._style(), *flags]

    def _style(self) -> list[str]:
        if self.model == "fast":
            return ["--style", str(SHARED / "weights/fast/mosaic.pth")]
        if "--mask" in self.flags:
            return ["--style", f"1={style_image()}", "--style", "2=van-gogh-starry-night"]
        return ["--style", str(style_image())]


#: A small thumbnail, so that blocks and windows take most of the memory, and not its measuring.
SMALL = "--thumbnail 256"

EXACT, LOCAL = "--block 1024 --statistics exact", "--block 1024 --statistics local --local-scale 1024"


def grid() -> list[Combination]:
    """All combinations, those without their weights left out."""
    lite = {
        "RGB": (
            "", "--tile 256", "--tile 1024", "--tile 2048", "--compression jpeg", "--compression lzw",
            "--compression webp", "--thumbnail 2048", SMALL, f"{SMALL} --tile 1024", f"{SMALL} --tile 2048",
            f"{SMALL} --block 1024", f"{SMALL} --threads 1", f"{SMALL} --precision float32",
            f"{SMALL} --compression webp", f"{SMALL} --dtype uint16", f"{SMALL} --preserve-color luminance",
            f"{SMALL} --preserve-color coral", f"{SMALL} --stroke 4", f"{SMALL} --seam blend --halo 16",
            f"{SMALL} --mask REGIONS", f"{SMALL} --workers 2",
        ),
        "RGBA": (
            "", f"{SMALL} --compression jpeg", f"{SMALL} --seam blend --halo 16", f"{SMALL} --workers 2",
        ),
        "RGB 16 bit": (SMALL, f"{SMALL} --dtype uint8"),
        "RGBA 16 bit": (SMALL, "--compression lzw"),
        "RGB float": ("",),
        "6 bands 16 bit": ("--bands 5,3,2",),
        "RGB 8192 x 4096": (f"{SMALL} --tile 1024 --block 4096",),
        **dict.fromkeys((
            "grey", "nodata", "mask page", "strips", "wide strips", "JPEG file", "tiles of 2048",
            "XML 6 MB, ICC 8 MB", "RGB 1024 x 16384", "RGBA 1024 x 16384",
            "RGB 700 x 500", "RGB 64 x 64",
        ), ("",)),
        "GeoDoubleParams 16 MB": (SMALL, f"{SMALL} --workers 2"),
        "RGB 2048 x 2048": (EXACT, LOCAL, f"{EXACT} --preserve-color coral", f"{EXACT} --workers 2"),
        "RGBA 2048 x 2048": (EXACT, LOCAL, f"{EXACT} --preserve-color coral"),
    }  # fmt: skip
    others = {
        "identity": {
            "RGB": ("", "--workers 2"), "RGBA": ("",), "RGB 16 bit": ("",),
            "RGB 8192 x 4096": ("--tile 1024 --block 4096",), "RGB 64 x 64": ("",),
            **dict.fromkeys(OPENERS, ("",)),
        },
        "microast": {
            "RGB": ("--tile 1024",), "RGB 2048 x 2048": ("", EXACT),
            "RGBA 2048 x 2048": (EXACT, LOCAL),
        },
        "painter": {
            "RGB": ("", "--tile 1024"), "RGB 16 bit": ("",), "RGBA": ("",),
            "RGB 2048 x 2048": ("--stroke 1", EXACT, LOCAL, "--workers 2"),
        },
        "fast": {"RGB 2048 x 2048": ("", "--tile 1024")},
        "wct-16x": {"RGB 2048 x 2048": ("--block 1024",), "RGB 1024 x 1024": (EXACT,)},
        "adain": {"RGB 1024 x 1024": ("--block 1024", EXACT)},
    }  # fmt: skip
    found = [
        Combination(model, source.strip(), flags)
        for model, sources in ({"lite": lite} | others).items()
        for source, several in sources.items()
        for flags in several
    ]
    return [one for one in found if one.model in ("lite", "identity", "painter") or SHARED.exists()]


def planned(one: Combination) -> int:
    """The bytes that the plan of a combination promises."""
    from urst_tiles.api.stylize import open_job
    from urst_tiles.cli import build_parser
    from urst_tiles.cli.arguments import options_of, styles_of

    output = FOLDER / "plan.tif"
    arguments = build_parser().parse_args(["stylize", *one.arguments(output)])
    *_, plan = open_job(arguments.input, output, styles_of(arguments), options_of(arguments))
    return plan.peak_bytes


def taken(one: Combination) -> tuple[int, float]:
    """The peak of a combination in bytes, and its seconds; an error ends the benchmark."""
    output = FOLDER / f"out-{os.getpid()}.tif"
    run = measured([*COMMAND, *one.arguments(output)], interval=0.01)
    output.unlink(missing_ok=True)
    if run.status:
        raise SystemExit(f"{one.name}: {run.output}")
    return run.peak_bytes, run.seconds


Peaks = dict[str, tuple[int, float]]


def known(path: Path) -> Peaks:
    """The peaks and seconds that a CSV file holds, by the name of the combination."""
    if not path.exists():
        return {}
    rows = read_table(path, "combination", "bytes", "seconds")
    try:
        return {row["combination"]: (int(row["bytes"]), float(row["seconds"])) for row in rows}
    except ValueError as error:
        raise BadInput(f"{path} is no table of peaks: {error}") from None


def save(path: Path, peaks: Mapping[str, tuple[int, float]]) -> None:
    """Write the CSV file that `known` reads."""
    file = io.StringIO(newline="")
    out = csv.writer(file)
    out.writerow(["combination", "bytes", "seconds"])
    out.writerows((name, peak, f"{seconds:.1f}") for name, (peak, seconds) in peaks.items())
    publish(path, file.getvalue().encode())


def rows_of(chosen: Sequence[Combination], peaks: Peaks, path: Path, again: bool) -> list[list[object]]:
    """A row for each combination; those without a peak, or all with ``again``, are run."""
    rows: list[list[object]] = []
    for one in chosen:
        plan = planned(one)
        if again or one.name not in peaks:
            peaks[one.name] = taken(one)
            save(path, peaks)
        peak, seconds = peaks[one.name]
        ratio = peak / plan
        said = "" if LEAST <= ratio <= MOST else "**too much**" if ratio > MOST else "**too little**"
        rows.append([
            one.model, one.source, one.flags, plan >> 20, peak >> 20, f"{ratio:.0%}", seconds, said,
        ])  # fmt: skip
        print(
            f"{one.name}: {peak >> 20} of {plan >> 20} MiB, {ratio:.0%} {said}", file=sys.stderr, flush=True
        )
    return rows


def pattern(text: str) -> re.Pattern[str]:
    """A regular expression."""
    try:
        return re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"must be a regular expression, got {text!r}: {error}") from None


@program
def main(words: Sequence[str]) -> int:
    """Print the table; 1 where a peak lies outside of its bounds."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only",
        type=pattern,
        nargs="+",
        metavar="PATTERN",
        help="combinations in whose line one of these patterns is found",
    )
    parser.add_argument("--again", action="store_true", help="run also what the CSV file holds")
    parser.add_argument("--known", action="store_true", help="run nothing that the CSV file does not hold")
    parser.add_argument(
        "--csv", type=new_file, default=HERE / "memory_grid.csv", help="(default %(default)s)"
    )
    parser.add_argument("--list", action="store_true", help="print the names, and run nothing")
    arguments = parser.parse_args(words)
    patterns = arguments.only or [re.compile(".")]
    chosen = [one for one in grid() if any(pattern.search(one.name) for pattern in patterns)]
    if arguments.list:
        print("\n".join(one.name for one in chosen))
        return 0
    peaks = known(arguments.csv)
    if arguments.known:
        chosen = [one for one in chosen if one.name in peaks]
    rows = rows_of(chosen, peaks, arguments.csv, arguments.again)
    header = (
        "model", "image", "--tile 512 --block 2048, and", "planned MiB", "peak MiB", "of the plan",
        "seconds", "bounds 70 to 100 %",
    )  # fmt: skip
    table("Peak memory against the plan", header, rows)
    outside = sum(bool(row[-1]) for row in rows)
    print(f"\n{len(rows)} combinations, {outside} outside of the bounds")
    return int(outside > 0)


if __name__ == "__main__":
    sys.exit(main())
