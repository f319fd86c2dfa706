"""Looks of painting networks: many images measured as one, and painted alike."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from networks import moments_of, picture_of, style_of, tensor_of
from safetensors.torch import load_file

import urst_tiles as ut
from urst_tiles.errors import BadInput, MissingFile, UrstError
from urst_tiles.moments import Moments
from urst_tiles.nets import MODELS, PaintingLook, family, freeze, load_frozen, read_painting_look
from urst_tiles.nets.lite import blocks

STYLE = "hokusai-wave"
FAST = {"thumbnail": 64, "device": "cpu", "threads": 1, "precision": "float32"}


def pixels(height: int, width: int, seed: int, dtype: str = "uint8", top: int = 256) -> np.ndarray:
    """Smooth blobs with noise, of colours that depend on the seed."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width][..., None]
    waves = np.sin(x * random.uniform(0.02, 0.1, 3) + y * random.uniform(0.02, 0.1, 3) + seed)
    values = (0.5 + 0.3 * waves * random.uniform(0.4, 1, 3)) * top + random.normal(0, top / 30, waves.shape)
    return np.clip(values, 0, top - 1).astype(dtype)


def written(path: Path, array: np.ndarray, **more) -> Path:
    tifffile.imwrite(path, array, photometric="rgb", tile=(128, 128), **more)
    return path


def scenes(folder: Path, dtype: str = "uint8", top: int = 256) -> list[Path]:
    """Two scenes whose left 256 columns are the same, and whose right ones are not."""
    same = pixels(256, 256, 0, dtype, top)
    others = [pixels(256, 256, seed, dtype, top) for seed in (5, 9)]
    return [written(folder / f"{k}.tif", np.concatenate([same, other], 1)) for k, other in enumerate(others)]


def sites_of(image: np.ndarray, maps, style) -> dict[str, np.ndarray]:
    """The features (C, cells) that reach each site of a whole image, past the maps of the sites before."""
    seen = {}

    def at(site, x):
        seen[site.name] = x[0].flatten(1).double().numpy()
        return maps[site.name](x)

    x = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    with torch.inference_mode():
        style.forward(x, at)
    return seen


def test_merged_moments_are_those_of_all_features_together(tmp_path: Path) -> None:
    """Each site is measured over both images past the maps that follow from both."""
    images = [pixels(120, 96, 1), pixels(64, 200, 2)]
    files = [written(tmp_path / f"{k}.tif", image) for k, image in enumerate(images)]
    look = ut.measure_painting_look(files, STYLE, statistics="exact", device="cpu")
    seen = [sites_of(image, look.net.affines, look.style) for image in images]
    assert list(look.moments) == ["colour", *blocks()]
    for site in look.style.sites:
        together = np.concatenate([one[site.name] for one in seen], 1)
        expected, found = Moments.of(together, full=site.full), look.moments[site.name]
        assert found.n == together.shape[1]
        np.testing.assert_allclose(found.mean, together.mean(1), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found.m2 / found.n, expected.m2 / expected.n, rtol=1e-3, atol=1e-5)
    colours = np.concatenate([image.reshape(-1, 3) for image in images]) / 255
    np.testing.assert_allclose(look.moments["colour"].covariance(), np.cov(colours.T, ddof=0), rtol=1e-5)


def test_a_thumbnail_counts_for_the_pixels_that_it_stands_for(tmp_path: Path) -> None:
    images = [np.full((512, 512, 3), 200, np.uint8), np.full((128, 128, 3), 40, np.uint8)]
    files = [written(tmp_path / f"{k}.tif", image) for k, image in enumerate(images)]
    look = ut.measure_painting_look(files, STYLE, **{k: FAST[k] for k in ("thumbnail", "device")})
    share = 512**2 / (512**2 + 128**2)
    np.testing.assert_allclose(look.moments["colour"].mean, (200 * share + 40 * (1 - share)) / 255, rtol=1e-5)


@pytest.mark.parametrize(
    ("dtype", "top", "statistics"),
    [
        ("uint8", 256, "thumbnail"),
        ("uint16", 3000, "exact"),
        pytest.param("uint8", 256, "exact", marks=pytest.mark.slow),
        pytest.param("uint16", 3000, "thumbnail", marks=pytest.mark.slow),
    ],
)
def test_scenes_that_share_a_half_get_the_same_half(
    dtype: str, top: int, statistics: str, tmp_path: Path
) -> None:
    """What lies farther from the other half than the network reaches has equal bytes; without a look not."""
    files = scenes(tmp_path, dtype, top)
    look = tmp_path / "look.safetensors"
    ut.measure_painting_look(files, STYLE, statistics=statistics, thumbnail=64, device="cpu").save(look)
    alike, alone = [], []
    for k, file in enumerate(files):
        done = ut.stylize(file, tmp_path / f"a{k}.tif", None, look=look, tile=128, block=256, **FAST)
        assert done.plan.statistics == "look" and done.plan.passes == 1
        alike.append(tifffile.imread(done.output))
        other = ut.stylize(file, tmp_path / f"b{k}.tif", STYLE, statistics=statistics, **FAST)
        alone.append(tifffile.imread(other.output))
    far = slice(0, 256 - 48)
    np.testing.assert_array_equal(alike[0][:, far], alike[1][:, far])
    assert (alone[0][:, far] != alone[1][:, far]).any()
    assert (alike[0][:, 256:] != alike[1][:, 256:]).any()


def test_a_look_of_one_image_is_its_own_run(tmp_path: Path) -> None:
    """Tiled and whole, by the command line, a table, a saved job and Python."""
    file, look = scenes(tmp_path)[0], tmp_path / "look.safetensors"
    ut.measure_painting_look(file, STYLE, statistics="exact", device="cpu", threads=1).save(look)
    own = ut.stylize(file, tmp_path / "own.tif", STYLE, statistics="exact", tile=128, block=256, **FAST)
    expected = tifffile.imread(own.output)
    tiled = ut.stylize(file, tmp_path / "t.tif", None, look=look, tile=128, block=256, **FAST)
    whole = ut.stylize(file, tmp_path / "w.tif", None, look=look, tile=1024, block=1024, **FAST)
    np.testing.assert_array_equal(tifffile.imread(tiled.output), expected)
    assert np.abs(tifffile.imread(whole.output).astype(int) - expected).max() <= 1
    sha = read_painting_look(look).sha256
    identity = tiled.plan.identity
    assert identity["style"] == sha and json.loads(identity["styles"])[0]["sha256"] == sha
    assert json.loads(identity["styles"])[0]["name"] == "look.safetensors"


def test_a_saved_job_needs_the_look_no_more(tmp_path: Path) -> None:
    file, look = scenes(tmp_path, "uint16", 3000)[1], tmp_path / "look.safetensors"
    ut.measure_painting_look(scenes(tmp_path, "uint16", 3000), STYLE, thumbnail=64, device="cpu").save(look)
    options = {"tile": 128, "block": 256, **FAST}
    direct = ut.stylize(file, tmp_path / "direct.tif", None, look=look, **options)
    ut.save_job(tmp_path / "job", file, tmp_path / "out.tif", None, look=look, **options)
    look.unlink()
    ut.work_job(tmp_path / "job")
    ut.assemble_job(tmp_path / "job")
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out.tif"), tifffile.imread(direct.output))


def test_on_the_command_line_and_in_a_table(tmp_path: Path, run) -> None:
    files, look = scenes(tmp_path), tmp_path / "look.safetensors"
    flags = ("--thumbnail", "64", "--device", "cpu")
    done = run("measure", *files, "-o", look, "--style", STYLE, *flags)
    assert done.returncode == 0 and "2 image(s)" in done.stdout, done.stderr
    facts = read_painting_look(look).facts
    assert [one["name"] for one in facts["measured from"]] == ["0.tif", "1.tif"] and facts["stretch"] is None
    assert {"look.moments.colour.m2", "site.block1.scale"} <= set(load_file(look))
    planned = run("plan", files[0], tmp_path / "o.tif", "--look", look, *flags)
    assert planned.returncode == 0 and "look, 1 pass(es)" in planned.stdout, planned.stderr
    shown = run("preview", files[0], tmp_path / "p.png", "--look", look, *flags)
    assert shown.returncode == 0 and (tmp_path / "p.png").exists(), shown.stderr
    (tmp_path / "jobs.toml").write_text(
        'inputs = ["0.tif", "1.tif"]\noutput = "{stem}-{style}.tif"\n'
        '[options]\nlook = "look.safetensors"\nthumbnail = 64\ndevice = "cpu"\nthreads = 1\n'
    )
    for ending in ("2 done", "2 were done before"):
        ran = run("run", tmp_path / "jobs.toml")
        assert ran.returncode == 0 and ending in ran.stdout + ran.stderr, ran.stdout + ran.stderr
    halves = [tifffile.imread(tmp_path / f"{k}-look.tif")[:, :208] for k in (0, 1)]
    np.testing.assert_array_equal(*halves)
    assert run("measure", *files, "-o", look, "--style", STYLE, *flags).returncode == 2  # it exists


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("model", "microast"),
        ("statistics", "exact"),
        ("mask", Path("m.png")),
        ("preserve_color", "coral"),
        ("stretch", "0,100"),
        ("alpha", 0.5),
        ("stroke", 4),
        ("style_size", 256),
    ],
)
def test_what_a_look_fixes_is_refused(option: str, value: object) -> None:
    with pytest.raises(BadInput, match=f"--look .*leave --{option.replace('_', '-')}") as error:
        ut.Options(look=Path("look.safetensors"), **{option: value})
    assert str(error.value).count(". ") == 0
    with pytest.raises(BadInput, match="give --look"):
        ut.Options(statistics="look")


def test_files_that_are_no_looks_and_images_that_do_not_fit(tmp_path: Path) -> None:
    eight, sixteen = scenes(tmp_path)[0], written(tmp_path / "s.tif", pixels(128, 128, 0, "uint16", 3000))
    look, out = tmp_path / "look.safetensors", tmp_path / "out.tif"
    measured = ut.measure_painting_look(eight, STYLE, thumbnail=64, device="cpu")
    measured.save(look)
    with pytest.raises(BadInput, match=r"s\.tif: its samples are uint16, and the look .* of uint8"):
        ut.stylize(sixteen, out, None, look=look)
    with pytest.raises(BadInput, match="leave --style out"):
        ut.stylize(eight, out, STYLE, look=look)
    with pytest.raises(BadInput, match=r"s\.tif is uint16, and .*0\.tif is uint8"):
        ut.measure_painting_look([eight, sixteen], STYLE, thumbnail=64)
    measured.net.save(tmp_path / "net.safetensors")
    (tmp_path / "text.safetensors").write_text("no look")
    look.with_name("cut.safetensors").write_bytes(look.read_bytes()[:-1000])
    for name in ("net", "text", "cut"):
        with pytest.raises(BadInput, match=f"{name}.safetensors is no look"):
            ut.stylize(eight, out, None, look=tmp_path / f"{name}.safetensors")
    facts = {"format": "urst-tiles look", "version": 1, **measured.facts}
    for changed, said in (
        ({"stretch": "a"}, "damaged"),
        ({"version": 2}, "version"),
        ({"alpha": "x"}, "damaged"),
    ):
        measured.net.save(tmp_path / "odd.safetensors", look=facts | changed)
        with pytest.raises(UrstError, match=rf"odd\.safetensors is .*{said}"):
            ut.stylize(eight, out, None, look=tmp_path / "odd.safetensors")
    with pytest.raises(BadInput, match=r"give it as --look .*look\.safetensors"):
        ut.stylize(eight, out, look)
    (tmp_path / "colours.json").write_text("{}")
    with pytest.raises(BadInput, match=r"colours\.json is a look of --model colour"):
        ut.stylize(eight, out, None, look=tmp_path / "colours.json")
    with pytest.raises(BadInput, match="look of --model lite and knows it"):
        ut.stylize(eight, out, None, look=look, model="somebody.module:function")
    with pytest.raises(MissingFile, match=r"gone\.safetensors"):
        ut.stylize(eight, out, None, look=tmp_path / "gone.safetensors")
    with pytest.raises(BadInput, match="look"):
        ut.stylize(eight, look, None, look=look, overwrite=True, format="tif")
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"model": "painter"}, "each level"),
        ({"statistics": "sampled"}, "thumbnail or exact"),
        ({"statistics": "local"}, "thumbnail or exact"),
        ({"stroke": 4}, "--stroke"),
        ({"preserve_color": "coral"}, "--preserve-color"),
    ],
)
def test_looks_that_cannot_be_made(options: dict, said: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=said):
        ut.measure_painting_look(tmp_path / "none.tif", STYLE, **options)


@pytest.mark.parametrize("model", [one for one in MODELS if not family(one).paints_levels])
def test_every_family_comes_back_from_its_file(model: str, tmp_path: Path) -> None:
    """The network of the file, moments or not, computes what the network did from which it was saved."""
    if model in ("identity", "colour", "stain"):
        with pytest.raises(BadInput, match="look|measures nothing"):
            ut.measure_painting_look(tmp_path / "none.tif", None, model=model)
        return
    style, image = style_of(model), tensor_of(picture_of(64, 80, 3))
    moments = moments_of(style, image)
    look = PaintingLook(freeze(style, moments), {"alpha": 1.0, "stretch": None}, moments)
    look.save(tmp_path / "look.safetensors")
    again = read_painting_look(tmp_path / "look.safetensors")
    assert again.model == model and again.style.fingerprint == style.fingerprint
    with torch.inference_mode():
        torch.testing.assert_close(again.net(image), look.net(image), rtol=0, atol=0)
        load_frozen(tmp_path / "look.safetensors")(image)  # it is a frozen network, too


def test_a_look_with_luminance_a_part_and_its_preview(tmp_path: Path) -> None:
    """What follows the network is free: colours of the image come back, and a part is that of the whole."""
    file, look = scenes(tmp_path)[0], tmp_path / "look.safetensors"
    ut.measure_painting_look(scenes(tmp_path), STYLE, thumbnail=64, device="cpu").save(look)
    options = {"look": look, "preserve_color": "luminance", **FAST}
    whole = tifffile.imread(ut.stylize(file, tmp_path / "w.tif", **options).output)
    part = ut.stylize(file, tmp_path / "p.tif", region=(64, 32, 128, 96), **options)
    np.testing.assert_array_equal(tifffile.imread(part.output), whole[32:128, 64:192])
    image = tifffile.imread(file).astype(float)
    chroma = [values[..., 0].astype(float) - values[..., 2] for values in (image, whole)]
    inside = ((whole > 0) & (whole < 255)).all(2)
    assert np.abs(chroma[0] - chroma[1])[inside].max() <= 1.01
    plain = ut.preview(file, look=look, folder=tmp_path, thumbnail=64, device="cpu")
    assert plain.shape[:2] == ut.open_source(file).prepare(None, thumbnail=64).thumbnail.shape[:2]
    assert np.abs(plain.astype(float).mean() - whole.mean()) < 60


def test_a_look_names_no_code(tmp_path: Path) -> None:
    """The family of the network in a look is imported only if the call names the same."""
    file, look = scenes(tmp_path)[0], tmp_path / "look.safetensors"
    measured = ut.measure_painting_look(file, STYLE, thumbnail=64, device="cpu")
    facts = {"format": "urst-tiles look", "version": 1, **measured.facts}
    measured.net.save(look, family="somebody.module:function", look=facts)
    with pytest.raises(BadInput, match="names code"):
        ut.stylize(file, tmp_path / "out.tif", None, look=look)


def test_a_stretch_of_each_band(tmp_path: Path) -> None:
    file = written(tmp_path / "s.tif", pixels(64, 64, 0, "uint16", 3000))
    source = ut.open_source(file, stretch="0,900;100,800;10,2700")
    assert source.stretch == ((0.0, 900.0), (100.0, 800.0), (10.0, 2700.0))
    with pytest.raises(BadInput, match="2 pairs"):
        ut.open_source(file, stretch="0,900;100,800")
