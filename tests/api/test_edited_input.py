"""An input that is edited between two runs of a job, or while it runs, never becomes a mixture of two images;
one that was only touched or copied goes on."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from helpers import geotiff, picture, sha

import urst_tiles as ut
from urst_tiles.api.batch import run_batch
from urst_tiles.api.table import BatchJob
from urst_tiles.errors import DamagedFile, JobDiffers, UrstError
from urst_tiles.job.shard import Shard
from urst_tiles.source import identity, open_source
from urst_tiles.source.picture import write_png

SMALL: dict[str, Any] = {"tile": 128, "block": 256, "thumbnail": 64, "device": "cpu", "threads": 1}
STYLE = "hokusai-wave"


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """Of 256 tiles, not compressed, of which 64 are sampled; 16 blocks."""
    return geotiff(tmp_path / "scene.tif", picture(1000, 1000), tile=(64, 64), compression=None)


def edit(path: Path, *, after_another_time: bool = True) -> None:
    """Invert the pixels of the tiles that are not sampled; neither size nor directories change."""
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        places = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    seen = set(identity._spread(len(places)))
    before, time = open_source(path).fingerprint, path.stat()
    with path.open("r+b") as out:
        for number, (start, count) in enumerate(places):
            if number not in seen:
                out.seek(start)
                data = out.read(count)
                out.seek(start)
                out.write(bytes(255 - byte for byte in data))
    if not after_another_time:
        os.utime(path, ns=(time.st_atime_ns, time.st_mtime_ns))  # the time of the inode tells it
    assert open_source(path).fingerprint == before, "the samples alone do not tell"


def touch(path: Path) -> None:
    os.utime(path, ns=(1, 1))


def copy(path: Path) -> None:
    """Another inode."""
    other = path.with_suffix(".copy")
    shutil.copyfile(path, other)
    other.replace(path)


def half(scene: Path, folder: Path, output: Path) -> None:
    """Half of a job, as a kill leaves it."""
    ut.save_job(folder, scene, output, STYLE, **SMALL)
    ut.work_job(folder, Shard(1, 2))


def goes_on(how: str, scene: Path, folder: Path, output: Path) -> None:
    if how == "stylize":
        ut.stylize(scene, output, STYLE, job_dir=folder, **SMALL)
    elif how == "plan":
        ut.save_job(folder, scene, output, STYLE, **SMALL)
    elif how == "work":
        ut.work_job(folder)
    else:
        ut.assemble_job(folder)


@pytest.mark.parametrize("again", [True, False])
@pytest.mark.parametrize("how", ["stylize", "work", "assemble"])
def test_an_edited_input_is_refused(how: str, again: bool, scene: Path, tmp_path: Path) -> None:
    folder, output = tmp_path / "job", tmp_path / "out.tif"
    half(scene, folder, output)
    if how == "assemble":
        ut.work_job(folder)
    edit(scene, after_another_time=again)
    with pytest.raises(
        JobDiffers, match=r"scene\.tif was edited since this job began; put it back .* --over"
    ):
        goes_on(how, scene, folder, output)
    assert not output.exists()


def test_overwriting_makes_the_edited_image(scene: Path, tmp_path: Path) -> None:
    folder, output = tmp_path / "job", tmp_path / "out.tif"
    half(scene, folder, output)
    edit(scene)
    ut.stylize(scene, output, STYLE, job_dir=folder, overwrite=True, **SMALL)
    ut.stylize(scene, tmp_path / "good.tif", STYLE, **SMALL)
    assert sha(output) == sha(tmp_path / "good.tif")


class Forgetful(dict[Any, bytes]):
    """Stands for processes that remember nothing of each other."""

    def __contains__(self, key: object) -> bool:
        return False


@pytest.mark.parametrize("change", [touch, copy])
def test_an_untouched_content_goes_on(
    change: Callable[[Path], None], scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is read as a whole once for each change, not for each start."""
    ut.stylize(scene, tmp_path / "good.tif", STYLE, **SMALL)
    folder, output = tmp_path / "job", tmp_path / "out.tif"
    half(scene, folder, output)
    change(scene)
    read: list[Path] = []
    real = identity._file_digest

    def counted(path: Path, *rest: Any) -> bytes:
        read.append(path)
        return real(path, *rest)

    monkeypatch.setattr(identity, "_file_digest", counted)
    monkeypatch.setattr(identity, "_digests", Forgetful())
    assert ut.work_job(folder, Shard(1, 4)).blocks_run == 0 and len(read) == 1
    report = ut.stylize(scene, output, STYLE, job_dir=folder, **SMALL)
    assert report.blocks_kept == 8 and len(read) == 1 and sha(output) == sha(tmp_path / "good.tif")


def test_an_edit_while_blocks_are_made_is_noticed(scene: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.tif"

    def progress(stage: str, done: int, total: int) -> None:
        if stage == "stylising" and done == 3:
            edit(scene)

    with pytest.raises(UrstError, match="was changed while in use|is being changed by another program"):
        ut.stylize(scene, output, STYLE, progress=progress, **SMALL)
    assert not output.exists()


def test_a_source_alone_notices_it_after_preparing(scene: Path, tmp_path: Path) -> None:
    """As a worker does that opens the file only after the edit."""
    source = open_source(scene).prepare(tmp_path / "source")
    edit(scene)
    with pytest.raises(DamagedFile, match="was changed while in use"):
        source.read(ut.Box(0, 0, 64, 64))


def test_an_input_that_was_unpacked_is_looked_at_too(tmp_path: Path) -> None:
    """The copy is whole, but it is one of another image."""
    scene = tmp_path / "scene.png"
    write_png(scene, picture(1600, 1500))
    assert scene.stat().st_size > 65 * identity.SAMPLE_BYTES
    before = open_source(scene)
    before.prepare(tmp_path / "source")
    samples = identity._spread(scene.stat().st_size - identity.SAMPLE_BYTES + 1)
    with scene.open("r+b") as out:
        out.seek(samples[10] + identity.SAMPLE_BYTES)
        out.write(bytes(64))
    assert open_source(scene).fingerprint == before.fingerprint and not before.random_access
    with pytest.raises(JobDiffers, match="was edited since this job began"):
        open_source(scene).prepare(tmp_path / "source")


@pytest.mark.parametrize("change", [edit, touch, copy])
def test_run_skips_only_what_it_made(change: Callable[[Path], None], scene: Path, tmp_path: Path) -> None:
    job = BatchJob(scene, tmp_path / "out.tif", STYLE, STYLE, ut.Options(**SMALL))
    assert [ended.status for ended in run_batch([job])] == ["done"]
    change(scene)
    (ended,) = run_batch([job])
    if change is edit:
        assert ended.status == "failed" and "is not what this request made" in ended.error
        assert [ended.status for ended in run_batch([job], overwrite=True)] == ["done"]
    assert [ended.status for ended in run_batch([job])] == ["skipped"]


def test_a_record_of_before_is_still_a_record(scene: Path, tmp_path: Path) -> None:
    """Records did not hold the content; what they know is compared."""
    job = BatchJob(scene, tmp_path / "out.tif", STYLE, STYLE, ut.Options(**SMALL))
    assert [ended.status for ended in run_batch([job])] == ["done"]
    record = tmp_path / "out.tif.json"
    values = json.loads(record.read_text())
    del values["content"]
    record.write_text(json.dumps(values))
    assert [ended.status for ended in run_batch([job])] == ["skipped"]
    assert "content" in json.loads(record.read_text())


def test_a_file_that_keeps_changing_is_one_sentence(scene: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(path: Path, *_: Any) -> bytes:
        path.touch()
        return np.random.default_rng().bytes(8)

    monkeypatch.setattr(identity, "_file_digest", busy)
    with pytest.raises(DamagedFile, match="is being changed by another program; wait until it is finished"):
        identity.content_of([scene])
