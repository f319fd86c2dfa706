"""Look files and `fit_colour`: made once, used on many, and the same as a job on disk."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from colours import METHODS, scene, slide, written

import urst_tiles as ut
from urst_tiles.errors import BadInput
from urst_tiles.nets import Look

MODELS = [*(("colour", method) for method in METHODS), ("stain", "macenko"), ("stain", "reinhard")]


def pair(model: str, tmp_path: Path) -> tuple[Path, Path]:
    if model == "stain":
        return written(tmp_path / "in.tif", slide(300, 260, 0)), written(
            tmp_path / "r.tif", slide(200, 200, 7)
        )
    image, ref = scene(300, 260, 0, (1.0, 0.8, 0.6)), scene(200, 200, 5, (0.7, 0.9, 1.0))
    return written(tmp_path / "in.tif", image), written(tmp_path / "r.tif", ref)


@pytest.mark.parametrize(("model", "method"), MODELS)
def test_a_look_file_and_a_fitted_object_give_the_bytes_of_the_reference(
    model, method, tmp_path: Path, run
) -> None:
    input, ref = pair(model, tmp_path)
    ut.stylize(input, tmp_path / "a.tif", ref, model=model, method=method)
    done = run("measure", ref, "-o", tmp_path / "look.json", "--model", model, "--method", method)
    assert done.returncode == 0, done.stderr
    facts = json.loads((tmp_path / "look.json").read_text())
    assert (facts["model"], facts["method"], facts["measured on"]) == (model, method, "exact")
    assert facts["measured from"][0] | {"fingerprint": ""} == {
        "name": "r.tif", "width": 200, "height": 200, "dtype": "uint8", "fingerprint": "", "weight": 1.0,
    }  # fmt: skip
    assert facts["units"]
    ut.stylize(input, tmp_path / "b.tif", tmp_path / "look.json", model=model)
    first = tifffile.imread(tmp_path / "a.tif")
    np.testing.assert_array_equal(first, tifffile.imread(tmp_path / "b.tif"))
    colour = ut.fit_colour(input, ref, model=model, method=method)
    pixels = tifffile.imread(input)
    np.testing.assert_array_equal(colour(pixels[40:90, 17:80]), first[40:90, 17:80])
    tensor = torch.from_numpy(pixels[40:90, 17:80]).permute(2, 0, 1)[None]
    again = pickle.loads(pickle.dumps(colour))(tensor)
    np.testing.assert_array_equal(again[0].permute(1, 2, 0).numpy(), first[40:90, 17:80])
    floats = colour(pixels[40:90, 17:80].astype(np.float32) / 255)
    assert np.abs(floats * 255 - first[40:90, 17:80]).max() < 0.51


def test_several_images_make_one_look_in_which_each_counts_the_same(tmp_path: Path) -> None:
    files = [written(tmp_path / f"{k}.tif", scene(60 * k, 90, k, (0.7, 0.9, 1.0))) for k in (1, 2, 3)]
    look = ut.measure_look(files, model="colour", method="reinhard-lab")
    singles = [ut.measure_look(file, model="colour", method="reinhard-lab") for file in files]
    np.testing.assert_allclose(
        look.statistics["mean"], np.mean([one.statistics["mean"] for one in singles], 0)
    )
    assert [source.name for source in look.sources] == ["1.tif", "2.tif", "3.tif"]
    assert sum(source.weight for source in look.sources) == pytest.approx(1)
    back = Look.from_json(look.to_json())
    for name, values in look.statistics.items():
        np.testing.assert_array_equal(back.statistics[name], values)


def test_fitting_several_images_fits_their_pixels_together(tmp_path: Path) -> None:
    image, ref = (
        scene(200, 200, 0, (1.0, 0.8, 0.6)),
        written(tmp_path / "r.tif", scene(90, 90, 5, (0.7, 0.9, 1.0))),
    )
    together = ut.fit_colour([image[:70], image[70:]], ref, method="mean-std")
    np.testing.assert_array_equal(together(image), ut.fit_colour(image, ref, method="mean-std")(image))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{}", "no look file"),
        ("[1, 2", "no look file"),
        ('{"format": "urst-tiles look", "version": 9}', "version 9"),
        ("MEAN", "does not hold what a look of mean-std holds: mean, covariance"),
        ("SPREAD", "covariance cannot be right"),
        ("OTHER", "is a look of --model colour --method mean-std"),
    ],
)
def test_a_look_that_is_none_is_refused_by_name(text: str, said: str, tmp_path: Path) -> None:
    input, ref = pair("colour", tmp_path)
    facts = json.loads(ut.measure_look(ref, model="colour", method="mean-std").to_json())
    if text == "MEAN":
        facts["statistics"]["mean"] = [1, 2]
    if text == "SPREAD":
        facts["statistics"]["covariance"][0][0] = -1
    (tmp_path / "look.json").write_text(json.dumps(facts) if text.isupper() else text)
    method = {"method": "histogram"} if text == "OTHER" else {}
    with pytest.raises(BadInput, match=rf"look\.json.*{said}"):
        ut.stylize(input, tmp_path / "o.tif", tmp_path / "look.json", model="colour", **method)
    assert not (tmp_path / "o.tif").exists()


def test_measure_never_replaces_a_file_unasked(tmp_path: Path, run) -> None:
    _, ref = pair("colour", tmp_path)
    (tmp_path / "look.json").write_text("mine")
    done = run("measure", ref, "-o", tmp_path / "look.json", "--model", "colour")
    assert done.returncode == 2 and "--overwrite" in done.stderr
    assert (tmp_path / "look.json").read_text() == "mine"
    assert run("measure", ref, "-o", tmp_path / "l.txt", "--model", "colour").returncode == 2
    lite = run("measure", ref, "-o", tmp_path / "l.json")
    assert lite.returncode == 2 and "colour or stain" in lite.stderr


def test_what_fit_colour_cannot_take(tmp_path: Path) -> None:
    input, ref = pair("colour", tmp_path)
    colour = ut.fit_colour(input, ref)
    for wrong in (np.zeros((4, 4)), np.zeros((4, 4, 3), np.int32), torch.zeros(4, 4, 3), "text"):
        with pytest.raises(BadInput):
            colour(wrong)
    with pytest.raises(BadInput, match="exact or thumbnail"):
        ut.fit_colour(input, ref, statistics="local")


def trilinear(x: np.ndarray, table: np.ndarray) -> np.ndarray:
    """x (n, 3) in 0..1 by a table [blue, green, red], in float64."""
    top = len(table) - 1
    low = np.minimum(np.floor(x * top), top - 1).astype(int)
    part, out = x * top - low, np.zeros_like(x)
    for r in (0, 1):
        for g in (0, 1):
            for b in (0, 1):
                weight = np.prod(np.where([r, g, b], part, 1 - part), axis=1)
                out += weight[:, None] * table[low[:, 2] + b, low[:, 1] + g, low[:, 0] + r]
    return out


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_cube_file_is_looked_up_trilinearly(dtype, tmp_path: Path) -> None:
    """Red is fastest in the file, as the specification says."""
    image, table = scene(140, 600, 0, (1.0, 0.8, 0.6), dtype), np.random.default_rng(0).random((5, 5, 5, 3))
    rows = "\n".join(" ".join(f"{v:.9f}" for v in row) for row in table.reshape(-1, 3))
    (tmp_path / "film.cube").write_text(
        f'# by hand\nTITLE "a film"\nLUT_3D_SIZE 5\nDOMAIN_MIN 0 0 0\n{rows}\n'
    )
    input = written(tmp_path / "in.tif", image)
    ut.stylize(input, tmp_path / "o.tif", tmp_path / "film.cube", model="colour", block=512, tile=64)
    top = np.iinfo(dtype).max
    wanted = trilinear(image.reshape(-1, 3) / top, table).reshape(image.shape) * top
    assert np.abs(tifffile.imread(tmp_path / "o.tif") - wanted).max() < (0.51 if dtype == np.uint8 else 1.5)


def test_a_transfer_is_written_as_a_cube_and_comes_back(tmp_path: Path) -> None:
    input, ref = pair("colour", tmp_path)
    colour = ut.fit_colour(input, ref, method="mean-std")
    colour.save_cube(tmp_path / "t.cube", 65)
    ut.stylize(input, tmp_path / "o.tif", tmp_path / "t.cube", model="colour")
    pixels = tifffile.imread(input)
    assert np.abs(tifffile.imread(tmp_path / "o.tif").astype(int) - colour(pixels)).max() <= 1
    with pytest.raises(BadInput, match=r"\.cube"):
        colour.save_cube(tmp_path / "t.txt")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("LUT_3D_SIZE 2\n" + "0 0 0\n" * 7, "has 7 colours, and LUT_3D_SIZE 2 needs 8"),
        ("LUT_1D_SIZE 2\n0 0 0\n1 1 1\n", "three dimensions are needed"),
        ("0 0 0\n" * 8, "LUT_3D_SIZE from 2 to 256 is missing"),
        ("LUT_3D_SIZE 2\n" + "0 nan 0\n" * 8, "line 2: expected three numbers"),
        ("LUT_3D_SIZE 2\nDOMAIN_MAX 2 2 2\n" + "0 0 0\n" * 8, "from 0 to 1"),
    ],
)
def test_a_damaged_cube_file_is_refused_by_name(text: str, said: str, tmp_path: Path) -> None:
    input, _ = pair("colour", tmp_path)
    (tmp_path / "film.cube").write_text(text)
    with pytest.raises(BadInput, match=rf"film\.cube.*{said}"):
        ut.stylize(input, tmp_path / "o.tif", tmp_path / "film.cube", model="colour")


def test_lut_takes_a_table_and_no_image(tmp_path: Path) -> None:
    input, ref = pair("colour", tmp_path)
    with pytest.raises(BadInput, match="takes a table of colours"):
        ut.stylize(input, tmp_path / "o.tif", ref, model="colour", method="lut")
