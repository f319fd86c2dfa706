"""Small pictures that fit into memory: reading style images and writing previews."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from urst_tiles.errors import BadInput, DamagedFile
from urst_tiles.source.colour import in_rgb, libvips
from urst_tiles.source.headers import check_file
from urst_tiles.source.open import open_source
from urst_tiles.source.source import Source
from urst_tiles.source.valid import full
from urst_tiles.storage.publish import publish, remove_dead_attempts
from urst_tiles.storage.stores import utf8_name
from urst_tiles.tiff.bytes import FileBytes
from urst_tiles.tiff.directory import check_chain
from urst_tiles.tiff.header import is_tiff

#: A style image with more pixels than this is refused, since it is decoded as a whole.
MAX_PIXELS = 1 << 30


def read_picture(path: Path, short_side: int) -> NDArray[np.float32]:
    """Read a picture and resize it so that its shorter side has ``short_side`` pixels.

    Parameters
    ----------
    path : an image file in any format that libvips opens, or `open_source`. It is turned upright, and
        transparent parts are laid over white.
    short_side : the length of the shorter side in pixels.

    Returns
    -------
    float32, (h, w, 3), sRGB in 0..1.

    Raises
    ------
    MissingFile : the file does not exist.
    BadInput : the file cannot be read as an image, or has more than ``MAX_PIXELS`` pixels.
    """
    path = Path(path)
    _check_file(path)
    try:
        with utf8_name(path) as name:
            return _resized(path, str(name), short_side)
    except libvips().Error:
        with _in_one_sentence(path):
            source = open_source(path)
        _check_pixels(path, *source.shape)
        with _in_one_sentence(path):
            return picture_of(source, short_side)


def own_side(path: Path) -> int:
    """The shorter side of a picture in its file, in pixels; raises what `read_picture` raises."""
    _check_file(path)
    try:
        with utf8_name(path) as name:
            header = libvips().Image.new_from_file(str(name))
            return int(min(header.width, header.height))
    except libvips().Error:
        with _in_one_sentence(path):
            return min(open_source(path).shape)


def _check_file(path: Path) -> None:
    """Raise MissingFile or BadInput for a file that no library is to see."""
    if is_tiff(check_file(path, "image file")):
        check_chain(FileBytes(path))


@contextmanager
def _in_one_sentence(path: Path) -> Iterator[None]:
    """Say of a file that neither libvips nor another library can read that it is no image."""
    try:
        yield
    except (BadInput, DamagedFile):
        raise BadInput(f"the style image {path} cannot be read: it is no image, or it is damaged") from None


def picture_of(source: Source, short_side: int) -> NDArray[np.float32]:
    """A source as a small picture: what `read_picture` returns, of any image that was opened as for a job.

    One band is grey, and of more than three the first three are red, green and blue. Values are stretched as
    in a job; parts that are not valid are laid over white.
    """
    with tempfile.TemporaryDirectory(prefix="urst-tiles-") as folder:
        pixels = source.prepare(Path(folder), thumbnail=short_side).thumbnail
    image = pixels / np.float32(full(pixels.dtype))
    colour = image[..., [0, 1, 2] if source.colours >= 3 else [0, 0, 0]]
    if source.has_valid:
        colour = 1 + (colour - 1) * image[..., -1:]
    made = libvips().Image.new_from_array(np.ascontiguousarray(colour))
    height, width = _scaled(made, short_side)
    made = made.resize(width / made.width, vscale=height / made.height)
    return np.clip(np.asarray(made.numpy(), np.float32), 0, 1)


def _check_pixels(path: Path, height: int, width: int) -> None:
    """BadInput for a picture that is too large to be a style image."""
    if width * height > MAX_PIXELS:
        raise BadInput(f"the style image {path} has {width} x {height} pixels; make it smaller first")


def picture_shape(path: Path, short_side: int) -> tuple[int, int]:
    """(height, width) of what `read_picture` returns; a square where the header cannot be read."""
    pyvips = libvips()
    try:
        with utf8_name(path) as name:
            header = pyvips.Image.new_from_file(str(name)).autorot()
    except pyvips.Error:
        return short_side, short_side
    return _scaled(header, short_side)


def _scaled(header: Any, short_side: int) -> tuple[int, int]:
    """(height, width) of a pyvips image whose shorter side becomes ``short_side``."""
    scale = short_side / min(header.width, header.height)
    return max(1, round(header.height * scale)), max(1, round(header.width * scale))


def _resized(path: Path, name: str, short_side: int) -> NDArray[np.float32]:
    """What `read_picture` returns; ``name`` is the file as libvips is to open it. Raises pyvips.Error."""
    pyvips = libvips()
    header = pyvips.Image.new_from_file(name).autorot()
    _check_pixels(path, header.height, header.width)
    height, width = _scaled(header, short_side)
    image = pyvips.Image.thumbnail(
        name,
        width,
        height=height,
        size="force",
        fail_on="warning",
    )
    return np.asarray(_rgb(image).numpy(), np.float32) / 255.0


def _rgb(image: Any) -> Any:
    """A pyvips image converted to sRGB in 8 bits without alpha."""
    image = in_rgb(image)
    if image.hasalpha():
        image = image.flatten(background=255 if image.format == "uchar" else 65535)
    image = image.colourspace("srgb").cast("uchar")
    return image.extract_band(0, n=3) if image.bands >= 3 else image[0].bandjoin([image[0], image[0]])


def write_picture(path: Path, pixels: NDArray[Any]) -> None:
    """Write ``pixels``, uint8, (h, w, 3) RGB or (h, w, 4) RGBA, atomically, as PNG or as JPEG.

    PNG also takes uint16.

    The suffix of ``path`` says which: ``.jpg`` and ``.jpeg`` are JPEG of quality 90, in which transparent
    parts are laid over white.

    Raises
    ------
    DiskFull, BadInput, MissingFile, JobError : the file cannot be written, see `publish`.
    """
    if path.suffix.lower() not in (".jpg", ".jpeg"):
        return write_png(path, pixels)
    remove_dead_attempts(path.parent, path.name)
    publish(path, encoded_jpeg(pixels))


def write_png(path: Path, pixels: NDArray[Any]) -> None:
    """Write ``pixels``, uint8 or uint16, (h, w, 3) RGB or (h, w, 4) RGBA, as a PNG file, atomically.

    Raises
    ------
    DiskFull, BadInput, MissingFile, JobError : the file cannot be written, see `publish`.
    """
    path = Path(path)
    remove_dead_attempts(path.parent, path.name)
    publish(path, encoded_png(pixels))


def encoded_png(pixels: NDArray[Any], compression: int = 6) -> bytes:
    """The bytes of a PNG file of ``pixels``, uint8 or uint16, (h, w, 3) RGB or (h, w, 4) RGBA.

    ``compression`` goes from 0, the fastest, to 9.
    """
    image = libvips().Image.new_from_array(np.ascontiguousarray(pixels))
    deep = pixels.dtype == np.uint16
    return image.copy(interpretation="rgb16" if deep else "srgb").pngsave_buffer(compression=compression)


def encoded_jpeg(pixels: NDArray[np.uint8], quality: int = 90) -> bytes:
    """The bytes of a JPEG file of ``pixels``, uint8, (h, w, 3) or (h, w, 4), whose transparent parts are laid
    over white."""
    image = libvips().Image.new_from_array(np.ascontiguousarray(pixels)).copy(interpretation="srgb")
    return (image.flatten(background=255) if image.bands == 4 else image).jpegsave_buffer(Q=quality)


def labelled(pixels: NDArray[np.uint8], text: str, height: int) -> NDArray[np.uint8]:
    """A picture, uint8 (h, w, 3), with a text in white on black in its lower left corner, if there is any;
    ``height`` is as in `text_plate`."""
    if not text.strip():
        return pixels
    plate = text_plate(text, height)[: len(pixels), : pixels.shape[1]]
    made = pixels.copy()
    made[len(made) - len(plate) :, : plate.shape[1]] = plate[..., None]
    return made


def text_plate(text: str, height: int) -> NDArray[np.uint8]:
    """A text in white on black with a margin, uint8 (h, w); its letters are about ``height`` pixels high.

    Raises
    ------
    BadInput : libvips was built without Pango, which draws text.
    """
    vips = libvips()
    escaped = text.replace("&", "&amp;").replace("<", "&lt;")
    try:
        letters = vips.Image.text(escaped, dpi=72 * height // 10).numpy()
    except vips.Error:
        raise BadInput("libvips was built without Pango, so it cannot write labels; leave them out") from None
    return np.pad(letters.reshape(letters.shape[:2]), max(2, height // 3))
