"""Names that cannot be read or written get one sentence, which says what they are and what to do."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import pyvips
import tifffile
from helpers import geotiff, one_sentence, picture

import urst_tiles as ut
from urst_tiles.api.output import CONVERTERS
from urst_tiles.source.picture import read_picture, write_png
from urst_tiles.storage.names import NAME_MAX, beside, cut

SMALL = ("--model", "identity", "--tile", "128", "--block", "512", "--thumbnail", "64")

#: A name of 254 bytes in 127 characters, without a suffix.
LONG = "é" * 127

#: What is no file here -> words that the sentence about it must have.
NO_INPUT = {
    "-": ("standard input", "save it to a file"),
    "http://127.0.0.1:9/a.tif?x=1": ("http://127.0.0.1:9/a.tif?x=1",),
    "HTTP://user@127.0.0.1:9/a.tif": ("HTTP://user@127.0.0.1:9/a.tif",),
    "gopher://bucket/a.tif": ("gopher://bucket/a.tif is an address", "download"),
    "file:///data/a.tif": ("give the path alone: /data/a.tif",),
    "/vsicurl/http://127.0.0.1:9/a.tif": ("/vsicurl/http://127.0.0.1:9/a.tif",),
    "/vsizip/a.zip/b.tif": ("GDAL", "unpack"),
    "GTIFF_DIR:2:in.tif": ("only GDAL knows", "gdal_translate"),
    'NETCDF:"a.nc":band': ("only GDAL knows",),
    "C:\\data\\a.tif": ("a path of Windows",),
    "C:/data/a.tif": ("a path of Windows",),
    "\\\\server\\share\\a.tif": ("a path of Windows",),
    "folder\\in.tif": ("did you mean", "folder/in.tif?"),
    "in.tif[page=1]": ("without [page=1]", "libvips"),
    "in.tif[0]": ("without [0]",),
    "~/a.tif": ("only a shell replaces ~", os.path.expanduser("~/a.tif")),
    "in.tif/a.tif": ("in.tif is a file and no folder",),
    "broken.tif": ("a symbolic link to nowhere.tif, which does not exist",),
    "loop.tif": ("symbolic link",),
    "socket.tif": ("no regular file", "a socket"),
    "/dev/null": ("no regular file",),
    "empty": ("is a folder",),
    "empty/": ("is a folder",),
    "empty/*.tif": ("no", "empty/*.tif"),
    "@none.txt": ("none.txt",),
    "none.tif": ("there is no", "none.tif"),
    "": ("is empty",),
    "a" * 300: ("too long",),
}

#: What cannot be written here -> words that the sentence about it must have.
NO_OUTPUT = {
    "out.jxl": ("name it out.tif", "`vips copy out.tif out.jxl`"),
    "out.AVIF": ("`vips copy out.tif out.AVIF`",),
    "out.j2c": ("name it out.tif",),
    "out.vrt": ("gdal_translate out.tif out.vrt", "--format"),
    "scene.2024": ("name it scene.tif",),
    "out.": ("name it out.tif",),
    "a b.vrt": ("gdal_translate 'a b.tif' 'a b.vrt'",),
    "to_gif.tif": ("picture.gif is no name of a format",),
    "none/": ("is a folder", "none/out.tif"),
    "folder/": ("is a folder", "folder/out.tif"),
    "folder": ("is a folder",),
    "folder/..": ("is a folder",),
    ".": ("is a folder",),
    "": ("no name of a file",),
    "-": ("standard output", "./-"),
    "https://example.com/out.tif": ("https://example.com/out.tif is an address", "upload"),
    "nowhere://bucket/out.tif": ("nowhere://bucket/out.tif",),
    "/vsimem/out.tif": ("GDAL", "upload"),
    "C:\\out.tif": ("a path of Windows",),
    "~/out.tif": ("no folder", "only a shell replaces ~"),
    "none/out.tif": ("no folder", "make it first"),
    "in.tif/out.tif": ("in.tif is a file and no folder",),
    "to_none.tif": ("no folder",),
    "loop.tif": ("symbolic link",),
    "socket.tif": ("no regular file",),
    "/dev/null": ("no regular file",),
    "a" * 252 + ".tif": ("longer than 255 bytes",),
}


@pytest.fixture
def place(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with an image, and with much that is none."""
    monkeypatch.chdir(tmp_path)
    geotiff(tmp_path / "in.tif", picture(90, 110))
    write_png(tmp_path / "picture.png", picture(64, 80))
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty").mkdir()
    shutil.copy("in.tif", "folder/in.tif")
    for name, target in {
        "broken.tif": "nowhere.tif", "to_none.tif": "none/out.tif", "to_gif.tif": "picture.gif",
        "loop.tif": "loop.tif",
    }.items():  # fmt: skip
        os.symlink(target, name)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.tif")
        yield tmp_path


def state(folder: Path) -> dict[str, bytes | None]:
    """The files under a folder and their content."""
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


@pytest.mark.parametrize("name", list(NO_INPUT))
def test_what_is_no_input(run, place: Path, name: str) -> None:
    before, words = state(place), NO_INPUT[name]
    for arguments in (
        ("info", name),
        ("validate", name),
        ("stylize", name, "out.tif", *SMALL),
        ("stylize", "in.tif", "out.tif", "--model", "fast", "--style", name),
        ("stylize", "in.tif", "out.tif", "--style", "1=picture.png", "--mask", name or "folder"),
        ("preview", name, "out.png", *SMALL),
    ):
        one_sentence(run(*arguments), 2, *(() if name == "" else words))
    if name not in ("none.tif", "a" * 300):
        one_sentence(run("stylize", "in.tif", "out.tif", "--style", name), 2, *words)
    assert state(place) == before


@pytest.mark.parametrize("name", list(NO_INPUT))
def test_what_is_no_input_of_python(place: Path, name: str) -> None:
    words = NO_INPUT[name]
    for call in (
        lambda: ut.open_source(name),
        lambda: ut.validate(name),
        lambda: ut.stylize(name, "out.tif", None, model="identity"),
        lambda: ut.map_blocks(ut.freeze(ut.recipe_of(None, ut.Options(model="identity")), {}), name),
    ):
        with pytest.raises(ut.BadInput) as caught:
            call()
        assert all(word in str(caught.value) for word in words), caught.value


def test_a_folder_is_an_image_as_input_alone(run, place: Path) -> None:
    """Of what else is read, and of what is checked, a single file is to be named."""
    assert run("info", "folder").returncode == 0
    for arguments in (
        ("validate", "folder"),
        ("stylize", "in.tif", "out.tif", "--model", "fast", "--style", "folder"),
        ("stylize", "in.tif", "out.tif", "--style", "1=picture.png", "--mask", "folder"),
    ):
        one_sentence(run(*arguments), 2, "folder is a folder", "name ")


@pytest.mark.parametrize("name", list(NO_OUTPUT))
def test_what_is_no_output(run, place: Path, name: str) -> None:
    before, words = state(place), NO_OUTPUT[name]
    for arguments in (
        ("stylize", "in.tif", name, *SMALL, "--overwrite"),
        ("plan", "in.tif", name, *SMALL, "--overwrite"),
        ("plan", "in.tif", name, *SMALL, "--save", "JOB", "--overwrite"),
    ):
        one_sentence(run(*arguments), 2, *words)
    with pytest.raises(ut.BadInput) as caught:
        ut.stylize("in.tif", name, None, model="identity", overwrite=True)
    assert all(word in str(caught.value) for word in words), caught.value
    assert state(place) == before


@pytest.mark.parametrize(
    "name", [name for name in NO_OUTPUT if name not in ("none/out.tif", "to_none.tif", "~/out.tif")]
)
def test_what_is_no_output_of_a_table(run, place: Path, name: str) -> None:
    """(Folders that do not exist are made.)"""
    quoted = name.replace("\\", "\\\\")
    (place / "jobs.toml").write_text(f'inputs="in.tif"\noutput="{quoted}"\n[options]\nmodel="identity"\n')
    before = state(place)
    done = run("run", "jobs.toml")
    assert done.returncode in (1, 2) and "Traceback" not in done.stderr, done.stderr
    assert "Error" not in done.stderr
    words = NO_OUTPUT[name]
    if name in ("to_gif.tif", "loop.tif", "socket.tif", "/dev/null", "in.tif/out.tif"):
        one_sentence(done, 1, *words)  # of one job; the others of a table go on
    else:
        one_sentence(done, 2, "jobs.toml", *(word.replace("none/out", "out") for word in words))
    assert state(place) == before


@pytest.mark.parametrize(
    "name", ["out.tif", "out.TIFF", "out.btf", "out", ".hidden", "a.b.tif", "./-", "./-x.tif"]
)
def test_what_is_an_output(run, place: Path, name: str) -> None:
    done = run("stylize", "in.tif", name, *SMALL)
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(tifffile.imread(name), tifffile.imread("in.tif"))


def test_every_converter_is_named_by_a_suffix_that_is_refused(place: Path) -> None:
    for suffix in CONVERTERS:
        with pytest.raises(ut.BadInput, match=r"name it out\.tif, and convert"):
            ut.stylize("in.tif", f"out{suffix}", None, model="identity")


def test_assemble_asks_the_same_of_its_output(run, place: Path) -> None:
    assert run("plan", "in.tif", "out.tif", *SMALL, "--save", "JOB").returncode == 0
    assert run("work", "JOB").returncode == 0
    before = state(place)
    for name, words in NO_OUTPUT.items():
        done = run("assemble", "JOB", "--output", name, "--overwrite")
        assert done.returncode in (1, 2)  # what the name alone tells is found before the job is opened
        one_sentence(done, done.returncode, *words)
    one_sentence(run("assemble", "JOB", "--output", "in.tif", "--overwrite"), 1, "input are the same file")
    lock = str(place / "JOB" / "lock")  # has the name of who came last
    assert state(place) | {lock: b""} == before | {lock: b""}
    assert run("assemble", "JOB", "--output", "other.tif").returncode == 0


@pytest.mark.parametrize("name", ["out.jpg", "out.JPEG", "out.png"])
def test_pictures_have_the_format_of_their_suffix(run, place: Path, name: str) -> None:
    pixels = np.dstack([picture(90, 110), np.full((90, 110), 255, np.uint8)])
    pixels[:40, :40, 3] = 0
    tifffile.imwrite("alpha.tif", pixels, photometric="rgb", extrasamples=["unassalpha"])
    done = run("preview", "alpha.tif", name, *SMALL, "--thumbnail", "90")
    assert done.returncode == 0, done.stderr
    loader = pyvips.Image.new_from_file(name).get("vips-loader")
    assert loader.startswith("png" if name.endswith("png") else "jpeg")
    seen = read_picture(Path(name), 90)
    np.testing.assert_allclose(seen[:36, :36], 1, atol=0.02)
    np.testing.assert_allclose(seen[44:, 44:], pixels[44:, 44:, :3] / 255, atol=0.3)


@pytest.mark.parametrize("name", ["out.tif", "out.webp", "out", "folder/", "-", "https://e.org/out.png"])
def test_pictures_of_other_suffixes_are_refused(run, place: Path, name: str) -> None:
    before = state(place)
    one_sentence(run("preview", "in.tif", name, *SMALL), 2)
    one_sentence(run("styles", "--sheet", name), 2)
    assert state(place) == before


def test_nothing_that_is_read_is_written(run, place: Path) -> None:
    """Under its name, another spelling of it, a hard link or a symbolic link."""
    for name in ("style.tif", "mask.tif", "side.tif", "in.tif.msk"):
        image = picture(90, 110) if name == "style.tif" else np.ones((90, 110), np.uint8)
        tifffile.imwrite(name, image)
    Path("in.tfw").write_text("1\n0\n0\n-1\n0\n0\n")
    for name in ("in.tif", "style.tif", "mask.tif", "in.tif.msk", "in.tfw", "picture.png"):
        os.link(name, f"hard_{name.replace('.', '_')}.tif")
        os.symlink(name, f"soft_{name.replace('.', '_')}")
    before = state(place)
    masked = ("--mask", "mask.tif", "--style", "1=style.tif", "--style", "2=picture.png")
    for name, what in {
        "in.tif": "input", "folder/../in.tif": "input", "hard_in_tif.tif": "input", "soft_in_tif": "input",
        "style.tif": "style", "hard_style_tif.tif": "style", "soft_style_tif": "style",
        "hard_picture_png.tif": "style", "mask.tif": "mask", "./mask.tif": "mask",
        "hard_mask_tif.tif": "mask", "hard_in_tif_msk.tif": "sidecar", "hard_in_tfw.tif": "sidecar",
        "soft_in_tif_msk": "is no name", "soft_in_tfw": "is no name",
    }.items():  # fmt: skip
        done = run("stylize", "in.tif", name, *SMALL, *masked, "--overwrite")
        one_sentence(done, 2, what)
    for arguments in (("--style", "picture.png"), (*masked[:4], "--style", "2=picture.png")):
        one_sentence(run("preview", "in.tif", "picture.png", *SMALL, *arguments), 2, "style", "same file")
    os.rename("mask.tif", "mask.png")
    one_sentence(run("preview", "in.tif", "mask.png", *SMALL, "--mask", "mask.png", *masked[2:]), 2, "mask")
    os.rename("mask.png", "mask.tif")
    one_sentence(run("styles", "--sheet", "picture.png", "--input", "./picture.png"), 2, "same file")
    assert state(place) == before


def test_no_job_of_a_table_writes_what_another_reads(run, place: Path) -> None:
    shutil.copy("in.tif", "style.tif")
    os.link("style.tif", "hard.tif")
    table = 'inputs="in.tif"\nstyles="style.tif"\noutput="{}"\n[options]\nmodel="identity"\n'
    for name in ("style.tif", "folder/../style.tif", "hard.tif", "in.tif"):
        Path("jobs.toml").write_text(table.format(name))
        one_sentence(run("run", "jobs.toml", "--overwrite"), 2, "is read, and is the output of")
    Path("jobs.toml").write_text(table.format("out.tif"))
    for name in ("in.tif", "hard.tif", "jobs.toml", "folder/", "s3://b/a.csv"):
        one_sentence(run("run", "jobs.toml", "--summary", name), 2)
    assert not Path("out.tif").exists()


@pytest.mark.parametrize(
    "pattern", ["https://example.com/*.tif", "-", "~/x.tif", "in.tif[page=1]", "C:\\\\a.tif"]
)
def test_inputs_of_a_table(run, place: Path, pattern: str) -> None:
    Path("jobs.toml").write_text(f'inputs="{pattern}"\noutput="o.tif"\n[options]\nmodel="identity"\n')
    words = NO_INPUT.get(pattern, ("https://example.com/*.tif is an address",) if "http" in pattern else ())
    one_sentence(run("run", "jobs.toml"), 2, "jobs.toml", *words)


def test_names_with_brackets_are_names(run, place: Path) -> None:
    """libvips takes what is in brackets at the end of a name for options."""
    pixels = picture(90, 110)
    for name in ("in.tif[page=1]", "photo.png[1]", "photo [2].png", "[x]", "photo.jpg[shrink=2]"):
        kind = ".tif" if "tif" in name else ".jpg" if "jpg" in name else ".png"
        Path(name).write_bytes(pyvips.Image.new_from_array(pixels).write_to_buffer(kind))
        assert ut.open_source(name).shape == (90, 110)
        assert np.abs(read_picture(Path(name), 90) - pixels / 255).mean() < 0.1
        done = run("stylize", name, "out.tif", *SMALL, "--style", name, "--overwrite")
        assert done.returncode == 0, done.stderr
        if kind != ".jpg":
            np.testing.assert_array_equal(tifffile.imread("out.tif"), pixels)
    write_png(Path("mask.png"), np.zeros((90, 110, 3), np.uint8))
    pyvips.Image.new_from_array(np.ones((90, 110), np.uint8)).write_to_file("m.png")
    os.rename("m.png", "mask[1]")
    done = run(
        "stylize", "in.tif", "out.tif", *SMALL, "--mask", "mask[1]", "--style", "1=picture.png", "--overwrite"
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "name", ["T10:30.tif", "a:b/c.tif", "aa:/c.tif", "~x.tif", "~tmp/x.tif", "a\\b.tif", "vsi/x.tif"]
)
def test_odd_names_are_names(run, place: Path, name: str) -> None:
    Path(name).parent.mkdir(exist_ok=True)
    assert run("stylize", "in.tif", name, *SMALL).returncode == 0
    assert "110 x 90" in run("info", name).stdout
    os.remove(name)
    said = run("info", name).stderr
    assert "there is no file" in said and "only" not in said and "is a" not in said


def test_names_that_begin_with_a_dash(run, place: Path) -> None:
    shutil.copy("in.tif", "-x.tif")
    shutil.copy("in.tif", "--y")
    for arguments in (
        ("info", "-x.tif"),
        ("stylize", "in.tif", "-out.tif", *SMALL),
        ("stylize", "-x.tif", "out.tif", *SMALL),
        ("stylize", "in.tif", "out.tif", *SMALL, "--style", "-x.tif"),
        ("validate", "--y"),
    ):
        odd = next(word for word in arguments if word in ("-x.tif", "-out.tif", "--y"))
        one_sentence(run(*arguments), 2, f"{odd} is taken for an option", f"./{odd}")
    assert "110 x 90" in run("info", "./-x.tif").stdout
    assert "110 x 90" in run("info", "--", "-x.tif").stdout
    done = run("stylize", "in.tif", "out.tif", "--alpha", "-0.5")
    one_sentence(done, 2, "--alpha must lie")
    done = run("stylize", "in.tif", "--nosuch", "a.tif")
    assert done.returncode == 2 and "taken for an option" not in done.stderr


@pytest.mark.parametrize("name", ["x" + LONG[:123] + ".tif", LONG[:125] + ".tif", LONG[:127], "x" + LONG])
def test_long_names(run, place: Path, name: str) -> None:
    """The job folder, the record and what is not finished have longer names, and these must fit."""
    assert 250 <= len(os.fsencode(name)) <= 255
    shutil.copy("in.tif", "c" + name[1:])
    done = run("stylize", "c" + name[1:], name, *SMALL)
    assert done.returncode == 0, done.stderr
    assert ut.validate(name).valid
    os.remove(name)
    Path("jobs.toml").write_text(
        f'inputs="in.tif"\noutput="{name}"\n[options]\nmodel="identity"\nthumbnail=64\n'
    )
    assert run("run", "jobs.toml").returncode == 0
    assert "1 were done before" in run("run", "jobs.toml").stdout
    records = [path for path in place.iterdir() if path.suffix == ".json"]
    assert len(records) == 1 and records[0].name.startswith("x"[: name[0] == "x"] + "é" * 100)
    assert run("plan", "in.tif", name, *SMALL, "--overwrite").returncode == 0
    assert not [path for path in place.iterdir() if ".job" in path.name or path.name.endswith(".tmp")]
    picture_name = cut(name, 251) + ".png"
    assert run("preview", "in.tif", picture_name, *SMALL).returncode == 0
    one_sentence(run("info", "e" + name[1:]), 2, "there is no file")


def test_a_name_beside_another_fits_and_is_no_others() -> None:
    for text in ("a.tif", "x" * 251, "é" * 126, "漢" * 85, "x" + "😀" * 63, os.fsdecode(b"\xff\xe9" * 127)):
        path = Path("/folder") / text
        name = os.fsencode(beside(path, ".job").name)
        assert len(name) <= NAME_MAX and name.endswith(b".job") and beside(path, ".job").parent == path.parent
        if b"\xff" not in name:
            name.decode()
    assert beside(Path("/f/out.tif"), ".job") == Path("/f/out.tif.job")
    assert beside(Path("x" * 251), ".job").name == "x" * 251 + ".job"
    assert beside(Path("x" * 254 + "a"), ".job") != beside(Path("x" * 254 + "b"), ".job")
    assert [cut("aé😀", n) for n in range(8)] == ["", "a", "a", "aé", "aé", "aé", "aé", "aé😀"]


def test_a_path_through_a_link_is_the_systems(run, place: Path) -> None:
    """``link/../in.tif`` is beside the folder that the link leads to."""
    geotiff(place / "folder" / "in.tif", picture(50, 60))
    (place / "folder" / "inner").mkdir()
    os.symlink("folder/inner", "link")
    assert ut.open_source("link/../in.tif").shape == (50, 60)
    Path("jobs.toml").write_text(
        'inputs="link/../in.tif"\noutput="link/../out.tif"\n[options]\nmodel="identity"\nthumbnail=64\n'
    )
    assert run("run", "jobs.toml").returncode == 0
    assert tifffile.imread("folder/out.tif").shape == (50, 60, 3) and not Path("out.tif").exists()


def test_identity_needs_no_style(run, place: Path) -> None:
    assert run("stylize", "in.tif", "out.tif", *SMALL).returncode == 0
    np.testing.assert_array_equal(tifffile.imread("out.tif"), tifffile.imread("in.tif"))
    assert run("stylize", "in.tif", "b.tif", *SMALL, "--style", "picture.png").returncode == 0
    one_sentence(run("stylize", "in.tif", "c.tif"), 2, "no style given")
    one_sentence(run("stylize", "in.tif", "c.tif", *SMALL, "--preserve-color", "coral"), 2, "coral")


def test_a_folder_that_may_not_be_written(run, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """(Root may write anywhere, so that the answer of the system is made up.)"""
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    one_sentence(run("stylize", "in.tif", "folder/out.tif", *SMALL), 2, "folder may not be written")


def test_a_picture_is_no_checkpoint(run, place: Path) -> None:
    """torch's own words advise to load such a file in a way that would run code in it."""
    done = run("stylize", "in.tif", "out.tif", "--model", "fast", "--style", "picture.png")
    one_sentence(done, 2, "picture.png", "no checkpoint")
    assert "weights_only" not in done.stderr
