"""What the page brings: style pictures, drawn polygons, small images; and the command that needs them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
import pytest
import pyvips
import tifffile
from helpers import geotiff, picture

pytest.importorskip("starlette", reason="the extra studio is not installed")
pytest.importorskip("uvicorn", reason="the extra studio is not installed")

from served import Served

from urst_tiles.cli import main
from urst_tiles.errors import BadInput
from urst_tiles.source import burnt, open_source
from urst_tiles.source.mask import open_mask, spool_mask
from urst_tiles.source.picture import encoded_png
from urst_tiles.studio import arguments as arguing
from urst_tiles.studio import uploads as uploading
from urst_tiles.studio.arguments import Brought, check_measuring, write
from urst_tiles.studio.asked import Asked
from urst_tiles.studio.drawn import Drawn
from urst_tiles.studio.uploads import Uploads, plain_name

STYLE, OTHER = "hokusai-wave", "klimt-kiss"
SHAPE = 520, 530  # two tiles each way


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("brought") / "root"
    folder.mkdir()
    geotiff(folder / "scene.tif", picture(*SHAPE))
    tifffile.imwrite(folder / "plain.tif", picture(*SHAPE), tile=(256, 256), photometric="rgb")
    return folder


@pytest.fixture(scope="module")
def studio(root: Path) -> Iterator[Served]:
    with Served(root / "scene.tif", cwd=root) as served:
        yield served


def upload(studio: Served, name: str = "mine.png", seed: int = 7) -> str:
    data = encoded_png(picture(300, 320, seed=seed))
    status, _, body = studio.ask(f"api/upload?{urlencode({'name': name})}", "POST", data)  # type: ignore[arg-type]
    assert status == 200, body
    return json.loads(body)["word"]


def draw(studio: Served, *polygons: tuple[str, list[list[float]]]) -> str:
    words = [{"style": style, "corners": corners} for style, corners in polygons]
    status, _, body = studio.ask("api/draw", "POST", json.dumps({"polygons": words}))
    assert status == 200, body
    return json.loads(body)["mask"]


def corner(studio: Served, state: str) -> np.ndarray:
    """The upper left tile at full scale."""
    status, headers, data = studio.ask(f"tiles/{state}/10/0_0.png")
    assert status == 200, data
    assert headers["x-approximate"] == "no"
    return pyvips.Image.new_from_buffer(data, "").numpy()[..., :3]


def made_by_the_command(
    root: Path, words: dict, studio: Served, monkeypatch: pytest.MonkeyPatch
) -> np.ndarray:
    """What the command line that the studio shows makes, once the files that it names are kept."""
    plan = studio.api("plan", **words)
    status, _, body = studio.ask("api/keep", "POST", json.dumps(words))
    assert status == 200 and json.loads(body)["files"] == plan["files"], body
    assert all((root / name).is_file() for name in plan["files"])
    monkeypatch.chdir(root)
    program, *arguments = shlex.split(plan["command"])
    assert program == "urst-tiles" and main(arguments) == 0
    output = root / plan["output"]
    pixels = tifffile.imread(output, key=0)
    output.unlink()
    assert pixels.std() > 10
    return pixels[..., :3]


def check(studio: Served, root: Path, monkeypatch: pytest.MonkeyPatch, **words: object) -> np.ndarray:
    """The tile is that of the file which the command makes."""
    words = {"image": "scene.tif"} | words
    facts = studio.api("look", **words)
    tile = corner(studio, facts["after"])
    made = made_by_the_command(root, words, studio, monkeypatch)
    np.testing.assert_array_equal(tile, made[:512, :512])
    return made


def test_ones_own_picture_and_a_mixture(studio: Served, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    word = upload(studio)
    assert word == upload(studio)  # the same content is kept once
    alone = check(studio, root, monkeypatch, style=word)
    mixed = check(studio, root, monkeypatch, style=f"{word}=30,{STYLE}=70", colours="luminance")
    assert abs(alone.astype(int) - mixed).mean() > 5
    assert (root / "mine.png").read_bytes() == encoded_png(picture(300, 320, seed=7))
    plan = studio.api("plan", image="scene.tif", style=f"{word}=30,{STYLE}=70")
    assert plan["files"] == ["mine.png"] and "--style-weight 0.3 --style-weight 0.7" in plan["command"]
    assert plan["output"] == "scene.mixed.tif"
    other = upload(studio, seed=9)  # another picture of the same name takes another
    assert studio.api("plan", image="scene.tif", style=other)["files"] == ["mine-2.png"]
    assert studio.ask(f"swatches/{studio.api('look', image='scene.tif')['before']}/{word}.jpg")[0] == 200


@pytest.mark.parametrize("image", ["scene.tif", pytest.param("plain.tif", marks=pytest.mark.slow)])
def test_drawn_polygons(studio: Served, root: Path, image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    left, hole = [[0, 0], [200, 0], [200, 520], [0, 520]], [[300, 100], [450, 100], [450, 250], [300, 250]]
    mask = draw(studio, (OTHER, left), ("", hole))
    made = check(studio, root, monkeypatch, image=image, style=STYLE, mask=mask)
    plain = corner(studio, studio.api("look", image=image, style=STYLE)["after"])
    other = corner(studio, studio.api("look", image=image, style=OTHER)["after"])
    as_it_is = tifffile.imread(root / image)
    seen = {"right": made[300:500, 480:512], "left": made[300:500, 20:60], "hole": made[160:190, 360:390]}

    def nearest(where: str, y: slice, x: slice) -> str:
        far = {
            "styled": abs(seen[where].astype(int) - plain[y, x]).mean(),
            "other": abs(seen[where].astype(int) - other[y, x]).mean(),
            "kept": abs(seen[where].astype(int) - as_it_is[y, x]).mean(),
        }
        return min(far, key=lambda name: far[name])

    assert nearest("right", slice(300, 500), slice(480, 512)) == "styled"
    assert nearest("left", slice(300, 500), slice(20, 60)) == "other"
    assert nearest("hole", slice(160, 190), slice(360, 390)) == "kept"
    assert studio.api("drawn", mask=mask)["polygons"][1]["style"] == ""


def test_far_out_polygons_lie_where_they_are(studio: Served) -> None:
    whole = [[0, 0], [265, 0], [265, 520], [0, 520]]
    after = studio.api("look", image="scene.tif", mask=draw(studio, (OTHER, whole)))["after"]
    before = studio.api("look", image="scene.tif")["before"]
    status, headers, data = studio.ask(f"tiles/{after}/8/0_0.png")
    assert status == 200 and headers["x-approximate"] == "yes"
    seen = pyvips.Image.new_from_buffer(data, "").numpy()[..., :3].astype(int)
    was = pyvips.Image.new_from_buffer(studio.ask(f"tiles/{before}/8/0_0.png")[2], "").numpy()[..., :3]
    change = abs(seen - was).mean((0, 2))
    assert change[:60].mean() > 3 * change[-60:].mean()  # the left half is painted, the right is not


def test_stroke_statistics_and_a_region(studio: Served, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check(studio, root, monkeypatch, style=STYLE, stroke=2, statistics="sampled", alpha=70)
    words = {"image": "scene.tif", "style": STYLE, "region": "100,40,300,200"}
    facts = studio.api("look", **words)
    assert facts["after"] == studio.api("look", image="scene.tif", style=STYLE)["after"]  # the same tiles
    made = made_by_the_command(root, words, studio, monkeypatch)
    np.testing.assert_array_equal(made, corner(studio, facts["after"])[40:240, 100:400])
    plan = studio.api("plan", **words)
    assert (plan["width"], plan["height"]) == (300, 200) and "--region 100,40,300,200" in plan["command"]


def test_a_small_picture_is_uploaded_and_painted(
    studio: Served, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    word = upload(studio, "my photo (1).png", seed=11)
    studio.api("look", image="scene.tif")
    facts = studio.api("look", image=word, style=STYLE)
    assert (facts["height"], facts["width"], facts["name"]) == (300, 320, "my photo _1_.png")
    recent = studio.api("files")["recent"]
    assert recent[0] == {"path": word, "name": "my photo _1_.png"} and len(recent) > 1
    assert studio.api("plan", image=word, style=STYLE)["output"] == f"my photo _1_.{STYLE}.tif"
    made = made_by_the_command(root, {"image": word, "style": STYLE}, studio, monkeypatch)
    assert made.shape == (300, 320, 3)


def test_bad_gifts_are_refused_with_a_sentence(studio: Served, root: Path) -> None:
    def refused(path: str, body: object) -> str:
        status, _, answer = studio.ask(path, "POST", body)  # type: ignore[arg-type]
        assert status == 400, answer
        return json.loads(answer)["error"]

    said = refused("api/upload?name=notes.txt", b"no image at all")
    assert said.startswith("notes.txt") and "uploads" not in said
    assert "too long" in refused("api/upload?name=a.png", bytes((64 << 20) + 1))
    assert "too long" in refused("api/draw", "x" * (1 << 19))
    triangle = [[0, 0], [9, 0], [9, 9]]
    for polygons in (
        None,
        [],
        [{}],
        [{"style": "", "corners": triangle[:2]}],
        [{"style": "", "corners": [[0, 0], [1, float("inf")], [2, 2]]}],
        [{"style": "", "corners": triangle}] * 201,
        [{"style": "", "corners": triangle * 2000}],
    ):
        assert "polygon" in refused("api/draw", json.dumps({"polygons": polygons}))
    assert "no style called" in refused(
        "api/draw", json.dumps({"polygons": [{"style": "x", "corners": triangle}]})
    )
    assert "upload it again" in studio.trouble("api/look", image=":0123456789abcdef")
    assert "upload it again" in studio.trouble("api/look", image="scene.tif", style=":0123456789abcdef")
    assert "draw them again" in studio.trouble("api/look", image="scene.tif", mask="0123456789abcdef")
    assert "no id" in studio.trouble("api/look", image="scene.tif", mask="../../etc")
    assert "do not go together" in studio.trouble(
        "api/look", image="scene.tif", mask="0123456789abcdef", style=f"{STYLE}=50,{OTHER}=50"
    )
    assert "between 1 and 100" in studio.trouble("api/look", image="scene.tif", style=f"{STYLE}=0")
    assert "the stroke is one of" in studio.trouble("api/look", image="scene.tif", style=STYLE, stroke=3)
    assert "statistics are" in studio.trouble("api/look", image="scene.tif", style=STYLE, statistics="x")
    assert "x,y,w,h" in studio.trouble("api/plan", image="scene.tif", style=STYLE, region="1,2,3")
    far = draw(studio, (OTHER, [[9000, 9000], [9100, 9000], [9100, 9100]]))
    assert "does not touch" in studio.trouble("api/look", image="scene.tif", mask=far)


def test_names_of_uploads_are_plain() -> None:
    for name, plain in (
        ("../../etc/passwd", "passwd"),
        ("C:\\a\\b.png", "b.png"),
        ("-rf.png", "rf.png"),
        (".hidden", "hidden"),
        ("", "picture"),
        ("ä\0\n.p;ng", "ä_.png"),
        ("x" * 300 + ".tif", "x" * 80 + ".tif"),
    ):
        assert plain_name(name) == plain


def test_burning_where_polygons_are_gives_the_whole_mask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(burnt, "SQUARE", 64)
    geotiff(tmp_path / "scene.tif", picture(300, 410))
    source = open_source(tmp_path / "scene.tif")
    polygons = Drawn.of(
        [
            {"style": STYLE, "corners": [[10.5, 20], [180.2, -30], [90, 140.7]]},
            {"style": "", "corners": [[60, 60], [409, 80], [700, 900], [100, 290]]},
            {"style": OTHER, "corners": [[-50, 200], [30, 200], [30, 260]]},
        ]
    )
    assert polygons.numbers == {STYLE: 1, OTHER: 2, "": 3}
    (tmp_path / "mask.geojson").write_bytes(polygons.geojson(source))
    mask = open_mask(tmp_path / "mask.geojson", source)
    spool_mask(mask, tmp_path / "all.npy")
    burnt.burn(mask, tmp_path / "burnt.npy")  # type: ignore[arg-type]
    whole = np.load(tmp_path / "all.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "burnt.npy"), whole)
    assert set(np.unique(whole)) == {0, 1, 2, 3}


def test_the_order_of_overlapping_polygons_is_kept() -> None:
    one, two = ({"style": style, "corners": [[0, 0], [1, 0], [1, 1]]} for style in (STYLE, OTHER))
    assert Drawn.of([one, two]).id != Drawn.of([two, one]).id
    assert Drawn.of(Drawn.of([one, two]).words) == Drawn.of([one, two])


def test_all_pictures_together_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (encoded_png(picture(40, 50, seed=seed)) for seed in (1, 2))
    monkeypatch.setattr(uploading, "MOST_TOGETHER", len(first) + len(second) - 1)
    uploads = Uploads(tmp_path, tmp_path / "folder")
    word = uploads.add("a.png", first)
    assert uploads.path(word).read_bytes() == first and uploads.add("b.png", first) == word
    with pytest.raises(BadInput, match="open it anew"):
        uploads.add("b.png", second)
    monkeypatch.setattr(uploading, "MOST_PIXELS", 1999)
    with pytest.raises(BadInput, match=r"^c\.png has more than"):
        Uploads(tmp_path, tmp_path / "other").add("c.png", first)
    assert not list((tmp_path / "other").rglob("*.png"))


def test_files_beside_the_output_replace_none(tmp_path: Path) -> None:
    geotiff(tmp_path / "scene.tif", picture(100, 120))
    (tmp_path / "mine.png").write_bytes(b"another")
    (tmp_path / "out.mask.geojson").symlink_to(tmp_path / "nowhere")
    brought = Brought.into(tmp_path, tmp_path / "folder")
    word = brought.uploads.add("mine.png", encoded_png(picture(40, 50)))
    mask = brought.drawings.add(Drawn.of([{"style": word, "corners": [[0, 0], [50, 0], [50, 50]]}]))
    look, source = Asked("scene.tif", STYLE, mask=mask), open_source(tmp_path / "scene.tif")
    files = brought.files(look, tmp_path / "out.tif", source)
    assert write(tmp_path, files) == ["mine-2.png", "out-2.mask.geojson"]
    assert write(tmp_path, brought.files(look, tmp_path / "out.tif", source)) == [
        "mine-2.png",
        "out-2.mask.geojson",
    ]
    assert (tmp_path / "mine.png").read_bytes() == b"another" and not (tmp_path / "nowhere").exists()
    (tmp_path / "mine-2.png").write_bytes(b"changed meanwhile")
    with pytest.raises(BadInput, match=r"mine-2\.png is another file"):
        write(tmp_path, files)


def test_whole_images_are_measured_up_to_a_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    geotiff(tmp_path / "scene.tif", picture(100, 120))
    source = open_source(tmp_path / "scene.tif")
    monkeypatch.setattr(arguing, "MOST_WHOLE", 11999)
    for statistics in ("exact", "local"):
        with pytest.raises(BadInput, match="reads the whole image"):
            check_measuring(Asked("scene.tif", STYLE, statistics=statistics), source)
    check_measuring(Asked("scene.tif", STYLE, statistics="sampled"), source)
