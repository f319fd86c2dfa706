"""Compare how a folder of images is read with GDAL (rasterio), OpenSlide and tifffile.

    python benchmarks/conformance.py FOLDER... [--list]

Every file is read whole as `open_source` reads it, and by the first of these libraries that can. Their
samples become a picture by the rules of ``docs/formats.md``: a palette is looked up, min-is-white turned
round, associated alpha divided out, what is no number is invalid, red, green and blue are taken where they
are said to be, and what is not uint8 is stretched by the same formula. Of CMYK, Lab and files that do not
say what their samples mean only the size is compared, since every library has its own conversion. Printed are
the counts of

- alike: the same pixels (files in a lossy compression: nearly);
- ours alone: no other library reads it;
- refused, as by others; refused though another reads it: with the sentence, to be judged by a person;
- other pixels, another size: to be judged, too; ``--list`` names the files and what differs.

The exit status is 1 where there are other pixels or a traceback.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from harness import Parser, existing_folder, program

from urst_tiles.errors import UrstError
from urst_tiles.geometry import Box
from urst_tiles.source import open_source

#: Larger files are left out, since they are read whole.
MOST_PIXELS = 40_000_000

#: Compressions that lose something, and whose decoders may differ by so much at most, and on average.
LOSSY = {6, 7, 33003, 33005, 34712, 34892, 50001}
MOST, MEAN = 100, 2.0


class Reference(NamedTuple):
    """A picture as another library reads it.

    ``colours`` is (h, w, 3), of the dtype of the file; ``valid`` bool, (h, w), or None; ``known`` is False
    where the colours are converted in the library's own way.
    """

    library: str
    colours: np.ndarray
    valid: np.ndarray | None
    known: bool = True


def by_gdal(path: Path) -> Reference:
    import rasterio

    with rasterio.open(path) as file:
        if file.width * file.height > MOST_PIXELS:
            raise ValueError("too large")
        raw = np.moveaxis(file.read(), 0, -1)
        names = [interpretation.name for interpretation in file.colorinterp]
        structure = file.tags(ns="IMAGE_STRUCTURE")
        bits = int(file.tags(1, ns="IMAGE_STRUCTURE").get("NBITS", 0))
        mask = file.dataset_mask() > 0
        if "alpha" in names and names[-1] != "alpha":  # dataset_mask sees alpha in the last band only
            mask &= raw[..., names.index("alpha")] > 0
        if names[0] == "palette" and tag(path, 262, 3) == 3:  # white is zero has a palette, too
            table = file.colormap(1)
            entries = np.array([table.get(i, (0, 0, 0, 255))[:3] for i in range(max(table) + 1)], np.uint8)
            return Reference("GDAL", entries[np.minimum(raw[..., 0], len(entries) - 1)], mask)
    if path.suffix.lower() in (".tif", ".tiff"):
        meaning = tag(path, 262, -1)  # of YCbCr only JPEG streams are converted to RGB
        known = meaning in range(5) or (meaning == 6 and tag(path, 259, 1) in (6, 7))
        # Grey profiles, and channels that are pages, are ours to convert; fax without a meaning has two.
        known &= not (meaning == 1 and tag(path, 34675, 0)) and not is_ome(path)
    else:
        known = True
    if raw.dtype.kind == "f":  # what is no number is no picture
        mask &= np.isfinite(raw[..., :3]).all(axis=-1)
    alpha = raw[..., names.index("alpha")] if "alpha" in names and tag(path, 338, 0) == 1 else None
    if {"red", "green", "blue"} <= set(names):
        raw = raw[..., [names.index(name) for name in ("red", "green", "blue")]]
    else:
        raw = raw[..., [i for i, name in enumerate(names) if name != "alpha"] or [0]]
    colours = meant(raw, bits, structure.get("MINISWHITE") == "YES")
    if alpha is not None and raw.dtype.kind == "u":
        top = float((1 << bits) - 1 if bits else np.iinfo(raw.dtype).max)
        alpha, top = (alpha * (255 / top), 255.0) if 0 < bits < 8 else (alpha, top)
        colours = np.rint(colours * (top / np.maximum(alpha, 1))[..., None]).clip(0, top).astype(raw.dtype)
    return Reference("GDAL", colours, mask, known)


def by_openslide(path: Path) -> Reference:
    import openslide

    with openslide.OpenSlide(str(path)) as slide:
        if np.prod(slide.dimensions) > MOST_PIXELS:
            raise ValueError("too large")
        rgba = np.asarray(slide.read_region((0, 0), 0, slide.dimensions))
    return Reference("OpenSlide", rgba[..., :3], rgba[..., 3] > 0)


def by_tifffile(path: Path) -> Reference:
    import tifffile

    with tifffile.TiffFile(path) as file:
        page: Any = file.pages.first
        raw = page.asarray()
        if np.prod(page.shape) > 4 * MOST_PIXELS or page.photometric not in (0, 1, 2, 3):
            raise ValueError("another meaning")
        raw = np.moveaxis(raw, 0, -1) if page.axes == "SYX" else raw[..., None] if raw.ndim == 2 else raw
        if page.photometric == 3:
            table = np.asarray(page.colormap).T
            shift = 8 if table.max() > 255 else 0
            return Reference("tifffile", (table >> shift)[raw[..., 0]].astype(np.uint8), None)
        return Reference("tifffile", meant(raw, page.bitspersample, page.photometric == 0), None)


def meant(raw: np.ndarray, bits: int, white_is_zero: bool) -> np.ndarray:
    """Samples, (h, w, bands), as colours, (h, w, 3), of the same dtype; bits below 8 fill the range."""
    raw = raw.astype(np.uint8) if raw.dtype == bool else raw
    raw = raw[..., :3] if raw.shape[-1] >= 3 else raw[..., [0, 0, 0]]
    if white_is_zero and raw.dtype.kind == "u":
        raw = ((1 << (bits or 8 * raw.dtype.itemsize)) - 1 - raw.astype(np.uint64)).astype(raw.dtype)
    if 0 < bits < 8:
        raw = np.rint(raw * (255 / ((1 << bits) - 1))).astype(np.uint8)
    return raw


READERS: list[Callable[[Path], Reference]] = [by_gdal, by_openslide, by_tifffile]


def reference(path: Path) -> Reference | None:
    """The picture as the first library that can reads it."""
    for reader in READERS:
        with contextlib.suppress(Exception):
            return reader(path)
    return None


def tag(path: Path, code: int, default: int) -> int:
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            value = file.pages.first.tags.valueof(code, default)
        if code == 34675:
            return len(value) if value else default
        return int(value if isinstance(value, int) else value[0])
    except Exception:
        return default


def is_ome(path: Path) -> bool:
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            return bool(file.is_ome) and len(file.pages) > 1
    except Exception:
        return False


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """A picture with the orientation of TIFF's tag 274 applied; libraries give it as it is stored."""
    pixels = np.swapaxes(pixels, 0, 1) if orientation > 4 else pixels
    turns = {2: (1, -1), 3: (-1, -1), 4: (-1, 1), 6: (1, -1), 7: (-1, -1), 8: (-1, 1)}
    down, across = turns.get(orientation, (1, 1))
    return pixels[::down, ::across]


def stretch_of(dtype: np.dtype[Any], colours: np.ndarray) -> tuple[float, float]:
    """The ends of the range of a dtype; of floats those of the picture."""
    if dtype.kind in "ui":
        limits = np.iinfo(dtype)
        return float(limits.min), float(limits.max)
    finite = np.clip(colours[np.isfinite(colours)].astype(float), -1e150, 1e150)  # so that they have a range
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    return (low, high) if high > low else (low, low + 1)


def ours(path: Path, stretch: tuple[float, float]) -> np.ndarray:
    with tempfile.TemporaryDirectory() as folder:
        source = open_source(path, stretch=f"{stretch[0]!r},{stretch[1]!r}")
        if source.shape[0] * source.shape[1] > MOST_PIXELS:
            raise ValueError("too large")
        source = source.prepare(Path(folder), thumbnail=8)
        return source.read(Box(0, 0, *source.shape))


def compare(path: Path) -> tuple[str, str]:
    """What became of a file, and a word about it."""
    other = reference(path)
    low, high = (0.0, 255.0) if other is None else stretch_of(other.colours.dtype, other.colours)
    try:
        found = ours(path, (low, high))
    except UrstError as error:
        text = str(error).replace(str(path), path.name)
        return "refused, as by others" if other is None else f"refused, {other.library} reads it", text
    except ValueError as error:
        return "left out", str(error)
    except Exception as error:
        return "traceback", repr(error)
    if other is None:
        return "ours alone", f"{found.shape} {found.dtype}"
    colours, valid = (
        None if a is None else upright(a, tag(path, 274, 1)) for a in (other.colours, other.valid)
    )
    assert colours is not None
    if found.shape[:2] != colours.shape[:2]:
        return "another size", f"{found.shape[:2]} instead of {colours.shape[:2]} ({other.library})"
    if not other.known:
        return "alike in size", other.library
    if colours.dtype != np.uint8:
        colours = np.rint(np.clip((colours.astype(float) - low) / (high - low), 0, 1) * 65535)
        found = found.astype(float) * (1 if found.dtype == np.uint16 else 257)
    return judged(path, found, colours.astype(float), valid, other.library)


def judged(
    path: Path, found: np.ndarray, colours: np.ndarray, valid: np.ndarray | None, library: str
) -> tuple[str, str]:
    """Whether two pictures of the same size are alike where both are valid."""
    ours_valid = found[..., 3] > 0 if found.shape[-1] == 4 else np.ones(found.shape[:2], bool)
    both = ours_valid if valid is None else ours_valid & valid
    difference = np.where(both[..., None], np.abs(found[..., :3].astype(float) - colours), 0)
    scale = 257 if colours.max(initial=0) > 255 else 1
    lossy = path.suffix.lower() in (".jpg", ".jpeg", ".webp", ".jp2") or tag(path, 259, 1) in LOSSY
    most, mean = (MOST * scale, MEAN * scale) if lossy else (1, 1)
    if not (difference.max(initial=0) <= most and difference.mean() <= mean):
        return "other pixels", f"by {difference.max():.0f}, {difference.mean():.2f} on average ({library})"
    if valid is not None and found.shape[-1] == 4 and not np.array_equal(ours_valid, valid):
        return "other validity", f"{(ours_valid != valid).mean():.1%} of the pixels ({library})"
    return "alike", library


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Without the warnings that libtiff and GDAL write to the terminal."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "w") as nothing, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable()
        os.dup2(nothing.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


@program
def main(words: Sequence[str]) -> int:
    raw = argparse.RawDescriptionHelpFormatter
    parser = Parser(description=__doc__, formatter_class=raw)
    parser.add_argument("folders", nargs="+", type=existing_folder)
    parser.add_argument("--list", action="store_true", help="name the files that are not alike")
    options = parser.parse_args(words)
    counts: Counter[str] = Counter()
    for folder in options.folders:
        paths = sorted(p for p in folder.rglob("*") if p.is_file())
        if not paths:
            parser.error(f"the folder {folder} holds no file")
        for path in paths:
            with silent():
                what, why = compare(path.resolve())
            counts[what] += 1
            if options.list and what != "alike":
                print(f"{what}: {path.relative_to(folder)}: {why}", flush=True)
    for what, number in counts.most_common():
        print(f"{number:6} {what}")
    return int(bool(counts["other pixels"] + counts["traceback"]))


if __name__ == "__main__":
    sys.exit(main())
