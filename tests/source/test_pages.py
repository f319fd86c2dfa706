"""Which picture of a file is read: pages, previews, labels, stacks of channels, bands by colour and name."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pyvips
import rasterio
import tifffile
from helpers import picture
from rasterio.enums import ColorInterp

from urst_tiles.errors import BadInput, DamagedFile
from urst_tiles.geometry import Box
from urst_tiles.source import Source, open_source
from urst_tiles.source.contents import contents_of

FULL = picture(300, 400, seed=1)
SMALL = FULL[::4, ::4].copy()
OTHER = picture(300, 400, seed=2)


def read(path: Path, **options: Any) -> np.ndarray:
    return whole(open_source(path, **options), path)


def whole(source: Source, path: Path) -> np.ndarray:
    ready = source.prepare(path.parent / f"{path.name}.job", thumbnail=32)
    return ready.read(Box(0, 0, *ready.shape))


def pages(path: Path, *parts: tuple[np.ndarray, dict[str, Any]]) -> Path:
    """A TIFF with a page for each (pixels, options of tifffile)."""
    with tifffile.TiffWriter(path) as tiff:
        for pixels, options in parts:
            photometric = "rgb" if pixels.ndim == 3 else "minisblack"
            tiff.write(pixels, **({"photometric": photometric, "metadata": None} | options))
    return path


# -- previews, labels, raw data ------------------------------------------------------------------------------


def dng(path: Path) -> Path:
    """A camera's raw file: a reduced preview first, the raw picture in its SubIFD."""
    raw = {"photometric": 32803, "extratags": [(33421, 3, 2, (2, 2), True), (33422, 1, 4, b"\0\1\1\2", True)]}
    return pages(path, (SMALL, {"subfiletype": 1, "subifds": 1}), (FULL[..., 0].astype("u2") * 200, raw))


def test_raw_data_of_a_camera_is_refused_and_its_preview_read_when_asked_for(tmp_path: Path) -> None:
    path = dng(tmp_path / "a.dng")
    for options in ({}, {"page": 2}, {"page": "raw"}):
        with pytest.raises(
            BadInput, match=r"page 2 \(400 x 300\) is raw data .* 100 x 75 pixels with --page 1"
        ):
            open_source(path, **options)
    np.testing.assert_array_equal(read(path, page=1), SMALL)
    np.testing.assert_array_equal(read(path, page="preview"), SMALL)
    assert [(p.kind, p.shape) for p in contents_of(path).pages] == [
        ("preview", (75, 100)),
        ("raw", (300, 400)),
    ]


@pytest.mark.parametrize("where", ["subifd", "next"])
@pytest.mark.parametrize("marked", [True, False])
def test_a_preview_before_the_picture_is_not_the_picture(where: str, marked: bool, tmp_path: Path) -> None:
    first: dict[str, Any] = {"subfiletype": 1} if marked else {}
    if where == "subifd":
        first["subifds"] = 1
    path = pages(tmp_path / "a.tif", (SMALL, first), (FULL, {"tile": (64, 64), "compression": "deflate"}))
    source = open_source(path)
    assert source.shape == (300, 400) and source.told == source.info.chosen != ""
    assert source.told.startswith("page 2 of 2, 400 x 300 (the first is an image of ")
    np.testing.assert_array_equal(whole(source, path), FULL)
    np.testing.assert_array_equal(read(path, page=1), SMALL)


def test_a_page_that_only_libvips_decodes_is_found_behind_a_preview(tmp_path: Path) -> None:
    """libvips opens the first page by default: it must be told which one is meant."""
    black = (FULL[..., 0] > 127).astype(np.uint8) * 255
    path = tmp_path / "a.tif"
    fax = pyvips.Image.new_from_array(black).tiffsave_buffer(compression="ccittfax4", bitdepth=1)
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(SMALL, photometric="rgb", subfiletype=1, metadata=None)
    behind(path, fax)
    source = open_source(path)
    assert source.shape == (300, 400) and source.told.startswith("page 2 of 2")
    np.testing.assert_array_equal(whole(source, path)[..., 0], black)
    np.testing.assert_array_equal(read(path, page=1), SMALL)


def behind(path: Path, other: bytes) -> None:
    """Append the first page of another TIFF, both classic and little-endian, to the chain of a file."""
    data = bytearray(path.read_bytes())
    data += bytes(len(data) % 2)
    move, end = len(data), struct.unpack_from("<I", data, 4)[0]
    link = end + 2 + 12 * struct.unpack_from("<H", data, end)[0]
    theirs = bytearray(other)
    at = struct.unpack_from("<I", theirs, 4)[0]
    (count,) = struct.unpack_from("<H", theirs, at)
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        code, kind, number, value = struct.unpack_from("<HHII", theirs, entry)
        size = number * {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 7: 1, 12: 8}[kind]
        if size > 4:
            if code == 273:
                for k in range(number):
                    (offset,) = struct.unpack_from("<I", theirs, value + 4 * k)
                    struct.pack_into("<I", theirs, value + 4 * k, offset + move)
            struct.pack_into("<I", theirs, entry + 8, value + move)
        elif code == 273:
            struct.pack_into("<I", theirs, entry + 8, value + move)
    struct.pack_into("<I", data, link, at + move)
    path.write_bytes(bytes(data + theirs))


def test_ventana_has_its_label_and_thumbnail_first(tmp_path: Path) -> None:
    path = pages(
        tmp_path / "a.bif",
        (OTHER, {"description": "Label_Image"}),
        (SMALL, {"description": "Thumbnail"}),
        (FULL, {"description": "level=0 mag=20 quality=95", "tile": (64, 64)}),
        (FULL[::2, ::2], {"description": "level=1 mag=10 quality=95", "tile": (64, 64)}),
    )
    source = open_source(path)
    assert source.overviews == [(150, 200)] and "page 3 of 4" in source.told and "a label" in source.told
    np.testing.assert_array_equal(whole(source, path), FULL)
    np.testing.assert_array_equal(read(path, page="label"), OTHER)
    assert [p.kind for p in contents_of(path).pages] == ["label", "thumbnail", "image", "overview"]


def test_ventanas_overlapping_tiles_are_refused(tmp_path: Path) -> None:
    xmp = b'<EncodeInfo><iScan/><TileJointInfo OverlapX="24" OverlapY="0"/></EncodeInfo>'
    tag = {"extratags": [(700, 1, len(xmp), xmp, True)], "description": "level=0 mag=20 quality=95"}
    with pytest.raises(BadInput, match="tiles overlap"):
        open_source(pages(tmp_path / "a.tif", (FULL, tag)))
    flat = xmp.replace(b"24", b"00")
    tag = {"extratags": [(700, 1, len(flat), flat, True)]}
    np.testing.assert_array_equal(read(pages(tmp_path / "b.tif", (FULL, tag))), FULL)


def test_leica_has_the_macro_photograph_first(tmp_path: Path) -> None:
    scn = '<scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01"><collection/></scn>'
    macro = picture(120, 40)
    tiled = {"tile": (16, 16)}
    path = pages(
        tmp_path / "a.scn",
        (macro, {"description": scn, **tiled}),
        (macro[::2, ::2], tiled),
        (FULL, tiled),
        (FULL[::2, ::2], tiled),
        (FULL[::4, ::4], tiled),
    )
    source = open_source(path)
    assert source.overviews == [(150, 200), (75, 100)] and source.told.startswith("page 3 of 5")
    np.testing.assert_array_equal(whole(source, path), FULL)


def test_pages_of_a_scan(tmp_path: Path) -> None:
    """The first of several pages is read, as GDAL and libvips do, even if another is somewhat larger."""
    path = pages(tmp_path / "a.tif", (FULL[:280], {}), (OTHER, {}), (FULL, {}))
    source = open_source(path)
    assert source.told == "page 1 of 3, 400 x 280"
    np.testing.assert_array_equal(whole(source, path), FULL[:280])
    chosen = open_source(path, page=2)
    assert (chosen.told, chosen.info.chosen) == ("", "page 2 of 3, 400 x 300")
    np.testing.assert_array_equal(whole(chosen, path), OTHER)
    for wrong in (0, 4, "cover"):
        with pytest.raises(BadInput, match=f"no page '{wrong}', which --page asks for; it has the pages 1 "):
            open_source(path, page=wrong)


def test_a_page_has_its_own_overviews_and_mask(tmp_path: Path) -> None:
    valid = np.zeros((300, 400), bool)
    valid[:, 100:] = True
    mask: dict[str, Any] = {"subfiletype": 4, "photometric": "mask", "compression": "deflate"}
    reduced: dict[str, Any] = {"subfiletype": 1}
    path = pages(
        tmp_path / "each.tif",
        (FULL, {}), (FULL[::2, ::2], reduced), (OTHER, {}), (OTHER[::2, ::2], reduced), (valid, mask),
    )  # fmt: skip
    for number, pixels in ((1, FULL), (3, OTHER)):  # GDAL takes the mask for that of the first page
        source = open_source(path, page=number)
        masked = whole(source, path)
        np.testing.assert_array_equal(masked[..., 3] > 0, valid)
        np.testing.assert_array_equal(masked[valid][:, :3], pixels[valid])
    two = pages(tmp_path / "two.tif", (FULL, {}), (valid, mask), (OTHER, {}), (~valid, mask))
    np.testing.assert_array_equal(read(two)[..., 3] > 0, valid)
    np.testing.assert_array_equal(read(two, page=3)[..., 3] > 0, ~valid)


def flat(value: int, shape: tuple[int, ...] = (150, 200, 3)) -> np.ndarray:
    """An overview that is told from all others by its value."""
    return np.full(shape, value, np.uint8)


@pytest.mark.parametrize("order", ["each", "last"])
def test_a_page_has_its_own_overviews(order: str, tmp_path: Path) -> None:
    tiled = {"tile": (64, 64)}
    reduced: dict[str, Any] = tiled | {"subfiletype": 1}
    images, overviews = [(FULL, tiled), (OTHER, tiled)], [(flat(10), reduced), (flat(20), reduced)]
    parts = [images[0], overviews[0], images[1], overviews[1]] if order == "each" else images + overviews
    path = pages(tmp_path / "a.tif", *parts)
    for number, value in ((1, 10), (3 if order == "each" else 2, 20)):
        source = open_source(path, page=number).prepare(tmp_path / f"{number}.job", thumbnail=32)
        np.testing.assert_array_equal(source.thumbnail, flat(value, source.thumbnail.shape))


def test_aperios_other_pages_are_named(inputs: Path) -> None:
    path = inputs / "slide" / "libvips__CMU-1-Small-Region.svs"
    assert open_source(path).told == ""  # nobody would take another page
    assert [p.kind for p in contents_of(path).pages] == ["image", "thumbnail", "label", "macro"]
    with tifffile.TiffFile(path) as tiff:
        assert open_source(path, page="label").shape == tiff.pages[2].shape[:2]
        assert open_source(path, page="Macro").shape == tiff.pages[3].shape[:2]


@pytest.mark.parametrize(
    "suffix", [".mrxs", ".vsi", ".vms", ".ndpi", ".czi", ".lif", ".dcm", ".svslide", ".MRXS"]
)
@pytest.mark.parametrize("writer", ["jpeg", "tiff"])
def test_a_slide_is_never_taken_for_what_carries_its_name(suffix: str, writer: str, tmp_path: Path) -> None:
    path = tmp_path / f"slide{suffix}"
    image = pyvips.Image.new_from_array(SMALL)
    path.write_bytes(image.write_to_buffer(".jpg" if writer == "jpeg" else ".tif"))
    with pytest.raises(
        BadInput, match=r"slide.* is an? .*; it cannot be read here. Convert it with"
    ) as error:
        open_source(path)
    assert str(path) in str(error.value)


def test_a_slide_is_known_by_its_content(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(b"ZISRAWFILE" + bytes(200))
    (tmp_path / "b.jpg").write_bytes(bytes(128) + b"DICM" + bytes(200))
    pages(tmp_path / "c.tif", (SMALL, {"extratags": [(65420, 4, 1, 1, True)]}))
    for name, word in (("a.tif", "(?i)Zeiss"), ("b.jpg", "DICOM"), ("c.tif", "(?i)Hamamatsu")):
        with pytest.raises((BadInput, DamagedFile), match=word):
            open_source(tmp_path / name)


def test_pages_of_other_formats(tmp_path: Path) -> None:
    path = tmp_path / "a.webp"
    frames = pyvips.Image.arrayjoin([pyvips.Image.new_from_array(p) for p in (FULL, OTHER)], across=1)
    frames = frames.copy()
    frames.set_type(pyvips.GValue.gint_type, "page-height", 300)
    frames.webpsave(str(path), lossless=True)
    source = open_source(path)
    assert source.told == "page 1 of 2" and source.shape == (300, 400)
    np.testing.assert_array_equal(whole(source, path)[..., :3], FULL)
    np.testing.assert_array_equal(read(path, page=2)[..., :3], OTHER)
    with pytest.raises(BadInput, match="no page '3'"):
        open_source(path, page=3)
    png = tmp_path / "a.png"
    pyvips.Image.new_from_array(FULL).pngsave(str(png))
    assert open_source(png).told == ""
    with pytest.raises(BadInput, match="no page '2'"):
        open_source(png, page=2)


# -- stacks of channels, depths and times --------------------------------------------------------------------


def ome(path: Path, pixels: np.ndarray, axes: str, **options: Any) -> Path:
    metadata = {"axes": axes} | options.pop("metadata", {})
    tifffile.imwrite(path, pixels, ome=True, photometric="minisblack", metadata=metadata, **options)
    return path


def levels_first(pixels: np.ndarray) -> np.ndarray:
    return np.moveaxis(pixels, -1, 0).copy()


@pytest.mark.parametrize("layout", [{"tile": (64, 64)}, {"rowsperstrip": 50}, {"rowsperstrip": 300}])
@pytest.mark.parametrize("compression", [None, "deflate"])
def test_three_channels_are_red_green_and_blue(
    layout: dict[str, Any], compression: str | None, tmp_path: Path
) -> None:
    path = ome(
        tmp_path / "a.ome.tif", levels_first(FULL), "CYX", compression=compression,
        metadata={"Channel": {"Name": ["R", "G", "B"]}}, **layout,
    )  # fmt: skip
    source = open_source(path)
    assert source.told == "channels 1 (R), 2 (G) and 3 (B) of 3 as red, green and blue"
    assert (source.channels, str(source.dtype)) == (3, "uint8")
    np.testing.assert_array_equal(whole(source, path), FULL)
    np.testing.assert_array_equal(read(path, channels=("B", "R", 2)), FULL[..., [2, 0, 1]])
    np.testing.assert_array_equal(read(path, bands=(3, 2, 1)), FULL[..., ::-1])
    np.testing.assert_array_equal(read(path, channels=["g"]), FULL[..., [1, 1, 1]])
    np.testing.assert_array_equal(read(path, page=2), FULL[..., [1, 1, 1]])


def test_boxes_of_channels_are_those_of_the_whole(tmp_path: Path) -> None:
    path = ome(tmp_path / "a.ome.tif", levels_first(FULL), "CYX", tile=(64, 48), compression="deflate")
    source = open_source(path)
    assert source.random_access
    again = pickle.loads(pickle.dumps(source.prepare(None, thumbnail=32)))
    for box in (Box(0, 0, 1, 1), Box(63, 47, 65, 49), Box(10, 20, 299, 400), Box(299, 399, 300, 400)):
        np.testing.assert_array_equal(again.read(box), FULL[box.slices])


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32"])
def test_other_types_are_stretched_channel_by_channel(dtype: str, tmp_path: Path) -> None:
    values = FULL.astype(dtype) * np.array([1, 20, 7], dtype)
    path = ome(tmp_path / "a.ome.tif", levels_first(values), "CYX", tile=(64, 64))
    bands = tmp_path / "bands.tif"
    tifffile.imwrite(bands, values, photometric="rgb", tile=(64, 64), metadata=None)
    np.testing.assert_array_equal(read(path), read(bands))


def test_overviews_of_channels_lie_in_the_subifds_of_each(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as tiff:
        tiff.write(
            levels_first(FULL), photometric="minisblack", tile=(64, 64), subifds=1, metadata={"axes": "CYX"}
        )
        small = np.stack([flat(value, (150, 200)) for value in (10, 20, 30)])
        tiff.write(small, photometric="minisblack", tile=(64, 64), subfiletype=1, metadata=None)
    source = open_source(path)
    assert source.overviews == [(150, 200)] and source.told.startswith("channels 1, 2 and 3 of 3")
    ready = source.prepare(tmp_path / "a.job", thumbnail=32)
    assert ready.thumbnail.reshape(-1, 3).tolist() == [[10, 20, 30]] * ready.thumbnail[..., 0].size
    np.testing.assert_array_equal(ready.read(Box(0, 0, 300, 400)), FULL)
    alone = open_source(path, channels=("3",)).prepare(tmp_path / "b.job", thumbnail=32)
    assert set(alone.thumbnail.ravel().tolist()) == {30}


def test_more_channels_than_three_and_fewer(tmp_path: Path) -> None:
    five = np.stack([FULL[..., 0], FULL[..., 1], FULL[..., 2], OTHER[..., 0], OTHER[..., 1]])
    names = ["DAPI", "FITC", "TRITC", "Cy5", "488"]
    path = ome(tmp_path / "a.ome.tif", five, "CYX", metadata={"Channel": {"Name": names}})
    source = open_source(path)
    assert source.told == "channels 1 (DAPI), 2 (FITC) and 3 (TRITC) of 5 as red, green and blue"
    np.testing.assert_array_equal(whole(source, path), FULL)
    taken = read(path, channels=("Cy5", "488", "dapi"))
    np.testing.assert_array_equal(taken, np.moveaxis(five[[3, 4, 0]], 0, -1))
    with pytest.raises(
        BadInput, match=r"no channel 'GFP', which --channels asks for; it has the channels 1 \(DAPI\)"
    ):
        open_source(path, channels=("GFP",))
    with pytest.raises(BadInput, match="--channels takes one or three channels"):
        open_source(path, channels=("DAPI", "FITC"))
    two = ome(tmp_path / "b.ome.tif", five[:2], "CYX", metadata={"Channel": {"Name": names[:2]}})
    source = open_source(two)
    assert source.told == "channel 1 (DAPI) of 2 as grey"
    np.testing.assert_array_equal(whole(source, two), FULL[..., [0, 0, 0]])


def test_channels_that_say_their_colours_are_shown_in_these(tmp_path: Path) -> None:
    colours = [c - (1 << 32) if c >> 31 else c for c in (0x0000FFFF, 0x00FF00FF, 0xFF0000FF)]
    metadata = {"Channel": {"Name": ["DAPI", "FITC", "TRITC"], "Color": colours}}
    path = ome(tmp_path / "a.ome.tif", levels_first(FULL), "CYX", metadata=metadata)
    assert "channels 3 (TRITC), 2 (FITC) and 1 (DAPI)" in open_source(path).told
    np.testing.assert_array_equal(read(path), FULL[..., ::-1])


@pytest.mark.parametrize("axes", ["ZCYX", "CZYX", "TZCYX", "TCZYX"])
def test_the_middle_of_the_depth_and_the_first_time(axes: str, tmp_path: Path) -> None:
    sizes = {"T": 2, "C": 3, "Z": 5, "Y": 20, "X": 30}
    pixels = np.random.default_rng(0).integers(0, 255, [sizes[a] for a in axes], np.uint8)
    path = ome(tmp_path / "a.ome.tif", pixels, axes)
    plain = pixels if "T" in axes else pixels[None]
    order = axes if "T" in axes else "T" + axes
    tczyx = np.transpose(plain, [order.index(a) for a in "TCZYX"])
    source = open_source(path)
    assert source.told.startswith(
        "plane 3 of 5 in depth; " + ("time 1 of 2; " if "T" in axes else "channels")
    )
    np.testing.assert_array_equal(whole(source, path), np.moveaxis(tczyx[0, :, 2], 0, -1))
    facts = next(p for p in contents_of(path).pages if p.plane == (2, 5, 1))
    np.testing.assert_array_equal(read(path, page=facts.number)[..., 0], tczyx[0, 1, 4])
    at_its_depth = read(path, page=facts.number, channels=(3, 2, 1))
    np.testing.assert_array_equal(at_its_depth, np.moveaxis(tczyx[0, ::-1, 4], 0, -1))


def test_the_largest_of_several_images_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as tiff:
        for pixels, name in ((SMALL, "overview of the slide"), (FULL, "tissue")):
            tiff.write(levels_first(pixels), photometric="minisblack", metadata={"axes": "CYX", "Name": name})
    source = open_source(path)
    assert source.told.startswith("image 2 (tissue) of 2, 400 x 300; channels 1, 2 and 3 of 3")
    np.testing.assert_array_equal(whole(source, path), FULL)
    np.testing.assert_array_equal(read(path, page="Overview of the slide"), SMALL)


def test_a_renamed_file_is_still_that_of_its_description_and_a_part_of_a_set_is_told(tmp_path: Path) -> None:
    xml = (
        '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"'
        ' UUID="urn:uuid:1"><Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8"'
        ' SizeX="400" SizeY="300" SizeC="3" SizeZ="1" SizeT="1">{}{}</Pixels></Image></OME>'
    )
    channels = "".join(
        f'<Channel ID="Channel:0:{c}" Name="{n}" SamplesPerPixel="1"/>' for c, n in enumerate("ABC")
    )
    data = (
        '<TiffData FirstC="{}" IFD="{}" PlaneCount="1"><UUID FileName="{}.ome.tif">urn:uuid:{}</UUID>'
        "</TiffData>"
    )
    planes = [(FULL[..., c].copy(), {"description": ""}) for c in range(3)]
    one = "".join(data.format(c, c, "before", 1) for c in range(3))
    planes[0][1]["description"] = xml.format(channels, one)
    np.testing.assert_array_equal(read(pages(tmp_path / "after.tif", *planes)), FULL)
    several = "".join(data.format(c, 0, "ABC"[c], c + 1) for c in range(3))
    planes[0][1]["description"] = xml.format(channels, several)
    path = pages(tmp_path / "A.ome.tif", planes[0])
    source = open_source(path)
    assert source.told == "channel 1 (A) of 3 as grey"
    np.testing.assert_array_equal(whole(source, path), FULL[..., [0, 0, 0]])
    with pytest.raises(BadInput, match="its channel B has no page in this file"):
        open_source(path, channels=("B",))


def test_nonsense_in_the_description_is_not_believed(tmp_path: Path) -> None:
    for number, xml in enumerate(
        (
            '<OME><Image><Pixels SizeX="7" SizeY="300" SizeC="1" SizeZ="1" SizeT="1"/></Image></OME>',
            '<OME><Image><Pixels SizeX="400" SizeY="300" SizeC="9999999" SizeZ="9" SizeT="1"/></Image></OME>',
            '<OME><Image><Pixels SizeX="400" SizeY="300" SizeC="x" SizeZ="1" SizeT="1"/></Image></OME>',
            '<!DOCTYPE a [<!ENTITY b "c">]><OME><Image>&b;</Image></OME>',
            "<OME><Image><Pix",
            "ImageJ=1.5\nimages=900000000\nchannels=900000000\n",
            "ImageJ=1.5\nimages=\nchannels=-3\n",
        )
    ):
        path = pages(tmp_path / f"{number}.tif", (FULL, {"description": xml}), (OTHER, {}))
        np.testing.assert_array_equal(read(path), FULL)


def test_imagej(tmp_path: Path) -> None:
    stack = np.random.default_rng(0).integers(0, 255, (3, 3, 20, 30), np.uint8)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, stack, imagej=True, metadata={"axes": "ZCYX"})
    source = open_source(path)
    assert source.told.startswith("plane 2 of 3 in depth; channels 1, 2 and 3 of 3")
    np.testing.assert_array_equal(whole(source, path), np.moveaxis(stack[1], 0, -1))
    # ImageJ itself writes large stacks behind one directory alone
    big = pages(
        tmp_path / "big.tif",
        (SMALL[..., 0], {"description": "ImageJ=1.54f\nimages=6\nchannels=2\nslices=3\n"}),
    )
    source = open_source(big)
    assert source.told == "plane 1 of 3 in depth; channel 1 of 2 as grey"
    np.testing.assert_array_equal(whole(source, big), SMALL[..., [0, 0, 0]])


def test_channels_of_a_qptiff(tmp_path: Path) -> None:
    text = (
        "<PerkinElmer-QPI-ImageDescription><ImageType>{}</ImageType><Name>{}</Name>"
        "</PerkinElmer-QPI-ImageDescription>"
    )
    names = ["DAPI", "Opal 520", "Opal 570", "Opal 690"]
    full = [*levels_first(FULL), OTHER[..., 0]]
    parts = [(p.copy(), {"description": text.format("FullResolution", n), "tile": (64, 64)})
             for p, n in zip(full, names, strict=True)]  # fmt: skip
    parts.append((SMALL, {"description": text.format("Thumbnail", "")}))
    reduced = {"subfiletype": 1, "tile": (64, 64)}
    parts += [(flat(10 * i, (150, 200)), reduced | {"description": text.format("ReducedResolution", n)})
              for i, n in enumerate(names)]  # fmt: skip
    path = pages(tmp_path / "a.qptiff", *parts)
    source = open_source(path)
    assert source.told == "channels 1 (DAPI), 2 (Opal 520) and 3 (Opal 570) of 4 as red, green and blue"
    assert source.overviews == [(150, 200)]
    ready = source.prepare(tmp_path / "a.job", thumbnail=32)
    assert ready.thumbnail.reshape(-1, 3).tolist() == [[0, 10, 20]] * ready.thumbnail[..., 0].size
    np.testing.assert_array_equal(ready.read(Box(0, 0, 300, 400)), FULL)


def test_pages_of_any_file_can_be_channels(tmp_path: Path) -> None:
    path = pages(tmp_path / "a.tif", *((plane, {}) for plane in levels_first(FULL)))
    np.testing.assert_array_equal(read(path), FULL[..., [0, 0, 0]])
    np.testing.assert_array_equal(read(path, channels=(3, 1, 2)), FULL[..., [2, 0, 1]])


def test_a_plane_beyond_a_thousand_pages(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (3, 401, 4, 5), np.uint8)
    path = ome(tmp_path / "a.ome.tif", pixels, "CZYX")
    np.testing.assert_array_equal(read(path), np.moveaxis(pixels[:, 200], 0, -1))
    np.testing.assert_array_equal(read(path, page=1203)[..., 0], pixels[2, 400])


# -- bands ---------------------------------------------------------------------------------------------------


def gdal(path: Path, bands: np.ndarray, **facts: Any) -> Path:
    count, height, width = bands.shape
    colours, names = facts.get("colours"), facts.get("names")
    place = rasterio.Affine(10, 0, 500, 0, -10, 500)
    with rasterio.open(
        path, "w", "GTiff", height=height, width=width, count=count, dtype=bands.dtype, transform=place,
        photometric=facts.get("photometric", "MINISBLACK"), interleave=facts.get("interleave", "pixel"),
    ) as file:  # fmt: skip
        file.write(bands)
        if colours:
            file.colorinterp = [ColorInterp[c] for c in colours]
        if names:
            file.descriptions = names
        for band, microns in facts.get("microns", {}).items():
            file.update_tags(band, ns="IMAGERY", CENTRAL_WAVELENGTH_UM=microns)
    return path


BANDS = np.concatenate([levels_first(FULL), levels_first(OTHER)])


@pytest.mark.parametrize("interleave", ["pixel", "band"])
@pytest.mark.parametrize(
    ("count", "facts", "expected"),
    [
        (3, {"colours": ["blue", "green", "red"]}, [2, 1, 0]),
        (4, {"colours": ["blue", "green", "red", "undefined"]}, [2, 1, 0]),
        (4, {"colours": ["green", "undefined", "red", "blue"]}, [2, 0, 3]),
        (4, {"names": ["Blue", "Green", "Red", "NIR"]}, [2, 1, 0]),
        (3, {"colours": ["red", "green", "blue"]}, [0, 1, 2]),
        (4, {"names": ["B2", "B3", "B4", "B8"]}, [2, 1, 0]),
        (6, {"names": ["B01", "B02", "B03", "B04", "B05", "B08"]}, [3, 2, 1]),
        (6, {"names": ["B1", "B2", "B3", "B4", "B8A", "B12"]}, [3, 2, 1]),
        (4, {"names": ["B4, central wavelength 665 nm", "B3, central wavelength 560 nm", "x, 842 nm",
                       "B2, central wavelength 490 nm"]}, [0, 1, 3]),
        (5, {"microns": {1: 0.842, 2: 0.49, 3: 0.56, 5: 0.665}}, [4, 2, 1]),
        (5, {"names": ["a", "b", "c", "d", "e"]}, [0, 1, 2]),
    ],
)  # fmt: skip
def test_bands_are_read_as_the_colours_that_they_are(
    count: int, facts: dict[str, Any], expected: list[int], interleave: str, tmp_path: Path
) -> None:
    path = gdal(tmp_path / "a.tif", BANDS[:count], interleave=interleave, **facts)
    source = open_source(path)
    np.testing.assert_array_equal(whole(source, path), np.moveaxis(BANDS[expected], 0, -1))
    in_order = expected == list(range(count))
    assert (source.told == "") == in_order
    if not in_order:
        numbers = [int(word.split(" ")[0]) for word in source.told[6:].replace(" and ", ", ").split(", ")
                   if word[0].isdigit()]  # fmt: skip
        assert numbers[:3] == [b + 1 for b in expected] or "central wavelength" in source.told


def test_bands_are_chosen_by_name(tmp_path: Path) -> None:
    names = ["B1", "B2", "B3", "B4 (665 nm)", "B8A", "SWIR 1"]
    path = gdal(tmp_path / "a.tif", BANDS, names=names)
    np.testing.assert_array_equal(read(path, bands=("B4", "B3", "B2")), np.moveaxis(BANDS[[3, 2, 1]], 0, -1))
    np.testing.assert_array_equal(
        read(path, bands=("b04", 6, "swir 1")), np.moveaxis(BANDS[[3, 5, 5]], 0, -1)
    )
    with pytest.raises(
        BadInput, match=r"no band 'B9', which --bands asks for; it has the bands 1 \(B1\), 2 \(B2\)"
    ):
        open_source(path, bands=("B9",))
    tagged = gdal(tmp_path / "b.tif", BANDS[:4], colours=["blue", "green", "red", "undefined"])
    np.testing.assert_array_equal(read(tagged, bands=("blue", "green", "red")), np.moveaxis(BANDS[:3], 0, -1))
    rgb = gdal(tmp_path / "c.tif", BANDS[:3], photometric="RGB")
    np.testing.assert_array_equal(read(rgb, bands=("blue", "green", "red")), FULL[..., ::-1])
    twice = gdal(tmp_path / "d.tif", BANDS[:3], names=["a", "a", "b"])
    with pytest.raises(BadInput, match="2 of its bands are called 'a'; choose by number: 1, 2"):
        open_source(twice, bands=("a",))


def test_alpha_is_told_by_its_tag(tmp_path: Path) -> None:
    alpha = np.full((1, 300, 400), 255, np.uint8)
    alpha[:, :, :50] = 0
    bands = np.concatenate([BANDS[:3], alpha])
    path = gdal(tmp_path / "a.tif", bands, colours=["blue", "green", "red", "alpha"])
    pixels = read(path)
    np.testing.assert_array_equal(pixels[:, 50:, :3], FULL[:, 50:, ::-1])
    np.testing.assert_array_equal(pixels[..., 3], alpha[0])


def test_what_is_chosen_enters_the_names_of_what_is_kept(tmp_path: Path) -> None:
    """A thumbnail of other bands must not be taken for that of these."""
    path = gdal(tmp_path / "a.tif", BANDS)
    folder = tmp_path / "job"
    first = open_source(path).prepare(folder, thumbnail=32).thumbnail
    second = open_source(path, bands=(4, 5, 6)).prepare(folder, thumbnail=32).thumbnail
    assert (first != second).any()
    assert open_source(path).fingerprint == open_source(path, bands=(4, 5, 6)).fingerprint
    with pytest.raises(BadInput, match="give one of them"):
        open_source(path, bands=(1,), channels=(1,))


def test_a_change_of_the_picture_behind_a_preview_is_noticed(tmp_path: Path) -> None:
    """Nothing but the samples of an uncompressed page tells one from the other."""
    made = [
        pages(tmp_path / f"{i}.tif", (SMALL, {"subfiletype": 1}), (pixels, {"tile": (64, 64)}))
        for i, pixels in enumerate((FULL, OTHER))
    ]
    assert made[0].stat().st_size == made[1].stat().st_size
    first, second = (open_source(path) for path in made)
    assert first.fingerprint != second.fingerprint
    assert first.fingerprint == open_source(made[0], page=1).fingerprint
