"""A JPEG 2000 file (JP2) from the parts of a job, written by GDAL's driver JP2OpenJPEG.

GDAL sees the parts as one image, by a virtual dataset (VRT) that names them, and encodes it tile by tile: so
memory does not grow with the image, and no copy of the pixels is made. It is lossless unless the quality is
below 100.

References: ISO/IEC 15444-1, annexes A and I; GDAL's pages on JP2OpenJPEG and on VRT; GeoJP2 1.0.3.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from urst_tiles.errors import BadInput, DamagedFile
from urst_tiles.geometry import Grid, ceil_div
from urst_tiles.machine import cpu_count
from urst_tiles.progress import Progress
from urst_tiles.pyramid.beside import place_lines, texts_lines
from urst_tiles.pyramid.encode import Encoding
from urst_tiles.pyramid.part import check_part
from urst_tiles.pyramid.parts import Parts
from urst_tiles.pyramid.picture import Made
from urst_tiles.pyramid.pixels import StoredLevel
from urst_tiles.source.gdal import (
    CACHE_BYTES,
    INSTALL,
    LIBRARY_BYTES,
    copier,
    environment,
    library,
    plain,
    quiet,
)
from urst_tiles.tiff.metadata import PROVENANCE, Info

#: GDAL's driver.
DRIVER = "JP2OpenJPEG"

#: Side of a tile in pixels, and how many tiles a file can have (their numbers have 16 bits).
TILE, MOST_TILES = 1024, 65535

#: Bytes of memory for each sample of a tile while it is encoded (7 to 10 measured).
SAMPLE_BYTES = 12

#: The quality of a file without loss.
LOSSLESS = 100

#: How many tiles of a file without loss are read again and compared.
COMPARED = 16

_TYPES = {"uint8": "Byte", "uint16": "UInt16"}
_COLOURS = ("Red", "Green", "Blue", "Alpha")


def require_driver() -> None:
    """Raise BadInput where there is no GDAL that writes JPEG 2000."""
    rasterio = library()
    if rasterio is None:
        raise BadInput(f"JPEG 2000 is written by GDAL, which is not installed: {INSTALL}; or write .tif")
    with environment(remote=False):
        has_driver = DRIVER in rasterio.Env().drivers()
    if not has_driver:
        raise BadInput(
            f"JPEG 2000 is written by GDAL's driver {DRIVER}, which this GDAL lacks; {INSTALL} brings one"
            " that has it; or write .tif"
        )


def jp2_tile(height: int, width: int) -> int:
    """The side of a tile of a file of this size: as small as the number of tiles allows."""
    side = TILE
    while ceil_div(height, side) * ceil_div(width, side) > MOST_TILES:
        side *= 2
    return side


def jp2_bytes(grid: Grid, encoding: Encoding) -> int:
    """Peak memory of writing a file, in bytes: GDAL, its cache, and the tile that is encoded."""
    side = jp2_tile(grid.height, grid.width)
    pixels = min(side, grid.height) * min(side, grid.width)
    return LIBRARY_BYTES + CACHE_BYTES + pixels * encoding.channels * SAMPLE_BYTES


def write_jp2(path: Path, levels: Sequence[StoredLevel], info: Info, made: Made, progress: Progress) -> None:
    """Write the file ``path``, in a folder that holds nothing else, from the level of full resolution.

    Raises
    ------
    DamagedFile : a part is damaged, or GDAL cannot encode the picture.
    """
    level = levels[0]
    parts, total = level.stage, len(level.stage.grid)
    for index in range(total):  # GDAL would take what it cannot read for zeros
        check_part(parts.path(index), parts.footer(index))
        progress("checking", index + 1, total)
    progress("writing", 0, 1)
    folders = [os.open(one, os.O_RDONLY | os.O_DIRECTORY) for one in (parts.folder, path.parent)]
    try:
        # Names that GDAL and XML can hold, whatever the bytes of the folders' own.
        there, here = (Path(f"/proc/self/fd/{folder}") for folder in folders)
        virtual, target = path.with_name("parts.vrt"), path.with_name("out.jp2")
        virtual.write_text(_virtual(level, there, info, made), "utf-8")
        _encode(here / virtual.name, here / target.name, level, made.quality)
        if made.quality == LOSSLESS:
            _compare(here / target.name, level)
        virtual.unlink()
        os.rename(target, path)
    finally:
        for folder in folders:
            os.close(folder)
    progress("writing", 1, 1)


def _encode(source: Path, target: Path, level: StoredLevel, quality: int) -> None:
    """Let GDAL encode, on a thread of its own, since it does not look at signals before it is done."""
    side, failed = jp2_tile(level.height, level.width), list[Exception]()
    options = {
        "QUALITY": str(quality), "REVERSIBLE": "YES" if quality == LOSSLESS else "NO",
        "BLOCKXSIZE": str(side), "BLOCKYSIZE": str(side), "WRITE_METADATA": "YES",
    }  # fmt: skip
    rasterio, copy = library(), copier()

    def run() -> None:
        settings = {"GDAL_NUM_THREADS": str(cpu_count()), "GDAL_PAM_ENABLED": "NO"}
        try:
            with environment(remote=False), rasterio.Env(**settings), quiet():
                copy(str(source), str(target), driver=DRIVER, **options)
        except Exception as error:  # rasterio passes on errors of GDAL in several types
            failed.append(error)

    thread = threading.Thread(target=run, name="jp2", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(0.1)
    if failed:
        said = plain(failed[0].__cause__ or failed[0])
        raise DamagedFile(f"the picture cannot be written as JPEG 2000; GDAL says: {said}")


def _compare(made: Path, level: StoredLevel) -> None:
    """Raise DamagedFile unless some tiles all over a file without loss have the pixels of the level."""
    rasterio = library()
    count = level.rows * level.columns
    with environment(remote=False), quiet(), rasterio.open(made, driver=DRIVER) as file:
        for number in {count * n // COMPARED for n in range(COMPARED)}:
            row, column = divmod(number, level.columns)
            pixels = level.tile(row, column)
            y, x = row * level.tile_side, column * level.tile_side
            window = (y, y + pixels.shape[0]), (x, x + pixels.shape[1])
            if not np.array_equal(np.moveaxis(file.read(window=window), 0, -1), pixels):
                raise DamagedFile("the picture would not be what its blocks are; write another format")


def _virtual(level: StoredLevel, folder: Path, info: Info, made: Made) -> str:
    """The text of a virtual dataset of the parts, which lie in ``folder``."""
    texts = {"TIFFTAG_SOFTWARE": made.software, PROVENANCE: made.provenance}
    lines = [*place_lines(info), *texts_lines(info, {name: text for name, text in texts.items() if text})]
    for band in range(1, level.channels + 1):
        lines.append(f'<VRTRasterBand dataType="{_TYPES[level.dtype]}" band="{band}">')
        lines.append(f"<ColorInterp>{_COLOURS[band - 1]}</ColorInterp>")
        lines += _sources(level.stage, folder, band)
        lines.append("</VRTRasterBand>")
    head = f'<VRTDataset rasterXSize="{level.width}" rasterYSize="{level.height}">'
    return "\n".join([head, *lines, "</VRTDataset>"])


def _sources(parts: Parts, folder: Path, band: int) -> Iterator[str]:
    """A band of each part, at its place in the picture."""
    grid, kind = parts.grid, _TYPES[parts.encoding.dtype]
    for index in range(len(grid)):
        box = grid.block_box(index)
        (h, w), name = box.shape, folder / parts.path(index).name
        yield (
            f'<SimpleSource><SourceFilename relativeToVRT="0">{name}</SourceFilename>'
            f"<SourceBand>{band}</SourceBand>"
            f'<SourceProperties RasterXSize="{w}" RasterYSize="{h}" DataType="{kind}"'
            f' BlockXSize="{grid.tile}" BlockYSize="{grid.tile}"/>'
            f'<SrcRect xOff="0" yOff="0" xSize="{w}" ySize="{h}"/>'
            f'<DstRect xOff="{box.x0}" yOff="{box.y0}" xSize="{w}" ySize="{h}"/></SimpleSource>'
        )
