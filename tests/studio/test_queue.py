"""The queue of the studio: its order, its table, its file, and that it goes on after a kill."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import psutil
import pytest
import tifffile
from helpers import Enough, geotiff, picture, stop_at, wait_for

pytest.importorskip("starlette", reason="the extra studio is not installed")
pytest.importorskip("uvicorn", reason="the extra studio is not installed")

from served import Served

import urst_tiles as ut
from urst_tiles.api.blocks import blocks_of
from urst_tiles.geometry import Box
from urst_tiles.machine import HUGE_PAGES
from urst_tiles.pyramid.reduce import levels_below
from urst_tiles.source.picture import write_png
from urst_tiles.studio.queue import FILE, Painting, Queue, act
from urst_tiles.studio.table import table_of

STYLE = "hokusai-wave"
NAMES = ("a {x}.tif", "b.tif", "c.tif")


MASK = json.dumps(
    {
        "type": "FeatureCollection",
        "features": [
            {
                "type": "Feature",
                "properties": {"region": 1},
                "geometry": {"type": "Polygon", "coordinates": [[[1, 1], [9, 1], [9, 9], [1, 1]]]},
            }
        ],
    }
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    for number, name in enumerate(NAMES):
        geotiff(folder / name, picture(40, 50, seed=number))
    return folder


#: The command of each painting: the image, the output and flags.
COMMANDS = (
    (NAMES[0], f"a {{x}}.{STYLE}.tif", "--style", STYLE, "--alpha", "0.4"),
    (NAMES[1], "b.mixed.tif", "--style", "klimt-kiss", "--style", "style.png", "--style-weight", "0.25",
     "--style-weight", "0.75", "--preserve-color", "luminance", "--dtype", "uint8"),
    ("c.tif", "c.drawn.tif", "--mask", "c.mask.geojson", "--style", f"0={STYLE}", "--style", "1=style.png",
     "--stroke", "4", "--region", "4,8,20,20", "--statistics", "exact"),
)  # fmt: skip


def add(
    queue: Queue, root: Path, image: str, output: str, *flags: str, words: Sequence[str] = ()
) -> Painting:
    return queue.add(root / output, words or ("stylize", image, output, *flags), image=image, after="state")


@pytest.fixture
def queue(root: Path) -> Iterator[Queue]:
    """A queue of three paintings that is paused, so that nothing runs."""
    write_png(root / "style.png", picture(40, 40, seed=9))
    (root / "c.mask.geojson").write_text(MASK)
    queue = Queue(root)
    queue.pause()
    for command in COMMANDS:
        add(queue, root, *command)
    yield queue
    queue.close()


def order(queue: Queue) -> str:
    return "".join(job["image"][0] for job in queue.state["jobs"])


def test_what_waits_can_be_moved_and_removed(queue: Queue) -> None:
    a, b, c = (job["number"] for job in queue.state["jobs"])
    assert order(queue) == "abc"
    for action, number, wanted in (
        ("up", c, "acb"), ("up", c, "cab"), ("up", c, "cab"),
        ("down", a, "cba"), ("down", a, "cba"), ("remove", b, "ca"),
    ):  # fmt: skip
        act(queue, {"do": action, "number": number})
        assert order(queue) == wanted
    for words, said in (
        ({"do": "remove", "number": b}, "no such painting"),
        ({"do": "explode"}, "the queue can pause, resume"),
        ({"do": ["up"], "number": a}, "the queue can"),
        ({"do": "up", "number": "1"}, "called by its number"),
    ):
        with pytest.raises(ut.BadInput, match=said):
            act(queue, words)


def test_an_output_is_written_by_one_painting(queue: Queue, root: Path) -> None:
    for output, said in ((COMMANDS[2][1], "in the queue already"), ("b.tif", "exists")):
        with pytest.raises(ut.BadInput, match=said):
            add(queue, root, "c.tif", output, "--style", STYLE)
    assert order(queue) == "abc"


def test_the_table_is_that_of_the_command_run(queue: Queue, root: Path, tmp_path: Path) -> None:
    table = tmp_path / "jobs.toml"
    table.write_text(table_of(root, queue.paintings))
    entries = ut.read_table(table)
    assert [entry.input for entry in entries] == [root / name for name in NAMES]
    assert [entry.output for entry in entries] == [root / command[1] for command in COMMANDS]
    file = str(root / "style.png")
    assert [entry.style for entry in entries] == [
        STYLE, [("klimt-kiss", 0.25), (file, 0.75)], {0: STYLE, 1: file}
    ]  # fmt: skip
    first, second, third = (entry.options for entry in entries)
    assert first == ut.Options(alpha=0.4)
    assert second == ut.Options(preserve_color="luminance", dtype="uint8")
    part = ut.Options(stroke=4, region=(4, 8, 20, 20), statistics="exact", mask=root / "c.mask.geojson")
    assert third == part
    for job in queue.state["jobs"]:
        queue.remove(job["number"])
    with pytest.raises(ut.BadInput, match="nothing waits"):
        table_of(root, queue.paintings)


def test_what_is_not_finished_is_there_in_the_next_studio(queue: Queue, root: Path) -> None:
    assert (root / FILE).is_file()
    other = Queue(root)  # while the first is open, the queue is its own
    assert other.state == {"held": False, "jobs": []}
    other.close()
    queue.close()
    later = Queue(root)
    assert later.held and order(later) == "abc"
    assert [job["state"] for job in later.state["jobs"]] == ["paused"] * 3
    for now, before in zip(later.paintings, queue.paintings, strict=True):
        assert (now.words, now.image, now.after) == (before.words, before.image, before.after)
    for job in later.state["jobs"]:
        later.remove(job["number"])
    assert not (root / FILE).exists()
    later.close()


def test_how_many_blocks_are_finished_is_known_whatever_the_command_tells(root: Path) -> None:
    """The file of a queue knows no numbers, and a job that goes on first tells of other stages."""
    geotiff(root / "wide.tif", picture(60, 300))
    words = ["stylize", "wide.tif", "out.tif", "--style", STYLE]
    with pytest.raises(Enough):
        ut.stylize(
            root / "wide.tif",
            root / "out.tif",
            STYLE,
            dtype="uint8",
            block=128,
            blocksize=128,
            progress=stop_at(1),
        )
    (root / FILE).write_text(json.dumps({"jobs": [{"image": "wide.tif", "after": "", "words": words}]}))
    queue = Queue(root)
    (one,) = queue.state["jobs"]
    assert 0 < one["blocks"] == one["done"] < one["total"] == 3
    queue._change(one["number"], stage="thumbnail", done=1000, total=2000, state="running")
    assert queue.state["jobs"][0]["blocks"] == one["blocks"]
    (root / "out.tif.job" / "job.json").write_text("{")
    assert queue.state["jobs"][0]["blocks"] == 0
    queue.close()


def test_commands_that_are_not_of_the_studio_are_refused(queue: Queue, root: Path) -> None:
    geotiff(root.parent / "outside.tif", picture(40, 50))
    good = ("stylize", "b.tif", "made.tif", "--style", STYLE)
    for words in (
        ("weights", "remove", "lite"), good[:2], ("stylize", "--overwrite", *good[2:]),
        (*good, "--overwrite"),
        (*good, "--alpha", "--overwrite"), (*good, "--model", "os:system"), (*good, "--weights", "x"),
        (*good, "--style", "../outside.tif"), (*good, "--mask", "../outside.tif"), (*good, "--style=b.tif"),
        ("stylize", "../outside.tif", *good[2:]), (*good[:2], "../made.tif", *good[3:]),
        ("stylize", str(root.parent / "outside.tif"), *good[2:]), ("stylize", "b.tif", "b.tif", *good[3:]),
        ("stylize", "nosuch.tif", *good[2:]), (*good, "--style"), (*good[:3], "--style", "no-such-style"),
    ):  # fmt: skip
        with pytest.raises(ut.UrstError):
            add(queue, root, "b.tif", "made.tif", words=words)
    assert order(queue) == "abc"
    add(queue, root, "b.tif", "made.tif", words=good)


def test_a_file_of_the_queue_from_somebody_else_does_nothing_by_itself(root: Path) -> None:
    geotiff(root.parent / "outside.tif", picture(40, 50))
    words = ["stylize", "b.tif", "made.tif", "--style", STYLE]
    good = {"image": "b.tif", "after": "", "words": words}
    wrong = (
        "", "[]", "{", '{"jobs": 3}', '{"jobs": [[]]}', "[" * 9000,
        *(json.dumps({"jobs": [good | {"words": change}]}) for change in (
            None, [], [3, 4, 5], words[:3], ["weights", "remove", "lite"], [*words, "--overwrite"],
            ["stylize", "../outside.tif", *words[2:]], [*words[:2], "../out.tif", *words[3:]],
            [*words[:2], "c.tif", *words[3:]], [*words, "--model", "os:system"],
        )),
    )  # fmt: skip
    for text in wrong:
        (root / FILE).write_text(text)
        queue = Queue(root)
        assert queue.state == {"held": False, "jobs": []}, text
        queue.close()
    (root / FILE).write_text(
        json.dumps({"jobs": [{"words": 3}, good | {"words": [*words, "--overwrite"]}, good]})
    )
    queue = Queue(root)
    (one,) = queue.paintings
    assert one.words == tuple(words)
    assert queue.held and one.state == "paused" and not (root / "made.tif").exists()
    queue.close()
    os.remove(root / FILE)


@pytest.mark.slow
def test_no_code_that_lies_beside_the_images_is_run(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    for name in ("runpy.py", "json.py", "urst_tiles.py"):
        (root / name).write_text(f"open({str(root / 'was-run')!r}, 'w').close()\n")
    queue = Queue(root)
    add(queue, root, "b.tif", "made.tif", "--style", STYLE)
    wait_for(lambda: queue.paintings[0].stage or queue.paintings[0].state != "running", 120)
    assert queue.paintings[0].state in ("running", "done")
    queue.remove(queue.paintings[0].number)
    queue.close()
    assert not (root / "was-run").exists()


# Blocks that are finished


def test_finished_blocks_are_shown_in_their_places(tmp_path: Path) -> None:
    source, output = geotiff(tmp_path / "in.tif", picture(600, 1300)), tmp_path / "out.tif"
    tifffile.imwrite(tmp_path / "style.tif", picture(64, 64, seed=3), photometric="rgb")
    options = {"model": "colour", "block": 512, "blocksize": 128, "dtype": "uint8"}
    assert blocks_of(output) is None
    with pytest.raises(Enough):
        ut.stylize(source, output, tmp_path / "style.tif", progress=stop_at(2), **options)
    found = blocks_of(output)
    assert found is not None and found.shape == (600, 1300) and 2 <= len(found.names) < 6 == found.total
    done = [tuple(int(n) for n in name[:11].split("-")) for name in found.names]
    ut.stylize(source, tmp_path / "whole.tif", tmp_path / "style.tif", **options)
    whole = tifffile.imread(tmp_path / "whole.tif", key=0)
    for halvings, right in enumerate([whole, *levels_below(whole, 10)]):
        side, (h, w) = 512 >> halvings, right.shape[:2]
        seen = found.read(halvings, Box(0, 0, h, w))
        wanted = np.zeros((h, w, 4), np.uint8)
        for row, column in done if side else ():
            place = np.s_[row * side : (row + 1) * side, column * side : (column + 1) * side]
            wanted[(*place, slice(0, 3))], wanted[(*place, 3)] = right[place], 255
        np.testing.assert_array_equal(seen[..., 3], wanted[..., 3])
        assert abs(seen[..., :3].astype(int) - wanted[..., :3]).max() <= (0 if halvings < 3 else 2)
    part = found.read(1, Box(100, 200, 290, 500))
    np.testing.assert_array_equal(part, found.read(1, Box(0, 0, 300, 650))[100:290, 200:500])
    for path in (output.with_name("out.tif.job") / "parts").iterdir():
        path.write_bytes(b"damaged")
    assert not blocks_of(output).read(0, Box(0, 0, 600, 1300)).any()  # type: ignore[union-attr]


def test_finished_blocks_of_a_part_are_shown_in_their_places(tmp_path: Path) -> None:
    source, output = geotiff(tmp_path / "in.tif", picture(300, 500)), tmp_path / "out.tif"
    tifffile.imwrite(tmp_path / "style.tif", picture(64, 64, seed=3), photometric="rgb")
    options = {"model": "colour", "block": 128, "blocksize": 128, "dtype": "uint8"}
    part = {"region": (100, 50, 260, 200)}
    with pytest.raises(Enough):
        ut.stylize(source, output, tmp_path / "style.tif", progress=stop_at(1), **part, **options)
    found = blocks_of(output)
    assert found is not None and found.shape == (300, 500) and found.total == 6
    row, column = map(
        int, min(found.names).removesuffix(".tif").split("-")
    )  # blocks in flight end in any order
    ut.stylize(source, tmp_path / "whole.tif", tmp_path / "style.tif", **options)
    whole = tifffile.imread(tmp_path / "whole.tif", key=0)
    seen = found.read(0, Box(0, 0, 300, 500))
    block = Box(50 + 128 * row, 100 + 128 * column, 178 + 128 * row, 228 + 128 * column).clip(
        Box(50, 100, 250, 360)
    )
    np.testing.assert_array_equal(seen[block.slices][..., :3], whole[block.slices])
    assert seen[block.slices][..., 3].all() and not seen[:50].any() and not seen[:, :100].any()
    half = Box(block.y0 // 2, block.x0 // 2, block.y1 // 2, block.x1 // 2)
    assert found.read(1, Box(0, 0, 150, 250))[half.slices][..., 3].all()


# Over HTTP


def jobs_of(studio: Served) -> list[dict]:
    return studio.api("status")["queue"]["jobs"]


def make(studio: Served, image: str, output: str) -> int:
    words = {"image": image, "style": STYLE, "output": output}
    status, _, body = studio.ask("api/make", "POST", json.dumps(words))
    assert status == 200, body
    return int(json.loads(body)["number"])


def do(studio: Served, action: str, number: int = 0) -> dict:
    status, _, body = studio.ask("api/queue", "POST", json.dumps({"do": action, "number": number}))
    assert status == 200, body
    return json.loads(body)


def test_a_studio_that_is_killed_leaves_no_job_behind_and_the_next_goes_on(tmp_path: Path) -> None:
    geotiff(tmp_path / "wide.tif", picture(120, 8700))  # three blocks
    geotiff(tmp_path / "small.tif", picture(60, 70))
    parts = tmp_path / "first.tif.job" / "parts"
    with Served("wide.tif", cwd=tmp_path) as studio:
        first, second = make(studio, "wide.tif", "first.tif"), make(studio, "small.tif", "second.tif")
        assert [job["state"] for job in jobs_of(studio)] == ["running", "waiting"]
        (child,) = psutil.Process(studio.process.pid).children()
        assert HUGE_PAGES not in child.environ()  # a job keeps to its plan
        wait_for(lambda: parts.is_dir() and any(parts.glob("*.tif")), 300)
        tile = studio.ask(f"blocks/{first}/8/0_0.png")
        assert tile[0] == 200 and tile[1]["cache-control"] == "no-store"
        studio.process.send_signal(signal.SIGKILL)
        studio.process.wait()
        psutil.wait_procs([child], 60)
        assert not child.is_running()
    kept = {path.name: path.stat().st_mtime_ns for path in parts.glob("*.tif")}
    assert kept and not (tmp_path / "first.tif").exists()
    queue = Queue(tmp_path)  # that of the next studio
    assert [job["state"] for job in queue.state["jobs"]] == ["paused", "paused"]
    taken, never = queue.state["jobs"]
    assert (taken["done"], taken["blocks"], taken["total"], taken["stage"]) == (
        len(kept),
        len(kept),
        3,
        "stylising",
    )
    assert (never["done"], never["blocks"], never["total"], never["stage"]) == (0, 0, 0, "")
    assert not (tmp_path / "second.tif").exists()
    act(queue, {"do": "resume"})
    assert not queue.held
    made = wait_for(lambda: all(job["state"] == "done" for job in queue.state["jobs"]), 300)
    assert made and second
    queue.close()
    ut.stylize(tmp_path / "wide.tif", tmp_path / "right.tif", STYLE)
    assert (tmp_path / "first.tif").read_bytes() == (tmp_path / "right.tif").read_bytes()
    assert (tmp_path / "second.tif").is_file() and not (tmp_path / FILE).exists()


@pytest.mark.slow
def test_pausing_keeps_blocks_and_failures_do_not_stop_the_others(tmp_path: Path) -> None:
    geotiff(tmp_path / "wide.tif", picture(60, 4200))
    geotiff(tmp_path / "gone.tif", picture(60, 70))
    with Served("wide.tif", cwd=tmp_path) as studio:
        first = make(studio, "wide.tif", "first.tif")
        gone = make(studio, "gone.tif", "never.tif")
        assert do(studio, "pause")["held"]
        wait_for(lambda: jobs_of(studio)[0]["state"] == "paused", 60)
        assert studio.ask("api/jobs.toml")[2].count(b"[[jobs]]") == 2
        os.remove(tmp_path / "gone.tif")
        do(studio, "up", gone)
        do(studio, "resume")
        wait_for(lambda: jobs_of(studio)[1]["state"] == "done", 300)
        failed, done = jobs_of(studio)
        assert (failed["number"], failed["state"]) == (gone, "failed") and "gone.tif" in failed["message"]
        assert (done["number"], done["output"]) == (first, "first.tif") and (tmp_path / "first.tif").is_file()
        assert "nothing waits" in studio.trouble("api/jobs.toml")
        assert do(studio, "remove", gone)["jobs"] == [done]
        assert "no such painting" in studio.trouble(f"blocks/{gone}/0/0_0.png")
        assert studio.close() == (0, "")
    assert not (tmp_path / FILE).exists() and not list(tmp_path.glob("*.job"))
