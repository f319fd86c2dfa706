"""Which picture of a file is read, on the command line: chosen, told, listed, and kept in the output."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.errors
import tifffile
from helpers import picture

from urst_tiles.errors import BadInput
from urst_tiles.options import Options, from_table

PIXELS = picture(120, 150, seed=3)


@pytest.fixture
def settings(files: Path) -> tuple[str, ...]:
    """Flags of a job that changes nothing."""
    return "--model", "identity", "--tile", "128", "--block", "512", "--style", str(files / "style.png")


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    """Five channels of an OME-TIFF, of which the first three are a picture."""
    path = tmp_path / "stack.ome.tif"
    channels = [*np.moveaxis(PIXELS, -1, 0), PIXELS[::-1, :, 0], PIXELS[::-1, :, 1]]
    metadata = {"axes": "CYX", "Channel": {"Name": ["DAPI", "FITC", "TRITC", "Cy5", "AF<750>"]}}
    tifffile.imwrite(path, np.stack(channels), photometric="minisblack", metadata=metadata, ome=True)
    return path


def selection(path: Path) -> str:
    """What GDAL says of the selection that an output was made of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(path) as made:
            return str(made.tags()["SOURCE_SELECTION"])


SAID = "channels 1 (DAPI), 2 (FITC) and 3 (TRITC) of 5 as red, green and blue"


def test_the_choice_is_told_once_and_stands_in_the_output(
    run_apart, stack: Path, settings: tuple[str, ...], tmp_path: Path
) -> None:
    out = tmp_path / "out.tif"
    done = run_apart("stylize", stack, out, *settings)
    assert done.returncode == 0
    assert (
        done.stderr == f"urst-tiles: {stack}: reads {SAID}; --page, --channels or --bands choose otherwise\n"
    )
    np.testing.assert_array_equal(tifffile.imread(out), PIXELS)
    assert selection(out) == SAID
    assert run_apart("validate", out).returncode == 0


def test_a_chosen_picture_is_not_told_but_kept(
    run, stack: Path, settings: tuple[str, ...], tmp_path: Path
) -> None:
    out = tmp_path / "out.tif"
    done = run("stylize", stack, out, *settings, "--channels", "AF<750>,cy5,1")
    assert (done.returncode, done.stderr) == (0, "")
    np.testing.assert_array_equal(tifffile.imread(out)[..., 1], PIXELS[::-1, :, 0])
    assert selection(out).startswith("channels 5 (AF<750>), 4 (Cy5) and 1 (DAPI) of 5")


def test_another_choice_is_another_job(run, stack: Path, settings: tuple[str, ...], tmp_path: Path) -> None:
    job, out = tmp_path / "job", tmp_path / "out.tif"
    assert run("plan", stack, out, *settings, "--save", job).returncode == 0
    done = run("stylize", stack, out, *settings, "--job-dir", job, "--channels", "3,2,1")
    assert done.returncode == 2 and "channels" in done.stderr and "--overwrite" in done.stderr
    assert not out.exists()
    assert run("stylize", stack, out, *settings, "--job-dir", job).returncode == 0


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (
            ("--channels", "GFP"),
            "no channel 'GFP', which --channels asks for; it has the channels 1 (DAPI), ",
        ),
        (("--page", "9"), "no page '9', which --page asks for"),
        (("--channels", "1,2"), "--channels takes one or three channels, as in 3,2,1"),
        (
            ("--channels", "1", "--bands", "1"),
            "--channels and --bands choose the same colours; give one of them",
        ),
        (("--bands", "1,,2"), "expected numbers or names such as 3,2,1 or B4,B3,B2, got '1,,2'"),
        (("--page", ""), "expected a number, counted from 1, or a name, got ''"),
    ],
)
def test_what_is_not_there_is_refused_in_a_sentence(
    run, stack: Path, settings: tuple[str, ...], tmp_path: Path, flags: tuple[str, ...], said: str
) -> None:
    for command, output in (("stylize", "out.tif"), ("preview", "out.png")):
        done = run(command, stack, tmp_path / output, *settings, *flags)
        assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr
        assert not (tmp_path / output).exists()


def test_preview_tells_and_takes_the_choice(
    run, stack: Path, settings: tuple[str, ...], tmp_path: Path
) -> None:
    out = tmp_path / "out.png"
    assert SAID in run("preview", stack, out, *settings).stderr
    done = run("preview", stack, out, *settings, "--overwrite", "--channels", "3,2,1")
    assert (done.returncode, done.stderr) == (0, "")


def test_info_lists_channels_and_bands(run, stack: Path, files: Path) -> None:
    facts = json.loads(run("info", stack, "--json").stdout)
    assert facts["reads"] == SAID
    assert [(p["page"], p["size"], p["dtype"], p["channel"]) for p in facts["pages"]] == [
        (n, [150, 120], "uint8", n) for n in range(1, 6)
    ]
    assert [c["name"] for c in facts["channels"]] == ["DAPI", "FITC", "TRITC", "Cy5", "AF<750>"]
    shown = run("info", stack).stdout
    assert "\npage 5             150 x 120, 1 x uint8, image, channel 5, z 1, t 1\n" in shown
    assert "\nchannel 2          FITC\n" in shown
    chosen = json.loads(run("info", stack, "--json", "--page", "4").stdout)
    assert chosen["reads"] == "page 4 of 5, 150 x 120"
    plain = json.loads(run("info", files / "scene.tif", "--json").stdout)
    assert [b["colour"] for b in plain["bands"]] == ["red", "green", "blue"] and plain["reads"] is None


def test_info_lists_what_cannot_be_read(run, tmp_path: Path) -> None:
    path = tmp_path / "raw.dng"
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(PIXELS[::8, ::8], photometric="rgb", subfiletype=1, subifds=1, metadata=None)
        tiff.write(PIXELS[..., 0].astype("u2"), photometric=32803, metadata=None,
                   extratags=[(33421, 3, 2, (2, 2), True), (33422, 1, 4, b"\0\1\1\2", True)])  # fmt: skip
    done = run("info", path)
    assert done.returncode == 2 and "develop it into a TIFF first" in done.stderr
    assert done.stdout.splitlines()[1] == "page 2             150 x 120, 1 x uint16, raw"
    assert run("info", path, "--page", "1").returncode == 0


def test_options_take_numbers_and_names() -> None:
    assert Options(bands=[3, 2, 1]).bands == (3, 2, 1)  # type: ignore[arg-type]
    assert Options(bands="B4,B3,2").bands == ("B4", "B3", 2)  # type: ignore[arg-type]
    assert from_table("bands", ["B4", 3, "B2"], Path()) == ("B4", 3, "B2")
    assert from_table("channels", "DAPI", Path()) == ("DAPI",)
    assert from_table("page", 2, Path()) == 2 and from_table("page", "label", Path()) == "label"
    for wrong in ({"page": 0}, {"page": ""}, {"bands": (1, 2)}, {"bands": (0,)}, {"channels": (1.5,)}):
        with pytest.raises(BadInput, match=f"--{next(iter(wrong))} takes"):
            Options(**wrong)  # type: ignore[arg-type]
