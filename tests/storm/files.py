"""Small good files of every kind that this package reads, each with how it is read."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyvips
import tifffile

#: Noise, smoothed a little. (libvips would start threads in a process that forks.)
_NOISE = np.random.default_rng(5).integers(0, 256, (74, 98, 3))
PIXELS = np.mean([_NOISE[y : y + 72, x : x + 96] for y in range(3) for x in range(3)], 0).astype(np.uint8)
RGB: dict[str, Any] = {"photometric": "rgb", "metadata": None}
TILES: dict[str, Any] = RGB | {"tile": (32, 32)}

#: All pixels may be so many: a header that says more is not read.
MOST_PIXELS = 1 << 22

Read = Callable[[Path, Path], Any]


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes
    ----------
    name : of the good file.
    make : writes it to a path.
    read : reads it, with a folder for whatever is written; returns something that `same` compares.
    sealed : which of its bytes a checksum of the format covers: "all", "pixels" or "none".
    """

    name: str
    make: Callable[[Path], object]
    read: Read
    sealed: str = "none"

    def covered(self, path: Path) -> np.ndarray:
        """bool for each byte: whether a checksum covers it."""
        covered = np.full(path.stat().st_size, self.sealed == "all")
        if self.sealed == "pixels":
            with tifffile.TiffFile(path) as file:
                for page in file.pages:
                    for start, count in zip(page.dataoffsets, page.databytecounts, strict=True):
                        covered[start : start + count] = True
        return covered


def read_image(path: Path, folder: Path) -> np.ndarray:
    from urst_tiles.geometry import Box
    from urst_tiles.source import open_source

    source = open_source(path)
    height, width = source.shape
    if height * width > MOST_PIXELS:
        return np.array([height, width])
    source = source.prepare(None if source.random_access else folder, thumbnail=8)
    return source.read(Box(0, 0, height, width))


def tiff(**options: Any) -> Callable[[Path], None]:
    pixels = options.pop("pixels", PIXELS)
    return lambda path: tifffile.imwrite(path, pixels, **(TILES | options))


def vips(**options: Any) -> Callable[[Path], None]:
    return lambda path: pyvips.Image.new_from_array(PIXELS).write_to_file(str(path), **options)


def strips(path: Path) -> None:
    tifffile.imwrite(path, PIXELS, rowsperstrip=16, byteorder=">", **RGB)


def fax(path: Path) -> None:
    bits = pyvips.Image.new_from_array((PIXELS[..., 0] > 127).astype(np.uint8) * 255)
    bits.copy(interpretation="b-w").tiffsave(str(path), compression="ccittfax4", bitdepth=1)


def palette(path: Path) -> None:
    colours = np.random.default_rng(2).integers(0, 1 << 16, (3, 256), np.uint16)
    tifffile.imwrite(
        path, PIXELS[..., 0], photometric="palette", colormap=colours, rowsperstrip=9, metadata=None
    )


def masked(path: Path) -> None:
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        file.write(PIXELS, compression="zlib", extratags=[(42113, 2, None, "0", True)], **TILES)
        file.write(PIXELS[::2, ::2], compression="zlib", subfiletype=1, **TILES)
        file.write(PIXELS[..., 0] > 40, compression="zlib", tile=(32, 32), subfiletype=4, metadata=None)


def slide(path: Path) -> None:
    text = "Aperio Image Library v1\r\n96x72 (32x32) JPEG/RGB Q=90|AppMag = 20|MPP = 0.4990"
    with tifffile.TiffWriter(path) as file:
        file.write(PIXELS, compression="jpeg", description=text, software=False, **TILES)
        file.write(PIXELS[::4, ::4], compression="jpeg", rowsperstrip=18, **RGB)
        file.write(PIXELS[::2, ::2], compression="jpeg", subfiletype=1, **TILES)
        file.write(PIXELS[:40, :40], compression="lzw", subfiletype=9, **RGB)


def alpha(path: Path) -> None:
    pixels = np.dstack([PIXELS, np.where(PIXELS[..., :1] > 50, 255, 0).astype(np.uint8)])
    tifffile.imwrite(
        path, pixels, compression="deflate", extrasamples=["assocalpha"], predictor=True, **TILES
    )


def wide(path: Path) -> None:
    pixels = PIXELS.transpose(2, 0, 1).astype(np.uint16) * 200
    tifffile.imwrite(path, pixels, planarconfig="separate", compression="zlib", rowsperstrip=30, **RGB)


def weights(path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    tensors = {f"layer{i}.weight": torch.arange(60.0).reshape(4, 15) + i for i in range(6)}
    torch.save(tensors, path) if path.suffix == ".pth" else save_file(tensors, path)


def read_weights(path: Path, folder: Path) -> dict[str, Any]:
    from urst_tiles.weights import load

    return {name: tensor.float().numpy() for name, tensor in load(path).items()}


def network(path: Path) -> None:
    from urst_tiles import nets

    nets.neutral_net(nets.seeded("adain", [(PIXELS / np.float32(255), 1.0)], width=1 / 32)).save(path)


def read_network(path: Path, folder: Path) -> Any:
    from urst_tiles.nets.saved import load_frozen

    return [(name, tensor.numpy()) for name, tensor in load_frozen(path).saved()[0].items()]


TABLE = """output = "out/{stem}-{style}.tif"
inputs = ["*.png"]
styles = ["hokusai-wave", {name = "both", mix = [["hokusai-wave", 2], ["van-gogh-starry-night", 1]]}]

[options]
tile = 512
statistics = "exact"

[[jobs]]
inputs = "a.png"
options = {alpha = 0.7, block = 1024}
"""


def table(path: Path) -> None:
    path.write_text(TABLE)
    vips()(path.with_name("a.png"))


def read_jobs(path: Path, folder: Path) -> list[str]:
    from urst_tiles.api.table import read_table

    return [repr(job).replace(str(path.parent), "") for job in read_table(path)]


def part(path: Path) -> None:
    """The part file of a block."""
    from concurrent.futures import ThreadPoolExecutor

    from urst_tiles.pyramid.encode import Encoding
    from urst_tiles.pyramid.part import write_part

    encoding = Encoding(tile=32, channels=3, dtype="uint8", compression="deflate")
    with ThreadPoolExecutor(1) as pool, path.open("w+b") as file:
        write_part(file, [PIXELS, PIXELS[::2, ::2]], encoding, pool, ahead=2, fingerprint="f" * 64, index=3)


def read_part(path: Path, folder: Path) -> Any:
    from urst_tiles.pyramid.part import check_part, read_cells, read_footer, read_seed

    footer = read_footer(path)
    check_part(path, footer)
    cells = [read_cells(path, level, 0, level.checksums.size) for level in footer.levels]
    return [footer.fingerprint, footer.index, *cells, read_seed(path, footer)]


def moments(path: Path) -> None:
    from urst_tiles.engine.statistics import save
    from urst_tiles.moments import MemberMoments, Moments

    values = np.linspace(0, 1, 24)
    save(path, MemberMoments({0: Moments(9.0, values, values * 2)}))


def read_moments(path: Path, folder: Path) -> Any:
    """None where the file is damaged: the site is measured again."""
    from urst_tiles.engine.statistics import load_saved

    found = load_saved(path)
    return None if found is None else [(k, v.n, v.mean, v.m2) for k, v in found.parts.items()]


KINDS: dict[str, Kind] = {
    "TIFF deflate": Kind("a.tif", tiff(compression="deflate", predictor=True), read_image, "pixels"),
    "TIFF deflate planes": Kind("a.tif", wide, read_image, "pixels"),
    "TIFF deflate, alpha": Kind("a.tif", alpha, read_image, "pixels"),
    "TIFF deflate, mask": Kind("a.tif", masked, read_image, "pixels"),
    "TIFF plain": Kind("a.tif", strips, read_image),
    "TIFF palette": Kind("a.tif", palette, read_image),
    "TIFF LZW": Kind("a.tif", tiff(compression="lzw", predictor=True, bigtiff=True), read_image),
    "TIFF PackBits": Kind("a.tif", tiff(compression="packbits"), read_image),
    "TIFF JPEG": Kind("a.tif", tiff(compression="jpeg"), read_image),
    "TIFF WebP": Kind("a.tif", tiff(compression="webp"), read_image),
    "TIFF JPEG 2000": Kind("a.tif", tiff(compression="jpeg2000"), read_image),
    "TIFF JPEG XL": Kind("a.tif", tiff(compression="jpegxl"), read_image),
    "TIFF LERC": Kind("a.tif", tiff(compression="lerc"), read_image, "pixels"),
    "TIFF LZMA": Kind("a.tif", tiff(compression="lzma"), read_image, "pixels"),
    "TIFF zstd": Kind("a.tif", tiff(compression="zstd"), read_image),
    "TIFF fax G4": Kind("a.tif", fax, read_image),
    "slide (SVS)": Kind("a.svs", slide, read_image),
    "JPEG": Kind("a.jpg", vips(), read_image),
    "JPEG progressive": Kind("a.jpg", vips(interlace=True), read_image),
    "PNG": Kind("a.png", vips(), read_image, "all"),
    "PNG interlaced": Kind("a.png", vips(interlace=True), read_image, "all"),
    "WebP": Kind("a.webp", vips(lossless=True), read_image),
    "weights .pth": Kind("a.pth", weights, read_weights, "all"),
    "weights .safetensors": Kind("a.safetensors", weights, read_weights),
    "frozen network": Kind("net.safetensors", network, read_network),
    "jobs.toml": Kind("jobs.toml", table, read_jobs),
    "part of a job": Kind("00000003.tif", part, read_part, "all"),
    "moments of a job": Kind("a.npz", moments, read_moments, "all"),
}  # fmt: skip


def same(a: Any, b: Any) -> bool:
    """Whether two things that were read are equal."""
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        alike = isinstance(a, np.ndarray) and isinstance(b, np.ndarray) and a.dtype == b.dtype
        return alike and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[name], b[name]) for name in a)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def clean(folder: Path) -> Path:
    """The folder, empty."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder
