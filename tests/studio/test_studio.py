"""The studio over HTTP: its tiles are those of the job, who may ask, and what it says to bad questions."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from helpers import geotiff, picture, wait_for

pytest.importorskip("starlette", reason="the extra studio is not installed")
pytest.importorskip("uvicorn", reason="the extra studio is not installed")

from served import Served

import urst_tiles as ut
from urst_tiles.geometry import Box
from urst_tiles.source.picture import write_png
from urst_tiles.studio.arguments import Brought
from urst_tiles.studio.asked import Asked
from urst_tiles.studio.guard import POLICY
from urst_tiles.studio.pictures import Pictures

STYLE = "hokusai-wave"
SHAPE = 700, 1300  # two cores, and levels that end in odd rows


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an image and a picture; outside of it lies another, to which a link leads."""
    above = tmp_path_factory.mktemp("studio")
    folder = above / "root"
    (folder / "inner").mkdir(parents=True)
    geotiff(folder / "scene.tif", picture(*SHAPE))
    write_png(folder / "inner" / "small.png", picture(90, 110))
    geotiff(above / "secret.tif", picture(64, 64))
    (folder / "way-out.tif").symlink_to(above / "secret.tif")
    (folder / "notes.txt").write_text("not an image")
    (folder / "broken.tif").write_bytes((folder / "scene.tif").read_bytes()[:3000])
    return folder


@pytest.fixture(scope="module")
def studio(root: Path) -> Iterator[Served]:
    with Served(root / "scene.tif", cwd=root) as served:
        yield served


def pixels_of(folder: Path, data: bytes) -> np.ndarray:
    path = folder / "tile.png"
    path.write_bytes(data)
    source = ut.open_source(path)
    return source.prepare(folder / "spool").read(Box(0, 0, *source.shape))


# Tiles


def test_tiles_have_the_bytes_of_the_job_and_of_its_overviews(
    studio: Served, root: Path, tmp_path: Path
) -> None:
    facts = studio.api("look", image="scene.tif", style=STYLE, alpha=80, colours="luminance")
    ut.stylize(root / "scene.tif", tmp_path / "out.tif", STYLE, alpha=0.8, preserve_color="luminance")
    assert (facts["height"], facts["width"], facts["levels"], facts["tile"]) == (*SHAPE, 12, 512)
    with tifffile.TiffFile(tmp_path / "out.tif") as file:
        finished = [page.asarray() for page in file.pages]
    assert facts["exact"] == 2
    for halvings, (y, x) in ((0, (0, 0)), (0, (1, 2)), (1, (0, 0)), (1, (0, 1))):
        status, headers, data = studio.ask(f"tiles/{facts['after']}/{11 - halvings}/{x}_{y}.png")
        assert status == 200 and headers["x-approximate"] == "no"
        wanted = finished[halvings][512 * y : 512 * (y + 1), 512 * x : 512 * (x + 1)]
        assert wanted.std() > 10
        np.testing.assert_array_equal(pixels_of(tmp_path, data)[..., :3], wanted[..., :3])


def test_a_painting_with_levels_has_the_bytes_of_the_job_near_and_is_approximate_far_out(
    studio: Served, root: Path, tmp_path: Path
) -> None:
    facts = studio.api("look", image="scene.tif", style=STYLE, model="painter", stroke=2)
    ut.stylize(root / "scene.tif", tmp_path / "out.tif", STYLE, model="painter", stroke=2)
    wanted = tifffile.imread(tmp_path / "out.tif")[512:700, 512:1024]
    status, headers, data = studio.ask(f"tiles/{facts['after']}/11/1_1.png")
    assert status == 200 and headers["x-approximate"] == "no" and wanted.std() > 10
    np.testing.assert_array_equal(pixels_of(tmp_path, data)[..., :3], wanted[..., :3])
    status, headers, data = studio.ask(f"tiles/{facts['after']}/9/0_0.png")
    assert status == 200 and headers["x-approximate"] == "yes"
    assert pixels_of(tmp_path, data)[..., :3].std() > 10
    assert "urst-tiles" in studio.api("plan", image="scene.tif", style=STYLE, model="painter")["command"]


def test_the_image_as_it_is_at_full_scale_and_reduced(studio: Served, root: Path, tmp_path: Path) -> None:
    whole = tifffile.imread(root / "scene.tif")
    before = studio.api("look", image="scene.tif")["before"]
    _, headers, data = studio.ask(f"tiles/{before}/11/1_0.png")
    assert headers["x-approximate"] == "no"
    np.testing.assert_array_equal(pixels_of(tmp_path, data)[..., :3], whole[:512, 512:1024])
    _, _, data = studio.ask(f"tiles/{before}/9/0_0.png")
    small = pixels_of(tmp_path, data)[..., :3]
    means = whole[:, :].reshape(175, 4, 325, 4, 3).mean((1, 3))
    assert small.shape == (175, 325, 3) and abs(small - means).max() <= 1.5


def test_far_out_the_same_network_paints_the_reduced_image_and_says_so(
    studio: Served, tmp_path: Path
) -> None:
    facts = studio.api("look", image="scene.tif", style=STYLE)
    before = pixels_of(tmp_path, studio.ask(f"tiles/{facts['before']}/9/0_0.png")[2])
    status, headers, data = studio.ask(f"tiles/{facts['after']}/9/0_0.png")
    painted = pixels_of(tmp_path, data)
    assert status == 200 and headers["x-approximate"] == "yes" and painted.shape == before.shape
    assert abs(painted[..., :3].astype(int) - before[..., :3]).mean() > 10
    assert studio.ask(f"tiles/{facts['after']}/0/0_0.png")[0] == 200


def test_what_may_be_chosen_next_is_frozen_if_that_is_quick(
    studio: Served, root: Path, tmp_path: Path
) -> None:
    held = Pictures(root, tmp_path, Brought.into(root, tmp_path))
    look = Asked("scene.tif", "klimt-kiss")
    assert not held.is_quick(look), "the image is not open"
    held.source("scene.tif")
    assert held.is_quick(look)
    assert not held.is_quick(replace(look, statistics="exact"))
    assert not held.is_quick(replace(look, model="painter"))
    studio.api("look", image="scene.tif")
    for style in ("klimt-kiss", ""):
        assert studio.ask(f"api/ahead?image=scene.tif&style={style}")[0::2] == (204, b"")
    assert "no style called 'nobody'" in studio.trouble("api/ahead", image="scene.tif", style="nobody")


def test_each_style_has_its_square(studio: Served) -> None:
    before = studio.api("look", image="scene.tif")["before"]
    seen = {studio.ask(f"swatches/{before}{name}.jpg")[2] for name in ("", f"/{STYLE}", "/klimt-kiss")}
    assert len(seen) == 3 and all(data[:2] == b"\xff\xd8" for data in seen)


def test_the_squares_are_of_the_network_that_paints_first(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    squares = []
    for number, model in enumerate(("painter", "lite", "adain")):
        monkeypatch.setenv("URST_TILES_MODEL", model)
        folder = tmp_path / str(number)
        folder.mkdir()
        held = Pictures(root, folder, Brought.into(root, folder))
        squares.append(pixels_of(folder, held.swatch(Asked("scene.tif"), STYLE).data)[..., :3].astype(int))
    assert all(square.shape == (128, 128, 3) for square in squares)
    assert abs(squares[0] - squares[1]).mean() > 5, "lite paints otherwise"
    np.testing.assert_array_equal(squares[2], squares[0])


# Who may ask


def test_who_lacks_the_token_is_answered_nothing(studio: Served) -> None:
    for token in ("", "x" * 32, studio.token[:-1], f"{studio.token}x", "%00"):
        for path in ("", "api/start", "studio.js"):
            assert studio.ask(path, token=token)[0] == 403


def test_two_studios_have_two_tokens(studio: Served, root: Path) -> None:
    with Served(root / "scene.tif", cwd=root) as other:
        assert len(other.token) == 32 and other.token != studio.token


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "127.0.0.1"},
        {"Host": "127.0.0.1:1"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "cross-site"},
    ],
)
def test_pages_and_names_of_others_are_refused(studio: Served, headers: dict[str, str]) -> None:
    assert studio.ask("api/start", **headers)[0] == 403
    assert studio.ask("api/make", "POST", "{}", **headers)[0] == 403


def test_its_own_page_is_answered(studio: Served) -> None:
    own = f"http://127.0.0.1:{studio.port}"
    assert studio.ask("api/start", Origin=own, Sec_Fetch_Site="same-origin")[0] == 200
    assert studio.ask("api/start", Host=f"localhost:{studio.port}")[0] == 200


def test_nothing_outside_of_the_root_is_read(studio: Served, root: Path) -> None:
    outside = (
        "../secret.tif",
        str(root.parent / "secret.tif"),
        "way-out.tif",
        "inner/../../secret.tif",
        "/etc/passwd",
    )
    for image in outside:
        assert "folder that the studio was given" in studio.trouble("api/look", image=image)
        assert "folder that the studio was given" in studio.trouble("api/files", folder=image)
        state = Asked(image).state
        assert "folder that the studio was given" in studio.trouble(f"tiles/{state}/0/0_0.png")
    for path in ("../app.py", "%2e%2e/app.py", "..%2fapp.py", "openseadragon/../../app.py"):
        assert studio.ask(path)[0] in (403, 404)


def test_nothing_outside_of_the_root_is_written(studio: Served, root: Path) -> None:
    for output in ("../out.tif", str(root.parent / "out.tif")):
        words = {"image": "scene.tif", "style": STYLE, "output": output}
        assert "folder that the studio was given" in studio.trouble("api/plan", **words)
        status, _, body = studio.ask("api/make", "POST", json.dumps(words))
        assert status == 400 and b"folder that the studio was given" in body
    assert not (root.parent / "out.tif").exists()


def test_links_that_lead_out_are_not_listed(studio: Served) -> None:
    found = studio.api("files")
    assert [one["path"] for one in found["images"]] == ["broken.tif", "scene.tif"]
    assert [one["path"] for one in found["folders"]] == ["inner"] and found["above"] is None
    inner = studio.api("files", folder="inner")
    assert [one["path"] for one in inner["images"]] == ["inner/small.png"] and inner["above"] == ""


def test_pages_run_no_script_that_is_written_into_them(studio: Served) -> None:
    for path in ("", "api/start", "studio.js", "nosuch"):
        headers = studio.ask(path)[1]
        assert headers["content-security-policy"] == POLICY
        assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"
    assert "unsafe" not in POLICY and "script-src 'self';" in POLICY and "http" not in POLICY
    page = studio.ask("")[2].decode()
    assert page.count("<script") == page.count("<script src=") == 2 and " on" + "click" not in page
    assert "http://" not in page.replace("http://www.w3.org", "") and "https://" not in page


def test_by_default_it_listens_on_this_machine_alone(studio: Served) -> None:
    with pytest.raises(OSError), socket.create_connection((own_address(), studio.port), 5):
        pass


def own_address() -> str:
    """An address of this machine that is not that of the loopback: 127.0.0.2 is where there is no other."""
    found = {str(entry[4][0]) for entry in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    return next((one for one in sorted(found) if not one.startswith("127.")), "127.0.0.2")


def test_listening_for_others_is_warned_of(root: Path) -> None:
    with Served(root / "scene.tif", "--host", "0.0.0.0", cwd=root) as served:
        status, said = served.close()
    assert status == 0 and "listens on 0.0.0.0, unencrypted" in said and said.count("\n") == 1


# Bad questions


def test_bad_questions_are_answered_with_a_sentence(studio: Served) -> None:
    assert "no style called 'nosuch'" in studio.trouble("api/look", image="scene.tif", style="nosuch")
    assert "no file nosuch.tif" in studio.trouble("api/look", image="nosuch.tif")
    assert "notes.txt" in studio.trouble("api/look", image="notes.txt")
    assert "broken.tif" in studio.trouble("api/look", image="broken.tif", style=STYLE)
    assert "whole number" in studio.trouble("api/look", image="scene.tif", style=STYLE, alpha="1e9")
    assert "between 0 and 100" in studio.trouble("api/look", image="scene.tif", style=STYLE, alpha=101)
    assert "the models painter, lite" in studio.trouble(
        "api/look", image="scene.tif", style=STYLE, model="os:system"
    )
    assert "colours are" in studio.trouble("api/look", image="scene.tif", style=STYLE, colours="x")
    assert "no image is named" in studio.trouble("api/look")
    assert "character 0" in studio.trouble("api/look", image="a\0b")
    state = Asked("scene.tif", STYLE).state
    assert "no such level" in studio.trouble(f"tiles/{state}/12/0_0.png")
    assert "no such tile" in studio.trouble(f"tiles/{state}/11/3_0.png")
    assert "png or jpg" in studio.trouble(f"tiles/{state}/11/0_0.exe")
    for wrong in ("x", "!!", "bm8", "W10", "A" * 5000):
        assert "names no look" in studio.trouble(f"tiles/{wrong}/0/0_0.png")
    for body in ("", "[]", "{", "[" * 9000):
        assert studio.ask("api/make", "POST", body)[0] == 400
    assert b"too long" in studio.ask("api/make", "POST", " " * 20000)[2]


def test_what_cannot_be_opened_is_one_sentence(
    root: Path, tmp_path: Path, run: Callable[..., subprocess.CompletedProcess[str]], monkeypatch
) -> None:
    def refused(*arguments: object) -> str:
        done = run("studio", *arguments, "--no-browser")
        assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1, done.stderr
        return done.stderr

    monkeypatch.chdir(tmp_path)
    assert "no image file nosuch.tif" in refused("nosuch.tif")
    assert "does not lie in --root" in refused(root / "scene.tif", "--root", tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert "cannot listen on 127.0.0.1" in refused("--port", taken.getsockname()[1])


# Making it


def test_the_plan_says_what_it_takes_and_how_to_do_it_from_a_terminal(studio: Served, root: Path) -> None:
    plan = studio.api("plan", image="scene.tif", style=STYLE, alpha=50, colours="luminance")
    assert plan["output"] == f"scene.{STYLE}.tif" and not plan["exists"]
    assert plan["memory"] > 1 << 28 and plan["disk"] > 0 and plan["seconds"] > 0
    assert plan["command"] == (
        f"urst-tiles stylize scene.tif scene.{STYLE}.tif --style {STYLE} --model lite --alpha 0.5"
        " --preserve-color luminance"
    )
    assert "image.gif" in studio.trouble("api/plan", image="scene.tif", style=STYLE, output="image.gif")


def test_a_job_is_run_and_gives_the_file_of_the_command(studio: Served, root: Path, tmp_path: Path) -> None:
    words = {"image": "inner/small.png", "style": STYLE, "output": "made.tif"}
    assert studio.ask("api/make", "POST", json.dumps(words))[0] == 200
    assert b"in the queue already" in studio.ask("api/make", "POST", json.dumps(words))[2]

    def ended() -> dict | None:
        (job,) = studio.api("status")["queue"]["jobs"]
        return None if job["state"] == "running" else job

    job = wait_for(ended, 300)
    assert (job["state"], job["output"]) == ("done", "made.tif"), job
    ut.stylize(root / "inner" / "small.png", tmp_path / "made.tif", STYLE)
    assert (root / "made.tif").read_bytes() == (tmp_path / "made.tif").read_bytes()
    assert b"exists" in studio.ask("api/make", "POST", json.dumps(words))[2]
    os.remove(root / "made.tif")


def test_it_ends_silently_and_leaves_nothing(root: Path, tmp_path: Path) -> None:
    before = sorted(root.rglob("*"))
    with Served("inner/small.png", "--root", ".", cwd=root) as served:
        served.api("look", image="inner/small.png", style=STYLE)
        assert served.close() == (0, "")
    assert sorted(root.rglob("*")) == before
