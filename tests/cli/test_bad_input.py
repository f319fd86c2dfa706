"""Bad input gets one clear sentence, the right exit status, and leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tifffile
from helpers import geotiff, one_sentence, picture

SMALL = ("--model", "identity", "--tile", "128", "--block", "512")


@pytest.fixture
def stylize(run, files: Path, tmp_path: Path):
    """Run with these inputs and options; afterwards nothing but the inputs may lie in the folder."""

    def call(
        source: object,
        *more: object,
        style: object = files / "style.png",
        output: object = tmp_path / "o" / "out.tif",
    ):
        (tmp_path / "o").mkdir(exist_ok=True)
        return run("stylize", source, output, "--style", style, *SMALL, *more)

    yield call


def nothing_left(tmp_path: Path) -> None:
    assert not list((tmp_path / "o").iterdir())


def test_missing_file(stylize, tmp_path: Path) -> None:
    one_sentence(stylize(tmp_path / "no.tif"), 2, "no.tif")
    nothing_left(tmp_path)


def test_not_an_image(stylize, tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_text("hello " * 100)
    one_sentence(stylize(tmp_path / "a.tif"), 2, "a.tif")
    (tmp_path / "empty.tif").touch()
    one_sentence(stylize(tmp_path / "empty.tif"), 2, "empty.tif")
    one_sentence(stylize(tmp_path), 2, tmp_path.name)
    nothing_left(tmp_path)


@pytest.mark.parametrize("keep", [6, 40, 0.3, 0.7, 0.999])
@pytest.mark.parametrize("tiled", [True, False])
def test_truncated_tiff(stylize, tmp_path: Path, keep: float, tiled: bool) -> None:
    whole = geotiff(
        tmp_path / "w.tif", picture(600, 700), **({} if tiled else {"tile": None, "rowsperstrip": 16})
    )
    content = whole.read_bytes()
    (tmp_path / "cut.tif").write_bytes(content[: int(keep if keep > 1 else keep * len(content))])
    one_sentence(stylize(tmp_path / "cut.tif"), 2, "cut.tif")
    nothing_left(tmp_path)


def test_one_flipped_byte_in_a_deflate_tile(stylize, tmp_path: Path) -> None:
    path = geotiff(tmp_path / "f.tif", picture(600, 700))
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        at = page.dataoffsets[3] + page.databytecounts[3] // 2
    content = bytearray(path.read_bytes())
    content[at] ^= 0x10
    path.write_bytes(content)
    one_sentence(stylize(path), 2, "f.tif")
    nothing_left(tmp_path)


def test_a_tile_that_breaks_after_the_first_block_keeps_the_finished_ones(stylize, tmp_path: Path) -> None:
    pixels = np.dstack([picture(1200, 1400)])
    path = geotiff(tmp_path / "f.tif", pixels)
    smaller = geotiff(tmp_path / "small.tif", pixels[::2, ::2])
    with tifffile.TiffWriter(tmp_path / "g.tif") as writer:
        options = {"tile": (256, 256), "compression": "deflate", "photometric": "rgb", "metadata": None}
        writer.write(pixels, **options)
        writer.write(tifffile.imread(smaller), subfiletype=1, **options)
    with tifffile.TiffFile(tmp_path / "g.tif") as tiff:
        page = tiff.pages[0]
        at = page.dataoffsets[-1] + page.databytecounts[-1] // 2
    content = bytearray((tmp_path / "g.tif").read_bytes())
    content[at] ^= 0x10
    path.write_bytes(content)
    done = stylize(path, "--thumbnail", "100")
    one_sentence(done, 1, "f.tif", "1 block failed", "the same command")
    parts = list((tmp_path / "o" / "out.tif.job" / "parts").glob("[0-9]*.tif"))
    assert len(parts) == 8 and not (tmp_path / "o" / "out.tif").exists()


def test_styles(stylize, files: Path, tmp_path: Path) -> None:
    (tmp_path / "s.png").write_text("no")
    one_sentence(stylize(files / "scene.tif", style=tmp_path / "s.png"), 2, "s.png")
    one_sentence(stylize(files / "scene.tif", style=tmp_path / "none.png"), 2, "none.png")
    nothing_left(tmp_path)


def test_outputs(stylize, files: Path, tmp_path: Path) -> None:
    scene = files / "scene.tif"
    one_sentence(stylize(scene, output=tmp_path / "no" / "out.tif"), 2, "no folder", "no")
    one_sentence(stylize(scene, output=tmp_path / "o"), 2, "is a folder")
    shutil.copy(scene, tmp_path / "same.tif")
    one_sentence(stylize(tmp_path / "same.tif", output=tmp_path / "same.tif"), 2, "same file")
    one_sentence(stylize(scene, output=tmp_path / ("o" * 256)), 2, "longer than 255 bytes")
    nothing_left(tmp_path)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--model", "nosuch"), ("nosuch", "microast")),
        (("--tile", "130"), ("--tile", "130")),
        (("--block", "700"), ("--block", "700")),
        (("--memory", "100M"), ("--memory", "--tile")),
        (("--halo", "-4"), ("--halo",)),
        (("--alpha", "7"), ("--alpha",)),
        (("--job-dir", "/nowhere/job"), ("/nowhere", "--job-dir")),
        (("--bands", "9,1,2"), ("bands", "9")),
        (("--device", "cuda:7"), ("cuda:7",)),
        (("--model", "microast", "--weights", "/nowhere"), ("microast", "weights fetch")),
    ],
)
def test_options(stylize, files: Path, tmp_path: Path, options: tuple, words: tuple) -> None:
    one_sentence(stylize(files / "scene.tif", *options), 2, *words)
    nothing_left(tmp_path)


def test_tile_off_the_stride(stylize, files: Path, weights_dir: Path, tmp_path: Path) -> None:
    done = stylize(files / "scene.tif", "--model", "microast", "--weights", weights_dir, "--tile", "2")
    one_sentence(done, 2, "stride 4", "got 2")
    nothing_left(tmp_path)


def test_weights(stylize, files: Path, weights_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "w" / "microast"
    shutil.copytree(weights_dir / "microast", folder)
    for path in folder.iterdir():
        path.chmod(0o644)
    victim = folder / "decoder_iter_160000.pth.tar"
    content = bytearray(victim.read_bytes())
    content[1000] ^= 1
    victim.write_bytes(content)
    done = stylize(files / "scene.tif", "--model", "microast", "--weights", tmp_path / "w")
    one_sentence(done, 2, "decoder_iter_160000.pth.tar", "sha256")
    nothing_left(tmp_path)


def test_a_full_disk(run, files: Path, tmp_path: Path) -> None:
    """A small tmpfs; needs the right to mount."""
    place = tmp_path / "small"
    place.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "none", place], capture_output=True
    ).returncode:
        pytest.skip("no right to mount a tmpfs here")
    try:
        done = run("stylize", files / "scene.tif", place / "out.tif", "--style", files / "style.png", *SMALL)
        one_sentence(done, 2, "disk", "--job-dir")
        assert not list(place.iterdir())
        filler = place / "filler"
        subprocess.run(["mount", "-o", "remount,size=14m", place], check=True)
        geotiff(tmp_path / "noise.tif", np.random.default_rng(0).integers(0, 256, (900, 1100, 3), np.uint8))
        filler.write_bytes(bytes(4_500_000))
        arguments = (
            "stylize",
            tmp_path / "noise.tif",
            place / "out.tif",
            "--style",
            files / "style.png",
            *SMALL,
        )
        arguments += ("--thumbnail", "64")
        done = run(*arguments)
        one_sentence(done, 1, tmp_path, "same command")
        assert not (place / "out.tif").exists() and (place / "out.tif.job").is_dir()
        filler.unlink()
        done = run(*arguments)
        assert done.returncode == 0, done.stderr
        np.testing.assert_array_equal(
            tifffile.imread(place / "out.tif"), tifffile.imread(tmp_path / "noise.tif")
        )
    finally:
        subprocess.run(["umount", place], check=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_no_rights(stylize, files: Path, tmp_path: Path) -> None:
    (tmp_path / "o").mkdir()
    (tmp_path / "o").chmod(0o555)
    one_sentence(stylize(files / "scene.tif"), 2, "may not be written")


def bomb(path: Path, width: int, height: int, *, tiled: bool) -> Path:
    """A TIFF of one strip or tile of many gigabytes, in a few bytes."""
    tags = [
        (256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8),
        (259, 3, 1, 8), (262, 3, 1, 1), (277, 3, 1, 1),
    ]  # fmt: skip
    if tiled:
        tags += [
            (322, 4, 1, width // 16 * 16),
            (323, 4, 1, height // 16 * 16),
            (324, 4, 1, 8),
            (325, 4, 1, 100),
        ]
    else:
        tags += [(273, 4, 1, 8), (278, 4, 1, height), (279, 4, 1, 100)]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags))
    body = bytes(100)
    path.write_bytes(
        struct.pack("<2sHI", b"II", 42, 8 + len(body))
        + body
        + struct.pack("<H", len(tags))
        + entries
        + bytes(4)
    )
    return path


@pytest.mark.parametrize("tiled", [True, False])
def test_bombs(stylize, tmp_path: Path, tiled: bool) -> None:
    one_sentence(stylize(bomb(tmp_path / "b.tif", 160_000, 160_000, tiled=tiled)), 2, "b.tif")
    nothing_left(tmp_path)


def test_offsets_beyond_the_file(stylize, tmp_path: Path) -> None:
    path = geotiff(tmp_path / "f.tif", picture(600, 700))
    with tifffile.TiffFile(path, mode="r+") as tiff:
        tag = tiff.pages[0].tags["TileOffsets"]
        tag.overwrite([offset + (1 << 30) for offset in tag.value])
    one_sentence(stylize(path), 2, "f.tif")
    nothing_left(tmp_path)


def test_xml_with_entities_is_not_expanded(stylize, tmp_path: Path) -> None:
    laughs = "<!DOCTYPE x [<!ENTITY a 'ha'>" + "".join(
        f"<!ENTITY {b} '{('&' + a + ';') * 10}'>" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    xml = laughs + "]><GDALMetadata><Item name='x'>&i;</Item></GDALMetadata>"
    path = geotiff(tmp_path / "x.tif", picture(100, 120), extratags=[(42112, 2, 0, xml, True)])
    done = stylize(path)
    assert done.returncode in (0, 2) and "Traceback" not in done.stderr


def test_pipes_never_hang_a_command(run, run_apart, files: Path, tmp_path: Path) -> None:
    """As input, style, mask or output; nobody ever writes into this one, or reads from it. The last
    is tried in a process of its own, which must end too."""
    pipe, scene = tmp_path / "pipe.tif", files / "scene.tif"
    os.mkfifo(pipe)
    style = ("--style", files / "style.png")
    checkpoint = ("--model", "fast", "--style", pipe)
    last = ("stylize", scene, pipe, *style, *SMALL, "--overwrite")
    for arguments in (
        ("info", pipe),
        ("validate", pipe),
        ("stylize", pipe, tmp_path / "out.tif", *style, *SMALL),
        ("stylize", scene, tmp_path / "out.tif", "--style", pipe, *SMALL),
        ("stylize", scene, tmp_path / "out.tif", *checkpoint),
        ("stylize", scene, tmp_path / "out.tif", "--mask", pipe, "--style", f"1={style[1]}", *SMALL),
    ):
        one_sentence(run(*arguments), 2, pipe)
    one_sentence(run_apart(*last), 2, pipe)
    assert [path.name for path in tmp_path.iterdir()] == ["pipe.tif"] and pipe.is_fifo()


def test_pipes_never_hang_a_batch(run, run_apart, files: Path, tmp_path: Path) -> None:
    """Neither as the table, nor in the place of the record of an output."""
    pipe, table = tmp_path / "out.tif.json", tmp_path / "jobs.toml"
    os.mkfifo(pipe)
    one_sentence(run("run", pipe), 2, pipe, "no regular file")
    table.write_text(f"output = 'out.tif'\ninputs = '{files / 'small.tif'}'\nstyles = 'hokusai-wave'\n")
    done = run_apart("run", table)
    assert done.returncode == 1 and f"{pipe} is no regular file" in done.stderr, done.stderr
